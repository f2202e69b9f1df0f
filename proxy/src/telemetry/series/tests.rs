use proptest::prelude::*;

use super::*;

fn series(workers: usize) -> Series {
    Series::new(None, workers, Arc::new(Durations::new(None, workers)))
}

#[test]
fn counts_of_all_workers_are_added_up() {
    let series = series(2);
    let millisecond = Duration::from_millis(1);
    series.record(0, Some(200), None, None, millisecond);
    series.record(1, Some(200), None, None, millisecond);
    series.record(1, Some(503), None, Some(Reason::NoEndpoint), millisecond);
    series.record(1, Some(200), Some(14), None, millisecond);
    series.record(0, None, None, None, millisecond);

    let end = |status, grpc_status, reason| Some(End::new(status, grpc_status, reason));
    let expected = BTreeMap::from([
        (end(Some(200), None, None), 2),
        (end(Some(503), None, Some(Reason::NoEndpoint)), 1),
        (end(Some(200), Some(14), None), 1),
        (end(None, None, None), 1),
    ]);
    assert_eq!(series.counts(), expected);
}

#[test]
fn more_ends_than_there_is_room_for_are_counted_together() {
    let series = series(1);
    for status in 200..200 + 2 * ENDS as u16 {
        series.record(0, Some(status), None, None, Duration::ZERO);
    }

    let counts = series.counts();
    assert_eq!(counts.len(), ENDS + 1);
    assert_eq!(counts[&None], ENDS as u64);
}

#[test]
fn a_duration_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
    let durations = Durations::new(None, 1);
    let (first, last) = (Duration::from_millis(1), Duration::from_secs(10));
    let just = Duration::from_nanos(1);
    for duration in [Duration::ZERO, first, first + just, last, last + just] {
        durations.record(0, duration);
    }

    let histogram = durations.histogram();
    assert_eq!(histogram.count, 5);
    assert_eq!(histogram.sum, 2 * (first + last) + 2 * just);
    assert_eq!(histogram.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn every_reason_can_be_told() {
    for reason in Reason::ALL {
        let end = End::unpack(End::new(Some(503), None, Some(reason)).pack());
        assert_eq!(end.error_type(), Some(reason.word()));
    }
}

#[test]
fn a_grpc_status_that_does_not_exist_is_unknown() {
    assert_eq!(End::new(Some(200), Some(99), None).grpc_status, Some(2));
}

proptest! {
    #[test]
    fn an_end_survives_packing(
        status in proptest::option::of(0_u16..1024),
        grpc_status in proptest::option::of(0_u8..=16),
        reason in proptest::option::of(0..Reason::ALL.len()),
    ) {
        let end = End::new(status, grpc_status, reason.map(|index| Reason::ALL[index]));
        prop_assert_ne!(end.pack(), 0);
        prop_assert_eq!(End::unpack(end.pack()), end);
    }
}
