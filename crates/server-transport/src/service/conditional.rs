//! Conditional requests (RFC 9110 section 13).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use std::time::{Duration, SystemTime};

/// What the server can say of the representation that it has.
pub(super) struct Validators {
    /// A strong entity tag with its quotes.
    pub(super) tag: String,
    /// When it changed; `None` where only the tag counts.
    pub(super) modified: Option<SystemTime>,
}

/// What the conditions of a request lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Go on.
    Go,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of a `GET` or `HEAD` in the order of RFC 9110 section 13.2.2.
pub(super) fn evaluate(headers: &HeaderMap, validators: &Validators) -> Condition {
    let modified = validators.modified.map(whole_second);
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, &IF_MATCH, |tag| tag == validators.tag) {
            return Condition::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (date(headers, &IF_UNMODIFIED_SINCE), modified)
        && modified > limit
    {
        return Condition::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        // Weak comparison: the tag of a representation that a cache may have weakened is still of the same bytes to us.
        if any_tag(headers, &IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == validators.tag) {
            return Condition::NotModified;
        }
    } else if let (Some(known), Some(modified)) = (date(headers, &IF_MODIFIED_SINCE), modified)
        && modified <= known
    {
        return Condition::NotModified;
    }
    Condition::Go
}

/// Whether a `Range` header counts, given `If-Range` (section 13.1.5).
pub(super) fn range_applies(headers: &HeaderMap, validators: &Validators, now: SystemTime) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    if text.starts_with('"') {
        return text == validators.tag;
    }
    match (httpdate::parse_http_date(text), validators.modified.map(whole_second)) {
        // A date is a strong validator only when the file cannot have changed twice in that second (section 8.8.2.2).
        (Ok(known), Some(modified)) => {
            known == modified && now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(60))
        }
        _ => false,
    }
}

/// A time as `Last-Modified` shows it.
pub(super) fn http_date(time: SystemTime) -> Option<HeaderValue> {
    // The format has four digits for the year; the library panics outside of them.
    let secs = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    const YEAR_10000: u64 = 253_402_300_800;
    if secs >= YEAR_10000 {
        return None;
    }
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

fn whole_second(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn any_tag(headers: &HeaderMap, name: &HeaderName, matches: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || matches(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn validators() -> Validators {
        let modified = httpdate::parse_http_date(MODIFIED).unwrap() + Duration::from_millis(300);
        Validators { tag: "\"abc\"".to_owned(), modified: Some(modified) }
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn conditions() {
        use Condition::{Failed, Go, NotModified};
        for (pairs, expected) in [
            (vec![], Go),
            (vec![(IF_NONE_MATCH, "\"abc\"")], NotModified),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"abc\"")], NotModified),
            (vec![(IF_NONE_MATCH, "*")], NotModified),
            (vec![(IF_NONE_MATCH, "\"x\"")], Go),
            (vec![(IF_NONE_MATCH, "abc")], Go),
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, MODIFIED)], Go),
            (vec![(IF_MODIFIED_SINCE, MODIFIED)], NotModified),
            (vec![(IF_MODIFIED_SINCE, BEFORE)], Go),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Go),
            (vec![(IF_MATCH, "\"abc\"")], Go),
            (vec![(IF_MATCH, "W/\"abc\"")], Failed),
            (vec![(IF_MATCH, "\"x\"")], Failed),
            (vec![(IF_MATCH, "*")], Go),
            (vec![(IF_UNMODIFIED_SINCE, BEFORE)], Failed),
            (vec![(IF_UNMODIFIED_SINCE, MODIFIED)], Go),
            (vec![(IF_MATCH, "\"abc\""), (IF_UNMODIFIED_SINCE, BEFORE)], Go),
        ] {
            assert_eq!(evaluate(&headers(&pairs), &validators()), expected, "{pairs:?}");
        }
    }

    #[test]
    fn ranges_of_the_version_that_the_client_has() {
        let late = SystemTime::now();
        let at_once = validators().modified.unwrap();
        for (value, now, expected) in [
            ("\"abc\"", late, true),
            ("\"x\"", late, false),
            ("W/\"abc\"", late, false),
            (MODIFIED, late, true),
            (MODIFIED, at_once, false),
            (BEFORE, late, false),
            ("garbage", late, false),
        ] {
            assert_eq!(range_applies(&headers(&[(IF_RANGE, value)]), &validators(), now), expected, "{value}");
        }
        assert!(range_applies(&HeaderMap::new(), &validators(), late));
    }

    #[test]
    fn dates_outside_the_format_are_left_out() {
        assert!(http_date(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).is_none());
        assert!(http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800)).is_none());
        assert_eq!(http_date(SystemTime::UNIX_EPOCH).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
