use std::time::Duration;

use selvedge_model::{ServiceKey, WorkloadName};

use super::{
    super::{measured::Measure, method::Method, series::Ended},
    *,
};
use crate::error::Reason;

const FAST: Duration = Duration::from_millis(2);

fn own() -> WorkloadName {
    "shop/web".parse().unwrap()
}

fn outbound(route: &str) -> Labels {
    Labels { route: route.into(), mtls: true, ..Labels::outbound(&own(), &ServiceKey::new("reviews", 80)) }
}

/// The counts of what is told as `edge`, if it is.
fn of(told: &Told, edge: u32) -> Option<&Counts> {
    told.counts.iter().find(|(number, _)| *number == edge).map(|(_, counts)| counts)
}

#[test]
fn only_what_is_new_is_told_and_nothing_if_nothing_happened() {
    let (metrics, mut told) = (Metrics::new(2), TrafficTold::default());
    let series = metrics.series(&outbound("a"));
    assert!(told.next(&metrics).is_empty());

    series.record(0, Some(200), None, None, FAST);
    let method = Some(Method::of(&http::Method::POST));
    let measure = Measure { time: 50 * FAST, sent: 70, ..Measure::default() };
    series.ended(1, &Ended { status: Some(200), method, measure, ..Ended::default() });
    series.record(1, Some(503), None, Some(Reason::NoEndpoint), FAST);
    let first = told.next(&metrics);
    let (number, edge) = &first.named[0];
    assert_eq!((&*edge.host, &*edge.route, edge.way, edge.mtls), ("reviews", "a", Way::Outbound, true));
    let counts = of(&first, *number).unwrap();
    assert_eq!((counts.ends(), counts.failures(Carried::Http), counts.sent), (3, 1, 70));
    assert_eq!((counts.latencies.count(), counts.latencies.micros()), (3, 104_000));
    assert!(told.next(&metrics).is_empty());

    series.record(0, Some(200), None, None, FAST);
    let second = told.next(&metrics);
    assert!(second.named.is_empty(), "it has its name already");
    let counts = of(&second, *number).unwrap();
    assert_eq!((counts.ends(), counts.latencies.count(), counts.sent), (1, 1, 0));

    told.begin();
    assert!(told.next(&metrics).is_empty(), "on another stream, too, only what is new");
    series.record(0, Some(200), None, None, FAST);
    let third = told.next(&metrics);
    assert_eq!((third.named.len(), of(&third, *number).unwrap().ends()), (1, 1), "and its name again");
}

#[test]
fn connections_are_told_when_they_come_and_when_they_end() {
    let (metrics, mut told) = (Metrics::new(1), TrafficTold::default());
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let series = metrics.tcp(&Labels::inbound(&own(), 5432, Some(&identity)));
    series.opened(0);
    series.opened(0);
    series.refused(0, Reason::Policy);

    let first = told.next(&metrics);
    let (number, edge) = &first.named[0];
    assert_eq!((edge.carried, edge.port, edge.client.as_ref()), (Carried::Tcp, 5432, Some(&identity)));
    let counts = of(&first, *number).unwrap();
    assert_eq!((counts.connections, counts.ends(), counts.failures(Carried::Tcp)), (3, 1, 1));

    series.closed(0, None);
    let counts = told.next(&metrics);
    let counts = of(&counts, *number).unwrap();
    assert_eq!((counts.connections, counts.ends(), counts.failures(Carried::Tcp)), (0, 1, 0));
}

#[test]
fn of_more_edges_than_numbers_each_gets_its_turn() {
    let (metrics, mut told) = (Metrics::new(1), TrafficTold::default());
    let all: Vec<_> =
        (0..MOST_EDGES + 50).map(|route| metrics.series(&outbound(&format!("route-{route}")))).collect();
    for series in &all {
        series.record(0, Some(200), None, None, FAST);
    }

    let mut names = BTreeMap::new();
    let mut sum = 0;
    for _ in 0..20 {
        let next = told.next(&metrics);
        let mut report = wire::Report::default();
        selvedge_api::convert::put_traffic(&next, &mut report);
        assert!(report.encoded_len() <= MOST_BYTES + 4096, "{} bytes", report.encoded_len());
        names.extend(next.named);
        sum += next
            .counts
            .iter()
            .map(|(number, counts)| {
                assert!(names.contains_key(number), "it was named before");
                counts.ends()
            })
            .sum::<u64>();
    }
    assert_eq!(sum, all.len() as u64);
    assert!(names.keys().all(|number| (*number as usize) < MOST_EDGES));

    drop(all);
    assert!(told.next(&metrics).is_empty());
}
