//! What attempts at endpoints have come to that have failures, as the control plane is told.
//!
//! Requests count nothing for it but their failures: how many attempts have begun is in the number that says how many are in
//! flight. What there is no room for in one report is told in a later one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use selvedge_model::traffic::{AtEndpoint, FailureKind, MOST_FAILING, MOST_FAILING_OF_ONE};

use crate::{
    balance::{FailureCounts, Health},
    bind::{BoundBackend, BoundEndpoint},
    discovery::Store,
};

/// For how long after its last failure it is told what comes of attempts at an endpoint: as long as the control plane shows it.
const TOLD_FOR: Duration = Duration::from_secs(3_600);
/// What has happened while nobody could be told for longer than this is not told afterwards, as of now.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// What was told, on whichever stream.
#[derive(Debug, Default)]
pub(super) struct FailingTold {
    /// By the address of their health, which no other has while it is held weakly.
    endpoints: HashMap<usize, Known>,
    told_at: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    health: Weak<Health>,
    /// The failures that were told of.
    told: FailureCounts,
    /// When it was seen last that there are more.
    failed_at: Instant,
}

/// What may be told of one endpoint.
struct News<'a> {
    backend: &'a Arc<BoundBackend>,
    endpoint: &'a Arc<BoundEndpoint>,
    begun: u32,
    failures: FailureCounts,
    more: FailureCounts,
}

impl News<'_> {
    fn failed(&self) -> u64 {
        self.more.iter().map(|more| u64::from(*more)).sum()
    }

    fn attempts(&self) -> u64 {
        // What has failed had begun, perhaps before that was told.
        u64::from(self.endpoint.health.untold(self.begun)).max(self.failed())
    }
}

impl FailingTold {
    /// What is new at `now`, the most failures first, and of how many endpoints with failures it is told later.
    pub(super) fn next(&mut self, store: &Store, now: Instant) -> (Vec<AtEndpoint>, u32) {
        self.endpoints.retain(|_, known| known.health.strong_count() > 0);
        let table = store.table();
        let backends = table.backends();
        let mut all: Vec<News<'_>> = backends.iter().flat_map(|backend| self.news(backend, now)).collect();
        let told_at = self.told_at.replace(now);
        if told_at.is_some_and(|at| now.saturating_duration_since(at) > TOLD_WITHIN) {
            all.iter().for_each(|news| self.pass(news));
            return (Vec::new(), 0);
        }
        all.sort_by_key(|news| Reverse((news.failed(), news.attempts())));
        let (mut told, mut of_backends, mut left_out) = (Vec::new(), BTreeMap::new(), 0_u32);
        for news in all {
            let of_backend: &mut usize = of_backends.entry(&news.backend.name).or_default();
            if told.len() >= MOST_FAILING || *of_backend >= MOST_FAILING_OF_ONE {
                left_out += u32::from(news.failed() > 0);
                continue;
            }
            *of_backend += 1;
            told.push(self.tell(&news));
        }
        (told, left_out)
    }

