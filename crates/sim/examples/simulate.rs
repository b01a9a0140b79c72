//! `cargo xtask sim`: plays a scenario and says how it went.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to people")]

use clap::{Parser, ValueEnum};
use hybrid_coordinator::EgressPolicy;
use hybrid_manifest::PartLen;
use hybrid_sim::{Arrivals, Misbehaviour, Outcome, Scenario, Simulation, SlotFree, Uplinks};
use hybrid_units::{BytesPerSecond, Duration, parse_duration};
use hybrid_wire::Source;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Plays a crowd of clients with the real brains on a virtual network.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", after_help = scenarios())]
struct Arguments {
    /// Which scenario; what is left away below is as it has it
    #[arg(long, default_value = "flash")]
    scenario: String,
    /// How many clients
    #[arg(long)]
    peers: Option<u32>,
    /// All randomness
    #[arg(long)]
    seed: Option<u64>,
    /// How many parts
    #[arg(long)]
    parts: Option<u32>,
    /// How long a part is, in KiB: a power of two from 16 to 16384
    #[arg(long, value_parser = part_len)]
    part_kib: Option<PartLen>,
    /// The mean uplink of the clients: 20M, 2.5MB/s
    #[arg(long)]
    uplink: Option<BytesPerSecond>,
    /// The clients' downlinks: a rate, or `none` for no limit
    #[arg(long, value_parser = downlink)]
    downlink: Option<Downlink>,
    /// The server's uplink, as a multiple of the mean uplink of the clients
    #[arg(long)]
    server_up: Option<f64>,
    /// One-way delay: a duration, or a number of part times
    #[arg(long, value_parser = delay)]
    delay: Option<Delay>,
    /// Up to so much more delay for each message
    #[arg(long, value_parser = parse_duration)]
    jitter: Option<Duration>,
    /// The share of messages and dials that are lost
    #[arg(long)]
    loss: Option<f64>,
    /// How uplinks differ: equal, three-class, two-class, or multiples of the mean in turn, such as 0.2,0.8,2
    #[arg(long, value_parser = uplinks)]
    uplinks: Option<Uplinks>,
    /// When clients come: flash, flash:SECS, poisson:RATE, every:SECS
    #[arg(long, value_parser = arrivals)]
    arrive: Option<Arrivals>,
    /// Clients that the server serves directly: a number, or auto
    #[arg(long, value_parser = direct)]
    direct: Option<Direct>,
    /// What the server sends beyond one copy: fast, thrifty
    #[arg(long, value_parser = egress)]
    egress: Option<EgressPolicy>,
    /// Peers in a client's list; each may have twice as many connections
    #[arg(long)]
    degree: Option<u16>,
    /// Clients limit their uploads to their uplinks, and say so
    #[arg(long)]
    limited: bool,
    /// Clients ask for part ids instead of finding them in the manifest
    #[arg(long)]
    ask_hashes: bool,
    /// Parts that a client sends at one time
    #[arg(long)]
    uploads: Option<u8>,
    /// An upload slot is free when the last byte has left, not when it is acknowledged
    #[arg(long)]
    free_when_sent: bool,
    /// Set one of the brains' settings, for trials: peer_requests=16
    #[arg(long, value_name = "NAME=NUMBER", value_parser = setting)]
    set: Vec<(String, u32)>,
    /// Clients leave this long after they are complete
    #[arg(long, value_parser = parse_duration)]
    stay: Option<Duration>,
    /// The server ends after so many copies
    #[arg(long)]
    server_dies: Option<f64>,
    /// Clients that misbehave
    #[arg(long)]
    bad_peers: Option<u32>,
    /// What those do: pollute, trickle, stall, silent, deny, …
    #[arg(long, value_parser = parse_misbehaviour)]
    misbehaviour: Option<Misbehaviour>,
    /// Check all invariants at each so-manieth step
    #[arg(long)]
    check_every: Option<u64>,
    /// Write clients.csv, series.csv, completion.svg, series.svg and outcome.json into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Runs with this many seeds, from --seed on; a line for each
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    #[arg(long, value_enum, hide = true)]
    log: Option<Log>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Log {
    Series,
}

#[derive(Clone, Copy, Debug)]
struct Downlink(Option<BytesPerSecond>);

#[derive(Clone, Copy, Debug)]
struct Direct(Option<u32>);

#[derive(Clone, Copy, Debug)]
enum Delay {
    Parts(f64),
    Time(Duration),
}

fn scenarios() -> String {
    let lines = Scenario::NAMES.iter().map(|(name, about)| format!("  {name:<12} {about}"));
    format!("Scenarios:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn egress(text: &str) -> Result<EgressPolicy, String> {
    match text {
        "fast" => Ok(EgressPolicy::Fast),
        "thrifty" => Ok(EgressPolicy::Thrifty),
        _ => Err("must be fast or thrifty".to_owned()),
    }
}

fn setting(text: &str) -> Result<(String, u32), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=NUMBER")?;
    let value = value.parse().map_err(|_| format!("'{value}' is no whole number"))?;
    Ok((name.to_owned(), value))
}

fn part_len(text: &str) -> Result<PartLen, String> {
    let bytes = text.parse::<u32>().ok().and_then(|kib| kib.checked_mul(1 << 10));
    bytes.and_then(PartLen::new).ok_or_else(|| "must be a power of two from 16 to 16384".to_owned())
}

fn downlink(text: &str) -> Result<Downlink, String> {
    match text {
        "none" => Ok(Downlink(None)),
        rate => rate.parse().map(|rate| Downlink(Some(rate))).map_err(|error| format!("{error}, or none")),
    }
}

fn direct(text: &str) -> Result<Direct, String> {
    match text {
        "auto" => Ok(Direct(None)),
        number => number.parse().map(|number| Direct(Some(number))).map_err(|_| "must be a number or auto".to_owned()),
    }
}

fn delay(text: &str) -> Result<Delay, String> {
    if let Ok(parts) = text.parse::<f64>() {
        let fine = (0.0..=1e3).contains(&parts);
        return if fine { Ok(Delay::Parts(parts)) } else { Err("must be from 0 to 1000 part times".to_owned()) };
    }
    parse_duration(text).map(Delay::Time).map_err(|error| format!("{error}; or a number of part times"))
}

fn uplinks(text: &str) -> Result<Uplinks, String> {
    match text {
        "equal" => Ok(Uplinks::Equal),
        "three-class" => Ok(Uplinks::ThreeClass),
        "two-class" => Ok(Uplinks::TwoClass),
        list => {
            let shares: Result<Vec<f64>, _> = list.split(',').map(str::parse).collect();
            let shares = shares.map_err(|_| "must be equal, three-class, two-class, or multiples such as 0.2,0.8,2");
            Ok(Uplinks::InTurn(shares?))
        }
    }
}

fn arrivals(text: &str) -> Result<Arrivals, String> {
    let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
    let number = number.map(|number| number.parse::<f64>().ok().filter(|number| (0.0..=1e6).contains(number)));
    match (kind, number) {
        ("flash", None) => Ok(Arrivals::Flash(Duration::from_millis(100))),
        ("flash", Some(Some(secs))) => Ok(Arrivals::Flash(Duration::from_secs_f64(secs))),
        ("poisson", Some(Some(rate))) => Ok(Arrivals::Poisson(rate)),
        ("every", Some(Some(secs))) => Ok(Arrivals::Every(Duration::from_secs_f64(secs))),
        _ => Err("must be flash, flash:SECS, poisson:RATE or every:SECS".to_owned()),
    }
}

impl Arguments {
    fn scenario(&self) -> Result<Scenario, String> {
        let mut scenario = Scenario::named(&self.scenario).map_err(|error| error.to_string())?;
        // A server of ten uplinks stays one, whatever the uplinks are.
        let ratio = scenario.server_up.as_u64() as f64 / scenario.uplink.as_u64() as f64;
        let delay = scenario.delay.as_secs_f64() / scenario.part_time().as_secs_f64();
        let scaled = self.uplink.is_some() || self.part_kib.is_some();
        let set = |field: &mut _, value: Option<_>| *field = value.unwrap_or(*field);
        set(&mut scenario.peers, self.peers);
        set(&mut scenario.parts, self.parts);
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        scenario.part_len = self.part_kib.unwrap_or(scenario.part_len);
        scenario.uplink = self.uplink.unwrap_or(scenario.uplink);
        scenario.downlink = self.downlink.map_or(scenario.downlink, |downlink| downlink.0);
        let ratio = self.server_up.unwrap_or(ratio);
        if !(1e-6..=1e6).contains(&ratio) {
            return Err("--server-up must be above 0 and at most 1,000,000".to_owned());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
        if scaled || self.server_up.is_some() {
            scenario.server_up = BytesPerSecond::new((scenario.uplink.as_u64() as f64 * ratio) as u64);
        }
        match self.delay {
            Some(Delay::Time(time)) => scenario.delay = time,
            Some(Delay::Parts(parts)) => scenario.set_delay_in_parts(parts),
            None if scaled => scenario.set_delay_in_parts(delay),
            None => {}
        }
        scenario.jitter = self.jitter.unwrap_or(scenario.jitter);
        scenario.loss = self.loss.unwrap_or(scenario.loss);
        scenario.uplinks = self.uplinks.clone().unwrap_or(scenario.uplinks);
        scenario.arrivals = self.arrive.clone().unwrap_or(scenario.arrivals);
        scenario.direct = self.direct.map_or(scenario.direct, |direct| direct.0);
        scenario.coordinator.egress_policy = self.egress.unwrap_or(scenario.coordinator.egress_policy);
        if let Some(degree) = self.degree {
            scenario.coordinator.peers_per_list = usize::from(degree);
            scenario.coordinator.peer_connections_max = degree.saturating_mul(2);
        }
        scenario.coordinator.uploads_max = self.uploads.unwrap_or(scenario.coordinator.uploads_max);
        scenario.limited |= self.limited;
        if self.free_when_sent {
            scenario.slot_free = SlotFree::Sent;
        }
        scenario.inline_hashes &= !self.ask_hashes;
        scenario.churn.stay = self.stay.or(scenario.churn.stay);
        scenario.server.dies_after_copies = self.server_dies.or(scenario.server.dies_after_copies);
        scenario.bad_peers = self.bad_peers.unwrap_or(scenario.bad_peers);
        scenario.misbehaviour = self.misbehaviour.unwrap_or(scenario.misbehaviour);
        scenario.check_every = self.check_every.unwrap_or(scenario.check_every);
        for (name, value) in &self.set {
            scenario.set(name, *value).map_err(|error| error.to_string())?;
        }
        scenario.check().map_err(|error| error.to_string())?;
        Ok(scenario)
    }
}

fn parse_misbehaviour(text: &str) -> Result<Misbehaviour, String> {
    let names = || Misbehaviour::ALL.map(Misbehaviour::name).join(", ");
    let named = |misbehaviour: &Misbehaviour| misbehaviour.name() == text;
    Misbehaviour::ALL.into_iter().find(named).ok_or_else(|| format!("no such misbehaviour; there are {}", names()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let first = arguments.scenario()?;
    for seed in first.seed..first.seed + arguments.seeds.max(1) {
        let scenario = Scenario { seed, ..first.clone() };
        let began = Instant::now();
        let outcome = Simulation::new(scenario).map_err(|error| error.to_string())?.run();
        let wall_secs = began.elapsed().as_secs_f64();
        if arguments.json {
            println!("{}", figures(&outcome, wall_secs));
        } else if arguments.seeds > 1 {
            println!("seed {seed}: {}", line(&outcome, wall_secs));
        } else {
            tell(&outcome, wall_secs);
        }
        if arguments.log.is_some() {
            print!("{}", outcome.series_csv());
        }
        if let Some(folder) = &arguments.out {
            write(folder, &outcome, wall_secs).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        if outcome.incomplete > 0 {
            return Err(format!("{} clients were not complete at the end", outcome.incomplete));
        }
    }
    Ok(())
}

fn write(folder: &std::path::Path, outcome: &Outcome, wall_secs: f64) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("clients.csv"), outcome.clients_csv())?;
    std::fs::write(folder.join("series.csv"), outcome.series_csv())?;
    std::fs::write(folder.join("completion.svg"), outcome.completion_svg())?;
    std::fs::write(folder.join("series.svg"), outcome.series_svg())?;
    std::fs::write(folder.join("outcome.json"), format!("{:#}\n", figures(outcome, wall_secs)))
}

fn line(outcome: &Outcome, wall_secs: f64) -> String {
    format!(
        "last/T_min {:.3}, mean {:.3}, p95 {:.3}, copies {:.2}, wasted {:.2} %, uplinks {:.3}, {wall_secs:.1} s",
        outcome.last_ratio,
        outcome.completion.mean / outcome.bound_secs,
        outcome.completion.p95 / outcome.bound_secs,
        outcome.server_copies,
        100.0 * outcome.wasted_share,
        outcome.uplink_use,
    )
}

fn tell(outcome: &Outcome, wall_secs: f64) {
    let Outcome { bound_secs, completion, first_upload, part_secs, counts, .. } = outcome;
    let ratio = |secs: f64| secs / bound_secs;
    println!(
        "{}: {} clients, {} parts, seed {}: {} complete, {} not",
        outcome.name, outcome.peers, outcome.parts, outcome.seed, outcome.complete, outcome.incomplete
    );
    println!("T_min          {bound_secs:.3} s");
    println!("last           {:.3} s = {:.3} T_min", outcome.last_secs, outcome.last_ratio);
    println!(
        "each           mean {:.3}, p50 {:.3}, p95 {:.3}, max {:.3} T_min after its arrival",
        ratio(completion.mean),
        ratio(completion.p50),
        ratio(completion.p95),
        ratio(completion.max)
    );
    println!(
        "with its bytes {:.3} times what the uplinks take for what the server did not send",
        outcome.last_secs / outcome.bound_as_sent_secs
    );
    println!("server         {:.2} copies", outcome.server_copies);
    let total: u64 = outcome.received.iter().sum();
    let shares = Source::ALL.iter().zip(outcome.received);
    let shares =
        shares.map(|(source, bytes)| format!("{} {:.2} %", source.as_str(), 100.0 * bytes as f64 / total as f64));
    println!("sources        {}", shares.collect::<Vec<_>>().join(", "));
    println!("wasted         {:.2} % of all bytes sent", 100.0 * outcome.wasted_share);
    println!("uplinks        {:.1} % used", 100.0 * outcome.uplink_use);
    println!(
        "first upload   mean {:.2}, p50 {:.2}, p95 {:.2} part times; mean {:.3} s",
        first_upload.mean / part_secs,
        first_upload.p50 / part_secs,
        first_upload.p95 / part_secs,
        first_upload.mean
    );
    println!("stalls         {}", outcome.stalls);
    println!(
        "messages       {:.1} a part: {} have, {} idle, {} requests, {} cancelled, {} refused",
        outcome.messages_per_part, counts.haves, counts.idles, counts.requests, counts.cancels, counts.refusals
    );
    println!(
        "               {} dials, {} failed; {} over control channels",
        counts.dials, counts.dials_failed, counts.control
    );
    println!(
        "simulated in   {wall_secs:.1} s: {} events, {} inputs, {} timeouts, {:.2} us an input",
        counts.events,
        counts.inputs,
        counts.timeouts,
        1e6 * wall_secs / counts.inputs.max(1) as f64
    );
}

fn figures(outcome: &Outcome, wall_secs: f64) -> serde_json::Value {
    let spread = |spread: &hybrid_sim::Spread| json!({ "count": spread.count, "mean": spread.mean, "p50": spread.p50, "p95": spread.p95, "max": spread.max });
    let counts = &outcome.counts;
    let received: serde_json::Map<String, serde_json::Value> = Source::ALL
        .iter()
        .zip(outcome.received)
        .map(|(source, bytes)| (source.as_str().to_owned(), bytes.into()))
        .collect();
    json!({
        "scenario": outcome.name,
        "seed": outcome.seed,
        "peers": outcome.peers,
        "parts": outcome.parts,
        "content_bytes": outcome.content_bytes,
        "part_s": outcome.part_secs,
        "t_min_s": outcome.bound_secs,
        "last_s": outcome.last_secs,
        "last_over_t_min": outcome.last_ratio,
        "complete": outcome.complete,
        "incomplete": outcome.incomplete,
        "completion_s": spread(&outcome.completion),
        "first_part_s": spread(&outcome.first_part),
        "first_upload_s": spread(&outcome.first_upload),
        "server_copies": outcome.server_copies,
        "server_bytes": outcome.server_bytes,
        "peer_bytes": outcome.peer_bytes,
        "received_bytes": received,
        "wasted_bytes": outcome.wasted_bytes,
        "wasted_share": outcome.wasted_share,
        "uplink_use": outcome.uplink_use,
        "stalls": outcome.stalls,
        "messages_per_part": outcome.messages_per_part,
        "messages": {
            "have": counts.haves,
            "idle": counts.idles,
            "request": counts.requests,
            "cancel": counts.cancels,
            "refusal": counts.refusals,
            "control": counts.control,
        },
        "dials": counts.dials,
        "dials_failed": counts.dials_failed,
        "events": counts.events,
        "inputs": counts.inputs,
        "timeouts": counts.timeouts,
        "wall_s": wall_secs,
    })
}
