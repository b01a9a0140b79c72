//! How connections end: our codes as QUIC close codes (RFC 9000 section 19.19), and theirs back.

use crate::congestion;
use crate::error::CloseReason;
use hybrid_wire::control::{Bye, ByeCode};
use quinn::{ConnectionError, VarInt};
use std::sync::{Arc, OnceLock};

/// Longer reasons are cut: they are for people, and a close packet is one datagram.
const REASON_BYTES_MAX: usize = 100;

/// A QUIC connection that remembers how its peer broke the protocol.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) quic: quinn::Connection,
    fault: Arc<OnceLock<ByeCode>>,
}

impl Link {
    pub(crate) fn new(quic: quinn::Connection) -> Self {
        Self { quic, fault: Arc::default() }
    }

    /// Ends the connection, because the peer broke the protocol in this way.
    pub(crate) fn fault(&self, code: ByeCode) {
        let reason = match code {
            ByeCode::HandshakeTimeout => "no hello in time",
            ByeCode::PartLength => "part of another length",
            ByeCode::Useless => "reads too slowly",
            _ => "protocol error",
        };
        // The first fault is the one that ended the connection.
        let _ = self.fault.set(code);
        self.close(code, reason);
    }

    /// Ends the connection for a reason that is no fault.
    pub(crate) fn close(&self, code: ByeCode, reason: &str) {
        congestion::ends(&self.quic);
        self.quic.close(VarInt::from_u32(code.to_u16().into()), printable(reason.as_bytes()).as_bytes());
    }

    /// Why the connection ended, given what the library says.
    pub(crate) fn reason(&self, error: &ConnectionError) -> CloseReason {
        match (error, self.fault.get()) {
            (ConnectionError::LocallyClosed, Some(code)) => CloseReason::Fault(*code),
            _ => reason(error),
        }
    }

    /// Why a stream of this connection failed, when the connection may have ended.
    pub(crate) fn ended(&self) -> CloseReason {
        match self.quic.close_reason() {
            Some(error) => self.reason(&error),
            None => CloseReason::Lost("the peer dropped its stream".to_owned()),
        }
    }
}

/// What a reason becomes before anyone sees it: ASCII without control characters, and short.
fn printable(reason: &[u8]) -> String {
    let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
    reason.iter().take(REASON_BYTES_MAX).map(shown).collect()
}

/// What the library says, in our words.
pub(crate) fn reason(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let number = u16::try_from(close.error_code.into_inner()).unwrap_or(u16::MAX);
            CloseReason::Peer(Bye { code: ByeCode::from_u16(number), reason: printable(&close.reason) })
        }
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        other => CloseReason::Lost(printable(other.to_string().as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_cannot_play_with_a_terminal() {
        assert_eq!(printable(b"\x1b[2J ok \xff\n"), "?[2J ok ??");
        assert_eq!(printable(&[b'x'; 500]).len(), 100);
    }
}
