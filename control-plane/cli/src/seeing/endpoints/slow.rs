//! Which endpoints of a service are far slower than its others.
//!
//! Endpoints of one service do the same work, so each is compared with its siblings, and not with a limit that somebody would have
//! to set. Their median is compared: one other endpoint that is slow, or one that has ended, moves it little. Those that fail are
//! no measure, since a failure may come at once.

use serde::Serialize;

use super::{Row, State};
use crate::seeing::numbers::{Requests, WELL};

/// From so many times the siblings' time on an endpoint is slow.
const TIMES: f64 = 4.0;
/// By so many milliseconds it must be slower, too: what is fast may well take four times as long.
const MORE_MS: f64 = 50.0;
/// From so many requests on their middle time says something. A slow endpoint gets few where the balancer looks at that.
const FEWEST: u64 = 5;
/// From so many requests on the time that 95 percent of them take at most does.
const FEWEST_FOR_P95: u64 = 100;

/// A time of an endpoint's requests, in milliseconds.
type TimeOf = fn(&Requests) -> f64;

/// What is compared: how many percent of the requests take this time at most, and how many requests there must be.
const COMPARED: [(u8, u64, TimeOf); 2] =
    [(50, FEWEST, |one| one.p50_ms), (95, FEWEST_FOR_P95, |one| one.p95_ms)];

/// By how much an endpoint is slower than its siblings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Slow {
    /// So many percent of the requests are compared: the fastest 50 or 95.
    pub(crate) percent: u8,
    /// How long these take at most, in milliseconds.
    pub(crate) own_ms: f64,
    /// The same of the siblings: their median.
    pub(crate) siblings_ms: f64,
}

/// Marks those of one service's endpoints that are slow.
pub(super) fn mark(rows: &mut [Row]) {
    // There may be ten thousand of them, so they are sorted once, and not for each.
    let measures = COMPARED.map(|(_, fewest, time)| {
        let mut times: Vec<f64> =
            rows.iter().filter_map(|row| measure(row.requests.as_ref()?, fewest, time)).collect();
        times.sort_by(f64::total_cmp);
        times
    });
    let found: Vec<Option<Slow>> = rows.iter().map(|row| find(row, &measures)).collect();
    for (row, slow) in rows.iter_mut().zip(found) {
        if slow.is_some() && row.state == State::Healthy {
            row.state = State::Slow;
        }
        row.slow = slow;
    }
}

/// The time by which siblings are judged; `None`: it says nothing of them.
fn measure(one: &Requests, fewest: u64, time: TimeOf) -> Option<f64> {
    (one.success_percent >= WELL && one.count >= fewest).then(|| time(one))
}

/// By how much the endpoint of `row` is slower than its siblings, where `measures` are the times of all that are a measure, the
/// shortest first.
fn find(row: &Row, measures: &[Vec<f64>; COMPARED.len()]) -> Option<Slow> {
    let own = row.requests.as_ref()?;
    COMPARED.into_iter().zip(measures).find_map(|((percent, fewest, time), measures)| {
        if own.count < fewest {
            return None;
        }
        let siblings_ms = median_without(measures, measure(own, fewest, time))?;
        let own_ms = time(own);
        let is_slow = own_ms >= siblings_ms * TIMES && own_ms >= siblings_ms + MORE_MS;
        is_slow.then_some(Slow { percent, own_ms, siblings_ms })
    })
}

