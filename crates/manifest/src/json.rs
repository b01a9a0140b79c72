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

#[cfg(test)]
mod tests {
    use crate::{Builder, Kind, Manifest, ManifestSpec, PartLen, SegmentSpec, ServerKey};
    use hybrid_units::{Duration, UnixTime};

    #[test]
    fn as_people_read_it() {
        let mut builder = Builder::new(PartLen::MIN);
        builder.write(b"abc").unwrap();
        builder.end_segment().unwrap();
        builder.end_segment().unwrap();
        let mut spec = ManifestSpec::new("a \"b\".ts");
        assert!(
            Manifest::new(spec.clone(), &builder.clone().finish().unwrap(), ServerKey::from_bytes([1; 32])).is_err()
        );
        spec.name = "film/a.ts".to_owned();
        spec.kind = Kind::Streaming;
        spec.not_after = UnixTime::from_secs(1_795_365_537);
        spec.segments = vec![SegmentSpec::new(Some(Duration::from_millis(2_500)), Some("1.ts".to_owned()))];
        let manifest = Manifest::new(spec, &builder.finish().unwrap(), ServerKey::from_bytes([1; 32])).unwrap();
        let expected = r#"{
  "version": 1,
  "content": "CONTENT",
  "name": "film/a.ts",
  "media_type": "application/octet-stream",
  "kind": "streaming",
  "total_bytes": 3,
  "part_bytes": 16384,
  "parts": 1,
  "epoch": 0,
  "not_before": "1970-01-01T00:00:00Z",
  "not_after": "2026-11-22T16:38:57Z",
  "grace_seconds": 0,
  "server_keys": [
    "0101010101010101010101010101010101010101010101010101010101010101"
  ],
  "segments": [
    {
      "bytes": 3,
      "hash": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
      "duration_seconds": 2.5,
      "name": "1.ts"
    },
    {
      "bytes": 0,
      "hash": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    }
  ],
  "part_ids": [
    "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
  ]
}"#;
        assert_eq!(manifest.to_json(), expected.replace("CONTENT", &manifest.content().to_string()));
    }
}
