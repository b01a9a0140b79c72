//! Byte counts and rates, as people write and read them.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(u64);

/// A rate in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BytesPerSecond(u64);

/// One amount for each of another, to a thousandth: 1.5 is three bytes for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio {
    thousandths: u32,
}

/// A text that is no byte count, no rate or no ratio; says which forms are accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAmountError {
    /// Not a byte count.
    #[error(
        "'{0}' is not a size: write bytes, or a number with k, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024)"
    )]
    Size(String),
    /// Not a rate.
    #[error(
        "'{0}' is not a rate: write bits per second with k, M or G, such as 20M or 1.5Gbit/s, \
         or bytes per second, such as 2.5MB/s or 512KiB/s"
    )]
    Rate(String),
    /// A rate of nothing, where something must flow.
    #[error(
        "a rate of zero would never send anything: write a greater one, or leave it away where that means no limit"
    )]
    ZeroRate,
    /// Not a ratio.
    #[error("'{0}' is not a ratio: write a number from 0.001 to 1000000, such as 0.5 or 2")]
    Ratio(String),
}

/// A value of the user's, made fit for a message: control characters escaped, at most 80 characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// A plain decimal number: digits with at most one point. No sign, no exponent, no digits of other scripts.
pub(crate) fn plain_decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = plain.then(|| text.parse().ok())??;
    number.is_finite().then_some(number)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within 0..=2^53")]
fn whole(number: f64) -> Option<u64> {
    (0.0..=9.007e15).contains(&number).then(|| number.round() as u64)
}

impl ByteCount {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// This many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl Add for ByteCount {
    type Output = Self;

    /// Saturates: a counter that is full is more useful than a panic.
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl FromStr for ByteCount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, ParseAmountError> {
        let error = || ParseAmountError::Size(shown(text));
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "" | "B" => 1.0,
            "k" | "K" | "kB" | "KB" => 1e3,
            "M" | "MB" => 1e6,
            "G" | "GB" => 1e9,
            "T" | "TB" => 1e12,
            "KiB" | "Ki" => 1024.0,
            "MiB" | "Mi" => 1_048_576.0,
            "GiB" | "Gi" => 1_073_741_824.0,
            "TiB" | "Ti" => 1_099_511_627_776.0,
            _ => return Err(error()),
        };
        let number = plain_decimal(number).ok_or_else(error)?;
        whole(number * factor).map(Self).ok_or_else(error)
    }
}

