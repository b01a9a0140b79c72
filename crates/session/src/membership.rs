//! What the server says, and what it is told.

use crate::session::Membership;
use crate::{ConnectionId, Event, Output, PartSource, Session};
use hybrid_manifest::PartNumber;
use hybrid_units::{Duration, Instant, Mode, UnixTime};
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, Directive, Join, ServerMessage, Want, Welcome};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, UploadContract};

/// Clocks that differ by more are not both right.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

impl Session {
    pub(crate) fn join(&mut self) {
        // A join tells all parts; a report behind it only what came since.
        self.reporting.forget_parts();
        let join = Join {
            version: PROTOCOL_VERSION,
            program: self.config.program.clone(),
            content: self.manifest.content(),
            peer: self.me,
            quic_port: self.config.quic_port.filter(|_| self.config.upload),
            has: PartRanges::from_ascending(self.fetches.held().iter()),
            want: if self.is_complete() { Want::Seed } else { self.config.want },
            contract: UploadContract {
                upload: self.would_serve(),
                rate_limit_bytes_per_second: self.config.upload_limit.map(|limit| limit.as_u64()),
            },
        };
        self.uploads_told();
        self.out.push_back(Output::SendControl(ClientMessage::Join(join)));
    }

    pub(crate) fn on_server_message(&mut self, now: Instant, message: ServerMessage) {
        match message {
            ServerMessage::Welcome(welcome) => self.on_welcome(now, welcome),
            ServerMessage::Directive(directive) => self.on_directive(now, directive),
            ServerMessage::PartPush(push) => {
                self.on_part(now, PartSource::Push, PartNumber::new(push.number), push.bytes);
            }
            ServerMessage::Bye(bye) => {
                self.reporting.stop();
                self.out.push_back(Output::Event(Event::ServerRefused { bye }));
            }
        }
    }

    pub(crate) fn on_welcome(&mut self, now: Instant, welcome: Welcome) {
        self.server_away = None;
        self.membership = Some(Membership { session: Some(welcome.session), ticket: welcome.ticket });
        self.set_clock(now, welcome.server_time_secs);
        // What was asked of peers, or of nobody, is asked of the server now.
        self.hashes.failed(now, Some(Duration::ZERO));
        self.server_retry_at = Instant::ZERO;
        self.server_failures = 0;
        self.limits = welcome.limits;
        self.reporting.start(now, Duration::from_millis(u64::from(welcome.report_interval_ms)));
        // A server that comes back knows nobody.
        for connection in self.connections.values().filter(|connection| connection.verified_parts > 0) {
            self.reporting.vouch(connection.peer);
        }
        self.progress.mode_at_join.get_or_insert(welcome.mode);
        self.last_progress = now;
        self.alone_since = self.connections.is_empty().then_some(now);
        self.change_mode(welcome.mode, welcome.reasons);
        self.learn_peers(welcome.peers, false);
        self.take_grants(&welcome.grants);
    }

    /// Tickets are dated by the server's clock, so a wrong clock here would refuse every peer.
    pub(crate) fn set_clock(&mut self, now: Instant, server_secs: u64) {
        let ours_secs = self.unix().as_secs();
        if ours_secs.abs_diff(server_secs) > CLOCK_DIFFERENCE.as_secs() {
            self.clock = (now, UnixTime::from_secs(server_secs));
            self.out.push_back(Output::Event(Event::ClockDiffers { ours_secs, server_secs }));
        }
    }

    pub(crate) fn on_directive(&mut self, now: Instant, directive: Directive) {
        if let Some((mode, reasons)) = directive.mode {
            self.change_mode(mode, reasons);
        }
        if let Some(limits) = directive.limits {
            self.limits = limits;
        }
        if let Some(interval) = directive.report_interval_ms {
            self.reporting.set_interval(now, Duration::from_millis(u64::from(interval)));
        }
        if let (Some(ticket), Some(membership)) = (directive.ticket, &mut self.membership) {
            membership.ticket = ticket;
        }
        for peer in directive.revoked {
            self.known.ban(peer);
            self.close_peer(now, peer, ByeCode::Ticket, "the server revoked the ticket");
        }
        self.learn_peers(directive.peers, false);
        self.take_grants(&directive.grants);
    }

    pub(crate) fn change_mode(&mut self, mode: Mode, reasons: Vec<String>) {
        self.mode = Some(mode);
        self.out.push_back(Output::Event(Event::Mode { mode, reasons }));
    }

    pub(crate) fn take_grants(&mut self, grants: &PartRanges) {
        let room = (self.progress.parts_total as usize).saturating_sub(self.grants.len());
        self.grants.extend(grants.iter().take(room));
    }

    /// Whether the server answers: its control channel is open and it gave a session.
    pub(crate) fn server_reachable(&self) -> bool {
        self.server_away.is_none() && self.membership.is_some()
    }

    pub(crate) fn on_stop(&mut self, now: Instant) {
        if self.server_away.is_none() {
            let report = self.take_report(now);
            let bye = Bye { code: ByeCode::Done, reason: String::new() };
            self.out.push_back(Output::SendControl(ClientMessage::Report(report)));
            self.out.push_back(Output::SendControl(ClientMessage::Bye(bye)));
        }
        let connections: Vec<ConnectionId> = self.connections.ids().collect();
        for connection in connections {
            self.forget_connection(now, connection);
            let bye = Bye { code: ByeCode::Shutdown, reason: String::new() };
            self.out.push_back(Output::ClosePeer { connection, bye });
        }
        self.stopped = true;
    }

    pub(crate) fn report(&mut self, now: Instant) {
        if self.stopped || now < self.reporting.due() || self.server_away.is_some() {
            return;
        }
        let report = self.take_report(now);
        self.out.push_back(Output::SendControl(ClientMessage::Report(report)));
        if let Some(vouch) = self.reporting.take_vouch() {
            self.out.push_back(Output::SendControl(ClientMessage::Vouch(vouch)));
        }
    }

    pub(crate) fn take_report(&mut self, now: Instant) -> hybrid_wire::control::Report {
        let peers = u16::try_from(self.connections.len()).unwrap_or(u16::MAX);
        self.reporting.take(now, self.fetches.held().len(), peers, self.progress.start_up)
    }
}
