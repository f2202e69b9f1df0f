//! What streams share is what each would make for itself, and who is not told has missed nothing.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use proptest::{
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof},
    proptest,
    sample::select,
};
use selvedge_api::ResourceName;
use selvedge_model::{
    Endpoint, Endpoints, Mesh, Revocation, Revocations, Revoked, Service, ServiceKey,
    snapshot::{Declared, Occupant},
};

use super::*;
use crate::{
    snapshot::{
        Store,
        diff::{self, Pace, Refused},
        held::Held,
        view::Subject,
    },
    testing::{self, add_route, add_service, add_workload},
};

const HOSTS: [&str; 6] = [
    "reviews.shop.svc.cluster.local",
    "ratings.shop.svc.cluster.local",
    "reviews.other.svc.cluster.local",
    "*.shop.svc.cluster.local",
    "*.example.com",
    "a.example.com",
];
const NAMESPACES: [&str; 2] = ["shop", "other"];
const CLIENTS: [&str; 3] = ["shop/frontend", "shop/second", "other/frontend"];
const AUTHORITIES: [&str; 10] = [
    "reviews",
    "reviews:81",
    "reviews.shop",
    "ratings.shop.svc.cluster.local.:80",
    "nobody.shop",
    "a.example.com",
    "B.example.com:80",
    "10.0.0.1",
    "10.0.0.2:80",
    "not:a:name",
];