impl BytesPerSecond {
    /// This many bytes per second.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second)
    }

    /// This many bits per second, rounded down to whole bytes.
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits / 8)
    }

    /// The number of bytes per second.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The mean rate at which `bytes` went by in `duration`; zero for no time.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "rates are estimates"
    )]
    pub fn mean(bytes: u64, duration: Duration) -> Self {
        let secs = duration.as_secs_f64();
        if secs <= 0.0 { Self(0) } else { Self((bytes as f64 / secs) as u64) }
    }

    /// How long `bytes` take at this rate; a very long time at rate zero.
    pub fn time_for(self, bytes: u64) -> Duration {
        if self.0 == 0 {
            return Duration::from_secs(u64::from(u32::MAX));
        }
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl FromStr for BytesPerSecond {
    type Err = ParseAmountError;

    /// A bare number with `k`, `M` or `G` counts bits per second, as network links are sold; bytes are written with a `B`.
    fn from_str(text: &str) -> Result<Self, ParseAmountError> {
        let error = || ParseAmountError::Rate(shown(text));
        let (number, unit) = split_unit(text);
        let unit = unit.strip_suffix("/s").unwrap_or(unit);
        let bytes = match unit {
            "" | "bit" | "bps" => 0.125,
            "k" | "K" | "kbit" | "kbps" => 125.0,
            "M" | "Mbit" | "Mbps" => 125_000.0,
            "G" | "Gbit" | "Gbps" => 125_000_000.0,
            "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            _ => return Err(error()),
        };
        let number = plain_decimal(number).ok_or_else(error)?;
        match whole(number * bytes) {
            Some(0) => Err(ParseAmountError::ZeroRate),
            Some(rate) => Ok(Self(rate)),
            None => Err(error()),
        }
    }
}

impl Ratio {
    const THOUSANDTHS_MAX: u32 = 1_000_000_000;

    /// So many of the first for a thousand of the second; `None` for none at all, or more than a million for one.
    pub const fn from_thousandths(thousandths: u32) -> Option<Self> {
        if thousandths == 0 || thousandths > Self::THOUSANDTHS_MAX { None } else { Some(Self { thousandths }) }
    }

    /// So many for `amount`, rounded down.
    pub fn of(self, amount: u64) -> u64 {
        u64::try_from(u128::from(amount) * u128::from(self.thousandths) / 1_000).unwrap_or(u64::MAX)
    }
}

impl FromStr for Ratio {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, ParseAmountError> {
        let thousandths = plain_decimal(text).and_then(|number| whole(number * 1_000.0));
        let ratio = thousandths.and_then(|number| u32::try_from(number).ok()).and_then(Self::from_thousandths);
        ratio.ok_or_else(|| ParseAmountError::Ratio(shown(text)))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.thousandths / 1_000, self.thousandths % 1_000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Display for ByteCount {
    /// Powers of 1000 with one decimal: `153.6 MB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.0, &["B", "kB", "MB", "GB", "TB", "PB"])
    }
}

impl fmt::Display for BytesPerSecond {
    /// Bits per second with one decimal, as links are sold: `20.0 Mbit/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        human(f, self.0.saturating_mul(8), &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn human(f: &mut fmt::Formatter<'_>, value: u64, units: &[&str]) -> fmt::Result {
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let text = if unit == 0 { format!("{value} {}", units[0]) } else { format!("{scaled:.1} {}", units[unit]) };
    f.pad(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1234", Some(1234)),
            ("64KiB", Some(65_536)),
            ("1.5MiB", Some(1_572_864)),
            ("50M", Some(50_000_000)),
            ("1GB", Some(1_000_000_000)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("10X", None),
            ("１", None),
            ("1..2M", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(text.parse::<ByteCount>().ok().map(ByteCount::as_u64), expected, "{text}");
        }
    }

    #[test]
    fn rates_as_people_write_them() {
        for (text, expected) in [
            ("20M", Some(2_500_000)),
            ("20Mbit/s", Some(2_500_000)),
            ("20Mbps", Some(2_500_000)),
            ("1.5G", Some(187_500_000)),
            ("800", Some(100)),
            ("2.5MB/s", Some(2_500_000)),
            ("512KiB/s", Some(524_288)),
            ("0", None),
            ("fast", None),
            ("1 M", None),
        ] {
            assert_eq!(text.parse::<BytesPerSecond>().ok().map(BytesPerSecond::as_u64), expected, "{text}");
        }
        assert_eq!("0M".parse::<BytesPerSecond>(), Err(ParseAmountError::ZeroRate));
    }

    #[test]
    fn ratios_as_people_write_them() {
        for (text, expected) in [
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.25", Some(1_250)),
            ("0.001", Some(1)),
            ("0.0004", None),
            ("1000000", Some(1_000_000_000)),
            ("1000001", None),
            ("99999999999999999999", None),
            ("0", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("50%", None),
            ("1:2", None),
            ("inf", None),
        ] {
            let expected = expected.and_then(Ratio::from_thousandths);
            assert_eq!(text.parse::<Ratio>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_ratio_of_an_amount() {
        let ratio = |text: &str| text.parse::<Ratio>().expect("a ratio");
        assert_eq!((ratio("1.5").of(3), ratio("0.001").of(999), ratio("0.001").of(1_000)), (4, 0, 1));
        assert_eq!(ratio("1000000").of(u64::MAX), u64::MAX, "saturates");
        assert_eq!(
            [ratio("1.50"), ratio("2"), ratio("0.001"), ratio("10")].map(|r| r.to_string()),
            ["1.5", "2", "0.001", "10"]
        );
    }

    #[test]
    fn shown_for_people() {
        assert_eq!(ByteCount::new(153_621_360).to_string(), "153.6 MB");
        assert_eq!(ByteCount::new(999).to_string(), "999 B");
        assert_eq!(ByteCount::new(999_999).to_string(), "1.0 MB");
        assert_eq!(BytesPerSecond::new(2_500_000).to_string(), "20.0 Mbit/s");
    }

    #[test]
    fn rates_and_times_agree() {
        assert_eq!(BytesPerSecond::mean(1_000_000, Duration::from_millis(500)).as_u64(), 2_000_000);
        assert_eq!(BytesPerSecond::mean(1, Duration::ZERO).as_u64(), 0);
        assert_eq!(BytesPerSecond::new(1_000).time_for(500), Duration::from_millis(500));
        assert!(BytesPerSecond::new(0).time_for(1) > Duration::from_secs(1_000_000));
    }
}
