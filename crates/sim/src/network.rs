//! Links and the transfers on them: who sends to whom, how fast, and when it is done.
//!
//! A host's uplink is shared equally by the transfers that it sends, but for those that cannot use their share: what these
//! leave goes to the others.
//! A transfer is held back by its pace and by an equal share of its receiver's downlink.
//! (What a receiver's slow senders leave of its downlink goes to nobody, which is on the safe side of a fair division.)

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times and bytes far below 2^53")]

use crate::queue::{HostId, LinkId};
use hybrid_units::{Duration, Instant};

/// The server's place among the hosts.
pub(crate) const SERVER: HostId = 0;

/// A transfer by its place in the table.
pub(crate) type TransferId = u32;

/// Two steps of the clock.
const ROUNDING: Duration = Duration::from_micros(2);

/// Rates that differ by less are the same.
const SAME: f64 = 1e-9;

/// As what a part travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A peer answers a request, or sends a part unasked.
    Peer { from_link: LinkId, to_link: LinkId, pushed: bool },
    /// The server answers a request.
    Fetch { incarnation: u32 },
    /// The server sends a part unasked.
    Push { incarnation: u32 },
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) number: u32,
    pub(crate) bytes: u32,
    pub(crate) kind: Kind,
    /// Bytes per second at most; infinite if it is no limit.
    pub(crate) pace: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) pace: f64,
    length: f64,
    left: f64,
    rate: f64,
    settled: Instant,
    live: bool,
}

impl Transfer {
    /// When its last byte leaves, at the rate that it has.
    fn ends(&self) -> Option<Instant> {
        let micros = (self.left / self.rate * 1e6).ceil();
        (self.rate > 0.0 && micros < 1e15).then(|| Instant::from_micros(self.settled.as_micros() + micros as u64))
    }

    /// Bytes that have gone out.
    pub(crate) fn sent(&self) -> u64 {
        (self.length - self.left).round() as u64
    }
}

/// One host's link to the network.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Bytes per second.
    pub(crate) up: f64,
    /// Bytes per second; infinite if it is no limit.
    pub(crate) down: f64,
    pub(crate) sending: Vec<TransferId>,
    pub(crate) receiving: Vec<TransferId>,
    /// Bytes sent, of transfers that were cut short too.
    pub(crate) sent: f64,
    /// Counts the times at which the next end of what it sends was found to be another one.
    version: u32,
}

/// The first of a host's transfers ends at another time than was thought: to be put into the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) sender: HostId,
    pub(crate) version: u32,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) ends: Vec<End>,
    transfers: Vec<Transfer>,
    free: Vec<TransferId>,
    /// Times at which the next transfers of hosts end, since they were last taken.
    pub(crate) due: Vec<Due>,
    scratch: Vec<(f64, TransferId)>,
}

