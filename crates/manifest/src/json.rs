//! The manifest for people and for programs that do not read the binary form.
//!
//! The binary form is the one that is signed; this one proves nothing.

use crate::Manifest;
use crate::date::Date;
use serde::Serialize;

#[derive(Serialize)]
struct JsonManifest<'a> {
    version: u16,
    content: String,
    name: &'a str,
    media_type: &'a str,
    kind: &'static str,
    total_bytes: u64,
    part_bytes: u32,
    parts: u32,
    epoch: u64,
    not_before: String,
    not_after: String,
    grace_seconds: u64,
    server_keys: Vec<String>,
    segments: Vec<JsonSegment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part_ids: Option<Vec<String>>,
}

#[derive(Serialize)]
struct JsonSegment<'a> {
    bytes: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl Manifest {
    /// The manifest as JSON: hashes in hexadecimal, times by RFC 3339, members as `docs/spec/manifest.md` lists them.
    pub fn to_json(&self) -> String {
        let segments = self.segments().iter().map(|segment| JsonSegment {
            bytes: segment.len(),
            hash: segment.hash().to_string(),
            duration_seconds: segment.duration().map(|duration| duration.as_secs_f64()),
            name: segment.name(),
        });
        let json = JsonManifest {
            version: self.version(),
            content: self.content().to_string(),
            name: self.name(),
            media_type: self.media_type(),
            kind: self.kind().as_str(),
            total_bytes: self.layout().total_len(),
            part_bytes: self.layout().part_len().as_u32(),
            parts: self.layout().part_count(),
            epoch: self.epoch(),
            not_before: Date(self.not_before()).to_string(),
            not_after: Date(self.not_after()).to_string(),
            grace_seconds: self.grace().as_secs(),
            server_keys: self.keys().iter().map(ToString::to_string).collect(),
            segments: segments.collect(),
            part_ids: self.part_ids().map(|ids| ids.iter().map(ToString::to_string).collect()),
        };
        serde_json::to_string_pretty(&json).expect("text, numbers and lists always make JSON")
    }
}
