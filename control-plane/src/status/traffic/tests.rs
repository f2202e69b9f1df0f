use selvedge_model::traffic::{Carried, Outcome, Way};

use super::*;

fn name(text: &str) -> WorkloadName {
    text.parse().unwrap()
}

fn identity() -> SpiffeId {
    "spiffe://td/ns/a/sa/b".parse().unwrap()
}

fn edge(route: u64) -> Arc<Edge> {
    Arc::new(Edge {
        way: Way::Outbound,
        carried: Carried::Http,
        host: "reviews".into(),
        port: 80,
        route: route.to_string().into(),
        subset: "".into(),
        backend: "".into(),
        mtls: true,
        client: None,
    })
}

fn requests(count: u64) -> Counts {
    let mut counts = Counts::default();
    counts.ended(&Outcome { status: Some(200), ..Outcome::default() }, count);
    counts
}

/// One request on each of so many edges.
fn report(edges: u64) -> TrafficReport {
    let edges = (0..edges).map(|route| (edge(route), requests(1))).collect();
    TrafficReport { edges, watched: 100, ..TrafficReport::default() }
}

fn ends(seen: &TrafficSeen, workload: &str) -> u64 {
    seen.workloads.get(&name(workload)).map_or(0, |one| one.edges.iter().map(|one| one.counts.ends()).sum())
}

#[test]
fn what_is_told_is_added_up_for_an_hour() {
    let (mut inner, start) = (Inner::new(BYTES), KEPT);
    for now in [start, start + 15, start + 600] {
        assert_eq!(inner.tell(&name("a/b"), &identity(), report(2), now), 0);
    }

    let seen = inner.seen(KEPT, start + 610);
    assert_eq!(ends(&seen, "a/b"), 6);
    assert_eq!(seen.workloads[&name("a/b")].seconds, 615, "it is not known for longer");
    assert_eq!(ends(&inner.seen(60, start + 610), "a/b"), 2);
    assert_eq!(ends(&inner.seen(KEPT, start + 600 + KEPT - 1), "a/b"), 2);
    let text = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<TrafficSeen>(&text).unwrap(), seen);

    assert!(inner.seen(KEPT, start + 700 + KEPT).workloads.is_empty());
    assert_eq!(inner.bytes, 0);
}

#[test]
fn a_sidecar_that_says_much_takes_no_more_than_its_share_and_what_is_dropped_is_counted() {
    let mut inner = Inner::new(BYTES);
    let more = 10 + MOST_OF_ONE as u64;
    assert_eq!(inner.tell(&name("a/noisy"), &identity(), report(more), KEPT), 10);
    inner.tell(&name("a/quiet"), &identity(), report(1), KEPT);

    let seen = inner.seen(60, KEPT + 1);
    assert_eq!((ends(&seen, "a/noisy"), ends(&seen, "a/quiet"), seen.dropped), (more - 10, 1, 10));
    for now in (KEPT..2 * KEPT).step_by(15) {
        inner.tell(&name("a/noisy"), &identity(), report(more), now);
        assert!(inner.workloads[&name("a/noisy")].bytes <= BYTES.of_one + 1_000);
    }
    let known = &inner.workloads[&name("a/noisy")];
    assert!((KEPT_AT_LEAST..KEPT).contains(&known.kept), "less than an hour of it is kept: {} s", known.kept);
    assert_eq!(inner.kept, KEPT, "and an hour of all others");
}

#[test]
fn if_all_together_is_too_much_less_than_an_hour_is_kept_and_that_is_said() {
    let mut inner = Inner::new(Bytes { of_one: 1 << 20, of_all: 100_000 });
    for now in (KEPT..2 * KEPT).step_by(15) {
        for workload in ["a/a", "a/b", "a/c"] {
            inner.tell(&name(workload), &identity(), report(10), now);
        }
        assert!(inner.bytes <= 100_000 + 1_000, "{}", inner.bytes);
    }

    let seen = inner.seen(KEPT, 2 * KEPT);
    assert!((KEPT_AT_LEAST..KEPT).contains(&seen.kept_seconds), "{}", seen.kept_seconds);
    assert_eq!(ends(&inner.seen(60, 2 * KEPT), "a/c"), 40, "what is newest is there");
    let all = inner.workloads.values();
    assert_eq!(inner.bytes, all.map(|known| known.bytes).sum::<usize>());
}

#[test]
fn an_endpoint_is_out_until_its_time_is_over_or_the_sidecar_says_otherwise() {
    let traffic = Traffic::new(Arc::default());
    let out = |left: Option<u64>| Out {
        backend: selvedge_model::BackendName {
            service: selvedge_model::ServiceKey::new("reviews", 80),
            subset: None,
        },
        address: "10.0.0.1:80".parse().unwrap(),
        left: left.map(Duration::from_secs),
        why: "consecutive-5xx".into(),
        last_failure: "503".into(),
    };
    let tell = |out: Option<Vec<Out>>| {
        let report = TrafficReport { out, ..TrafficReport::default() };
        traffic.tell(&name("a/b"), &identity(), report);
    };
    tell(Some(vec![out(Some(3000)), out(None)]));
    tell(None);
    assert_eq!(traffic.out().len(), 2);

    tell(Some(vec![]));
    assert!(traffic.out().is_empty());
}
