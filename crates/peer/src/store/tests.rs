//! Kill, cut, flip: what a store opens with afterwards.

use super::*;
use hybrid_manifest::{Builder, ManifestSpec, PartLen, PartRange, Prepared, ServerKey};
use hybrid_units::ByteCount;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const PART: usize = 16 << 10;
const LEN: usize = 5 * PART + 1_000;

fn content() -> Vec<u8> {
    (0..LEN).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect()
}

/// A manifest of [`content`], with the part ids in it or without, and all of them.
fn manifest(inline: bool) -> (Arc<Manifest>, PartIds) {
    let mut builder = Builder::new(PartLen::MIN);
    builder.write(&content()).unwrap();
    let prepared: Prepared = builder.finish().unwrap();
    let mut spec = ManifestSpec::new("content");
    spec.inline_hashes_below = ByteCount::new(if inline { u64::MAX } else { 0 });
    let manifest = Manifest::new(spec, &prepared, ServerKey::from_bytes([1; 32])).unwrap();
    let ids = PartIds::with_ids(&manifest, prepared.part_ids()).unwrap();
    (Arc::new(manifest), ids)
}

fn part(ids: &PartIds, number: u32) -> VerifiedPart {
    let expected = ids.expect(PartNumber::new(number)).unwrap();
    let offset = usize::try_from(expected.place().offset()).unwrap();
    let bytes = content()[offset..][..expected.place().len() as usize].to_vec();
    expected.verify(bytes.into()).unwrap()
}

fn numbers(held: &[PartNumber]) -> Vec<u32> {
    held.iter().map(|number| number.as_u32()).collect()
}

fn open(folder: &Path) -> (Store, Recovery) {
    Store::open(folder, manifest(true).0).unwrap()
}

/// A folder whose store holds these parts, closed without a sync as a killed process leaves it.
fn stored(parts: &[u32]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let (store, _) = open(folder.path());
    let ids = manifest(true).1;
    parts.iter().for_each(|&number| store.write(&part(&ids, number)).unwrap());
    folder
}

#[test]
fn what_goes_in_comes_out() {
    let folder = stored(&[5, 0, 3]);
    let (store, recovery) = open(folder.path());
    assert_eq!(recovery, Recovery { recovered: 3, ..Recovery::default() });
    assert_eq!(numbers(&store.held()), [0, 3, 5]);
    assert_eq!(numbers(&store.missing()), [1, 2, 4]);
    let ids = manifest(true).1;
    for number in [0, 3, 5] {
        assert_eq!(store.read(PartNumber::new(number)), Some(part(&ids, number)));
    }
    assert_eq!(store.read(PartNumber::new(1)), None);
    assert_eq!(store.read(PartNumber::new(6)), None);
    store.write(&part(&ids, 1)).unwrap();
    assert_eq!(store.unsynced(), 1);
    store.sync().unwrap();
    assert_eq!(store.unsynced(), 0);
    drop(store);
    assert_eq!(numbers(&open(folder.path()).0.held()), [0, 1, 3, 5]);
}

#[test]
fn other_contents_are_refused() {
    let mut builder = Builder::new(PartLen::MIN);
    builder.write(b"another content").unwrap();
    let prepared = builder.finish().unwrap();
    let other = Manifest::new(ManifestSpec::new("other"), &prepared, ServerKey::from_bytes([1; 32])).unwrap();
    let expected = PartIds::new(&other).expect(PartNumber::new(0)).unwrap();
    let part = expected.verify(Bytes::from_static(b"another content")).unwrap();
    let folder = TempDir::new().unwrap();
    assert!(matches!(open(folder.path()).0.write(&part), Err(WriteError::OtherContent(_))));
}

