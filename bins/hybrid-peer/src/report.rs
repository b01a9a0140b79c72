//! How a download is told: a bar on a terminal, lines without one, JSON for programs.

use crate::failure::Failure;
use crate::print_line;
use hybrid_manifest::Manifest;
use hybrid_peer::{DownloadEvent, Mode, PeerId, Progress, Source, UploadsOff};
use hybrid_units::{ByteCount, BytesPerSecond};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where events go.
#[derive(Debug)]
pub(crate) struct Report {
    voice: Voice,
    began: Instant,
    /// The last few points of the way, for the speed of now.
    recent: Vec<(Instant, u64)>,
    last_line: Option<Instant>,
}

#[derive(Debug)]
enum Voice {
    Json,
    Bar(ProgressBar),
    Lines,
}

/// Speed is the mean over so long.
const SPEED_WINDOW: Duration = Duration::from_secs(3);
/// Without a terminal, a line of progress comes so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Report {
    pub(crate) fn new(json: bool, manifest: &Manifest) -> Self {
        let voice = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Voice::Json,
            (false, true) => Voice::Bar(bar(manifest.layout().total_len())),
            (false, false) => Voice::Lines,
        };
        Self { voice, began: Instant::now(), recent: Vec::new(), last_line: None }
    }

    /// Something that is worth a line to people and an object to programs.
    fn say(&self, event: &str, fields: Value, line: impl FnOnce() -> String) -> Result<(), Failure> {
        match &self.voice {
            Voice::Json => print_line(&object(event, fields).to_string()),
            Voice::Bar(bar) => {
                bar.suspend(|| to_people(&line()));
                Ok(())
            }
            Voice::Lines => {
                to_people(&line());
                Ok(())
            }
        }
    }

    pub(crate) fn started(
        &self,
        manifest: &Manifest,
        peer: PeerId,
        recovered_parts: u32,
        listen: Option<u16>,
    ) -> Result<(), Failure> {
        let layout = manifest.layout();
        let fields = json!({
            "content": manifest.content().to_string(), "name": manifest.name(), "total_bytes": layout.total_len(),
            "parts_total": layout.part_count(), "part_bytes": layout.part_len().as_u32(),
            "peer": peer.to_string(), "recovered_parts": recovered_parts, "udp_port": listen,
        });
        self.say("start", fields, || {
            let kept = if recovered_parts > 0 { format!(", {recovered_parts} in the cache") } else { String::new() };
            let length = ByteCount::new(layout.total_len());
            let parts = if layout.part_count() == 1 { "part" } else { "parts" };
            format!("{}: {length} in {} {parts}{kept}", manifest.name(), layout.part_count())
        })
    }

    pub(crate) fn without_server(&self, why: &str) -> Result<(), Failure> {
        self.say("server-away", json!({ "why": why, "retry_in_seconds": null }), || {
            format!("the server is away ({why}); going on with what the cache and peers have")
        })
    }

    pub(crate) fn event(&mut self, event: &DownloadEvent) -> Result<(), Failure> {
        match event {
            DownloadEvent::Progress(progress) => self.progress(progress),
            DownloadEvent::Mode { mode, reasons } => {
                let fields = json!({ "mode": mode.as_str(), "reasons": reasons });
                self.say("mode", fields, || {
                    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
                    format!("mode: {}{why}", in_words(*mode))
                })
            }
            DownloadEvent::Part { number, source, peer, holders } => self.only_json(
                "part",
                json!({
                    "part": number.as_u32(), "source": source.as_str(), "peer": peer.map(|peer| peer.to_string()),
                    "holders": holders, "why": why(*source, *holders),
                }),
            ),
            DownloadEvent::PeerJoined { peer } => {
                self.only_json("peer", json!({ "peer": peer.to_string(), "change": "joined" }))
            }
            DownloadEvent::PeerLeft { peer, code } => self
                .only_json("peer", json!({ "peer": peer.to_string(), "change": "left", "why": format!("{code:?}") })),
            DownloadEvent::PeerBanned { peer, number } => {
                self.say("banned", json!({ "peer": peer.to_string(), "part": number.as_u32() }), || {
                    format!("peer {peer} sent wrong bytes for part {number}; they were thrown away, and it is banned")
                })
            }
            DownloadEvent::AddressRefused { peer, refused } => {
                let fields = json!({ "peer": peer.to_string(), "why": refused.to_string() });
                self.say("address-refused", fields, || format!("peer {peer}: {refused}"))
            }
            DownloadEvent::ServerAway { reason, retry_in } => {
                let secs = retry_in.map(|retry_in| retry_in.as_secs_f64());
                self.say("server-away", json!({ "why": reason, "retry_in_seconds": secs }), || {
                    let retry = secs.map_or(String::new(), |secs| format!("; trying again in {secs:.0} s"));
                    format!("the server is away: {reason}{retry}")
                })
            }
            DownloadEvent::ServerReached => self.only_json("server-reached", json!({})),
            DownloadEvent::ServerBye(bye) => {
                let fields = json!({ "code": format!("{:?}", bye.code), "why": bye.reason });
                self.say("server-bye", fields, || format!("the server says good-bye: {:?} {}", bye.code, bye.reason))
            }
            DownloadEvent::ServerPartBad { number } => {
                self.say("server-part-bad", json!({ "part": number.as_u32() }), || {
                    format!("the server sent wrong bytes for part {number}; they were thrown away")
                })
            }
            DownloadEvent::ServerHashesBad => self.say("server-hashes-bad", json!({}), || {
                "the server sent part ids that do not fit its manifest; they were thrown away".to_owned()
            }),
            DownloadEvent::ClockDiffers { ours_secs, server_secs } => {
                self.say("clock", json!({ "ours_seconds": ours_secs, "server_seconds": server_secs }), || {
                    let (ours, server) = (utc(*ours_secs), utc(*server_secs));
                    format!("this computer's clock says {ours}, the server's {server}: the server's is used")
                })
            }
            DownloadEvent::StoreFull { folder, needed, reason } => {
                let fields = json!({
                    "folder": folder.to_string_lossy(), "needed_bytes": needed.as_u64(), "why": reason,
                });
                self.say("store-full", fields, || {
                    let folder = folder.display();
                    format!("paused: no room for {needed} more in {folder} ({reason}); goes on by itself when there is")
                })
            }
            DownloadEvent::StoreReady => {
                self.say("store-ready", json!({}), || "going on: there is room on the disk again".to_owned())
            }
            // Told when the file is written, too.
            DownloadEvent::Complete(progress) => self.progress(progress),
            _ => Ok(()),
        }
    }

    fn only_json(&self, event: &str, fields: Value) -> Result<(), Failure> {
        match self.voice {
            Voice::Json => print_line(&object(event, fields).to_string()),
            Voice::Bar(_) | Voice::Lines => Ok(()),
        }
    }

    fn progress(&mut self, progress: &Progress) -> Result<(), Failure> {
        let speed = self.speed(progress);
        match &self.voice {
            Voice::Json => {
                let mut fields = figures(progress);
                fields.insert("rate_bytes_per_second".to_owned(), json!(speed.as_u64()));
                print_line(&object("progress", Value::Object(fields)).to_string())
            }
            Voice::Bar(bar) => {
                bar.set_position(progress.held().as_u64());
                bar.set_message(way(progress, speed));
                Ok(())
            }
            Voice::Lines => {
                if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    self.last_line = Some(Instant::now());
                    to_people(&format!("{} of {}, {}", progress.held(), progress.total, way(progress, speed)));
                }
                Ok(())
            }
        }
    }

    /// The rate at which bytes came in the last seconds; what was in the cache before did not come.
    fn speed(&mut self, progress: &Progress) -> BytesPerSecond {
        let now = Instant::now();
        let fetched = progress.held().as_u64() - progress.from(Source::Store).as_u64();
        self.recent.push((now, fetched));
        self.recent.retain(|(at, _)| now.duration_since(*at) <= SPEED_WINDOW);
        match self.recent.first() {
            Some((at, before)) => BytesPerSecond::mean(fetched.saturating_sub(*before), now.duration_since(*at)),
            None => BytesPerSecond::default(),
        }
    }

    pub(crate) fn complete(&self, output: &Path, progress: &Progress) -> Result<(), Failure> {
        let mut fields = figures(progress);
        fields.insert("output".to_owned(), json!(output.to_string_lossy()));
        fields.insert("seconds".to_owned(), json!(self.began.elapsed().as_secs_f64()));
        if let Voice::Bar(bar) = &self.voice {
            bar.finish_and_clear();
        }
        self.say("complete", Value::Object(fields), || format!("{}: complete, every byte verified", output.display()))
    }

    /// The last words: where each byte came from.
    pub(crate) fn summary(
        &self,
        progress: &Progress,
        complete: bool,
        finished: Option<Duration>,
    ) -> Result<(), Failure> {
        let seconds = finished.unwrap_or_else(|| self.began.elapsed()).as_secs_f64();
        let mut fields = figures(progress);
        let mode = progress.mode_at_join.map(Mode::as_str);
        fields.insert("complete".to_owned(), json!(complete));
        fields.insert("mode_at_join".to_owned(), json!(mode));
        fields.insert("seconds".to_owned(), json!(seconds));
        fields.insert("start_up_seconds".to_owned(), json!(progress.start_up.map(|time| time.as_secs_f64())));
        fields.insert("peers_used".to_owned(), json!(progress.peers_used));
        fields.insert("peer_share".to_owned(), json!(progress.peer_share()));
        if let Voice::Bar(bar) = &self.voice {
            bar.finish_and_clear();
        }
        self.say("summary", Value::Object(fields), || {
            let sources = Source::ALL.into_iter().filter(|source| progress.from(*source).as_u64() > 0);
            let sources: Vec<String> =
                sources.map(|source| format!("{} {}", progress.from(source), source_in_words(source))).collect();
            let from = if sources.is_empty() { "nothing".to_owned() } else { sources.join(", ") };
            format!("{from}; {}; {seconds:.1} s", given(progress))
        })
    }

    pub(crate) fn started_at(&self) -> Instant {
        self.began
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{percent:>3}% {bar:25} {bytes}/{total_bytes}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
}

