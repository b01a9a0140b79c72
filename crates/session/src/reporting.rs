//! What the next report to the server will say.

use hybrid_manifest::PartNumber;
use hybrid_units::{BytesPerSecond, Duration, Instant};
use hybrid_wire::control::{Report, Vouch};
use hybrid_wire::{PartRanges, PeerId, Source};
use std::collections::{BTreeMap, BTreeSet};

/// Peers of which one report complains; more come with the next one.
const COMPLAINTS: usize = 64;

/// A pause in the download that counts as a stall.
const STALL: Duration = Duration::from_secs(2);

/// Packets of which a share of losses is told: with fewer, one lost packet is more than a hundredth.
const PACKETS_MIN: u64 = 100;

#[derive(Debug)]
pub(crate) struct Reporting {
    interval: Duration,
    due: Instant,
    since: Instant,
    last_part: Option<PartNumber>,
    gained: BTreeSet<PartNumber>,
    lost: BTreeSet<PartNumber>,
    received: BTreeMap<Source, u64>,
    sent_bytes: u64,
    refused: BTreeMap<PeerId, u32>,
    bad: BTreeMap<PeerId, u32>,
    vouches: BTreeSet<PeerId>,
    stalls: u32,
    last_bytes: Instant,
    /// Media ahead of the playhead, once a player has told.
    buffer: Option<Duration>,
    round_trip: Option<Duration>,
    sent_packets: u64,
    lost_packets: u64,
}

impl Reporting {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            interval: Duration::from_secs(1),
            due: Instant::FAR_FUTURE,
            since: now,
            last_part: None,
            gained: BTreeSet::new(),
            lost: BTreeSet::new(),
            received: BTreeMap::new(),
            sent_bytes: 0,
            refused: BTreeMap::new(),
            bad: BTreeMap::new(),
            vouches: BTreeSet::new(),
            stalls: 0,
            last_bytes: now,
            buffer: None,
            round_trip: None,
            sent_packets: 0,
            lost_packets: 0,
        }
    }

    /// From here on the player says what a stall is.
    pub(crate) fn playing(&mut self, buffer: Duration, ran_dry: bool) {
        self.buffer = Some(buffer);
        self.stalls = self.stalls.saturating_add(ran_dry.into());
    }

    pub(crate) fn links(&mut self, round_trip: Option<Duration>, sent_packets: u64, lost_packets: u64) {
        self.round_trip = round_trip;
        self.sent_packets = self.sent_packets.saturating_add(sent_packets);
        self.lost_packets = self.lost_packets.saturating_add(lost_packets);
    }

    /// The share of packets lost since it was told last.
    fn take_loss(&mut self) -> Option<u16> {
        if self.sent_packets < PACKETS_MIN {
            return None;
        }
        let lost = std::mem::take(&mut self.lost_packets).saturating_mul(1_000);
        // Losses are seen after the packets were counted, so there may be more of them than packets.
        u16::try_from((lost / std::mem::take(&mut self.sent_packets)).min(1_000)).ok()
    }

    /// The server told how often; the next report is due one interval from now.
    pub(crate) fn start(&mut self, now: Instant, interval: Duration) {
        self.interval = interval.max(Duration::from_millis(50));
        self.due = now + self.interval;
        self.since = now;
        self.last_bytes = now;
    }

    /// What was gained so far is told with a join instead.
    pub(crate) fn forget_parts(&mut self) {
        self.gained.clear();
        self.lost.clear();
    }

    pub(crate) fn set_interval(&mut self, now: Instant, interval: Duration) {
        self.interval = interval.max(Duration::from_millis(50));
        self.due = self.due.min(now + self.interval);
    }

    pub(crate) fn stop(&mut self) {
        self.due = Instant::FAR_FUTURE;
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Something that the server should know at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if self.due != Instant::FAR_FUTURE {
            self.due = now;
        }
    }

    pub(crate) fn part_gained(&mut self, now: Instant, number: PartNumber, class: Source, bytes: u64) {
        self.last_part = Some(number);
        self.lost.remove(&number);
        self.gained.insert(number);
        *self.received.entry(class).or_default() += bytes;
        if self.buffer.is_none() && now.since(self.last_bytes) > STALL {
            self.stalls = self.stalls.saturating_add(1);
        }
        self.last_bytes = now;
    }

    pub(crate) fn part_lost(&mut self, number: PartNumber) {
        self.gained.remove(&number);
        self.lost.insert(number);
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
    }

    pub(crate) fn refused(&mut self, peer: PeerId) {
        if self.refused.len() < COMPLAINTS || self.refused.contains_key(&peer) {
            *self.refused.entry(peer).or_default() += 1;
        }
    }

    pub(crate) fn bad(&mut self, peer: PeerId) {
        if self.bad.len() < COMPLAINTS || self.bad.contains_key(&peer) {
            *self.bad.entry(peer).or_default() += 1;
        }
    }

    /// A peer sent a first good part.
    pub(crate) fn vouch(&mut self, peer: PeerId) {
        // Of more than there are connections, the server knows enough.
        if self.vouches.len() < COMPLAINTS {
            self.vouches.insert(peer);
        }
    }

    /// Who sent good parts, if that was not said yet.
    pub(crate) fn take_vouch(&mut self) -> Option<Vouch> {
        let peers: Vec<PeerId> = std::mem::take(&mut self.vouches).into_iter().collect();
        (!peers.is_empty()).then_some(Vouch { peers })
    }

    /// The report for what happened since the last one.
    pub(crate) fn take(&mut self, now: Instant, level: u32, peers: u16, start_up: Option<Duration>) -> Report {
        let gained = PartRanges::from_ascending(self.gained.iter().copied());
        let lost = PartRanges::from_ascending(self.lost.iter().copied());
        // What did not fit the message stays for the next one.
        self.gained.retain(|number| *number >= gained.end());
        self.lost.retain(|number| *number >= lost.end());
        let received: Vec<(Source, u64)> = std::mem::take(&mut self.received).into_iter().collect();
        let bytes: u64 = received.iter().filter(|(source, _)| *source != Source::Store).map(|(_, bytes)| bytes).sum();
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let report = Report {
            last_part: self.last_part.map(PartNumber::as_u32),
            level,
            gained,
            lost,
            received,
            sent_bytes: std::mem::take(&mut self.sent_bytes),
            download_bytes_per_second: BytesPerSecond::mean(bytes, now.since(self.since)).as_u64(),
            rtt_ms: self.round_trip.map(millis),
            start_up_ms: start_up.map(millis),
            stalls: std::mem::take(&mut self.stalls),
            buffer_ms: self.buffer.map(millis),
            peers,
            refused: std::mem::take(&mut self.refused).into_iter().collect(),
            bad: std::mem::take(&mut self.bad).into_iter().collect(),
            loss_permille: self.take_loss(),
        };
        self.since = now;
        self.due = if self.due == Instant::FAR_FUTURE { self.due } else { now + self.interval };
        report
    }
}
