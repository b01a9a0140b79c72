//! The manifest as it travels: exact bytes, and the signature over them.
//!
//! `docs/spec/manifest.md` gives the bytes.
//! Invariant: a [`SignedManifest`] has a signature that holds, by a key that was trusted when it was made.

use crate::layout::{LayoutError, MAX_SEGMENTS};
use crate::manifest::{Fields, MAX_KEYS, MAX_MANIFEST_LEN, Manifest, ManifestError, Segment};
use crate::name::MAX_NAME_LEN;
use crate::policy::Kind;
use crate::{ContentId, Layout, PartId, PartLen, SegmentHash, ServerKey};
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hybrid_units::{Duration, UnixTime};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"HYBRID\x1a\n";
const HEADER_LEN: usize = 16;
const SIGNATURE_LEN: usize = 64;
/// What the signature is over: this, then the BLAKE3 hash of the bytes before the signature.
/// No other message of this system starts so, hence no signature for another purpose passes for a manifest's.
const SIGNATURE_CONTEXT: &[u8] = b"hybrid manifest signature v1\0";

const CRITICAL: u16 = 1;
/// The format has six sections; the rest is for those that later versions add.
const MAX_SECTIONS: u16 = 64;
const TAG_CONTENT: u16 = 1;
const TAG_NAME: u16 = 2;
const TAG_MEDIA_TYPE: u16 = 3;
const TAG_SEGMENTS: u16 = 4;
const TAG_PART_IDS: u16 = 5;
const TAG_KEYS: u16 = 6;

const HAS_DURATION: u8 = 1;
const HAS_NAME: u8 = 2;

/// Whose signature on a manifest is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a third way to trust must be thought about wherever trust is given")]
pub enum Trust {
    /// One of these keys, pinned or configured.
    Keys(Vec<ServerKey>),
    /// The key that the manifest names: for the first meeting with a server over a channel that names the server itself,
    /// such as HTTPS.
    /// The caller pins [`Manifest::keys`] for the next time.
    FirstUse,
}

impl Trust {
    /// This key only.
    pub fn key(key: ServerKey) -> Self {
        Self::Keys(vec![key])
    }
}

/// A manifest with the bytes that its server signed.
///
/// Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    bytes: Bytes,
    manifest: Arc<Manifest>,
}

impl SignedManifest {
    /// Encodes and signs a manifest.
    ///
    /// # Errors
    /// When `key` is not the manifest's signer, or the manifest is longer than [`MAX_MANIFEST_LEN`].
    pub fn sign(manifest: Manifest, key: &SigningKey) -> Result<Self, ManifestError> {
        if server_key(key) != manifest.signer() {
            return Err(ManifestError::UntrustedKey { key: server_key(key) });
        }
        let mut bytes = encode(&manifest)?;
        let signature = key.sign(&message(&bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(Self { bytes: bytes.into(), manifest: Arc::new(manifest) })
    }

    /// The bytes to store and to send.
    pub fn encode(&self) -> Bytes {
        self.bytes.clone()
    }

    /// What is signed.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Reads a manifest and checks everything but the time ([`Manifest::check_time`]) and what came before it
    /// ([`Manifest::check_succeeds`]).
    ///
    /// Who receives the bytes stops at [`MAX_MANIFEST_LEN`].
    ///
    /// # Errors
    /// When the bytes are not exactly one manifest, or it is not signed by whom `trust` says, or it breaks a rule.
    pub fn decode(bytes: &[u8], trust: &Trust) -> Result<Self, ManifestError> {
        let file = File::parse(bytes)?;
        let keys = decode_keys(file.section(TAG_KEYS)?)?;
        check_signature(&file, &keys, trust)?;
        let manifest = decode_fields(&file, keys)?;
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), manifest: Arc::new(manifest) })
    }
}

/// The public half of a server's key.
pub fn server_key(key: &SigningKey) -> ServerKey {
    ServerKey::from_bytes(key.verifying_key().to_bytes())
}

fn message(signed: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, blake3::hash(signed).as_bytes()].concat()
}

