//! Our annotation of a `DestinationRule` or a `Service`: when a request goes to a second endpoint, too.

use std::time::Duration;

use selvedge_model::{Hedge, filter::Fraction};

use super::{
    document::{Reading, wrong},
    typed::FieldError,
    values::parse_duration,
};

pub(super) const HEDGE_ANNOTATION: &str = "config.selvedge.io/hedge";

/// The times that a second endpoint can be waited for.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// What the annotation of the document that is read says.
pub(super) fn read(reading: &Reading<'_>) -> Result<Option<Hedge>, FieldError> {
    let Some(text) = reading.metadata.annotations.get(HEDGE_ANNOTATION) else { return Ok(None) };
    let hedge = said(text.trim()).ok_or_else(|| {
        let message = format!(
            "{text:?} does not say when; write a percentile of the route's answer times from p50 to p99.9, such as p95, or a \
             time from 1ms to 1h, such as 250ms"
        );
        wrong(format!("metadata.annotations[{HEDGE_ANNOTATION}]"), message)
    });
    hedge.map(Some)
}

fn said(text: &str) -> Option<Hedge> {
    match text.strip_prefix('p') {
        Some(percentile) => {
            let percentile: f64 = percentile.parse().ok()?;
            let in_range = (50.0..=99.9).contains(&percentile);
            Fraction::of_percent(percentile).filter(|_| in_range).map(Hedge::Percentile)
        }
        None => parse_duration(text).filter(|time| (SHORTEST..=LONGEST).contains(time)).map(Hedge::After),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_comes_after_a_percentile_or_a_time() {
        let percentile = |percent| Fraction::of_percent(percent).map(Hedge::Percentile);
        for (text, expected) in [
            ("p95", percentile(95.0)),
            ("p99.9", percentile(99.9)),
            ("250ms", Some(Hedge::After(Duration::from_millis(250)))),
            ("1m", Some(Hedge::After(Duration::from_secs(60)))),
        ] {
            assert!(expected.is_some() && said(text) == expected, "{text}");
        }
        for text in ["", "p", "95", "p49", "p100", "pNaN", "p-95", "0s", "2h", "true"] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
