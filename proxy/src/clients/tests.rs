use std::time::Duration;

use futures_util::FutureExt;

use super::*;

const EACH: ClientLimits = ClientLimits { connections: Some(4), unfinished: 2, listener: None };

fn places(limit: u32) -> Places {
    Places::new(Arc::new(Clients::new(Some(limit), EACH, ClientRates::default())))
}

fn newcomer(places: &Places) -> Rc<Client> {
    places.enter(Direction::Inbound).expect("a place")
}

/// A plain client, and what makes it busy.
fn plain(places: &Places) -> (Rc<Client>, Arc<Watch>) {
    let client = newcomer(places);
    assert!(places.admit_plain(&client));
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    client.watch_with(&watch);
    (client, watch)
}

fn has_to_go(client: &Client) -> bool {
    client.dismissed().now_or_never().is_some()
}

#[test]
fn who_leaves_makes_room_and_each_direction_has_its_own() {
    let places = places(1);
    let first = places.enter(Direction::Outbound).unwrap();
    assert!(places.enter(Direction::Outbound).is_none());
    let peer = newcomer(&places);
    peer.mark_known();
    assert!(places.enter(Direction::Inbound).is_none(), "a mesh peer keeps its place");

    drop(first);

    assert!(places.enter(Direction::Outbound).is_some());
}

#[test]
fn the_oldest_newcomer_goes_and_mesh_peers_stay() {
    let places = places(4);
    let peer = newcomer(&places);
    peer.mark_known();
    let silent = [newcomer(&places), newcomer(&places), newcomer(&places)];

    let next = [newcomer(&places), newcomer(&places)];

    assert_eq!(silent.each_ref().map(|client| has_to_go(client)), [true, true, false]);
    assert!(!has_to_go(&peer) && !next.iter().any(|client| has_to_go(client)));
}

#[test]
fn plain_clients_leave_a_quarter_and_the_idle_ones_go_first() {
    let places = places(4);
    let (busy, watch) = plain(&places);
    let _request = UnderWay::of(&watch);
    let (idle, _) = plain(&places);
    let (other, watch) = plain(&places);
    let _another = UnderWay::of(&watch);

    let (last, watch) = plain(&places);
    let _more = UnderWay::of(&watch);
    assert_eq!([&busy, &idle, &other, &last].map(|client| has_to_go(client)), [false, true, false, false]);

    let one_more = newcomer(&places);
    assert!(!places.admit_plain(&one_more), "nobody is idle, and the rest is for mesh peers");
    drop(one_more);
    newcomer(&places).mark_known();
}

#[test]
fn the_usual_limit_leaves_files_for_connections_to_endpoints() {
    let files = files::allowed();

    assert!(Clients::new(None, EACH, ClientRates::default()).limit <= files / 10 * 3);
}

#[test]
fn an_address_is_counted_until_its_connection_has_ended_or_had_to_go() {
    let (places, address) = (places(100), Whose::Address("192.0.2.1".parse().unwrap()));
    let seated = || {
        let client = newcomer(&places);
        client.sit(places.seat(address, None).expect("a seat"));
        client
    };
    let (first, second) = (seated(), seated());
    assert_eq!(places.seat(address, None).unwrap_err(), Reached::Unfinished);

    assert!(places.admit_plain(&first));
    let third = seated();
    third.mark_known();
    assert!(places.dismiss_newcomer());
    assert!(has_to_go(&second));

    let _more = [seated(), seated()];
    assert!(places.seat(address, None).is_err());
}

#[test]
fn who_has_all_that_it_may_have_loses_an_idle_connection_of_its_own_for_another() {
    let places = places(100);
    let [own, other] = [1, 2].map(|last| Whose::Address([192, 0, 2, last].into()));
    let seated = |whose| {
        let client = newcomer(&places);
        client.sit(places.seat(whose, None).expect("a seat"));
        assert!(places.admit_plain(&client));
        let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
        client.watch_with(&watch);
        (client, watch)
    };
    let (others, _) = seated(other);
    let (busy, watch) = seated(own);
    let _request = UnderWay::of(&watch);
    let (idle, _) = seated(own);
    let more = [seated(own), seated(own)];
    let _requests = more.each_ref().map(|(_, watch)| UnderWay::of(watch));

    let (_new, watch) = seated(own);
    let _one_more = UnderWay::of(&watch);

    assert_eq!([&busy, &idle, &others].map(|client| has_to_go(client)), [false, true, false]);
    assert_eq!(places.seat(own, None).unwrap_err(), Reached::Connections);
}
