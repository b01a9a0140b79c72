//! Writes what the fuzzers begin with into a folder: `cargo run -p hybrid-fuzz-harness --example seeds -- FOLDER`.
//!
//! The vectors of `docs/spec/vectors/`, texts that are nearly right, and for the brains bytes that mean something at random.
//! `fuzz/corpus/` holds these and what fuzzing added, minimised; `docs/guide/testing.md` tells how.

use std::fs;
use std::path::Path;

const WIRE: &str = include_str!("../../../docs/spec/vectors/wire.txt");
const MANIFEST: &str = include_str!("../../../docs/spec/vectors/manifest.txt");

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()).collect()
}

/// The seeds of frames on this channel: good ones, refused ones, and good ones cut in the middle.
fn frames(channel: &str) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for line in WIRE.lines().filter(|line| line.starts_with("message ") || line.starts_with("refused ")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let bytes = unhex(fields.last().copied().unwrap_or_default());
        if fields[1] == channel {
            seeds.push(bytes[..bytes.len() / 2].to_vec());
            seeds.push(bytes);
        }
    }
    seeds
}

/// Those lines of the manifest's vectors.
fn vectors(prefix: &str, part: &str) -> Vec<Vec<u8>> {
    let lines = MANIFEST.lines().filter_map(|line| line.split_once(" = "));
    lines.filter(|(name, _)| name.starts_with(prefix) && name.contains(part)).map(|(_, hex)| unhex(hex)).collect()
}

