//! Times as people read them.

use hybrid_units::UnixTime;
use std::fmt;

/// Shows a time as RFC 3339 does: `2026-11-22T16:38:57Z`. Beyond the year 9999 the year has more digits.
pub(crate) struct Date(pub(crate) UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, secs) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        // Days of the Gregorian calendar, counted from 1 March of the year 0, so that a leap day ends its year:
        // 719,468 days before 1970. 146,097 days are 400 years.
        let day = days + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Months from March on have 31, 30, 31, 30, 31 days, twice, and then again: 153 days in five months.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = 400 * era + year + next_year;
        let (hour, minute, second) = (secs / 3_600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (secs, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Date(UnixTime::from_secs(secs)).to_string(), expected);
        }
        assert!(!Date(UnixTime::from_secs(u64::MAX)).to_string().is_empty());
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = String::new();
        for day in 0..150_000 {
            let date = Date(UnixTime::from_secs(day * 86_400)).to_string();
            assert!(date > last, "{date} after {last}");
            last = date;
        }
    }
}
