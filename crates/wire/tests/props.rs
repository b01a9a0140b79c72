//! Properties of the codec.
//!
//! A failure prints its smallest case and writes it to `proptest-regressions/`, from where the next run replays it first.

#[allow(dead_code, reason = "other tests use more of it")]
mod samples;

use bytes::Bytes;
use hybrid_manifest::{ContentId, MAX_PARTS, PartNumber, PartRange};
use hybrid_units::Mode;
use hybrid_wire::codec::{CRITICAL_BIT, HEAD_BYTES, body_bytes};
use hybrid_wire::control::{
    BLAMED_MAX, Bye, ByeCode, ClientMessage, Directive, Join, PEERS_MAX, PROGRAM_BYTES_MAX, PartPush, REASON_BYTES_MAX,
    REASON_LINE_BYTES_MAX, REASONS_MAX, Report, SOURCES_MAX, ServerMessage, TICKET_BYTES_MAX, Uploads, Vouch, Want,
    Welcome,
};
use hybrid_wire::peer::{
    ASK_PROOFS_MAX, AskProofs, Have, Hello, PROOFS_BYTES_MAX, PartReply, PeerMessage, Proofs, Request, TOLD_PEERS_MAX,
    ToldPeers,
};
use hybrid_wire::{
    DecodeError, Decoded, FrameKind, MAX_FRAME_BYTES, MAX_PART_BYTES, PROTOCOL_VERSION, PartRanges, PeerCoordinates,
    PeerId, PeerLimits, SessionToken, Source, UploadContract, ValueError,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use samples::{Channel, Message};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

// ----- Any message -----

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId::from_bytes)
}

fn content() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId::from_bytes)
}

fn part() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..8, 0..MAX_PARTS, Just(MAX_PARTS - 1)]
}

/// Runs and gaps of all lengths, few and many.
fn parts() -> impl Strategy<Value = PartRanges> {
    let short = (1u32..4, 1u32..4);
    let long = (1u32..70_000, 1u32..70_000);
    prop_oneof![
        vec(short.clone(), 0..20),
        vec(prop_oneof![8 => short.clone(), 1 => long], 0..40),
        vec(short, 1_000..3_000)
    ]
    .prop_map(|pairs| {
        let (mut runs, mut end) = (Vec::new(), 0u32);
        for (gap, count) in pairs {
            // The first run may start at part 0.
            let first = if runs.is_empty() { gap - 1 } else { end + gap };
            let Some(run) = PartRange::new(PartNumber::new(first), count) else { break };
            end = run.end().as_u32();
            runs.push(run);
        }
        PartRanges::new(runs).expect("in order and apart")
    })
}

fn line() -> impl Strategy<Value = String> {
    "[^\\pC]{0,40}"
}

fn reasons() -> impl Strategy<Value = Vec<String>> {
    vec(line(), 0..=REASONS_MAX)
}

fn ticket() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=TICKET_BYTES_MAX).prop_map(Bytes::from)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::ClientServer), Just(Mode::PeerToPeer)]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        // An IPv6 address that stands for an IPv4 one comes back as that.
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn peers() -> impl Strategy<Value = Vec<PeerCoordinates>> {
    vec((peer(), address()).prop_map(|(peer, address)| PeerCoordinates { peer, address }), 0..=PEERS_MAX)
}

fn limits() -> impl Strategy<Value = PeerLimits> {
    any::<(u16, u8)>().prop_map(|(connections_max, uploads_max)| PeerLimits { connections_max, uploads_max })
}

fn blamed() -> impl Strategy<Value = Vec<(PeerId, u32)>> {
    vec((peer(), any::<u32>()), 0..=BLAMED_MAX)
}

fn bye() -> impl Strategy<Value = Bye> {
    (any::<u16>(), "[ -~]{0,100}").prop_map(|(code, reason)| Bye { code: ByeCode::from_u16(code), reason })
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![Just(Want::Whole), part().prop_map(Want::PlayFrom), Just(Want::Seed)]
}

