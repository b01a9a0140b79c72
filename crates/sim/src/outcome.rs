//! What a run comes to: figures, a row for each client, and a time series.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places in lists")]

use crate::host::Record;
use crate::{Counts, Harm, PlayOutcome, Scenario};
use hybrid_units::{Instant, Mode};
use hybrid_wire::Source;

/// A run's figures. Times are in seconds; those of clients count from their arrivals.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Clients in all; figures of clients are of those that do not misbehave.
    pub peers: u32,
    /// Parts of the content.
    pub parts: u32,
    /// Bytes of the content.
    pub content_bytes: u64,
    /// How long a part takes over the mean uplink.
    pub part_secs: f64,
    /// [`Scenario::bound_secs`].
    pub bound_secs: f64,
    /// The same if the server could not send more than it did: what is left of the distance is not the server's policy.
    pub bound_as_sent_secs: f64,
    /// When the run ended.
    pub end_secs: f64,
    /// Clients that were complete.
    pub complete: u32,
    /// Clients that were not, though they did not go before; those that did not come in time too.
    pub incomplete: u32,
    /// From the first arrival until the last client was complete.
    pub last_secs: f64,
    /// [`Outcome::last_secs`] over [`Outcome::bound_secs`].
    pub last_ratio: f64,
    /// From each client's arrival until it was complete.
    pub completion: Spread,
    /// From each client's arrival until it began to send its first part to a peer, of those that did.
    pub first_upload: Spread,
    /// From each client's arrival until it held a part.
    pub first_part: Spread,
    /// Bytes that the server sent.
    pub server_bytes: u64,
    /// The same over the content's length.
    pub server_copies: f64,
    /// Bytes that peers sent.
    pub peer_bytes: u64,
    /// Stored part bytes, by source in the order of [`Source::ALL`].
    pub received: [u64; Source::ALL.len()],
    /// Bytes that were sent for nothing: cut short, or not wanted any more when they came.
    pub wasted_bytes: u64,
    /// Of all bytes that were sent.
    pub wasted_share: f64,
    /// Of what the uplinks of the clients that were there could have carried until the last was complete, what they did.
    pub uplink_use: f64,
    /// Pauses of more than two seconds in downloads, as clients report them.
    pub stalls: u64,
    /// Messages between peers for each part that was stored.
    pub messages_per_part: f64,
    /// How often what happened.
    pub counts: Counts,
    /// What each that misbehaves did to each other that it met.
    pub harms: Vec<Harm>,
    /// One for each client.
    pub clients: Vec<ClientOutcome>,
    /// How it went.
    pub series: Vec<Moment>,
}

/// How a figure differs between clients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Spread {
    /// Of how many.
    pub count: u32,
    /// The mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// 95 % are below.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

/// One client's figures.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientOutcome {
    /// Whether it misbehaves.
    pub bad: bool,
    /// The mode that it was given at first.
    pub mode: Option<Mode>,
    /// Its uplink in bytes per second.
    pub uplink: f64,
    /// When it came; `None` if it never did.
    pub arrived_secs: Option<f64>,
    /// From its arrival until it was complete.
    pub completion_secs: Option<f64>,
    /// From its arrival until it held a part.
    pub first_part_secs: Option<f64>,
    /// From its arrival until it began to send a part.
    pub first_upload_secs: Option<f64>,
    /// Stored part bytes, by source in the order of [`Source::ALL`].
    pub received: [u64; Source::ALL.len()],
    /// Bytes that it sent to peers.
    pub sent: u64,
    /// Pauses of more than two seconds.
    pub stalls: u32,
    /// How it played, if it came and plays.
    pub play: Option<PlayOutcome>,
}

/// One moment of the time series. Shares are since the moment before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Moment {
    /// When.
    pub secs: f64,
    /// Of what the server's uplink could carry, what it did.
    pub server_use: f64,
    /// The same of the clients that are there.
    pub uplink_use: f64,
    /// Bytes per second that the server sent since the moment before.
    pub server_rate: f64,
    /// The same of all clients together.
    pub peer_rate: f64,
    /// Clients that are there and have not played to the end, if they play.
    pub watching: u32,
    /// Copies that the server has sent until now.
    pub server_copies: f64,
    /// Clients that are there.
    pub here: u32,
    /// Clients that are complete, those that have gone included.
    pub complete: u32,
    /// Events that wait.
    pub queued: u64,
    /// What uplinks are doing at this moment.
    pub idle: Idle,
}

