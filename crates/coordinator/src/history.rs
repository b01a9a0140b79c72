//! What happened to clients, newest last, for whoever wants to know why.

use crate::Event;
use hybrid_manifest::ContentId;
use hybrid_units::Instant;
use hybrid_wire::PeerId;
use std::collections::VecDeque;

/// An event, when it was, and whom and what it was about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// Counted from 0; a gap means that events were dropped.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// The content.
    pub content: ContentId,
    /// The client's key.
    pub peer: PeerId,
    /// What happened.
    pub event: Event,
}

/// The last events; older ones are dropped.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Recorded>,
    max: usize,
    next: u64,
}

impl History {
    pub(crate) fn new(max: usize) -> Self {
        Self { events: VecDeque::new(), max, next: 0 }
    }

    pub(crate) fn push(&mut self, at: Instant, content: ContentId, peer: PeerId, event: Event) {
        let number = self.next;
        self.next += 1;
        if self.max == 0 {
            return;
        }
        if self.events.len() >= self.max {
            self.events.pop_front();
        }
        self.events.push_back(Recorded { number, at, content, peer, event });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Recorded> {
        self.events.iter()
    }
}
