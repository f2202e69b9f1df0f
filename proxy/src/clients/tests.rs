use std::time::Duration;

use futures_util::FutureExt;

use super::*;

fn places(limit: u32) -> Places {
    Places::new(Arc::new(Clients::new(Some(limit))))
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

    assert!(Clients::new(None).limit <= files / 10 * 3);
}