/// What the uplinks of a sample of the clients are doing, or why they do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Idle {
    /// Clients looked at.
    pub looked_at: u32,
    /// A part is being sent.
    pub sending: u32,
    /// Nothing is held yet.
    pub empty: u32,
    /// A part is sent and not acknowledged yet.
    pub unacknowledged: u32,
    /// A request is on its way here.
    pub asked: u32,
    /// A neighbour lacks a part that is held here, and did not ask for it.
    pub not_asked: u32,
    /// Neighbours hold all that is held here, and are not complete.
    pub useless: u32,
    /// All neighbours are complete, or there is none.
    pub neighbours_complete: u32,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(max), count) = (values.last().copied(), values.len()) else { return Self::default() };
        let at = |share: f64| values[((share * count as f64) as usize).min(count - 1)];
        let mean = values.iter().sum::<f64>() / count as f64;
        Self { count: count as u32, mean, p50: at(0.5), p95: at(0.95), max }
    }
}

impl Outcome {
    pub(crate) fn new(
        scenario: &Scenario,
        counts: Counts,
        (series, harms): (Vec<Moment>, Vec<Harm>),
        (server_bytes, wasted_bytes, end): (f64, u64, Instant),
        records: &[Record],
        uplinks: &[f64],
        sent: &[u64],
    ) -> Self {
        let secs = |at: Instant| at.since(Instant::ZERO).as_secs_f64();
        let since = |record: &Record, at: Option<Instant>| Some(at?.since(record.arrived?).as_secs_f64());
        let client = |((record, uplink), sent): ((&Record, &f64), &u64)| ClientOutcome {
            bad: record.bad,
            mode: record.mode,
            uplink: *uplink,
            arrived_secs: record.arrived.map(secs),
            completion_secs: since(record, record.complete),
            first_part_secs: since(record, record.first_part),
            first_upload_secs: since(record, record.first_upload),
            received: record.received,
            sent: *sent,
            stalls: record.stalls,
            play: record.player.as_ref().map(|player| player.outcome(end)),
        };
        let clients: Vec<ClientOutcome> = records.iter().zip(uplinks).zip(sent).map(client).collect();
        let spread = |figure: fn(&ClientOutcome) -> Option<f64>| {
            Spread::of(clients.iter().filter(|client| !client.bad).filter_map(figure).collect())
        };
        let first = records.iter().filter_map(|record| record.arrived).min().map_or(0.0, secs);
        let good = || records.iter().filter(|record| !record.bad);
        let last = good().filter_map(|record| record.complete).max().map_or(0.0, secs);
        let mut received = [0; Source::ALL.len()];
        for client in clients.iter().filter(|client| !client.bad) {
            received.iter_mut().zip(client.received).for_each(|(sum, bytes)| *sum += bytes);
        }
        let content_bytes = scenario.content_bytes();
        let peer_bytes: u64 = sent.iter().sum();
        let bound_secs = scenario.bound_secs() - first;
        let capacity: f64 = clients.iter().filter_map(|c| Some(c.uplink * (last - c.arrived_secs?).max(0.0))).sum();
        let stayed = good().filter(|record| !record.goes);
        let messages = counts.haves + counts.idles + counts.requests + counts.cancels + counts.refusals;
        Self {
            name: scenario.name.clone(),
            seed: scenario.seed,
            peers: scenario.peers,
            parts: scenario.parts,
            content_bytes,
            part_secs: scenario.part_time().as_secs_f64(),
            bound_secs,
            bound_as_sent_secs: (scenario.peers as f64 * content_bytes as f64 - server_bytes)
                / uplinks.iter().sum::<f64>().max(1.0),
            end_secs: secs(end),
            complete: good().filter(|record| record.complete.is_some()).count() as u32,
            incomplete: stayed.filter(|record| record.complete.is_none()).count() as u32,
            last_secs: last - first,
            last_ratio: (last - first) / bound_secs,
            completion: spread(|client| client.completion_secs),
            first_upload: spread(|client| client.first_upload_secs),
            first_part: spread(|client| client.first_part_secs),
            server_bytes: server_bytes as u64,
            server_copies: server_bytes / content_bytes as f64,
            peer_bytes,
            received,
            wasted_bytes,
            wasted_share: wasted_bytes as f64 / (server_bytes + peer_bytes as f64).max(1.0),
            uplink_use: if capacity > 0.0 { peer_bytes as f64 / capacity } else { 0.0 },
            stalls: records.iter().map(|record| u64::from(record.stalls)).sum(),
            messages_per_part: messages as f64 / counts.stored.max(1) as f64,
            counts,
            harms,
            clients,
            series,
        }
    }
}