fn check_signature(file: &File<'_>, keys: &[ServerKey], trust: &Trust) -> Result<(), ManifestError> {
    let &key = keys.first().ok_or(ManifestError::Missing { section: TAG_KEYS })?;
    match trust {
        Trust::Keys(trusted) if !trusted.contains(&key) => return Err(ManifestError::UntrustedKey { key }),
        Trust::Keys(_) | Trust::FirstUse => {}
    }
    let verifier = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| ManifestError::Signature { key })?;
    // Strict: no key of small order, no second form of the same signature.
    let held = verifier.verify_strict(&message(file.signed), &Signature::from_bytes(&file.signature));
    held.map_err(|_| ManifestError::Signature { key })
}

// ----- Encoding -----

fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let mut sections = vec![
        (TAG_CONTENT, encode_content(manifest)),
        (TAG_NAME, manifest.name().as_bytes().to_vec()),
        (TAG_MEDIA_TYPE, manifest.media_type().as_bytes().to_vec()),
        (TAG_SEGMENTS, encode_segments(manifest)),
    ];
    if let Some(ids) = manifest.part_ids() {
        sections.push((TAG_PART_IDS, ids.iter().flat_map(|id| *id.as_bytes()).collect()));
    }
    sections.push((TAG_KEYS, manifest.keys().iter().flat_map(|key| *key.as_bytes()).collect()));

    let signed_len = HEADER_LEN + sections.iter().map(|(_, body)| 8 + body.len()).sum::<usize>();
    let checked_len = u32::try_from(signed_len).ok().filter(|_| signed_len + SIGNATURE_LEN <= MAX_MANIFEST_LEN);
    let checked_len = checked_len.ok_or(too_long(signed_len))?;
    let mut out = Vec::with_capacity(signed_len + SIGNATURE_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&Manifest::VERSION.to_le_bytes());
    out.extend_from_slice(&u16::try_from(sections.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&checked_len.to_le_bytes());
    for (tag, body) in sections {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&CRITICAL.to_le_bytes());
        out.extend_from_slice(&u32::try_from(body.len()).map_err(|_| too_long(body.len()))?.to_le_bytes());
        out.extend_from_slice(&body);
    }
    Ok(out)
}

fn too_long(len: usize) -> ManifestError {
    ManifestError::Limit { what: "manifest, in bytes", got: len as u64, allowed: "at most 40 MiB" }
}

fn encode_content(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(CONTENT_LEN);
    out.extend_from_slice(manifest.content().as_bytes());
    out.push(kind_number(manifest.kind()));
    out.extend_from_slice(&manifest.layout().part_len().as_u32().to_le_bytes());
    out.extend_from_slice(&manifest.layout().part_count().to_le_bytes());
    out.extend_from_slice(&manifest.layout().total_len().to_le_bytes());
    out.extend_from_slice(&manifest.epoch().to_le_bytes());
    out.extend_from_slice(&manifest.not_before().as_secs().to_le_bytes());
    out.extend_from_slice(&manifest.not_after().as_secs().to_le_bytes());
    out.extend_from_slice(&manifest.grace().as_secs().to_le_bytes());
    out
}

const CONTENT_LEN: usize = 32 + 1 + 4 + 4 + 5 * 8;

fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Static => 1,
        Kind::Streaming => 2,
        Kind::Live => 3,
    }
}

fn encode_segments(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 49 * manifest.segments().len());
    out.extend_from_slice(&manifest.layout().segment_count().to_le_bytes());
    for segment in manifest.segments() {
        out.extend_from_slice(&segment.len.to_le_bytes());
        out.extend_from_slice(segment.hash.as_bytes());
        let duration = segment.duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        let has = duration.map_or(0, |_| HAS_DURATION) | segment.name.as_ref().map_or(0, |_| HAS_NAME);
        out.push(has);
        if let Some(micros) = duration {
            out.extend_from_slice(&micros.to_le_bytes());
        }
        if let Some(name) = &segment.name {
            let len = u16::try_from(name.len()).expect("a checked name has at most 1,024 bytes");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
    }
    out
}

// ----- Decoding -----

