//! How one client is served, over a time that is long enough to tell.

use hybrid_qos::ClientReport;
use hybrid_units::{BytesPerSecond, Duration, Instant};

/// Parts that come at the required rate in the time over which service is judged. They come in bunches, some at a time, and
/// over fewer of them a client that gets what it should would look slow.
const PARTS: u32 = 16;

/// The time is at least this, and at most that: a link that breaks down must be seen while it matters.
const SPAN_MIN: Duration = Duration::from_secs(1);
const SPAN_MAX: Duration = Duration::from_secs(5);

/// A client's reports, added up until they tell something, beside the bytes that the server sent it of what it gained.
#[derive(Debug)]
pub(crate) struct Service {
    began: Instant,
    /// The first parts have come: they were asked for together, so the time until then says nothing of the rate.
    flows: bool,
    sum: ClientReport,
    /// `None` once the server's count is known to be too small.
    counted: Option<u64>,
}

impl Service {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, flows: false, sum: ClientReport::default(), counted: Some(0) }
    }

    /// A part that the server sent was not reported in time; whether it comes later is not known.
    pub(crate) fn miscounted(&mut self) {
        self.counted = None;
    }

    /// What a client reports now; the sum since the last one that was given, if it is time for one, with what was counted.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        report: &ClientReport,
        counted: u64,
        part_len: u64,
        required: BytesPerSecond,
    ) -> Option<(ClientReport, Option<u64>)> {
        let sum = &mut self.sum;
        let bytes = (report.from_server, report.from_peers);
        sum.stalls = sum.stalls.saturating_add(report.stalls);
        sum.refused_parts = sum.refused_parts.saturating_add(report.refused_parts);
        sum.bad_parts = sum.bad_parts.saturating_add(report.bad_parts);
        if !self.flows && bytes != (0, 0) {
            (self.flows, self.began) = (true, now);
            return None;
        }
        sum.from_server = sum.from_server.saturating_add(bytes.0);
        sum.from_peers = sum.from_peers.saturating_add(bytes.1);
        self.counted = self.counted.map(|before| before.saturating_add(counted));
        let interval = now.since(self.began);
        let span = (required.time_for(part_len) * PARTS).clamp(SPAN_MIN, SPAN_MAX);
        if interval < span && !report.complete {
            return None;
        }
        let before = std::mem::replace(self, Self { flows: self.flows, ..Self::new(now) });
        let ClientReport { from_server, from_peers, stalls, refused_parts, bad_parts, .. } = before.sum;
        let whole = ClientReport { interval, from_server, from_peers, stalls, refused_parts, bad_parts, ..*report };
        (!interval.is_zero()).then_some((whole, before.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(reports: &[(u64, u64)], required: u64, part_len: u64) -> Vec<Option<u64>> {
        let mut service = Service::new(Instant::ZERO);
        let mut one = |(millis, bytes): &(u64, u64)| {
            let now = Instant::ZERO + Duration::from_millis(*millis);
            let report = ClientReport { from_server: *bytes, ..ClientReport::default() };
            let (sum, counted) = service.add(now, &report, *bytes, part_len, BytesPerSecond::new(required))?;
            assert_eq!(counted, Some(sum.from_server));
            Some(BytesPerSecond::mean(sum.from_server, sum.interval).as_u64())
        };
        reports.iter().map(&mut one).collect()
    }

    #[test]
    fn rates_are_of_many_parts_and_begin_with_the_first() {
        // 16 parts of 100 bytes take 2 s at the required rate; the first four come after a second.
        let reports = [(1_000, 400), (2_000, 800), (3_000, 800), (4_000, 0), (5_000, 400), (7_000, 0)];
        assert_eq!(service(&reports, 800, 100), [None, None, Some(800), None, Some(200), Some(0)]);
    }

    #[test]
    fn who_gets_nothing_from_the_first_is_slow_too() {
        assert_eq!(service(&[(4_000, 0), (5_000, 0)], 1_000, 1 << 20), [None, Some(0)]);
    }
}
