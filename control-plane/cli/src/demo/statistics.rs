//! What the demo says of shares: whether one is what its weights promise, and when it changed.

use std::{ops::Range, time::Duration};

use selvedge_demo::load::Sample;

/// How far a share may be from its weight, in standard deviations: one false alarm in 147,000 runs.
const SIGMAS: f64 = 4.5;

/// How sure the change of a share must be: the likelihood ratio's logarithm (1 : 22,000).
const CERTAINTY: f64 = 10.0;

/// How many of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// How many.
    pub(super) part: u64,
    /// Of how many.
    pub(super) whole: u64,
}

impl Share {
    /// The answers of a time span whose first key has `value`.
    pub(super) fn of(timeline: &[Sample], span: &Range<Duration>, value: &str) -> Self {
        let within = timeline.iter().filter(|sample| span.contains(&sample.at));
        within.fold(Self { part: 0, whole: 0 }, |share, sample| Self {
            part: share.part + u64::from(is(sample, value)),
            whole: share.whole + 1,
        })
    }

    /// Whether so many are what a weight promises.
    pub(super) fn agrees_with(self, weight: f64) -> bool {
        self.whole > 0 && (self.part as f64 - self.whole as f64 * weight).abs() <= self.tolerance(weight)
    }

    /// How far from the promised number `part` may be.
    pub(super) fn tolerance(self, weight: f64) -> f64 {
        SIGMAS * (self.whole as f64 * weight * (1.0 - weight)).sqrt()
    }

    /// In percent.
    pub(super) fn percent(self) -> f64 {
        if self.whole == 0 { 0.0 } else { 100.0 * self.part as f64 / self.whole as f64 }
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} ({:.1} %)", self.part, self.whole, self.percent())
    }
}

/// When the share of `value` changed from one weight to another, if it certainly did after `from`.
///
/// The moment at which the answers speak most for a change, by their likelihood under either weight. This is
/// what callers see: no clock and no word of the mesh's own is needed.
pub(super) fn changed(
    timeline: &[Sample],
    from: Duration,
    value: &str,
    weights: Range<f64>,
) -> Option<Duration> {
    let (before, after) = (weights.start, weights.end);
    let (speaks_for, speaks_against) = ((after / before).ln(), ((1.0 - after) / (1.0 - before)).ln());
    let (mut sum, mut lowest, mut moment) = (0.0, 0.0, None);
    for sample in timeline.iter().filter(|sample| sample.at >= from) {
        let previous = sum;
        sum += if is(sample, value) { speaks_for } else { speaks_against };
        if moment.is_none() || previous < lowest {
            (lowest, moment) = (previous, Some(sample.at));
        }
    }
    moment.filter(|_| sum - lowest >= CERTAINTY)
}

fn is(sample: &Sample, value: &str) -> bool {
    sample.values.first().is_some_and(|found| &**found == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One answer each millisecond, `v2` where `v2(n)` says so.
    fn timeline(answers: u64, v2: impl Fn(u64) -> bool) -> Vec<Sample> {
        let sample = |n| Sample {
            at: Duration::from_millis(n),
            status: Some(200),
            values: vec![if v2(n) { "v2".into() } else { "v1".into() }],
        };
        (0..answers).map(sample).collect()
    }

    #[test]
    fn a_share_agrees_with_its_weight_within_four_and_a_half_sigma() {
        // 2000 at 10 %: 200, σ = 13.4, 4.5 σ = 60.4.
        assert!(Share { part: 260, whole: 2000 }.agrees_with(0.1));
        assert!(Share { part: 140, whole: 2000 }.agrees_with(0.1));
        assert!(!Share { part: 261, whole: 2000 }.agrees_with(0.1));
        assert!(!Share { part: 139, whole: 2000 }.agrees_with(0.1));
        assert!(!Share { part: 0, whole: 0 }.agrees_with(0.1));
    }

    #[test]
    fn a_change_is_found_where_it_happened() {
        let changing = timeline(1000, |n| if n < 600 { n % 10 == 0 } else { n % 2 == 0 });

        let moment = changed(&changing, Duration::from_millis(100), "v2", 0.1..0.5).unwrap();

        assert!((590..=610).contains(&moment.as_millis()), "{moment:?}");
    }

    #[test]
    fn no_change_is_found_where_none_was() {
        let constant = timeline(1000, |n| n % 10 == 0);

        assert_eq!(changed(&constant, Duration::ZERO, "v2", 0.1..0.5), None);
        assert_eq!(changed(&[], Duration::ZERO, "v2", 0.1..0.5), None);
    }
}
