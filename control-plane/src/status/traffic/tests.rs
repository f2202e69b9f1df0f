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

fn seen_in(inner: &mut Inner, since: u64, now: u64) -> TrafficSeen {
    inner.since(since, now).read()
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

    let seen = seen_in(&mut inner, KEPT, start + 610);
    assert_eq!(ends(&seen, "a/b"), 6);
    assert_eq!(seen.workloads[&name("a/b")].seconds, 615, "it is not known for longer");
    assert_eq!(ends(&seen_in(&mut inner, 60, start + 610), "a/b"), 2);
    assert_eq!(ends(&seen_in(&mut inner, KEPT, start + 600 + KEPT - 1), "a/b"), 2);
    let text = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<TrafficSeen>(&text).unwrap(), seen);

    assert!(seen_in(&mut inner, KEPT, start + 700 + KEPT).workloads.is_empty());
    assert_eq!(inner.bytes, 0);
}

#[test]
fn the_first_of_what_is_shown_is_of_the_time_since_the_report_before() {
    for phase in 0..15 {
        let mut inner = Inner::new(BYTES);
        // One request in a second, told every fifteen.
        for told in (0..40).map(|count| KEPT + phase + 15 * count) {
            let report = TrafficReport { edges: vec![(edge(0), requests(15))], ..report(0) };
            inner.tell(&name("a/b"), &identity(), report, told);
        }
        let last = KEPT + phase + 15 * 39;
        for (since, now) in
            [15, 30, 60, 100].into_iter().flat_map(|since| [(since, last), (since, last + 14)])
        {
            let seen = seen_in(&mut inner, since, now);
            let seconds = seen.workloads[&name("a/b")].seconds;
            assert_eq!(ends(&seen, "a/b"), seconds, "the last {since} s at {now}, phase {phase}");
        }
    }
}

#[test]
fn a_sidecar_that_says_much_takes_no_more_than_its_share_and_what_is_dropped_is_counted() {
    let mut inner = Inner::new(BYTES);
    let more = 10 + MOST_OF_ONE as u64;
    assert_eq!(inner.tell(&name("a/noisy"), &identity(), report(more), KEPT), 10);
    inner.tell(&name("a/quiet"), &identity(), report(1), KEPT);

    let seen = seen_in(&mut inner, 60, KEPT + 1);
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
fn a_connection_that_is_dropped_is_counted_once() {
    let mut inner = Inner::new(Bytes { of_one: 0, of_all: 0 });
    let edge = Arc::new(Edge { carried: Carried::Tcp, ..Edge::clone(&edge(0)) });
    let tell = |inner: &mut Inner, counts: Counts| {
        let report = TrafficReport { edges: vec![(Arc::clone(&edge), counts)], ..TrafficReport::default() };
        inner.tell(&name("a/b"), &identity(), report, KEPT)
    };
    tell(&mut inner, Counts { connections: 1, ..Counts::default() });

    // Three come, of which two end at once; the third ends later.
    assert_eq!(tell(&mut inner, Counts { connections: 3, ..requests(2) }), 3);
    assert_eq!(tell(&mut inner, requests(1)), 0);
    assert_eq!(inner.dropped, 3);
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

    let seen = seen_in(&mut inner, KEPT, 2 * KEPT);
    assert!((KEPT_AT_LEAST..KEPT).contains(&seen.kept_seconds), "{}", seen.kept_seconds);
    assert_eq!(ends(&seen_in(&mut inner, 60, 2 * KEPT), "a/c"), 40, "what is newest is there");
    let all = inner.workloads.values();
    assert_eq!(inner.bytes, all.map(|known| known.bytes).sum::<usize>());
}

#[test]
fn a_few_that_say_much_do_not_silence_the_others() {
    let mut inner = Inner::new(Bytes { of_one: 60_000, of_all: 100_000 });
    let loud = ["a/a", "a/b", "a/c"];
    for now in (KEPT..2 * KEPT).step_by(15) {
        for number in 0..5 {
            let quiet = name(&format!("b/{number}"));
            assert_eq!(inner.tell(&quiet, &identity(), report(1), now), 0, "{quiet}");
        }
        for workload in loud {
            inner.tell(&name(workload), &identity(), report(200), now);
        }
        assert!(inner.bytes <= 150_000, "{}", inner.bytes);
    }

    let seen = seen_in(&mut inner, KEPT, 2 * KEPT);
    assert_eq!(seen.kept_seconds, KEPT, "an hour of those that have little");
    assert_eq!(ends(&seen, "b/3"), 240);
    assert!(seen.dropped > 0 && loud.iter().any(|one| inner.workloads[&name(one)].kept < KEPT));
}

#[test]
fn an_answer_that_would_be_too_long_has_the_busiest_edges_of_those_that_have_much() {
    let mut inner = Inner::new(BYTES);
    inner.tell(&name("a/loud"), &identity(), report(500), KEPT);
    let busy = TrafficReport { edges: vec![(edge(7), requests(9))], ..TrafficReport::default() };
    inner.tell(&name("a/loud"), &identity(), busy, KEPT);
    inner.tell(&name("a/quiet"), &identity(), report(3), KEPT);

    let mut seen = seen_in(&mut inner, 60, KEPT + 1);
    let whole = seen.clone();
    seen.keep_within(1 << 20);
    assert_eq!(seen, whole, "there is room");
    seen.keep_within(20_000);
    let loud = &seen.workloads[&name("a/loud")];
    assert_eq!((loud.edges[0].edge.route.as_ref(), loud.edges[0].counts.ends()), ("7", 10));
    assert_eq!((ends(&seen, "a/loud") + loud.left_out, ends(&seen, "a/quiet")), (509, 3));
    assert!(loud.edges.iter().map(EdgeTraffic::bytes).sum::<usize>() <= 10_000);
}

#[test]
fn looking_often_does_not_change_how_long_is_kept() {
    let mut inner = Inner::new(Bytes { of_one: 1 << 20, of_all: 100_000 });
    (inner.kept, inner.swept_at) = (600, KEPT);
    for _ in 0..10 {
        assert_eq!(seen_in(&mut inner, 60, KEPT + 1).kept_seconds, 600);
    }
    assert_eq!(seen_in(&mut inner, 60, KEPT + SWEEP_EVERY).kept_seconds, 600 + SWEEP_EVERY);
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
