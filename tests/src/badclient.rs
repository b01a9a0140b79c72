//! Clients that hold a connection and give nothing for it: silent ones, slow ones, and ones that do not read.

use anyhow::ensure;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How a client holds its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a test names what it needs")]
pub enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Begins a TLS handshake and does not go on; for a server with TLS.
    HalfHandshake,
    /// Sends a byte of its headers at a time.
    DripHeaders,
    /// Sends all headers but their end.
    HalfHeaders,
    /// Has one answer and keeps the connection.
    Idle,
    /// Asks for much and reads nothing.
    NeverReads,
    /// Asks for much and reads a byte at a time.
    DripReads,
    /// Opens a control channel and says nothing on it.
    SilentChannel,
}

/// All kinds.
pub const KINDS: [Kind; 8] = [
    Kind::Silent,
    Kind::HalfHandshake,
    Kind::DripHeaders,
    Kind::HalfHeaders,
    Kind::Idle,
    Kind::NeverReads,
    Kind::DripReads,
    Kind::SilentChannel,
];

/// Between two bytes of a client that drips: well below any time limit, so that progress in bytes must not count.
const DRIP: Duration = Duration::from_secs(1);

/// The source address of one of many clients: an address of loopback for each fifty, since a server limits each.
pub fn source(number: usize) -> IpAddr {
    let address = u32::try_from(number / 50).expect("no test has so many clients");
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + address).into()
}

/// A connection that is held.
#[derive(Debug)]
pub struct Held {
    kind: Kind,
    stream: TcpStream,
}

impl Held {
    /// Connects, and does what comes before the holding. `path` is a file that no socket's buffers can take.
    ///
    /// # Errors
    /// When the server does not let it do that much.
    pub async fn open(kind: Kind, server: SocketAddr, source: IpAddr, path: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // What the server can send ahead is little then.
        socket.set_recv_buffer_size(4 << 10)?;
        socket.bind(SocketAddr::new(source, 0))?;
        let mut stream = socket.connect(server).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n");
        match kind {
            Kind::Silent | Kind::DripHeaders => {}
            // A handshake record of 512 bytes (RFC 8446 section 5.1), of which the rest never comes.
            Kind::HalfHandshake => stream.write_all(&[22, 3, 1, 2, 0, 1]).await?,
            Kind::HalfHeaders => stream.write_all(head.as_bytes()).await?,
            Kind::NeverReads | Kind::DripReads => stream.write_all(format!("{head}\r\n").as_bytes()).await?,
            Kind::Idle => {
                stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes()).await?;
                expect_status(&mut stream, "200").await?;
            }
            Kind::SilentChannel => {
                let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                let ask = format!("GET /hybrid/v1/control HTTP/1.1\r\nHost: {server}\r\n{upgrade}\r\n");
                stream.write_all(ask.as_bytes()).await?;
                expect_status(&mut stream, "101").await?;
            }
        }
        Ok(Self { kind, stream })
    }

    /// Holds the connection until the server has closed it, as far as this kind of client can see that; never ends for one
    /// that does not read.
    pub async fn hold(mut self) -> Kind {
        match self.kind {
            Kind::NeverReads => std::future::pending().await,
            Kind::DripHeaders => {
                while self.stream.write_all(b"G").await.is_ok() {
                    tokio::time::sleep(DRIP).await;
                }
            }
            Kind::DripReads => {
                while self.stream.read_u8().await.is_ok() {
                    tokio::time::sleep(DRIP).await;
                }
            }
            _ => {
                let mut bytes = [0; 256];
                while matches!(self.stream.read(&mut bytes).await, Ok(1..)) {}
            }
        }
        self.kind
    }
}

async fn expect_status(stream: &mut TcpStream, status: &str) -> anyhow::Result<()> {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    let line = String::from_utf8_lossy(&line);
    ensure!(line == format!("HTTP/1.1 {status}"), "the server answered '{line}'");
    Ok(())
}