/// What `kill -9` in the middle of an append leaves, at every byte.
#[test]
fn a_journal_cut_at_any_byte() {
    let journal = fs::read(stored(&[2, 0, 4]).path().join("journal")).unwrap();
    for end in 0..=journal.len() {
        let folder = stored(&[2, 0, 4]);
        fs::write(folder.path().join("journal"), &journal[..end]).unwrap();
        let (store, recovery) = open(folder.path());
        let header = journal.len() - 3 * 8;
        let expected = match end {
            // Nothing at all is a new journal; half a header is a damaged one, and the data speaks for itself.
            0 => &[][..],
            _ if end < header => &[0, 2, 4],
            _ => [[].as_slice(), &[2], &[0, 2], &[0, 2, 4]][(end - header) / 8],
        };
        assert_eq!(numbers(&store.held()), expected, "cut at {end}");
        assert_eq!(recovery.rescanned, end > 0 && end < header, "cut at {end}");
        // It goes on from there as if nothing had been.
        store.write(&part(&manifest(true).1, 1)).unwrap();
        drop(store);
        let mut expected = expected.to_vec();
        expected.push(1);
        expected.sort_unstable();
        assert_eq!(numbers(&open(folder.path()).0.held()), expected, "cut at {end}, then one more");
    }
}

#[test]
fn flipped_bits_in_the_data_are_found_at_the_start() {
    for (offset, lost) in [(0, 0), (PART - 1, 0), (2 * PART, 2), (LEN - 1, 5)] {
        let folder = stored(&[0, 1, 2, 3, 4, 5]);
        let path = folder.path().join("data");
        let mut data = fs::read(&path).unwrap();
        data[offset] ^= 0x10;
        fs::write(&path, data).unwrap();
        let (store, recovery) = open(folder.path());
        assert_eq!(recovery, Recovery { recovered: 5, dropped: 1, ..Recovery::default() });
        assert!(!store.holds(PartNumber::new(lost)), "byte {offset}");
        // Written again, it is there again, also after another start.
        store.write(&part(&manifest(true).1, lost)).unwrap();
        drop(store);
        assert_eq!(open(folder.path()).1.recovered, 6);
    }
}

#[test]
fn flipped_bits_are_found_on_the_way_out() {
    let folder = stored(&[0, 1, 2, 3, 4, 5]);
    let (store, _) = open(folder.path());
    let data = File::options().write(true).open(folder.path().join("data")).unwrap();
    data.write_all_at(b"?", PART as u64 + 7).unwrap();
    assert_eq!(store.read(PartNumber::new(1)), None);
    assert!(!store.holds(PartNumber::new(1)));
    assert!(store.read(PartNumber::new(2)).is_some());
    let output = folder.path().join("output");
    let error = store.export(&output, Overwrite::Refuse).unwrap_err();
    assert!(matches!(error, ExportError::Incomplete { missing } if numbers(&missing) == [1]));
    assert!(!output.exists());
}

#[test]
fn a_shorter_or_missing_data_file_loses_parts_only() {
    let folder = stored(&[0, 1, 5]);
    File::options().write(true).open(folder.path().join("data")).unwrap().set_len(PART as u64 + 1).unwrap();
    let (store, recovery) = open(folder.path());
    assert_eq!((numbers(&store.held()), recovery.dropped), (vec![0], 2));
    drop(store);
    fs::remove_file(folder.path().join("data")).unwrap();
    assert_eq!(open(folder.path()).1, Recovery { dropped: 1, ..Recovery::default() });
}

#[test]
fn another_contents_journal_is_not_believed() {
    let folder = stored(&[0, 1]);
    let path = folder.path().join("journal");
    let mut journal = fs::read(&path).unwrap();
    journal[20] ^= 1;
    fs::write(&path, &journal).unwrap();
    let (store, recovery) = open(folder.path());
    assert!(recovery.rescanned);
    assert_eq!(numbers(&store.held()), [0, 1], "the data is right, whatever the journal was");
}