/// One edit of the mesh, or of what a client looks at.
#[derive(Debug, Clone)]
enum Step {
    Service(usize, u8),
    NoService(usize),
    Endpoints(usize, u8),
    NoEndpoints(usize),
    Route(usize, Option<usize>, Vec<usize>),
    /// Another route for those of a namespace's clients that rules select by a label.
    SelectedRoute(usize, usize, u8, Option<usize>),
    /// Rules select a client by a label.
    Select(usize, Option<u8>),
    Export(usize, Option<usize>),
    Workload(usize, u16),
    NoWorkload(usize),
    Address(u8, Option<usize>),
    Occupant(u8, bool),
    ServiceAddress(u8, Option<usize>),
    Range(Option<usize>),
    Named(Option<usize>),
    Callers(u8, Option<usize>),
    Revoke(bool),
    Bundle,
    Ask(usize, usize),
    Leave(usize, usize),
    /// A client looks at what there is.
    Look(usize),
    /// A client is gone, and comes back.
    Return(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0..HOSTS.len();
    let client = || 0..CLIENTS.len();
    let authority = || 0..AUTHORITIES.len();
    let some_host = || proptest::option::of(0..HOSTS.len());
    let namespace = || proptest::option::of(0..NAMESPACES.len());
    prop_oneof![
        (host(), any::<u8>()).prop_map(|(host, n)| Step::Service(host, n % 3)),
        host().prop_map(Step::NoService),
        (host(), any::<u8>()).prop_map(|(host, n)| Step::Endpoints(host, n % 4)),
        host().prop_map(Step::NoEndpoints),
        (host(), namespace(), proptest::collection::vec(host(), 1..3))
            .prop_map(|(host, namespace, to)| Step::Route(host, namespace, to)),
        (host(), 0..NAMESPACES.len(), 0..2u8, some_host())
            .prop_map(|(host, namespace, label, to)| Step::SelectedRoute(host, namespace, label, to)),
        (client(), proptest::option::of(0..2u8)).prop_map(|(client, label)| Step::Select(client, label)),
        (host(), namespace()).prop_map(|(host, namespace)| Step::Export(host, namespace)),
        (client(), select(vec![80, 81])).prop_map(|(client, port)| Step::Workload(client, port)),
        client().prop_map(Step::NoWorkload),
        (1..3u8, some_host()).prop_map(|(ip, host)| Step::Address(ip, host)),
        (1..3u8, any::<bool>()).prop_map(|(ip, there)| Step::Occupant(ip, there)),
        (1..3u8, some_host()).prop_map(|(ip, host)| Step::ServiceAddress(ip, host)),
        some_host().prop_map(Step::Range),
        some_host().prop_map(Step::Named),
        (1..3u8, some_host()).prop_map(|(ip, host)| Step::Callers(ip, host)),
        any::<bool>().prop_map(Step::Revoke),
        Just(Step::Bundle),
        (client(), authority()).prop_map(|(client, authority)| Step::Ask(client, authority)),
        (client(), authority()).prop_map(|(client, authority)| Step::Ask(client, authority)),
        (client(), authority()).prop_map(|(client, authority)| Step::Leave(client, authority)),
        client().prop_map(Step::Look),
        client().prop_map(Step::Look),
        client().prop_map(Step::Return),
    ]
}

fn key(host: usize) -> ServiceKey {
    ServiceKey::new(HOSTS[host], 80)
}

fn declared(host: usize) -> Declared {
    Declared { namespace: "shop".into(), key: key(host) }
}

fn address(ip: u8) -> std::net::SocketAddr {
    format!("10.0.0.{ip}:80").parse().unwrap()
}

fn endpoint(ip: u8, host: usize) -> Endpoint {
    Endpoint {
        address: address(ip),
        dial: address(ip),
        identity: Some(testing::identity("shop", &format!("account{host}"))),
        workload: None,
        labels: Arc::default(),
        weight: 1,
        place: None,
    }
}

fn list(host: usize, count: u8) -> Arc<Endpoints> {
    Arc::new(Endpoints::new(key(host), (1..=count).map(|ip| endpoint(ip, host)).collect()))
}

fn labels(label: u8) -> Arc<BTreeMap<String, String>> {
    Arc::new(BTreeMap::from([("app".to_owned(), label.to_string())]))
}

/// Has the clients of `namespace` with this label see `own`; `None`: what others there see.
fn select_view(mesh: &mut Mesh, key: &ServiceKey, namespace: &str, label: u8, own: Option<Arc<Service>>) {
    let views = mesh.services.get_mut(key).unwrap();
    let selected = views.selected.get_or_insert_default().entry(namespace.into()).or_default();
    match own {
        Some(own) => drop(selected.insert(labels(label), own)),
        None => drop(selected.remove(&labels(label))),
    }
}

/// Only services that are there are declared anywhere, as in a mesh that was compiled.
fn edit(mesh: &mut Mesh, step: &Step) {
    let there =
        |mesh: &Mesh, host: &Option<usize>| host.filter(|host| mesh.services.contains_key(&key(*host)));
    match step {
        Step::Service(host, count) => {
            add_service(mesh, HOSTS[*host], &[]);
            mesh.endpoints.insert(key(*host), list(*host, *count));
        }
        Step::NoService(host) => {
            let gone = key(*host);
            mesh.services.remove(&gone);
            mesh.service_addresses.retain(|_, declared| declared.key != gone);
            let is_left = |declared: &Declared| declared.key != gone;
            let of_addresses = mesh.callers.iter();
            let of_addresses =
                of_addresses.map(|(at, all)| (*at, all.iter().filter(|one| is_left(one)).cloned().collect()));
            mesh.callers = of_addresses.collect();
            mesh.named.callers.values_mut().for_each(|of_port| of_port.retain(is_left));
            mesh.service_ranges.values_mut().for_each(|ranges| ranges.retain(|(_, one)| one.key != gone));
        }
        Step::Endpoints(host, count) => drop(mesh.endpoints.insert(key(*host), list(*host, *count))),
        Step::NoEndpoints(host) => drop(mesh.endpoints.remove(&key(*host))),
        Step::Route(host, namespace, to) => {
            let to: Vec<ServiceKey> = to.iter().map(|host| key(*host)).collect();
            if mesh.services.contains_key(&key(*host)) {
                let namespace = namespace.map(|namespace| NAMESPACES[namespace]);
                add_route(mesh, &key(*host), namespace, &to.iter().collect::<Vec<_>>());
            }
        }
        Step::SelectedRoute(host, namespace, label, to) => {
            let (key, namespace) = (key(*host), NAMESPACES[*namespace]);
            let Some(views) = mesh.services.get(&key).cloned() else { return };
            let own = to.map(|to| {
                add_route(mesh, &key, Some(namespace), &[&self::key(to)]);
                Arc::clone(&mesh.services[&key].by_namespace[namespace])
            });
            mesh.services.insert(key.clone(), views);
            select_view(mesh, &key, namespace, *label, own);
        }
        Step::Select(client, label) => {
            let name = CLIENTS[*client].parse().unwrap();
            match label {
                Some(label) => drop(mesh.selected.insert(name, labels(*label))),
                None => drop(mesh.selected.remove(&name)),
            }
        }
        Step::Export(host, Some(namespace)) => {
            mesh.exported.insert(key(*host), BTreeSet::from([NAMESPACES[*namespace].to_owned()]));
        }
        Step::Export(host, None) => drop(mesh.exported.remove(&key(*host))),
        Step::Workload(client, port) => {
            add_workload(mesh, CLIENTS[*client], "frontend");
            let workload = mesh.workloads.get_mut(&CLIENTS[*client].parse().unwrap()).unwrap();
            Arc::make_mut(workload).ports = vec![*port];
        }
        Step::NoWorkload(client) => drop(mesh.workloads.remove(&CLIENTS[*client].parse().unwrap())),
        Step::Address(ip, Some(host)) => drop(mesh.addresses.insert(address(*ip), endpoint(*ip, *host))),
        Step::Address(ip, None) => drop(mesh.addresses.remove(&address(*ip))),
        Step::Occupant(ip, true) => {
            if let Some(workload) = mesh.workloads.values().next().cloned() {
                mesh.occupants.insert(address(*ip).ip(), Occupant { workload, skipped: Vec::new() });
            }
        }
        Step::Occupant(ip, false) => drop(mesh.occupants.remove(&address(*ip).ip())),
        Step::ServiceAddress(ip, host) => {
            mesh.service_addresses.remove(&address(*ip));
            let found = there(mesh, host).map(|host| (address(*ip), declared(host)));
            mesh.service_addresses.extend(found);
        }
        Step::Range(host) => {
            let found = there(mesh, host).map(|host| ("10.0.0.0/24".parse().unwrap(), declared(host)));
            mesh.service_ranges.insert(80, found.into_iter().collect());
        }
        Step::Named(host) => {
            let found = there(mesh, host).map(declared);
            mesh.named.callers.insert(80, found.into_iter().collect());
        }
        Step::Callers(ip, host) => {
            let found = there(mesh, host).map(declared);
            mesh.callers.insert(address(*ip), found.into_iter().collect());
        }
        Step::Revoke(true) => {
            let revoked = Revoked::Identity(testing::identity("shop", "thief"));
            let entry = Revocation { revoked, document: "Revocation a/b".into(), reason: None, until: None };
            mesh.revocations = Arc::new(Revocations::new(vec![entry]));
        }
        Step::Revoke(false) => mesh.revocations = Arc::default(),
        Step::Bundle | Step::Ask(..) | Step::Leave(..) | Step::Look(_) | Step::Return(_) => {}
    }
}

/// A part as it is compared: what it is for, and the names and versions of what is in it.
type Shape = (Subject, Vec<(ResourceName, Arc<str>)>);

fn shapes(parts: &[Part]) -> Vec<Shape> {
    let shape = |part: &Part| {
        let each = part.resources.iter();
        let each = each.map(|resource| (resource.name().clone(), Arc::clone(resource.version())));
        (part.subject.clone(), each.collect())
    };
    parts.iter().map(shape).collect()
}

struct Client {
    workload: WorkloadName,
    watcher: Watcher,
    authorities: BTreeSet<Arc<str>>,
    /// What it saw last, and of which version; `None`: it has to look.
    seen: Option<(u64, Vec<Shape>)>,
    /// What it has been told since its stream was opened.
    held: Held,
    /// The version by which it was told all, if only what has changed since is looked at.
    settled: Option<u64>,
}

impl Client {
    fn new(store: &Store, index: usize) -> Self {
        let workload: WorkloadName = CLIENTS[index].parse().unwrap();
        // As if no rule had selected it when it came.
        let clients = Clients { namespace: workload.namespace().into(), selected: None };
        let watcher = store.watch(&workload, clients);
        Self {
            workload,
            watcher,
            authorities: BTreeSet::new(),
            seen: None,
            held: Held::default(),
            settled: None,
        }
    }

