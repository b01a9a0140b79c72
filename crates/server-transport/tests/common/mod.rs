//! A site in memory, a server around it on a port of its own, and a plain HTTP client that says exactly what a test wants.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use hybrid_manifest::{ContentId, PartId, PartNumber, PartRange};
use hybrid_server_transport::{
    ContentInfo, ContentPath, ControlSocket, Document, ManifestForm, PartBytes, PartHead, PartVerdict, Sealer,
    SendError, ServeSummary, ServerConfig, Service, ServiceLimits, Site, SiteError, serve,
};
use hybrid_wire::SessionToken;
use hybrid_wire::control::{Bye, ByeCode, ClientMessage, PartPush, ServerMessage};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const PART_LEN: usize = 1_000;
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const GOOD_SESSION: [u8; 16] = [7; 16];
pub const BUSY_SESSION: [u8; 16] = [8; 16];
/// 1994-11-06T08:49:37Z, the example of RFC 9110.
pub const MODIFIED_SECS: u64 = 784_111_777;

pub fn id(number: u8) -> ContentId {
    ContentId::from_bytes([number; 32])
}

pub fn part_id(number: u32) -> PartId {
    PartId::from_bytes([u8::try_from(number % 256).unwrap(); 32])
}

/// Contents by path; their ids are those that [`id`] makes of their position.
pub struct TestSite {
    pub contents: BTreeMap<String, (ContentId, Bytes)>,
    pub sent: AtomicU64,
    pub paced: AtomicU64,
    /// Reads fail from this offset on.
    pub broken_from: Option<u64>,
    pub part_len: usize,
    /// Parts to send are sealed with it.
    pub sealer: Sealer,
    /// A report of this level is answered with pushes until the queue is full, and counted here.
    pub floods: AtomicU64,
}

pub const FLOOD_LEVEL: u32 = 999;
pub const UNWELCOME_LEVEL: u32 = 998;

impl TestSite {
    pub fn with(contents: &[(&str, usize)]) -> Self {
        let contents = contents.iter().zip(1u8..).map(|((path, length), number)| {
            let bytes: Vec<u8> =
                (0..*length).map(|index| u8::try_from((index * 7 + index / 256) % 251).unwrap()).collect();
            ((*path).to_owned(), (id(number), Bytes::from(bytes)))
        });
        Self {
            contents: contents.collect(),
            sent: AtomicU64::new(0),
            paced: AtomicU64::new(0),
            broken_from: None,
            part_len: PART_LEN,
            sealer: Sealer::default(),
            floods: AtomicU64::new(0),
        }
    }

    fn bytes(&self, content: ContentId) -> Result<Bytes, SiteError> {
        let found = self.contents.values().find(|(id, _)| *id == content);
        found.map(|(_, bytes)| bytes.clone()).ok_or(SiteError::NotFound)
    }
}

