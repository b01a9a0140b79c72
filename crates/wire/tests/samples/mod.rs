//! One of each message, and some that are refused: the test vectors of `docs/spec/wire.md`.

use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber, SigningKey};
use hybrid_units::{Duration, Mode, UnixTime};
use hybrid_wire::control::{
    Bye, ByeCode, ClientMessage, Directive, Join, PartPush, Report, ServerMessage, Uploads, Vouch, Want, Welcome,
};
use hybrid_wire::peer::{AskProofs, Have, Hello, PartReply, PeerMessage, Proofs, Request, ToldPeers};
use hybrid_wire::ticket::{Roles, Ticket, prefix_mac, site_code};
use hybrid_wire::{
    DecodeError, Decoded, EncodeError, PROTOCOL_VERSION, PartRanges, PeerCoordinates, PeerId, PeerLimits, SessionToken,
    Source, UploadContract,
};
use std::fmt::Write;

/// A message of any channel, so that one test can treat all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Client(ClientMessage),
    Server(ServerMessage),
    Peer(PeerMessage),
    Request(Request),
    Reply(PartReply),
}

/// Whose messages a decoder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Client,
    Server,
    Peer,
    Request,
    Reply,
}

impl Channel {
    pub(crate) const ALL: [Self; 5] = [Self::Client, Self::Server, Self::Peer, Self::Request, Self::Reply];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Peer => "peer",
            Self::Request => "request",
            Self::Reply => "reply",
        }
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Decoded<Message>, DecodeError> {
        fn wrap<T>(decoded: Decoded<T>, message: impl Fn(T) -> Message) -> Decoded<Message> {
            match decoded {
                Decoded::Message(inner) => Decoded::Message(message(inner)),
                Decoded::Unknown { number } => Decoded::Unknown { number },
            }
        }
        match self {
            Self::Client => hybrid_wire::decode_client(bytes).map(|m| wrap(m, Message::Client)),
            Self::Server => {
                hybrid_wire::decode_server(&Bytes::copy_from_slice(bytes)).map(|m| wrap(m, Message::Server))
            }
            Self::Peer => hybrid_wire::decode_peer(bytes).map(|m| wrap(m, Message::Peer)),
            Self::Request => hybrid_wire::decode_request(bytes).map(|m| wrap(m, Message::Request)),
            Self::Reply => hybrid_wire::decode_reply(bytes).map(|m| wrap(m, Message::Reply)),
        }
    }
}

impl Message {
    pub(crate) fn channel(&self) -> Channel {
        match self {
            Self::Client(_) => Channel::Client,
            Self::Server(_) => Channel::Server,
            Self::Peer(_) => Channel::Peer,
            Self::Request(_) => Channel::Request,
            Self::Reply(_) => Channel::Reply,
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Client(message) => hybrid_wire::encode_client(message),
            Self::Server(message) => hybrid_wire::encode_server(message),
            Self::Peer(message) => hybrid_wire::encode_peer(message),
            Self::Request(message) => hybrid_wire::encode_request(message),
            Self::Reply(message) => hybrid_wire::encode_reply(message),
        }
    }
}

pub(crate) fn content() -> ContentId {
    ContentId::from_bytes([0xc0; 32])
}

pub(crate) fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

pub(crate) fn parts(numbers: &[u32]) -> PartRanges {
    PartRanges::from_ascending(numbers.iter().copied().map(PartNumber::new))
}

pub(crate) fn server_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The ticket of the vectors: of peer 0x11…, issued 2026-11-22T13:00:00Z for an hour.
pub(crate) fn ticket() -> Ticket {
    let issued = UnixTime::from_secs(1_795_352_400);
    let hour = Duration::from_secs(3_600);
    Ticket::issue(&server_key(), content(), peer(0x11), issued, hour, Roles::LEECH)
}

fn bound_ticket() -> Ticket {
    Ticket {
        roles: Roles::SEED | Roles::RELAY,
        net: prefix_mac(&[9; 32], [198, 51, 100, 77].into()),
        site: site_code("https://example.org"),
        ..ticket()
    }
}

fn signed() -> Bytes {
    ticket().sign(&server_key())
}

