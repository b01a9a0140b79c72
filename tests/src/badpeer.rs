//! Peers that misbehave: real members of a swarm, with tickets and keys, that do not do what they say.
//!
//! What follows from decisions is played in `crates/sim` (`Misbehaviour`), and broken frames and streams are tests of
//! `crates/peer-transport/src/tests.rs`; here are the few that show that programs, brains and transports do it together.

use anyhow::{Context, bail};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber, SignedManifest, Trust};
use hybrid_peer_transport::{Config, Connection, ConnectionId, Endpoint, Event, Identity};
use hybrid_server_transport::client::{ClientConfig, ServerClient, TlsTrust};
use hybrid_wire::control::{ByeCode, ClientMessage, Join, Report, ServerMessage, Want};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PROTOCOL_VERSION, PartRanges, UploadContract};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// What a bad peer does that says it holds everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a test names what it needs")]
pub enum Mode {
    /// Sends parts with one bit flipped.
    Pollute,
    /// Sends one byte less than the part has.
    Short,
    /// Takes each request and never answers.
    Silent,
    /// Shows a valid ticket of the same content that was given to another key.
    OthersTicket,
}

/// A peer that says it holds everything and does not do what it says.
#[derive(Debug)]
pub struct BadPeer {
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for BadPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BadPeer {
    /// Joins the swarm of the content at `url`, whose bytes it is given; comes back when the server knows it as a member that
    /// holds everything.
    ///
    /// # Errors
    /// When it cannot join.
    pub async fn join(url: &str, content: Bytes, mode: Mode) -> anyhow::Result<Self> {
        let (client, path) = ServerClient::discover(url, &TlsTrust::Platform, ClientConfig::default()).await?;
        let signed = SignedManifest::decode(&client.manifest(&path).await?, &Trust::FirstUse)?;
        let manifest = signed.manifest().clone();
        let layout = manifest.layout().clone();
        let all = PartRanges::from_ascending((0..layout.part_count()).map(PartNumber::new));

        let identity = Identity::generate()?;
        let (endpoint, mut events) = Endpoint::bind("127.0.0.1:0".parse()?, &identity, Config::default())?;
        let mut control = client.control().await?;
        let join = Join {
            version: PROTOCOL_VERSION,
            program: "bad peer".to_owned(),
            content: manifest.content(),
            peer: identity.peer_id(),
            quic_port: Some(endpoint.local_addr()?.port()),
            has: all.clone(),
            want: Want::Seed,
            contract: UploadContract { upload: true, rate_limit_bytes_per_second: None },
        };
        drop(control.send(&ClientMessage::Join(join))?);
        let ticket = match control.recv().await.context("the server closed the channel")?? {
            ServerMessage::Welcome(welcome) => welcome.ticket,
            other => bail!("expected a welcome, got {other:?}"),
        };
        let ticket = match mode {
            Mode::OthersTicket => ticket_of_another(&client, manifest.content()).await?,
            Mode::Pollute | Mode::Short | Mode::Silent => ticket,
        };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: manifest.content(),
            part_len_bytes: layout.part_len().as_u32(),
            ticket,
            has: all,
            uploads: true,
        };
        let served = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let (count, turned_away) = (served.clone(), refused.clone());
        let task = tokio::spawn(async move {
            let mut connections: BTreeMap<ConnectionId, Connection> = BTreeMap::new();
            let mut unanswered = Vec::new();
            let mut interval = tokio::time::interval(std::time::Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = interval.tick() => {
                        let report = Report { level: layout.part_count(), ..Report::default() };
                        drop(control.send(&ClientMessage::Report(report))?);
                    }
                    message = control.recv() => {
                        message.context("the server closed the channel")??;
                    }
                    event = events.next() => match event.context("the endpoint closed")? {
                        Event::Connected { connection, outgoing, .. } => {
                            if !outgoing {
                                connection.send(&PeerMessage::Hello(hello.clone()))?;
                            }
                            connections.insert(connection.id(), connection);
                        }
                        Event::PartRequested { number, responder, .. } => {
                            let Some(place) = layout.part(number) else { continue };
                            let start = usize::try_from(place.offset())?;
                            let mut bytes = content[start..start + place.len() as usize].to_vec();
                            count.fetch_add(1, Ordering::Relaxed);
                            match mode {
                                Mode::Pollute | Mode::OthersTicket => {
                                    let middle = bytes.len() / 2;
                                    bytes[middle] ^= 1;
                                }
                                Mode::Short => bytes.truncate(bytes.len() - 1),
                                Mode::Silent => {
                                    unanswered.push(responder);
                                    continue;
                                }
                            }
                            tokio::spawn(responder.send_part(bytes.into(), 0, None));
                        }
                        Event::Closed { connection, reason } => {
                            if reason.code() == ByeCode::Ticket {
                                turned_away.fetch_add(1, Ordering::Relaxed);
                            }
                            connections.remove(&connection);
                        }
                        _ => {}
                    }
                }
            }
        });
        Ok(Self { served, refused, task })
    }

    /// Connections that others ended because of its ticket.
    pub fn turned_away(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Parts that it was asked for.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// What the server gives to another key that joins.
async fn ticket_of_another(client: &ServerClient, content: ContentId) -> anyhow::Result<Bytes> {
    let mut control = client.control().await?;
    let join = Join {
        version: PROTOCOL_VERSION,
        program: "another".to_owned(),
        content,
        peer: Identity::generate()?.peer_id(),
        quic_port: None,
        has: PartRanges::default(),
        want: Want::Seed,
        contract: UploadContract { upload: false, rate_limit_bytes_per_second: None },
    };
    drop(control.send(&ClientMessage::Join(join))?);
    match control.recv().await.context("the server closed the channel")?? {
        ServerMessage::Welcome(welcome) => Ok(welcome.ticket),
        other => bail!("expected a welcome, got {other:?}"),
    }
}
