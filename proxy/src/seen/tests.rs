//! Who is kept, who is not, and what is told of it when.

use selvedge_api::wire;

use super::*;

fn identity(name: &str) -> Caller {
    Caller::Identity(format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap())
}

fn address(number: u32) -> Caller {
    Caller::Address(std::net::Ipv4Addr::from(number).into())
}

/// The ports of each caller in a report, with how long ago.
fn told(report: &wire::Report) -> Vec<(u32, u64)> {
    let ports = report.callers.iter().flat_map(|caller| &caller.ports);
    ports.map(|port| (port.port, port.seconds_ago)).collect()
}

#[test]
fn an_open_connection_is_now_and_a_closed_one_is_a_while_ago() {
    let seen = Seen::new(1);
    let open = seen.note(0, identity("web"), 80).unwrap();

    assert_eq!(seen.take(5000).0[&identity("web")], [Called { port: 80, seconds_ago: 0 }]);
    drop(open);
    assert_eq!(seen.take(30).0[&identity("web")], [Called { port: 80, seconds_ago: 30 }]);
    assert!(seen.take(LATELY + 10).0.is_empty(), "an hour later it is forgotten");
}

#[test]
fn workers_are_one_to_who_asks() {
    let seen = Seen::new(2);
    let _open = seen.note(1, identity("web"), 80);
    drop(seen.note(0, identity("web"), 80));
    drop(seen.note(0, identity("web"), 90));

    let called = &seen.take(7).0[&identity("web")];
    assert_eq!(called, &[Called { port: 80, seconds_ago: 0 }, Called { port: 90, seconds_ago: 7 }]);
    assert!(seen.note(2, identity("web"), 80).is_none(), "there is no such worker");
}

#[test]
fn strangers_with_many_addresses_push_out_nobody_and_are_counted() {
    let seen = Seen::new(1);
    drop(seen.note(0, identity("web"), 80));
    drop(seen.note(0, address(1), 80));
    for number in 2..100_000 {
        drop(seen.note(0, address(number), 80));
    }
    drop(seen.note(0, identity("other"), 80));

    let (known, left_out) = seen.take(1);
    assert_eq!(known.len(), 2 + MOST_CALLERS);
    assert!([identity("web"), identity("other"), address(1)].iter().all(|one| known.contains_key(one)));
    assert_eq!(left_out, 99_999 - MOST_CALLERS as u64);
    assert_eq!(seen.take(1).1, 0, "it is told once");
}

#[test]
fn of_one_caller_only_so_many_ports_are_kept() {
    let seen = Seen::new(1);
    for port in 1..=1000 {
        drop(seen.note(0, identity("web"), port));
    }
    drop(seen.note(0, identity("other"), 80));

    let (known, left_out) = seen.take(1);
    assert_eq!((known[&identity("web")].len(), left_out), (MOST_PORTS, 1000 - MOST_PORTS as u64));
    assert_eq!(known[&identity("other")].len(), 1);
}

#[test]
fn who_has_not_called_for_long_makes_room() {
    let mut shard = Shard::default();
    for number in 0..2 * u32::try_from(MOST_CALLERS).unwrap() {
        shard.edge(address(number), 80, 0);
    }
    assert_eq!((shard.plain, shard.left_out), (MOST_CALLERS, MOST_CALLERS as u64));

    assert!(shard.edge(address(5000), 80, LATELY + SWEEP_EVERY).is_some());
    assert_eq!(shard.plain, 1);
}

#[test]
fn only_what_is_new_is_told_and_what_goes_on_again_after_a_while() {
    let (seen, mut stream) = (Seen::new(1), Told::default());

    let first = stream.next_at(&seen, 0).expect("that there is nobody yet");
    assert!(first.callers.is_empty());
    assert!(stream.next_at(&seen, 15).is_none());
    let open = seen.note(0, identity("web"), 80);
    assert_eq!(told(&stream.next_at(&seen, 30).unwrap()), [(80, 0)]);
    assert!(stream.next_at(&seen, 45).is_none());
    drop(seen.note(0, identity("web"), 90));
    assert_eq!(told(&stream.next_at(&seen, 60).unwrap()), [(90, 60)]);
    assert_eq!(told(&stream.next_at(&seen, 700).unwrap()), [(80, 0)], "it is still open");
    drop(open);
    assert_eq!(told(&Told::default().next_at(&seen, 720).unwrap()), [(80, 720), (90, 720)], "a new stream");
}

#[test]
fn calls_that_were_refused_are_told_once_in_a_while_and_only_so_many_are_kept() {
    let (seen, mut stream) = (Seen::new(1), Told::default());
    let (target, rule) = ("10.0.0.1:80".parse().unwrap(), Arc::from("NetworkPolicy shop/web"));
    drop(stream.next_at(&seen, 0));

    seen.note_refused(0, target, &rule);
    let told = stream.next_at(&seen, 15).unwrap().refused;
    assert_eq!(
        (&*told[0].target, &*told[0].policy, told.len()),
        ("10.0.0.1:80", "NetworkPolicy shop/web", 1)
    );
    seen.note_refused(0, target, &rule);
    assert!(stream.next_at(&seen, 30).is_none());
    for port in 0..2000 {
        seen.note_refused(0, SocketAddr::new(target.ip(), port), &rule);
    }
    assert_eq!(Told::default().next_at(&seen, 45).unwrap().refused.len(), MOST_REFUSED);
    assert!(Told::default().next_at(&seen, LATELY + 100).unwrap().refused.is_empty());
}

#[test]
fn a_report_has_an_end_and_the_next_has_the_rest() {
    let (seen, mut stream) = (Seen::new(1), Told::default());
    let long = "a".repeat(250);
    for number in 0..MOST_CALLERS {
        let namespace = format!("{long}.{number}");
        let namespace = &namespace[namespace.len() - 250..];
        let identity = format!("spiffe://{long}/ns/{namespace}/sa/{long}");
        drop(seen.note(0, Caller::Identity(identity.parse().unwrap()), 80));
    }

    let (first, second) = (stream.next_at(&seen, 0).unwrap(), stream.next_at(&seen, 15).unwrap());
    assert!(prost::Message::encoded_len(&first) <= (128 << 10) + 64);
    let mut all = first.callers.len() + second.callers.len();
    while let Some(more) = stream.next_at(&seen, 30) {
        all += more.callers.len();
    }
    assert_eq!(all, MOST_CALLERS);
}
