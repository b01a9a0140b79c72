//! Decoders of bytes and texts: whatever is taken is written again as the same thing.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use hybrid_manifest::{
    Builder, ContentId, HashProof, Manifest, ManifestSpec, PartIds, PartLen, SignedManifest, Trust, check_name,
    folded_name, server_key,
};
use hybrid_units::{ByteCount, BytesPerSecond, Duration, UnixTime, parse_duration};
use hybrid_wire::address::{AddressPolicy, Prefix, dialable};
use hybrid_wire::ticket::{Ticket, TicketPolicy};
use hybrid_wire::{
    DecodeError, Decoded, EncodeError, MAX_CONTROL_MESSAGE_BYTES, PeerId, SessionToken, decode_client, decode_peer,
    decode_reply, decode_request, decode_server, encode_client, encode_peer, encode_reply, encode_request,
    encode_server,
};
use std::fmt::{Debug, Display};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::OnceLock;

/// The issue time of the tickets in `docs/spec/vectors/wire.txt`.
const ISSUED: UnixTime = UnixTime::from_secs(1_795_352_400);

fn frame<T: PartialEq + Debug>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<Decoded<T>, DecodeError>,
    encode: impl Fn(&T) -> Result<Bytes, EncodeError>,
) {
    match decode(data) {
        Ok(Decoded::Message(message)) => {
            let bytes = encode(&message).expect("what was read can be written");
            assert!(bytes.len() <= MAX_CONTROL_MESSAGE_BYTES);
            assert_eq!(decode(&bytes), Ok(Decoded::Message(message)), "read, written and read again");
        }
        Ok(_) => {}
        Err(error) => assert!(error.bye_code().to_u16() != 0, "{error} ends a channel as if all were well"),
    }
}

pub(crate) fn client_frame(data: &[u8]) {
    frame(data, decode_client, encode_client);
}

pub(crate) fn server_frame(data: &[u8]) {
    frame(data, |bytes| decode_server(&Bytes::copy_from_slice(bytes)), encode_server);
}

pub(crate) fn peer_frame(data: &[u8]) {
    frame(data, decode_peer, encode_peer);
}

pub(crate) fn part_request(data: &[u8]) {
    frame(data, decode_request, encode_request);
}

pub(crate) fn part_reply(data: &[u8]) {
    frame(data, decode_reply, encode_reply);
}

/// The key of the vectors of tickets.
fn ticket_key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_bytes(&[7; 32]))
}

fn check_ticket(bytes: &[u8]) {
    let keys = [server_key(ticket_key())];
    let (content, peer) = (ContentId::from_bytes([0xc0; 32]), PeerId::from_bytes([0x11; 32]));
    let mut policy = TicketPolicy::new(&keys, content, peer, ISSUED);
    let secret = [9; 32];
    let network = (&secret, IpAddr::from([198, 51, 100, 77]));
    policy.network = Some(network);
    let away = policy.while_away(Some(Duration::from_secs(600)), Duration::from_secs(3_600));
    for policy in [policy, away] {
        match Ticket::check(bytes, &policy) {
            Ok(ticket) => {
                assert_eq!((ticket.content, ticket.peer), (content, peer));
                assert_eq!(ticket.sign(ticket_key()), bytes, "a ticket has one encoding");
            }
            Err(error) => assert!(error.code().starts_with("E_TICKET_")),
        }
    }
}

/// Bytes as a peer may send them.
pub(crate) fn ticket(data: &[u8]) {
    check_ticket(data);
}

/// What lies behind the signature: the bytes are signed first.
pub(crate) fn ticket_signed(data: &[u8]) {
    const SIGNED_BYTES: usize = Ticket::BYTES - 64;
    let mut bytes = [0; SIGNED_BYTES];
    let length = data.len().min(SIGNED_BYTES);
    bytes[..length].copy_from_slice(&data[..length]);
    let signature = ticket_key().sign(&[b"hybrid-ticket-v1", &bytes[..]].concat());
    check_ticket(&[&bytes[..], &signature.to_bytes()].concat());
}

fn check_manifest(data: &[u8]) {
    match SignedManifest::decode(data, &Trust::FirstUse) {
        Ok(signed) => {
            assert_eq!(signed.encode(), data, "a manifest has one encoding");
            let manifest = signed.manifest();
            let layout = manifest.layout();
            assert!(layout.total_len() <= u64::from(layout.part_count()) * layout.part_len().as_u64());
            assert!(!manifest.to_json().is_empty());
            drop(manifest.check_time(ISSUED));
            assert!(manifest.check_succeeds(manifest).is_ok(), "a manifest may be fetched again");
            drop(PartIds::new(manifest));
        }
        Err(error) => assert!(error.code().starts_with("E_MANIFEST_"), "{}", error.code()),
    }
}

