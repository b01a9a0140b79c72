//! The vectors of `docs/spec/vectors/manifest.txt`, to the byte, in both directions.

#[path = "../examples/manifest-vectors/make.rs"]
mod make;

use hybrid_manifest::{HashProof, PartIds, SignedManifest, Trust, server_key};
use std::collections::BTreeMap;

const FILE: &str = include_str!("../../../docs/spec/vectors/manifest.txt");

fn values() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = FILE.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (name, hex) = line.split_once(" = ").expect("a name and a value");
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        (name, digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect())
    });
    values.collect()
}

#[test]
fn the_program_writes_what_the_file_has() {
    for (ours, file) in make::vectors().lines().zip(FILE.lines()) {
        assert_eq!(ours, file, "the format changed: see examples/manifest-vectors/main.rs");
    }
    assert_eq!(make::vectors(), FILE);
}

#[test]
fn hashes_are_blake3s() {
    let values = values();
    for len in make::LENS {
        let hash = blake3::hash(&make::content(len));
        assert_eq!(values[format!("content.{len}.hash").as_str()], hash.as_bytes(), "{len} bytes");
    }
}

#[test]
fn the_program_reads_what_the_file_has() {
    let values = values();
    for (name, manifest) in make::manifests() {
        let bytes = &values[format!("manifest.{name}").as_str()];
        let trust = Trust::key(server_key(&make::key()));
        let signed = SignedManifest::decode(bytes, &trust).expect("a vector decodes");
        assert_eq!(**signed.manifest(), manifest, "{name}");
    }
    let prepared = make::prepare(&[&make::content(100_000)]);
    let mut spec = hybrid_manifest::ManifestSpec::new("proofs");
    spec.inline_hashes_below = hybrid_units::ByteCount::new(0);
    let manifest = hybrid_manifest::Manifest::new(spec, &prepared, server_key(&make::key())).expect("a manifest");
    let proofs: Vec<_> = values.iter().filter(|(name, _)| name.contains(".proof.")).collect();
    assert_eq!(proofs.len(), 4);
    for (name, bytes) in proofs {
        let (proof, rest) = HashProof::decode(bytes).expect("a vector decodes");
        assert!(rest.is_empty(), "{name}");
        let mut ids = PartIds::new(&manifest);
        let run = ids.insert(&proof).expect("a vector is right");
        assert_eq!(*name, format!("content.100000.proof.{}.{}", run.first(), run.count()));
        for number in run.iter() {
            assert_eq!(ids.id(number), prepared.part_ids().get(number.as_index()).copied(), "part {number}");
        }
    }
}
