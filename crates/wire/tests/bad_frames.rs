//! Frames that break a rule each: what the error says, and the code with which the channel ends.

use hybrid_wire::{DecodeError, decode_client, decode_peer, decode_reply, decode_request, decode_server};

/// Frames in hexadecimal by the channel on which they come.
/// `{id}` is an id of 32 bytes; `{text}` an honest text of 101 letters with its length before it.
const FRAMES: &[(&str, &str, u16, &str)] = &[
    // Heads.
    ("peer", "", 0x14, "the frame ends after 0 of 5 bytes"),
    ("peer", "01", 0x14, "the frame ends after 1 of 5 bytes"),
    ("peer", "010000", 0x14, "the frame ends after 3 of 5 bytes"),
    ("peer", "01000000", 0x14, "the frame ends after 4 of 5 bytes"),
    ("peer", "00000000", 0x14, "the frame ends after 4 of 5 bytes"),
    ("peer", "0000000023", 0x14, "a frame of 0 bytes, must be 1 to 65536"),
    ("peer", "0100010023", 0x14, "a frame of 65537 bytes, must be 1 to 65536"),
    ("peer", "ffffffff23", 0x14, "a frame of 4294967295 bytes, must be 1 to 65536"),
    ("peer", "0000008023", 0x14, "a frame of 2147483648 bytes, must be 1 to 65536"),
    ("peer", "0200000023", 0x14, "Idle with a body of 1 bytes, at most 0"),
    ("peer", "020000002300", 0x14, "Idle with a body of 1 bytes, at most 0"),
    ("peer", "010000002300", 0x14, "1 bytes too many behind Idle"),
    ("peer", "01000000230100000023", 0x14, "5 bytes too many behind Idle"),
    ("client", "0001000080", 0x14, "Bye with a body of 255 bytes, at most 128"),
    ("request", "0a000000b1", 0x14, "Request with a body of 9 bytes, at most 8"),
    ("server", "1200000093", 0x14, "PartPush with a body of 17 bytes, at most 16"),
    // Kinds.
    ("peer", "01000000ff", 0x15, "frame type 0xff is unknown and must not be skipped: the other side is newer"),
    ("peer", "01000000a0", 0x15, "frame type 0xa0 is unknown and must not be skipped: the other side is newer"),
    ("peer", "0100000081", 0x11, "Join does not belong on this channel"),
    ("peer", "0100000091", 0x11, "Welcome does not belong on this channel"),
    ("peer", "02000000b100", 0x11, "Request does not belong on this channel"),
    ("client", "0100000091", 0x11, "Welcome does not belong on this channel"),
    ("client", "01000000a1", 0x11, "Hello does not belong on this channel"),
    ("client", "03000000930000", 0x11, "PartPush does not belong on this channel"),
    ("server", "0100000081", 0x11, "Join does not belong on this channel"),
    ("server", "0100000023", 0x11, "Idle does not belong on this channel"),
    ("request", "01000000b4", 0x11, "Gone does not belong on this channel"),
    ("request", "0100000023", 0x11, "Idle does not belong on this channel"),
    ("reply", "02000000b100", 0x11, "Request does not belong on this channel"),
    ("reply", "0100000080", 0x11, "Bye does not belong on this channel"),
    // Versions.
    ("client", "020000008100", 0x13, "the other side speaks version 0, this program 1"),
    ("client", "020000008102", 0x13, "the other side speaks version 2, this program 1"),
    ("client", "0400000081fbffff", 0x13, "the other side speaks version 65535, this program 1"),
    ("peer", "02000000a100", 0x13, "the other side speaks version 0, this program 1"),
    ("peer", "04000000a1fb2c01", 0x13, "the other side speaks version 300, this program 1"),
    // Bodies.
    ("client", "0100000081", 0x11, "Join with a body that is none"),
    ("client", "020000008101", 0x11, "Join with a body that is none"),
    ("client", "2300000081 01 00 {id}", 0x11, "Join with a body that is none"),
    ("client", "4900000081 01 00 {id} {id} 02 00 01 00 00 00", 0x11, "Join with a body that is none"),
    (
        "client",
        "4900000081 01 00 {id} {id} 00 00 00 00 00 00",
        0x11,
        "Join: want is 0, which means nothing in version 1",
    ),
    (
        "client",
        "4900000081 01 00 {id} {id} 00 00 04 00 00 00",
        0x11,
        "Join: want is 4, which means nothing in version 1",
    ),
    ("client", "4900000081 01 00 {id} {id} 00 00 01 00 02 00", 0x11, "Join with a body that is none"),
    (
        "client",
        "4c00000081 01 03 61 0a 62 {id} {id} 00 00 01 00 00 00",
        0x11,
        "Join: program holds characters that it must not",
    ),
    (
        "client",
        "4c00000081 01 03 61 c3 a9 {id} {id} 00 00 01 00 00 00",
        0x11,
        "Join: program holds characters that it must not",
    ),
    (
        "client",
        "4d00000081 01 00 {id} {id} 00 00 02 fc 00 00 10 00 00 00",
        0x11,
        "Join: want is 1048576, contents end at 1048576 parts",
    ),
    ("client", "0100000002", 0x11, "Report with a body that is none"),
    ("client", "0a00000002 02 00 00 00 00 00 00 00 00", 0x11, "Report with a body that is none"),
    ("client", "0200000003 01", 0x11, "Vouch with a body that is none"),
    ("client", "0a00000003 fd ff ff ff ff ff ff ff 7f", 0x11, "Vouch with a body that is none"),
    ("client", "0200000003 41", 0x11, "Vouch with a body that is none"),
    ("client", "0100000004", 0x11, "Uploads with a body that is none"),
    ("client", "0200000004 02", 0x11, "Uploads with a body that is none"),
    ("client", "0300000004 01 00", 0x14, "Uploads with a body of 2 bytes, at most 1"),
    ("server", "0200000004 01", 0x11, "Uploads does not belong on this channel"),
    ("server", "0100000091", 0x11, "Welcome with a body that is none"),
    (
        "server",
        "2100000091 00 00 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 00 fc50e7026b fbe803 00 00 00 20 04",
        0x11,
        "Welcome: mode is 0, which means nothing in version 1",
    ),
    (
        "server",
        "2100000091 03 00 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 00 fc50e7026b fbe803 00 00 00 20 04",
        0x11,
        "Welcome: mode is 3, which means nothing in version 1",
    ),
    (
        "server",
        "0c00000092 01 01 01 01 1b 00 00 00 00 00 00",
        0x11,
        "Directive: reasons holds characters that it must not",
    ),
    ("server", "0900000092 00 00 01 00 00 00 00 00", 0x11, "Directive with a body that is none"),
    ("server", "0800000092 03 00 00 00 00 00 00", 0x11, "Directive with a body that is none"),
    ("server", "0800000092 00 00 00 00 00 00 41", 0x11, "Directive with a body that is none"),
    ("server", "0300000093 00 02 61", 0x19, "a pushed part says 2 bytes and brings 1"),
    ("server", "0300000093 00 02 61 62 63", 0x19, "a pushed part says 2 bytes and brings 3"),
    ("server", "0700000093 fc 00 00 10 00 00", 0x11, "PartPush: number is 1048576, contents end at 1048576 parts"),
    ("server", "0700000093 00 fc 01 00 00 01", 0x19, "PartPush: a part of 16777217 bytes, at most 16777216"),
    ("server", "0200000093 00", 0x11, "PartPush with a body that is none"),
    // Sets of parts.
    (
        "peer",
        "0500000022 01 00 00 00",
        0x17,
        "Have: parts: a run of 0 parts from 0 is empty or goes beyond 1048576 parts",
    ),
    (
        "peer",
        "0700000022 02 00 01 00 01 00",
        0x17,
        "Have: parts: the run from part 1 does not come after a gap behind the run before",
    ),
    (
        "peer",
        "0900000022 01 fc 00 00 10 00 01 00",
        0x17,
        "Have: parts: a run of 1 parts from 1048576 is empty or goes beyond 1048576 parts",
    ),
    (
        "peer",
        "0900000022 01 01 fc ff ff ff ff 00",
        0x17,
        "Have: parts: a run of 4294967295 parts from 1 is empty or goes beyond 1048576 parts",
    ),
    (
        "peer",
        "0b00000022 02 00 01 fc ff ff ff ff 01 00",
        0x17,
        "Have: parts: a run of 1 parts from 4294967296 is empty or goes beyond 1048576 parts",
    ),
    ("peer", "0c00000022 fd ff ff ff ff ff ff ff 7f 00 01", 0x11, "Have with a body that is none"),
    ("peer", "0600000022 fb 01 20 00 01", 0x11, "Have with a body that is none"),
    ("peer", "0300000022 02 00", 0x11, "Have with a body that is none"),
    ("peer", "0400000022 00 00 00", 0x14, "1 bytes too many behind Have"),
    // Requests, answers, proofs, peers.
    ("request", "01000000b1", 0x11, "Request with a body that is none"),
    ("request", "06000000b1 fc 00 00 10 00", 0x18, "Request: number is 1048576, contents end at 1048576 parts"),
    ("request", "06000000b1 fc ff ff ff ff", 0x18, "Request: number is 4294967295, contents end at 1048576 parts"),
    ("request", "03000000b1 00 00", 0x14, "1 bytes too many behind Request"),
    ("reply", "01000000b2", 0x11, "Part with a body that is none"),
    ("reply", "08000000b2 00 fc 01 00 00 01 00", 0x19, "Part: a part of 16777217 bytes, at most 16777216"),
    ("reply", "08000000b2 fc 00 00 10 00 01 00", 0x11, "Part: number is 1048576, contents end at 1048576 parts"),
    ("reply", "02000000b3 00", 0x11, "Busy with a body that is none"),
    ("reply", "02000000b4 00", 0x14, "Gone with a body of 1 bytes, at most 0"),
    ("peer", "0300000024 00 00", 0x18, "AskProofs: count is 0, which means nothing in version 1"),
    ("peer", "0500000024 00 fb 01 01", 0x18, "AskProofs: count is 257, which means nothing in version 1"),
    (
        "peer",
        "0700000024 fc ff ff 0f 00 02",
        0x18,
        "AskProofs: first + count is 1048577, contents end at 1048576 parts",
    ),
    ("peer", "0200000025 01", 0x11, "Proofs with a body that is none"),
    ("peer", "0200000026 00", 0x14, "AskPeers with a body of 1 bytes, at most 0"),
    ("peer", "0200000027 33", 0x11, "Peers with a body that is none"),
    ("peer", "0200000027 01", 0x11, "Peers with a body that is none"),
    // Good-byes.
    ("peer", "0100000080", 0x11, "Bye with a body that is none"),
    ("peer", "0400000080 00 05 61", 0x11, "Bye with a body that is none"),
    ("peer", "0400000080 00 01 ff", 0x11, "Bye with a body that is none"),
    ("peer", "0400000080 00 01 0a", 0x11, "Bye: reason holds characters that it must not"),
    ("peer", "0400000080 00 01 1b", 0x11, "Bye: reason holds characters that it must not"),
    ("peer", "0500000080 00 02 c3 a9", 0x11, "Bye: reason holds characters that it must not"),
    ("peer", "6800000080 00 {text}", 0x11, "Bye: reason has 101 bytes, at most 100 travel in one message"),
    ("peer", "0b00000080 00 fd ff ff ff ff ff ff ff 7f", 0x11, "Bye with a body that is none"),
];

fn unhex(text: &str) -> Vec<u8> {
    let text = text.replace("{id}", &"c0".repeat(32)).replace("{text}", &format!("65{}", "61".repeat(101)));
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(pair).collect()
}

fn refusal(channel: &str, bytes: &[u8]) -> Option<DecodeError> {
    match channel {
        "client" => decode_client(bytes).err(),
        "server" => decode_server(&bytes.to_vec().into()).err(),
        "peer" => decode_peer(bytes).err(),
        "request" => decode_request(bytes).err(),
        _ => decode_reply(bytes).err(),
    }
}

#[test]
fn frames_are_refused_with_their_code() {
    let mut wrong = Vec::new();
    for (channel, hex, code, message) in FRAMES {
        let got = refusal(channel, &unhex(hex)).map(|error| {
            let said = error.to_string();
            // What follows is the codec's detail, for logs.
            let end = said.find(" is none: ").map_or(said.len(), |start| start + " is none".len());
            (error.bye_code().to_u16(), said[..end].to_owned())
        });
        if got != Some((*code, (*message).to_owned())) {
            wrong.push(format!("{channel} {hex}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
