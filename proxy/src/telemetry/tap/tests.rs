use super::*;
use crate::telemetry::finish::tests::{begun_of, begun_with, series};

fn shown(receiver: &mut mpsc::Receiver<(u64, Sample)>) -> Vec<(u64, Sample)> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

#[test]
fn a_request_is_shown_to_those_who_ask_for_it_and_its_secrets_to_those_who_name_them() {
    let (tap, unknown) = (Arc::new(Tap::default()), series());
    let mut samples = tap.samples().expect("nobody has taken them");
    assert!(tap.samples().is_none());
    let one = || begun_with(&unknown, &tap).finish(true, Instant::now());
    one();
    assert!(shown(&mut samples).is_empty(), "nobody asks");

    let plain = Wanted { headers: true, reveal: Some("x-request-id".to_owned()), ..Wanted::default() };
    let other = Wanted { path: Some("/other".to_owned()), ..Wanted::default() };
    tap.set(vec![(1, plain), (2, other), (3, Wanted { query: true, ..Wanted::default() })]);
    one();

    let shown = shown(&mut samples);
    assert_eq!(shown.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
    let (first, second) = (&shown[0].1, &shown[1].1);
    let value = |name: &str| first.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    assert_eq!((value("x-request-id"), value("host")), (Some("one-two"), Some(REDACTED)));
    assert_eq!((&first.query, second.query.as_deref()), (&None, Some("token=secret")));
    assert!(second.headers.is_empty() && first.path == "/reviews/0");
    assert_eq!(first.client_identity.as_ref().map(SpiffeId::service_account), Some("frontend"));

    tap.set(vec![]);
    one();
    assert!(samples.try_recv().is_err());
}

#[test]
fn nothing_is_shown_of_what_stands_for_a_request_that_could_not_be_read() {
    let (tap, unknown) = (Arc::new(Tap::default()), series());
    let mut samples = tap.samples().expect("nobody has taken them");
    let path = Wanted { path: Some("/".to_owned()), ..Wanted::default() };
    let method = Wanted { method: Some(REFUSED.to_owned()), ..Wanted::default() };
    tap.set(vec![(1, Wanted { headers: true, ..Wanted::default() }), (2, path), (3, method)]);
    let request = http::Request::builder().method(REFUSED).uri("/").header("host", "refused").body(());

    let mut record = begun_of(request.expect("a request"), &unknown, &tap);
    let answer = http::Response::builder().status(400).body(()).expect("an answer");
    record.answered(&answer, Some(Reason::BadRequest), 0, None);
    record.finish(true, Instant::now());

    let shown = shown(&mut samples);
    let [(1, sample)] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!([&sample.method, &sample.authority, &sample.path], [""; 3]);
    assert_eq!((&sample.headers[..], sample.status), (&[][..], Some(400)));
}

#[test]
fn nothing_is_copied_of_what_nobody_means_and_no_values_that_nobody_is_shown() {
    let tap = Tap::default();
    let long = "x".repeat(2 * LONGEST_TEXT);
    let request = http::Request::get("/a?b=c").header("host", "reviews:80").header("x-a", &long);
    let request = request.header("cookie", "secret").body(()).expect("a request");
    let path = |path: &str| Wanted { path: Some(path.to_owned()), ..Wanted::default() };
    let revealing = Wanted { headers: true, reveal: Some("x-a".to_owned()), ..path("/a") };
    tap.set(vec![(1, path("/other")), (2, Wanted { query: true, ..path("/other") })]);
    assert_eq!(tap.note(&request, Direction::Inbound), None);

    tap.set(vec![(2, Wanted { query: true, ..path("/other") }), (3, revealing)]);
    let tapped = tap.note(&request, Direction::Inbound).expect("it is meant");
    assert_eq!(tapped.query, None);
    let values = tapped.headers.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    assert_eq!(values, [REDACTED, &long[..LONGEST_TEXT], REDACTED]);
    let outbound = Wanted { way: Some(Way::Outbound), ..Wanted::default() };
    tap.set(vec![(4, outbound)]);
    assert_eq!(tap.note(&request, Direction::Inbound), None);
}

#[test]
fn who_asks_has_no_more_because_others_come_and_go() {
    let (tap, unknown) = (Arc::new(Tap::default()), series());
    let mut samples = tap.samples().expect("nobody has taken them");
    for others in [vec![], vec![(2, Wanted { path: Some("/b".to_owned()), ..Wanted::default() })], vec![]] {
        tap.set([vec![(1, Wanted::default())], others].concat());
        for _ in 0..MOST_PER_SECOND {
            begun_with(&unknown, &tap).finish(true, tap.since);
        }
    }
    assert_eq!(shown(&mut samples).len(), MOST_PER_SECOND as usize);
}

#[test]
fn who_asks_while_a_request_is_under_way_is_shown_the_next() {
    let (tap, unknown) = (Arc::new(Tap::default()), series());
    let mut samples = tap.samples().expect("nobody has taken them");
    tap.set(vec![(1, Wanted::default())]);
    let under_way = begun_with(&unknown, &tap);
    tap.set(vec![(1, Wanted::default()), (2, Wanted { query: true, ..Wanted::default() })]);
    under_way.finish(true, Instant::now());

    let shown = shown(&mut samples);
    assert_eq!(shown.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1], "its query was not kept");
}

#[test]
fn more_than_is_shown_is_counted() {
    let (tap, unknown) = (Arc::new(Tap::default()), series());
    let mut samples = tap.samples().expect("nobody has taken them");
    tap.set(vec![(1, Wanted::default())]);
    let most = u64::from(MOST_PER_SECOND);
    for _ in 0..5 * most {
        begun_with(&unknown, &tap).finish(true, tap.since);
    }

    let count = shown(&mut samples).len() as u64;
    let missed = tap.take_missed();
    assert_eq!((count, missed), (most, vec![(1, 4 * most)]));
    assert!(tap.take_missed().is_empty());
}
