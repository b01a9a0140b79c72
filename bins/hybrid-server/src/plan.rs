//! `hybrid-server plan`: what an uplink and a crowd of viewers come to, before the event.

use crate::args::{Egress, Plan as Arguments};
use crate::failure::Failure;
use crate::print_line;
use hybrid_origin::EgressPolicy;
use hybrid_sim::{Answer, Bound, Deficit, Plan, PlanError, PlanRequest, ViewerArrivals};
use hybrid_units::{BytesPerSecond, Duration};
use serde_json::{Value, json};
use std::fmt::Write;

pub(crate) fn run(args: &Arguments) -> Result<(), Failure> {
    let answer = answer(args)?;
    if let Some(path) = &args.svg {
        let written = std::fs::write(path, answer.svg());
        written.map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
    }
    if args.json { print_line(&object(&answer).to_string()) } else { print_line(table(&answer).trim_end()) }
}

fn answer(args: &Arguments) -> Result<Answer, Failure> {
    let arrivals = match args.arrivals {
        Some(rate) => ViewerArrivals::PerSecond(rate.0),
        None => ViewerArrivals::Over(args.over),
    };
    let request = PlanRequest {
        uplink: args.uplink,
        viewers: args.viewers,
        bitrate: args.bitrate,
        peer_up: args.peer_up,
        peer_down: args.peer_down,
        stay: args.stay,
        arrivals,
        length: args.length,
        delay: args.delay,
        egress_policy: match args.egress_policy {
            Egress::Fast => EgressPolicy::Fast,
            Egress::Thrifty => EgressPolicy::Thrifty,
        },
        seed: args.seed,
        simulate: args.simulate,
    };
    Ok(Plan::new(request)?.run()?)
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let hint = match &error {
            PlanError::Viewers { .. } => "--viewers is the number of people who watch, such as 5000",
            PlanError::Zero { .. } => "write rates such as 100M (bits per second) or 2.5MB/s",
            PlanError::Downlink { .. } => "lower --bitrate, or raise --peer-down if viewers have faster links",
            PlanError::Length { .. } => "--length is how long the content plays, such as 10min or 2h",
            PlanError::Content { .. } => "a shorter --length, such as the first hour, tells as much",
            PlanError::Stay { .. } => "raise --stay: who goes sooner gives nothing after the end",
            PlanError::Arrivals { .. } => "--over 60s or --arrivals 10/s say when viewers come",
            PlanError::Simulated { .. } => "leave --simulate away, and the planner chooses",
            _ => "hybrid-server plan --help shows what there is",
        };
        Self::usage(error.to_string()).hint(hint)
    }
}

/// Bits per second, as people read them.
fn rate(bytes_per_second: f64) -> BytesPerSecond {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    BytesPerSecond::new(bytes_per_second.max(0.0).round() as u64)
}

fn percent(share: f64) -> String {
    // All but a little is not all.
    let share = 100.0 * share;
    if share > 99.9 && share < 100.0 { format!("{share:.2} %") } else { format!("{share:.1} %") }
}

fn time(time: Duration) -> String {
    let secs = time.as_secs_f64();
    match secs {
        _ if secs >= 120.0 => format!("{:.0} min", secs / 60.0),
        _ if secs >= 1.0 => format!("{secs:.0} s"),
        _ => format!("{:.0} ms", secs * 1e3),
    }
}

fn table(answer: &Answer) -> String {
    let (request, bound) = (&answer.plan.request, &answer.plan.bound);
    let come = match request.arrivals {
        ViewerArrivals::Over(span) => format!("coming over {}", time(span)),
        ViewerArrivals::PerSecond(rate) => format!("{rate} coming a second"),
    };
    let mut text = format!(
        "crowd      {} viewers of {} for {}, {come}\n\
         links      server {}, peers {} up and {} down, delay {}, peers stay for {}\n\
         simulated  {} of {} viewers, server {}, peers {} up, {} parts of {:.2} s, seed {}\n\n",
        request.viewers,
        request.bitrate,
        time(request.length),
        request.uplink,
        request.peer_up,
        request.peer_down,
        time(request.delay),
        time(request.stay),
        answer.simulated,
        request.viewers,
        answer.simulated_uplink,
        answer.simulated_peer_up,
        answer.parts,
        answer.part_secs,
        request.seed,
    );
    let secs = |secs: f64| format!("{secs:.1} s");
    let without = if bound.deficit.is_some() { " without stalls" } else { "" };
    let rows = [
        ("", "simulated".to_owned(), "fluid bound".to_owned()),
        ("bytes from peers", percent(answer.from_peers), format!("at most {}{without}", percent(bound.from_peers_max))),
        ("start-up, median", secs(answer.start_up.p50), format!("at least {}", secs(bound.start_up_min.as_secs_f64()))),
        ("start-up, 95 %", secs(answer.start_up.p95), String::new()),
        ("viewers that stall", percent(answer.stalled_viewers), String::new()),
        ("viewing time in stalls", percent(answer.stalled_time), format!("at least {}", percent(bound.stalled_min))),
        (
            "server sends, mean",
            rate(answer.server_rate_mean).to_string(),
            format!("at least {}{without}", rate(bound.server_rate_min)),
        ),
        ("server sends, peak", rate(answer.server_rate_peak).to_string(), String::new()),
        ("copies sent", format!("{:.1}", answer.server_copies), "at least 1".to_owned()),
    ];
    for (name, simulated, bound) in rows {
        let _ = writeln!(text, "{}", format!("{name:<24}{simulated:>14}   {bound}").trim_end());
    }
    if answer.never_started > 0.0 {
        let _ = writeln!(text, "\n{} of the viewers never saw a picture.", percent(answer.never_started));
    }
    if answer.cut_short {
        let _ = writeln!(text, "\nThe simulation was given up after {}: not all had seen the end.", time_of(answer));
    }
    text.push('\n');
    text.push_str(&verdict(answer));
    text
}

