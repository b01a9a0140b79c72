//! QUIC between native peers: pinned keys, bounded windows, one stream a part. It decides nothing.
//!
//! An [`Endpoint`] is a UDP socket with this peer's [`Identity`].
//! It tells what happens as [`Event`]s and is told what to do through [`Connection`]s, [`Responder`]s and [`PushedPart`]s.
//! Whom to dial, which tickets to believe, which parts to ask for, whom to serve and how fast: the layer above says so.
//! Bytes of parts are handed over as they came; only `hybrid_manifest` can say whether they are the part.
//!
//! A connection is mutual TLS 1.3 with the protocol name `hybrid/1` and self-signed Ed25519 certificates.
//! The dialler pins the key by which it must be answered; the other side takes any key and reports whose it is.
//! Then the dialler opens one stream of frames and says `Hello`, the other side answers `Hello`, both within five seconds.
//! A part is asked for on a stream of its own, so that a slow part holds up no other; one may also be pushed, on a one-way
//! stream. `docs/spec/wire.md` gives the frames.
//!
//! What a peer can make this process hold is bounded by [`Config`]; what it can do wrong ends its connection with a code of
//! `hybrid_wire::control::ByeCode`.
//!
//! ```
//! use hybrid_peer_transport::{Config, Endpoint, Event, Identity, PartAnswer};
//! # use hybrid_manifest::{ContentId, PartNumber};
//! # use hybrid_wire::{PROTOCOL_VERSION, PartRanges, PeerCoordinates, peer::{Hello, PeerMessage}};
//! # fn hello() -> Hello {
//! #     Hello {
//! #         version: PROTOCOL_VERSION, content: ContentId::from_bytes([7; 32]), part_len_bytes: 1 << 16,
//! #         ticket: bytes::Bytes::new(), has: PartRanges::empty(), uploads: true,
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (giver, mut events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
//! let (taker, _events) = Endpoint::bind("127.0.0.1:0".parse()?, &Identity::generate()?, Config::default())?;
//!
//! let serving = tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         match event {
//!             Event::Connected { connection, .. } => connection.send(&PeerMessage::Hello(hello())).expect("connected"),
//!             Event::PartRequested { responder, .. } => {
//!                 responder.send_part(bytes::Bytes::from_static(b"a part"), 0, None).await;
//!             }
//!             _ => {}
//!         }
//!     }
//! });
//!
//! let to = PeerCoordinates { peer: giver.peer_id(), address: giver.local_addr()? };
//! let connection = taker.dial(&to, hello()).await?;
//! let answer = connection.request(PartNumber::new(0), 6, drop).await?;
//! assert!(matches!(answer, PartAnswer::Part { bytes, .. } if bytes == "a part"));
//! # serving.abort();
//! # Ok(())
//! # }
//! ```

mod config;
mod congestion;
mod connection;
mod endpoint;
mod error;
mod event;
mod frames;
mod gate;
mod identity;
mod link;
mod request;
mod socket;
mod tls;

pub use config::Config;
pub use connection::{Connection, ConnectionStats};
pub use endpoint::Endpoint;
pub use error::{BindError, CloseReason, DialError, RequestError, SendError};
pub use event::{ConnectionId, Event, Events};
pub use identity::{Identity, IdentityError};
pub use request::{PartAnswer, PushedPart, Responder};

#[cfg(test)]
mod amplification;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;