/// Each cut at many places, and with one bit flipped at others.
fn damaged(seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all = seeds.clone();
    for seed in seeds {
        let step = (seed.len() / 12).max(1);
        all.extend((0..seed.len()).step_by(step).map(|end| seed[..end].to_vec()));
        all.extend((0..seed.len()).step_by(step).map(|place| {
            let mut flipped = seed.clone();
            flipped[place] ^= 1 << (place % 8);
            flipped
        }));
    }
    all
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Sequences for a brain.
fn sequences(name: &str) -> Vec<Vec<u8>> {
    let bytes = |index: u32| {
        let mut reader = blake3::Hasher::new().update(name.as_bytes()).update(&index.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; 40 * (1 + index as usize)];
        reader.fill(&mut bytes);
        bytes
    };
    (0..25).map(bytes).collect()
}

/// Holders that cease to serve and serve again, for the server's brain: bytes as `src/brains/coordinator.rs` reads them.
fn ceasing_holders() -> Vec<u8> {
    let join = |index: u8, parts: [u8; 4], serves: u8| {
        let who = [0, 0, index, 0, 0, 0, index, 1, 0x58, 0x1b];
        [&who[..], &parts, &[0, serves, 0]].concat()
    };
    let uploads = |index: u8, on: u8| vec![0, 255, index, 0, on];
    let all = [255, 255, 15, 0];
    [
        vec![0],
        join(1, all, 255),
        join(2, [0; 4], 255),
        join(3, [0; 4], 0),
        uploads(1, 0),
        join(4, [0; 4], 255),
        uploads(3, 1),
        uploads(1, 1),
        uploads(1, 1),
        uploads(9, 1),
        vec![255, 0, 255],
        uploads(2, 0),
    ]
    .concat()
}

/// Clients that use up a volume or a ratio, for the client's brain: bytes as `src/brains/session.rs` reads them.
fn capped_givers() -> Vec<Vec<u8>> {
    let resume = [0, 32, 0, 0, 0, 0, 0];
    let connect = |connection: u8| vec![0, 6, connection, 0, 0, connection, 5, 0, 0, 0, 0, 0];
    let (ask, served) = (|number: u8| vec![0, 21, 1, number, 0], |number: u8| vec![0, 23, 1, number, 0, 0, 0x40]);
    let give = |number: u8| [ask(number), ask(number + 1), served(number), served(number + 1)].concat();
    let pushed = |number: u8| vec![0, 35, 0, number, 0, 3];
    let (pause, resumes, wait) = (vec![0, 255, 0, 0, 0, 0], vec![0, 255, 0, 0, 0, 2], vec![201, 0, 250]);
    let by_volume: Vec<u8> = (0..5).map(|pair| give(2 * pair)).collect::<Vec<_>>().concat();
    let by_ratio: Vec<u8> = (0..11).map(|number| [pushed(number), give(number)].concat()).collect::<Vec<_>>().concat();
    let begin = |flags: u8, held: [u8; 4]| [&[flags][..], &held, &resume, &connect(1), &connect(2)].concat();
    vec![
        [begin(48, [255, 15, 0, 0]), give(0), pause.clone(), ask(3), resumes.clone(), by_volume, wait.clone(), ask(0)]
            .concat(),
        [begin(192, [0; 4]), by_ratio, pause, wait.clone(), resumes, wait, give(4)].concat(),
    ]
}

fn journals() -> Vec<Vec<u8>> {
    let check = |fields: &[&[u8]]| blake3::hash(&fields.concat()).as_bytes()[..4].to_vec();
    let mut header = [&b"hybJrnl\n"[..], &1u16.to_le_bytes(), &[5; 32], &16_384u32.to_le_bytes()].concat();
    header.extend(1_638_400u64.to_le_bytes());
    header.extend(check(&[&header]));
    let mut journal = header.clone();
    for number in [0u32, 7, 99, 3, 100] {
        let number = number.to_le_bytes();
        journal.extend([number.to_vec(), check(&[&header, &number])].concat());
    }
    vec![header, journal]
}

const NAMES: &[&str] = &[
    "a",
    "film.mp4",
    "a/b/c",
    "café",
    "cafe\u{301}",
    "a b",
    "..",
    "../a",
    "a/..",
    ".",
    "/a",
    "a/",
    "a//b",
    "",
    "CON",
    "nul.txt",
    "a\\b",
    "a:b",
    "a\0b",
    "a\nb",
    "\u{202e}abc",
    "a.",
    "a ",
    " a",
    "ﬁ",
    "İ",
    "ß",
    "\u{feff}a",
    "😀",
    "%2e%2e",
    "~",
    "-rf",
];

const TEXTS: &[&str] = &[
    "10.0.0.0/8",
    "10.0.0.1/8",
    "::1/128",
    "fd00::/8",
    "0.0.0.0/0",
    "10.0.0.0/33",
    "10/8",
    "/",
    "20M",
    "2.5MB/s",
    "1Gbit/s",
    "0",
    "0M",
    "-1M",
    "1e3",
    "+1M",
    "16KiB",
    "4GiB",
    "99999999999999999999",
    "10X",
    "30s",
    "10min",
    "2h",
    "-5s",
    "1.5s",
    "1d",
    "5",
    "d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc54",
    "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e",
    "５M",
    "∞",
];

const URLS: &[&str] = &[
    "http://example.org/a",
    "https://example.org:8443/a/b?c=d",
    "http://[::1]:80/a",
    "http://127.0.0.1",
    "ftp://h/a",
    "//h/a",
    "http://u:p@h/a",
    "http://h:0/a",
    "http://h:65536/a",
    "http://h/#x",
    "http:///a",
    "http://h:/a",
    "a/b.txt",
    "a/../b",
    "%2e%2e/x",
    "a%00",
    "%c0%ae",
    "a%2Fb",
    "caf%C3%A9",
    "a//b",
    "100%25",
    "%",
    "%zz",
    "http://h/%zz",
    "http://EXAMPLE.org/a",
];

const REQUESTS: &[&str] = &[
    "GET /a/b.txt",
    "HEAD /a/b.txt",
    "GET /a/b.txt\nRange: bytes=0-9",
    "GET /a/b.txt\nRange: bytes=-5",
    "GET /a/b.txt\nRange: bytes=990-\nIf-Range: \"abababababababababababababababababababababababababababababababab\"",
    "GET /a/b.txt\nRange: bytes=0-1,3-4",
    "GET /a/b.txt\nRange: bytes=5000-",
    "GET /a/b.txt\nIf-None-Match: *",
    "GET /a/b.txt\nIf-Match: \"x\"",
    "GET /a/b.txt\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "GET /%2e%2e/x",
    "GET /healthz",
    "GET /hybrid/v1/manifest/a/b.txt",
    "GET /hybrid/v1/manifest/a/b.txt\nAccept: application/json",
    "GET /hybrid/v1/parts/abababababababababababababababababababababababababababababababab/0",
    "GET /hybrid/v1/parts/abababababababababababababababababababababababababababababababab/3\nHybrid-Session: 00112233445566778899aabbccddeeff",
    "GET /hybrid/v1/parts/abababababababababababababababababababababababababababababababab/4",
    "GET /hybrid/v1/parts/ab/0",
    "GET /hybrid/v1/hashes/abababababababababababababababababababababababababababababababab?first=0&count=4",
    "GET /hybrid/v1/hashes/abababababababababababababababababababababababababababababababab",
    "GET /hybrid/v2/x",
    "POST /a/b.txt",
    "GET /hybrid/v1/control",
    "GET /hybrid/v1/control\nUpgrade: websocket\nConnection: upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "OPTIONS *",
    "CONNECT h:80",
    "TRACE /a/b.txt",
];

const SETTINGS: &[&str] = &[
    "folder = \"public\"\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nstate = \"/s\"\ndirect_clients = 100\negress_limit = \"100M\"\n",
    "folder = \"p\"\nallow_peers = [\"10.0.0.0/8\"]\ncache = \"1GiB\"\n[tls]\nself_signed = true\n",
    "folder = \"p\"\n[tls]\ncert = \"a\"\n",
    "folder = \"p\"\n[thresholds]\negress = { low = 0.6, high = 0.9 }\ndwell = \"30s\"\n",
    "folder = \"p\"\n[classes.films]\ndirect_clients = \"auto\"\npart_length = \"256KiB\"\n[[rules]]\npath = \"/films/**\"\nclass = \"films\"\n",
    "folder = 1",
    "folder = \"a\"\nfolder = \"b\"",
    "unknown = 1",
    "[classes.file]\n",
    "\u{feff}folder = \"x\"\r\n",
    "",
    "listen = [\"80\"]",
    "direct_clients = -1",
    "direct_clients = 4294967296",
    "[thresholds]\ncpu = { low = nan, high = inf }",
    "\0",
    "[[[[",
    "folder = \"p\"\nallow_peers = [\"127.0.0.0/8\"]\nlisten = [\"0.0.0.0:80\"]",
    "egress_policy = \"fast\"",
    "# only a comment",
];

fn addresses() -> Vec<Vec<u8>> {
    let octets: [[u8; 4]; 12] = [
        [127, 0, 0, 1],
        [10, 0, 0, 1],
        [192, 168, 0, 1],
        [169, 254, 169, 254],
        [0, 0, 0, 0],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [100, 64, 0, 1],
        [198, 18, 0, 1],
        [203, 0, 113, 5],
        [8, 8, 8, 8],
        [192, 0, 2, 1],
    ];
    let mut seeds: Vec<Vec<u8>> = octets.iter().map(|v4| [&[64, 31][..], v4].concat()).collect();
    for v4 in octets {
        seeds.push([&[64, 31][..], &[0; 10], &[255, 255], &v4].concat());
        seeds.push([&[64, 31][..], &[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0], &v4].concat());
        seeds.push([&[64, 31][..], &[0x20, 2], &v4, &[0; 10]].concat());
    }
    seeds
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "fuzz/corpus".to_owned());
    let tickets: Vec<Vec<u8>> =
        WIRE.lines().filter_map(|line| line.strip_prefix("ticket ")?.rsplit(' ').next().map(unhex)).collect();
    for (target, seeds) in [
        ("address", addresses()),
        ("client-frame", damaged(frames("client"))),
        ("coordinator", sequences("coordinator").into_iter().chain([ceasing_holders()]).collect()),
        ("http", texts(REQUESTS)),
        ("journal", damaged(journals())),
        ("manifest", damaged(vectors("manifest.", ""))),
        ("manifest-signed", damaged(vectors("manifest.", ""))),
        ("name", texts(NAMES)),
        ("part-reply", damaged(frames("reply"))),
        ("part-request", damaged(frames("request"))),
        ("peer-frame", damaged(frames("peer"))),
        ("proofs", damaged(vectors("content.100000", "proof"))),
        ("server-frame", damaged(frames("server"))),
        ("session", sequences("session").into_iter().chain(capped_givers()).collect()),
        ("settings", texts(SETTINGS)),
        ("text", texts(TEXTS)),
        ("ticket", damaged(tickets.clone())),
        ("ticket-signed", damaged(tickets)),
        ("url", texts(URLS)),
    ] {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for seed in seeds {
            let name = blake3::hash(&seed).to_hex();
            fs::write(folder.join(&name[..16]), seed)?;
        }
    }
    Ok(())
}
