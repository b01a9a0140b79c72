//! Properties of layouts, hashes, proofs and manifests.
//!
//! A failure prints its smallest case and writes it to `proptest-regressions/props.txt`, from where the next run replays it first;
//! commit that file.

#![allow(clippy::cast_possible_truncation, reason = "lengths and numbers in these tests are small")]

use bytes::Bytes;
use hybrid_manifest::{
    Builder, HashProof, Kind, Layout, MAX_PARTS, MAX_TOTAL_LEN, Manifest, ManifestError, ManifestSpec, PartId, PartIds,
    PartLen, PartNumber, PartRange, Prepared, ProofError, SegmentSpec, ServerKey, SignedManifest, SigningKey, Trust,
    VerifyError, check_name, folded_name, part_id, part_len, server_key, stream_content_id,
};
use hybrid_units::{ByteCount, BytesPerSecond, Duration, UnixTime};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const K16: u64 = 16 << 10;

fn number(number: u32) -> PartNumber {
    PartNumber::new(number)
}

fn range(first: u32, count: u32) -> PartRange {
    PartRange::new(number(first), count).expect("a run of parts")
}

/// This many cases; what fails is written to a file, from where the next run replays it.
fn cases(cases: u32) -> ProptestConfig {
    let file = FileFailurePersistence::Direct("proptest-regressions/props.txt");
    ProptestConfig { cases, failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

/// Bytes in which every part differs from every other.
fn bytes_of(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn prepare(part_len: PartLen, segments: &[Vec<u8>]) -> Prepared {
    let mut builder = Builder::new(part_len);
    for segment in segments {
        builder.write(segment).expect("within the limits");
        builder.end_segment().expect("within the limits");
    }
    builder.finish().expect("within the limits")
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The manifest of a file that does not carry its part ids.
fn asking_manifest(prepared: &Prepared) -> Manifest {
    let mut spec = ManifestSpec::new("content.bin");
    spec.kind = if prepared.segment_hashes().len() == 1 { Kind::Static } else { Kind::Streaming };
    spec.inline_hashes_below = ByteCount::new(0);
    Manifest::new(spec, prepared, server_key(&signing_key(1))).expect("a manifest")
}

// ----- Layout -----

/// The simplest description of a layout: for each part its segment, offset, offset in the segment and length.
fn naive(part_len: u64, segments: &[u64]) -> Vec<(u32, u64, u64, u64)> {
    let (mut parts, mut offset) = (Vec::new(), 0);
    for (segment, &len) in (0..).zip(segments) {
        let mut done = 0;
        while done < len {
            let part = part_len.min(len - done);
            parts.push((segment, offset + done, done, part));
            done += part;
        }
        offset += len;
    }
    parts
}

fn segment_len() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        1..=3u64,
        (1..=6u64, -1..=1i64).prop_map(|(parts, near)| (parts * K16).saturating_add_signed(near)),
        0..200_000u64,
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn layout_is_the_naive_one(
        doublings in 0u32..3,
        lens in prop::collection::vec(segment_len(), 0..6),
        offset in 0u64..700_000,
        len in prop_oneof![Just(0), Just(u64::MAX), 0u64..700_000],
        (first, count) in (0u32..60, 1u32..60),
    ) {
        let part_len = PartLen::new(PartLen::MIN.as_u32() << doublings).expect("a power of two");
        let model = naive(part_len.as_u64(), &lens);
        let total: u64 = lens.iter().sum();
        let layout = Layout::new(part_len, &lens).expect("within the limits");
        prop_assert_eq!(layout.total_len(), total);
        prop_assert_eq!(layout.part_count() as usize, model.len());
        prop_assert_eq!(layout.segment_count() as usize, lens.len());

        for (index, expected) in (0u32..).zip(&model) {
            let place = layout.part(number(index)).expect("a part of the content");
            let got = (place.segment(), place.offset(), place.offset_in_segment(), u64::from(place.len()));
            prop_assert_eq!(&got, expected);
            prop_assert_eq!(place.number(), number(index));
            let alone = model.iter().filter(|part| part.0 == expected.0).count() == 1;
            prop_assert_eq!(place.is_whole_segment(), alone);
            prop_assert_eq!(layout.part_at(place.offset()), Some(place));
            prop_assert_eq!(layout.part_at(place.end() - 1), Some(place));
        }
        prop_assert_eq!(layout.part(number(layout.part_count())), None);
        prop_assert_eq!(layout.part(number(u32::MAX)), None);
        prop_assert_eq!(layout.part_at(total), None);
        prop_assert_eq!(layout.part_at(u64::MAX), None);

        let touches = |part: &&(u32, u64, u64, u64)| part.1 < offset.saturating_add(len) && offset < part.1 + part.3;
        let touched = model.iter().filter(touches).count();
        let covering = layout.parts_covering(offset, len);
        prop_assert_eq!(covering.map_or(0, |run| run.count() as usize), if len == 0 { 0 } else { touched });
        if let Some(run) = covering {
            prop_assert_eq!(layout.part_at(offset).map(|place| place.number()), Some(run.first()));
        }

        for segment in 0..=layout.segment_count() {
            let parts = model.iter().filter(|part| part.0 == segment).count();
            let run = layout.parts_in_segment(segment);
            prop_assert_eq!(run.map_or(0, |run| run.count() as usize), parts);
            let span = layout.segment_span(segment);
            prop_assert_eq!(span.map(|span| span.len()), lens.get(segment as usize).copied());
            prop_assert_eq!(span.and_then(|span| span.parts()), run);
        }

        let asked = range(first, count);
        let runs: Vec<_> = layout.split_by_segment(asked).collect();
        let numbers: Vec<_> = runs.iter().flat_map(|run| run.iter()).collect();
        prop_assert_eq!(numbers, asked.iter().filter(|n| n.as_u32() < layout.part_count()).collect::<Vec<_>>());
        for run in runs {
            let segments: Vec<_> = run.iter().map(|n| model[n.as_index()].0).collect();
            prop_assert!(segments.iter().all(|segment| *segment == segments[0]));
        }
    }

    /// Lengths that nobody would make: an error or a layout within the limits, never a panic.
    #[test]
    fn layout_of_any_lengths(doublings in 0u32..11, lens in prop::collection::vec(any::<u64>(), 0..4), shift in 0u32..64) {
        let part_len = PartLen::new(PartLen::MIN.as_u32() << doublings).expect("a power of two");
        let lens: Vec<_> = lens.into_iter().map(|len| len >> shift).collect();
        if let Ok(layout) = Layout::new(part_len, &lens) {
            prop_assert!(layout.total_len() <= MAX_TOTAL_LEN && layout.part_count() <= MAX_PARTS);
            if let Some(all) = layout.parts() {
                let last = layout.part(number(all.end().as_u32() - 1)).expect("the last part");
                prop_assert_eq!(last.end(), layout.total_len());
            }
        }
    }

    // ----- Policy -----

    #[test]
    fn policy_bounds(shift in 0u32..64, total in any::<u64>(), rate in prop::option::of(any::<u64>())) {
        let total = total >> shift;
        let rate = rate.map(|rate| BytesPerSecond::new(rate >> shift));
        let file = part_len(Kind::Static, total, rate).as_u64();
        prop_assert!(file >= 32 << 10);
        if total <= 1 << 30 {
            prop_assert!(file <= 1 << 20 && total.div_ceil(file) <= 1_024);
        }
        if total <= MAX_TOTAL_LEN {
            prop_assert!(total.div_ceil(file) <= u64::from(MAX_PARTS));
        }
        // The next shorter length would have been too short.
        let shorter = file / 2;
        let most = if file > 1 << 20 { u64::from(MAX_PARTS) } else { 1_024 };
        prop_assert!(file == 32 << 10 || total.div_ceil(shorter) > most);
        for kind in [Kind::Streaming, Kind::Live] {
            let media = part_len(kind, total, rate).as_u64();
            prop_assert!((125_000..=500_000).contains(&media));
            // About one second, where the bounds leave a choice.
            if let Some(rate) = rate.map(BytesPerSecond::as_u64).filter(|rate| (131_072..=262_144).contains(rate)) {
                prop_assert!(media * 10 >= rate * 7 && media * 7 <= rate * 10, "{} at {}", media, rate);
            }
        }
    }
}

// ----- Hashes -----

/// Lengths around the boundaries of chunks and of parts.
fn boundary_lens() -> Vec<usize> {
    let part = K16 as usize;
    let mut lens = vec![0, 1, 63, 64, 65, 1_023, 1_024, 1_025, 2_047, 2_048, 2_049];
    for parts in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17] {
        lens.extend([-1_025, -1_024, -1, 0, 1, 1_023, 1_024, 1_025].map(|near| (parts * part).strict_add_signed(near)));
    }
    lens
}

#[test]
fn root_is_the_plain_hash() {
    for len in boundary_lens() {
        let bytes = bytes_of(len, 0);
        let prepared = prepare(PartLen::MIN, std::slice::from_ref(&bytes));
        assert_eq!(prepared.segment_hashes()[0].as_bytes(), blake3::hash(&bytes).as_bytes(), "{len} bytes");
        assert_eq!(prepared.part_ids().len(), len.div_ceil(K16 as usize));
    }
}

#[test]
fn root_is_the_plain_hash_for_longer_parts() {
    for part_len in [64u32 << 10, 256 << 10, 1 << 20].map(|len| PartLen::new(len).expect("a power of two")) {
        for len in [0, 1, part_len.as_u32() - 1, part_len.as_u32(), part_len.as_u32() + 1, 3 * part_len.as_u32()] {
            let bytes = bytes_of(len as usize, 1);
            let prepared = prepare(part_len, std::slice::from_ref(&bytes));
            assert_eq!(prepared.segment_hashes()[0].as_bytes(), blake3::hash(&bytes).as_bytes(), "{len} bytes");
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// The stream in whatever portions, the parts one by one in whatever order, and BLAKE3 itself agree.
    #[test]
    fn streaming_part_wise_and_whole_agree(
        lens in prop::collection::vec(segment_len(), 1..4),
        portions in prop::collection::vec(1usize..40_000, 1..20),
        seed in any::<u8>(),
    ) {
        let segments: Vec<_> = lens.iter().map(|&len| bytes_of(len as usize, seed)).collect();
        let mut builder = Builder::new(PartLen::MIN);
        let mut portion = portions.iter().cycle();
        for segment in &segments {
            let mut rest = segment.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*portion.next().expect("a cycle")));
                builder.write(now).expect("within the limits");
                rest = later;
            }
            builder.end_segment().expect("within the limits");
        }
        let streamed = builder.finish().expect("within the limits");

        let layout = Layout::new(PartLen::MIN, &lens).expect("within the limits");
        let whole = segments.concat();
        let mut ids = vec![PartId::from_bytes([0; 32]); layout.part_count() as usize];
        for index in (0..layout.part_count()).rev() {
            let place = layout.part(number(index)).expect("a part");
            let bytes = &whole[usize::try_from(place.offset()).unwrap()..usize::try_from(place.end()).unwrap()];
            ids[index as usize] = part_id(&place, bytes).expect("as long as the part");
            prop_assert_eq!(part_id(&place, &bytes[1..]), None);
        }
        let part_wise = Prepared::from_part_ids(layout, ids).expect("one id a part");
        prop_assert_eq!(&streamed, &part_wise);
        for (segment, hash) in segments.iter().zip(streamed.segment_hashes()) {
            let expected = blake3::hash(segment);
            prop_assert_eq!(hash.as_bytes(), expected.as_bytes());
        }
    }

    // ----- Proofs -----

    /// A server with all ids, a client that learns some from proofs, and a second client that learns them from the first.
    #[test]
    fn proofs_travel_from_peer_to_peer(
        lens in prop::collection::vec(segment_len(), 1..4),
        asks in prop::collection::vec((0u32..30, 1u32..12), 1..8),
        seed in any::<u8>(),
    ) {
        let segments: Vec<_> = lens.iter().map(|&len| bytes_of(len as usize, seed)).collect();
        let prepared = prepare(PartLen::MIN, &segments);
        let manifest = asking_manifest(&prepared);
        let server = PartIds::with_ids(&manifest, prepared.part_ids()).expect("its own ids");
        let (mut first, mut second) = (PartIds::new(&manifest), PartIds::new(&manifest));
        let whole = Bytes::from(segments.concat());

        for (start, count) in asks {
            let asked = range(start, count);
            let proofs = server.prove_all(asked).expect("the server knows everything");
            let bytes: Vec<u8> = proofs.iter().flat_map(HashProof::encode).collect();
            prop_assert_eq!(bytes.len(), proofs.iter().map(HashProof::encoded_len).sum::<usize>());
            let decoded = HashProof::decode_all(&bytes).expect("what was encoded");
            prop_assert_eq!(&decoded, &proofs);
            for proof in decoded {
                prop_assert_eq!(first.insert(&proof), Ok(proof.range()));
                // What the first client learned it can prove, to the byte as the server does.
                let passed_on = first.prove(proof.range()).expect("just learned");
                prop_assert_eq!(&passed_on, &proof);
                prop_assert_eq!(second.insert(&passed_on), Ok(proof.range()));
            }
            // Each part alone, too.
            for number in asked.iter().filter(|n| n.as_u32() < manifest.layout().part_count()) {
                prop_assert_eq!(second.id(number), server.id(number));
                prop_assert!(second.prove(PartRange::one(number).expect("in range")).is_some());
            }
            prop_assert_eq!(second.missing(asked), vec![]);
        }

        for number in (0..manifest.layout().part_count()).map(number) {
            let place = manifest.layout().part(number).expect("a part");
            let bytes = whole.slice(usize::try_from(place.offset()).unwrap()..usize::try_from(place.end()).unwrap());
            match second.expect(number) {
                Some(expected) => {
                    let part = expected.verify(bytes.clone()).expect("right bytes");
                    prop_assert_eq!(part.bytes(), &bytes);
                    prop_assert_eq!((part.number(), part.content()), (number, manifest.content()));
                }
                None => prop_assert_eq!(second.missing(PartRange::one(number).expect("in range")).len(), 1),
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_a_part_is_found(len in 1usize..60_000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = bytes_of(len, 3);
        let prepared = prepare(PartLen::MIN, std::slice::from_ref(&bytes));
        let ids = PartIds::with_ids(&asking_manifest(&prepared), prepared.part_ids()).expect("its own ids");
        let at = at.index(len);
        bytes[at] ^= 1 << bit;
        let place = prepared.layout().part_at(at as u64).expect("a part");
        let part = &bytes[usize::try_from(place.offset()).unwrap()..usize::try_from(place.end()).unwrap()];
        let expected = ids.expect(place.number()).expect("the id is known");
        let got = expected.verify(Bytes::copy_from_slice(part));
        prop_assert!(matches!(got, Err(VerifyError::Hash { number, .. }) if number == place.number()), "{:?}", got);
        for wrong in [&part[1..], &[part, &[0]].concat()] {
            let got = expected.verify(Bytes::copy_from_slice(wrong));
            let length = VerifyError::Length { number: place.number(), expected: place.len(), got: wrong.len() };
            prop_assert_eq!(got, Err(length));
        }
    }

    /// A part's bytes do not pass for another part, even of the same length.
    #[test]
    fn parts_do_not_change_places(parts in 2u32..9, one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let bytes = Bytes::from(vec![7; (parts * PartLen::MIN.as_u32()) as usize]);
        let prepared = prepare(PartLen::MIN, &[bytes.to_vec()]);
        let ids = PartIds::with_ids(&asking_manifest(&prepared), prepared.part_ids()).expect("its own ids");
        let (one, other) = (one.index(parts as usize), other.index(parts as usize));
        // Equal bytes at different places have different ids: BLAKE3 counts its chunks.
        prop_assert_eq!(prepared.part_ids()[one] == prepared.part_ids()[other], one == other);
        prop_assert!(ids.expect(number(one as u32)).expect("known").verify(bytes.slice(..K16 as usize)).is_ok());
    }

    #[test]
    fn decoding_a_proof_from_any_bytes_returns(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((proof, rest)) = HashProof::decode(&bytes) {
            prop_assert_eq!(&bytes, &[proof.encode().as_slice(), rest].concat());
        }
        let _ = HashProof::decode_all(&bytes).is_ok();
    }

    /// As above, with headers that are nearly right.
    #[test]
    fn inserting_an_invented_proof_returns(
        (first, count) in (0u32..12, 0u32..12), (left, right) in (0u8..6, 0u8..6), seed in any::<u8>(),
    ) {
        let header = [&first.to_le_bytes()[..], &count.to_le_bytes(), &[left, right]].concat();
        let values = bytes_of(32 * (usize::from(left) + count as usize + usize::from(right)), seed);
        let bytes = [header, values].concat();
        let prepared = prepare(PartLen::MIN, &[bytes_of(100_000, 4), Vec::new(), bytes_of(20_000, 5)]);
        let mut ids = PartIds::new(&asking_manifest(&prepared));
        if let Ok((proof, rest)) = HashProof::decode(&bytes) {
            prop_assert!(rest.is_empty());
            prop_assert!(ids.insert(&proof).is_err());
            prop_assert_eq!(ids.missing(range(0, MAX_PARTS)), vec![range(0, 9)]);
        } else {
            prop_assert_eq!(count, 0);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_proof_is_found() {
    let prepared = prepare(PartLen::MIN, &[bytes_of(11 * K16 as usize + 5, 6)]);
    let manifest = asking_manifest(&prepared);
    let server = PartIds::with_ids(&manifest, prepared.part_ids()).unwrap();
    let proof = server.prove(range(3, 4)).unwrap();
    assert_eq!((proof.range().count(), proof.encoded_len()), (4, 10 + 32 * (2 + 4 + 2)));
    let bytes = proof.encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let mut client = PartIds::new(&manifest);
            let taken = HashProof::decode(&flipped).is_ok_and(|(proof, _)| client.insert(&proof).is_ok());
            assert!(!taken, "bit {bit} of byte {at}");
            assert_eq!(client.missing(range(0, 12)), [range(0, 12)], "nothing of a wrong proof is kept");
        }
    }
    for len in 0..bytes.len() {
        assert!(HashProof::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn proofs_that_do_not_fit() {
    let prepared = prepare(PartLen::MIN, &[bytes_of(50_000, 7), bytes_of(50_000, 8)]);
    let manifest = asking_manifest(&prepared);
    let server = PartIds::with_ids(&manifest, prepared.part_ids()).unwrap();
    assert_eq!(server.prove(range(3, 2)), None, "two segments");
    assert_eq!(server.prove(range(8, 1)), None, "beyond the end");
    assert_eq!(server.prove_all(range(0, MAX_PARTS)).unwrap().len(), 2);
    assert_eq!(PartIds::new(&manifest).prove(range(0, 4)), None, "nothing is known");

    // A proof of another content with the same shape, and one of another shape.
    let other = prepare(PartLen::MIN, &[bytes_of(50_000, 9), bytes_of(50_000, 8)]);
    let other = PartIds::with_ids(&asking_manifest(&other), other.part_ids()).unwrap();
    let mut client = PartIds::new(&manifest);
    let hash = ProofError::Hash { first: number(0), segment: 0 };
    assert_eq!(client.insert(&other.prove(range(0, 4)).unwrap()), Err(hash));
    assert!(client.insert(&other.prove(range(4, 4)).unwrap()).is_ok(), "their second segments are the same");
    let longer = prepare(PartLen::MIN, &[bytes_of(500_000, 7)]);
    let longer = PartIds::with_ids(&asking_manifest(&longer), longer.part_ids()).unwrap();
    let siblings = ProofError::Siblings { first: number(0), expected: (0, 2), got: (0, 5) };
    assert_eq!(client.insert(&longer.prove(range(0, 1)).unwrap()), Err(siblings));
    let beyond = ProofError::Range { first: number(3), count: 2 };
    assert_eq!(client.insert(&longer.prove(range(3, 2)).unwrap()), Err(beyond));

    let count = ProofError::Count { expected: 8, got: 7 };
    assert_eq!(PartIds::with_ids(&manifest, &prepared.part_ids()[1..]).unwrap_err(), count);
    let mut swapped = prepared.part_ids().to_vec();
    swapped.swap(5, 6);
    let hash = ProofError::Hash { first: number(4), segment: 1 };
    assert_eq!(PartIds::with_ids(&manifest, &swapped).unwrap_err(), hash);
}

// ----- Manifests -----

#[derive(Clone, Debug)]
struct Made {
    manifest: Manifest,
    key: SigningKey,
}

fn made() -> impl Strategy<Value = Made> {
    let segment = (segment_len(), prop::option::of(0u64..1 << 40), any::<bool>());
    (
        prop::collection::vec(segment, 1..5),
        0u8..3,
        "x[a-zéß€]{0,9}(/x[a-z0-9 ]{0,3}[a-z]){0,3}",
        (any::<u64>(), 0u64..1 << 37, 1u64..1 << 36, 0u64..300 * 86_400),
        any::<bool>(),
        (1u8..200, 0u8..8),
    )
        .prop_map(|(segments, kind, name, (epoch, from, lasts, grace), inline, (seed, further))| {
            let kind = [Kind::Static, Kind::Streaming, Kind::Live][usize::from(kind)];
            let segments = if kind == Kind::Static { &segments[..1] } else { &segments[..] };
            let bytes: Vec<_> = segments.iter().map(|segment| bytes_of(segment.0 as usize, seed)).collect();
            let mut spec = ManifestSpec::new(name);
            spec.kind = kind;
            spec.media_type = "video/mp4; codecs=\"avc1\"".to_owned();
            spec.epoch = epoch;
            spec.not_before = UnixTime::from_secs(from);
            spec.not_after = UnixTime::from_secs(from + lasts);
            spec.grace = Duration::from_secs(grace);
            spec.inline_hashes_below = ByteCount::new(if inline { u64::MAX } else { 0 });
            spec.further_keys = (0..further).map(|n| ServerKey::from_bytes([n; 32])).collect();
            let named = segments.iter().enumerate();
            spec.segments = named
                .map(|(index, &(_, duration, name))| {
                    let name = name.then(|| format!("segment-{index}.m4s"));
                    SegmentSpec::new(duration.map(Duration::from_micros), name)
                })
                .collect();
            let key = signing_key(seed);
            let manifest = Manifest::new(spec, &prepare(PartLen::MIN, &bytes), server_key(&key)).expect("a manifest");
            Made { manifest, key }
        })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn manifests_come_back_as_they_were(Made { manifest, key } in made()) {
        let signed = SignedManifest::sign(manifest.clone(), &key).expect("signed");
        for trust in [Trust::key(server_key(&key)), Trust::FirstUse] {
            let back = SignedManifest::decode(&signed.encode(), &trust).expect("what was encoded");
            prop_assert_eq!(&back, &signed);
            prop_assert_eq!(&**back.manifest(), &manifest);
        }
        let other = server_key(&signing_key(250));
        let error = ManifestError::UntrustedKey { key: manifest.signer() };
        prop_assert_eq!(SignedManifest::decode(&signed.encode(), &Trust::key(other)), Err(error));
        prop_assert!(SignedManifest::sign(manifest.clone(), &signing_key(250)).is_err());
        if manifest.kind() != Kind::Static {
            let id = stream_content_id(manifest.signer(), manifest.name(), manifest.epoch());
            prop_assert_eq!(manifest.content(), id);
        }
        let json: serde_json::Value = serde_json::from_str(&manifest.to_json()).expect("JSON");
        prop_assert_eq!(&json["content"], &serde_json::json!(manifest.content().to_string()));
        prop_assert_eq!(&json["total_bytes"], &serde_json::json!(manifest.layout().total_len()));
        prop_assert_eq!(json["segments"].as_array().map(Vec::len), Some(manifest.segments().len()));
        prop_assert_eq!(json["part_ids"].is_array(), manifest.part_ids().is_some());
    }

    #[test]
    fn a_mutated_manifest_is_refused(
        Made { manifest, key } in made(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        first_use in any::<bool>(),
    ) {
        let signed = SignedManifest::sign(manifest, &key).expect("signed");
        let mut bytes = signed.encode().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let trust = if first_use { Trust::FirstUse } else { Trust::key(server_key(&key)) };
        match SignedManifest::decode(&bytes, &trust) {
            Ok(back) => prop_assert_eq!(back, signed),
            Err(error) => prop_assert!(error.code().starts_with("E_MANIFEST_")),
        }
    }

    #[test]
    fn decoding_a_manifest_from_any_bytes_returns(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kept in 0usize..60,
    ) {
        prop_assert!(SignedManifest::decode(&bytes, &Trust::FirstUse).is_err());
        // With a good beginning, so that more of the decoder is reached.
        let prepared = prepare(PartLen::MIN, &[vec![1]]);
        let good = SignedManifest::sign(asking_manifest(&prepared), &signing_key(1)).expect("signed").encode();
        let mixed = [&good[..kept.min(good.len())], &bytes].concat();
        prop_assert!(SignedManifest::decode(&mixed, &Trust::FirstUse).is_err());
    }

    #[test]
    fn checking_any_name_returns(name in any::<String>()) {
        if check_name(&name).is_ok() {
            prop_assert!(name.len() <= 1_024 && !name.contains('\\') && !name.starts_with('/'));
            prop_assert!(name.split('/').all(|component| !component.is_empty() && component != ".."));
        }
        prop_assert_eq!(folded_name(&name.to_lowercase()), folded_name(&folded_name(&name.to_lowercase())));
    }
}
