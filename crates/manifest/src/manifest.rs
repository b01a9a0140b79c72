//! The manifest: all that a client must know of a content before its first part.

use crate::builder::Prepared;
use crate::date::Date;
use crate::layout::MAX_SEGMENTS;
use crate::name::{NameError, NameRule, check_name, folded_name};
use crate::policy::Kind;
use crate::tree::segment_hash;
use crate::{ContentId, Layout, LayoutError, PartId, PartRange, SegmentHash, ServerKey};
use hybrid_units::{ByteCount, Duration, UnixTime};
use std::collections::BTreeSet;

/// The longest manifest, 40 MiB: the ids of 2^20 parts take 32 MiB, the rest is for segments and their names.
pub const MAX_MANIFEST_LEN: usize = 40 << 20;

/// The most server keys in a manifest, 8: one that signs, one to follow it, and some for several servers.
pub const MAX_KEYS: usize = 8;

/// The latest time a manifest may name, 9999-12-31T23:59:59Z: the last one that RFC 3339 can write.
pub const MAX_TIME: UnixTime = UnixTime::from_secs(253_402_300_799);

/// The longest grace, 366 days: a manifest that outlives its server for longer could not be withdrawn by anybody.
pub const MAX_GRACE: Duration = Duration::from_secs(366 * 86_400);

/// How far apart clocks of a server and a client may be, 30 seconds.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);

const MAX_MEDIA_TYPE_LEN: usize = 127;

/// What the maker of a manifest says of a content besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestSpec {
    /// The content's name: a path with `/` between its components; [`check_name`] gives the rules.
    pub name: String,
    /// The media type, for the `Content-Type` header. Default: `application/octet-stream`, which no browser interprets.
    pub media_type: String,
    /// What the content is like over time. Default: [`Kind::Static`].
    pub kind: Kind,
    /// The version of the content under its name; a later one must have a greater number. Default: 0.
    pub epoch: u64,
    /// From when on the manifest holds. Default: the beginning of time.
    pub not_before: UnixTime,
    /// Until when it holds. Default: [`MAX_TIME`], since a static content's bytes do not change under their id.
    pub not_after: UnixTime,
    /// For how long after that clients which cannot reach the server may go on; whole seconds. Default: none.
    pub grace: Duration,
    /// Part ids travel with the manifest if the content has fewer bytes than this. Default: 50 MB (50,000,000 bytes), as
    /// the method asks; at 64 KiB a part that is 24 KiB of ids.
    pub inline_hashes_below: ByteCount,
    /// Other keys with which the server may sign later manifests; at most [`MAX_KEYS`] - 1. Default: none.
    pub further_keys: Vec<ServerKey>,
    /// What is said of each segment, in order; may end early. Default: nothing.
    pub segments: Vec<SegmentSpec>,
}

/// What the maker of a manifest says of a segment besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSpec {
    /// How long it plays; whole microseconds. Default: unknown.
    pub duration: Option<Duration>,
    /// Its name, by the same rules as the content's; no two are alike. Default: none.
    pub name: Option<String>,
}

impl ManifestSpec {
    /// A specification with this name and every default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            media_type: "application/octet-stream".to_owned(),
            kind: Kind::Static,
            epoch: 0,
            not_before: UnixTime::from_secs(0),
            not_after: MAX_TIME,
            grace: Duration::ZERO,
            inline_hashes_below: ByteCount::new(50_000_000),
            further_keys: Vec::new(),
            segments: Vec::new(),
        }
    }
}

impl SegmentSpec {
    /// A segment with this duration and name.
    pub fn new(duration: Option<Duration>, name: Option<String>) -> Self {
        Self { duration, name }
    }
}

/// What a content is: how it is cut, its hashes, and for how long the server stands for it.
///
/// A manifest in hand is consistent: its names, lengths, times and hashes were checked when it was made or decoded.
/// Whether its *server* says so is what [`crate::SignedManifest`] knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    content: ContentId,
    name: String,
    media_type: String,
    kind: Kind,
    layout: Layout,
    segments: Vec<Segment>,
    part_ids: Option<Vec<PartId>>,
    epoch: u64,
    not_before: UnixTime,
    not_after: UnixTime,
    grace: Duration,
    keys: Vec<ServerKey>,
}

/// A segment of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub(crate) len: u64,
    pub(crate) hash: SegmentHash,
    pub(crate) duration: Option<Duration>,
    pub(crate) name: Option<String>,
}

/// Everything a manifest is made of, not yet checked.
pub(crate) struct Fields {
    pub(crate) content: ContentId,
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) kind: Kind,
    pub(crate) layout: Layout,
    pub(crate) segments: Vec<Segment>,
    pub(crate) part_ids: Option<Vec<PartId>>,
    pub(crate) epoch: u64,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) grace: Duration,
    pub(crate) keys: Vec<ServerKey>,
}

