use super::*;

const USUAL: ClientLimits = ClientLimits { connections: None, unfinished: 0, listener: None };

fn ip(text: &str) -> Whose {
    Whose::Address(text.parse().unwrap())
}

/// Takes what `address` can get of `places`, of which `taken` are others'.
fn greedy(addresses: &Arc<Addresses>, address: &str, places: usize, taken: usize) -> Vec<Seat> {
    let mut seats = Vec::new();
    loop {
        let free = places.saturating_sub(taken + seats.len());
        match addresses.seat(ip(address), places, free) {
            Ok(seat) => seats.push(seat),
            Err(_) => return seats,
        }
    }
}

#[test]
fn one_address_never_takes_all_places_and_neither_do_many() {
    let addresses = Addresses::new(USUAL);
    let mut taken = 0;
    let mut seats = Vec::new();
    for (address, left) in [("192.0.2.1", 200), ("192.0.2.2", 40), ("192.0.2.3", 5)] {
        let more = greedy(&addresses, address, 1000, taken);
        taken += more.len();
        seats.push(more);
        assert!(1000 - taken >= left, "{address}: {} left", 1000 - taken);
    }

    assert!(addresses.seat(ip("192.0.2.4"), 1000, 1000 - taken).is_ok());
    drop(seats);
    assert!(addresses.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "all is forgotten");
}

#[test]
fn a_few_connections_are_for_everybody_and_one_always() {
    let addresses = Addresses::new(USUAL);

    let seats: Vec<_> = (0..16).map(|_| addresses.seat(ip("192.0.2.1"), 4500, 0).unwrap()).collect();
    assert_eq!(addresses.seat(ip("192.0.2.1"), 4500, 0).unwrap_err(), Reached::Connections);
    assert!(addresses.seat(ip("192.0.2.2"), 1, 0).is_ok());
    drop(seats);
}

#[test]
fn a_limit_that_is_set_holds_alone() {
    let limits = ClientLimits { connections: Some(2), unfinished: 0, listener: None };
    let addresses = Addresses::new(limits);
    let _seats = [(); 2].map(|()| addresses.seat(ip("192.0.2.1"), 1000, 0).unwrap());

    assert_eq!(addresses.seat(ip("192.0.2.1"), 1000, 1000).unwrap_err(), Reached::Connections);
    let addresses = Addresses::new(ClientLimits { connections: Some(0), ..limits });
    let seats: Vec<_> = (0..100).map(|_| addresses.seat(ip("192.0.2.1"), 10, 0).unwrap()).collect();
    assert_eq!(seats.len(), 100);
}

#[test]
fn a_client_of_ipv6_is_its_network_of_64_bits() {
    let addresses = Addresses::new(ClientLimits { connections: Some(1), unfinished: 0, listener: None });
    let _seat = addresses.seat(ip("2001:db8::1"), 10, 10).unwrap();

    assert!(addresses.seat(ip("2001:db8::ffff:2"), 10, 10).is_err());
    assert!(addresses.seat(ip("2001:db8:0:1::1"), 10, 10).is_ok());
    let _v4 = addresses.seat(ip("192.0.2.1"), 10, 10).unwrap();
    assert!(addresses.seat(ip("::ffff:192.0.2.1"), 10, 10).is_err(), "it is the same client");
}

#[test]
fn a_handshake_that_has_ended_makes_room_for_another() {
    let addresses = Addresses::new(ClientLimits { connections: None, unfinished: 1, listener: None });
    let first = addresses.seat(ip("192.0.2.1"), 100, 100).unwrap();
    assert_eq!(addresses.seat(ip("192.0.2.1"), 100, 100).unwrap_err(), Reached::Unfinished);
    first.finished();
    first.finished();

    let second = addresses.seat(ip("192.0.2.1"), 100, 100).unwrap();
    drop(second);
    assert!(addresses.seat(ip("192.0.2.1"), 100, 100).is_ok());
}

#[test]
fn a_listener_leaves_places_for_others_and_is_no_address() {
    let addresses = Addresses::new(USUAL);
    let mut seats = Vec::new();
    while let Ok(seat) = addresses.seat(Whose::Listener(80), 1000, 1000 - seats.len()) {
        seats.push(seat);
    }

    assert_eq!(seats.len(), 800);
    assert_eq!(addresses.room(80, 200), 0);
    assert_eq!(addresses.room(443, 200), 160);
    assert_eq!(addresses.seat(Whose::Listener(80), 1000, 200).unwrap_err(), Reached::Listener);
    assert!(addresses.seat(Whose::Listener(443), 1000, 200).is_ok());
    assert!(addresses.seat(ip("0.0.0.80"), 1000, 200).is_ok());
    assert!(seats[0].is_of(Whose::Listener(80)) && !seats[0].is_of(Whose::Listener(443)));
}
