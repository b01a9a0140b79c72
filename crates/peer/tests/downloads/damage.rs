//! What a client makes of a cache that is not as it left it: one damage each, to a cache that holds a whole content.

use super::*;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Where things are: the cache, the content's folder in it, and a folder that is somebody else's.
struct Place<'a> {
    cache: &'a Path,
    content: &'a Path,
    foreign: &'a Path,
}

impl Place<'_> {
    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.content.join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// Replaces a file of the content by something else.
    fn instead(&self, name: &str, make: impl FnOnce(&Path)) {
        let path = self.content.join(name);
        fs::remove_file(&path).unwrap();
        make(&path);
    }

    fn only_in(&self, folder: &str) -> std::path::PathBuf {
        fs::read_dir(self.cache.join(folder)).unwrap().next().unwrap().unwrap().path()
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// So many parts are there, so many were told of and are not, and whether all of the data was hashed to find them.
    Finds(u32, u32, bool),
    /// Some are there.
    FindsSome,
    /// The error has these words in it.
    Fails(&'static str),
}
use Outcome::{Fails, Finds, FindsSome};

const PART: usize = 65_536;
const HEADER: usize = 58;
const IRREGULAR: &str = "not a plain file of its own: remove it";

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn link(place: &Place<'_>, path: &Path) {
    symlink(place.foreign.join("file"), path).unwrap();
}

fn hard_link(place: &Place<'_>, path: &Path) {
    fs::hard_link(place.foreign.join("file"), path).unwrap();
}

/// A journal's header after a change, with a check that fits it.
fn checked(journal: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let end = HEADER - 4;
    change(&mut journal[..end]);
    let check = blake3::hash(&journal[..end]);
    journal[end..HEADER].copy_from_slice(&check.as_bytes()[..4]);
}

type Damage = fn(&Place<'_>);

const ROWS: &[(&str, Damage, Outcome)] = &[
    ("none", |_| (), Finds(16, 0, false)),
    // The cache.
    ("no cache", |place| fs::remove_dir_all(place.cache).unwrap(), Finds(0, 0, false)),
    (
        "a file instead of the cache",
        |place| {
            fs::remove_dir_all(place.cache).unwrap();
            fs::write(place.cache, "x").unwrap();
        },
        Fails("not a folder"),
    ),
    (
        "a link to a cache",
        |place| {
            let moved = place.foreign.join("moved");
            fs::rename(place.cache, &moved).unwrap();
            symlink(moved, place.cache).unwrap();
        },
        Fails("a symbolic link"),
    ),
    (
        "a link to nowhere",
        |place| {
            fs::remove_dir_all(place.cache).unwrap();
            symlink(place.foreign.join("nowhere"), place.cache).unwrap();
        },
        Fails("a symbolic link"),
    ),
    (
        "a cache that everybody can write to",
        |place| fs::set_permissions(place.cache, fs::Permissions::from_mode(0o777)).unwrap(),
        Finds(16, 0, false),
    ),
    (
        "files and folders of others",
        |place| {
            fs::write(place.cache.join("notes"), "mine").unwrap();
            fs::create_dir_all(place.cache.join("evicted-not").join("folder")).unwrap();
            fs::create_dir_all(place.cache.join("folder")).unwrap();
            fs::write(place.content.join("more"), "mine").unwrap();
        },
        Finds(16, 0, false),
    ),
    ("a lock that a dead process left", |place| fs::write(place.cache.join("lock"), "1").unwrap(), Finds(16, 0, false)),
    (
        "a lock that is a link",
        |place| {
            fs::remove_file(place.cache.join("lock")).unwrap();
            link(place, &place.cache.join("lock"));
        },
        Fails(IRREGULAR),
    ),
    (
        "a lock that is a folder",
        |place| {
            fs::remove_file(place.cache.join("lock")).unwrap();
            fs::create_dir(place.cache.join("lock")).unwrap();
        },
        Fails(IRREGULAR),
    ),
    ("no key", |place| fs::remove_file(place.cache.join("identity.key")).unwrap(), Finds(16, 0, false)),
    ("an empty key", |place| fs::write(place.cache.join("identity.key"), "").unwrap(), Fails("not an Ed25519 key")),
    ("a damaged key", |place| fs::write(place.cache.join("identity.key"), "key").unwrap(), Fails("not an Ed25519 key")),
    ("no keys of the server", |place| fs::remove_dir_all(place.cache.join("servers")).unwrap(), Finds(16, 0, false)),
    ("damaged keys of the server", |place| fs::write(place.only_in("servers"), "x").unwrap(), Fails("line 1 of")),
    (
        "another key of the server",
        |place| {
            let path = place.only_in("servers");
            let text = fs::read_to_string(&path).unwrap();
            let name = text.lines().next().unwrap();
            let other = server_key(&SigningKey::from_bytes(&[77; 32]));
            fs::write(&path, format!("{name}\n{other}\n")).unwrap();
        },
        Fails("which is not the one it showed before"),
    ),
    ("nothing of URLs", |place| fs::remove_dir_all(place.cache.join("urls")).unwrap(), Finds(16, 0, false)),
    ("damaged URLs", |place| fs::write(place.only_in("urls"), [0xff; 99]).unwrap(), Finds(16, 0, false)),
    // The content's folder.
    ("no folder of the content", |place| fs::remove_dir_all(place.content).unwrap(), Finds(0, 0, false)),
    (
        "a file instead of the content's folder",
        |place| {
            fs::remove_dir_all(place.content).unwrap();
            fs::write(place.content, "x").unwrap();
        },
        Fails("Not a directory"),
    ),
    (
        "a link instead of the content's folder",
        |place| {
            fs::remove_dir_all(place.content).unwrap();
            symlink(place.foreign, place.content).unwrap();
        },
        Fails("not a folder of its own: remove it"),
    ),
    ("no manifest", |place| fs::remove_file(place.content.join("manifest")).unwrap(), Finds(16, 0, false)),
    ("a damaged manifest", |place| place.change("manifest", |bytes| bytes[40] ^= 1), Finds(16, 0, false)),
    ("a manifest that is a link", |place| place.instead("manifest", |path| link(place, path)), Fails(IRREGULAR)),
    ("damaged anchors", |place| fs::write(place.content.join("anchors"), "x").unwrap(), Finds(16, 0, false)),
    (
        "anchors without end",
        |place| fs::write(place.content.join("anchors"), [9; 1 << 20]).unwrap(),
        Finds(16, 0, false),
    ),
    // The journal.
    ("no journal", |place| fs::remove_file(place.content.join("journal")).unwrap(), Finds(0, 0, false)),
    ("an empty journal", |place| place.change("journal", Vec::clear), Finds(0, 0, false)),
    ("a journal cut in its header", |place| place.change("journal", |bytes| bytes.truncate(20)), Finds(16, 0, true)),
    (
        "a journal cut behind its header",
        |place| place.change("journal", |bytes| bytes.truncate(HEADER)),
        Finds(0, 0, false),
    ),
    (
        "a journal cut in a record",
        |place| place.change("journal", |bytes| bytes.truncate(HEADER + 8 * 16 - 3)),
        Finds(15, 0, false),
    ),
    ("a flipped bit in the header", |place| place.change("journal", |bytes| bytes[11] ^= 4), Finds(16, 0, true)),
    (
        "a flipped bit in a record",
        |place| place.change("journal", |bytes| bytes[HEADER + 8 * 5] ^= 4),
        Finds(15, 0, false),
    ),
    (
        "a flipped bit in a record's check",
        |place| place.change("journal", |bytes| bytes[HEADER + 8 * 5 + 6] ^= 4),
        Finds(15, 0, false),
    ),
    (
        "zeros behind the records",
        |place| place.change("journal", |bytes| bytes.resize(1 << 20, 0)),
        Finds(16, 0, false),
    ),
    ("a journal of zeros", |place| place.change("journal", |bytes| *bytes = vec![0; 1 << 20]), Finds(16, 0, true)),
    ("records twice", |place| place.change("journal", |bytes| bytes.extend_from_within(HEADER..)), Finds(16, 0, false)),
    (
        "a journal of another content",
        |place| place.change("journal", |bytes| checked(bytes, |header| header[10] ^= 1)),
        Finds(16, 0, true),
    ),
    (
        "a journal of another part length",
        |place| place.change("journal", |bytes| checked(bytes, |header| header[44] ^= 1)),
        Finds(16, 0, true),
    ),
    (
        "a journal of version 0",
        |place| place.change("journal", |bytes| checked(bytes, |header| header[8] = 0)),
        Finds(16, 0, true),
    ),
    (
        "a journal of a later version",
        |place| place.change("journal", |bytes| checked(bytes, |header| header[8] = 2)),
        Fails("was written by a later version (2) of this program"),
    ),
    ("a journal that is a link", |place| place.instead("journal", |path| link(place, path)), Fails(IRREGULAR)),
    ("a journal with two names", |place| place.instead("journal", |path| hard_link(place, path)), Fails(IRREGULAR)),
    ("a journal that is a pipe", |place| place.instead("journal", fifo), Fails(IRREGULAR)),
    // The data.
    ("no data", |place| fs::remove_file(place.content.join("data")).unwrap(), Finds(0, 16, false)),
    ("empty data", |place| place.change("data", Vec::clear), Finds(0, 16, false)),
    ("half of the data", |place| place.change("data", |bytes| bytes.truncate(500_000)), Finds(7, 9, false)),
    ("a byte too few", |place| place.change("data", |bytes| bytes.truncate(bytes.len() - 1)), Finds(15, 1, false)),
    ("a byte too many", |place| place.change("data", |bytes| bytes.push(1)), Finds(16, 0, false)),
    ("zeros", |place| place.change("data", |bytes| bytes.fill(0)), Finds(0, 16, false)),
    ("a part of zeros", |place| place.change("data", |bytes| bytes[3 * PART..4 * PART].fill(0)), Finds(15, 1, false)),
    ("a flipped bit in a part", |place| place.change("data", |bytes| bytes[9 * PART + 77] ^= 32), Finds(15, 1, false)),
    (
        "a flipped bit in each part",
        |place| place.change("data", |bytes| (0..16).for_each(|part| bytes[part * PART] ^= 1)),
        Finds(0, 16, false),
    ),
    (
        "two parts in each other's place",
        |place| place.change("data", |bytes| bytes[..2 * PART].rotate_left(PART)),
        Finds(14, 2, false),
    ),
    ("data that is a link", |place| place.instead("data", |path| link(place, path)), Fails(IRREGULAR)),
    ("data with two names", |place| place.instead("data", |path| hard_link(place, path)), Fails(IRREGULAR)),
    ("data that is a pipe", |place| place.instead("data", fifo), Fails(IRREGULAR)),
    ("data that is a folder", |place| place.instead("data", |path| fs::create_dir(path).unwrap()), Fails(IRREGULAR)),
    // The part ids.
    ("no proofs", |place| fs::remove_file(place.content.join("proofs")).unwrap(), Finds(0, 16, false)),
    ("proofs of zeros", |place| place.change("proofs", |bytes| bytes.fill(0)), Finds(0, 16, false)),
    ("proofs that are cut", |place| place.change("proofs", |bytes| bytes.truncate(bytes.len() - 1)), FindsSome),
    ("a flipped bit in the proofs", |place| place.change("proofs", |bytes| *bytes.last_mut().unwrap() ^= 1), FindsSome),
    (
        "something behind the proofs",
        |place| place.change("proofs", |bytes| bytes.extend([7; 5_000])),
        Finds(16, 0, false),
    ),
    ("proofs that are a link", |place| place.instead("proofs", |path| link(place, path)), Fails(IRREGULAR)),
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Opens the cache and gets the content to its end; what was found, with the bytes.
async fn get(cache: &Path, url: &str) -> Result<(hybrid_peer::store::Recovery, Vec<u8>), String> {
    let peer = Peer::open(cache, on_loopback()).await.map_err(|error| with_causes(&error))?;
    let result = match peer.get(url).await {
        Ok(mut download) => {
            let recovery = download.recovery().clone();
            complete(&mut download).await;
            let output = cache.with_extension("out");
            download.export(&output, Overwrite::Replace).await.unwrap();
            download.close().await;
            Ok((recovery, fs::read(output).unwrap()))
        }
        Err(error) => Err(with_causes(&error)),
    };
    peer.close().await;
    result
}

#[tokio::test]
async fn whatever_happened_to_the_cache_the_bytes_are_right_or_the_error_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(Wanted { inline: false, ..Wanted::default() });
    let (url, whole) = (server.url(), folder.path().join("whole"));
    get(&whole, &url).await.unwrap();
    let mut wrong = Vec::new();
    for (index, (what, damage, expected)) in ROWS.iter().enumerate() {
        let scene = folder.path().join(index.to_string());
        let (cache, foreign) = (scene.join("cache"), scene.join("foreign"));
        copy(&whole, &cache);
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("file"), "mine").unwrap();
        let content = cache.join(server.site.manifest.manifest().content().to_string());
        damage(&Place { cache: &cache, content: &content, foreign: &foreign });
        let before = fs::read_dir(&foreign).unwrap().count();

        let before_sent = server.site.parts_sent.load(Ordering::Relaxed);
        let got = get(&cache, &url).await;
        let fetched = server.site.parts_sent.load(Ordering::Relaxed) - before_sent;
        let right = match (&got, expected) {
            (Ok((found, bytes)), Finds(recovered, dropped, rescanned)) => {
                assert!(bytes == &server.site.bytes, "{what}: other bytes");
                assert_eq!(fetched, u64::from(16 - found.recovered), "{what}: fetched again");
                (found.recovered, found.dropped, found.rescanned) == (*recovered, *dropped, *rescanned)
            }
            (Ok((_, bytes)), FindsSome) => bytes == &server.site.bytes,
            (Err(text), Fails(words)) => text.contains(words),
            _ => false,
        };
        if !right {
            let got = got.map(|(found, _)| found);
            wrong.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
        // What is somebody else's is as it was.
        assert_eq!(fs::read(foreign.join("file")).unwrap(), b"mine", "{what}");
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), before, "{what}");
        for name in ["notes", "folder"] {
            assert_eq!(cache.join(name).exists(), *what == "files and folders of others", "{what}: {name}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
}
