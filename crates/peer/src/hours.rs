//! Hours of the day, by this computer's clock and time zone.

use jiff::civil::{Time, time};
use jiff::tz::Disambiguation;
use jiff::{ToSpan, ZonedDateTime};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A stretch of each day, such as 22:00-07:00; it may go beyond midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// The first moment within.
    from: Time,
    /// The first moment that is not; midnight as the end of a day is that of the next one.
    to: Time,
}

/// A text that is no stretch of the day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHoursError {
    /// Not two times of the day.
    #[error("'{0}' are no hours: write two times of the day, such as 22:00-07:00")]
    Form(String),
    /// From a time to the same time.
    #[error("from {0} to {0} is no time at all, or all of it: write two different times, or leave the hours away")]
    Same(String),
}

impl Hours {
    fn contains(self, now: Time) -> bool {
        if self.from < self.to { self.from <= now && now < self.to } else { now >= self.from || now < self.to }
    }

    /// Whether a moment is within, and after how long to look again: it has not changed before.
    pub(crate) fn at(self, now: &ZonedDateTime) -> (bool, Duration) {
        let within = self.contains(now.time());
        let boundary = if within { self.to } else { self.from };
        let (zone, moment) = (now.time_zone(), now.timestamp());
        // Where clocks go back, a time of the day comes twice; where they go forward, it may not come at all, and then it is the
        // moment at which they do that counts.
        let days = (0..=2).filter_map(|days| now.date().checked_add(days.days()).ok());
        let places = days.flat_map(|day| {
            let place = zone.to_ambiguous_zoned_datetime(day.to_datetime(boundary));
            [Disambiguation::Earlier, Disambiguation::Later].map(|which| place.clone().disambiguate(which).ok())
        });
        let boundaries = places.flatten().filter(|place| place.time() == boundary).map(|place| place.timestamp());
        let clocks_change = zone.following(moment).next().map(|transition| transition.timestamp());
        let next = boundaries.chain(clocks_change).filter(|next| *next > moment).min();
        // There is always a next one, but for the end of all calendars.
        (within, next.map_or(Duration::MAX, |next| moment.duration_until(next).unsigned_abs()))
    }
}

/// What this computer's clock says.
pub(crate) fn now() -> ZonedDateTime {
    ZonedDateTime::now()
}

impl FromStr for Hours {
    type Err = ParseHoursError;

    fn from_str(text: &str) -> Result<Self, ParseHoursError> {
        let shown = || text.chars().take(40).flat_map(char::escape_default).collect();
        let hours = text.split_once('-').and_then(|(from, to)| {
            let to = if to == "24:00" { time(0, 0, 0, 0) } else { time_of_day(to)? };
            Some(Self { from: time_of_day(from)?, to })
        });
        match hours {
            Some(Self { from, to }) if from == to => Err(ParseHoursError::Same(from.strftime("%H:%M").to_string())),
            hours => hours.ok_or_else(|| ParseHoursError::Form(shown())),
        }
    }
}

