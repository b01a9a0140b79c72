//! What a content is: segments, parts, lengths, hashes and proofs.
//!
//! A content is a sequence of *segments*: a file is one, a stream has one for each of its media segments.
//! Each segment is cut into *parts* of one length, numbered through the whole content.
//! A segment's hash is BLAKE3's, as `b3sum` prints it; a part's id is the value of its subtree in the same tree, so that
//! a part can be proved against its segment with a few hashes, by anybody who has them.
//! `docs/spec/manifest.md` has the construction, the bytes and the limits.
//!
//! | to | use |
//! |---|---|
//! | choose a part length | [`part_len`] |
//! | cut and hash a content | [`Builder`]; on several threads [`Layout`], [`part_id`] and [`Prepared::from_part_ids`] |
//! | publish it | [`Manifest::new`], [`SignedManifest::sign`] |
//! | read what a server published | [`SignedManifest::decode`], [`Manifest::check_time`], [`Manifest::check_succeeds`] |
//! | know part ids, prove them to others | [`PartIds`], [`HashProof`] |
//! | let a part in | [`ExpectedPart::verify`], the only way to a [`VerifiedPart`] |
//!
//! # What it does not do
//!
//! It reads no files, no clock and no network, and has no threads: drivers do.
//! It knows nothing of who holds a part (`hybrid-swarm`) or how parts travel (the transports).
//!
//! # Example
//!
//! A server cuts a content of 100,000 bytes and signs its manifest; a client gets a part and the proof of its id from
//! anywhere, and checks both.
//!
//! ```
//! use bytes::Bytes;
//! use hybrid_manifest::{
//!     Builder, HashProof, Kind, Manifest, ManifestSpec, PartIds, PartNumber, PartRange, SignedManifest, SigningKey, Trust,
//!     part_len, server_key,
//! };
//! use hybrid_units::{ByteCount, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let content = vec![7; 100_000];
//! let number = PartNumber::new(1);
//!
//! // The server.
//! let mut builder = Builder::new(part_len(Kind::Static, 100_000, None));
//! builder.write(&content)?;
//! let prepared = builder.finish()?;
//! let key = SigningKey::from_bytes(&[1; 32]); // Random in earnest.
//! let mut spec = ManifestSpec::new("seven.bin");
//! spec.inline_hashes_below = ByteCount::new(0); // As if it were large: part ids are asked for.
//! let manifest = Manifest::new(spec, &prepared, server_key(&key))?;
//! let all_ids = PartIds::with_ids(&manifest, prepared.part_ids())?;
//! let signed = SignedManifest::sign(manifest, &key)?.encode();
//! let run = PartRange::one(number).ok_or("beyond any content")?;
//! let proof = all_ids.prove(run).ok_or("no such part")?.encode();
//!
//! // The client.
//! let signed = SignedManifest::decode(&signed, &Trust::key(server_key(&key)))?;
//! let manifest = signed.manifest();
//! manifest.check_time(UnixTime::from_secs(1_795_365_537))?;
//! assert_eq!(manifest.content().as_bytes(), blake3::hash(&content).as_bytes());
//! let mut ids = PartIds::new(manifest);
//! assert!(ids.expect(number).is_none());
//! let (proof, _) = HashProof::decode(&proof)?;
//! ids.insert(&proof)?;
//! let expected = ids.expect(number).ok_or("the proof told its id")?;
//! assert!(expected.verify(Bytes::from_static(b"polluted")).is_err());
//! let part = expected.verify(Bytes::from(content[32_768..65_536].to_vec()))?;
//! assert_eq!((part.number(), part.bytes().len()), (number, 32_768));
//! # Ok(())
//! # }
//! ```

mod builder;
mod date;
mod id;
mod json;
mod layout;
mod manifest;
mod name;
mod nfc;
mod nfc_tables;
mod part;
mod part_ids;
mod policy;
mod proof;
mod signed;
mod tree;
mod verify;

pub use builder::{Builder, PrepareError, Prepared};
pub use ed25519_dalek::SigningKey;
pub use id::{ContentId, ParseIdError, PartId, SegmentHash, ServerKey};
pub use layout::{Layout, LayoutError, MAX_SEGMENTS, MAX_TOTAL_LEN, PartPlace, SegmentSpan};
pub use manifest::{
    CLOCK_SKEW, MAX_GRACE, MAX_KEYS, MAX_MANIFEST_LEN, MAX_TIME, Manifest, ManifestError, ManifestSpec, Segment,
    SegmentSpec, Validity, stream_content_id,
};
pub use name::{MAX_NAME_LEN, NameError, NameRule, check_name, folded_name};
pub use part::{MAX_PARTS, PartLen, PartNumber, PartRange};
pub use part_ids::{PartIds, ProofError};
pub use policy::{Kind, part_len, part_len_between};
pub use proof::{HashProof, ProofDecodeError};
pub use signed::{SignedManifest, Trust, server_key};
pub use tree::{PartHasher, part_id};
pub use verify::{ExpectedPart, VerifiedPart, VerifyError};