fn time_of(answer: &Answer) -> String {
    time(Duration::from_secs_f64(answer.end_secs))
}

/// Whether it can be carried, and what would be enough.
fn verdict(answer: &Answer) -> String {
    let Bound { watching, need, supply, deficit, .. } = &answer.plan.bound;
    let sum = format!(
        "{watching:.0} viewers at once need {}; server and peers can send {}, {:.2} of it",
        rate(*need),
        rate(*supply),
        supply / need
    );
    match deficit {
        Some(deficit) => {
            let mut text = format!("deficit mode: {sum}: {} are missing.\n", rate(deficit.missing));
            text.push_str("Each of these alone would be just enough, without any reserve:\n");
            for line in enough(deficit) {
                let _ = writeln!(text, "  {line}");
            }
            text
        }
        None if answer.stalled_viewers > 0.0 => format!(
            "no deficit, but stalls: {sum}.\n\
             What comes too late is lost to viewers: try a lower --bitrate, a higher --uplink, or slower --arrivals.\n"
        ),
        None => format!("no deficit, and no stalls: {sum}.\n"),
    }
}

fn enough(deficit: &Deficit) -> Vec<String> {
    let mut lines = vec![format!("a server of {}", deficit.uplink), format!("a bitrate of {}", deficit.bitrate)];
    if let Some(peer_up) = deficit.peer_up {
        lines.push(format!("peers of {peer_up} up"));
    }
    lines.push(match deficit.stay {
        Some(stay) => format!("peers that stay for {}", time(stay)),
        None => "(no stay, however long, is enough)".to_owned(),
    });
    lines
}