/// What the time says of a manifest that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "who handles one must handle the other")]
pub enum Validity {
    /// It holds.
    Current,
    /// Its time is over, but for now clients that cannot reach the server may go on.
    Grace,
}

/// Why a manifest was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The bytes are something else.
    #[error("not a manifest")]
    NotAManifest,
    /// A later version of the format.
    #[error("needs version {needed} of hybrid")]
    Version {
        /// The format's version.
        needed: u16,
    },
    /// The bytes end too early.
    #[error("truncated at byte {at}")]
    Truncated {
        /// How many bytes there are.
        at: usize,
    },
    /// There are bytes behind the end.
    #[error("{count} extra bytes")]
    Extra {
        /// How many.
        count: usize,
    },
    /// A section's bytes are not what its format says.
    #[error("section {section} is malformed")]
    Malformed {
        /// The section's tag.
        section: u16,
    },
    /// A section that one must understand to use the content.
    #[error("section {section} is unknown and critical: a newer hybrid is needed")]
    UnknownCritical {
        /// The section's tag.
        section: u16,
    },
    /// A section that every manifest has is not there.
    #[error("section {section} is missing")]
    Missing {
        /// The section's tag.
        section: u16,
    },
    /// Not signed by the key that it must be signed by.
    #[error("signature does not match the key {key}")]
    Signature {
        /// The key.
        key: ServerKey,
    },
    /// Signed by a key that the caller does not trust.
    #[error("signed with the key {key}, which is not one of this server's")]
    UntrustedKey {
        /// The key.
        key: ServerKey,
    },
    /// More of something than is allowed.
    #[error("{what}: {got}, allowed is {allowed}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        got: u64,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Numbers that do not fit each other.
    #[error("{what}: {got} where the lengths give {expected}")]
    Arithmetic {
        /// Which number.
        what: &'static str,
        /// What follows from the lengths.
        expected: u64,
        /// What the manifest says.
        got: u64,
    },
    /// Lengths that are beyond the limits.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A name that is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Hashes that do not fit each other.
    #[error("{what} does not follow from {source_of}")]
    Hash {
        /// Which hash.
        what: &'static str,
        /// From what it should follow.
        source_of: &'static str,
    },
    /// Not valid at this time, or at no time.
    #[error("valid from {} to {}, now it is {}", Date(*.not_before), Date(*.not_after), Date(*.now))]
    Expired {
        /// From when on it holds.
        not_before: UnixTime,
        /// Until when, grace included.
        not_after: UnixTime,
        /// What time it is.
        now: UnixTime,
    },
    /// Valid at no time.
    #[error("valid from {} to {}, which is at no time", Date(*.not_before), Date(*.not_after))]
    NeverValid {
        /// From when on it holds.
        not_before: UnixTime,
        /// Until when.
        not_after: UnixTime,
    },
    /// Older than one that is known.
    #[error("epoch {got} is older than epoch {known}, which is known")]
    Rollback {
        /// The epoch that is known.
        known: u64,
        /// The manifest's.
        got: u64,
    },
    /// Another content under a name and epoch that are known.
    #[error("epoch {epoch} of this name is known with another content")]
    Conflict {
        /// The epoch.
        epoch: u64,
    },
}

impl ManifestError {
    /// A stable code for programs, such as `E_MANIFEST_LIMIT`; `docs/spec/manifest.md` lists them.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAManifest | Self::Malformed { .. } | Self::Missing { .. } => "E_MANIFEST_FORMAT",
            Self::Version { .. } | Self::UnknownCritical { .. } => "E_MANIFEST_VERSION",
            Self::Truncated { .. } => "E_MANIFEST_TRUNCATED",
            Self::Extra { .. } => "E_MANIFEST_EXTRA",
            Self::Signature { .. } | Self::UntrustedKey { .. } => "E_MANIFEST_SIGNATURE",
            Self::Limit { .. } | Self::Layout(_) => "E_MANIFEST_LIMIT",
            Self::Arithmetic { .. } => "E_MANIFEST_ARITH",
            Self::Name(_) => "E_MANIFEST_NAME",
            Self::Hash { .. } => "E_MANIFEST_HASH",
            Self::Expired { .. } | Self::NeverValid { .. } => "E_MANIFEST_EXPIRED",
            Self::Rollback { .. } => "E_MANIFEST_ROLLBACK",
            Self::Conflict { .. } => "E_MANIFEST_CONFLICT",
        }
    }
}

