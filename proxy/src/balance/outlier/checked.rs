//! What health checks say of an endpoint, beside what its requests say.
//!
//! Checks are the stronger word: an endpoint that fails them is not ejected as well, and failures of its requests do not
//! count until it passes them again. So each endpoint is counted as out once. Only the control thread writes here.

use std::sync::{Arc, atomic::Ordering};

use selvedge_model::{OutlierDetection, health_check::USUAL_MIN_HEALTH_PERCENT};

use super::{Ejection, Health};

/// What the last health check of an endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether it gets requests.
    pub is_well: bool,
    /// Why its last answer was bad. Absent: it was good.
    pub failure: Option<Arc<str>>,
}

impl Ejection {
    /// The settings of a backend whose endpoints are checked, and where nothing is said of ejections: requests eject none.
    pub fn by_checks_alone() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: None,
            min_health_percent: USUAL_MIN_HEALTH_PERCENT,
            ..OutlierDetection::default()
        }
    }

    /// Notes what health checks say of an endpoint, and why the last one failed. `None`: nothing, so it gets requests.
    pub fn checked(&self, health: &Health, is_well: Option<bool>, failure: Option<&Arc<str>>) {
        let now = is_well.map(|is_well| Checked { is_well, failure: failure.cloned() });
        let fails = is_well == Some(false);
        if fails != health.fails_checks.swap(fails, Ordering::AcqRel) {
            if fails {
                self.shared.failing.fetch_add(1, Ordering::AcqRel);
                if let Some(until) = health.ejection_end() {
                    self.end(health, until);
                }
            } else {
                self.shared.failing.fetch_sub(1, Ordering::AcqRel);
                health.forgive();
            }
            self.note_change();
        }
        if health.checked.load().as_deref() != now.as_ref() {
            health.checked.store(now.map(Arc::new));
        }
    }

    /// How many endpoints fail their health checks.
    pub fn failing(&self) -> usize {
        self.shared.failing.load(Ordering::Relaxed)
    }
}

impl Health {
    /// Whether it fails its health checks.
    pub fn fails_checks(&self) -> bool {
        self.fails_checks.load(Ordering::Relaxed)
    }

    /// What its last health check said; `None`: it has none, or no answer yet.
    pub fn last_check(&self) -> Option<Arc<Checked>> {
        self.checked.load_full()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::outlier::Outcome;

    fn backend(endpoints: usize, settings: OutlierDetection, now: Instant) -> (Ejection, Vec<Health>) {
        let ejection = Ejection::new(settings, now);
        ejection.set_endpoints(endpoints);
        (ejection, (0..endpoints).map(|_| Health::new()).collect())
    }

    fn is_in(ejection: &Ejection, health: &Health, now: Instant) -> bool {
        ejection.out_until(health, now).is_none()
    }

    #[test]
    fn an_endpoint_that_fails_its_checks_is_out_until_it_passes_them() {
        let now = Instant::now();
        let (ejection, healths) = backend(4, Ejection::by_checks_alone(), now);
        let called = || healths.iter().filter(|health| is_in(&ejection, health, now)).count();

        for (failing, expected) in [(1, 3), (2, 2), (3, 1), (4, 0)] {
            ejection.checked(&healths[failing - 1], Some(false), Some(&"answered 503".into()));
            assert_eq!(called(), expected, "{failing} of 4 fail");
        }
        healths.iter().for_each(|health| ejection.checked(health, Some(true), None));
        assert_eq!((called(), ejection.failing()), (4, 0));
        assert!(ejection.none_out());
    }

    #[test]
    fn an_endpoint_is_out_once_however_many_reasons_there_are() {
        let now = Instant::now();
        let rng = &mut fastrand::Rng::new();
        let settings = OutlierDetection {
            consecutive_5xx: Some(1),
            max_ejection_percent: 100,
            min_health_percent: 50,
            ..OutlierDetection::default()
        };
        let (ejection, healths) = backend(3, settings, now);
        let health = &healths[0];
        assert!(ejection.record(health, Outcome::NoAnswer, now, rng).is_some());

        ejection.checked(health, Some(false), None);
        assert_eq!((ejection.ejected(), ejection.failing()), (0, 1));
        assert_eq!(ejection.record(health, Outcome::NoAnswer, now, rng), None);
        assert!(!is_in(&ejection, health, now + Duration::from_secs(3600)), "until its checks pass");
        assert!(!ejection.none_out());

        ejection.checked(health, Some(true), None);
        assert!(is_in(&ejection, health, now));
        ejection.checked(health, Some(false), None);
        ejection.forget(health);
        assert_eq!((ejection.ejected(), ejection.failing()), (0, 0), "it has left");
    }

    proptest! {
        #[test]
        fn endpoints_that_are_out_are_counted_exactly(
            events in proptest::collection::vec((0_usize..5, 0_u8..5, 0_u64..20), 1..200),
        ) {
            let mut now = Instant::now();
            let rng = &mut fastrand::Rng::with_seed(7);
            let settings = OutlierDetection {
                consecutive_5xx: Some(2),
                base_ejection_time: Duration::from_secs(10),
                max_ejection_percent: 100,
                ..OutlierDetection::default()
            };
            let (ejection, healths) = backend(5, settings, now);
            for (which, what, pause) in events {
                now += Duration::from_secs(pause);
                let health = &healths[which];
                match what {
                    0 => ejection.checked(health, Some(false), None),
                    1 => ejection.checked(health, Some(true), None),
                    2 => ejection.succeeded(health),
                    _ => {
                        let _ = ejection.record(health, Outcome::NoAnswer, now, rng);
                    }
                }
                let out = healths.iter().filter(|health| !is_in(&ejection, health, now)).count();
                prop_assert_eq!(out, ejection.ejected() + ejection.failing());
            }
        }
    }
}
