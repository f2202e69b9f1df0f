use proptest::prelude::*;

use super::*;

fn end(status: Option<u16>, grpc_status: Option<u8>, reason: Option<Reason>) -> End {
    End::new(&Ended { status, grpc_status, reason, ..Ended::default() })
}

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

    let end = |status, grpc_status, reason| Some(end(status, grpc_status, reason));
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
fn an_interface_with_several_methods_has_room_for_what_it_answers() {
    let series = series(1);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let method = Some(Method::of(&method.parse().unwrap()));
        for status in [200, 201, 202, 204, 304, 400, 401, 403, 404, 409, 422, 503] {
            series.ended(0, &Ended { status: Some(status), method, ..Ended::default() });
        }
    }

    let counts = series.counts();
    assert_eq!((counts.len(), counts.get(&None)), (60, None));
}

#[test]
fn methods_are_told_apart_and_each_end_is_measured_where_that_is_asked_for() {
    let (plain, by_end) = (series(1), series(1).by_end());
    let measure = Measure { sent: 7, ..Measure::default() };
    for series in [&plain, &by_end] {
        for method in [http::Method::GET, http::Method::POST, http::Method::GET] {
            let method = Some(Method::of(&method));
            series.ended(0, &Ended { status: Some(200), method, measure, ..Ended::default() });
        }
    }

    let counts: Vec<u64> = plain.counts().into_values().collect();
    assert_eq!((counts, plain.bytes_sent()), (vec![2, 1], 21));
    assert!(plain.measured().is_empty());
    let measured = by_end.measured().into_iter();
    let measured: Vec<_> = measured.map(|(end, sum)| (end.method.map(Method::word), sum.count())).collect();
    assert_eq!(measured, [(Some("GET"), 2), (Some("POST"), 1)]);
}

#[test]
fn every_reason_can_be_told() {
    for reason in Reason::ALL {
        let end = End::unpack(end(Some(503), None, Some(reason)).pack());
        assert_eq!(end.error_type(), Some(reason.word()));
    }
}

#[test]
fn a_grpc_status_that_does_not_exist_is_unknown() {
    assert_eq!(end(Some(200), Some(99), None).grpc_status, Some(2));
}

proptest! {
    #[test]
    fn an_end_survives_packing(
        status in proptest::option::of(0_u16..1024),
        grpc_status in proptest::option::of(0_u8..=16),
        reason in proptest::option::of(0..Reason::ALL.len()),
        method in proptest::option::of(0_u8..10),
    ) {
        let (reason, method) = (reason.map(|index| Reason::ALL[index]), method.map(Method::numbered));
        let end = End::new(&Ended { status, grpc_status, reason, method, ..Ended::default() });
        prop_assert_ne!(end.pack(), 0);
        prop_assert_eq!(End::unpack(end.pack()), end);
    }
}