/// Each kind of message, and each way that its fields can be there or not.
pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    let join = Join {
        version: PROTOCOL_VERSION,
        program: "hybrid-peer/0.1.0".to_owned(),
        content: content(),
        peer: peer(0x11),
        quic_port: Some(40_000),
        has: parts(&[0, 1, 2, 7, 300, 301]),
        want: Want::PlayFrom(42),
        contract: UploadContract { upload: true, rate_limit_bytes_per_second: Some(2_500_000) },
    };
    let bare_join = Join {
        program: String::new(),
        quic_port: None,
        has: PartRanges::empty(),
        want: Want::Whole,
        contract: UploadContract::default(),
        ..join.clone()
    };
    let seed_join = Join { want: Want::Seed, ..bare_join.clone() };
    let welcome = Welcome {
        mode: Mode::PeerToPeer,
        reasons: vec!["clients 12 ≥ 2".to_owned(), "egress 18.2 Mbit/s of 20.0 Mbit/s".to_owned()],
        session: SessionToken::from_bytes([0x5e; 16]),
        ticket: signed(),
        server_time_secs: 1_795_352_400,
        report_interval_ms: 1_000,
        peers: vec![
            PeerCoordinates { peer: peer(0x22), address: "203.0.113.5:40001".parse().expect("an address") },
            PeerCoordinates { peer: peer(0x33), address: "[2001:db8::5]:40002".parse().expect("an address") },
        ],
        grants: parts(&[5, 9]),
        pushes: 1,
        limits: PeerLimits { connections_max: 32, uploads_max: 4 },
    };
    let bare_welcome = Welcome {
        mode: Mode::ClientServer,
        reasons: Vec::new(),
        ticket: Bytes::new(),
        peers: Vec::new(),
        grants: PartRanges::empty(),
        pushes: 0,
        ..welcome.clone()
    };
    let directive = Directive {
        mode: Some((Mode::ClientServer, vec!["clients 1 < 2".to_owned()])),
        peers: welcome.peers.clone(),
        grants: parts(&[70_000]),
        limits: Some(PeerLimits { connections_max: 300, uploads_max: 1 }),
        report_interval_ms: Some(15_000),
        ticket: Some(signed()),
        revoked: vec![peer(0x44)],
    };
    let report = Report {
        last_part: Some(301),
        level: 6,
        gained: parts(&[300, 301]),
        lost: parts(&[3]),
        received: Source::ALL.into_iter().zip([1, 1_000, 100_000, 10_000_000_000, 0]).collect(),
        sent_bytes: 524_288,
        download_bytes_per_second: 1_250_000,
        rtt_ms: Some(23),
        start_up_ms: Some(180),
        stalls: 1,
        buffer_ms: Some(8_000),
        peers: 12,
        refused: vec![(peer(0x22), 3)],
        bad: vec![(peer(0x33), 1)],
        loss_permille: Some(12),
    };
    let hello = Hello {
        version: PROTOCOL_VERSION,
        content: content(),
        part_len_bytes: 131_072,
        ticket: signed(),
        has: parts(&[0, 2, 3, 1_048_575]),
        uploads: true,
    };
    let push = PartPush { number: 5, bytes: Bytes::from_static(b"the bytes of part five") };
    let told = ToldPeers { peers: welcome.peers.clone() };
    let bye = Bye { code: ByeCode::BadPart, reason: "part 7 does not match its id".to_owned() };
    let later_bye = Bye { code: ByeCode::Other(0x1234), reason: String::new() };
    vec![
        ("join", Message::Client(ClientMessage::Join(join))),
        ("join-bare", Message::Client(ClientMessage::Join(bare_join))),
        ("join-seed", Message::Client(ClientMessage::Join(seed_join))),
        ("report", Message::Client(ClientMessage::Report(report))),
        ("report-empty", Message::Client(ClientMessage::Report(Report::default()))),
        ("vouch", Message::Client(ClientMessage::Vouch(Vouch { peers: vec![peer(0x22), peer(0x33)] }))),
        ("uploads-on", Message::Client(ClientMessage::Uploads(Uploads { on: true }))),
        ("uploads-off", Message::Client(ClientMessage::Uploads(Uploads { on: false }))),
        ("client-bye", Message::Client(ClientMessage::Bye(bye.clone()))),
        ("welcome", Message::Server(ServerMessage::Welcome(welcome))),
        ("welcome-bare", Message::Server(ServerMessage::Welcome(bare_welcome))),
        ("directive", Message::Server(ServerMessage::Directive(directive))),
        ("directive-empty", Message::Server(ServerMessage::Directive(Directive::default()))),
        ("part-push", Message::Server(ServerMessage::PartPush(push))),
        ("part-push-empty", Message::Server(ServerMessage::PartPush(PartPush { number: 0, bytes: Bytes::new() }))),
        ("server-bye-later", Message::Server(ServerMessage::Bye(later_bye))),
        ("hello", Message::Peer(PeerMessage::Hello(hello))),
        ("have", Message::Peer(PeerMessage::Have(Have { parts: parts(&[17, 18, 19]), queue: 3 }))),
        ("idle", Message::Peer(PeerMessage::Idle)),
        ("ask-proofs", Message::Peer(PeerMessage::AskProofs(AskProofs { first: 512, count: 256 }))),
        ("proofs", Message::Peer(PeerMessage::Proofs(Proofs { proofs: Bytes::from_static(b"proofs") }))),
        ("proofs-none", Message::Peer(PeerMessage::Proofs(Proofs::default()))),
        ("ask-peers", Message::Peer(PeerMessage::AskPeers)),
        ("peers", Message::Peer(PeerMessage::Peers(told))),
        ("peers-none", Message::Peer(PeerMessage::Peers(ToldPeers::default()))),
        ("peer-bye", Message::Peer(PeerMessage::Bye(bye))),
        ("request", Message::Request(Request { number: 1_048_575 })),
        ("part", Message::Reply(PartReply::Part { number: 5, length_bytes: 131_072, queue: 2 })),
        ("busy", Message::Reply(PartReply::Busy { retry_in_ms: 250, queue: 255 })),
        ("gone", Message::Reply(PartReply::Gone)),
    ]
}

