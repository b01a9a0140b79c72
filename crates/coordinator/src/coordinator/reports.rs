//! What clients report, and what they are told for it.

use super::*;
use hybrid_qos::ClientReport;

impl Coordinator {
    pub(super) fn on_report(&mut self, now: Instant, client: ClientId, report: Report) {
        let Some(record) = self.clients.get_mut(&client) else { return };
        let Some(swarm) = self.contents.get_mut(&record.content) else { return };
        let end = report.gained.end().max(report.lost.end());
        if end.as_u32() > swarm.part_count() {
            return self.misbehaved(now, client, "a report of parts beyond the content's end");
        }
        // What the server sent of what was gained: never more than the client can have.
        let mut counted = 0u64;
        for number in report.gained.iter() {
            let sent = swarm.end_lease(client, number);
            if sent {
                counted = counted.saturating_add(swarm.part_len.as_u64());
                record.earned = record.earned.saturating_add(1);
            }
            record.granted.remove(&number);
            record.lapsed = 0;
            swarm.gain(client, record.place, number, sent);
        }
        for number in report.lost.iter() {
            swarm.lose(client, record.place, number);
        }
        let from = |wanted: fn(&Source) -> bool| {
            let bytes = report.received.iter().filter(|(source, _)| wanted(source));
            bytes.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes))
        };
        let from_server =
            from(|source| matches!(source, Source::ServerDirect | Source::ServerGrant | Source::ServerRescue));
        let from_peers = from(|source| *source == Source::Peer);
        for (source, bytes) in &report.received {
            let total = swarm.received.entry(*source).or_default();
            *total = total.saturating_add(*bytes);
        }
        // Two reports at once are no reason to believe in an endless uplink.
        let told_of = now.since(record.reported_at);
        let interval = told_of.max(self.config.report_interval_min / 2);
        let rate = BytesPerSecond::mean(report.sent_bytes, interval).as_u64();
        let known_before = record.uplink_known();
        record.sent_rate = rate.max(record.sent_rate - record.sent_rate / 16);
        swarm.uplinks_known = swarm.uplinks_known.saturating_sub(known_before).saturating_add(record.uplink_known());
        record.reported_at = now;
        record.reported = true;
        record.alone_since = if report.peers > 0 { None } else { Some(record.alone_since.unwrap_or(now)) };
        let complete = swarm.held(client, record.place).is_some_and(PartSet::is_full);
        let completed = complete && !record.complete;
        record.complete = complete;
        record.loss_permille = report.loss_permille.unwrap_or(record.loss_permille);
        record.rate = BytesPerSecond::new(report.download_bytes_per_second);
        record.downloaded = record.downloaded.saturating_add(from_server).saturating_add(from_peers);
        record.stalls = record.stalls.saturating_add(report.stalls);
        record.start_up = record.start_up.or(report.start_up_ms.map(|ms| Duration::from_millis(ms.into())));
        let millis = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
        let each = |peers: &[(PeerId, u32)]| peers.iter().fold(0u32, |sum, (_, count)| sum.saturating_add(*count));
        let service = ClientReport {
            interval: told_of,
            from_server,
            from_peers,
            start_up: record.start_up,
            stalls: report.stalls,
            buffer: millis(report.buffer_ms),
            round_trip: millis(report.rtt_ms),
            loss: report.loss_permille.map(|lost| f64::from(lost) / 1_000.0),
            refused_parts: each(&report.refused),
            bad_parts: each(&report.bad),
            complete,
        };
        let engine = &mut self.quality.class_mut(swarm.class).engine;
        let config = engine.config();
        let sum = record.service.add(now, &service, counted, swarm.part_len.as_u64(), config.required_rate);
        let believed = sum.map_or(Ok(()), |(sum, counted)| {
            engine.report(now, record.observed, &sum, counted)?;
            let direct = record.mode == Mode::ClientServer && !complete;
            match counted.filter(|_| direct) {
                // What the server sent, not what the client says that it got.
                Some(counted) => engine.client_rate(now, BytesPerSecond::mean(counted, sum.interval)),
                None => Ok(()),
            }
        });
        if let Some(top_up) = &mut record.top_up {
            let rate = top_up.update(now, BytesPerSecond::mean(from_peers, interval), service.buffer);
            let lacks = rate > BytesPerSecond::new(0) && !complete;
            record.top_up_interval = lacks.then(|| rate.time_for(swarm.part_len.as_u64()));
        }
        if let Err(error) = believed {
            self.out.push_back(Output::Event(Event::ReportRefused { client, why: error.to_string() }));
        }
        let content = record.content;
        self.hungry.insert(content);
        self.relieve_direct(now, client, BytesPerSecond::new(report.download_bytes_per_second));
        if completed {
            self.record(now, client, Event::Completed { client, content });
            self.tell_experience(now, client);
        }
        for (accused, _) in &report.bad {
            self.accuse(client, *accused);
        }
        self.direct(now, client, report.peers);
    }

    /// What a client had of it, for the comparison of those with peers and those without, when it has the whole or leaves.
    pub(super) fn tell_experience(&mut self, now: Instant, client: ClientId) {
        let Some(record) = self.clients.get(&client) else { return };
        let Some(swarm) = self.contents.get(&record.content) else { return };
        let engine = &mut self.quality.class_mut(swarm.class).engine;
        let with_peers = record.mode == Mode::PeerToPeer;
        // Who changed sides, or is served directly by chance, belongs to neither.
        if engine.config().control_share <= 0.0 || record.moved || !with_peers && !record.control {
            return;
        }
        let elapsed = now.since(record.joined_at);
        let nothing = record.downloaded == 0 && elapsed < Duration::from_secs(1);
        if elapsed.is_zero() || nothing {
            return;
        }
        let experience = Experience {
            start_up: record.start_up.unwrap_or(elapsed),
            rate: BytesPerSecond::mean(record.downloaded, elapsed),
            stalls_per_minute: f64::from(record.stalls) * 60.0 / elapsed.as_secs_f64().max(1.0),
        };
        if let Err(error) = engine.experience(now, with_peers, experience) {
            self.out.push_back(Output::Event(Event::ReportRefused { client, why: error.to_string() }));
        }
    }

    /// Tells a client what has changed for it, if anything has.
    pub(super) fn direct(&mut self, now: Instant, client: ClientId, peers: u16) {
        let Some(record) = self.clients.get(&client) else { return };
        let mut directive = Directive::default();
        let interval = self.report_interval(record.content, record.complete);
        // Small changes are not worth a message.
        if interval > record.interval * 5 / 4 || interval < record.interval * 3 / 4 {
            directive.report_interval_ms = Some(millis(interval));
        }
        if now >= record.renew_at {
            directive.ticket = Some(self.ticket(record));
        }
        let reachable = self.contents.get(&record.content).map_or(0, |swarm| swarm.reachable() as usize);
        let others = reachable.saturating_sub(usize::from(record.coordinates.is_some()));
        let wanted = u16::try_from(others.min(self.edges(record) / 2)).unwrap_or(u16::MAX).max(PEERS_WANTED);
        let lonely = record.mode == Mode::PeerToPeer && !record.complete && peers < wanted;
        let refresh = lonely && now >= record.refresh_at;
        let limits = self.limits(record);
        // Connections come and go with the mean of all; only what a link can serve is worth a message.
        if limits.uploads_max != record.limits.uploads_max {
            directive.limits = Some(limits);
        }
        if refresh {
            directive.peers = self.peer_list(client);
        }
        if directive == Directive::default() {
            return;
        }
        let Some(record) = self.clients.get_mut(&client) else { return };
        if directive.report_interval_ms.is_some() {
            record.interval = interval;
        }
        record.limits = directive.limits.unwrap_or(record.limits);
        if directive.ticket.is_some() {
            // A tenth sooner or later, so that clients who came together do not renew together.
            let half = self.config.ticket_ttl / 2;
            record.renew_at = now + half.mul_f64(self.rng.random_range(0.9..1.1));
        }
        if refresh {
            record.refresh_at = now + REFRESH_INTERVAL;
        }
        self.out.push_back(Output::Send { client, message: ServerMessage::Directive(directive) });
    }
}
