//! Manifests that break one rule each, signed as they should be: the answer names the rule.
//!
//! The bytes are put together here by `docs/spec/manifest.md`, not by the crate, so that the page is tested too.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ed25519_dalek::Signer;
use hybrid_manifest::{
    Builder, ContentId, Kind, Manifest, ManifestError, ManifestSpec, PartLen, SegmentSpec, ServerKey, SignedManifest,
    SigningKey, Trust, Validity, server_key,
};
use hybrid_units::{ByteCount, Duration, UnixTime};

/// A manifest in parts: its sections as tag, flags and body.
#[derive(Clone)]
struct Sections(Vec<(u16, u16, Vec<u8>)>);

const CONTENT: u16 = 1;
const NAME: u16 = 2;
const MEDIA_TYPE: u16 = 3;
const SEGMENTS: u16 = 4;
const PART_IDS: u16 = 5;
const KEYS: u16 = 6;

// Offsets in the content section.
const KIND: usize = 32;
const PART_LEN: usize = 33;
const PART_COUNT: usize = 37;
const TOTAL_LEN: usize = 41;
const EPOCH: usize = 49;
const NOT_BEFORE: usize = 57;
const NOT_AFTER: usize = 65;
const GRACE: usize = 73;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn spec() -> ManifestSpec {
    let mut spec = ManifestSpec::new("film.bin");
    spec.epoch = 5;
    spec.not_before = UnixTime::from_secs(1_000);
    spec.not_after = UnixTime::from_secs(2_000);
    spec.grace = Duration::from_secs(500);
    spec
}

fn manifest_of(spec: ManifestSpec, segments: &[&[u8]]) -> Result<Manifest, ManifestError> {
    let mut builder = Builder::new(PartLen::MIN);
    for segment in segments {
        builder.write(segment).unwrap();
        builder.end_segment().unwrap();
    }
    Manifest::new(spec, &builder.finish().unwrap(), server_key(&key()))
}

/// A file of 40,000 bytes: three parts, whose ids are there.
fn file() -> Manifest {
    manifest_of(spec(), &[&[9; 40_000]]).unwrap()
}

fn stream(kind: Kind, segments: &[&[u8]]) -> Manifest {
    let mut spec = spec();
    spec.kind = kind;
    manifest_of(spec, segments).unwrap()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

impl Sections {
    fn of(manifest: &Manifest) -> Self {
        let bytes = SignedManifest::sign(manifest.clone(), &key()).unwrap().encode();
        assert_eq!(bytes[..10], *b"HYBRID\x1a\n\x01\x00");
        assert_eq!(u32_at(&bytes, 12) + 64, bytes.len());
        let (mut sections, mut at) = (Vec::new(), 16);
        for _ in 0..u16_at(&bytes, 10) {
            let len = u32_at(&bytes, at + 4);
            sections.push((u16_at(&bytes, at), u16_at(&bytes, at + 2), bytes[at + 8..at + 8 + len].to_vec()));
            at += 8 + len;
        }
        assert_eq!(at + 64, bytes.len());
        Self(sections)
    }

    fn with(mut self, tag: u16, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.0.iter_mut().find(|section| section.0 == tag).unwrap().2);
        self
    }

    fn without(mut self, tag: u16) -> Self {
        self.0.retain(|section| section.0 != tag);
        self
    }

    fn and(mut self, tag: u16, flags: u16, body: &[u8]) -> Self {
        self.0.push((tag, flags, body.to_vec()));
        self
    }

    fn unsigned(&self) -> Vec<u8> {
        let mut bytes = b"HYBRID\x1a\n\x01\x00".to_vec();
        bytes.extend(u16::try_from(self.0.len()).unwrap().to_le_bytes());
        let len = 16 + self.0.iter().map(|section| 8 + section.2.len()).sum::<usize>();
        bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
        for (tag, flags, body) in &self.0 {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes.extend(body);
        }
        bytes
    }

    fn signed(&self) -> Vec<u8> {
        sign(self.unsigned())
    }
}

