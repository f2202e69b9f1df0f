use super::*;

const LIMITS: Limits = Limits { strangers: 4, per_address: 3, known: 2, busy_stay: true };

fn from(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// Whether another has the place now.
fn gone(place: &mut Place) -> bool {
    place.poll_taken(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[tokio::test(start_paused = true)]
async fn the_silent_one_goes_before_one_that_speaks() {
    let places = Places::new(LIMITS);
    let mut speaks = places.enter(from("192.0.2.1"), false).unwrap();
    speaks.activity().set(Doing::Speaking);
    let mut silent = places.enter(from("192.0.2.2"), false).unwrap();
    let _others = [3, 4].map(|n| {
        let other = places.enter(from(&format!("192.0.2.{n}")), false).unwrap();
        other.activity().set(Doing::Busy);
        other
    });
    tokio::time::advance(GRACE).await;

    let _newcomer = places.enter(from("192.0.2.9"), false).unwrap();

    assert!(gone(&mut silent) && !gone(&mut speaks));
    assert_eq!(places.taken(), (4, 0));
}

#[tokio::test]
async fn one_address_pushes_out_itself_and_nobody_else() {
    let places = Places::new(LIMITS);
    let mut other = places.enter(from("192.0.2.9"), false).unwrap();

    let mut many: Vec<Place> = (0..50).map(|_| places.enter(from("192.0.2.1"), false).unwrap()).collect();

    assert!(!gone(&mut other));
    let left = many.iter_mut().filter_map(|place| (!gone(place)).then_some(())).count();
    assert_eq!(left, LIMITS.per_address);
    // A newcomer from elsewhere finds its place at the expense of who has most.
    let mut third = places.enter(from("192.0.2.3"), false).unwrap();
    let _fourth = places.enter(from("192.0.2.4"), false).unwrap();
    assert!(!gone(&mut other) && !gone(&mut third));
}

#[tokio::test]
async fn the_hosts_of_one_ipv6_network_are_one_address() {
    let places = Places::new(LIMITS);
    let mut first = places.enter(from("2001:db8::1"), false).unwrap();

    let _rest: Vec<Place> =
        (2..5).map(|n| places.enter(from(&format!("2001:db8::{n}")), false).unwrap()).collect();

    assert!(gone(&mut first));
}

#[tokio::test]
async fn those_who_are_known_are_touched_by_no_stranger() {
    let places = Places::new(LIMITS);
    let mut known = places.enter(from("192.0.2.1"), false).unwrap().known().unwrap();

    let _strangers: Vec<Place> =
        (0..50).map(|n| places.enter(from(&format!("192.0.2.{n}")), false).unwrap()).collect();

    assert!(!gone(&mut known));
}

#[tokio::test]
async fn a_busy_one_that_is_known_stays() {
    let places = Places::new(LIMITS);
    let known = [1, 2].map(|_| places.enter(from("127.0.0.1"), true).unwrap());
    known.iter().for_each(|place| place.activity().set(Doing::Busy));
    assert!(places.enter(from("127.0.0.1"), true).is_none());

    let others = Places::new(Limits { busy_stay: false, ..LIMITS });
    let mut held: Vec<Place> = (0..3).map(|_| others.enter(from("127.0.0.1"), true).unwrap()).collect();
    assert!(gone(&mut held[0]) && !gone(&mut held[2]), "unless there is nobody who must stay");

    known[1].activity().set(Doing::Idle);
    assert!(places.enter(from("127.0.0.1"), true).is_some());
}

#[tokio::test]
async fn a_place_that_is_gone_is_gone_whoever_asks_again() {
    let places = Places::new(Limits { known: 1, busy_stay: false, ..LIMITS });
    let mut first = places.enter(from("127.0.0.1"), true).unwrap();
    let _second = places.enter(from("127.0.0.1"), true).unwrap();

    // HTTP's own code flushes what it could not read.
    assert!(gone(&mut first) && gone(&mut first));
}

#[tokio::test]
async fn who_leaves_makes_room() {
    let places = Places::new(LIMITS);
    drop(places.enter(from("192.0.2.1"), false));

    assert_eq!(places.taken(), (0, 0));
}