/// The id of a content that is not one file: it has no bytes to be named by before it ends.
///
/// BLAKE3 in its key derivation mode with a context of our own, over the server's key, the epoch (`u64`, little-endian) and
/// the name.
pub fn stream_content_id(key: ServerKey, name: &str, epoch: u64) -> ContentId {
    let mut hasher = blake3::Hasher::new_derive_key("hybrid 2026-11-22 content id of a stream v1");
    hasher.update(key.as_bytes());
    hasher.update(&epoch.to_le_bytes());
    hasher.update(name.as_bytes());
    ContentId::from_bytes(*hasher.finalize().as_bytes())
}

impl Manifest {
    /// The format's version that this program writes.
    pub const VERSION: u16 = 1;

    /// The manifest of a prepared content, for the server that signs with `key`.
    ///
    /// # Errors
    /// When the specification breaks a rule.
    pub fn new(spec: ManifestSpec, prepared: &Prepared, key: ServerKey) -> Result<Self, ManifestError> {
        let segment_count = prepared.segment_hashes().len();
        if spec.segments.len() > segment_count {
            let (expected, got) = (segment_count as u64, spec.segments.len() as u64);
            return Err(ManifestError::Arithmetic { what: "segments with a description", expected, got });
        }
        let content = match (spec.kind, prepared.segment_hashes()) {
            (Kind::Static, [hash]) => ContentId::from_bytes(*hash.as_bytes()),
            _ => stream_content_id(key, &spec.name, spec.epoch),
        };
        let said = spec.segments.into_iter().map(Some).chain(std::iter::repeat(None));
        let spans = prepared.layout().segments().zip(prepared.segment_hashes()).zip(said);
        let segments = spans.map(|((span, &hash), said)| {
            let said = said.unwrap_or_default();
            let duration = said.duration.map(whole_micros);
            Segment { len: span.len(), hash, duration, name: said.name }
        });
        let inline = prepared.layout().total_len() < spec.inline_hashes_below.as_u64();
        Self::check(Fields {
            content,
            name: spec.name,
            media_type: spec.media_type,
            kind: spec.kind,
            layout: prepared.layout().clone(),
            segments: segments.collect(),
            part_ids: inline.then(|| prepared.part_ids().to_vec()),
            epoch: spec.epoch,
            not_before: spec.not_before,
            not_after: spec.not_after,
            grace: Duration::from_secs(spec.grace.as_secs()),
            keys: std::iter::once(key).chain(spec.further_keys).collect(),
        })
    }

    /// The one place where a manifest is made.
    pub(crate) fn check(fields: Fields) -> Result<Self, ManifestError> {
        check_keys(&fields.keys)?;
        check_name(&fields.name)?;
        check_media_type(&fields.media_type)?;
        check_times(&fields)?;
        check_segment_names(&fields.segments)?;
        check_content_id(&fields)?;
        if let Some(ids) = &fields.part_ids {
            check_part_ids(ids, &fields)?;
        }
        let Fields { content, name, media_type, kind, layout, segments, part_ids, .. } = fields;
        let Fields { epoch, not_before, not_after, grace, keys, .. } = fields;
        Ok(Self {
            content,
            name,
            media_type,
            kind,
            layout,
            segments,
            part_ids,
            epoch,
            not_before,
            not_after,
            grace,
            keys,
        })
    }

    /// The format's version.
    pub fn version(&self) -> u16 {
        Self::VERSION
    }

    /// Which content.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// The content's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The media type, such as `video/mp4`: printable ASCII, fit for a header.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What the content is like over time.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How the content is cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The segments, as many as the layout has.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// All part ids, if they travel with the manifest; `None` if they are to be asked for.
    pub fn part_ids(&self) -> Option<&[PartId]> {
        self.part_ids.as_deref()
    }

    /// The version of the content under its name.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// From when on the manifest holds.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Until when it holds.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// For how long after that clients which cannot reach the server may go on.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The server's keys: the one that signs this manifest, then others.
    pub fn keys(&self) -> &[ServerKey] {
        &self.keys
    }

    /// The key that signs this manifest.
    pub fn signer(&self) -> ServerKey {
        self.keys[0]
    }

    /// Whether the manifest holds at `now`, give or take [`CLOCK_SKEW`].
    ///
    /// # Errors
    /// [`ManifestError::Expired`] before its time and after its grace.
    pub fn check_time(&self, now: UnixTime) -> Result<Validity, ManifestError> {
        if now + CLOCK_SKEW < self.not_before || now > self.not_after + self.grace + CLOCK_SKEW {
            let not_after = self.not_after + self.grace;
            return Err(ManifestError::Expired { not_before: self.not_before, not_after, now });
        }
        Ok(if now > self.not_after + CLOCK_SKEW { Validity::Grace } else { Validity::Current })
    }