/// Bytes as a server may send them.
pub(crate) fn manifest(data: &[u8]) {
    check_manifest(data);
}

/// What lies behind the signature: the last 64 bytes are replaced by the signature of those before.
///
/// The key is that of `docs/spec/vectors/manifest.txt`, which the seeds name.
pub(crate) fn manifest_signed(data: &[u8]) {
    let signed = data.split_at(data.len().saturating_sub(64)).0;
    let key = SigningKey::from_bytes(&[0x42; 32]);
    let signature = key.sign(&[hybrid_manifest_context(), blake3::hash(signed).as_bytes()].concat());
    check_manifest(&[signed, &signature.to_bytes()].concat());
}

/// What a manifest's hash is signed behind (`docs/spec/manifest.md`).
fn hybrid_manifest_context() -> &'static [u8] {
    b"hybrid manifest signature v1\0"
}

/// A content of seven parts, as in the vectors.
fn content() -> &'static (Manifest, PartIds) {
    static CONTENT: OnceLock<(Manifest, PartIds)> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let bytes: Vec<u8> = (0..=250).cycle().take(100_000).collect();
        let mut builder = Builder::new(PartLen::MIN);
        builder.write(&bytes).expect("a short content");
        let prepared = builder.finish().expect("a short content");
        let mut spec = ManifestSpec::new("a");
        spec.inline_hashes_below = ByteCount::new(0);
        let manifest = Manifest::new(spec, &prepared, server_key(ticket_key())).expect("a sound content");
        let ids = PartIds::with_ids(&manifest, prepared.part_ids()).expect("its own parts");
        (manifest, ids)
    })
}

pub(crate) fn proofs(data: &[u8]) {
    let (manifest, known) = content();
    if let Ok(proofs) = HashProof::decode_all(data) {
        let written: Vec<u8> = proofs.iter().flat_map(HashProof::encode).collect();
        assert_eq!(written, data, "a proof has one encoding");
        let mut ids = PartIds::new(manifest);
        for proof in &proofs {
            if let Ok(range) = ids.insert(proof) {
                for number in range.iter() {
                    assert_eq!(ids.id(number), known.id(number), "part {number} was proved with another id");
                }
            }
        }
    }
}

pub(crate) fn address(data: &[u8]) {
    let mut octets = [0; 18];
    let length = data.len().min(18);
    octets[..length].copy_from_slice(&data[..length]);
    let (port, octets) = octets.split_first_chunk().expect("18 bytes have two");
    let v6: [u8; 16] = octets.try_into().expect("18 bytes less two are 16");
    let v4: [u8; 4] = *octets.first_chunk().expect("16 bytes have four");
    for ip in [IpAddr::from(v4), IpAddr::from(v6)] {
        let address = SocketAddr::new(ip, u16::from_le_bytes(*port));
        let strict = dialable(address, &AddressPolicy::default());
        // Loopback and links are admitted only by prefixes within them.
        let everything = ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"];
        let everything = everything.map(|prefix| prefix.parse().expect("a prefix"));
        let open = dialable(address, &AddressPolicy::allowing(everything));
        if strict.is_ok() {
            assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified(), "{address}");
            assert!(open.is_ok(), "{address}: what is always dialable is so when more is allowed");
        }
        if let Err(refused) = open {
            assert!(!refused.rule.may_be_allowed(), "{address}: {refused}");
        }
    }
}

/// Parses, and what was parsed reads back from what it prints.
fn prints_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().ok(), Some(value), "{text:?} is printed as {printed:?}");
    }
}

/// Texts of flags and headers: networks, ids, session tokens, sizes, rates and times.
pub(crate) fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    prints_back::<Prefix>(text);
    prints_back::<ContentId>(text);
    drop(text.parse::<ByteCount>());
    drop(text.parse::<BytesPerSecond>());
    drop(parse_duration(text));
    if let Some(token) = SessionToken::from_header(text) {
        assert_eq!(SessionToken::from_header(&token.to_header()), Some(token));
    }
}

pub(crate) fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if check_name(text).is_ok() {
        assert!(!text.is_empty() && !text.starts_with('/') && !text.chars().any(char::is_control), "{text:?}");
        assert!(!text.split('/').any(|component| matches!(component, "" | "." | "..")), "{text:?}");
        let folded = folded_name(text);
        assert_eq!(folded_name(&folded), folded, "{text:?}: folding twice is folding once");
    }
}
