//! Parts between peers: runs `crates/peer-transport/benches/throughput.rs` and holds its ratios against their limits.

use super::figures::{Limit, median, spread};
use super::{Outcome, Setting};
use crate::workspace::{cargo, output};
use anyhow::ensure;

/// Parts of a transfer: 1 GiB.
const PARTS: u32 = 4_096;
const PAIRS: u32 = 9;
const QUICK_PARTS: u32 = 1_024;
const QUICK_PAIRS: u32 = 3;
const PART_BYTES: f64 = 262_144.0;

/// Of the rate of a plain stream of the same library with the same settings, verification included.
const RATE_TO_PLAIN_MIN: f64 = 0.90;
/// Processor time per byte of both ends: requests, streams and messages cost something, and the hash 0.1 to 0.2 s/GB.
const CPU_TO_PLAIN_MAX: f64 = 1.15;

/// What one transfer cost.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    secs: f64,
    giver_cpu_secs: f64,
    taker_cpu_secs: f64,
}

impl Cost {
    fn cpu_secs(self) -> f64 {
        self.giver_cpu_secs + self.taker_cpu_secs
    }
}

/// A plain stream, and parts right after it.
type Pair = [Cost; 2];

pub(super) fn run(setting: &Setting) -> anyhow::Result<Outcome> {
    let (pairs, parts) = if setting.quick { (QUICK_PAIRS, QUICK_PARTS) } else { (PAIRS, PARTS) };
    let mut command = cargo();
    command.args(["bench", "--quiet", "--package", "hybrid-peer-transport", "--bench", "throughput", "--"]);
    let text = output(command.args([pairs.to_string(), parts.to_string()]))?;
    let measured: Vec<Pair> = text.lines().filter_map(parse).collect();
    ensure!(measured.len() == usize::try_from(pairs)?, "not {pairs} pairs: {text}");
    let gigabytes = f64::from(parts) * PART_BYTES / 1e9;
    for (place, what) in ["plain stream", "parts"].into_iter().enumerate() {
        let all = |of: fn(Cost) -> f64| measured.iter().map(|pair| of(pair[place])).collect::<Vec<f64>>();
        let rates: Vec<f64> = all(|cost| cost.secs).into_iter().map(|secs| gigabytes * 1e3 / secs).collect();
        let per_gigabyte = |of| spread(&all(of).into_iter().map(|secs| secs / gigabytes).collect::<Vec<f64>>());
        println!(
            "  {what:<12}  {} MB/s; CPU s/GB: giver {}, taker {}",
            spread(&rates),
            per_gigabyte(|cost| cost.giver_cpu_secs),
            per_gigabyte(|cost| cost.taker_cpu_secs)
        );
    }
    let rates: Vec<f64> = measured.iter().map(|[plain, parts]| plain.secs / parts.secs).collect();
    let cpu: Vec<f64> = measured.iter().map(|[plain, parts]| parts.cpu_secs() / plain.cpu_secs()).collect();
    println!("  parts / plain stream, pair by pair: rate {}, CPU of both ends {}", spread(&rates), spread(&cpu));
    Ok(Outcome::Measured(vec![
        Limit::at_least("rate / plain stream's", median(rates), RATE_TO_PLAIN_MIN),
        Limit::at_most("CPU of both ends / plain stream's", median(cpu), CPU_TO_PLAIN_MAX),
    ]))
}

/// A line `pair` with six numbers behind tabs.
fn parse(line: &str) -> Option<Pair> {
    let numbers: Vec<f64> = line.strip_prefix("pair\t")?.split('\t').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [secs, giver, taker, parts_secs, parts_giver, parts_taker] = numbers[..] else { return None };
    Some([
        Cost { secs, giver_cpu_secs: giver, taker_cpu_secs: taker },
        Cost { secs: parts_secs, giver_cpu_secs: parts_giver, taker_cpu_secs: parts_taker },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pairs() {
        let [plain, parts] = parse("pair\t1.5\t2\t3\t4\t5\t6.5").unwrap();
        assert_eq!(plain, Cost { secs: 1.5, giver_cpu_secs: 2.0, taker_cpu_secs: 3.0 });
        assert_eq!(parts, Cost { secs: 4.0, giver_cpu_secs: 5.0, taker_cpu_secs: 6.5 });
        for line in ["", "pair", "pair\t1\t2\t3\t4\t5", "pair\t1\t2\t3\t4\t5\tx", "1\t2\t3\t4\t5\t6"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