/// `HH:MM`, of 24 hours.
fn time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    Time::new(two_digits(hour)?, two_digits(minute)?, 0, 0).ok()
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    /// Germany's clocks: forward on the last Sunday of March at 2:00, back on the last Sunday of October at 3:00.
    fn berlin(moment: &str, which: Disambiguation) -> ZonedDateTime {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let moment: DateTime = moment.parse().unwrap();
        zone.to_ambiguous_zoned_datetime(moment).disambiguate(which).unwrap()
    }

    #[test]
    fn hours_as_people_write_them() {
        for (text, expected) in [
            ("22:00-07:00", Some("22:00-07:00")),
            ("00:00-23:59", Some("00:00-23:59")),
            ("18:30-24:00", Some("18:30-00:00")),
            ("00:00-24:00", None),
            ("07:00-07:00", None),
            ("24:00-07:00", None),
            ("22:00-24:01", None),
            ("25:00-07:00", None),
            ("22:60-07:00", None),
            ("22-07", None),
            ("22:00", None),
            ("9:00-17:00", None),
            ("+9:00-17:00", None),
            ("22:00-07:00-08:00", None),
            ("22:00 - 07:00", None),
            ("10pm-7am", None),
            ("２２:00-07:00", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(text.parse::<Hours>().ok().map(|hours| hours.to_string()).as_deref(), expected, "{text}");
        }
        assert!(matches!("07:00-07:00".parse::<Hours>(), Err(ParseHoursError::Same(_))));
    }

    #[test]
    fn hours_begin_and_end() {
        for (text, moment, within, minutes) in [
            ("09:00-17:00", "2026-06-01T08:59", false, 1),
            ("09:00-17:00", "2026-06-01T09:00", true, 480),
            ("09:00-17:00", "2026-06-01T16:59", true, 1),
            ("09:00-17:00", "2026-06-01T17:00", false, 960),
            ("09:00-17:00", "2026-06-01T23:00", false, 600),
            // Beyond midnight.
            ("22:00-07:00", "2026-06-01T21:59", false, 1),
            ("22:00-07:00", "2026-06-01T22:00", true, 540),
            ("22:00-07:00", "2026-06-01T00:00", true, 420),
            ("22:00-07:00", "2026-12-31T23:59", true, 421),
            ("22:00-07:00", "2026-06-01T07:00", false, 900),
            ("18:00-24:00", "2026-06-01T23:00", true, 60),
            ("18:00-24:00", "2026-06-01T00:00", false, 1_080),
            ("00:00-06:00", "2026-06-01T00:00", true, 360),
            // When clocks change, at two and at three, it is time to look again; that night has an hour less or more.
            ("22:00-07:00", "2026-03-28T22:00", true, 240),
            ("22:00-07:00", "2026-03-29T03:00", true, 240),
            ("22:00-07:00", "2026-10-24T22:00", true, 300),
            ("22:00-07:00", "2026-10-25T03:00", true, 240),
            // Half past two does not come: clocks go from two to three.
            ("02:30-04:00", "2026-03-29T01:00", false, 60),
            ("22:00-02:30", "2026-03-29T01:00", true, 60),
        ] {
            let (found, until) = hours(text).at(&berlin(moment, Disambiguation::Compatible));
            assert_eq!((found, until), (within, Duration::from_secs(60 * minutes)), "{text} at {moment}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice() {
        let (first, second) = (Disambiguation::Earlier, Disambiguation::Later);
        for (text, moment, which, within, minutes) in [
            ("22:00-02:30", "2026-10-25T02:10", first, true, 20),
            ("22:00-02:30", "2026-10-25T02:40", first, false, 20),
            ("22:00-02:30", "2026-10-25T02:10", second, true, 20),
            ("22:00-02:30", "2026-10-25T02:40", second, false, 1_160),
            ("02:30-04:00", "2026-10-25T02:10", first, false, 20),
            ("02:30-04:00", "2026-10-25T02:10", second, false, 20),
        ] {
            let (found, until) = hours(text).at(&berlin(moment, which));
            assert_eq!((found, until), (within, Duration::from_secs(60 * minutes)), "{text} at {moment}, {which:?}");
        }
    }

    /// The driver looks again when it is told to: then it must find the change, and never has to look at once again.
    #[test]
    fn who_looks_at_each_change_misses_none() {
        for text in ["22:00-07:00", "09:00-17:00", "02:30-04:00", "22:00-02:30", "02:00-03:00", "00:00-00:01"] {
            for start in ["2026-03-27T12:00", "2026-10-23T12:00"] {
                let mut now = berlin(start, Disambiguation::Compatible);
                for _ in 0..12 {
                    let (within, until) = hours(text).at(&now);
                    assert!(
                        until > Duration::ZERO && until <= Duration::from_secs(25 * 3_600),
                        "{text} at {now}: {until:?}"
                    );
                    let mut look = now.clone();
                    let then = now.checked_add(until).unwrap();
                    while look < then {
                        assert_eq!(hours(text).contains(look.time()), within, "{text}: missed at {look}");
                        look = look.checked_add(7.minutes()).unwrap();
                    }
                    now = then;
                }
            }
        }
    }
}