    /// Whether this manifest may take the place of `known`, an earlier one of the same name from the same server.
    ///
    /// # Errors
    /// When it is older, or has the same epoch and yet another content; a live content may have more segments.
    pub fn check_succeeds(&self, known: &Self) -> Result<(), ManifestError> {
        if self.epoch < known.epoch {
            return Err(ManifestError::Rollback { known: known.epoch, got: self.epoch });
        }
        let hashes = |manifest: &Self| manifest.segments.iter().map(|s| (s.len, s.hash)).collect::<Vec<_>>();
        let (ours, theirs) = (hashes(self), hashes(known));
        let same = match self.kind {
            Kind::Live => ours.starts_with(&theirs),
            Kind::Static | Kind::Streaming => ours == theirs,
        };
        let same = same && self.content == known.content && self.layout.part_len() == known.layout.part_len();
        if self.epoch == known.epoch && !same {
            return Err(ManifestError::Conflict { epoch: self.epoch });
        }
        Ok(())
    }
}

#[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
impl Segment {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The BLAKE3 hash of its bytes.
    pub fn hash(&self) -> SegmentHash {
        self.hash
    }

    /// How long it plays, if known.
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// The format counts microseconds; 2^64 of them are 584,000 years.
fn whole_micros(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn check_keys(keys: &[ServerKey]) -> Result<(), ManifestError> {
    let distinct = keys.iter().collect::<BTreeSet<_>>().len();
    if keys.is_empty() || keys.len() > MAX_KEYS || distinct != keys.len() {
        return Err(ManifestError::Limit {
            what: "server keys",
            got: keys.len() as u64,
            allowed: "1 to 8 distinct ones",
        });
    }
    Ok(())
}

fn check_media_type(text: &str) -> Result<(), ManifestError> {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    let has_form = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if !printable || !has_form || text.len() > MAX_MEDIA_TYPE_LEN {
        let allowed = "type/subtype with optional parameters, at most 127 bytes of printable ASCII";
        return Err(ManifestError::Limit { what: "media type, in bytes", got: text.len() as u64, allowed });
    }
    Ok(())
}

fn check_times(fields: &Fields) -> Result<(), ManifestError> {
    let Fields { not_before, not_after, grace, .. } = *fields;
    if not_after <= not_before {
        return Err(ManifestError::NeverValid { not_before, not_after });
    }
    if not_after > MAX_TIME {
        let allowed = "a time before the year 10000";
        return Err(ManifestError::Limit { what: "end of validity", got: not_after.as_secs(), allowed });
    }
    if grace > MAX_GRACE {
        return Err(ManifestError::Limit {
            what: "grace, in seconds",
            got: grace.as_secs(),
            allowed: "at most 366 days",
        });
    }
    Ok(())
}

fn check_segment_names(segments: &[Segment]) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for name in segments.iter().filter_map(Segment::name) {
        check_name(name)?;
        if !seen.insert(folded_name(name)) {
            return Err(NameError::new(name, NameRule::Twice).into());
        }
    }
    Ok(())
}

fn check_content_id(fields: &Fields) -> Result<(), ManifestError> {
    if fields.segments.len() != fields.layout.segment_count() as usize {
        let (expected, got) = (u64::from(fields.layout.segment_count()), fields.segments.len() as u64);
        return Err(ManifestError::Arithmetic { what: "segments", expected, got });
    }
    let (expected, source_of) = match (fields.kind, fields.segments.as_slice()) {
        (Kind::Static, [only]) => (ContentId::from_bytes(*only.hash.as_bytes()), "the hash of its only segment"),
        (Kind::Static, _) => {
            let got = fields.segments.len() as u64;
            return Err(ManifestError::Limit { what: "segments of a static content", got, allowed: "1" });
        }
        (Kind::Streaming | Kind::Live, _) => {
            let id = fields.keys.first().map(|&key| stream_content_id(key, &fields.name, fields.epoch));
            (id.unwrap_or(fields.content), "the server's key, the name and the epoch")
        }
    };
    if fields.content != expected {
        return Err(ManifestError::Hash { what: "the content id", source_of });
    }
    Ok(())
}

fn check_part_ids(ids: &[PartId], fields: &Fields) -> Result<(), ManifestError> {
    let expected = fields.layout.part_count();
    if u32::try_from(ids.len()) != Ok(expected) {
        let got = ids.len() as u64;
        return Err(ManifestError::Arithmetic { what: "part ids", expected: u64::from(expected), got });
    }
    for (number, segment) in (0..MAX_SEGMENTS).zip(&fields.segments) {
        let parts = fields.layout.parts_in_segment(number);
        let run = |parts: PartRange| ids.get(parts.first().as_index()..parts.end().as_index());
        if segment_hash(parts.and_then(run).unwrap_or_default()) != segment.hash {
            return Err(ManifestError::Hash { what: "the hash of a segment", source_of: "its part ids" });
        }
    }
    Ok(())
}