    fn ask(&mut self, authority: &str) {
        assert!(self.watcher.ask(&Arc::from(authority)));
        self.authorities.insert(Arc::from(authority));
        (self.seen, self.settled) = (None, None);
    }

    fn leave(&mut self, authority: &str) {
        self.authorities.remove(authority);
        self.watcher.leave(authority);
        (self.seen, self.settled) = (None, None);
    }

    fn is_told(&self) -> bool {
        let seen = self.seen.as_ref().map_or(0, |(version, _)| *version);
        self.watcher.mark.touched.load(Ordering::Acquire) > seen
    }

    /// As a stream looks: gives whether it had to look at everything.
    fn look(&mut self, store: &Store) -> bool {
        let news = self.watcher.news();
        let snapshot = store.current().unwrap();
        let Some(workload) = snapshot.mesh().workloads.get(&self.workload) else {
            (self.seen, self.settled) = (None, None);
            return true;
        };
        let shapes = shapes(&view::view(&snapshot, workload, &self.authorities));
        let of_news = self.settled.and_then(|looked| self.watcher.parts_of(&news, &snapshot, looked));
        let looks_at_all = of_news.is_none();
        let difference = match of_news {
            Some(parts) => diff::next_of(parts, &self.held),
            None => {
                let (parts, are_kept) = self.watcher.parts(&snapshot, workload);
                assert!(are_kept, "nobody else has looked meanwhile");
                assert_eq!(self::shapes(&parts), shapes);
                diff::next(&parts, &self.held, &Refused::new(), Pace::Together)
            }
        };
        self.held.apply(difference.changes());
        let wanted: BTreeMap<_, _> = shapes.iter().flat_map(|(_, each)| each.iter().cloned()).collect();
        let held = self.held.iter().map(|stamp| (stamp.name.clone(), Arc::clone(&stamp.version)));
        assert_eq!(held.collect::<BTreeMap<_, _>>(), wanted);
        self.seen = Some((snapshot.version(), shapes));
        self.settled = Some(snapshot.version());
        looks_at_all
    }

