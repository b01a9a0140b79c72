//! Telling the neighbours what came.
//!
//! An announcement is an offer: it is worth its bytes when this client has time to serve.
//! While enough requests wait here, parts are announced several at a time.

use crate::{Output, Session};
use hybrid_manifest::PartNumber;
use hybrid_units::{Duration, Instant};
use hybrid_wire::PartRanges;
use hybrid_wire::peer::{Have, PeerMessage};
use std::collections::BTreeSet;

/// For how long a part may go unannounced: three parts of a client that gets 10 Mbit/s in parts of 64 KiB. With 50 ms the
/// harness of `docs/PERFORMANCE.md` gave 1.23 times the bound instead of 1.20 to 1.21 (one run).
const GATHER: Duration = Duration::from_millis(150);

/// Requests that wait here below which parts are announced at once: fewer may be gone before an announcement brings others.
const BUSY_ENOUGH: u8 = 3;

/// Parts that are announced at once whatever else: as many as one message is sure to take.
const GATHERED_MAX: usize = 256;

/// Parts that came and were not announced yet: as many as the content has, at most.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    parts: BTreeSet<PartNumber>,
    since: Option<Instant>,
}

impl Announcements {
    pub(crate) fn add(&mut self, now: Instant, number: PartNumber) {
        self.parts.insert(number);
        self.since.get_or_insert(now);
    }

    pub(crate) fn remove(&mut self, number: PartNumber) {
        self.parts.remove(&number);
    }

    /// There is something to offer again.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.since = (!self.parts.is_empty()).then_some(now);
    }

    pub(crate) fn due(&self) -> Instant {
        self.since.map_or(Instant::FAR_FUTURE, |since| since + GATHER)
    }
}

impl Session {
    /// Announces what came, if it is time.
    pub(crate) fn announce(&mut self, now: Instant) {
        if self.announcements.since.is_none() {
            return;
        }
        let queue = self.uploads.queue();
        let many = self.announcements.parts.len() >= GATHERED_MAX;
        if queue >= BUSY_ENOUGH && now < self.announcements.due() && !many {
            return;
        }
        self.announcements.since = None;
        if !self.serves() && self.config.upload {
            // They are offered when this client serves again.
            return;
        }
        let parts = std::mem::take(&mut self.announcements.parts);
        if !self.serves() || self.stopped {
            return;
        }
        for (id, connection) in self.connections.iter() {
            let lacks = |number: &PartNumber| !connection.has.contains(*number) && connection.pushing != Some(*number);
            // One message does not hold any set of parts that came in hours.
            let mut from = PartNumber::new(0);
            loop {
                let news = PartRanges::from_ascending(parts.range(from..).copied().filter(lacks));
                if news.is_empty() {
                    break;
                }
                from = news.end();
                let have = Have { parts: news, queue };
                self.out.push_back(Output::SendPeer { connection: id, message: PeerMessage::Have(have) });
            }
        }
    }
}
