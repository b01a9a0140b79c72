//! The test vectors and tables of `docs/spec/wire.md` against the code.

#[allow(dead_code, reason = "other tests use more of it")]
mod samples;

use hybrid_manifest::{ServerKey, server_key};
use hybrid_wire::control::ByeCode;
use hybrid_wire::ticket::{Ticket, TicketPolicy};
use hybrid_wire::{Decoded, FrameKind};
use samples::{messages, refused};

const VECTORS: &str = include_str!("../../../docs/spec/vectors/wire.txt");
const SPEC: &str = include_str!("../../../docs/spec/wire.md");

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

#[test]
fn vectors_are_as_the_code_writes_them() {
    for (line, (file, code)) in VECTORS.lines().zip(samples::vectors().lines()).enumerate() {
        assert_eq!(file, code, "line {} of docs/spec/vectors/wire.txt: was the protocol changed?", line + 1);
    }
    assert_eq!(VECTORS.lines().count(), samples::vectors().lines().count());
}

#[test]
fn message_vectors_decode_to_their_messages() {
    let lines: Vec<&str> = VECTORS.lines().filter_map(|line| line.strip_prefix("message ")).collect();
    assert_eq!(lines.len(), messages().len());
    for (line, (name, message)) in lines.into_iter().zip(messages()) {
        let hex = line.split(' ').nth(2).expect("three fields");
        assert_eq!(message.channel().decode(&unhex(hex)), Ok(Decoded::Message(message)), "{name}");
    }
}

#[test]
fn refused_vectors_are_refused_with_their_code() {
    for (name, channel, code, bytes) in refused() {
        let error = channel.decode(&bytes).expect_err(name);
        assert_eq!(error.bye_code(), code, "{name}: {error}");
    }
}

#[test]
fn ticket_vectors_are_accepted() {
    let ticket = samples::ticket();
    for line in VECTORS.lines().filter_map(|line| line.strip_prefix("ticket ")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let keys = [ServerKey::from_bytes(unhex(fields[1]).try_into().expect("32 bytes"))];
        assert_eq!(keys[0], server_key(&samples::server_key()));
        let policy = TicketPolicy::new(&keys, ticket.content, ticket.peer, ticket.issued);
        let bytes = unhex(fields[2]);
        assert_eq!(bytes.len(), Ticket::BYTES);
        assert_eq!(
            Ticket::check(&bytes, &policy).map(|ticket| ticket.expires()),
            Ok(ticket.expires()),
            "{}",
            fields[0]
        );
    }
}

/// The rows of the first table under a heading of the specification, as trimmed cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let start =
        SPEC.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?} in docs/spec/wire.md"));
    let lines =
        SPEC[start..].lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

#[test]
fn the_table_of_types_is_the_code() {
    let expected: Vec<Vec<String>> = FrameKind::ALL
        .iter()
        .map(|kind| {
            let critical = if kind.is_critical() { "yes" } else { "no" };
            vec![
                format!("{:#04x}", kind.number()),
                kind.to_string(),
                critical.to_owned(),
                kind.body_bytes_max().to_string(),
            ]
        })
        .collect();
    let table: Vec<Vec<String>> = table("## Types").into_iter().map(|row| row[..4].to_vec()).collect();
    assert_eq!(table, expected);
}

#[test]
fn the_table_of_codes_is_the_code() {
    let expected: Vec<Vec<String>> =
        ByeCode::ALL.iter().map(|code| vec![format!("{:#04x}", code.to_u16()), format!("{code:?}")]).collect();
    let table: Vec<Vec<String>> = table("## Codes").into_iter().map(|row| row[..2].to_vec()).collect();
    assert_eq!(table, expected);
}
