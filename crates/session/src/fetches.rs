//! Which parts are held, on their way, or still to be asked for.

use crate::ConnectionId;
use hybrid_manifest::PartNumber;
use hybrid_swarm::PartSet;
use hybrid_wire::{PeerId, Source};
use std::collections::BTreeMap;

/// Who was asked for a part.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// As what the server was asked, if it was.
    pub(crate) server: Option<Source>,
    pub(crate) peers: Vec<ConnectionId>,
}

impl Flight {
    pub(crate) fn sources(&self) -> usize {
        self.peers.len() + usize::from(self.server.is_some())
    }
}

/// Bytes that are here and not yet stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arriving {
    /// The class under which they will count.
    pub(crate) class: Source,
    /// Who sent them, if a peer did: it answers for them even when it has hung up meanwhile.
    pub(crate) peer: Option<PeerId>,
    /// Connected peers that were known to hold it when it came.
    pub(crate) holders: u32,
}

/// Each part is in exactly one state: open, in flight, arriving (its bytes are here, not yet stored), or held.
#[derive(Debug)]
pub(crate) struct Fetches {
    held: PartSet,
    flights: BTreeMap<PartNumber, Flight>,
    arriving: BTreeMap<PartNumber, Arriving>,
    /// By part: under which class a held part counts.
    classes: Vec<Source>,
    /// Held, in flight or arriving: all that is not open.
    taken: PartSet,
    everything: PartSet,
}

impl Fetches {
    pub(crate) fn new(held: PartSet) -> Self {
        let everything = PartSet::full(held.part_count());
        let classes = vec![Source::Store; held.part_count() as usize];
        Self { taken: held.clone(), held, flights: BTreeMap::new(), arriving: BTreeMap::new(), classes, everything }
    }

    pub(crate) fn held(&self) -> &PartSet {
        &self.held
    }

    /// Every part of the content.
    pub(crate) fn everything(&self) -> &PartSet {
        &self.everything
    }

    /// All that is not open.
    pub(crate) fn taken(&self) -> &PartSet {
        &self.taken
    }

    pub(crate) fn is_open(&self, number: PartNumber) -> bool {
        self.everything.contains(number) && !self.taken.contains(number)
    }

    pub(crate) fn any_open(&self) -> bool {
        !self.taken.is_full()
    }

    /// An open part of those that `has` names, the first from `start` on, around the end.
    pub(crate) fn open_from(&self, has: &PartSet, start: PartNumber) -> Option<PartNumber> {
        has.select_missing_from(&self.taken, start)
    }

    /// Any open part, the first from `start` on, around the end.
    pub(crate) fn any_open_from(&self, start: PartNumber) -> Option<PartNumber> {
        self.everything.select_missing_from(&self.taken, start)
    }

    pub(crate) fn flights(&self) -> impl Iterator<Item = (PartNumber, &Flight)> {
        self.flights.iter().map(|(number, flight)| (*number, flight))
    }

    pub(crate) fn flight(&self, number: PartNumber) -> Option<&Flight> {
        self.flights.get(&number)
    }

    pub(crate) fn server_requests(&self) -> usize {
        self.flights.values().filter(|flight| flight.server.is_some()).count()
    }

    /// Parts that the server was asked for as this, and no peer was.
    pub(crate) fn asked_of_server_alone(&self, class: Source) -> Vec<PartNumber> {
        let alone = |flight: &Flight| flight.server == Some(class) && flight.peers.is_empty();
        self.flights.iter().filter(|(_, flight)| alone(flight)).map(|(number, _)| *number).collect()
    }

    pub(crate) fn ask_server(&mut self, number: PartNumber, class: Source) {
        self.taken.insert(number);
        self.flights.entry(number).or_default().server = Some(class);
    }

    pub(crate) fn ask_peer(&mut self, number: PartNumber, connection: ConnectionId) {
        self.taken.insert(number);
        let peers = &mut self.flights.entry(number).or_default().peers;
        if !peers.contains(&connection) {
            peers.push(connection);
        }
    }

    fn reopen_if_unasked(&mut self, number: PartNumber) {
        if self.flights.get(&number).is_some_and(|flight| flight.sources() == 0) {
            self.flights.remove(&number);
            self.taken.remove(number);
        }
    }

    /// The server will not send this part; says whether it had been asked.
    pub(crate) fn server_failed(&mut self, number: PartNumber) -> bool {
        let asked = self.flights.get_mut(&number).and_then(|flight| flight.server.take()).is_some();
        self.reopen_if_unasked(number);
        asked
    }

    /// A peer will not send this part.
    pub(crate) fn peer_failed(&mut self, number: PartNumber, connection: ConnectionId) {
        if let Some(flight) = self.flights.get_mut(&number) {
            flight.peers.retain(|other| *other != connection);
        }
        self.reopen_if_unasked(number);
    }

    /// Bytes of a part are here. Gives who else was asked for it, or `None` if the part is held or arriving already.
    pub(crate) fn arrive(&mut self, number: PartNumber, arriving: Arriving) -> Option<Flight> {
        if self.held.contains(number) || self.arriving.contains_key(&number) {
            return None;
        }
        self.taken.insert(number);
        self.arriving.insert(number, arriving);
        Some(self.flights.remove(&number).unwrap_or_default())
    }

    /// What arrived is not the part, or could not be kept; gives whose bytes they were.
    pub(crate) fn discard(&mut self, number: PartNumber) -> Option<Arriving> {
        let arriving = self.arriving.remove(&number)?;
        self.taken.remove(number);
        Some(arriving)
    }

    /// Parts that a peer sent and that are not stored yet.
    pub(crate) fn arriving_from(&self, peer: PeerId) -> Vec<PartNumber> {
        let of_peer = |(number, arriving): (&PartNumber, &Arriving)| (arriving.peer == Some(peer)).then_some(*number);
        self.arriving.iter().filter_map(of_peer).collect()
    }

    /// An arriving part is stored; gives what was known of it.
    pub(crate) fn stored(&mut self, number: PartNumber) -> Option<Arriving> {
        let arriving = self.arriving.remove(&number)?;
        self.held.insert(number);
        if let Some(counted) = self.classes.get_mut(number.as_index()) {
            *counted = arriving.class;
        }
        Some(arriving)
    }

    /// A held part is gone from the store; gives the class under which it counted, or `None` if it was not held.
    pub(crate) fn lost(&mut self, number: PartNumber) -> Option<Source> {
        if !self.held.remove(number) {
            return None;
        }
        self.taken.remove(number);
        self.classes.get(number.as_index()).copied()
    }

    pub(crate) fn check_invariants(&self) {
        for number in self.everything.iter() {
            let states =
                [self.held.contains(number), self.flights.contains_key(&number), self.arriving.contains_key(&number)];
            let taken = states.iter().filter(|state| **state).count();
            assert!(taken <= 1, "part {number} is in {taken} states");
            assert_eq!(self.taken.contains(number), taken == 1, "part {number} is taken and open at once");
        }
        assert!(self.flights.values().all(|flight| flight.sources() > 0), "a flight that nobody was asked for");
    }
}
