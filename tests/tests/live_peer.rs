//! What a running client answers to peers that break the rules, one rule at a time: a member of its swarm with a key and a ticket
//! says it over real connections, and after each an honest one is served as before.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hybrid_manifest::{ContentId, PartNumber, SignedManifest, Trust};
use hybrid_server_transport::client::{ClientConfig, ClientControl, ServerClient, TlsTrust};
use hybrid_tests::rawpeer::{RawPeer, Shown};
use hybrid_tests::{DEADLINE, PeerProcess, ServerProcess, content};
use hybrid_wire::control::{ClientMessage, Join, ServerMessage, Want};
use hybrid_wire::peer::{Hello, PeerMessage};
use hybrid_wire::{PEER_ALPN, PROTOCOL_VERSION, PartRanges, PeerId, UploadContract, encode_peer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// One part and a bit more.
const LEN: usize = 40_000;
const PART_LEN: usize = 32_768;

/// For one answer: six times the longest deadline that a peer has for us.
const PATIENCE: Duration = Duration::from_secs(30);

const HELLO: u8 = 0xa1;
const PROOFS: u8 = 0x25;
/// `AskProofs` for the first part.
const ASK_PROOF: &[u8] = &[3, 0, 0, 0, 0x24, 0, 1];

/// What the peer does.
enum Deed {
    /// Shakes hands in another way.
    Handshake(&'static [u8], Shown),
    /// Says another hello.
    Hello(fn(&mut Hello)),
    /// Says these bytes first, and then nothing, or ends the stream.
    First(&'static str, Ends),
    /// Says them after the hellos.
    Then(&'static str, Ends),
    /// Says them that often.
    Often(&'static str, usize),
    /// Opens a two-way stream with these bytes.
    Ask(&'static str, Ends),
    /// Opens a one-way stream with them.
    Push(&'static str, Ends),
    /// Opens that many streams, says the bytes on each and takes it back.
    TakeBack(&'static str, usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Not,
    Finishes,
    Resets,
}
use Ends::{Finishes, Not, Resets};

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// No handshake.
    Alert,
    /// The connection ends with this code.
    Ends(u16),
    /// It goes on, and parts are served on it.
    GoesOn,
    /// The stream brings these bytes.
    Says(&'static str),
}
use Answer::{Alert, Ends as Closes, GoesOn, Says};

/// Bytes in hexadecimal; `{z:N}` is N zeros, `{hello}` the peer's hello.
const TABLE: &[(&str, Deed, Answer)] = &[
    // Handshakes.
    ("another protocol", Deed::Handshake(b"h3", Shown::Key), Alert),
    ("a later version of ours", Deed::Handshake(b"hybrid/2", Shown::Key), Alert),
    ("no key", Deed::Handshake(PEER_ALPN, Shown::Nothing), Alert),
    ("a key of another kind", Deed::Handshake(PEER_ALPN, Shown::OtherKind), Alert),
    // Hellos.
    ("no ticket", Deed::Hello(|hello| hello.ticket = Bytes::new()), Closes(0x10)),
    ("a ticket of zeros", Deed::Hello(|hello| hello.ticket = vec![0; 157].into()), Closes(0x10)),
    ("the longest ticket", Deed::Hello(|hello| hello.ticket = vec![0xff; 1_024].into()), Closes(0x10)),
    ("a ticket with a bit flipped", Deed::Hello(|hello| hello.ticket = flipped(&hello.ticket)), Closes(0x10)),
    ("a ticket with a byte too many", Deed::Hello(|hello| hello.ticket = longer(&hello.ticket)), Closes(0x10)),
    ("a ticket with a byte too few", Deed::Hello(|hello| hello.ticket = hello.ticket.slice(1..)), Closes(0x10)),
    ("another content", Deed::Hello(|hello| hello.content = ContentId::from_bytes([7; 32])), Closes(0x16)),
    ("another part length", Deed::Hello(|hello| hello.part_len_bytes = 65_536), Closes(0x16)),
    ("a part behind the end", Deed::Hello(|hello| hello.has = PartRanges::one(PartNumber::new(2))), Closes(0x11)),
    (
        "the last part there may be",
        Deed::Hello(|hello| hello.has = PartRanges::one(PartNumber::new(1_048_575))),
        Closes(0x11),
    ),
    // What is said first.
    ("nothing", Deed::First("", Not), Closes(0x12)),
    ("half of a hello", Deed::First("a0000000a1 01", Not), Closes(0x12)),
    ("an end at once", Deed::First("", Finishes), Closes(0x11)),
    ("an end within a head", Deed::First("0100", Finishes), Closes(0x14)),
    ("an end within a body", Deed::First("a0000000a1 01", Finishes), Closes(0x14)),
    ("Idle before the hello", Deed::First("0100000023", Not), Closes(0x11)),
    ("AskPeers before the hello", Deed::First("0100000026", Not), Closes(0x11)),
    ("a request before the hello", Deed::First("02000000b100", Not), Closes(0x11)),
    ("Join", Deed::First("0100000081", Not), Closes(0x11)),
    ("version 0", Deed::First("02000000a100", Not), Closes(0x13)),
    ("version 2", Deed::First("02000000a102", Not), Closes(0x13)),
    ("version 65535", Deed::First("04000000a1fbffff", Not), Closes(0x13)),
    ("a hello without a body", Deed::First("01000000a1", Not), Closes(0x11)),
    ("a hello that is cut", Deed::First("03000000a1 01 07", Not), Closes(0x11)),
    ("text", Deed::First("474554202f20485454502f312e310d0a0d0a", Not), Closes(0x14)),
    ("zeros", Deed::First("{z:64}", Not), Closes(0x14)),
    // Frames after the hello.
    ("a frame of no bytes", Deed::Then("0000000023", Not), Closes(0x14)),
    ("a frame beyond the limit", Deed::Then("0100010023", Not), Closes(0x14)),
    ("a frame of 4 GiB", Deed::Then("ffffffff23", Not), Closes(0x14)),
    ("a body beyond its type's limit", Deed::Then("020000002300", Not), Closes(0x14)),
    ("an unknown frame to skip", Deed::Then("0300000042 0000", Not), GoesOn),
    ("an unknown frame that must not be skipped", Deed::Then("01000000ff", Not), Closes(0x15)),
    ("a frame of the control channel", Deed::Then("0100000081", Not), Closes(0x11)),
    ("a frame of a request", Deed::Then("02000000b100", Not), Closes(0x11)),
    ("a second hello", Deed::Then("{hello}", Not), Closes(0x11)),
    ("the end of the stream of frames", Deed::Then("", Finishes), Closes(0x11)),
    ("the stream of frames taken back", Deed::Then("", Resets), Closes(0x11)),
    ("the stream of frames taken back within one", Deed::Then("0500000022 01", Resets), Closes(0x11)),
    ("an end within a frame", Deed::Then("0500000022 01", Finishes), Closes(0x14)),
    ("a set with an empty run", Deed::Then("0500000022 01 00 00 00", Not), Closes(0x17)),
    ("a set with runs that touch", Deed::Then("0700000022 02 00 01 00 01 00", Not), Closes(0x17)),
    ("a part behind the end, in Have", Deed::Then("0500000022 01 02 01 00", Not), Closes(0x11)),
    ("Have with more runs than bytes", Deed::Then("0300000022 7f 00", Not), Closes(0x11)),
    ("old news", Deed::Then("0500000022 01 00 02 00 0500000022 01 00 02 00", Not), GoesOn),
    ("Have of nothing", Deed::Then("0300000022 00 00", Not), GoesOn),
    ("no proofs, too many asked for", Deed::Then("0500000024 00 fb 01 01", Not), Closes(0x18)),
    ("no proofs, none asked for", Deed::Then("0300000024 00 00", Not), Closes(0x18)),
    ("proofs of parts behind the end", Deed::Then("0300000024 05 01", Not), GoesOn),
    ("a proof that proves nothing", Deed::Then("0500000025 03 010203", Not), Closes(0x1b)),
    ("peers that nobody asked for", Deed::Then("0200000027 00", Not), Closes(0x11)),
    ("AskPeers while the server is there", Deed::Then("0100000026", Not), GoesOn),
    ("a good-bye", Deed::Then("0300000080 00 00", Not), Closes(0x00)),
    ("a good-bye of a code that nobody knows", Deed::Then("0500000080 fb 00ff 00", Not), Closes(0x00)),
    ("a good-bye with a newline in it", Deed::Then("0500000080 00 02 0a 0a", Not), Closes(0x11)),
    // Floods.
    ("a flood of calls", Deed::Often("0100000023", 40_000), Closes(0x1e)),
    ("a flood of old news", Deed::Often("0500000022 01 00 02 00", 40_000), Closes(0x1e)),
    ("a flood of frames to skip", Deed::Often("0100000042", 2_000), Closes(0x1e)),
    ("a flood of questions for proofs", Deed::Often("0300000024 00 01", 40_000), Closes(0x1e)),
    // Requests.
    ("a part that there is", Deed::Ask("02000000b1 00", Finishes), GoesOn),
    ("a part behind the end, asked for", Deed::Ask("02000000b1 02", Finishes), Says("01000000b4")),
    ("the last part that any content may have", Deed::Ask("06000000b1 fc ffff0f00", Finishes), Says("01000000b4")),
    ("a part that no content has", Deed::Ask("06000000b1 fc 00001000", Finishes), Closes(0x18)),
    ("a request without a number", Deed::Ask("01000000b1", Finishes), Closes(0x11)),
    ("a request of a byte too many", Deed::Ask("03000000b1 00 00", Finishes), Closes(0x14)),
    ("a request beyond its limit", Deed::Ask("0a000000b1 {z:9}", Finishes), Closes(0x14)),
    ("a request that is cut", Deed::Ask("02000000b1", Finishes), Closes(0x14)),
    ("a stream without a request", Deed::Ask("", Finishes), Closes(0x14)),
    ("a request taken back within", Deed::Ask("0200", Resets), GoesOn),
    ("a hello on a stream of its own", Deed::Ask("{hello}", Finishes), Closes(0x11)),
    ("an answer instead of a request", Deed::Ask("01000000b4", Finishes), Closes(0x11)),
    ("an unknown request", Deed::Ask("01000000ff", Finishes), Closes(0x15)),
    ("bytes behind a request", Deed::Ask("02000000b1 00 {z:4096}", Finishes), GoesOn),
    ("requests taken back", Deed::TakeBack("02000000b1 00", 100), GoesOn),
    ("streams taken back", Deed::TakeBack("02", 100), GoesOn),
    // Pushes.
    ("a part that is there already", Deed::Push("06000000b2 00 fb 0080 00 {z:32768}", Finishes), GoesOn),
    ("a part behind the end, pushed", Deed::Push("04000000b2 02 05 00 {z:5}", Finishes), GoesOn),
    ("a part that no content has, pushed", Deed::Push("08000000b2 fc 00001000 05 00", Finishes), Closes(0x11)),
    ("a part longer than any", Deed::Push("08000000b2 00 fc 01000001 00", Finishes), Closes(0x19)),
    ("a refusal that nobody waits for", Deed::Push("01000000b4", Finishes), Closes(0x11)),
    ("a request on a one-way stream", Deed::Push("02000000b1 00", Finishes), Closes(0x11)),
    ("a push that is cut", Deed::Push("07000000b2 00", Finishes), Closes(0x14)),
    ("a push of nothing", Deed::Push("", Finishes), Closes(0x14)),
    ("a push taken back", Deed::Push("07000000b2 00", Resets), GoesOn),
];

fn flipped(ticket: &Bytes) -> Bytes {
    let mut ticket = ticket.to_vec();
    let middle = ticket.len() / 2;
    ticket[middle] ^= 4;
    ticket.into()
}

fn longer(ticket: &Bytes) -> Bytes {
    [ticket, &[0][..]].concat().into()
}

fn bytes_of(text: &str, hello: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if word == "{hello}" {
            bytes.extend_from_slice(hello);
        } else if let Some(zeros) = word.strip_prefix("{z:").and_then(|word| word.strip_suffix('}')) {
            bytes.resize(bytes.len() + zeros.parse::<usize>()?, 0);
        } else {
            for at in (0..word.len()).step_by(2) {
                bytes.push(u8::from_str_radix(word.get(at..at + 2).context("two digits for a byte")?, 16)?);
            }
        }
    }
    Ok(bytes)
}

/// A client that has the whole content, and what it takes to talk to it.
struct Scene {
    client: ServerClient,
    content: ContentId,
    parts: Vec<u8>,
    address: SocketAddr,
}

/// A member of the swarm that is free in what it says.
struct Member {
    raw: RawPeer,
    hello: Hello,
    _control: ClientControl,
}

/// A connection with its stream of frames, after the hellos.
struct Meeting {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Scene {
    async fn member(&self) -> anyhow::Result<Member> {
        let raw = RawPeer::new()?;
        let (ticket, control) = self.join(raw.peer_id()).await?;
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: self.content,
            part_len_bytes: u32::try_from(PART_LEN)?,
            ticket,
            has: PartRanges::empty(),
            uploads: true,
        };
        Ok(Member { raw, hello, _control: control })
    }

    async fn join(&self, peer: PeerId) -> anyhow::Result<(Bytes, ClientControl)> {
        let mut control = self.client.control().await?;
        let join = Join {
            version: PROTOCOL_VERSION,
            program: "raw peer".to_owned(),
            content: self.content,
            peer,
            quic_port: None,
            has: PartRanges::empty(),
            want: Want::Seed,
            contract: UploadContract { upload: false, rate_limit_bytes_per_second: None },
        };
        drop(control.send(&ClientMessage::Join(join))?);
        match control.recv().await.context("the server closed the channel")?? {
            ServerMessage::Welcome(welcome) => Ok((welcome.ticket, control)),
            other => bail!("expected a welcome, got {other:?}"),
        }
    }

    /// Connects, says hello and hears it.
    async fn meet(&self, member: &Member) -> anyhow::Result<Meeting> {
        let connection = member.raw.connect(self.address, PEER_ALPN, Shown::Key).await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(&encode_peer(&PeerMessage::Hello(member.hello.clone()))?).await?;
        let answer = frame(&mut recv).await?;
        ensure!(answer == HELLO, "answered with frame {answer:#x}");
        Ok(Meeting { connection, send, recv })
    }

    /// The first part, asked for as a peer does.
    async fn fetch(&self, connection: &quinn::Connection) -> anyhow::Result<()> {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(&[2, 0, 0, 0, 0xb1, 0]).await?;
        send.finish()?;
        let answer = recv.read_to_end(LEN).await?;
        ensure!(answer.ends_with(&self.parts[..PART_LEN]), "{} bytes that are not the part", answer.len());
        Ok(())
    }

    async fn play(&self, deed: &Deed, expected: Answer) -> anyhow::Result<Answer> {
        let mut member = self.member().await?;
        let hello = encode_peer(&PeerMessage::Hello(member.hello.clone()))?;
        match deed {
            Deed::Handshake(alpn, shown) => {
                let Ok(connection) = member.raw.connect(self.address, alpn, *shown).await else { return Ok(Alert) };
                // A client learns after its own last message that it was not good enough.
                match connection.closed().await {
                    quinn::ConnectionError::ConnectionClosed(_) => Ok(Alert),
                    error => code(&error),
                }
            }
            Deed::Hello(change) => {
                change(&mut member.hello);
                let connection = member.raw.connect(self.address, PEER_ALPN, Shown::Key).await?;
                let (mut send, _recv) = connection.open_bi().await?;
                send.write_all(&encode_peer(&PeerMessage::Hello(member.hello.clone()))?).await?;
                code(&connection.closed().await)
            }
            Deed::First(text, ends) => {
                let connection = member.raw.connect(self.address, PEER_ALPN, Shown::Key).await?;
                let (mut send, _recv) = connection.open_bi().await?;
                say(&mut send, &bytes_of(text, &hello)?, *ends).await?;
                code(&connection.closed().await)
            }
            Deed::Then(text, ends) => {
                let mut meeting = self.meet(&member).await?;
                say(&mut meeting.send, &bytes_of(text, &hello)?, *ends).await?;
                self.outcome(meeting, expected).await
            }
            Deed::Often(text, times) => {
                let Meeting { connection, mut send, recv: _recv } = self.meet(&member).await?;
                // The other side may have had enough before all is said.
                drop(send.write_all(&bytes_of(text, &hello)?.repeat(*times)).await);
                code(&connection.closed().await)
            }
            Deed::Ask(text, ends) => {
                let meeting = self.meet(&member).await?;
                let (mut send, mut recv) = meeting.connection.open_bi().await?;
                say(&mut send, &bytes_of(text, &hello)?, *ends).await?;
                match recv.read_to_end(LEN).await {
                    Ok(answer) if answer == [1, 0, 0, 0, 0xb4] => {
                        self.fetch(&meeting.connection).await?;
                        Ok(Says("01000000b4"))
                    }
                    _ => self.outcome(meeting, expected).await,
                }
            }
            Deed::Push(text, ends) => {
                let meeting = self.meet(&member).await?;
                let mut send = meeting.connection.open_uni().await?;
                // Who does not want it stops the stream.
                drop(say(&mut send, &bytes_of(text, &hello)?, *ends).await);
                if *ends != Resets {
                    drop(send.stopped().await);
                }
                self.outcome(meeting, expected).await
            }
            Deed::TakeBack(text, times) => {
                let meeting = self.meet(&member).await?;
                for _ in 0..*times {
                    let (mut send, mut recv) = meeting.connection.open_bi().await?;
                    say(&mut send, &bytes_of(text, &hello)?, Resets).await?;
                    recv.stop(1u8.into())?;
                }
                self.outcome(meeting, expected).await
            }
        }
    }

    /// With what code the connection ended, if it should; otherwise whether it still answers on the stream of frames, which is in
    /// order, and serves parts. What another stream brought has no order with these: twenty answers leave it time to be judged.
    async fn outcome(&self, meeting: Meeting, expected: Answer) -> anyhow::Result<Answer> {
        let Meeting { connection, mut send, mut recv } = meeting;
        if let Closes(_) = expected {
            return code(&connection.closed().await);
        }
        let serves = async {
            send.write_all(ASK_PROOF).await?;
            while frame(&mut recv).await? != PROOFS {}
            for _ in 0..20 {
                self.fetch(&connection).await?;
            }
            anyhow::Ok(GoesOn)
        };
        match serves.await {
            Ok(answer) => Ok(answer),
            Err(error) => match connection.close_reason() {
                Some(reason) => code(&reason),
                None => Err(error),
            },
        }
    }
}

/// Reads one frame; its type.
async fn frame(recv: &mut quinn::RecvStream) -> anyhow::Result<u8> {
    let mut head = [0; 5];
    recv.read_exact(&mut head).await?;
    let mut body = vec![0; u32::from_le_bytes(head[..4].try_into()?) as usize - 1];
    recv.read_exact(&mut body).await?;
    Ok(head[4])
}

async fn say(send: &mut quinn::SendStream, bytes: &[u8], ends: Ends) -> anyhow::Result<()> {
    send.write_all(bytes).await?;
    match ends {
        Not => {}
        Finishes => send.finish()?,
        Resets => send.reset(1u8.into())?,
    }
    Ok(())
}

fn code(error: &quinn::ConnectionError) -> anyhow::Result<Answer> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Ok(Closes(close.error_code.into_inner().try_into()?)),
        other => bail!("the connection ended with {other:?}"),
    }
}

#[test]
fn whatever_a_peer_says_the_answer_is_the_one_of_the_table() {
    let bytes = content(LEN, 21);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let served = folder.path().join("served");
    std::fs::create_dir(&served).expect("an empty folder");
    std::fs::write(served.join("file.bin"), &bytes).expect("room for a file");
    let server = ServerProcess::start(&served, &["--direct-clients", "1"]);
    let url = server.url("file.bin");
    let mut peer = PeerProcess::start("peer", &url, folder.path(), &["--stay", "forever", "--listen", "127.0.0.1:0"]);
    let start = peer.wait_for("start");
    peer.wait_for("complete");
    let port = start["udp_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wrong = runtime.block_on(async {
        let (client, path) =
            ServerClient::discover(&url, &TlsTrust::Platform, ClientConfig::default()).await.expect("it is there");
        let manifest = client.manifest(&path).await.expect("a manifest");
        let manifest = SignedManifest::decode(&manifest, &Trust::FirstUse).expect("a manifest");
        let content = manifest.manifest().content();
        let scene = Scene { client, content, parts: bytes, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let mut wrong = Vec::new();
        // `HYBRID_ROW` chooses rows by a piece of their names.
        let chosen = std::env::var("HYBRID_ROW").unwrap_or_default();
        for (what, deed, expected) in TABLE.iter().filter(|(what, ..)| what.contains(&chosen)) {
            let answer = timeout(PATIENCE, scene.play(deed, *expected)).await;
            let answer = answer.map_or_else(
                |_| "nothing".to_owned(),
                |answer| match answer {
                    Ok(answer) if answer == *expected => String::new(),
                    Ok(answer) => format!("{answer:?}"),
                    Err(error) => format!("{error:#}"),
                },
            );
            if !answer.is_empty() {
                wrong.push(format!("{what}: expected {expected:?}, got {answer}"));
            }
            // Others are served as before.
            let honest = scene.member().await.expect("a ticket");
            let served = async {
                let meeting = scene.meet(&honest).await?;
                scene.fetch(&meeting.connection).await
            };
            let served = timeout(DEADLINE, served).await.unwrap_or_else(|_| bail!("in vain"));
            served.unwrap_or_else(|error| panic!("after {what}, an honest peer: {error:#}; {}", peer.said()));
        }
        wrong
    });
    assert!(!peer.has_ended(), "{}", peer.said());
    assert!(wrong.is_empty(), "{} of {}:\n{}\n{}", wrong.len(), TABLE.len(), wrong.join("\n"), peer.said());
}
