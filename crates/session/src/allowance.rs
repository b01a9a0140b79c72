//! What this client may still send to peers: its user's caps, and when it is told to send nothing.
//!
//! A part is charged with its whole length when it begins, so what goes out never exceeds a cap; what was not sent of it is
//! given back when it ends.
//! The server has no say in this: its limits only come on top.

use crate::progress::UploadsOff;
use crate::{Config, ConnectionId, Output, Session};
use hybrid_manifest::PartNumber;
use hybrid_units::{ByteCount, Duration, Instant, Ratio};
use hybrid_wire::control::{ClientMessage, Uploads};
use hybrid_wire::peer::{PartReply, PeerMessage};

/// Parts that may be sent beyond the ratio, so that a newcomer gives from its first second: as many as begin at once before it
/// is known how long one takes. With one, the uplink would idle while its last bytes are acknowledged.
const HEAD_START: u64 = 2;

/// Parts for which there must be room before a client that had used up its ratio serves again, as long as more comes: with one,
/// it would begin and cease with each part that comes, and tell all its neighbours each time.
const RESUME_PARTS: u64 = 8;

/// Parts under way of which the end is awaited. There are 16 at most, and those of connections that have just ended; of what a
/// driver never tells, the oldest stay charged in full.
const UNDER_WAY_MAX: usize = 256;

/// When to ask again a client that may soon serve again.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// When to ask again a client that may not serve for hours: as late as one that asks takes to heart. If it serves again before,
/// it says so.
const RETRY_LATE: Duration = Duration::from_secs(30);

/// How often the server is told at most: it forgets and learns again what a client holds each time.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why a driver has its session send nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new reason must be told everywhere")]
pub enum UploadPause {
    /// These are not the hours in which the user lets it.
    Hours,
    /// The user pays for each byte.
    Metered,
}

#[derive(Debug)]
pub(crate) struct Allowance {
    volume_max: Option<u64>,
    ratio_max: Option<Ratio>,
    /// The longest part of the content.
    part_bytes: u64,
    /// Bytes that were sent, and all of the parts under way.
    charged: u64,
    /// Verified bytes that came in this session.
    received: u64,
    under_way: Vec<(ConnectionId, PartNumber, u64)>,
    /// Which cap leaves no room.
    spent: Option<UploadsOff>,
    pause: Option<UploadPause>,
    /// Whether neighbours were served when that was last looked at.
    serving: bool,
    /// What the server was told last, and when it may be told again.
    told: bool,
    tell_at: Instant,
}

impl Allowance {
    pub(crate) fn new(config: &Config, part_bytes: u64) -> Self {
        let mut allowance = Self {
            volume_max: config.upload_volume_max.map(ByteCount::as_u64),
            ratio_max: config.upload_ratio_max,
            part_bytes,
            charged: 0,
            received: 0,
            under_way: Vec::new(),
            spent: None,
            pause: None,
            serving: false,
            told: false,
            tell_at: Instant::ZERO,
        };
        allowance.refresh(false);
        allowance
    }

    /// What may have been sent by now, all told; `None` without a cap.
    pub(crate) fn max(&self) -> Option<u64> {
        self.volume_max.into_iter().chain(self.ratio_allows()).min()
    }

    fn ratio_allows(&self) -> Option<u64> {
        Some(self.ratio_max?.of(self.received).saturating_add(HEAD_START * self.part_bytes))
    }