fn object(answer: &Answer) -> Value {
    let (request, bound) = (&answer.plan.request, &answer.plan.bound);
    let bits = |rate: BytesPerSecond| rate.as_u64() * 8;
    let whole = |bytes_per_second: f64| bits(rate(bytes_per_second));
    let (over, arrivals) = match request.arrivals {
        ViewerArrivals::Over(span) => (Some(span.as_secs_f64()), None),
        ViewerArrivals::PerSecond(rate) => (None, Some(rate)),
    };
    let deficit = bound.deficit.as_ref().map(|deficit| {
        json!({
            "missing_bits_per_s": whole(deficit.missing),
            "enough": {
                "uplink_bits_per_s": bits(deficit.uplink),
                "bitrate_bits_per_s": bits(deficit.bitrate),
                "peer_up_bits_per_s": deficit.peer_up.map(bits),
                "stay_s": deficit.stay.map(|stay| stay.as_secs_f64()),
            },
        })
    });
    json!({
        "event": "planned",
        "request": {
            "uplink_bits_per_s": bits(request.uplink),
            "viewers": request.viewers,
            "bitrate_bits_per_s": bits(request.bitrate),
            "peer_up_bits_per_s": bits(request.peer_up),
            "peer_down_bits_per_s": bits(request.peer_down),
            "stay_s": request.stay.as_secs_f64(),
            "over_s": over,
            "arrivals_per_s": arrivals,
            "length_s": request.length.as_secs_f64(),
            "delay_s": request.delay.as_secs_f64(),
            "seed": request.seed,
        },
        "simulated": {
            "viewers": answer.simulated,
            "uplink_bits_per_s": bits(answer.simulated_uplink),
            "peer_up_bits_per_s": bits(answer.simulated_peer_up),
            "parts": answer.parts,
            "part_s": answer.part_secs,
            "from_peers": answer.from_peers,
            "start_up_median_s": answer.start_up.p50,
            "start_up_p95_s": answer.start_up.p95,
            "never_started": answer.never_started,
            "stalled_viewers": answer.stalled_viewers,
            "stalled_time": answer.stalled_time,
            "server_mean_bits_per_s": whole(answer.server_rate_mean),
            "server_peak_bits_per_s": whole(answer.server_rate_peak),
            "peak_over_s": answer.moment_secs,
            "server_copies": answer.server_copies,
            "end_s": answer.end_secs,
            "cut_short": answer.cut_short,
        },
        "bound": {
            "watching": bound.watching,
            "here": bound.here,
            "need_bits_per_s": whole(bound.need),
            "supply_bits_per_s": whole(bound.supply),
            "from_peers_max": bound.from_peers_max,
            "start_up_min_s": bound.start_up_min.as_secs_f64(),
            "stalled_time_min": bound.stalled_min,
            "server_min_bits_per_s": whole(bound.server_rate_min),
        },
        "deficit": deficit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn plan(flags: &str) -> Result<Answer, Failure> {
        let line = format!("hybrid-server plan {flags}");
        let args = Args::try_parse_from(line.split_whitespace());
        let args = args.map_err(|error| crate::failure::usage(&error.render().to_string()))?;
        let Command::Plan(plan) = args.command else { panic!("not plan") };
        answer(&plan)
    }

    #[test]
    fn bad_input_is_told_with_a_hint() {
        let good = "--uplink 100M --viewers 5000 --bitrate 5M";
        for (flags, message, hint) in [
            ("", "required arguments were not provided", "--help"),
            ("--uplink 100M --viewers 0 --bitrate 5M", "0 viewers", "--viewers"),
            ("--uplink 0M --viewers 5 --bitrate 5M", "'--uplink <RATE>'", "--help"),
            ("--uplink 100X --viewers 5 --bitrate 5M", "'100X'", "--help"),
            ("--uplink 100M --viewers many --bitrate 5M", "'many'", "--help"),
            (&format!("{good} --peer-down 4M"), "above the 4.0 Mbit/s that a viewer can receive", "--peer-down"),
            (&format!("{good} --stay 10ms"), "shorter than a part", "--stay"),
            (&format!("{good} --stay soon"), "'soon'", "--help"),
            (&format!("{good} --length 1s"), "a length of 1 s", "--length"),
            (&format!("{good} --arrivals 10"), "write 10/s", "--help"),
            (&format!("{good} --arrivals 10/s --over 60s"), "cannot be used with", "--help"),
            (&format!("{good} --arrivals 1/h"), "a week", "--over"),
            (&format!("{good} --simulate 0"), "0 viewers to simulate", "--simulate"),
        ] {
            let failure = plan(flags).unwrap_err();
            assert_eq!((failure.exit, failure.code), (2, "E_USAGE"), "{flags}");
            assert!(failure.message.contains(message), "{flags}: {}", failure.message);
            assert!(failure.hint.as_ref().is_some_and(|given| given.contains(hint)), "{flags}: {:?}", failure.hint);
        }
    }

    #[test]
    fn json_and_table_say_the_same() {
        let small = "--uplink 20M --viewers 300 --bitrate 1M --length 30s --over 10s --simulate 20";
        let answer = plan(&format!("{small} --peer-up 10M")).unwrap();
        let (text, json) = (table(&answer), object(&answer).to_string());
        let json: Value = serde_json::from_str(&json).unwrap();
        let share = |name: &str| percent(json["simulated"][name].as_f64().unwrap());
        for (row, value) in [
            ("bytes from peers", share("from_peers")),
            ("viewers that stall", share("stalled_viewers")),
            ("viewing time in stalls", share("stalled_time")),
            ("start-up, median", format!("{:.1} s", json["simulated"]["start_up_median_s"].as_f64().unwrap())),
            ("copies sent", format!("{:.1}", json["simulated"]["server_copies"].as_f64().unwrap())),
        ] {
            let line = text.lines().find(|line| line.starts_with(row)).unwrap();
            assert!(line.contains(&value), "{line}: {value}");
        }
        assert!(text.contains("20 of 300 viewers") && text.contains("no deficit"), "{text}");
        assert_eq!((json["simulated"]["viewers"].as_u64(), json["deficit"].is_null()), (Some(20), true));
    }

    #[test]
    fn a_deficit_says_so() {
        let answer =
            plan("--uplink 10M --viewers 300 --bitrate 4M --peer-up 1M --length 20s --over 5s --simulate 10").unwrap();
        let text = table(&answer);
        assert!(text.contains("deficit mode: 300 viewers at once need 1.2 Gbit/s"), "{text}");
        assert!(text.contains("890.0 Mbit/s are missing") && text.contains("a server of 900.0 Mbit/s"), "{text}");
        assert_eq!(object(&answer)["deficit"]["missing_bits_per_s"], 890_000_000);
    }
}