fn sign(bytes: Vec<u8>) -> Vec<u8> {
    let message = [b"hybrid manifest signature v1\0", &blake3::hash(&bytes).as_bytes()[..]].concat();
    [bytes, key().sign(&message).to_bytes().to_vec()].concat()
}

fn decode(bytes: &[u8]) -> Result<SignedManifest, ManifestError> {
    SignedManifest::decode(bytes, &Trust::key(server_key(&key())))
}

#[track_caller]
fn refused(bytes: &[u8], code: &str, message: &str) {
    let error = decode(bytes).expect_err(message);
    assert_eq!((error.code(), error.to_string().as_str()), (code, message));
}

fn set<const N: usize>(at: usize, value: [u8; N]) -> impl FnOnce(&mut Vec<u8>) {
    move |body| body[at..at + N].copy_from_slice(&value)
}

#[test]
fn putting_together_by_the_page_gives_the_same_bytes() {
    for manifest in [file(), stream(Kind::Live, &[b"one", b"", b"three"])] {
        let bytes = SignedManifest::sign(manifest.clone(), &key()).unwrap().encode();
        assert_eq!(Sections::of(&manifest).signed(), bytes);
    }
}

#[test]
fn frames() {
    let good = Sections::of(&file());
    let bytes = good.signed();
    assert!(decode(&bytes).is_ok());
    for len in 0..bytes.len() {
        let (code, message) = match len {
            0 => ("E_MANIFEST_FORMAT", "not a manifest".to_owned()),
            _ => ("E_MANIFEST_TRUNCATED", format!("truncated at byte {len}")),
        };
        refused(&bytes[..len], code, &message);
    }
    refused(&[bytes.as_slice(), b"more"].concat(), "E_MANIFEST_EXTRA", "4 extra bytes");
    refused(b"PK\x03\x04", "E_MANIFEST_FORMAT", "not a manifest");
    refused(b"<html>", "E_MANIFEST_FORMAT", "not a manifest");

    let header = |at: usize, value: &[u8]| {
        let mut bytes = good.unsigned();
        bytes[at..at + value.len()].copy_from_slice(value);
        sign(bytes)
    };
    refused(&header(8, &[2, 0]), "E_MANIFEST_VERSION", "needs version 2 of hybrid");
    refused(&header(10, &[65, 0]), "E_MANIFEST_LIMIT", "sections: 65, allowed is at most 64");
    refused(&header(10, &[7, 0]), "E_MANIFEST_FORMAT", "section 6 is malformed");
    refused(&header(10, &[5, 0]), "E_MANIFEST_FORMAT", "section 0 is malformed");
    refused(&header(12, &[15, 0, 0, 0]), "E_MANIFEST_EXTRA", &format!("{} extra bytes", bytes.len() - 15 - 64));
    let endless = "manifest, in bytes: 4294967295, allowed is at most 40 MiB";
    refused(&header(12, &[255; 4]), "E_MANIFEST_LIMIT", endless);
    let long = "manifest, in bytes: 41943041, allowed is at most 40 MiB";
    refused(&vec![0; (40 << 20) + 1], "E_MANIFEST_LIMIT", long);
}