impl Site for TestSite {
    async fn resolve(&self, path: &ContentPath) -> Result<ContentInfo, SiteError> {
        if path.file_name() == "panic" {
            panic!("a site's bug, on purpose");
        }
        let (content, bytes) = self.contents.get(&path.to_string()).ok_or(SiteError::NotFound)?;
        Ok(ContentInfo {
            content: *content,
            length_bytes: bytes.len() as u64,
            media_type: "text/x-test".to_owned(),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED_SECS),
        })
    }

    async fn read(&self, content: ContentId, offset: u64, length_bytes: usize) -> Result<Bytes, SiteError> {
        if self.broken_from.is_some_and(|broken| offset >= broken) {
            return Err(SiteError::Changed);
        }
        let offset = usize::try_from(offset).unwrap();
        // Sometimes less than asked for, as the contract allows.
        let length = if offset == 0 { length_bytes.div_ceil(2) } else { length_bytes };
        Ok(self.bytes(content)?.slice(offset..offset + length))
    }

    async fn manifest(&self, path: &ContentPath, form: ManifestForm) -> Result<Document, SiteError> {
        let (content, _) = self.contents.get(&path.to_string()).ok_or(SiteError::NotFound)?;
        Ok(match form {
            ManifestForm::Binary => {
                Document { bytes: Bytes::from(format!("manifest of {content}")), tag: "b".to_owned() }
            }
            ManifestForm::Json => Document { bytes: Bytes::from("{}"), tag: "j".to_owned() },
        })
    }

    fn part_head(&self, content: ContentId, number: PartNumber) -> Result<PartHead, SiteError> {
        let length = self.bytes(content)?.len();
        let left = length.saturating_sub(number.as_index().saturating_mul(self.part_len));
        if left == 0 {
            return Err(SiteError::NoSuchPart { part_count: u32::try_from(length.div_ceil(self.part_len)).unwrap() });
        }
        Ok(PartHead { id: part_id(number.as_u32()), length_bytes: u32::try_from(left.min(self.part_len)).unwrap() })
    }

    fn authorize_part(&self, session: Option<SessionToken>, _: ContentId, _: PartNumber) -> PartVerdict {
        match session.map(|session| *session.as_bytes()) {
            Some(BUSY_SESSION) => PartVerdict::Wait {
                retry_after: Duration::from_millis(1_500),
                code: "E_NOT_GRANTED",
                reason: "peers have it".to_owned(),
            },
            None | Some(GOOD_SESSION) => PartVerdict::Serve,
            Some(_) => PartVerdict::UnknownSession,
        }
    }

    async fn part(&self, content: ContentId, number: PartNumber) -> Result<Bytes, SiteError> {
        let start = number.as_index() * self.part_len;
        let bytes = self.bytes(content)?;
        Ok(bytes.slice(start..bytes.len().min(start + self.part_len)))
    }

    async fn part_to_send(&self, content: ContentId, number: PartNumber) -> Result<PartBytes, SiteError> {
        let bytes = self.part(content, number).await?;
        Ok(self.sealer.seal(&bytes).map_or(PartBytes::Memory(bytes), PartBytes::Sealed))
    }

    fn hashes(&self, content: ContentId, parts: PartRange) -> Result<Bytes, SiteError> {
        self.part_head(content, PartNumber::new(parts.end().as_u32() - 1))?;
        Ok(parts.iter().flat_map(|number| *part_id(number.as_u32()).as_bytes()).collect::<Vec<_>>().into())
    }

    /// Answers a join with a push of part 0 of content 1, and a good-bye with one of its own.
    async fn control(&self, mut socket: ControlSocket) {
        let sender = socket.sender();
        while let Some(Ok(message)) = socket.recv().await {
            match message {
                ClientMessage::Join(join) => {
                    let bytes = self.part(join.content, PartNumber::new(0)).await.unwrap_or_default();
                    let push = ServerMessage::PartPush(PartPush { number: 0, bytes });
                    assert!(sender.send(&push).unwrap().await);
                }
                ClientMessage::Report(report) if report.level == FLOOD_LEVEL => {
                    let push = ServerMessage::PartPush(PartPush { number: 0, bytes: vec![0; 1 << 20].into() });
                    while sender.send(&push).is_ok() {}
                    assert!(matches!(sender.send(&push), Err(SendError::Full)));
                    self.floods.fetch_add(1, Ordering::Relaxed);
                    sender.cut();
                }
                ClientMessage::Report(report) if report.level == UNWELCOME_LEVEL => {
                    sender.close(Bye { code: ByeCode::TooFast, reason: String::new() });
                    return;
                }
                ClientMessage::Report(_) | ClientMessage::Vouch(_) | ClientMessage::Uploads(_) => {}
                ClientMessage::Bye(_) => {
                    let reason = socket.client().ip().to_string();
                    sender.close(Bye { code: ByeCode::Done, reason });
                }
            }
        }
    }

    async fn pace(&self, bytes: u64) {
        self.paced.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub site: Arc<TestSite>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<ServeSummary>>,
}

impl Server {
    pub fn start(site: TestSite) -> Self {
        Self::start_with(site, ServerConfig::default(), ServiceLimits::default())
    }

    pub fn start_with(site: TestSite, config: ServerConfig, limits: ServiceLimits) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let site = Arc::new(site);
        let service = Service::mounted(Arc::clone(&site), "", limits);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(vec![listener], service, config, async {
            drop(stopped.await);
        }));
        Self { address, site, stop, task }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request and reads the answer to its end.
    pub async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, request.starts_with("HEAD")).await
    }

    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(&request("GET", target, headers)).await
    }

    pub async fn stop(self) -> ServeSummary {
        assert!(self.stop.send(()).is_ok(), "the server has ended already");
        timeout(DEADLINE, self.task).await.expect("the server ends in time").unwrap().unwrap()
    }
}

pub fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

/// Reads one answer with a `Content-Length`. A connection that ends too soon leaves the body short.
pub async fn read_answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), head_only: bool) -> Answer {
    let read = async {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let count = stream.read_buf(&mut bytes).await.unwrap();
            assert!(count > 0, "the connection ended within the headers: {:?}", String::from_utf8_lossy(&bytes));
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let mut body = bytes[head_end + 4..].to_vec();
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        while !head_only && body.len() < length {
            match stream.read_buf(&mut body).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Answer { status, headers, body }
    };
    timeout(DEADLINE, read).await.expect("an answer comes in time")
}

/// Waits until the other side has closed the connection; says how long that took.
pub async fn closed(stream: &mut (impl AsyncRead + Unpin)) -> Duration {
    let start = std::time::Instant::now();
    let mut sink = vec![0; 64 << 10];
    let end = async { while matches!(stream.read(&mut sink).await, Ok(count) if count > 0) {} };
    timeout(DEADLINE, end).await.expect("the server closes the connection in time");
    start.elapsed()
}