/// The median of `sorted` without one that is `left_out`. Of an even number the smaller one in the middle.
fn median_without(sorted: &[f64], left_out: Option<f64>) -> Option<f64> {
    let Some(left_out) = left_out else { return sorted.get(sorted.len().checked_sub(1)? / 2).copied() };
    let place = sorted.partition_point(|one| one.total_cmp(&left_out).is_lt());
    let middle = sorted.len().checked_sub(2)? / 2;
    sorted.get(if place <= middle { middle + 1 } else { middle }).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint of so many requests, of which half take this long, and nearly all that long.
    fn row((count, p50_ms, p95_ms): (u64, f64, f64)) -> Row {
        let requests = Requests {
            count,
            failures: 0,
            success_percent: 100.0,
            per_second: 1.0,
            p50_ms,
            p95_ms,
            p99_ms: p95_ms,
            mtls_percent: None,
            sent_bytes: 0,
        };
        Row {
            service: "a:80".to_owned(),
            address: "10.0.0.1:80".parse().unwrap(),
            workload: None,
            identity: None,
            state: State::Healthy,
            is_absent: false,
            not_connected_since: None,
            is_awaited: false,
            failing: None,
            slow: None,
            out: Vec::new(),
            requests: Some(requests),
            connections: None,
        }
    }

    /// Which are slow, by the share of their requests that is compared.
    fn slow(endpoints: &[(u64, f64, f64)]) -> Vec<Option<u8>> {
        let mut rows: Vec<Row> = endpoints.iter().copied().map(row).collect();
        mark(&mut rows);
        for row in &rows {
            assert_eq!(row.state == State::Slow, row.slow.is_some());
        }
        rows.iter().map(|row| row.slow.as_ref().map(|slow| slow.percent)).collect()
    }

    #[test]
    fn an_endpoint_is_slow_that_takes_far_longer_than_its_siblings() {
        assert_eq!(slow(&[(500, 5.0, 9.0), (8, 2_000.0, 2_000.0)]), [None, Some(50)]);
        let half = [(50, 5.0, 9.0), (50, 6.0, 9.0), (50, 2_000.0, 2_100.0), (50, 2_100.0, 2_100.0)];
        assert_eq!(
            slow(&half),
            [None, None, Some(50), Some(50)],
            "nor does another one that is slow hide it"
        );
        assert_eq!(slow(&[(500, 5.0, 9.0), (500, 6.0, 900.0)]), [None, Some(95)], "every tenth request is");
    }

    #[test]
    fn the_median_is_that_of_the_others() {
        let sorted = [1.0, 2.0, 2.0, 4.0, 5.0];
        for (left_out, median) in [
            (None, Some(2.0)),
            (Some(1.0), Some(2.0)),
            (Some(2.0), Some(2.0)),
            (Some(4.0), Some(2.0)),
            (Some(5.0), Some(2.0)),
        ] {
            assert_eq!(median_without(&sorted, left_out), median, "{left_out:?}");
        }
        assert_eq!(median_without(&sorted[3..], Some(4.0)), Some(5.0));
        assert_eq!(median_without(&sorted[3..], Some(5.0)), Some(4.0));
        assert_eq!(median_without(&sorted[4..], Some(5.0)), None);
        assert_eq!(median_without(&[], None), None);
    }

    #[test]
    fn no_endpoint_is_slow_by_chance_or_by_itself() {
        assert_eq!(slow(&[(500, 2_000.0, 2_000.0)]), [None], "nobody knows how long it should take");
        assert_eq!(slow(&[(500, 5.0, 9.0), (4, 2_000.0, 2_000.0)]), [None, None], "too few");
        assert_eq!(slow(&[(500, 5.0, 9.0), (50, 6.0, 900.0)]), [None, None], "too few for that");
        assert_eq!(slow(&[(500, 0.5, 1.0), (500, 9.0, 40.0)]), [None, None], "both are fast");
        assert_eq!(slow(&[(500, 400.0, 500.0), (500, 900.0, 1_500.0)]), [None, None], "not by far");
        let mut rows = [row((500, 1.0, 1.0)), row((500, 200.0, 200.0))];
        rows[0].requests.as_mut().unwrap().success_percent = 10.0;
        mark(&mut rows);
        assert!(rows[1].slow.is_none(), "one that fails at once is no measure");
        let mut rows = [row((500, 5.0, 9.0)), row((500, 2_000.0, 2_000.0))];
        rows[1].state = State::Failing;
        mark(&mut rows);
        assert!(rows[1].state == State::Failing && rows[1].slow.is_some(), "what is worse is said first");
    }
}