    fn news<'a>(&mut self, backend: &'a Arc<BoundBackend>, now: Instant) -> Vec<News<'a>> {
        let of = |endpoint: &'a Arc<BoundEndpoint>| {
            let (health, begun) = (&endpoint.health, endpoint.target.flight.begun());
            let Some(failures) = health.failures() else {
                health.tell(begun);
                return None;
            };
            let known = self.endpoints.entry(Arc::as_ptr(health).addr()).or_insert_with(|| Known {
                health: Arc::downgrade(health),
                told: FailureCounts::default(),
                failed_at: now,
            });
            let more: FailureCounts =
                std::array::from_fn(|place| failures[place].wrapping_sub(known.told[place]));
            if more.iter().any(|more| *more > 0) {
                known.failed_at = now;
            } else if now.saturating_duration_since(known.failed_at) >= TOLD_FOR {
                health.tell(begun);
                return None;
            }
            let news = News { backend, endpoint, begun, failures, more };
            (news.attempts() > 0).then_some(news)
        };
        backend.endpoints.iter().filter_map(of).collect()
    }

    /// It is not new any more.
    fn pass(&mut self, news: &News<'_>) {
        let health = &news.endpoint.health;
        health.tell(news.begun);
        if let Some(known) = self.endpoints.get_mut(&Arc::as_ptr(health).addr()) {
            known.told = news.failures;
        }
    }

    /// Tells it.
    fn tell(&mut self, news: &News<'_>) -> AtEndpoint {
        let failures = FailureKind::ALL.into_iter().zip(news.more.map(u64::from));
        let told = AtEndpoint {
            backend: news.backend.name.clone(),
            address: news.endpoint.address,
            attempts: news.attempts(),
            failures: failures.filter(|(_, count)| *count > 0).collect(),
        };
        self.pass(news);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bind::Table,
        discovery::{
            fixtures,
            held::{Draft, Resources},
        },
        telemetry::Metrics,
    };

    /// A store in which there are so many endpoints, of two backends.
    fn store(endpoints: usize) -> (Arc<Store>, Arc<Table>) {
        let mut binder = fixtures::binder(&Arc::new(Metrics::new(1)));
        let (mut held, mut draft) = (Resources::default(), Draft::default());
        draft.add(selvedge_api::wire::Transaction {
            nonce: 1,
            upserts: vec![
                fixtures::own("0", &fixtures::us().workload.to_string()),
                fixtures::lookup("1"),
                fixtures::service("1", &[90, 10]),
                fixtures::endpoints("1", endpoints),
            ],
            removals: Vec::new(),
            more: false,
            taps: None,
            log_level: None,
        });
        held.take_in(draft, &fixtures::us(), |_| true).unwrap();
        let (table, _) = binder.bind(&held, |_| true, Instant::now());
        let (store, _) = Store::new();
        store.publish(Arc::clone(&table));
        (store, table)
    }

    fn send(endpoint: &BoundEndpoint, attempts: usize, failures: usize) {
        for _ in 0..attempts {
            endpoint.target.flight.begin();
            endpoint.target.flight.end();
        }
        for _ in 0..failures {
            endpoint.health.failed(FailureKind::ConnectRefused);
        }
    }

    #[test]
    fn nothing_is_told_of_what_does_well_and_all_attempts_at_what_does_not() {
        let (store, table) = store(3);
        let [one, other] = [0, 1].map(|place| Arc::clone(&table.backends()[0].endpoints[place]));
        let (mut told, start) = (FailingTold::default(), Instant::now());
        send(&one, 100, 0);
        send(&other, 100, 0);
        assert_eq!(told.next(&store, start), (vec![], 0));

        send(&one, 40, 3);
        send(&other, 40, 0);
        let (first, left_out) = told.next(&store, start);
        let [first] = first.as_slice() else { panic!("{first:?}") };
        assert_eq!((first.address, first.attempts, left_out), (one.address, 40, 0));
        assert_eq!(first.failures, [(FailureKind::ConnectRefused, 3)]);
        assert_eq!(told.next(&store, start), (vec![], 0), "it is told once");

        // For an hour it is told of how many attempts they were.
        send(&one, 60, 0);
        told.told_at = Some(start + TOLD_FOR / 2);
        let (later, _) = told.next(&store, start + TOLD_FOR / 2);
        assert_eq!((later[0].attempts, later[0].failed()), (60, 0));
        send(&one, 60, 0);
        told.told_at = Some(start + TOLD_FOR);
        assert_eq!(told.next(&store, start + TOLD_FOR), (vec![], 0));
        send(&one, 2, 1);
        let (again, _) = told.next(&store, start + TOLD_FOR);
        assert_eq!((again[0].attempts, again[0].failed()), (2, 1), "what was not asked for is not told");
    }

    #[test]
    fn what_failed_while_nobody_could_be_told_is_not_told_as_of_now() {
        let (store, table) = store(1);
        let one = Arc::clone(&table.backends()[0].endpoints[0]);
        let (mut told, start) = (FailingTold::default(), Instant::now());
        send(&one, 5, 1);
        assert_eq!(told.next(&store, start).0.len(), 1);

        send(&one, 500, 100);
        let back = start + TOLD_WITHIN + Duration::from_secs(1);
        assert_eq!(told.next(&store, back), (vec![], 0));

        send(&one, 4, 2);
        let (again, _) = told.next(&store, back + TOLD_WITHIN);
        assert_eq!((again[0].attempts, again[0].failed()), (4, 2));
    }

    #[test]
    fn of_very_many_that_fail_the_worst_are_told_first_and_all_in_the_end() {
        let (store, table) = store(150);
        let all: Vec<_> = table.backends().iter().flat_map(|backend| backend.endpoints.clone()).collect();
        for endpoint in &all {
            send(endpoint, 2, 1);
        }
        let worst = all.last().expect("there are some");
        send(worst, 9, 9);
        let (mut told, now, mut sum) = (FailingTold::default(), Instant::now(), 0);
        let (first, left_out) = told.next(&store, now);
        assert_eq!(first[0].address, worst.address);
        assert!(first.len() <= MOST_FAILING && first.len() + left_out as usize == all.len(), "{left_out}");
        let mut next = (first, left_out);
        while !next.0.is_empty() {
            for backend in table.backends() {
                let of_it = next.0.iter().filter(|one| one.backend == backend.name).count();
                assert!(of_it <= MOST_FAILING_OF_ONE, "{of_it}");
            }
            sum += next.0.iter().map(AtEndpoint::failed).sum::<u64>();
            next = told.next(&store, now);
        }
        assert_eq!((sum, next.1), (all.len() as u64 + 9, 0));
    }
}
