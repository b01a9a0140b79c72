//! The type numbers of frames.

use crate::MAX_FRAME_BYTES;
use std::fmt;

/// Set in the type number of a frame that a receiver must understand.
///
/// A program that does not know a type skips the frame when the bit is clear and ends the channel when it is set.
pub const CRITICAL_BIT: u8 = 0x80;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $max_body_bytes:expr;)*) => {
        /// What a frame holds. The numbers are the protocol: `docs/spec/wire.md` lists them, and none is ever used again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FrameKind {
            /// All kinds that this version knows, in the order of the specification.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind with this number; `None` if this version knows none.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The kind's name, as in the specification.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The longest body of this kind, checked before the body is read.
            pub const fn body_bytes_max(self) -> usize {
                match self {
                    $(Self::$name => $max_body_bytes,)*
                }
            }
        }
    };
}

// A set of parts takes at most about 25 KiB: 8,192 runs are 16,384 numbers of one byte each, and since they add up to at most
// 2^20 parts, at most 4,177 of them are 251 or more (two bytes more) and at most 16 are 65,536 or more (two bytes more again).
// The ceilings leave room above the largest message that the caps allow; a test builds that message for each kind.
kinds! {
    /// Either side ends a channel or a connection.
    Bye = 0x80, 128;
    /// Client to server, first.
    Join = 0x81, 32 << 10;
    /// Client to server, again and again.
    Report = 0x02, 60 << 10;
    /// Client to server, who sent it parts.
    Vouch = 0x03, 4 << 10;
    /// Client to server, whether it serves peers now.
    Uploads = 0x04, 1;
    /// Server to client, the answer to `Join`.
    Welcome = 0x91, 40 << 10;
    /// Server to client, a change.
    Directive = 0x92, 40 << 10;
    /// Server to client, a part without being asked for.
    PartPush = 0x93, 16;
    /// Peer to peer, first.
    Hello = 0xa1, 32 << 10;
    /// Peer to peer, parts gained.
    Have = 0x22, 32 << 10;
    /// Peer to peer, nothing to send.
    Idle = 0x23, 0;
    /// Peer to peer, asks for proofs.
    AskProofs = 0x24, 16;
    /// Peer to peer, proofs.
    Proofs = 0x25, MAX_FRAME_BYTES - 1;
    /// Peer to peer, asks for other peers.
    AskPeers = 0x26, 0;
    /// Peer to peer, other peers.
    Peers = 0x27, 4 << 10;
    /// Peer to peer, on a stream of its own, asks for a part.
    Request = 0xb1, 8;
    /// The answer to `Request`: the part's bytes follow on the stream.
    Part = 0xb2, 16;
    /// The answer to `Request`: not now.
    Busy = 0xb3, 8;
    /// The answer to `Request`: not here.
    Gone = 0xb4, 0;
}

impl FrameKind {
    /// Whether a program that does not know the kind must end the channel.
    pub const fn is_critical(self) -> bool {
        self.number() & CRITICAL_BIT != 0
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_name_kinds_both_ways() {
        for number in 0..=u8::MAX {
            if let Some(kind) = FrameKind::from_number(number) {
                assert_eq!(kind.number(), number);
                assert!(FrameKind::ALL.contains(&kind));
                assert!(kind.body_bytes_max() < MAX_FRAME_BYTES);
            }
        }
    }

    /// So that one flipped bit never makes a critical kind of a kind that may be skipped.
    #[test]
    fn numbers_differ_without_the_critical_bit() {
        let low: BTreeSet<u8> = FrameKind::ALL.iter().map(|kind| kind.number() & !CRITICAL_BIT).collect();
        assert_eq!(low.len(), FrameKind::ALL.len());
    }
}