/// A frame with this type number and body.
pub(crate) fn frame(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).expect("short");
    [&length.to_le_bytes(), &[number][..], body].concat()
}

/// Bytes that no decoder may take, with the code that answers them.
pub(crate) fn refused() -> Vec<(&'static str, Channel, ByeCode, Vec<u8>)> {
    use ByeCode::{BadRequest, FrameSize, PartLength, PartSet, Protocol, UnknownType, Version};
    let cut = |name: &str| {
        let (_, message) = messages().into_iter().find(|(other, _)| *other == name).expect("a sample");
        let frame = message.encode().expect("a sample");
        frame[..frame.len() - 1].to_vec()
    };
    vec![
        ("half-a-head", Channel::Peer, FrameSize, vec![1, 0, 0]),
        ("length-zero", Channel::Peer, FrameSize, vec![0, 0, 0, 0, 0x23]),
        ("length-beyond-all", Channel::Peer, FrameSize, vec![0xff, 0xff, 0xff, 0xff, 0x22]),
        ("length-65537", Channel::Peer, FrameSize, vec![0x01, 0x00, 0x01, 0x00, 0x25]),
        ("length-beyond-its-type", Channel::Client, FrameSize, vec![0x00, 0x01, 0, 0, 0x80]),
        ("hello-cut", Channel::Peer, FrameSize, cut("hello")),
        ("idle-with-a-body", Channel::Peer, FrameSize, frame(0x23, &[0])),
        ("two-frames", Channel::Peer, FrameSize, [frame(0x23, &[]), frame(0x23, &[])].concat()),
        ("have-with-more", Channel::Peer, FrameSize, frame(0x22, &[0, 0, 0])),
        ("unknown-critical", Channel::Peer, UnknownType, frame(0xfe, &[1, 2, 3])),
        ("welcome-from-a-client", Channel::Client, Protocol, frame(0x91, &[])),
        ("request-among-frames", Channel::Peer, Protocol, frame(0xb1, &[0])),
        ("join-of-version-2", Channel::Client, Version, frame(0x81, &[2, 0xff])),
        ("hello-of-version-300", Channel::Peer, Version, frame(0xa1, &[251, 44, 1])),
        ("bye-cut-in-its-text", Channel::Peer, Protocol, frame(0x80, &[0, 5, b'a'])),
        ("bye-not-utf-8", Channel::Peer, Protocol, frame(0x80, &[0, 1, 0xff])),
        ("bye-with-a-line-break", Channel::Peer, Protocol, frame(0x80, &[0, 1, b'\n'])),
        ("bye-with-an-escape", Channel::Peer, Protocol, frame(0x80, &[0, 1, 0x1b])),
        ("directive-with-an-escape", Channel::Server, Protocol, frame(0x92, &[1, 1, 1, 1, 0x1b, 0, 0, 0, 0, 0, 0])),
        ("bye-of-101", Channel::Peer, Protocol, frame(0x80, &[&[0, 101][..], &[b'a'; 101]].concat())),
        ("have-empty-run", Channel::Peer, PartSet, frame(0x22, &[1, 0, 0, 0])),
        ("have-touching-runs", Channel::Peer, PartSet, frame(0x22, &[2, 0, 1, 0, 1, 0])),
        ("have-beyond-all-contents", Channel::Peer, PartSet, frame(0x22, &[1, 252, 0, 0, 16, 0, 1, 0])),
        ("have-run-overflows", Channel::Peer, PartSet, frame(0x22, &[1, 1, 252, 255, 255, 255, 255, 0])),
        ("have-gaps-overflow", Channel::Peer, PartSet, frame(0x22, &[2, 0, 1, 252, 255, 255, 255, 255, 1, 0])),
        (
            "have-claims-many-runs",
            Channel::Peer,
            Protocol,
            frame(0x22, &[253, 255, 255, 255, 255, 255, 255, 255, 127, 0, 1]),
        ),
        (
            "bye-claims-much-text",
            Channel::Peer,
            Protocol,
            frame(0x80, &[0, 253, 255, 255, 255, 255, 255, 255, 255, 127]),
        ),
        ("ask-no-proofs", Channel::Peer, BadRequest, frame(0x24, &[0, 0])),
        ("ask-257-proofs", Channel::Peer, BadRequest, frame(0x24, &[0, 251, 1, 1])),
        ("ask-proofs-beyond", Channel::Peer, BadRequest, frame(0x24, &[252, 255, 255, 15, 0, 2])),
        ("request-beyond", Channel::Request, BadRequest, frame(0xb1, &[252, 0, 0, 16, 0])),
        ("part-of-16-mib-and-1", Channel::Reply, PartLength, frame(0xb2, &[0, 252, 1, 0, 0, 1, 0])),
        ("push-short", Channel::Server, PartLength, [&frame(0x93, &[0, 2])[..], b"a"].concat()),
        ("push-long", Channel::Server, PartLength, [&frame(0x93, &[0, 2])[..], b"abc"].concat()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// The text of `docs/spec/vectors/wire.txt`.
pub(crate) fn vectors() -> String {
    let mut text = String::from(
        "# Test vectors of docs/spec/wire.md. `cargo run -p hybrid-wire --example wire-vectors` writes this file.\n\
         # What the messages say is in crates/wire/tests/samples/mod.rs.\n\
         #\n\
         # message CHANNEL NAME HEX        a frame, and what follows it in one WebSocket message\n\
         # refused CHANNEL NAME CODE HEX   bytes that end the channel with this code\n\
         # ticket  NAME KEY HEX            a ticket, and the public key that it is signed with\n\n",
    );
    for (name, message) in messages() {
        let frame = message.encode().expect("a sample");
        writeln!(text, "message {} {name} {}", message.channel().as_str(), hex(&frame)).expect("a string takes all");
    }
    text.push('\n');
    for (name, channel, code, bytes) in refused() {
        let (channel, code) = (channel.as_str(), code.to_u16());
        writeln!(text, "refused {channel} {name} {code:#04x} {}", hex(&bytes)).expect("a string takes all");
    }
    text.push('\n');
    let key = hex(hybrid_manifest::server_key(&server_key()).as_bytes());
    for (name, ticket) in [("native", ticket()), ("bound", bound_ticket())] {
        writeln!(text, "ticket {name} {key} {}", hex(&ticket.sign(&server_key()))).expect("a string takes all");
    }
    text
}
