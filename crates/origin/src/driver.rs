//! Drives the coordinator: one lock, one timer, and nothing that waits under the lock.

use crate::load::Clock;
use hybrid_coordinator::{ClientId, ClientStatus, ContentStats, ContentStatus, Coordinator, Event, Input, Output};
use hybrid_coordinator::{PartVerdict, Recorded, Survival};
use hybrid_manifest::{ContentId, PartNumber};
use hybrid_server_transport::{ControlSender, SendError};
use hybrid_units::{Duration, Instant};
use hybrid_wire::control::{Bye, ByeCode, ServerMessage};
use hybrid_wire::{PeerId, SessionToken};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// The coordinator with its clients' channels.
#[derive(Debug)]
pub(crate) struct Driver {
    clock: Clock,
    next_client: AtomicU64,
    brain: Mutex<Brain>,
    rearm: Notify,
    pushes: mpsc::UnboundedSender<Push>,
}

#[derive(Debug)]
struct Brain {
    coordinator: Coordinator,
    clients: BTreeMap<ClientId, ControlSender>,
    wake_at: Instant,
    closed: bool,
}

/// A part to be sent to a client; [`Driver::input`] is to be told when it is done.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) client: ClientId,
    pub(crate) content: ContentId,
    pub(crate) number: PartNumber,
    pub(crate) sender: ControlSender,
}

impl Driver {
    /// The queue of pushes is as long as the coordinator's own limit of pushes under way.
    pub(crate) fn new(clock: Clock, coordinator: Coordinator) -> (Self, mpsc::UnboundedReceiver<Push>) {
        let (pushes, receiver) = mpsc::unbounded_channel();
        let brain = Brain { coordinator, clients: BTreeMap::new(), wake_at: Instant::FAR_FUTURE, closed: false };
        let driver =
            Self { clock, next_client: AtomicU64::new(0), brain: Mutex::new(brain), rearm: Notify::new(), pushes };
        (driver, receiver)
    }

    fn brain(&self) -> MutexGuard<'_, Brain> {
        // A panic in the coordinator is a bug; one request's bug must not stop the others.
        self.brain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the coordinator what happened, and does what it says.
    pub(crate) fn input(&self, input: Input) {
        self.input_to(&mut self.brain(), input);
    }

    fn input_to(&self, brain: &mut Brain, input: Input) {
        let now = self.clock.now();
        brain.coordinator.handle_input(now, input);
        // Clients that turn out to be too slow leave after the round, so that the round is one input's.
        let mut gone = Vec::new();
        loop {
            let wake_at = self.drain(brain, &mut gone);
            let Some(client) = gone.pop() else {
                if wake_at < brain.wake_at {
                    self.rearm.notify_one();
                }
                brain.wake_at = wake_at;
                return;
            };
            brain.coordinator.handle_input(now, Input::Left { client });
        }
    }

    /// Does all that the coordinator says, and returns when it wants to be woken.
    fn drain(&self, brain: &mut Brain, gone: &mut Vec<ClientId>) -> Instant {
        loop {
            match brain.coordinator.poll_output() {
                Output::Timeout(at) => return at,
                Output::Send { client, message } => {
                    if let Some(sender) = brain.clients.get(&client)
                        && !sent(sender, &message)
                    {
                        sender.cut();
                        brain.clients.remove(&client);
                        gone.push(client);
                    }
                }
                Output::Push { client, content, number } => {
                    let push = brain.clients.get(&client).cloned();
                    let push = push.map(|sender| Push { client, content, number, sender });
                    if push.is_none_or(|push| self.pushes.send(push).is_err()) {
                        gone.push(client);
                    }
                }
                Output::Close { client, bye } => {
                    if let Some(sender) = brain.clients.remove(&client) {
                        sender.close(bye);
                    }
                }
                Output::Event(event) => log(&event),
            }
        }
    }