    /// Who has looked and was told of nothing since has what there is.
    fn misses_nothing(&self, store: &Store) {
        let snapshot = store.current().unwrap();
        if let Some((version, seen)) = self.seen.as_ref().filter(|_| !self.is_told()) {
            let workload = snapshot.mesh().workloads.get(&self.workload).expect("it would have been told");
            assert_eq!(*seen, shapes(&view::view(&snapshot, workload, &self.authorities)));
            assert_eq!(self.watcher.standing().newest(*version), snapshot.version());
        }
    }
}

proptest! {
    // Each is a story of its own, of up to 80 changes.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_shared_is_what_each_would_make_and_who_is_not_told_misses_nothing(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let store = Store::new(&testing::bundle());
        let mut mesh = testing::mesh();
        for client in CLIENTS {
            add_workload(&mut mesh, client, "frontend");
        }
        store.publish(mesh.clone());
        let mut clients: Vec<Client> = (0..CLIENTS.len()).map(|index| Client::new(&store, index)).collect();
        for step in steps {
            match &step {
                Step::Ask(client, authority) => clients[*client].ask(AUTHORITIES[*authority]),
                Step::Leave(client, authority) => clients[*client].leave(AUTHORITIES[*authority]),
                Step::Look(client) => {
                    clients[*client].look(&store);
                }
                Step::Return(client) => clients[*client] = Client::new(&store, *client),
                Step::Bundle => store.believe(&testing::bundle()),
                edited => {
                    edit(&mut mesh, edited);
                    store.publish(mesh.clone());
                }
            }
            clients.iter().for_each(|client| client.misses_nothing(&store));
        }
        for client in &mut clients {
            client.look(&store);
        }
        drop(clients);
        let index = store.watchers().lock();
        assert!(index.views.is_empty() && index.readers.is_empty() && index.stale.is_empty());
        assert!(index.by_name.is_empty() && index.streams.is_empty());
    }
}

