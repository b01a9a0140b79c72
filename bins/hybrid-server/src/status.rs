//! What a running server tells of itself to programs of the same user, over a socket in its state folder.
//!
//! One question and one answer a connection, each a line of JSON. Nothing here can change anything.

use hybrid_origin::{ClientStatus, ContentId, ContentPath, ContentStatus, Event, Origin, PeerId, Recorded};
use hybrid_units::Instant;
use serde_json::{Map, Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// The longest question: a path and some words.
const QUESTION_BYTES: u64 = 16 << 10;

/// Who asks waits for nobody, so both question and answer are there soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions answered at one time: each is looked up under the lock that all clients share.
const AT_ONCE: usize = 4;

/// The socket in a state folder.
pub(crate) fn socket(state: &Path) -> PathBuf {
    state.join("status.sock")
}

/// Opens the socket, in place of one that a server before left behind.
pub(crate) fn listen(state: &Path) -> io::Result<UnixListener> {
    let path = socket(state);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server with this state folder answers already"));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(&path)
}

/// Answers until it is dropped.
pub(crate) async fn answer_all(listener: UnixListener, origin: Origin) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others need them more.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let origin = origin.clone();
        tokio::spawn(async move {
            // Who does not ask in time is not told that, it knows.
            drop(tokio::time::timeout(PATIENCE, answer(stream, &origin)).await);
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, origin: &Origin) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut question = String::new();
    BufReader::new(read.take(QUESTION_BYTES)).read_line(&mut question).await?;
    let answer = match serde_json::from_str(&question) {
        Ok(question) => tell(origin, &question),
        Err(error) => json!({ "error": format!("the question is no JSON: {error}") }),
    };
    write.write_all(format!("{answer}\n").as_bytes()).await
}

fn tell(origin: &Origin, question: &Value) -> Value {
    match (question["content"].as_str(), question["client"].as_str()) {
        (Some(name), _) => match find(origin, name) {
            Some((path, content)) => match origin.status(content) {
                Some(status) => of_content(origin, &path, content, status),
                None => json!({ "error": format!("'{name}' is no longer served") }),
            },
            None => json!({ "error": format!("no content '{name}' is prepared here") }),
        },
        (None, Some(client)) => of_client(origin, client),
        (None, None) => {
            let contents = origin.contents().into_iter().filter_map(|(path, content)| {
                let stats = origin.stats(content)?;
                Some(json!({
                    "path": path.to_string(), "content": content.to_string(), "direct_clients": stats.direct_clients,
                    "swarm_clients": stats.swarm_clients, "complete_clients": stats.complete_clients,
                }))
            });
            json!({ "contents": contents.collect::<Vec<_>>(), "sent_bytes": origin.sent_bytes() })
        }
    }
}

/// By path or by id.
fn find(origin: &Origin, name: &str) -> Option<(ContentPath, ContentId)> {
    let contents = origin.contents();
    let path = name.trim_start_matches('/');
    contents.into_iter().find(|(known, content)| known.to_string() == path || content.to_string() == name)
}

fn of_content(origin: &Origin, path: &ContentPath, content: ContentId, status: ContentStatus) -> Value {
    let ContentStatus { class, stats, thresholds, meters, comparison, survival, decisions, events, .. } = status;
    let meters = meters.into_iter().map(|(meter, summary)| {
        let values = json!({
            "count": summary.count, "low": summary.low, "median": summary.median, "high": summary.high, "last": summary.last,
        });
        (meter.as_str().to_owned(), values)
    });
    let received = stats.received.iter().map(|(source, bytes)| (source.as_str().to_owned(), json!(bytes.as_u64())));
    let mut story: Vec<(Instant, Value)> = decisions
        .iter()
        .map(|event| (event.at, json!({ "text": event.decision.to_string() })))
        .chain(events.iter().map(|recorded| (recorded.at, of_event(recorded))))
        .collect();
    story.sort_by_key(|(at, _)| *at);
    let rate = |rate: Option<hybrid_units::BytesPerSecond>| rate.map(hybrid_units::BytesPerSecond::as_u64);
    json!({
        "content": content.to_string(),
        "path": path.to_string(),
        "class": class,
        "direct_clients": stats.direct_clients,
        "swarm_clients": stats.swarm_clients,
        "complete_clients": stats.complete_clients,
        "parts_without_holder": stats.parts_without_holder,
        "expected_lost_parts": { "one_in_ten_leaves": survival.lost_of_tenth, "one_in_five_leaves": survival.lost_of_fifth },
        "may_stop": survival.may_stop(),
        "received_bytes": received.collect::<Map<_, _>>(),
        "thresholds": {
            "direct_clients": thresholds.direct_clients,
            "egress_bytes_per_second": rate(thresholds.egress),
            "cpu": thresholds.cpu,
            "capacity_bytes_per_second": rate(thresholds.capacity),
            "per_connection_bytes_per_second": rate(thresholds.per_connection),
            "rescue_bytes_per_second": rate(thresholds.rescue),
        },
        "meters": meters.collect::<Map<_, _>>(),
        "comparison": comparison.map(|comparison| comparison.to_string()),
        "events": with_times(origin, story),
    })
}

fn of_client(origin: &Origin, client: &str) -> Value {
    let wanted = client.to_ascii_lowercase();
    let (events, now) = origin.clients(|peer: PeerId| peer.to_string().starts_with(&wanted));
    if wanted.is_empty() || events.is_empty() && now.is_empty() {
        return json!({ "error": format!("nothing is known of a client '{client}'") });
    }
    let states = now.iter().map(|status| of_state(origin, status));
    let story = events.iter().map(|recorded| (recorded.at, of_event(recorded))).collect();
    json!({ "client": wanted, "now": states.collect::<Vec<_>>(), "events": with_times(origin, story) })
}

fn of_state(origin: &Origin, status: &ClientStatus) -> Value {
    json!({
        "content": status.content.to_string(),
        "mode": status.mode.as_str(),
        "parts_held": status.parts_held,
        "parts_total": status.parts_total,
        "rate_bytes_per_second": status.rate.as_u64(),
        "uplink_bytes_per_second": status.uplink.as_u64(),
        "receivers_max": status.receivers_max,
        "reachable": status.reachable,
        "control_group": status.control,
        "joined_unix_ms": unix_millis(origin.civil_time(status.joined_at)),
        "reported_unix_ms": unix_millis(origin.civil_time(status.reported_at)),
    })
}

fn of_event(recorded: &Recorded) -> Value {
    let text = match &recorded.event {
        Event::Admitted { verdict, .. } => {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            format!("joins, {}: {} ({})", verdict.mode, reasons.join("; "), verdict.evidence)
        }
        Event::ModeChanged { mode, reasons, .. } => format!("now {mode}: {}", reasons.join("; ")),
        Event::Completed { .. } => "has the whole content".to_owned(),
        Event::Left { complete: true, .. } => "leaves with the whole content".to_owned(),
        Event::Left { complete: false, .. } => "leaves before its end".to_owned(),
        Event::Misbehaved { what, .. } => format!("is let go: {what}"),
        other => format!("{other:?}"),
    };
    json!({ "client": recorded.peer.to_string(), "content": recorded.content.to_string(), "text": text })
}

fn with_times(origin: &Origin, story: Vec<(Instant, Value)>) -> Vec<Value> {
    let with_time = |(at, mut event): (Instant, Value)| {
        event["unix_ms"] = json!(unix_millis(origin.civil_time(at)));
        event
    };
    story.into_iter().map(with_time).collect()
}

/// Milliseconds since 1970.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