    /// Gives a new control channel its number; `None`, and a good-bye, once the server ends.
    pub(crate) fn register(&self, sender: ControlSender) -> Option<ClientId> {
        let mut brain = self.brain();
        if brain.closed {
            sender.close(shutdown());
            return None;
        }
        let client = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        brain.clients.insert(client, sender);
        Some(client)
    }

    /// A control channel has ended.
    pub(crate) fn left(&self, client: ClientId) {
        let mut brain = self.brain();
        if brain.clients.remove(&client).is_some() {
            self.input_to(&mut brain, Input::Left { client });
        }
    }

    pub(crate) fn authorize_part(
        &self,
        session: Option<SessionToken>,
        content: ContentId,
        number: PartNumber,
    ) -> PartVerdict {
        self.brain().coordinator.authorize_part(self.clock.now(), session, content, number)
    }

    pub(crate) fn part_served(&self, content: ContentId, took: Duration) {
        self.brain().coordinator.part_served(self.clock.now(), content, took);
    }

    pub(crate) fn stats(&self, content: ContentId) -> Option<ContentStats> {
        self.brain().coordinator.stats(content)
    }

    pub(crate) fn status(&self, content: ContentId) -> Option<ContentStatus> {
        self.brain().coordinator.status(content)
    }

    pub(crate) fn survivals(&self) -> Vec<(ContentId, Survival)> {
        self.brain().coordinator.survivals().collect()
    }

    pub(crate) fn clients(&self, wanted: impl Fn(PeerId) -> bool) -> (Vec<Recorded>, Vec<ClientStatus>) {
        let brain = self.brain();
        (brain.coordinator.events_of(&wanted).cloned().collect(), brain.coordinator.clients_of(&wanted))
    }

    /// Says good-bye to all clients, and to those that come.
    pub(crate) fn close(&self) {
        let mut brain = self.brain();
        brain.closed = true;
        for (client, sender) in std::mem::take(&mut brain.clients) {
            sender.close(shutdown());
            self.input_to(&mut brain, Input::Left { client });
        }
    }

    /// Wakes the coordinator when it wants to be woken; never ends.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let rearm = self.rearm.notified();
            let wake_at = self.brain().wake_at;
            let wait = wake_at.since(self.clock.now());
            tokio::select! {
                () = rearm => {}
                () = tokio::time::sleep(wait) => self.input(Input::Timeout),
            }
        }
    }
}

/// Whether a message is on its way; a client that cannot take it is too slow to be of any use.
fn sent(sender: &ControlSender, message: &ServerMessage) -> bool {
    match sender.send(message) {
        Ok(_) => true,
        Err(SendError::Encode(error)) => {
            tracing::error!(%error, "a message has no encoding");
            true
        }
        Err(error) => {
            tracing::debug!(%error, "a client is dropped");
            false
        }
    }
}

fn shutdown() -> Bye {
    Bye { code: ByeCode::Shutdown, reason: "the server stops".to_owned() }
}

/// Decisions as data, for people and for tools. A remote can cause any of them, so none is above debug.
fn log(event: &Event) {
    match event {
        Event::Admitted { client, peer, content, verdict } => {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            tracing::debug!(
                target: "hybrid::_events::admitted",
                client = client.0, %peer, %content, mode = %verdict.mode, ?reasons
            );
        }
        Event::ModeChanged { client, mode, reasons } => {
            tracing::debug!(target: "hybrid::_events::mode_changed", client = client.0, %mode, ?reasons);
        }
        Event::Completed { client, content } => {
            tracing::debug!(target: "hybrid::_events::completed", client = client.0, %content);
        }
        Event::BadPartReported { client, accused, accusers } => {
            tracing::debug!(target: "hybrid::_events::bad_part", client = client.0, %accused, accusers);
        }
        Event::Misbehaved { client, what } => {
            tracing::debug!(target: "hybrid::_events::misbehaved", client = client.0, what);
        }
        other => tracing::debug!(target: "hybrid::_events::other", ?other),
    }
}
