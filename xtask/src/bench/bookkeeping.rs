//! The swarm's books: runs `crates/coordinator/benches/bookkeeping.rs` and holds its figures against their limits.

use super::figures::{Limit, short};
use super::{Outcome, Setting};
use crate::workspace::{cargo, output};
use anyhow::Context;

/// What has a limit: the figure's name, the limit in its unit, and what that rests on.
const LIMITS: &[(&str, f64)] = &[
    // A hundred thousand holders in 20 MB.
    ("directory: memory", 200.0),
    // At 2,000 reports a second, a fifth of a percent of a processor.
    ("directory: report", 1_000.0),
    // Several for each report.
    ("directory: rarest", 300.0),
    // A flash of 100,000 newcomers in half a second.
    ("directory: list", 5_000.0),
];

/// With what times are compared, since nanoseconds are of one machine.
const YARDSTICK: &str = "counting the bits of a bitmap of 1,000";

struct Figure {
    name: String,
    value: f64,
    unit: String,
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Outcome> {
    let text = output(cargo().args(["bench", "--quiet", "--package", "hybrid-coordinator", "--bench", "bookkeeping"]))?;
    let figures: Vec<Figure> = text.lines().filter_map(parse).collect();
    let value = |name: &str| {
        let found = figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.value).with_context(|| format!("the benchmark tells no '{name}': {text}"))
    };
    let yardstick = value(YARDSTICK)?;
    for Figure { name, value, unit } in &figures {
        let ratio =
            if unit == "ns" { format!(", {} × the yardstick", short(value / yardstick)) } else { String::new() };
        println!("  {name:<48} {:>8} {unit}{ratio}", short(*value));
    }
    let limits = LIMITS.iter().map(|(name, bound)| Ok(Limit::at_most(*name, value(name)?, *bound)));
    Ok(Outcome::Measured(limits.collect::<anyhow::Result<_>>()?))
}

/// A line `figure<TAB>NAME<TAB>VALUE<TAB>UNIT`.
fn parse(line: &str) -> Option<Figure> {
    let mut fields = line.strip_prefix("figure\t")?.split('\t');
    let (name, value, unit) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Figure { name: name.to_owned(), value: value.parse().ok()?, unit: unit.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures() {
        let figure = parse("figure\tdirectory: report\t254.0\tns").unwrap();
        assert_eq!(
            (&*figure.name, figure.value.to_string().as_str(), &*figure.unit),
            ("directory: report", "254", "ns")
        );
        for line in ["", "figure", "figure\ta\tb\tns", "figure\ta\t1", "a\tb\t1\tns"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