impl Network {
    pub(crate) fn new(ends: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let end = |(up, down)| End { up, down, sending: Vec::new(), receiving: Vec::new(), sent: 0.0, version: 0 };
        Self {
            ends: ends.into_iter().map(end).collect(),
            transfers: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn end(&self, host: HostId) -> &End {
        &self.ends[host as usize]
    }

    fn end_mut(&mut self, host: HostId) -> &mut End {
        &mut self.ends[host as usize]
    }

    pub(crate) fn transfer(&self, id: TransferId) -> &Transfer {
        &self.transfers[id as usize]
    }

    /// Begins to send; when to look at the sender's transfers comes in `due`.
    pub(crate) fn begin(&mut self, now: Instant, from: HostId, to: HostId, load: Load) -> TransferId {
        let Load { number, bytes, kind, pace } = load;
        let length = f64::from(bytes);
        let transfer = Transfer {
            from,
            to,
            number,
            kind,
            began: now,
            pace,
            length,
            left: length,
            rate: 0.0,
            settled: now,
            live: true,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.transfers[id as usize] = transfer;
                id
            }
            None => {
                self.transfers.push(transfer);
                (self.transfers.len() - 1) as TransferId
            }
        };
        self.end_mut(from).sending.push(id);
        self.end_mut(to).receiving.push(id);
        self.share(now, from, to);
        id
    }

    /// A transfer of this sender whose last byte leaves now; `None` if there is none, or if this was planned before its rates
    /// changed.
    pub(crate) fn ended(&mut self, now: Instant, sender: HostId, version: u32) -> Option<TransferId> {
        if self.end(sender).version != version {
            return None;
        }
        // Counting what was sent in between may have moved the end by the rounding of a microsecond.
        let until = now + ROUNDING;
        let ended = |id: &&TransferId| self.transfer(**id).ends().is_some_and(|at| at <= until);
        let ended = self.end(sender).sending.iter().find(ended).copied();
        assert!(ended.is_some(), "the end of a transfer of host {sender} was lost");
        ended
    }

    /// Ends a transfer, whole or cut short, and says what it was.
    pub(crate) fn finish(&mut self, now: Instant, id: TransferId, whole: bool) -> Transfer {
        self.settle(now, id);
        if whole {
            let left = std::mem::take(&mut self.transfers[id as usize].left);
            let from = self.transfers[id as usize].from;
            self.end_mut(from).sent += left;
        }
        let transfer = self.transfers[id as usize].clone();
        self.transfers[id as usize].live = false;
        self.free.push(id);
        self.end_mut(transfer.from).sending.retain(|other| *other != id);
        self.end_mut(transfer.to).receiving.retain(|other| *other != id);
        self.share(now, transfer.from, transfer.to);
        transfer
    }

    /// A host's uplink changes.
    pub(crate) fn set_up(&mut self, now: Instant, host: HostId, up: f64) {
        self.end_mut(host).up = up;
        self.share_uplink(now, host);
    }

    /// Counts what was sent until now.
    fn settle(&mut self, now: Instant, id: TransferId) {
        let transfer = &mut self.transfers[id as usize];
        let moved = (transfer.rate * now.since(transfer.settled).as_secs_f64()).min(transfer.left);
        transfer.left -= moved;
        transfer.settled = now;
        let from = transfer.from;
        self.end_mut(from).sent += moved;
    }

    /// Counts what each has sent until now.
    pub(crate) fn settle_all(&mut self, now: Instant) {
        for id in 0..self.transfers.len() {
            if self.transfers[id].live {
                self.settle(now, id as TransferId);
            }
        }
    }

    /// Counts what one host has sent until now.
    pub(crate) fn settle_sender(&mut self, now: Instant, host: HostId) {
        for index in 0..self.end(host).sending.len() {
            let id = self.end(host).sending[index];
            self.settle(now, id);
        }
    }

    /// Bytes that transfers have sent that are not done.
    pub(crate) fn under_way(&self) -> u64 {
        self.transfers.iter().filter(|transfer| transfer.live).map(Transfer::sent).sum()
    }

    /// Divides anew after a transfer between these two began or ended.
    fn share(&mut self, now: Instant, from: HostId, to: HostId) {
        self.share_uplink(now, from);
        if !self.end(to).down.is_finite() {
            return;
        }
        // The others' shares of the receiver's downlink have changed.
        for index in 0..self.end(to).receiving.len() {
            let sender = self.transfer(self.end(to).receiving[index]).from;
            if sender != from {
                self.share_uplink(now, sender);
            }
        }
    }

    /// Divides a host's uplink among its transfers: first those that can use least.
    fn share_uplink(&mut self, now: Instant, from: HostId) {
        let mut caps = std::mem::take(&mut self.scratch);
        caps.clear();
        for id in &self.end(from).sending {
            let transfer = self.transfer(*id);
            let receiver = self.end(transfer.to);
            caps.push((transfer.pace.min(receiver.down / receiver.receiving.len() as f64), *id));
        }
        if caps.len() > 1 {
            caps.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let mut left = self.end(from).up;
        let mut others = caps.len() as f64;
        for (cap, id) in &caps {
            let rate = (left / others).min(*cap).max(0.0);
            left -= rate;
            others -= 1.0;
            self.set_rate(now, *id, rate);
        }
        let next = caps.iter().filter_map(|(_, id)| self.transfer(*id).ends()).min();
        self.scratch = caps;
        let end = self.end_mut(from);
        end.version = end.version.wrapping_add(1);
        let version = end.version;
        if let Some(at) = next {
            self.due.push(Due { at: at.max(now), sender: from, version });
        }
    }

    fn set_rate(&mut self, now: Instant, id: TransferId, rate: f64) {
        let before = self.transfers[id as usize].rate;
        if before > 0.0 && (before - rate).abs() <= SAME * before {
            return;
        }
        self.settle(now, id);
        self.transfers[id as usize].rate = rate;
    }

    /// Panics if links carry more than they can, or bytes come from nowhere.
    pub(crate) fn check_invariants(&self) {
        let sum = |ids: &[TransferId]| ids.iter().map(|id| self.transfer(*id).rate).sum::<f64>();
        for (host, end) in self.ends.iter().enumerate() {
            let (up, down) = (sum(&end.sending), sum(&end.receiving));
            assert!(up <= end.up * (1.0 + 1e-6), "host {host} sends {up} of {} bytes/s", end.up);
            assert!(down <= end.down * (1.0 + 1e-6), "host {host} receives {down} of {} bytes/s", end.down);
            for id in &end.sending {
                let transfer = self.transfer(*id);
                assert!(transfer.live && transfer.from as usize == host, "a transfer in the wrong list");
                assert!(self.end(transfer.to).receiving.contains(id), "a transfer that nobody receives");
                assert!((0.0..=transfer.length).contains(&transfer.left), "{} bytes left", transfer.left);
                assert!(transfer.rate <= transfer.pace * (1.0 + 1e-6), "faster than its pace");
            }
        }
        let live = self.transfers.iter().filter(|transfer| transfer.live).count();
        let sending: usize = self.ends.iter().map(|end| end.sending.len()).sum();
        let receiving: usize = self.ends.iter().map(|end| end.receiving.len()).sum();
        assert_eq!((live, live), (sending, receiving), "each transfer has one sender and one receiver");
        assert_eq!(live + self.free.len(), self.transfers.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f64 = f64::INFINITY;

    fn load(bytes: u32, pace: f64) -> Load {
        Load { number: 0, bytes, kind: Kind::Fetch { incarnation: 0 }, pace }
    }

    /// The end of a transfer as it is known now.
    fn end_of(network: &Network, id: TransferId) -> Option<u64> {
        network.transfer(id).ends().map(Instant::as_micros)
    }

    #[test]
    fn an_uplink_is_shared() {
        let mut network = Network::new([(1_000.0, NEVER), (1_000.0, NEVER), (1_000.0, NEVER)]);
        let first = network.begin(Instant::ZERO, 0, 1, load(1_000, NEVER));
        assert_eq!(end_of(&network, first), Some(1_000_000));
        // Half is sent when the second one comes; both get half from then on.
        let half = Instant::from_micros(500_000);
        let second = network.begin(half, 0, 2, load(1_000, NEVER));
        assert_eq!(end_of(&network, first), Some(1_500_000));
        assert_eq!(end_of(&network, second), Some(2_500_000));
        let then = Instant::from_micros(1_500_000);
        assert_eq!(network.finish(then, first, true).sent(), 1_000);
        assert_eq!(end_of(&network, second), Some(2_000_000));
        assert_eq!(network.finish(Instant::from_micros(1_750_000), second, false).sent(), 750);
        assert!((network.end(0).sent - 1_750.0).abs() < 1e-6);
        network.check_invariants();
    }

    #[test]
    fn what_one_cannot_use_goes_to_the_others() {
        let mut network = Network::new([(900.0, NEVER), (0.0, 100.0), (0.0, NEVER), (0.0, NEVER)]);
        let slow = network.begin(Instant::ZERO, 0, 1, load(100, NEVER));
        let paced = network.begin(Instant::ZERO, 0, 2, load(200, 200.0));
        let fast = network.begin(Instant::ZERO, 0, 3, load(600, NEVER));
        for id in [slow, paced, fast] {
            assert_eq!(end_of(&network, id), Some(1_000_000));
        }
        network.check_invariants();
    }

    #[test]
    fn a_downlink_is_shared() {
        let mut network = Network::new([(1_000.0, NEVER), (1_000.0, NEVER), (0.0, 1_000.0)]);
        let first = network.begin(Instant::ZERO, 0, 2, load(1_000, NEVER));
        let second = network.begin(Instant::ZERO, 1, 2, load(1_000, NEVER));
        assert_eq!((end_of(&network, first), end_of(&network, second)), (Some(2_000_000), Some(2_000_000)));
        network.finish(Instant::from_micros(1_000_000), first, false);
        assert_eq!(end_of(&network, second), Some(1_500_000));
        network.check_invariants();
    }
}