    /// Whether a part of any length fits.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    fn has_room_for(&self, parts: u64) -> bool {
        self.max().is_none_or(|max| max.saturating_sub(self.charged) >= parts * self.part_bytes)
    }

    /// Looks at the caps again; `complete` says that nothing more will come.
    fn refresh(&mut self, complete: bool) {
        let room = |max: Option<u64>| max.map_or(u64::MAX, |max| max.saturating_sub(self.charged));
        let resumes = self.spent == Some(UploadsOff::Ratio) && !complete;
        let ratio_needs = self.part_bytes * if resumes { RESUME_PARTS } else { 1 };
        self.spent = if room(self.volume_max) < self.part_bytes {
            Some(UploadsOff::Volume)
        } else if room(self.ratio_allows()) < ratio_needs {
            Some(UploadsOff::Ratio)
        } else {
            None
        };
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    pub(crate) fn begin(&mut self, connection: ConnectionId, number: PartNumber, bytes: u64) {
        self.charged = self.charged.saturating_add(bytes);
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.under_way.remove(0);
        }
        self.under_way.push((connection, number, bytes));
    }

    /// A part ended, of which so much was sent.
    pub(crate) fn end(&mut self, connection: ConnectionId, number: PartNumber, sent_bytes: u64) {
        let begun = self.under_way.iter().position(|(of, which, _)| (*of, *which) == (connection, number));
        if let Some((_, _, bytes)) = begun.map(|place| self.under_way.remove(place)) {
            self.charged = (self.charged - bytes).saturating_add(sent_bytes);
        }
    }

    pub(crate) fn pause(&mut self, pause: Option<UploadPause>) {
        self.pause = pause;
    }

    /// What keeps this client itself from serving, whatever the server says.
    fn off(&self) -> Option<UploadsOff> {
        let pause = self.pause.map(|pause| match pause {
            UploadPause::Hours => UploadsOff::Hours,
            UploadPause::Metered => UploadsOff::Metered,
        });
        // What will not end comes before what will.
        let volume = self.spent.filter(|spent| *spent == UploadsOff::Volume);
        volume.or(pause).or(self.spent)
    }

    pub(crate) fn check_invariants(&self) {
        let under_way: u64 = self.under_way.iter().map(|(_, _, bytes)| bytes).sum();
        assert!(under_way <= self.charged, "{under_way} bytes are under way and {} charged", self.charged);
        assert!(self.under_way.len() <= UNDER_WAY_MAX);
    }
}

impl Session {
    /// Why nothing is sent to peers; `None` while it is.
    pub(crate) fn uploads_off(&self) -> Option<UploadsOff> {
        if !self.config.upload {
            return Some(UploadsOff::NoUpload);
        }
        let server = || (self.limits.uploads_max == 0).then_some(UploadsOff::Server);
        self.allowance.off().or_else(server)
    }

    /// Whether parts are sent to peers at all: if the user allows it, and the server gives receivers.
    pub(crate) fn serves(&self) -> bool {
        self.uploads_off().is_none()
    }

    /// Whether this client would serve, whatever the server says: what the server is told.
    pub(crate) fn would_serve(&self) -> bool {
        self.config.upload && self.allowance.off().is_none()
    }

    /// A join told the server.
    pub(crate) fn uploads_told(&mut self) {
        self.allowance.told = self.would_serve();
        self.allowance.tell_at = self.seen;
    }

    /// When the server is due to be told of a change.
    pub(crate) fn uploads_tell_at(&self) -> Option<Instant> {
        let news = self.server_reachable() && self.would_serve() != self.allowance.told;
        news.then_some(self.allowance.tell_at)
    }

    /// Looks whether there is something to begin or cease, and tells those who should know.
    pub(crate) fn mind_uploads(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        let complete = self.is_complete();
        self.allowance.refresh(complete);
        let serves = self.serves();
        if std::mem::replace(&mut self.allowance.serving, serves) != serves {
            if serves { self.resume_uploads(now) } else { self.refuse_waiting() }
        }
        if self.uploads_tell_at().is_some_and(|at| now >= at) {
            let on = self.would_serve();
            (self.allowance.told, self.allowance.tell_at) = (on, now + TELL_EVERY);
            self.out.push_back(Output::SendControl(ClientMessage::Uploads(Uploads { on })));
        }
    }

    /// The answer to a request that this client could serve, and may not.
    pub(crate) fn refusal(&self, off: UploadsOff) -> PartReply {
        let retry_in = match off {
            // Nobody was told that it serves.
            UploadsOff::NoUpload => return PartReply::Gone,
            UploadsOff::Ratio => RETRY_SOON,
            UploadsOff::Volume | UploadsOff::Hours | UploadsOff::Metered | UploadsOff::Server => RETRY_LATE,
        };
        PartReply::Busy { retry_in_ms: u32::try_from(retry_in.as_millis()).unwrap_or(u32::MAX), queue: 0 }
    }

    /// Nobody waits for what will not come.
    fn refuse_waiting(&mut self) {
        let Some(off) = self.uploads_off() else { return };
        for (connection, number) in self.uploads.take_waiting() {
            let reply = self.refusal(off);
            self.out.push_back(Output::RefuseRequest { connection, number, reply });
        }
    }

    /// Neighbours that were refused, or met this client while it did not serve, hear that it does.
    fn resume_uploads(&mut self, now: Instant) {
        self.pushes.due = true;
        self.announcements.resume(now);
        for (connection, neighbour) in self.connections.iter() {
            // Those too that lack nothing that is here: they will, and announcements do not say that this client serves.
            if !neighbour.has.is_full() {
                self.out.push_back(Output::SendPeer { connection, message: PeerMessage::Idle });
            }
        }
    }
}
