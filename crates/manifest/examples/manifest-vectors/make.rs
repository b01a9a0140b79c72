//! What the vectors are; the example prints them, and `tests/vectors.rs` compares them with the file.

use hybrid_manifest::{
    Builder, Kind, Manifest, ManifestSpec, PartIds, PartLen, PartNumber, PartRange, Prepared, SegmentSpec, ServerKey,
    SignedManifest, SigningKey, server_key, stream_content_id,
};
use hybrid_units::{ByteCount, Duration, UnixTime};
use std::fmt::Write;

/// The lengths of the contents whose hashes are listed: around the ends of chunks, of parts, and of trees.
pub(crate) const LENS: [usize; 10] = [0, 1, 1_024, 16_383, 16_384, 16_385, 32_768, 49_153, 81_920, 100_000];

/// The bytes of every content here: 0, 1, … 250, and again.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// The server's secret key: 32 bytes 0x42.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[0x42; 32])
}

/// A content of these segments in parts of 16 KiB.
pub(crate) fn prepare(segments: &[&[u8]]) -> Prepared {
    let mut builder = Builder::new(PartLen::MIN);
    for segment in segments {
        builder.write(segment).expect("within the limits");
        builder.end_segment().expect("within the limits");
    }
    builder.finish().expect("within the limits")
}

fn spec(name: &str) -> ManifestSpec {
    let mut spec = ManifestSpec::new(name);
    spec.epoch = 3;
    spec.not_before = UnixTime::from_secs(1_795_305_600);
    spec.not_after = UnixTime::from_secs(1_795_392_000);
    spec.grace = Duration::from_secs(3_600);
    spec
}

/// The manifests: a file with its ids, a file that asks, a stream in two segments.
pub(crate) fn manifests() -> [(&'static str, Manifest); 3] {
    let key = server_key(&key());
    let make = |spec, prepared: &Prepared| Manifest::new(spec, prepared, key).expect("a good specification");
    let file = prepare(&[&content(49_153)]);

    let mut inline = spec("docs/readme.txt");
    inline.media_type = "text/plain; charset=utf-8".to_owned();
    let mut asking = spec("big.bin");
    asking.inline_hashes_below = ByteCount::new(0);
    asking.further_keys = vec![ServerKey::from_bytes([0x17; 32])];
    let mut stream = spec("film/720p");
    stream.kind = Kind::Streaming;
    stream.media_type = "video/mp4".to_owned();
    stream.segments = vec![
        SegmentSpec::new(Some(Duration::from_micros(2_002_000)), Some("film/720p-1.m4s".to_owned())),
        SegmentSpec::new(None, None),
    ];
    [
        ("inline", make(inline, &file)),
        ("asking", make(asking, &file)),
        ("stream", make(stream, &prepare(&[&content(20_000), &content(100)]))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole file.
pub(crate) fn vectors() -> String {
    let mut out = String::from(
        "# Test vectors of docs/spec/manifest.md. Every content is the bytes 0, 1, ... 250, repeated; parts are 16 KiB.\n\
         # Made by: cargo run -p hybrid-manifest --example manifest-vectors > docs/spec/vectors/manifest.txt\n",
    );
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{name} = {value}").expect("a String takes everything");
    };
    for len in LENS {
        let prepared = prepare(&[&content(len)]);
        line(&format!("content.{len}.hash"), &prepared.segment_hashes()[0].to_string());
        for (number, id) in prepared.part_ids().iter().enumerate() {
            line(&format!("content.{len}.part.{number}"), &id.to_string());
        }
    }

    let prepared = prepare(&[&content(100_000)]);
    let mut asking = spec("proofs");
    asking.inline_hashes_below = ByteCount::new(0);
    let manifest = Manifest::new(asking, &prepared, server_key(&key())).expect("a good specification");
    let ids = PartIds::with_ids(&manifest, prepared.part_ids()).expect("its own ids");
    for (first, count) in [(0, 1), (2, 3), (6, 1), (0, 7)] {
        let range = PartRange::new(PartNumber::new(first), count).expect("a run of parts");
        let proof = ids.prove(range).expect("all is known");
        line(&format!("content.100000.proof.{first}.{count}"), &hex(&proof.encode()));
    }

    line("server.secret_key", &hex(&key().to_bytes()));
    line("server.public_key", &server_key(&key()).to_string());
    line("stream_content_id.film/720p.3", &stream_content_id(server_key(&key()), "film/720p", 3).to_string());
    for (name, manifest) in manifests() {
        let signed = SignedManifest::sign(manifest, &key()).expect("its own key");
        line(&format!("manifest.{name}"), &hex(&signed.encode()));
    }
    out
}
