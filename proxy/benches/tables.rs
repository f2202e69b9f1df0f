//! What it costs to make balancers, and to pick with them, by the number of endpoints.
//!
//! `cargo bench -p selvedge-proxy` tells how long it takes to make each. That happens on the control thread when endpoints
//! change, never for a request. The goal is 5 ms for a ring of 10,000.
//!
//! `cargo bench -p selvedge-proxy -- picks BALANCER ENDPOINTS COUNT` picks so many times. Under `valgrind --tool=callgrind` (or
//! `perf stat -e instructions:u`) two runs of different counts tell what a pick takes in instructions, on any machine.

use std::{
    env,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use selvedge_model::{ConsistentHash, HashKey, HashTable, LoadBalancer, TrafficPolicy};
use selvedge_proxy::balance::{Balancer, Candidate, Load, Member, PickFacts};

/// Each is made so often; the one in the middle is told.
const ROUNDS: usize = 21;

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    match &words[..] {
        [mode, name, endpoints, count] if mode == "picks" => {
            let number = |text: &str| -> u32 { text.parse().expect("a number") };
            let (_, how) = balancers().into_iter().find(|(one, _)| one == name).expect("a balancer");
            picks(how, number(endpoints), number(count));
        }
        _ => {
            for endpoints in [10, 100, 1_000, 10_000] {
                let times = balancers().map(|(name, how)| format!("{name} {:.1?}", time(how, endpoints)));
                println!("{endpoints} endpoints: {}", times.join(", "));
            }
        }
    }
}

fn balancers() -> [(&'static str, LoadBalancer); 8] {
    let hash = |table, load_bound| {
        LoadBalancer::ConsistentHash(ConsistentHash { key: HashKey::SourceAddress, table, load_bound })
    };
    [
        ("least-request", LoadBalancer::LeastRequest),
        ("round-robin", LoadBalancer::RoundRobin),
        ("random", LoadBalancer::Random),
        ("passthrough", LoadBalancer::Passthrough),
        ("peak-ewma", LoadBalancer::PeakEwma),
        ("ring", hash(HashTable::RING, None)),
        ("maglev", hash(HashTable::MAGLEV, None)),
        ("bounded-ring", hash(HashTable::RING, Some(125))),
    ]
}

fn members(endpoints: u32) -> Vec<Member> {
    let first = u32::from(Ipv4Addr::new(10, 1, 0, 1));
    let member = |host| Member {
        address: SocketAddr::from((Ipv4Addr::from(first + host), 8080)),
        weight: 1,
        occupant: 0,
    };
    (0..endpoints).map(member).collect()
}

fn policy(load_balancer: LoadBalancer) -> TrafficPolicy {
    TrafficPolicy { load_balancer, ..TrafficPolicy::default() }
}

/// How long it takes to make such a balancer.
fn time(how: LoadBalancer, endpoints: u32) -> Duration {
    let (policy, members) = (policy(how), members(endpoints));
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let balancer = black_box(Balancer::new(&policy, black_box(&members), None, start));
            let time = start.elapsed();
            assert_eq!(balancer.unmade().count(), 0, "it is made at once");
            time
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// An endpoint.
struct One {
    in_flight: AtomicU32,
    load: Option<Arc<Load>>,
}

impl Candidate for One {
    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn out_until(&self, _: Instant) -> Option<u64> {
        None
    }

    fn latency(&self, _: Instant) -> Option<f64> {
        Some(1_000_000.0)
    }

    fn load(&self) -> Option<&Arc<Load>> {
        self.load.as_ref()
    }
}

/// Picks so many times, each request being over when 64 more have begun.
fn picks(how: LoadBalancer, endpoints: u32, count: u32) {
    let members = members(endpoints);
    let balancer = Balancer::new(&policy(how), &members, None, Instant::now());
    let one = |index| One {
        in_flight: AtomicU32::new(0),
        load: balancer.total_of(index).map(|total| Arc::new(Load::new(total))),
    };
    let candidates: Vec<One> = (0..members.len()).map(one).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut in_flight = std::collections::VecDeque::with_capacity(65);
    let now = Instant::now();
    for _ in 0..count {
        let facts = PickFacts { tried: &[], now, hash: Some(rng.u64(..)), dialled: None, ejection: None };
        let index = balancer.pick(&candidates, &facts, &mut rng).expect("there are some");
        let one = &candidates[black_box(index)];
        one.in_flight.fetch_add(1, Ordering::Relaxed);
        in_flight.push_back((index, one.load.as_ref().map(Load::begin)));
        if in_flight.len() > 64 {
            let (index, _ended) = in_flight.pop_front().expect("there are some");
            candidates[index].in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