#[test]
fn sections() {
    let good = Sections::of(&file());
    for tag in [CONTENT, NAME, MEDIA_TYPE, SEGMENTS, KEYS] {
        refused(&good.clone().without(tag).signed(), "E_MANIFEST_FORMAT", &format!("section {tag} is missing"));
        let uncritical = Sections(good.0.iter().map(|s| (s.0, u16::from(s.0 != tag), s.2.clone())).collect());
        refused(&uncritical.signed(), "E_MANIFEST_FORMAT", &format!("section {tag} is malformed"));
    }
    let asked = decode(&good.clone().without(PART_IDS).signed()).expect("ids may be asked for");
    assert_eq!(asked.manifest().part_ids(), None);

    let unknown = "section 7 is unknown and critical: a newer hybrid is needed";
    refused(&good.clone().and(7, 1, b"x").signed(), "E_MANIFEST_VERSION", unknown);
    refused(&good.clone().and(7, 2, b"x").signed(), "E_MANIFEST_FORMAT", "section 7 is malformed");
    refused(&good.clone().and(6, 1, b"x").signed(), "E_MANIFEST_FORMAT", "section 6 is malformed");
    refused(&good.clone().and(0, 0, b"x").signed(), "E_MANIFEST_FORMAT", "section 0 is malformed");

    let optional = good.and(999, 0, b"from the future").signed();
    let decoded = decode(&optional).expect("what need not be understood is left alone");
    assert_eq!(**decoded.manifest(), file());
    assert_eq!(decoded.encode(), optional, "it is passed on as it came");
    for at in 0..optional.len() {
        let mut changed = optional.clone();
        changed[at] ^= 1;
        assert!(decode(&changed).is_err(), "the signature covers byte {at}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = Sections::of(&stream(Kind::Streaming, &[b"one", b"two"])).signed();
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        for trust in [Trust::FirstUse, Trust::key(server_key(&key()))] {
            assert!(SignedManifest::decode(&flipped, &trust).is_err(), "bit {bit} of byte {at}, {trust:?}");
        }
    }
}

#[test]
fn signatures() {
    let good = Sections::of(&file());
    let wrong = format!("signature does not match the key {}", server_key(&key()));
    let with_signature = |signature: [u8; 64]| [good.unsigned(), signature.to_vec()].concat();
    refused(&with_signature([0; 64]), "E_MANIFEST_SIGNATURE", &wrong);
    refused(&with_signature([255; 64]), "E_MANIFEST_SIGNATURE", &wrong);
    // Of another manifest.
    let other = Sections::of(&stream(Kind::Live, &[b"x"])).signed();
    refused(&with_signature(other[other.len() - 64..].try_into().unwrap()), "E_MANIFEST_SIGNATURE", &wrong);
    // Over the bytes themselves: right key, wrong purpose.
    refused(&with_signature(key().sign(&good.unsigned()).to_bytes()), "E_MANIFEST_SIGNATURE", &wrong);
    // The same signature with the group's order added to its second half.
    let mut high = good.signed();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (mut carry, start) = (0, high.len() - 32);
    for (byte, add) in high[start..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    refused(&high, "E_MANIFEST_SIGNATURE", &wrong);

    // Keys that sign everything, and keys that are none, trusted by mistake.
    let one = {
        let mut one = [0; 32];
        one[0] = 1;
        one
    };
    for bad in [one, [0; 32], [0xff; 32], [2; 32]] {
        let forged = good.clone().with(KEYS, |keys| keys.copy_from_slice(&bad)).unsigned();
        for signature in [[one, [0; 32]].concat(), vec![0; 64]] {
            let bytes = [forged.clone(), signature].concat();
            let key = ServerKey::from_bytes(bad);
            for trust in [Trust::key(key), Trust::FirstUse] {
                let expected = Err(ManifestError::Signature { key });
                assert_eq!(SignedManifest::decode(&bytes, &trust), expected);
            }
        }
    }

    let stranger = SigningKey::from_bytes(&[8; 32]);
    assert_eq!(
        SignedManifest::sign(file(), &stranger),
        Err(ManifestError::UntrustedKey { key: server_key(&stranger) })
    );
    let trust = Trust::Keys(vec![]);
    let error = SignedManifest::decode(&good.signed(), &trust).unwrap_err();
    assert_eq!(error, ManifestError::UntrustedKey { key: server_key(&key()) });
}

#[test]
fn numbers() {
    let good = Sections::of(&file());
    let content = |change: &dyn Fn(&mut Vec<u8>)| good.clone().with(CONTENT, |body| change(body)).signed();
    for part_len in [0u32, 1, 3, 8_192, 16_385, 24_576, 1 << 25, 1 << 31, u32::MAX] {
        let bytes = content(&|body| set(PART_LEN, part_len.to_le_bytes())(body));
        let message = format!("part length, in bytes: {part_len}, allowed is a power of two from 16384 to 16777216");
        refused(&bytes, "E_MANIFEST_LIMIT", &message);
    }
    for count in [0u32, 2, 4, u32::MAX] {
        let bytes = content(&|body| set(PART_COUNT, count.to_le_bytes())(body));
        refused(&bytes, "E_MANIFEST_ARITH", &format!("number of parts: {count} where the lengths give 3"));
    }
    for total in [0u64, 39_999, 40_001, u64::MAX] {
        let bytes = content(&|body| set(TOTAL_LEN, total.to_le_bytes())(body));
        refused(&bytes, "E_MANIFEST_ARITH", &format!("total length: {total} where the lengths give 40000"));
    }
    for kind in [0u8, 4, 255] {
        refused(&content(&|body| set(KIND, [kind])(body)), "E_MANIFEST_FORMAT", "section 1 is malformed");
    }
    for (not_before, not_after, code, message) in [
        (1_000u64, 1_000u64, "EXPIRED", "valid from 1970-01-01T00:16:40Z to 1970-01-01T00:16:40Z, which is at no time"),
        (1_000, 999, "EXPIRED", "valid from 1970-01-01T00:16:40Z to 1970-01-01T00:16:39Z, which is at no time"),
        (0, 253_402_300_800, "LIMIT", "end of validity: 253402300800, allowed is a time before the year 10000"),
        (0, u64::MAX, "LIMIT", "end of validity: 18446744073709551615, allowed is a time before the year 10000"),
    ] {
        let times = |body: &mut Vec<u8>| {
            set(NOT_BEFORE, not_before.to_le_bytes())(body);
            set(NOT_AFTER, not_after.to_le_bytes())(body);
        };
        refused(&content(&times), &format!("E_MANIFEST_{code}"), message);
    }
    let grace = content(&|body| set(GRACE, u64::MAX.to_le_bytes())(body));
    let message = "grace, in seconds: 18446744073709551615, allowed is at most 366 days";
    refused(&grace, "E_MANIFEST_LIMIT", message);
    refused(&content(&|body| body.push(0)), "E_MANIFEST_FORMAT", "section 1 is malformed");
    refused(&content(&|body| body.truncate(80)), "E_MANIFEST_FORMAT", "section 1 is malformed");
    let id = content(&|body| set(0, [1])(body));
    refused(&id, "E_MANIFEST_HASH", "the content id does not follow from the hash of its only segment");
    // The epoch of a file is free; that of a stream is in its id.
    assert_eq!(decode(&content(&|body| set(EPOCH, [9])(body))).unwrap().manifest().epoch(), 9);
    let live = Sections::of(&stream(Kind::Live, &[b"x"])).with(CONTENT, set(EPOCH, [9])).signed();
    let message = "the content id does not follow from the server's key, the name and the epoch";
    refused(&live, "E_MANIFEST_HASH", message);
}

#[test]
fn segments_and_ids() {
    let good = Sections::of(&file());
    let segments = |change: &dyn Fn(&mut Vec<u8>)| good.clone().with(SEGMENTS, |body| change(body)).signed();
    let message = "the segments add up to more than 17592186044416 bytes at segment 0";
    refused(&segments(&|body| set(4, u64::MAX.to_le_bytes())(body)), "E_MANIFEST_LIMIT", message);
    let message = "the segments make more than 1048576 parts of 16384 bytes at segment 0: take longer parts";
    refused(&segments(&|body| set(4, (1u64 << 40).to_le_bytes())(body)), "E_MANIFEST_LIMIT", message);
    let message = "100001 segments, at most 100000 are allowed: take longer segments";
    refused(&segments(&|body| set(0, 100_001u32.to_le_bytes())(body)), "E_MANIFEST_LIMIT", message);
    for count in [0u32, 2, 100_000] {
        let bytes = segments(&|body| set(0, count.to_le_bytes())(body));
        refused(&bytes, "E_MANIFEST_FORMAT", "section 4 is malformed");
    }
    refused(&segments(&|body| set(44, [4])(body)), "E_MANIFEST_FORMAT", "section 4 is malformed");
    refused(&segments(&|body| set(44, [1])(body)), "E_MANIFEST_FORMAT", "section 4 is malformed");
    let message = "segments of a static content: 0, allowed is 1";
    let none = good.clone().with(SEGMENTS, |body| *body = vec![0; 4]);
    let none = none.with(CONTENT, |body| body[PART_COUNT..EPOCH].fill(0)).signed();
    refused(&none, "E_MANIFEST_LIMIT", message);

    let ids = |change: &dyn Fn(&mut Vec<u8>)| good.clone().with(PART_IDS, |body| change(body)).signed();
    let message = "the hash of a segment does not follow from its part ids";
    refused(&ids(&|body| body[95] ^= 1), "E_MANIFEST_HASH", message);
    refused(&ids(&|body| body.rotate_left(32)), "E_MANIFEST_HASH", message);
    let message = "part ids: 2 where the lengths give 3";
    refused(&ids(&|body| body.truncate(64)), "E_MANIFEST_ARITH", message);
    refused(&ids(&|body| body.truncate(65)), "E_MANIFEST_FORMAT", "section 5 is malformed");
    // Parts that are alike are legal; here two segments with the same bytes.
    let alike = Sections::of(&stream(Kind::Streaming, &[&[1; 100], &[1; 100]])).signed();
    assert!(decode(&alike).is_ok());
}

#[test]
fn names_and_texts() {
    let good = Sections::of(&file());
    let name = |name: &[u8]| good.clone().with(NAME, |body| *body = name.to_vec()).signed();
    refused(&name(b"../../etc/passwd"), "E_MANIFEST_NAME", "the name '../../etc/passwd' has a component . or ..");
    refused(&name(b""), "E_MANIFEST_NAME", "the name '' is empty");
    refused(&name(b"\xff\xfe"), "E_MANIFEST_FORMAT", "section 2 is malformed");
    refused(&name(&[b'x'; 1_025]), "E_MANIFEST_FORMAT", "section 2 is malformed");
    for text in [
        "",
        "video",
        "video/",
        "/mp4",
        "a/b\r\nX: y",
        "text/html;\u{7f}",
        "te xt/html",
        &format!("a/{}", "b".repeat(126)),
    ] {
        let bytes = good.clone().with(MEDIA_TYPE, |body| *body = text.as_bytes().to_vec()).signed();
        let message = format!(
            "media type, in bytes: {}, allowed is type/subtype with optional parameters, at most 127 bytes of printable ASCII",
            text.len()
        );
        refused(&bytes, "E_MANIFEST_LIMIT", &message);
    }

    let mut spec = spec();
    spec.kind = Kind::Streaming;
    let named = |name: &str| SegmentSpec::new(None, Some(name.to_owned()));
    spec.segments = vec![named("a/Seg.ts"), named("a/sEG.ts")];
    let error = manifest_of(spec.clone(), &[b"x", b"y"]).unwrap_err();
    assert_eq!(error.code(), "E_MANIFEST_NAME");
    assert_eq!(error.to_string(), "the name 'a/sEG.ts' is there twice, or differs only in upper and lower case");
    spec.segments = vec![named("ok"), named("nul")];
    assert_eq!(manifest_of(spec.clone(), &[b"x", b"y"]).unwrap_err().code(), "E_MANIFEST_NAME");
    spec.segments = vec![named("a"), named("b"), named("c")];
    let error = manifest_of(spec, &[b"x", b"y"]).unwrap_err();
    assert_eq!(error.to_string(), "segments with a description: 3 where the lengths give 2");
}

#[test]
fn keys() {
    let good = Sections::of(&file());
    let keys = |change: &dyn Fn(&mut Vec<u8>)| good.clone().with(KEYS, |body| change(body)).signed();
    refused(&keys(&Vec::clear), "E_MANIFEST_LIMIT", "server keys: 0, allowed is 1 to 8 distinct ones");
    let nine = keys(&|body| body.extend((1..=8).flat_map(|n| [n; 32])));
    refused(&nine, "E_MANIFEST_LIMIT", "server keys: 9, allowed is 1 to 8 distinct ones");
    let twice = keys(&|body| body.extend_from_within(..));
    refused(&twice, "E_MANIFEST_LIMIT", "server keys: 2, allowed is 1 to 8 distinct ones");
    refused(&keys(&|body| body.push(1)), "E_MANIFEST_FORMAT", "section 6 is malformed");
    assert_eq!(decode(&keys(&|body| body.extend([3; 32]))).unwrap().manifest().keys().len(), 2);
}

#[test]
fn times() {
    let manifest = file();
    let at = |secs| manifest.check_time(UnixTime::from_secs(secs));
    for (secs, expected) in [
        (0, None),
        (969, None),
        (970, Some(Validity::Current)),
        (2_030, Some(Validity::Current)),
        (2_031, Some(Validity::Grace)),
        (2_530, Some(Validity::Grace)),
        (2_531, None),
        (u64::MAX, None),
    ] {
        assert_eq!(at(secs).ok(), expected, "{secs}");
    }
    let error = at(3_600).unwrap_err();
    assert_eq!(error.code(), "E_MANIFEST_EXPIRED");
    let message = "valid from 1970-01-01T00:16:40Z to 1970-01-01T00:41:40Z, now it is 1970-01-01T01:00:00Z";
    assert_eq!(error.to_string(), message);
}

#[test]
fn successions() {
    let with = |epoch, kind, segments: &[&[u8]]| {
        let mut spec = spec();
        (spec.epoch, spec.kind) = (epoch, kind);
        manifest_of(spec, segments).unwrap()
    };
    let file = with(5, Kind::Static, &[b"one"]);
    assert_eq!(with(6, Kind::Static, &[b"two"]).check_succeeds(&file), Ok(()));
    assert_eq!(file.check_succeeds(&file), Ok(()));
    let error = with(4, Kind::Static, &[b"two"]).check_succeeds(&file).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("E_MANIFEST_ROLLBACK", "epoch 4 is older than epoch 5, which is known")
    );
    let error = with(5, Kind::Static, &[b"two"]).check_succeeds(&file).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("E_MANIFEST_CONFLICT", "epoch 5 of this name is known with another content")
    );
    let live = with(5, Kind::Live, &[b"one"]);
    assert_eq!(with(5, Kind::Live, &[b"one", b"two"]).check_succeeds(&live), Ok(()));
    assert!(with(5, Kind::Live, &[b"two"]).check_succeeds(&live).is_err());
    let film = with(5, Kind::Streaming, &[b"one"]);
    assert!(with(5, Kind::Streaming, &[b"one", b"two"]).check_succeeds(&film).is_err());
}

#[test]
fn what_a_specification_makes() {
    let file = file();
    assert_eq!(file.content(), ContentId::from_bytes(*blake3::hash(&[9; 40_000]).as_bytes()));
    assert_eq!(file.part_ids().map(<[_]>::len), Some(3));
    let mut below = spec();
    below.inline_hashes_below = ByteCount::new(40_000);
    assert_eq!(manifest_of(below, &[&[9; 40_000]]).unwrap().part_ids(), None);
    let error = manifest_of(spec(), &[b"a", b"b"]).unwrap_err();
    assert_eq!(error.to_string(), "segments of a static content: 2, allowed is 1");
    let empty = manifest_of(spec(), &[]).unwrap();
    assert_eq!((empty.layout().part_count(), empty.part_ids()), (0, Some(&[][..])));
    assert_eq!(empty.content().as_bytes(), blake3::hash(b"").as_bytes());
}