#[allow(clippy::print_stderr, reason = "this is the program's voice")]
fn to_people(line: &str) {
    let plain: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    eprintln!("{plain}");
}

/// Civil time as people write it, of seconds since 1970. A server may say any number.
fn utc(secs: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut days, second) = (secs / 86_400, secs % 86_400);
    // The calendar repeats itself every 400 years, so the loop below is a short one.
    let mut year = 1970 + 400 * (days / 146_097);
    days %= 146_097;
    while let Some(rest) = days.checked_sub(if leap(year) { 366 } else { 365 }) {
        (days, year) = (rest, year + 1);
    }
    let mut month = 1;
    for length in [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        let Some(rest) = days.checked_sub(length) else { break };
        (days, month) = (rest, month + 1);
    }
    let (day, hour, minute) = (days + 1, second / 3_600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

fn object(event: &str, fields: Value) -> Value {
    let mut object = Map::from_iter([("event".to_owned(), json!(event))]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

/// The figures that progress and summary share; each byte held is under exactly one source.
fn figures(progress: &Progress) -> Map<String, Value> {
    let bytes = Source::ALL.map(|source| (source.as_str().to_owned(), json!(progress.from(source).as_u64())));
    let fields = json!({
        "held_bytes": progress.held().as_u64(),
        "total_bytes": progress.total.as_u64(),
        "parts_held": progress.parts_held,
        "parts_total": progress.parts_total,
        "bytes": Map::from_iter(bytes),
        "sent_bytes": progress.sent.as_u64(),
        "uploads": {
            "sent": progress.sent.as_u64(),
            "limit": progress.upload_max.map(ByteCount::as_u64),
            "off": progress.uploads_off.map(UploadsOff::as_str),
        },
        "wasted_bytes": progress.wasted.as_u64(),
        "mode": progress.mode.map(Mode::as_str),
        "peers": progress.peers,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn way(progress: &Progress, speed: BytesPerSecond) -> String {
    let mode = progress.mode.map_or("joining", in_words);
    let share = 100.0 * progress.peer_share();
    format!("{speed}, {mode}, {} peers, {share:.0}% from peers, {}", progress.peers, given(progress))
}

/// What was sent to peers, of how much, and why nothing is sent now.
fn given(progress: &Progress) -> String {
    let of = progress.upload_max.map_or(String::new(), |max| format!(" of {max}"));
    let off = progress.uploads_off.map_or("", |off| match off {
        UploadsOff::NoUpload => " (off: --no-upload)",
        UploadsOff::Volume => " (off: no other part fits the volume)",
        UploadsOff::Ratio => " (off: no other part fits the ratio)",
        UploadsOff::Hours => " (off: not at this hour)",
        UploadsOff::Metered => " (off: metered)",
        UploadsOff::Server => " (off: the uplink is too slow for parts in time)",
    });
    format!("{}{of} given to peers{off}", progress.sent)
}

/// Why a part came from where it came.
fn why(source: Source, holders: u32) -> String {
    let peers = match holders {
        0 => "no connected peer has it".to_owned(),
        1 => "one connected peer has it".to_owned(),
        more => format!("{more} connected peers have it"),
    };
    match source {
        Source::ServerDirect => "the server serves this client directly".to_owned(),
        Source::ServerGrant => "the server gave it to this client to spread".to_owned(),
        Source::ServerRescue if holders == 0 => peers,
        Source::ServerRescue => format!("{peers}, but nothing came from them for a while"),
        Source::Peer => peers,
        Source::Store => "it was in the cache".to_owned(),
        // A source that is newer than this text says enough by its name.
        other => other.as_str().to_owned(),
    }
}

fn in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::ClientServer => "from the server",
        Mode::PeerToPeer => "from peers",
    }
}

fn source_in_words(source: Source) -> &'static str {
    match source {
        Source::ServerDirect => "from the server",
        Source::ServerGrant => "from the server as rare parts",
        Source::ServerRescue => "from the server as help",
        Source::Peer => "from peers",
        Source::Store => "from the cache",
        _ => "from elsewhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_of_how_much_and_why_no_more() {
        let mut progress = Progress::default();
        assert_eq!(given(&progress), "0 B given to peers");
        progress.sent = ByteCount::new(1_500_000);
        progress.upload_max = Some(ByteCount::new(2_000_000));
        assert_eq!(given(&progress), "1.5 MB of 2.0 MB given to peers");
        progress.uploads_off = Some(UploadsOff::Volume);
        assert_eq!(given(&progress), "1.5 MB of 2.0 MB given to peers (off: no other part fits the volume)");
        let uploads = |progress: &Progress| figures(progress)["uploads"].to_string();
        assert_eq!(uploads(&progress), r#"{"limit":2000000,"off":"volume","sent":1500000}"#);
        (progress.upload_max, progress.uploads_off) = (None, None);
        assert_eq!(uploads(&progress), r#"{"limit":null,"off":null,"sent":1500000}"#);
    }

    #[test]
    fn civil_times() {
        // As `date -u -d @SECONDS +%FT%TZ` prints them.
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_348_800, "2026-11-22T12:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (12_622_780_800, "2370-01-01T00:00:00Z"),
            (67_767_976_233_446_399, "2147483647-12-30T23:59:59Z"),
        ] {
            assert_eq!(utc(secs), text, "{secs}");
        }
        assert!(utc(u64::MAX).ends_with('Z'));
    }
}