/// A manifest's frame: its sections found, their insides not yet looked at.
struct File<'a> {
    signed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
    /// In ascending order of tags.
    sections: Vec<(u16, &'a [u8])>,
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        let truncated = ManifestError::Truncated { at: bytes.len() };
        if bytes.len() > MAX_MANIFEST_LEN {
            return Err(too_long(bytes.len()));
        }
        if bytes.is_empty() || !bytes.iter().zip(&MAGIC).all(|(a, b)| a == b) {
            return Err(ManifestError::NotAManifest);
        }
        let mut header = Reader { bytes };
        let (Some(_), Some(version)) = (header.array::<8>(), header.u16()) else { return Err(truncated) };
        if version != Manifest::VERSION {
            return Err(ManifestError::Version { needed: version });
        }
        let (Some(section_count), Some(signed_len)) = (header.u16(), header.u32()) else { return Err(truncated) };
        let signed_len = signed_len as usize;
        if signed_len > MAX_MANIFEST_LEN {
            return Err(too_long(signed_len));
        }
        let Some((signed, rest)) = bytes.split_at_checked(signed_len) else { return Err(truncated) };
        let Some((signature, extra)) = rest.split_first_chunk() else { return Err(truncated) };
        if !extra.is_empty() {
            return Err(ManifestError::Extra { count: extra.len() });
        }
        let sections = signed.get(HEADER_LEN..).ok_or(ManifestError::Malformed { section: 0 })?;
        let sections = parse_sections(Reader { bytes: sections }, section_count)?;
        Ok(Self { signed, signature: *signature, sections })
    }

    fn section(&self, tag: u16) -> Result<Reader<'a>, ManifestError> {
        self.optional_section(tag).ok_or(ManifestError::Missing { section: tag })
    }

    fn optional_section(&self, tag: u16) -> Option<Reader<'a>> {
        let index = self.sections.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.sections.get(index).map(|(_, bytes)| Reader { bytes })
    }
}

fn parse_sections(mut reader: Reader<'_>, count: u16) -> Result<Vec<(u16, &[u8])>, ManifestError> {
    if count > MAX_SECTIONS {
        return Err(ManifestError::Limit { what: "sections", got: u64::from(count), allowed: "at most 64" });
    }
    let mut sections: Vec<(u16, &[u8])> = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let last = sections.last().map_or(0, |(tag, _)| *tag);
        let malformed = ManifestError::Malformed { section: last };
        let (Some(tag), Some(flags), Some(len)) = (reader.u16(), reader.u16(), reader.u32()) else {
            return Err(malformed);
        };
        let Some(body) = reader.take(len as usize) else { return Err(ManifestError::Malformed { section: tag }) };
        let is_known = (TAG_CONTENT..=TAG_KEYS).contains(&tag);
        if tag <= last || flags > CRITICAL || (is_known && flags != CRITICAL) {
            return Err(ManifestError::Malformed { section: tag });
        }
        if !is_known && flags == CRITICAL {
            return Err(ManifestError::UnknownCritical { section: tag });
        }
        sections.push((tag, body));
    }
    if reader.bytes.is_empty() { Ok(sections) } else { Err(ManifestError::Malformed { section: 0 }) }
}

fn decode_keys(reader: Reader<'_>) -> Result<Vec<ServerKey>, ManifestError> {
    let (keys, []) = reader.bytes.as_chunks::<32>() else {
        return Err(ManifestError::Malformed { section: TAG_KEYS });
    };
    if keys.is_empty() || keys.len() > MAX_KEYS {
        let got = keys.len() as u64;
        return Err(ManifestError::Limit { what: "server keys", got, allowed: "1 to 8 distinct ones" });
    }
    Ok(keys.iter().map(|key| ServerKey::from_bytes(*key)).collect())
}