fn shop() -> (Store, Mesh) {
    let mut mesh = testing::mesh();
    for client in CLIENTS {
        add_workload(&mut mesh, client, "frontend");
    }
    add_service(&mut mesh, HOSTS[0], &["127.0.0.2:80"]);
    add_service(&mut mesh, HOSTS[1], &["127.0.0.3:80"]);
    let store = Store::new(&testing::bundle());
    store.publish(mesh.clone());
    (store, mesh)
}

#[test]
fn only_those_who_asked_for_what_has_changed_are_woken() {
    let (store, mut mesh) = shop();
    let mut clients = [0, 2].map(|index| Client::new(&store, index));
    for (client, authority) in clients.iter_mut().zip(["reviews.shop", "ratings.shop"]) {
        client.ask(authority);
        client.look(&store);
    }
    assert!(clients.iter().all(|client| client.watcher.changed().now_or_never().is_none()));

    mesh.endpoints.insert(key(0), list(0, 3));
    let version = store.publish(mesh);

    let woken = clients.iter().map(|client| client.watcher.changed().now_or_never().is_some());
    assert_eq!(woken.collect::<Vec<_>>(), [true, false]);
    assert_eq!(
        clients.iter().map(|client| client.watcher.standing().newest(1)).collect::<Vec<_>>(),
        [1, version]
    );
}

#[test]
fn of_a_rule_that_selects_clients_those_alone_are_told_and_who_comes_to_be_selected_sees_it() {
    let (store, mut mesh) = shop();
    let mut clients = [0, 1].map(|index| Client::new(&store, index));
    for client in &mut clients {
        client.ask("reviews.shop");
        client.look(&store);
    }
    let mut publish = |mesh: &Mesh, expected: [bool; 2]| {
        store.publish(mesh.clone());
        let woken = clients.each_ref().map(|client| client.watcher.changed().now_or_never().is_some());
        assert_eq!(woken, expected);
        for client in &mut clients {
            client.look(&store);
        }
        // What each is told of itself names the workload.
        clients.each_ref().map(|client| {
            let (_, mut shapes) = client.seen.clone().unwrap();
            shapes.retain(|(subject, _)| *subject != Subject::Own);
            shapes
        })
    };

    edit(&mut mesh, &Step::SelectedRoute(0, 0, 1, Some(1)));
    let [one, other] = publish(&mesh, [false, false]);
    assert_eq!(one, other, "they are nobody's yet");
    edit(&mut mesh, &Step::Select(0, Some(1)));
    let [one, other] = publish(&mesh, [true, false]);
    assert_ne!(one, other);
    edit(&mut mesh, &Step::SelectedRoute(0, 0, 1, Some(0)));
    publish(&mesh, [true, false]);
    edit(&mut mesh, &Step::SelectedRoute(0, 0, 0, Some(1)));
    publish(&mesh, [false, false]);
    edit(&mut mesh, &Step::Select(0, None));
    let [one, other] = publish(&mesh, [true, false]);
    assert_eq!(one, other);
    edit(&mut mesh, &Step::Route(0, Some(0), vec![1]));
    publish(&mesh, [true, true]);
}

