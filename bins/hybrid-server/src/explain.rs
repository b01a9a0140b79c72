//! `hybrid-server explain`: asks a running server why it does what it does.

use crate::args::Explain;
use crate::failure::Failure;
use crate::print_line;
use crate::settings::default_state;
use crate::status::{socket, unix_millis};
use hybrid_units::{ByteCount, BytesPerSecond};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The longest answer that is read: some thousand events.
const ANSWER_BYTES: u64 = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Explain) -> Result<(), Failure> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let path = socket(&state);
    let answer = ask(&path, &json!({ "content": args.content, "client": args.client })).map_err(|error| {
        let failure = Failure::network(format!("no server answers at {}: {error}", path.display()));
        failure.hint("start one with `hybrid-server serve`; --state DIR names its state folder, if it has another one")
    })?;
    if args.json {
        return print_line(&answer.to_string());
    }
    if let Some(error) = answer["error"].as_str() {
        return Err(Failure::file(error).hint("`hybrid-server explain` without a name lists what is served"));
    }
    lines(&answer, unix_millis(SystemTime::now())).iter().try_for_each(|line| print_line(line))
}

fn ask(path: &std::path::Path, question: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut answer)?;
    serde_json::from_str(&answer).map_err(io::Error::other)
}

/// The answer for people, a line for each thing; `now` in milliseconds since 1970.
fn lines(answer: &Value, now: u64) -> Vec<String> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rate = |value: &Value| value.as_u64().map_or("-".to_owned(), |rate| BytesPerSecond::new(rate).to_string());
    let counts = |value: &Value| {
        let [direct, swarm, complete] =
            ["direct_clients", "swarm_clients", "complete_clients"].map(|key| number(&value[key]));
        format!("{direct} direct, {swarm} in the swarm, {complete} of them complete")
    };
    let mut lines = Vec::new();
    if let Some(contents) = answer["contents"].as_array() {
        lines.extend(contents.iter().map(|content| format!("{}: {}", text(&content["path"]), counts(content))));
        lines.push(format!("sent in all: {}", ByteCount::new(number(&answer["sent_bytes"]))));
        return lines;
    }
    if answer["content"].is_string() {
        let limits = &answer["thresholds"];
        lines.push(format!("{}  {}", text(&answer["content"]), text(&answer["path"])));
        lines.push(format!("class {}: {}", text(&answer["class"]), counts(answer)));
        lines.push(format!("parts that no client holds: {}", number(&answer["parts_without_holder"])));
        let lost = |key: &str| answer["expected_lost_parts"][key].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "server may stop: {}; expected to be lost: {:.3} parts if one client in ten leaves, {:.3} if one in five",
            if answer["may_stop"] == true { "yes" } else { "no" },
            lost("one_in_ten_leaves"),
            lost("one_in_five_leaves"),
        ));
        lines.push(format!(
            "allowed: {} direct clients, egress {}, cpu {:.0} %; known capacity {}, at most {} a connection",
            number(&limits["direct_clients"]),
            rate(&limits["egress_bytes_per_second"]),
            limits["cpu"].as_f64().unwrap_or(0.0) * 100.0,
            rate(&limits["capacity_bytes_per_second"]),
            rate(&limits["per_connection_bytes_per_second"]),
        ));
        let meters = answer["meters"].as_object().into_iter().flatten();
        lines.extend(meters.map(|(name, values)| {
            let value = |key: &str| values[key].as_f64().unwrap_or(0.0);
            format!("  {name}: median {:.3}, last {:.3}", value("median"), value("last"))
        }));
        lines.extend(answer["comparison"].as_str().map(str::to_owned));
    }
    lines.extend(answer["now"].as_array().into_iter().flatten().map(|state| {
        let [held, total] = ["parts_held", "parts_total"].map(|key| number(&state[key]));
        let rates = ["rate_bytes_per_second", "uplink_bytes_per_second"].map(|key| rate(&state[key]));
        format!(
            "at {}: {}, {held} of {total} parts, gets {}, uplink {}, serves {} at a time{}",
            text(&state["content"]),
            text(&state["mode"]),
            rates[0],
            rates[1],
            number(&state["receivers_max"]),
            if state["control_group"] == true { ", control group" } else { "" },
        )
    }));
    lines.extend(answer["events"].as_array().into_iter().flatten().map(|event| {
        let ago = Duration::from_millis(now.saturating_sub(number(&event["unix_ms"])));
        let who = event["client"].as_str().map(|client| format!("{client} ")).unwrap_or_default();
        format!("{:>9.1} s ago  {who}{}", ago.as_secs_f64(), text(&event["text"]))
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_for_people() {
        let answer = json!({
            "content": "ab", "path": "film.mp4", "class": "vod", "direct_clients": 1, "swarm_clients": 2,
            "complete_clients": 0, "parts_without_holder": 3, "comparison": null,
            "expected_lost_parts": { "one_in_ten_leaves": 3.0, "one_in_five_leaves": 3.25 }, "may_stop": false,
            "thresholds": { "direct_clients": 4, "cpu": 0.85, "capacity_bytes_per_second": 1_000_000 },
            "meters": { "cpu": { "median": 0.5, "last": 0.25 } },
            "events": [{ "unix_ms": 500, "client": "cd", "text": "joins" }, { "unix_ms": 900, "text": "changes" }],
        });
        assert_eq!(
            lines(&answer, 1_000),
            [
                "ab  film.mp4",
                "class vod: 1 direct, 2 in the swarm, 0 of them complete",
                "parts that no client holds: 3",
                "server may stop: no; expected to be lost: 3.000 parts if one client in ten leaves, 3.250 if one in five",
                "allowed: 4 direct clients, egress -, cpu 85 %; known capacity 8.0 Mbit/s, at most - a connection",
                "  cpu: median 0.500, last 0.250",
                "      0.5 s ago  cd joins",
                "      0.1 s ago  changes",
            ]
        );
    }
}