fn join() -> impl Strategy<Value = Join> {
    let contract = any::<(bool, Option<u64>)>()
        .prop_map(|(upload, rate)| UploadContract { upload, rate_limit_bytes_per_second: rate });
    ("[ -~]{0,64}", content(), peer(), any::<Option<u16>>(), parts(), want(), contract).prop_map(
        |(program, content, peer, quic_port, has, want, contract)| Join {
            version: PROTOCOL_VERSION,
            program,
            content,
            peer,
            quic_port,
            has,
            want,
            contract,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let first = (mode(), reasons(), any::<[u8; 16]>(), ticket(), any::<u64>());
    (first, any::<(u32, u16)>(), peers(), parts(), limits()).prop_map(
        |((mode, reasons, session, ticket, server_time_secs), (report_interval_ms, pushes), peers, grants, limits)| {
            let session = SessionToken::from_bytes(session);
            Welcome {
                mode,
                reasons,
                session,
                ticket,
                server_time_secs,
                report_interval_ms,
                peers,
                grants,
                pushes,
                limits,
            }
        },
    )
}

fn directive() -> impl Strategy<Value = Directive> {
    let mode = option::of((mode(), reasons()));
    let revoked = vec(peer(), 0..=BLAMED_MAX);
    (mode, peers(), parts(), option::of(limits()), any::<Option<u32>>(), option::of(ticket()), revoked).prop_map(
        |(mode, peers, grants, limits, report_interval_ms, ticket, revoked)| Directive {
            mode,
            peers,
            grants,
            limits,
            report_interval_ms,
            ticket,
            revoked,
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let source = (0..Source::ALL.len()).prop_map(|index| Source::ALL[index]);
    let received = vec((source, any::<u64>()), 0..=SOURCES_MAX);
    let level = (option::of(part()), 0..=MAX_PARTS, parts(), parts());
    let rates = any::<(u64, u64, Option<u32>, Option<u32>, u32, Option<u32>, u16, Option<u16>)>();
    (level, received, rates, blamed(), blamed()).prop_map(
        |((last_part, level, gained, lost), received, rates, refused, bad)| {
            let (sent_bytes, download_bytes_per_second, rtt_ms, start_up_ms, stalls, buffer_ms, peers, loss_permille) =
                rates;
            Report {
                last_part,
                level,
                gained,
                lost,
                received,
                sent_bytes,
                download_bytes_per_second,
                rtt_ms,
                start_up_ms,
                stalls,
                buffer_ms,
                peers,
                refused,
                bad,
                loss_permille,
            }
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    (content(), any::<u32>(), ticket(), parts(), any::<bool>()).prop_map(
        |(content, part_len_bytes, ticket, has, uploads)| Hello {
            version: PROTOCOL_VERSION,
            content,
            part_len_bytes,
            ticket,
            has,
            uploads,
        },
    )
}

fn push() -> impl Strategy<Value = PartPush> {
    (part(), vec(any::<u8>(), 0..2_000)).prop_map(|(number, bytes)| PartPush { number, bytes: bytes.into() })
}

fn message() -> impl Strategy<Value = Message> {
    let proofs = vec(any::<u8>(), 0..4_000).prop_map(|proofs| PeerMessage::Proofs(Proofs { proofs: proofs.into() }));
    let ask = (part(), 1..=ASK_PROOFS_MAX)
        .prop_map(|(first, count)| AskProofs { first: first.min(MAX_PARTS - count), count });
    prop_oneof![
        join().prop_map(|join| Message::Client(ClientMessage::Join(join))),
        report().prop_map(|report| Message::Client(ClientMessage::Report(report))),
        vec(peer(), 0..5).prop_map(|peers| Message::Client(ClientMessage::Vouch(Vouch { peers }))),
        any::<bool>().prop_map(|on| Message::Client(ClientMessage::Uploads(Uploads { on }))),
        bye().prop_map(|bye| Message::Client(ClientMessage::Bye(bye))),
        welcome().prop_map(|welcome| Message::Server(ServerMessage::Welcome(welcome))),
        directive().prop_map(|directive| Message::Server(ServerMessage::Directive(directive))),
        push().prop_map(|push| Message::Server(ServerMessage::PartPush(push))),
        bye().prop_map(|bye| Message::Server(ServerMessage::Bye(bye))),
        hello().prop_map(|hello| Message::Peer(PeerMessage::Hello(hello))),
        (parts(), any::<u8>()).prop_map(|(parts, queue)| Message::Peer(PeerMessage::Have(Have { parts, queue }))),
        Just(Message::Peer(PeerMessage::Idle)),
        ask.prop_map(|ask| Message::Peer(PeerMessage::AskProofs(ask))),
        proofs.prop_map(Message::Peer),
        Just(Message::Peer(PeerMessage::AskPeers)),
        peers().prop_map(|mut peers| {
            peers.truncate(TOLD_PEERS_MAX);
            Message::Peer(PeerMessage::Peers(ToldPeers { peers }))
        }),
        bye().prop_map(|bye| Message::Peer(PeerMessage::Bye(bye))),
        part().prop_map(|number| Message::Request(Request { number })),
        (part(), 0..=MAX_PART_BYTES, any::<u8>())
            .prop_map(|(number, length_bytes, queue)| Message::Reply(PartReply::Part { number, length_bytes, queue })),
        any::<(u32, u8)>().prop_map(|(retry_in_ms, queue)| Message::Reply(PartReply::Busy { retry_in_ms, queue })),
        Just(Message::Reply(PartReply::Gone)),
    ]
}

fn encoded(message: &Message) -> Bytes {
    message.encode().expect("within the caps")
}

/// Gives bytes to every decoder; what one takes must come back as it is after another round.
fn try_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    for channel in Channel::ALL {
        if let Ok(Decoded::Message(message)) = channel.decode(bytes) {
            let again = message.encode().expect("what was decoded is within the caps");
            prop_assert_eq!(channel.decode(&again), Ok(Decoded::Message(message)));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_sent_arrives(message in message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(message.channel().decode(&bytes), Ok(Decoded::Message(message)));
    }

    /// Only on its own channel: no message is taken for another one.
    #[test]
    fn messages_stay_on_their_channel(message in message()) {
        let bytes = encoded(&message);
        let is_bye = bytes[4] == FrameKind::Bye.number();
        for channel in Channel::ALL {
            let belongs = channel == message.channel()
                || is_bye && matches!(channel, Channel::Client | Channel::Server | Channel::Peer);
            prop_assert_eq!(channel.decode(&bytes).is_ok(), belongs, "{:?}", channel);
        }
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in vec(any::<u8>(), 0..600)) {
        try_all(&bytes)?;
    }

    /// Any body in a frame that is one, so that the bodies' decoders see it.
    #[test]
    fn any_body_gives_an_answer(kind in 0..FrameKind::ALL.len(), body in vec(any::<u8>(), 0..600)) {
        try_all(&samples::frame(FrameKind::ALL[kind].number(), &body))?;
    }

    #[test]
    fn a_damaged_message_gives_an_answer(
        message in message(),
        damages in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
        mends_length: bool,
    ) {
        let mut bytes = encoded(&message).to_vec();
        for (index, byte, damage) in damages {
            let at = index.index(bytes.len());
            match damage {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.insert(at, byte),
                _ if bytes.len() > HEAD_BYTES => drop(bytes.remove(at)),
                _ => {}
            }
        }
        if mends_length {
            let length = u32::try_from(bytes.len() - 4).expect("short");
            bytes[..4].copy_from_slice(&length.to_le_bytes());
        }
        try_all(&bytes)?;
    }

    /// The message that is cut anywhere is none, whether its length field says so or not.
    #[test]
    fn a_cut_message_is_none(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = encoded(&message);
        let mut cut = bytes[..cut.index(bytes.len())].to_vec();
        prop_assert!(message.channel().decode(&cut).is_err());
        if cut.len() > HEAD_BYTES && message.channel() != Channel::Server {
            let length = u32::try_from(cut.len() - 4).expect("short");
            cut[..4].copy_from_slice(&length.to_le_bytes());
            prop_assert!(message.channel().decode(&cut).is_err());
        }
    }

    /// A stream of frames is cut where they end: what follows one does not matter.
    #[test]
    fn heads_tell_where_frames_end(messages in vec(message(), 1..5)) {
        let messages: Vec<Message> = messages.into_iter().filter(|m| m.channel() != Channel::Server).collect();
        let stream = messages.iter().map(encoded).collect::<Vec<_>>().concat();
        let mut rest = &stream[..];
        for message in messages {
            let head = rest.first_chunk::<HEAD_BYTES>().expect("a head");
            let (frame, behind) = rest.split_at(HEAD_BYTES + body_bytes(head).expect("a good head"));
            prop_assert_eq!(message.channel().decode(frame), Ok(Decoded::Message(message)));
            rest = behind;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn unknown_frames_are_skipped_or_end_the_channel(number: u8, body in vec(any::<u8>(), 0..100)) {
        prop_assume!(FrameKind::from_number(number).is_none());
        let frame = samples::frame(number, &body);
        for channel in Channel::ALL {
            let expected = if number & CRITICAL_BIT == 0 {
                Ok(Decoded::Unknown { number })
            } else {
                Err(DecodeError::UnknownCritical { number })
            };
            prop_assert_eq!(channel.decode(&frame), expected);
        }
    }

    /// Texts of any kind and length leave as texts that the other side takes, and lose only what they must.
    #[test]
    fn texts_are_made_fit(text in "\\PC{0,120}|[\u{0}-\u{ff}]{0,120}") {
        let bye = Bye { code: ByeCode::Done, reason: text.clone() };
        let bytes = encoded(&Message::Peer(PeerMessage::Bye(bye)));
        let Ok(Decoded::Message(Message::Peer(PeerMessage::Bye(bye)))) = Channel::Peer.decode(&bytes) else {
            return Err(TestCaseError::fail("no bye"));
        };
        prop_assert!(bye.reason.len() <= REASON_BYTES_MAX);
        let kept = |c: char| c == ' ' || c.is_ascii_graphic();
        if text.len() <= REASON_BYTES_MAX {
            prop_assert_eq!(bye.reason, text.chars().map(|c| if kept(c) { c } else { '?' }).collect::<String>());
        }

        let directive = Directive { mode: Some((Mode::PeerToPeer, vec![text.clone()])), ..Directive::default() };
        let bytes = encoded(&Message::Server(ServerMessage::Directive(directive)));
        let Ok(Decoded::Message(Message::Server(ServerMessage::Directive(directive)))) = Channel::Server.decode(&bytes)
        else {
            return Err(TestCaseError::fail("no directive"));
        };
        let (_, reasons) = directive.mode.expect("a mode");
        prop_assert!(reasons[0].len() <= REASON_LINE_BYTES_MAX);
        if text.len() <= REASON_LINE_BYTES_MAX && !text.contains(char::is_control) {
            prop_assert_eq!(&reasons[0], &text);
        }
    }

    // ----- Sets of parts -----

    /// Against a plain list of numbers.
    #[test]
    fn sets_of_parts_are_their_numbers(mut numbers in vec(prop_oneof![0u32..50, 0..MAX_PARTS], 0..200)) {
        numbers.sort_unstable();
        let set = PartRanges::from_ascending(numbers.iter().copied().map(PartNumber::new));
        numbers.dedup();
        prop_assert_eq!(set.iter().map(PartNumber::as_u32).collect::<Vec<_>>(), numbers.clone());
        prop_assert_eq!(set.part_count() as usize, numbers.len());
        prop_assert_eq!(set.is_empty(), numbers.is_empty());
        prop_assert_eq!(set.end().as_u32(), numbers.last().map_or(0, |last| last + 1));
        prop_assert_eq!(PartRanges::new(set.runs().to_vec()), Ok(set));
    }

    /// Any pairs either are the one way to write a set of parts, or are refused.
    #[test]
    fn only_runs_in_order_are_sets(pairs in vec((0u8..4, 0u8..4), 0..12)) {
        let mut body = vec![u8::try_from(pairs.len()).expect("few")];
        body.extend(pairs.iter().flat_map(|(gap, count)| [*gap, *count]));
        body.push(0);
        let good = pairs.iter().enumerate().all(|(index, (gap, count))| *count > 0 && (*gap > 0 || index == 0));
        match hybrid_wire::decode_peer(&samples::frame(FrameKind::Have.number(), &body)) {
            Ok(Decoded::Message(PeerMessage::Have(have))) => {
                prop_assert!(good);
                let mut end = 0;
                let mut numbers = Vec::new();
                for (gap, count) in pairs {
                    let first = end + u32::from(gap);
                    end = first + u32::from(count);
                    numbers.extend(first..end);
                }
                prop_assert_eq!(have.parts.iter().map(PartNumber::as_u32).collect::<Vec<_>>(), numbers);
            }
            Err(error) => {
                prop_assert!(!good);
                prop_assert_eq!(error.bye_code(), ByeCode::PartSet);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn session_tokens_travel_in_headers(bytes: [u8; 16], text in "\\PC{0,40}|[0-9a-fA-F]{30,34}") {
        let token = SessionToken::from_bytes(bytes);
        prop_assert_eq!(SessionToken::from_header(&token.to_header()), Some(token));
        let is_token = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        prop_assert_eq!(SessionToken::from_header(&text).is_some(), is_token);
    }
}

// ----- Caps -----

#[test]
fn each_sample_cut_at_each_byte_is_none() {
    for (name, message) in samples::messages() {
        let bytes = encoded(&message);
        for end in 0..bytes.len() {
            assert!(message.channel().decode(&bytes[..end]).is_err(), "{name} cut to {end} bytes");
        }
    }
}

/// The set of parts with the longest encoding.
fn longest_set() -> PartRanges {
    let (mut runs, mut end) = (Vec::new(), 0u32);
    let mut push = |gap: u32, count: u32| {
        let run = PartRange::new(PartNumber::new(end + gap), count)?;
        end = run.end().as_u32();
        runs.push(run);
        Some(())
    };
    // All gaps and counts are at least 1. To make one longer on the wire costs 250 parts for two bytes (251 or more), or 65,535
    // parts for four: so as many as there are parts for are 251.
    let mut spare = MAX_PARTS - u32::try_from(2 * PartRanges::MAX_RUNS).expect("fits");
    for _ in 0..PartRanges::MAX_RUNS {
        let mut number = || {
            let extra = if spare >= 250 { 250 } else { 0 };
            spare -= extra;
            1 + extra
        };
        let (gap, count) = (number(), number());
        push(gap, count).expect("within the largest content");
    }
    PartRanges::new(runs).expect("in order")
}

fn largest_messages() -> Vec<Message> {
    let set = longest_set();
    let text = |len| "é".repeat(len);
    let reasons = vec![text(REASON_LINE_BYTES_MAX / 2); REASONS_MAX];
    let ticket = Bytes::from(vec![0xff; TICKET_BYTES_MAX]);
    let coordinates = PeerCoordinates { peer: samples::peer(1), address: SocketAddr::from(([255; 16], u16::MAX)) };
    let limits = PeerLimits { connections_max: u16::MAX, uploads_max: u8::MAX };
    let blamed = vec![(samples::peer(1), u32::MAX); BLAMED_MAX];
    let bye = Bye { code: ByeCode::Other(u16::MAX), reason: "x".repeat(REASON_BYTES_MAX) };
    vec![
        Message::Client(ClientMessage::Bye(bye)),
        Message::Client(ClientMessage::Join(Join {
            version: PROTOCOL_VERSION,
            program: "x".repeat(PROGRAM_BYTES_MAX),
            content: samples::content(),
            peer: samples::peer(1),
            quic_port: Some(u16::MAX),
            has: set.clone(),
            want: Want::PlayFrom(MAX_PARTS - 1),
            contract: UploadContract { upload: true, rate_limit_bytes_per_second: Some(u64::MAX) },
        })),
        Message::Client(ClientMessage::Report(Report {
            last_part: Some(MAX_PARTS - 1),
            level: MAX_PARTS,
            gained: set.clone(),
            lost: set.clone(),
            received: vec![(Source::Peer, u64::MAX); SOURCES_MAX],
            sent_bytes: u64::MAX,
            download_bytes_per_second: u64::MAX,
            rtt_ms: Some(u32::MAX),
            start_up_ms: Some(u32::MAX),
            stalls: u32::MAX,
            buffer_ms: Some(u32::MAX),
            peers: u16::MAX,
            refused: blamed.clone(),
            bad: blamed,
            loss_permille: Some(u16::MAX),
        })),
        Message::Client(ClientMessage::Vouch(Vouch { peers: vec![samples::peer(1); BLAMED_MAX] })),
        Message::Client(ClientMessage::Uploads(Uploads { on: true })),
        Message::Server(ServerMessage::Welcome(Welcome {
            mode: Mode::PeerToPeer,
            reasons: reasons.clone(),
            session: SessionToken::from_bytes([0xff; 16]),
            ticket: ticket.clone(),
            server_time_secs: u64::MAX,
            report_interval_ms: u32::MAX,
            peers: vec![coordinates.clone(); PEERS_MAX],
            grants: set.clone(),
            pushes: u16::MAX,
            limits,
        })),
        Message::Server(ServerMessage::Directive(Directive {
            mode: Some((Mode::PeerToPeer, reasons)),
            peers: vec![coordinates.clone(); PEERS_MAX],
            grants: set.clone(),
            limits: Some(limits),
            report_interval_ms: Some(u32::MAX),
            ticket: Some(ticket.clone()),
            revoked: vec![samples::peer(1); BLAMED_MAX],
        })),
        Message::Peer(PeerMessage::Hello(Hello {
            version: PROTOCOL_VERSION,
            content: samples::content(),
            part_len_bytes: u32::MAX,
            ticket,
            has: set.clone(),
            uploads: true,
        })),
        Message::Peer(PeerMessage::Have(Have { parts: set, queue: u8::MAX })),
        Message::Peer(PeerMessage::Idle),
        Message::Peer(PeerMessage::AskProofs(AskProofs { first: MAX_PARTS - ASK_PROOFS_MAX, count: ASK_PROOFS_MAX })),
        Message::Peer(PeerMessage::Proofs(Proofs { proofs: vec![0; PROOFS_BYTES_MAX].into() })),
        Message::Peer(PeerMessage::AskPeers),
        Message::Peer(PeerMessage::Peers(ToldPeers { peers: vec![coordinates; TOLD_PEERS_MAX] })),
        Message::Request(Request { number: MAX_PARTS - 1 }),
        Message::Reply(PartReply::Part { number: MAX_PARTS - 1, length_bytes: MAX_PART_BYTES, queue: u8::MAX }),
        Message::Reply(PartReply::Busy { retry_in_ms: u32::MAX, queue: u8::MAX }),
        Message::Reply(PartReply::Gone),
    ]
}

/// The caps of the fields keep each message below its kind's ceiling, and bincode's own limit does not get in the way.
#[test]
fn the_largest_messages_pass() {
    for message in largest_messages() {
        let bytes = encoded(&message);
        assert!(bytes.len() <= 4 + MAX_FRAME_BYTES);
        let kind = FrameKind::from_number(bytes[4]).expect("a kind");
        assert_eq!(message.channel().decode(&bytes), Ok(Decoded::Message(message)), "{kind} of {} bytes", bytes.len());
    }
}

#[test]
fn the_largest_part_is_pushed_without_a_copy() {
    let bytes = Bytes::from(vec![0xa5; MAX_PART_BYTES as usize]);
    let push = ServerMessage::PartPush(PartPush { number: 1, bytes });
    let sent = hybrid_wire::encode_server(&push).expect("a part");
    assert!(sent.len() <= hybrid_wire::MAX_CONTROL_MESSAGE_BYTES);
    let Ok(Decoded::Message(ServerMessage::PartPush(push))) = hybrid_wire::decode_server(&sent) else {
        panic!("no part push");
    };
    assert_eq!(push.bytes.as_ptr_range().end, sent.as_ptr_range().end, "the part is a slice of the message");

    let long = PartPush { number: 1, bytes: vec![0; MAX_PART_BYTES as usize + 1].into() };
    let error = hybrid_wire::encode_server(&ServerMessage::PartPush(long)).expect_err("too long");
    assert_eq!(error.error, ValueError::PartLength(u64::from(MAX_PART_BYTES) + 1));
}

/// What the receiver would refuse is not sent.
#[test]
fn lists_and_numbers_beyond_their_caps_are_not_sent() {
    let blamed = vec![(samples::peer(1), 1); BLAMED_MAX + 1];
    let coordinates = PeerCoordinates { peer: samples::peer(1), address: SocketAddr::from(([192, 0, 2, 1], 5_000)) };
    let report = |report| Message::Client(ClientMessage::Report(report));
    let directive = |directive| Message::Server(ServerMessage::Directive(directive));
    let too_many = |field, max: usize| ValueError::TooMany { field, count: max + 1, max };
    let too_long = |field, max: usize| ValueError::TooLong { field, got: max + 1, max };
    let part = |field, number: u32| ValueError::PartNumber { field, number: number.into() };
    for (message, error) in [
        (report(Report { refused: blamed.clone(), ..Report::default() }), too_many("refused", BLAMED_MAX)),
        (
            Message::Client(ClientMessage::Vouch(Vouch { peers: vec![samples::peer(1); BLAMED_MAX + 1] })),
            too_many("peers", BLAMED_MAX),
        ),
        (report(Report { bad: blamed, ..Report::default() }), too_many("bad", BLAMED_MAX)),
        (
            report(Report { received: vec![(Source::Peer, 1); SOURCES_MAX + 1], ..Report::default() }),
            too_many("received", SOURCES_MAX),
        ),
        (report(Report { last_part: Some(MAX_PARTS), ..Report::default() }), part("last_part", MAX_PARTS)),
        (report(Report { level: MAX_PARTS + 1, ..Report::default() }), part("level", MAX_PARTS + 1)),
        (
            directive(Directive { peers: vec![coordinates.clone(); PEERS_MAX + 1], ..Directive::default() }),
            too_many("peers", PEERS_MAX),
        ),
        (
            Message::Peer(PeerMessage::Peers(ToldPeers { peers: vec![coordinates; TOLD_PEERS_MAX + 1] })),
            too_many("peers", TOLD_PEERS_MAX),
        ),
        (
            directive(Directive { revoked: vec![samples::peer(1); BLAMED_MAX + 1], ..Directive::default() }),
            too_many("revoked", BLAMED_MAX),
        ),
        (
            directive(Directive {
                mode: Some((Mode::PeerToPeer, vec![String::new(); REASONS_MAX + 1])),
                ..Directive::default()
            }),
            too_many("reasons", REASONS_MAX),
        ),
        (
            directive(Directive { ticket: Some(vec![0; TICKET_BYTES_MAX + 1].into()), ..Directive::default() }),
            too_long("ticket", TICKET_BYTES_MAX),
        ),
        (
            Message::Peer(PeerMessage::Proofs(Proofs { proofs: vec![0; PROOFS_BYTES_MAX + 1].into() })),
            too_long("proofs", PROOFS_BYTES_MAX),
        ),
        (
            Message::Peer(PeerMessage::AskProofs(AskProofs { first: 0, count: ASK_PROOFS_MAX + 1 })),
            ValueError::Number { field: "count", number: u64::from(ASK_PROOFS_MAX) + 1 },
        ),
        (Message::Request(Request { number: MAX_PARTS }), part("number", MAX_PARTS)),
        (
            Message::Reply(PartReply::Part { number: 0, length_bytes: MAX_PART_BYTES + 1, queue: 0 }),
            ValueError::PartLength(u64::from(MAX_PART_BYTES) + 1),
        ),
    ] {
        assert_eq!(message.encode().map_err(|e| e.error), Err(error), "{message:?}");
    }
}

/// The same caps against a sender that does not keep them; each frame is whole, so only the cap can refuse it.
#[test]
fn lists_beyond_their_caps_are_refused() {
    let repeat = |head: &[u8], entry: &[u8], count: usize, tail: &[u8]| [head, &entry.repeat(count), tail].concat();
    let report = FrameKind::Report.number();
    let directive = FrameKind::Directive.number();
    let hello = FrameKind::Hello.number();
    let runs = [&[251, 1, 32][..], &[1; 2 * (PartRanges::MAX_RUNS + 1)], &[0]].concat();
    for (channel, kind, body, max, code) in [
        (Channel::Client, report, repeat(&[0, 0, 0, 0, 17], &[1, 1], 17, &[0; 10]), 16, ByeCode::Protocol),
        (
            Channel::Client,
            report,
            repeat(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65], &[7; 33], 65, &[0, 0]),
            64,
            ByeCode::Protocol,
        ),
        (
            Channel::Client,
            report,
            repeat(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 65], &[7; 33], 65, &[0]),
            64,
            ByeCode::Protocol,
        ),
        (Channel::Server, directive, repeat(&[0, 65], &[7; 49], 65, &[0; 5]), 64, ByeCode::Protocol),
        (Channel::Server, directive, repeat(&[0, 0, 0, 0, 0, 0, 65], &[7; 32], 65, &[]), 64, ByeCode::Protocol),
        (Channel::Server, directive, repeat(&[1, 1, 17], &[0], 17, &[0; 6]), 16, ByeCode::Protocol),
        (Channel::Server, directive, repeat(&[1, 1, 1, 201], b"a", 201, &[0; 6]), 200, ByeCode::Protocol),
        (
            Channel::Server,
            directive,
            repeat(&[0, 0, 0, 0, 0, 1, 251, 1, 4], b"t", 1_025, &[0]),
            1_024,
            ByeCode::Protocol,
        ),
        (
            Channel::Peer,
            hello,
            repeat(&[&[1][..], &[7; 32], &[0, 251, 1, 4]].concat(), b"t", 1_025, &[0, 0]),
            1_024,
            ByeCode::Protocol,
        ),
        (Channel::Peer, FrameKind::Have.number(), runs, PartRanges::MAX_RUNS, ByeCode::PartSet),
        (
            Channel::Peer,
            FrameKind::Proofs.number(),
            repeat(&[251, 1, 240], b"p", 61_441, &[]),
            61_440,
            ByeCode::Protocol,
        ),
        (Channel::Peer, FrameKind::Peers.number(), repeat(&[51], &[7; 49], 51, &[]), 50, ByeCode::Protocol),
    ] {
        let error = channel.decode(&samples::frame(kind, &body)).expect_err("beyond a cap");
        assert_eq!(error.bye_code(), code, "{error}");
        let DecodeError::Value { error, .. } = error else { panic!("{error}") };
        match error {
            ValueError::TooMany { count, max: cap, .. } | ValueError::TooLong { got: count, max: cap, .. } => {
                assert_eq!((count, cap), (max + 1, max));
            }
            ValueError::Parts { error, .. } => {
                assert_eq!(error, hybrid_wire::PartRangesError::TooMany(max + 1));
            }
            other => panic!("{other}"),
        }
    }
}

/// With the head alone: nobody waits for, or makes room for, a body that is too long.
#[test]
fn long_bodies_are_refused_by_their_head() {
    let head = |length: usize, number: u8| {
        let [a, b, c, d] = u32::try_from(length).expect("fits").to_le_bytes();
        [a, b, c, d, number]
    };
    for &kind in FrameKind::ALL {
        let max = kind.body_bytes_max();
        assert_eq!(body_bytes(&head(1 + max, kind.number())), Ok(max));
        let refused = if max + 2 > MAX_FRAME_BYTES {
            DecodeError::FrameLength { length: u32::try_from(max + 2).expect("fits") }
        } else {
            DecodeError::BodyLength { kind, got: max + 1 }
        };
        assert_eq!(body_bytes(&head(2 + max, kind.number())), Err(refused));
    }
    // A kind of a later version may take a whole frame, and no more.
    assert_eq!(body_bytes(&head(MAX_FRAME_BYTES, 0x7f)), Ok(MAX_FRAME_BYTES - 1));
    assert!(body_bytes(&head(MAX_FRAME_BYTES + 1, 0x7f)).is_err());
}

/// A count that no frame can keep ends at the frame's end, in each place where a count stands.
#[test]
fn huge_claims_fail_fast() {
    let claim = [253, 255, 255, 255, 255, 255, 255, 255, 255];
    for (_, message) in samples::messages() {
        let bytes = encoded(&message);
        let body = &bytes[HEAD_BYTES..HEAD_BYTES + body_bytes(bytes.first_chunk().expect("a head")).expect("good")];
        for at in 0..body.len() {
            let claimed = [&body[..at], &claim, &body[at + 1..]].concat();
            let frame = samples::frame(bytes[4], &claimed);
            // Taken or refused, but at once: the test would not end if the claim were believed.
            drop(message.channel().decode(&frame));
        }
    }
}

/// Of a source that this version does not know, nothing is kept; the rest of the report is.
#[test]
fn unknown_sources_are_skipped() {
    let body = [0, 3, 0, 0, 3, 4, 10, 99, 20, 5, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let Ok(Decoded::Message(ClientMessage::Report(report))) =
        hybrid_wire::decode_client(&samples::frame(FrameKind::Report.number(), &body))
    else {
        panic!("no report");
    };
    assert_eq!(report.received, [(Source::Peer, 10), (Source::Store, 30)]);
    assert_eq!(report.level, 3);
}

#[test]
fn an_ipv4_peer_in_ipv6_clothes_is_an_ipv4_peer() {
    let coordinates =
        |address: &str| PeerCoordinates { peer: samples::peer(1), address: address.parse().expect("one") };
    let directive = |peers| ServerMessage::Directive(Directive { peers, ..Directive::default() });
    let sent = hybrid_wire::encode_server(&directive(vec![coordinates("[::ffff:192.0.2.1]:5000")])).expect("few");
    let expected = Decoded::Message(directive(vec![coordinates("192.0.2.1:5000")]));
    assert_eq!(hybrid_wire::decode_server(&sent), Ok(expected));
}