#[test]
fn only_what_has_changed_is_looked_at_unless_it_names_something_else() {
    let (store, mut mesh) = shop();
    let mut client = Client::new(&store, 0);
    client.ask("reviews.shop");
    client.ask("ratings.shop");
    assert!(client.look(&store), "nothing is known of it");
    let mut publish = |change: &dyn Fn(&mut Mesh)| {
        change(&mut mesh);
        store.publish(mesh.clone())
    };

    publish(&|mesh| drop(mesh.endpoints.insert(key(0), list(0, 3))));
    assert!(!client.look(&store));
    // A subset of what it was by then, while nobody looked.
    publish(&|mesh| add_route(mesh, &key(0), None, &[&key(0), &key(1)]));
    publish(&|mesh| drop(mesh.endpoints.insert(key(1), list(1, 2))));
    assert!(client.look(&store), "it names other endpoints now");
    publish(&|mesh| drop(mesh.endpoints.insert(key(1), list(1, 1))));
    assert!(!client.look(&store));
    publish(&|mesh| add_route(mesh, &key(0), None, &[&key(0)]));
    assert!(client.look(&store), "what it names no more is to be taken away");
    publish(&|mesh| add_workload(mesh, CLIENTS[0], "other"));
    assert!(client.look(&store), "it is another workload itself");
    assert!(!client.look(&store), "and nothing since");
}

#[test]
fn a_view_that_others_have_made_of_a_later_snapshot_is_no_reason_to_look_only_at_news() {
    let (store, mut mesh) = shop();
    let [mut late, mut early] = [0, 1].map(|index| Client::new(&store, index));
    for client in [&mut late, &mut early] {
        client.ask("reviews.shop");
        client.look(&store);
    }
    let before = store.current().unwrap();
    mesh.endpoints.insert(key(0), list(0, 3));
    store.publish(mesh.clone());
    let (news, between) = (late.watcher.news(), store.current().unwrap());
    // Meanwhile it is something else, and somebody has looked at that.
    mesh.endpoints.insert(key(0), list(0, 2));
    store.publish(mesh);
    early.look(&store);

    assert!(late.watcher.parts_of(&news, &between, before.version()).is_none());
    let workload = &between.mesh().workloads[&late.workload];
    assert!(!late.watcher.parts(&between, workload).1);
    assert!(late.look(&store) || late.settled.is_some());
}

#[test]
fn a_view_is_made_once_for_all_who_ask() {
    let (store, _) = shop();
    let snapshot = store.current().unwrap();
    let parts = [0, 1].map(|index| {
        let mut client = Client::new(&store, index);
        assert!(client.watcher.ask(&Arc::from("reviews.shop")));
        let workload = &snapshot.mesh().workloads[&client.workload];
        let (parts, _) = client.watcher.parts(&snapshot, workload);
        (client, parts)
    });

    let [(_one, first), (_other, second)] = &parts;
    assert!(Arc::ptr_eq(&first[1].resources, &second[1].resources));
}

#[tokio::test]
async fn of_many_all_are_woken_in_the_end() {
    let (store, mesh) = shop();
    let clients: Vec<Client> = (0..5 * AT_ONCE).map(|_| Client::new(&store, 0)).collect();

    let mut after = mesh.clone();
    add_workload(&mut after, CLIENTS[0], "other");
    store.publish(after);

    for client in &clients {
        client.watcher.changed().await;
    }
}

#[test]
fn of_very_many_names_who_asks_for_a_thousand_gets_no_more_that_nobody_else_asks_for() {
    let (store, _) = shop();
    let [mut greedy, mut other] = [0, 1].map(|index| Client::new(&store, index));
    for number in 0..MOST_VIEWS {
        greedy.ask(&format!("a{number}.example.com:80"));
    }
    assert!(!greedy.watcher.ask(&Arc::from("more.example.com")));

    for number in 0..ALWAYS {
        other.ask(&format!("b.example.com:{number}"));
    }
    assert!(!other.watcher.ask(&Arc::from("more.example.com")));
    assert!(other.watcher.ask(&Arc::from("b.example.com:7")), "it has that");
    assert!(other.watcher.ask(&Arc::from("a7.example.com:80")), "that is there already");
    assert_eq!(other.watcher.authorities().len(), ALWAYS + 1);
}
