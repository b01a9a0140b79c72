//! Parts that clients ask for over HTTP.

use super::*;

/// How far a direct client may be ahead of what its connection should get: its requests come in bunches.
const CONNECTION_AHEAD: Duration = Duration::from_secs(5);

/// How far help may be ahead of its budget.
const RESCUE_AHEAD: Duration = Duration::from_secs(2);

impl Coordinator {
    /// A part that was asked for over HTTP was ready to be sent after this time: what waiting, reading and hashing take.
    pub fn part_served(&mut self, now: Instant, content: ContentId, took: Duration) {
        self.seen = self.seen.max(now);
        if let Some(swarm) = self.contents.get(&content) {
            // The time is ours, so it is never refused but for being absurd.
            drop(self.quality.class_mut(swarm.class).engine.part_time(self.seen, took));
        }
    }

    /// Whether the server sends a part to whoever shows this secret, or shows none.
    ///
    /// A caller without a secret is an ordinary HTTP client, or a cache in front: it is served while the server's own
    /// thresholds are not passed.
    pub fn authorize_part(
        &mut self,
        now: Instant,
        session: Option<SessionToken>,
        content: ContentId,
        number: PartNumber,
    ) -> PartVerdict {
        self.seen = self.seen.max(now);
        let now = self.seen;
        let Some(session) = session else {
            let Some(swarm) = self.contents.get(&content) else { return PartVerdict::UnknownSession };
            let load = self.quality.load(swarm.class, swarm.reachable());
            return if self.quality.class_mut(swarm.class).engine.serves(now, load) {
                PartVerdict::Serve(Source::ServerDirect)
            } else {
                PartVerdict::Wait {
                    retry_after: self.config.rescue_interval,
                    code: "E_JOIN_FIRST",
                    reason: "the server is at its limits; join over the control channel to be given peers".to_owned(),
                }
            };
        };
        let Some(client) = self.sessions.get(&session).copied() else { return PartVerdict::UnknownSession };
        let until = self.lease_until(now, client);
        let (Some(record), Some(swarm)) = (self.clients.get_mut(&client), self.contents.get_mut(&content)) else {
            return PartVerdict::UnknownSession;
        };
        if record.content != content {
            return PartVerdict::UnknownSession;
        }
        let part_len = swarm.part_len.as_u64();
        let class = self.quality.class_mut(swarm.class);
        let thresholds = class.engine.thresholds();
        let source = if record.mode == Mode::ClientServer {
            // While the server is full, none of its connections takes what the others need.
            if let Err(retry_after) = record.paced.take(now, thresholds.per_connection, part_len, CONNECTION_AHEAD) {
                return PartVerdict::Wait {
                    retry_after,
                    code: "E_CONNECTION_RATE",
                    reason: "the server is full, and this client has got more than its connection's share".to_owned(),
                };
            }
            Source::ServerDirect
        } else if record.granted.contains(&number) {
            Source::ServerGrant
        } else if (record.alone_since.is_none() || !record.reported)
            && self.pushes >= self.config.pushes_in_flight_max
            && swarm.parts_without_holder() > 0
        {
            // Help for each of a large crowd that starves would take the link from what all of them are waiting for.
            return PartVerdict::Wait {
                retry_after: self.config.rescue_interval / 4,
                code: "E_RESCUE_BUDGET",
                reason: "the server is sending the swarm parts that nobody holds; peers will have them soon".to_owned(),
            };
        } else if swarm.known_copies(number) == u32::from(swarm.is_leased(client, number)) {
            // Nobody else could give it; a copy on its way to this very client is none that it could ask for.
            Source::ServerRescue
        } else if now >= record.rescue_at {
            if let Err(retry_after) = class.rescue.take(now, thresholds.rescue, part_len, RESCUE_AHEAD) {
                return PartVerdict::Wait {
                    retry_after,
                    code: "E_RESCUE_BUDGET",
                    reason: "peers hold this part, and what the server has for help is used up for now".to_owned(),
                };
            }
            // Who reaches nobody lives on help alone: as fast as the content requires, not as fast as the server could.
            let alone = record.alone_since.is_some_and(|since| now.since(since) >= ALONE_FOR);
            let floor = alone.then(|| class.engine.config().required_rate.time_for(part_len));
            let needs = [floor, record.top_up_interval, Some(self.config.rescue_interval)];
            let interval = needs.into_iter().flatten().min().unwrap_or(self.config.rescue_interval);
            record.rescue_at = now + interval;
            Source::ServerRescue
        } else {
            return PartVerdict::Wait {
                retry_after: record.rescue_at.since(now),
                code: "E_RESCUE_BUDGET",
                reason: "peers hold this part, and this client's share of help is used up for now".to_owned(),
            };
        };
        swarm.lease(client, number, until);
        self.leased.insert(content);
        PartVerdict::Serve(source)
    }
}
