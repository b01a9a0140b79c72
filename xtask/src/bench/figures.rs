//! Medians, ratios, and the limits on them.

use std::fmt;

/// A figure that must keep to a bound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) what: String,
    pub(super) measured: f64,
    pub(super) bound: Bound,
}

/// On which side of a number a figure must be; the number itself will do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(super) fn at_most(what: impl Into<String>, measured: f64, bound: f64) -> Self {
        Self { what: what.into(), measured, bound: Bound::AtMost(bound) }
    }

    pub(super) fn at_least(what: impl Into<String>, measured: f64, bound: f64) -> Self {
        Self { what: what.into(), measured, bound: Bound::AtLeast(bound) }
    }

    /// A figure that is no number keeps to nothing.
    pub(super) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.measured <= bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, bound) = match self.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let verdict = if self.is_met() { "met" } else { "NOT MET" };
        write!(f, "{}: {}, {words} {}: {verdict}", self.what, short(self.measured), short(bound))
    }
}

/// Three significant digits, which is more than most figures deserve.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// The middle value; the mean of the two in the middle. Not a number if there are none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(*value, values[middle - 1]),
    }
}

/// `median (lowest to highest)`.
pub(super) fn spread(values: &[f64]) -> String {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({} to {})", short(median(values.iter().copied())), short(lowest), short(highest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        for (values, expected) in [(&[3.0][..], 3.0), (&[3.0, 1.0], 2.0), (&[9.0, 1.0, 2.0], 2.0)] {
            assert!((median(values.iter().copied()) - expected).abs() < 1e-9, "{values:?}");
        }
        assert!(median([]).is_nan());
    }

    #[test]
    fn limits() {
        for (limit, met, text) in [
            (Limit::at_most("a", 1.0, 1.0), true, "a: 1.00, at most 1.00: met"),
            (Limit::at_most("a", 1.004, 1.0), false, "a: 1.00, at most 1.00: NOT MET"),
            (Limit::at_least("a", 0.9, 0.85), true, "a: 0.900, at least 0.850: met"),
            (Limit::at_least("a", 0.8, 0.85), false, "a: 0.800, at least 0.850: NOT MET"),
            (Limit::at_most("a", f64::NAN, 1.0), false, "a: NaN, at most 1.00: NOT MET"),
            (Limit::at_least("a", f64::NAN, 1.0), false, "a: NaN, at least 1.00: NOT MET"),
        ] {
            assert_eq!((limit.is_met(), limit.to_string()), (met, text.to_owned()));
        }
    }

    #[test]
    fn digits() {
        let shown: Vec<String> = [0.0, 0.01234, 0.1234, 1.234, 12.34, 1234.5].map(short).to_vec();
        assert_eq!(shown, ["0.000", "0.0123", "0.123", "1.23", "12.3", "1234"]);
    }
}
