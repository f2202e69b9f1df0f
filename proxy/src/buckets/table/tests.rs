use std::collections::HashMap;

use proptest::prelude::*;

use super::{super::rate::Bucket, *};

const SECOND: u64 = 1_000_000_000;

fn rate(requests: u32, burst: u32) -> Rate {
    Rate::new(requests, Duration::from_secs(1), burst)
}

/// One bucket for each client, and no bound.
#[derive(Default)]
struct Naive(HashMap<u32, Bucket>);

impl Naive {
    fn take(&mut self, client: u32, rate: &Rate, now: u64) -> Result<Taken, Refused> {
        self.0.entry(client).or_default().take(rate, now)
    }
}

proptest! {
    #[test]
    fn a_table_that_has_room_decides_as_one_without_a_bound(
        requests in 1..20_u32,
        burst in 1..10_u32,
        calls in prop::collection::vec((0..WAYS as u32, 0..SECOND / 4), 1..300),
    ) {
        let (table, overflow, mut naive) = (Buckets::with_sets(1), Overflow::default(), Naive::default());
        let (rate, mut now) = (rate(requests, burst), 1);
        for (client, gap) in calls {
            now += gap;
            let taken = table.take(table.key(client), &rate, &overflow, now);
            prop_assert_eq!(taken, naive.take(client, &rate, now));
        }
    }

    #[test]
    fn a_table_without_room_never_lets_in_more(
        requests in 1..20_u32,
        burst in 1..10_u32,
        calls in prop::collection::vec((0..10 * WAYS as u32, 0..SECOND / 100), 1..600),
    ) {
        let (table, overflow, mut naive) = (Buckets::with_sets(1), Overflow::default(), Naive::default());
        let (rate, mut now) = (rate(requests, burst), 1);
        for (client, gap) in calls {
            now += gap;
            if table.take(table.key(client), &rate, &overflow, now).is_ok() {
                prop_assert!(naive.take(client, &rate, now).is_ok(), "client {}", client);
            }
        }
    }

    #[test]
    fn a_flood_of_new_clients_changes_nothing_for_known_ones(
        burst in 1..10_u32,
        calls in prop::collection::vec((0..WAYS as u32 / 2, 0..SECOND), 1..100),
        flood in 0..40_u32,
    ) {
        let (table, overflow, mut naive) = (Buckets::with_sets(1), Overflow::default(), Naive::default());
        let (rate, mut now, mut stranger) = (rate(5, burst), 1, 1_000);
        for client in 0..WAYS as u32 / 2 {
            for _ in 0..2 {
                let taken = table.take(table.key(client), &rate, &overflow, now);
                prop_assert_eq!(taken, naive.take(client, &rate, now));
                now += SECOND;
            }
        }
        for (client, gap) in calls {
            // Twice each: strangers try to become known, too.
            for _ in 0..2 * flood {
                let _ = table.take(table.key(stranger + flood % 2), &rate, &overflow, now);
                stranger += 1;
            }
            now += gap.min(KEPT.as_nanos() as u64 / WAYS as u64);
            let taken = table.take(table.key(client), &rate, &overflow, now);
            prop_assert_eq!(taken, naive.take(client, &rate, now), "client {}", client);
            // All of them keep calling.
            for client in 0..WAYS as u32 / 2 {
                let taken = table.take(table.key(client), &rate, &overflow, now);
                prop_assert_eq!(taken, naive.take(client, &rate, now), "client {}", client);
            }
        }
    }
}

#[test]
fn a_hundred_thousand_clients_have_a_bucket_each() {
    let (table, overflow) = (Buckets::default(), Overflow::default());
    let rate = rate(1, 2);
    let admitted = |_| {
        let all = (0..100_000_u32).map(|client| table.take(table.key(client), &rate, &overflow, 1));
        all.filter(Result::is_ok).count()
    };
    let [first, second, third] = [0, 1, 2].map(admitted);

    // One in some ten thousand may find its set full.
    assert!((99_800..=100_000).contains(&first), "{first}");
    assert!((99_800..=100_000).contains(&second), "{second}");
    assert_eq!(third, 0);
}

#[test]
fn the_table_takes_four_mebibytes() {
    assert_eq!(size_of::<Set>() * SETS, 4 << 20);
}

#[test]
fn a_client_that_is_gone_leaves_its_place() {
    let (table, overflow) = (Buckets::with_sets(1), Overflow::default());
    let rate = rate(1, 1);
    let mut now = 1;
    for client in 0..WAYS as u32 {
        for _ in 0..2 {
            assert!(table.take(table.key(client), &rate, &overflow, now).is_ok());
            now += SECOND;
        }
    }
    // All places are of known clients: newcomers share.
    let newcomer = table.key(99);
    assert!(table.set(newcomer).take_place(newcomer, now).is_none());
    assert!(table.set(newcomer).take_place(newcomer, now + 2 * KEPT.as_nanos() as u64).is_some());
}

#[test]
fn workers_that_take_at_the_same_time_take_no_more_than_there_is() {
    let (table, overflow) = (Buckets::with_sets(4), Overflow::default());
    let rate = Rate::new(1, Duration::from_secs(3600), 100);
    let keys: Vec<Key> = (0..8).map(|client| table.key(client)).collect();
    // Each has its place already; see the module about clients that come at the same nanosecond.
    assert!(keys.iter().all(|key| table.take(*key, &rate, &overflow, 1).is_ok()));
    let taken: usize = std::thread::scope(|scope| {
        let take = || {
            let calls = (0..200).flat_map(|_| &keys);
            calls.filter(|key| table.take(**key, &rate, &overflow, 1).is_ok()).count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(taken, 8 * 99);
}

#[test]
fn a_burst_that_takes_centuries_to_come_back_lets_in_no_more_than_it_says() {
    let (table, overflow) = (Buckets::with_sets(1), Overflow::default());
    let rate = Rate::new(1, Duration::from_secs(24 * 60 * 60), 1_000_000);
    let (key, now) = (table.key(1), table.clock(Instant::now()));

    let taken = (0..1_000_000).take_while(|_| table.take(key, &rate, &overflow, now).is_ok()).count();

    assert_eq!(taken, rate.burst() as usize);
}
