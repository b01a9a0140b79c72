//! Part ids: what is known, what was asked for, and the parts that wait for theirs.

use crate::{Config, PartSource};
use bytes::Bytes;
use hybrid_manifest::{ExpectedPart, HashProof, Manifest, PartIds, PartNumber, PartRange};
use hybrid_units::{Duration, Instant};
use std::collections::BTreeMap;

/// How long an answer may take before the ids are asked for again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The pause after a failure that named none.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Requests for ids under way at one time: a second one hides the round trip of the first.
const REQUESTS: usize = 2;

/// Runs of ids that wait to be asked for; further needs come up again with the next part.
const WANTED_MAX: usize = 256;

/// Proofs that one answer may hold: a run of parts crosses at most so many segments.
const PROOFS_MAX: usize = 512;

#[derive(Debug)]
pub(crate) struct Hashes {
    ids: PartIds,
    in_manifest: bool,
    per_request: u32,
    part_count: u32,
    /// The first part of each run that is wanted, and when it was asked for.
    wanted: BTreeMap<PartNumber, Option<Instant>>,
    retry_at: Instant,
    parked: BTreeMap<PartNumber, (PartSource, Bytes)>,
    parked_bytes: usize,
    parked_bytes_max: usize,
}

impl Hashes {
    pub(crate) fn new(manifest: &Manifest, config: &Config) -> Self {
        Self {
            ids: PartIds::new(manifest),
            in_manifest: manifest.part_ids().is_some(),
            per_request: config.hashes_per_request.max(1),
            part_count: manifest.layout().part_count(),
            wanted: BTreeMap::new(),
            retry_at: Instant::ZERO,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            parked_bytes_max: config.parked_bytes_max,
        }
    }

    /// How many more parts of unknown id may be on their way, so that all of them could wait here for their ids.
    pub(crate) fn room_for_unknown(&self, in_flight: usize, part_bytes: u64) -> usize {
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX).max(1);
        (self.parked_bytes_max.saturating_sub(self.parked_bytes) / part_bytes).saturating_sub(in_flight)
    }

    /// Whether the manifest carries the ids of all parts, so that none is ever unknown.
    pub(crate) fn are_in_manifest(&self) -> bool {
        self.in_manifest
    }

    pub(crate) fn is_known(&self, number: PartNumber) -> bool {
        self.in_manifest || self.ids.id(number).is_some()
    }

    /// Throws away a part that waits for its id.
    pub(crate) fn drop_parked(&mut self, number: PartNumber) {
        if let Some((_, bytes)) = self.parked.remove(&number) {
            self.parked_bytes -= bytes.len();
        }
    }

    pub(crate) fn expect(&self, number: PartNumber) -> Option<ExpectedPart> {
        self.ids.expect(number)
    }

    /// Proofs for a peer that asks, as far as they can be given.
    pub(crate) fn prove(&self, range: PartRange) -> Option<HashProof> {
        self.ids.prove(range)
    }

    /// Says that a part's id will be needed; asks for the whole run that it lies in.
    pub(crate) fn want(&mut self, number: PartNumber) {
        if self.ids.expect(number).is_some() || self.wanted.len() >= WANTED_MAX {
            return;
        }
        let first = PartNumber::new(number.as_u32() - number.as_u32() % self.per_request);
        self.wanted.entry(first).or_insert(None);
    }

    /// The next run to ask for, if one is due.
    pub(crate) fn next_request(&mut self, now: Instant) -> Option<PartRange> {
        let under_way = |asked: &Option<Instant>| asked.is_some_and(|since| now.since(since) < ANSWER_WITHIN);
        if now < self.retry_at || self.wanted.values().filter(|asked| under_way(asked)).count() >= REQUESTS {
            return None;
        }
        let (first, asked) = self.wanted.iter_mut().find(|(_, asked)| !under_way(asked))?;
        *asked = Some(now);
        PartRange::new(*first, self.per_request.min(self.part_count - first.as_u32()))
    }

    /// When [`Self::next_request`] may have something again.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let under_way = || self.wanted.values().copied().flatten();
        let waiting = self.wanted.len() > under_way().count() && under_way().count() < REQUESTS;
        let answers = under_way().min().map(|since| since + ANSWER_WITHIN);
        answers.into_iter().chain(waiting.then_some(self.retry_at)).min()
    }

    pub(crate) fn failed(&mut self, now: Instant, retry_after: Option<Duration>) {
        self.retry_at = now + retry_after.unwrap_or(RETRY_AFTER);
        for asked in self.wanted.values_mut() {
            *asked = None;
        }
    }

    /// Takes encoded proofs; `false` if any of them is not what it says.
    pub(crate) fn learn(&mut self, mut encoded: &[u8]) -> bool {
        let mut good = true;
        for _ in 0..PROOFS_MAX {
            if encoded.is_empty() {
                break;
            }
            let learnt = HashProof::decode(encoded).ok().and_then(|(proof, rest)| {
                self.ids.insert(&proof).ok()?;
                Some(rest)
            });
            match learnt {
                Some(rest) => encoded = rest,
                None => {
                    good = false;
                    break;
                }
            }
        }
        let (ids, per_request, part_count) = (&self.ids, self.per_request, self.part_count);
        self.wanted.retain(|first, _| {
            let end = first.as_u32().saturating_add(per_request).min(part_count);
            (first.as_u32()..end).any(|number| ids.expect(PartNumber::new(number)).is_none())
        });
        good && encoded.is_empty()
    }

    /// Keeps a part until its id is known; gives it back if there is no room.
    pub(crate) fn park(&mut self, number: PartNumber, source: PartSource, bytes: Bytes) -> Result<(), Bytes> {
        if self.parked_bytes + bytes.len() > self.parked_bytes_max || self.parked.contains_key(&number) {
            return Err(bytes);
        }
        self.parked_bytes += bytes.len();
        self.parked.insert(number, (source, bytes));
        Ok(())
    }

    /// A parked part whose id is known by now.
    pub(crate) fn unpark(&mut self) -> Option<(PartSource, ExpectedPart, Bytes)> {
        let (number, expected) = self.parked.keys().find_map(|number| Some((*number, self.ids.expect(*number)?)))?;
        let (source, bytes) = self.parked.remove(&number)?;
        self.parked_bytes -= bytes.len();
        Some((source, expected, bytes))
    }
}