fn decode_fields(file: &File<'_>, keys: Vec<ServerKey>) -> Result<Manifest, ManifestError> {
    let malformed = |section| move || ManifestError::Malformed { section };
    let mut content = file.section(TAG_CONTENT)?;
    let mut head = || {
        Some(ContentHead {
            content: ContentId::from_bytes(content.array()?),
            kind: content.u8()?,
            part_len: content.u32()?,
            part_count: content.u32()?,
            total_len: content.u64()?,
            epoch: content.u64()?,
            not_before: content.u64()?,
            not_after: content.u64()?,
            grace_secs: content.u64()?,
        })
    };
    let head = head().filter(|_| content.bytes.is_empty()).ok_or_else(malformed(TAG_CONTENT))?;
    let kind = match head.kind {
        1 => Kind::Static,
        2 => Kind::Streaming,
        3 => Kind::Live,
        _ => return Err(ManifestError::Malformed { section: TAG_CONTENT }),
    };
    let segments = decode_segments(file.section(TAG_SEGMENTS)?)?;
    let layout = check_layout(&head, &segments)?;
    let part_ids = match file.optional_section(TAG_PART_IDS) {
        None => None,
        Some(reader) => {
            let (ids, []) = reader.bytes.as_chunks::<32>() else {
                return Err(ManifestError::Malformed { section: TAG_PART_IDS });
            };
            Some(ids.iter().map(|id| PartId::from_bytes(*id)).collect())
        }
    };
    Manifest::check(Fields {
        content: head.content,
        name: file.section(TAG_NAME)?.text(MAX_NAME_LEN).ok_or_else(malformed(TAG_NAME))?,
        media_type: file.section(TAG_MEDIA_TYPE)?.text(MAX_NAME_LEN).ok_or_else(malformed(TAG_MEDIA_TYPE))?,
        kind,
        layout,
        segments,
        part_ids,
        epoch: head.epoch,
        not_before: UnixTime::from_secs(head.not_before),
        not_after: UnixTime::from_secs(head.not_after),
        grace: Duration::from_secs(head.grace_secs),
        keys,
    })
}

struct ContentHead {
    content: ContentId,
    kind: u8,
    part_len: u32,
    part_count: u32,
    total_len: u64,
    epoch: u64,
    not_before: u64,
    not_after: u64,
    grace_secs: u64,
}

fn decode_segments(mut reader: Reader<'_>) -> Result<Vec<Segment>, ManifestError> {
    let malformed = || ManifestError::Malformed { section: TAG_SEGMENTS };
    let count = reader.u32().ok_or_else(malformed)?;
    if count > MAX_SEGMENTS {
        return Err(LayoutError::Segments { got: count as usize }.into());
    }
    // The claimed count allocates nothing: each segment takes bytes that have arrived.
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(decode_segment(&mut reader).ok_or_else(malformed)?);
    }
    if reader.bytes.is_empty() { Ok(segments) } else { Err(malformed()) }
}

fn decode_segment(reader: &mut Reader<'_>) -> Option<Segment> {
    let len = reader.u64()?;
    let hash = SegmentHash::from_bytes(reader.array()?);
    let has = reader.u8().filter(|has| has & !(HAS_DURATION | HAS_NAME) == 0)?;
    let duration = if has & HAS_DURATION == 0 { None } else { Some(Duration::from_micros(reader.u64()?)) };
    let name = if has & HAS_NAME == 0 {
        None
    } else {
        let len = usize::from(reader.u16()?);
        Some(Reader { bytes: reader.take(len)? }.text(MAX_NAME_LEN)?)
    };
    Some(Segment { len, hash, duration, name })
}

fn check_layout(head: &ContentHead, segments: &[Segment]) -> Result<Layout, ManifestError> {
    let allowed = "a power of two from 16384 to 16777216";
    let got = u64::from(head.part_len);
    let limit = ManifestError::Limit { what: "part length, in bytes", got, allowed };
    let part_len = PartLen::new(head.part_len).ok_or(limit)?;
    let lens: Vec<u64> = segments.iter().map(|segment| segment.len).collect();
    let layout = Layout::new(part_len, &lens)?;
    let numbers = [
        ("total length", layout.total_len(), head.total_len),
        ("number of parts", u64::from(layout.part_count()), u64::from(head.part_count)),
    ];
    match numbers.into_iter().find(|(_, expected, got)| expected != got) {
        Some((what, expected, got)) => Err(ManifestError::Arithmetic { what, expected, got }),
        None => Ok(layout),
    }
}

/// Takes values from the front of bytes; `None` when they are used up.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// All that is left, as text of at most `max_len` bytes.
    fn text(self, max_len: usize) -> Option<String> {
        let bytes = (self.bytes.len() <= max_len).then_some(self.bytes)?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}
