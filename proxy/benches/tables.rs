//! What it costs to make the tables of consistent hashing, by the number of endpoints: `cargo bench -p selvedge-proxy`.
//!
//! It happens on the control thread when endpoints change, never for a request. The goal is 5 ms for a ring of 10,000.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use selvedge_model::{ConsistentHash, HashKey, HashTable, LoadBalancer, TrafficPolicy};
use selvedge_proxy::balance::{Balancer, Member};

/// Each is made so often; the one in the middle is told.
const ROUNDS: usize = 21;

fn main() {
    for endpoints in [10, 100, 1_000, 10_000] {
        let (ring, maglev) = (time(HashTable::RING, endpoints), time(HashTable::MAGLEV, endpoints));
        println!("{endpoints} endpoints: a ring {ring:.1?}, a table of Maglev {maglev:.1?}");
    }
}

/// How long it takes to make a balancer with such a table.
fn time(table: HashTable, endpoints: u32) -> Duration {
    let hash = ConsistentHash { key: HashKey::SourceAddress, table, load_bound: None };
    let policy =
        TrafficPolicy { load_balancer: LoadBalancer::ConsistentHash(hash), ..TrafficPolicy::default() };
    let first = u32::from(Ipv4Addr::new(10, 1, 0, 1));
    let member = |host| Member { address: SocketAddr::from((Ipv4Addr::from(first + host), 8080)), weight: 1 };
    let members: Vec<Member> = (0..endpoints).map(member).collect();
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