#[test]
fn links_are_not_followed() {
    for name in ["data", "journal", "proofs"] {
        let folder = stored(&[0]);
        let outside = TempDir::new().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::remove_file(folder.path().join(name)).unwrap();
        symlink(&victim, folder.path().join(name)).unwrap();
        let error = Store::open(folder.path(), manifest(true).0).unwrap_err();
        assert!(matches!(error, OpenError::Io { path, .. } if path.ends_with(name)));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}

#[test]
fn ids_that_were_asked_for_are_kept() {
    let (plain, all) = manifest(false);
    let folder = TempDir::new().unwrap();
    let (store, _) = Store::open(folder.path(), plain.clone()).unwrap();
    let range = PartRange::new(PartNumber::new(1), 3).unwrap();
    let proof = all.prove(range).unwrap().encode();
    let mut wrong = proof.clone();
    *wrong.last_mut().unwrap() ^= 1;
    store.learn(&wrong).unwrap();
    assert_eq!(store.known_proofs(), Vec::<Bytes>::new());
    store.learn(&proof).unwrap();
    store.learn(&proof).unwrap();
    assert_eq!(fs::metadata(folder.path().join("proofs")).unwrap().len(), proof.len() as u64, "once is enough");
    store.write(&part(&all, 2)).unwrap();
    store.write(&part(&all, 5)).unwrap();
    assert_eq!(store.read(PartNumber::new(5)), None, "its id is not known here");
    drop(store);

    let (store, recovery) = Store::open(folder.path(), plain.clone()).unwrap();
    assert_eq!((numbers(&store.held()), recovery.dropped), (vec![2], 1));
    let mut learned = PartIds::new(&plain);
    for proofs in store.known_proofs() {
        for proof in HashProof::decode_all(&proofs).unwrap() {
            learned.insert(&proof).unwrap();
        }
    }
    assert!((1..4).all(|number| learned.id(PartNumber::new(number)) == all.id(PartNumber::new(number))));
    drop(store);

    // Torn at every byte, the proofs are there or not, and the part with them.
    for end in 0..=proof.len() {
        fs::write(folder.path().join("proofs"), &proof[..end]).unwrap();
        let (store, _) = Store::open(folder.path(), plain.clone()).unwrap();
        assert_eq!(store.holds(PartNumber::new(2)), end == proof.len(), "cut at {end}");
        store.learn(&proof).unwrap();
        store.write(&part(&all, 2)).unwrap();
    }
}

#[test]
fn the_whole_content_is_written_out() {
    let folder = stored(&[0, 1, 2, 3, 4, 5]);
    let (store, _) = open(folder.path());
    let out = TempDir::new().unwrap();
    let output = out.path().join("content.bin");
    store.export(&output, Overwrite::Refuse).unwrap();
    assert_eq!(fs::read(&output).unwrap(), content());
    fs::write(&output, "mine").unwrap();
    assert!(matches!(store.export(&output, Overwrite::Refuse), Err(ExportError::Exists { .. })));
    assert_eq!(fs::read(&output).unwrap(), b"mine");
    store.export(&output, Overwrite::Replace).unwrap();
    assert_eq!(fs::read(&output).unwrap(), content());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn outputs_that_cannot_be() {
    let out = TempDir::new().unwrap();
    let (file, link, folder) = (out.path().join("file"), out.path().join("link"), out.path().join("folder"));
    fs::write(&file, "x").unwrap();
    symlink(&file, &link).unwrap();
    fs::create_dir(&folder).unwrap();
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        assert!(check_output(&out.path().join("new"), overwrite).is_ok());
        assert!(matches!(check_output(&link, overwrite), Err(ExportError::NotAFile { .. })));
        assert!(matches!(check_output(&folder, overwrite), Err(ExportError::NotAFile { .. })));
        assert!(matches!(check_output(&file.join("below"), overwrite), Err(ExportError::NotAFile { .. })));
        assert!(matches!(check_output(&out.path().join("no/such"), overwrite), Err(ExportError::Io { .. })));
        assert!(matches!(check_output(Path::new("/"), overwrite), Err(ExportError::Io { .. })));
    }
    assert!(matches!(check_output(&file, Overwrite::Refuse), Err(ExportError::Exists { .. })));
    assert!(check_output(&file, Overwrite::Replace).is_ok());
}

#[test]
fn a_content_of_no_bytes() {
    let prepared = Builder::new(PartLen::MIN).finish().unwrap();
    let manifest = Manifest::new(ManifestSpec::new("empty"), &prepared, ServerKey::from_bytes([1; 32])).unwrap();
    let folder = TempDir::new().unwrap();
    let (store, _) = Store::open(&folder.path().join("store"), Arc::new(manifest)).unwrap();
    let output = folder.path().join("output");
    store.export(&output, Overwrite::Refuse).unwrap();
    assert_eq!(fs::read(&output).unwrap(), b"");
}

/// One bit of anything in the folder: what is read afterwards is right, or not there, and fetched again it is there.
#[test]
fn a_flipped_bit_anywhere_never_gives_a_wrong_part() {
    let (manifest, ids) = manifest(false);
    let folder = TempDir::new().unwrap();
    let all = PartRange::new(PartNumber::new(0), 6).unwrap();
    let proofs: Vec<u8> = ids.prove_all(all).unwrap().iter().flat_map(HashProof::encode).collect();
    let parts: Vec<VerifiedPart> = (0..6).map(|number| part(&ids, number)).collect();
    {
        let (store, _) = Store::open(folder.path(), manifest.clone()).unwrap();
        store.learn(&proofs).unwrap();
        parts.iter().for_each(|part| store.write(part).unwrap());
    }
    let names = ["data", "journal", "proofs"];
    let sound = names.map(|name| fs::read(folder.path().join(name)).unwrap());
    let seed: u64 = std::env::var("HYBRID_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    let mut random = seed;
    let mut below = |most: usize| {
        // A linear congruential generator with Knuth's constants; its high bits are random enough.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % most
    };
    for round in 0..1_000 {
        let file = round % names.len();
        let (byte, bit) = (below(sound[file].len()), below(8));
        let replay = format!("HYBRID_SEED={seed}, round {round}: bit {bit} of byte {byte} of {}", names[file]);
        for (name, bytes) in names.iter().zip(&sound) {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        // Under a running store as well as before it starts.
        let running = (round % 2 == 0).then(|| Store::open(folder.path(), manifest.clone()).unwrap().0);
        let mut damaged = sound[file].clone();
        damaged[byte] ^= 1 << bit;
        fs::write(folder.path().join(names[file]), damaged).unwrap();
        let store =
            match running.map_or_else(|| Store::open(folder.path(), manifest.clone()).map(|(store, _)| store), Ok) {
                Ok(store) => store,
                Err(OpenError::Newer { .. }) if names[file] == "journal" => continue,
                Err(error) => panic!("{replay}: {error}"),
            };
        let read = |number: u32| store.read(PartNumber::new(number));
        let lost: Vec<u32> = (0..6).filter(|&number| read(number).is_none()).collect();
        assert!(names[file] != "data" || lost.len() == 1, "{replay}: lost {lost:?}");
        store.learn(&proofs).unwrap();
        parts.iter().for_each(|part| store.write(part).unwrap());
        for (number, part) in (0..).zip(&parts) {
            assert_eq!(read(number).as_ref(), Some(part), "{replay}");
        }
    }
}

#[test]
fn a_file_with_a_second_name_is_not_written_to() {
    let folder = TempDir::new().unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, b"not ours").unwrap();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::hard_link(&precious, cache.join("data")).unwrap();
    let error = Store::open(&cache, manifest(true).0).unwrap_err();
    assert!(format!("{error:?}").contains("not a plain file of its own"), "{error:?}");
    assert_eq!(fs::read(&precious).unwrap(), b"not ours");
}
