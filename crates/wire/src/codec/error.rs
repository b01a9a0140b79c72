//! What can be wrong with a message.

use crate::control::ByeCode;
use crate::{FrameKind, MAX_FRAME_BYTES, MAX_PART_BYTES, PROTOCOL_VERSION, PartRangesError};
use hybrid_manifest::MAX_PARTS;

/// A value that no message may hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A list with more entries than the message allows.
    #[error("{count} {field}, at most {max} travel in one message")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// How many entries it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// Bytes or text longer than the message allows.
    #[error("{field} has {got} bytes, at most {max} travel in one message")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The length it may have.
        max: usize,
    },
    /// A text with control characters or, where only ASCII is allowed, others.
    #[error("{field} holds characters that it must not")]
    Characters {
        /// Which field.
        field: &'static str,
    },
    /// A part number or a count of parts beyond the largest content.
    #[error("{field} is {number}, contents end at {MAX_PARTS} parts")]
    PartNumber {
        /// Which field.
        field: &'static str,
        /// What it says.
        number: u64,
    },
    /// A number out of its range.
    #[error("{field} is {number}, which means nothing in version {PROTOCOL_VERSION}")]
    Number {
        /// Which field.
        field: &'static str,
        /// What it says.
        number: u64,
    },
    /// A part longer than any part may be.
    #[error("a part of {0} bytes, at most {MAX_PART_BYTES}")]
    PartLength(u64),
    /// Runs that make no set of parts.
    #[error("{field}: {error}")]
    Parts {
        /// Which field.
        field: &'static str,
        /// What is wrong with the runs.
        error: PartRangesError,
    },
}

/// Why a message cannot be sent: it is beyond what the receiver would take. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} cannot be sent: {error}")]
#[non_exhaustive]
pub struct EncodeError {
    /// Which message.
    pub kind: FrameKind,
    /// What it holds that it must not.
    #[source]
    pub error: ValueError,
}

/// Why bytes are no message. The sender's fault; [`DecodeError::bye_code`] is what to tell it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the frame does.
    #[error("the frame ends after {got} of {expected} bytes")]
    Truncated {
        /// How many bytes there are, with the frame's head.
        got: usize,
        /// How many there must be at least.
        expected: usize,
    },
    /// A frame of no length, or longer than any.
    #[error("a frame of {length} bytes, must be 1 to {MAX_FRAME_BYTES}")]
    FrameLength {
        /// The length that the frame claims.
        length: u32,
    },
    /// A body longer than its kind allows.
    #[error("{kind} with a body of {got} bytes, at most {max}", max = kind.body_bytes_max())]
    BodyLength {
        /// The frame's kind.
        kind: FrameKind,
        /// The length that the frame claims.
        got: usize,
    },
    /// Bytes behind the message: in its frame, or behind the frame where nothing may follow.
    #[error("{count} bytes too many behind {kind}")]
    TrailingBytes {
        /// The frame's kind.
        kind: FrameKind,
        /// How many bytes.
        count: usize,
    },
    /// A type of a later version that must not be skipped.
    #[error("frame type {number:#04x} is unknown and must not be skipped: the other side is newer")]
    UnknownCritical {
        /// The type number.
        number: u8,
    },
    /// A known kind where it does not belong.
    #[error("{kind} does not belong on this channel")]
    Misplaced {
        /// The frame's kind.
        kind: FrameKind,
    },
    /// A `Join` or `Hello` of another version.
    #[error("the other side speaks version {theirs}, this program {PROTOCOL_VERSION}")]
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// A body that does not have the message's form.
    #[error("{kind} with a body that is none: {detail}")]
    Body {
        /// The frame's kind.
        kind: FrameKind,
        /// What the codec says, for logs.
        detail: String,
    },
    /// A field with a value that it must not have.
    #[error("{kind}: {error}")]
    Value {
        /// The frame's kind.
        kind: FrameKind,
        /// What is wrong.
        #[source]
        error: ValueError,
    },
    /// A pushed part whose bytes are not as many as its frame says.
    #[error("a pushed part says {named} bytes and brings {got}")]
    PartBytes {
        /// The length in the frame.
        named: u32,
        /// How many bytes follow the frame.
        got: usize,
    },
}

impl DecodeError {
    /// The code with which to end the channel.
    pub fn bye_code(&self) -> ByeCode {
        match self {
            Self::Truncated { .. }
            | Self::FrameLength { .. }
            | Self::BodyLength { .. }
            | Self::TrailingBytes { .. } => ByeCode::FrameSize,
            Self::UnknownCritical { .. } => ByeCode::UnknownType,
            Self::Misplaced { .. } | Self::Body { .. } => ByeCode::Protocol,
            Self::Version { .. } => ByeCode::Version,
            Self::PartBytes { .. } => ByeCode::PartLength,
            Self::Value { kind, error } => match (kind, error) {
                (_, ValueError::Parts { .. }) => ByeCode::PartSet,
                (_, ValueError::PartLength(_)) => ByeCode::PartLength,
                (FrameKind::Request | FrameKind::AskProofs, _) => ByeCode::BadRequest,
                _ => ByeCode::Protocol,
            },
        }
    }
}
