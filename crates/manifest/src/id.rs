//! Names of things by their hashes and keys.

use std::fmt;
use std::str::FromStr;

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 64 hexadecimal digits, got {got}")]
pub struct ParseIdError {
    what: &'static str,
    got: String,
}

fn parse(what: &'static str, text: &str) -> Result<[u8; 32], ParseIdError> {
    let bad = |got: String| ParseIdError { what, got };
    if text.len() != 64 {
        return Err(bad(format!("{} characters", text.chars().count())));
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high * 16 + low,
            _ => return Err(bad("other characters".to_owned())),
        }
    }
    Ok(bytes)
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The value with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// 64 lower-case hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            /// The first eight digits: enough to tell values apart in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("…)")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse($what, text).map(Self)
            }
        }
    };
}

hash_type! {
    /// Which content: for a static one the BLAKE3 hash of its bytes, as `b3sum` prints it.
    ContentId, "a content id"
}

hash_type! {
    /// The hash of a whole segment: the root of its BLAKE3 tree.
    SegmentHash, "a segment hash"
}

hash_type! {
    /// A server's Ed25519 public key, with which it signs manifests.
    ///
    /// Any 32 bytes may stand here; whether they are a usable key shows when a signature is checked against them.
    ServerKey, "a server key"
}

hash_type! {
    /// The hash of one part: the chaining value of its subtree in the segment's BLAKE3 tree, or the segment's root if the
    /// part is the whole segment. `docs/spec/manifest.md` gives the construction.
    PartId, "a part id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_both_ways() {
        let id = ContentId::from_bytes(std::array::from_fn(|i| u8::try_from(i * 8).expect("below 256")));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), "ContentId(00081018…)");
    }

    #[test]
    fn what_is_no_id() {
        for (text, message) in [
            ("", "a content id must be 64 hexadecimal digits, got 0 characters"),
            (&"a".repeat(63), "a content id must be 64 hexadecimal digits, got 63 characters"),
            (&"g".repeat(64), "a content id must be 64 hexadecimal digits, got other characters"),
            (&"é".repeat(32), "a content id must be 64 hexadecimal digits, got other characters"),
        ] {
            assert_eq!(text.parse::<ContentId>().unwrap_err().to_string(), message);
        }
    }
}
