//! The client against a control plane on loopback, over real TLS.

use selvedge_model::Lookup;
use selvedge_ops::Readiness;
use tokio::task::JoinSet;

use super::{
    ended::{MAX_BACKOFF, backoff},
    *,
};
use crate::{
    bind::Destination,
    discovery::{
        fake::{Ca, FakeControlPlane, PATIENCE, Session, until},
        fixtures::{self, AUTHORITY},
        status::Stream,
        subscriptions::UNUSED_FOR,
    },
    joining::ConnectError,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A client that runs, and what it works on.
struct Rig {
    ca: Arc<Ca>,
    control_plane: FakeControlPlane,
    store: Arc<Store>,
    joined: watch::Sender<Option<Arc<Joined>>>,
    status: watch::Receiver<Status>,
    bundle: watch::Receiver<Option<Arc<Bundle>>>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    seen: Arc<Seen>,
    _client: JoinSet<()>,
}

async fn start() -> Rig {
    let ca = Ca::new();
    let control_plane = FakeControlPlane::start(&ca, fixtures::identity("frontend"), HOUR).await;
    let (store, asked) = Store::new();
    let (joined, certificate) = watch::channel(Some(Arc::new(ca.joined(&fixtures::identity("frontend")))));
    let (status_sender, status) = watch::channel(Status::default());
    let (bundle_sender, bundle) = watch::channel(None);
    let readiness = Readiness::default();
    let metrics = Arc::new(Metrics::new(1));
    let seen = Arc::new(Seen::new(1));
    let mut client = JoinSet::new();
    client.spawn(run(Discovery {
        control_plane: fixtures::control_plane(control_plane.address),
        workload: fixtures::workload(),
        joined: certificate,
        store: Arc::clone(&store),
        asked,
        binder: fixtures::binder(&metrics),
        bundle: bundle_sender,
        live: Live::new(),
        status: status_sender,
        own_policy: readiness.condition("own policy"),
        seen: Arc::clone(&seen),
        has_agent: false,
        leave: crate::leave::Leave::default(),
        metrics: Arc::clone(&metrics),
        log_level: selvedge_ops::logging::filter("info").unwrap().1,
    }));
    Rig { ca, control_plane, store, joined, status, bundle, readiness, metrics, seen, _client: client }
}

impl Rig {
    /// A request for [`AUTHORITY`] that waits.
    fn request(&self) -> tokio::task::JoinHandle<Option<Arc<Destination>>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.destination(AUTHORITY).await })
    }

    /// A stream on which everything is known that a request needs.
    async fn ready(&mut self) -> Session {
        let mut session = self.control_plane.session().await;
        let request = self.request();
        assert_eq!(session.subscribe().await, AUTHORITY);
        assert_eq!(session.transact(1, everything(), &[]).await.refused, None);
        assert!(request.await.unwrap().is_some());
        session
    }

    fn destination(&self) -> Arc<Destination> {
        Arc::clone(&self.store.table().destinations[AUTHORITY])
    }

    fn endpoints(&self) -> usize {
        let destination = self.destination();
        destination.bound.as_ref().unwrap().backends.iter().map(|backend| backend.endpoints.len()).sum()
    }
}

fn everything() -> Vec<wire::Resource> {
    vec![
        fixtures::own("1", "shop/frontend-1"),
        fixtures::lookup("1"),
        fixtures::service("1", &[90, 10]),
        fixtures::endpoints("1", 3),
    ]
}

#[tokio::test]
async fn a_transaction_in_parts_is_applied_whole() {
    let mut rig = start().await;
    let mut session = rig.control_plane.session().await;
    assert_eq!(session.hello.workload, "shop/frontend-1");
    assert!(session.hello.held.is_empty());
    let request = rig.request();
    assert_eq!(session.subscribe().await, AUTHORITY);

    let mut parts = everything();
    let last = parts.split_off(2);
    session
        .send(wire::Transaction {
            nonce: 7,
            upserts: parts,
            removals: vec![],
            more: true,
            taps: None,
            log_level: None,
        })
        .await;
    let ack = session.transact(7, last, &[]).await;

    assert_eq!((ack.nonce, ack.refused), (7, None));
    assert!(request.await.unwrap().is_some());
    assert_eq!(rig.store.generation(), 1, "put in force in one step");
    assert_eq!(rig.endpoints(), 3);
    assert!(rig.readiness.missing().is_empty(), "its own policy is known");
}

#[tokio::test]
async fn who_has_called_is_told_again_on_each_stream() {
    let mut rig = start().await;
    let caller = selvedge_model::seen::Caller::Address([10, 0, 0, 1].into());
    let _open = rig.seen.note(0, caller, 80);

    for _ in 0..2 {
        let mut session = rig.control_plane.session().await;
        let report = session.report().await;
        assert_eq!(report.callers.len(), 1, "{report:?}");
        assert_eq!(report.callers[0].ports[0].port, 80);
    }
}

#[tokio::test]
async fn a_refused_transaction_keeps_the_last_good_and_says_why() {
    let mut rig = start().await;
    let mut session = rig.ready().await;
    let before = rig.destination();

    let ack =
        session.transact(2, vec![fixtures::endpoints("2", 9), fixtures::bad_service("2")], &["self"]).await;

    let why = ack.refused.expect("it is refused");
    assert!(why.contains("service/reviews") && why.contains("load balancer"), "{why}");
    assert!(Arc::ptr_eq(&before, &rig.destination()));
    assert!(rig.store.table().own.is_some());
    assert_eq!(rig.status.borrow().refused.as_ref().unwrap().why, why);
    assert_eq!(rig.metrics.control.refused.get(), 1);

    let ack = session.transact(3, vec![fixtures::endpoints("3", 4)], &[]).await;
    assert_eq!(ack.refused, None);
    assert_eq!(rig.endpoints(), 4);
    assert!(rig.status.borrow().refused.is_none(), "the next good one settles it");
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_leaves_a_new_proxy_without_one_and_not_ready() {
    for unreadable in [0, 99] {
        let mut rig = start().await;
        let mut session = rig.control_plane.session().await;
        let mut own = fixtures::own("1", "shop/frontend-1");
        let Some(wire::resource::Body::Self_(workload)) = &mut own.body else { panic!("{own:?}") };
        let policy = workload.policy.as_mut().unwrap();
        policy.default.as_mut().unwrap().mode = unreadable;

        let ack = session.transact(1, vec![own], &[]).await;

        assert!(ack.refused.expect("it is refused").contains("mode"));
        assert!(rig.store.table().own.is_none(), "nobody is let in by it");
        assert_eq!(rig.readiness.missing(), ["own policy"]);
    }
}

#[tokio::test]
async fn a_new_stream_says_what_is_held_and_gets_the_difference() {
    let mut rig = start().await;
    let session = rig.ready().await;
    let before = rig.destination();

    drop(session);
    let mut session = rig.control_plane.session().await;

    assert!(Arc::ptr_eq(&before, &rig.destination()), "what was last good stayed in force");
    assert_eq!(session.hello.authorities, [AUTHORITY]);
    let held: Vec<_> = session.hello.held.iter().map(|(name, version)| format!("{name}={version}")).collect();
    assert_eq!(
        held,
        [
            "endpoints/reviews.shop.svc.cluster.local:9080=1",
            "lookup/reviews:9080=1",
            "self=1",
            "service/reviews.shop.svc.cluster.local:9080=1"
        ]
    );

    let none = vec![fixtures::lookup_of(AUTHORITY, "2", &Lookup::None)];
    let gone =
        ["service/reviews.shop.svc.cluster.local:9080", "endpoints/reviews.shop.svc.cluster.local:9080"];
    assert_eq!(session.transact(1, none, &gone).await.refused, None);
    assert!(rig.destination().bound.is_none());
    assert_eq!(rig.status.borrow().versions.len(), 2);
}

#[tokio::test]
async fn what_is_asked_for_while_the_control_plane_is_away_is_asked_for_when_it_returns() {
    let mut rig = start().await;
    let session = rig.control_plane.session().await;
    drop(session);
    until("the stream is closed", || matches!(rig.status.borrow().stream, Stream::Away { .. })).await;

    let request = rig.request();
    let mut session = rig.control_plane.session().await;
    let asked = match session.hello.authorities.first() {
        Some(asked) => asked.clone(),
        None => session.subscribe().await,
    };

    assert_eq!(asked, AUTHORITY);
    assert_eq!(session.transact(1, everything(), &[]).await.refused, None);
    assert!(request.await.unwrap().is_some());
}

#[tokio::test]
async fn new_trust_roots_are_handed_on() {
    let mut rig = start().await;
    let mut session = rig.control_plane.session().await;
    let mut roots = rig.ca.authority.bundle().roots;
    roots.extend(Ca::new().authority.bundle().roots);
    let body = wire::resource::Body::Bundle(wire::Bundle {
        trust_domain: "cluster.local".into(),
        roots: roots.iter().map(|root| root.to_vec().into()).collect(),
        workload_roots: vec![],
    });
    let resource = wire::Resource { name: "bundle".into(), version: "2".into(), body: Some(body) };

    assert_eq!(session.transact(1, vec![resource], &[]).await.refused, None);

    assert_eq!(rig.bundle.borrow_and_update().as_ref().unwrap().roots, roots);
}

#[tokio::test]
async fn the_stream_is_opened_anew_before_its_certificate_expires() {
    let mut rig = start().await;
    drop(rig.ready().await);
    let now = SystemTime::now();
    let identity = fixtures::identity("frontend");
    let about_to_expire = Joined {
        not_before: now - HOUR,
        not_after: now + Duration::from_secs(30),
        ..rig.ca.joined(&identity)
    };
    rig.joined.send_replace(Some(Arc::new(about_to_expire)));
    let mut old = rig.control_plane.session().await;

    rig.joined.send_replace(Some(Arc::new(rig.ca.joined(&identity))));

    let mut new = rig.control_plane.session().await;
    assert_eq!(new.hello.held.len(), 4);
    assert_eq!(new.transact(1, vec![], &[]).await.refused, None);
    let ended = tokio::time::timeout(PATIENCE, old.next()).await.expect("the old stream ends");
    assert!(ended.is_none());
}

#[tokio::test]
async fn a_control_plane_that_is_frozen_is_noticed_within_ten_seconds() {
    let mut rig = start().await;
    let _session = rig.ready().await;
    assert!(matches!(rig.status.borrow().stream, Stream::Connected { .. }));

    rig.control_plane.freeze();
    // Nothing moves any more but the clock.
    tokio::time::pause();
    let start = Instant::now();
    let away = rig.status.wait_for(|status| matches!(status.stream, Stream::Away { .. }));
    timeout(2 * PATIENCE, away).await.expect("noticed at all").unwrap();

    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(rig.endpoints(), 3, "what was last good stays in force");
    assert_eq!(rig.metrics.control.connected.get(), 0);
}

#[tokio::test]
async fn only_this_meshs_control_plane_is_believed() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let frontend = fixtures::identity("frontend");
    let joined = ours.joined(&frontend);
    let of_another_mesh = FakeControlPlane::start(&theirs, frontend.clone(), HOUR).await;
    let a_workload = FakeControlPlane::start_as(&ours, &fixtures::identity("reviews"), frontend, HOUR).await;

    for (impostor, what) in [(of_another_mesh, "not issued by a CA"), (a_workload, "sa/reviews")] {
        let control_plane = fixtures::control_plane(impostor.address);
        let error = control_plane.connect(&joined.tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotControlPlane { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn a_control_plane_that_is_not_there_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = Ca::new().joined(&fixtures::identity("frontend")).tls;

    let error = fixtures::control_plane(nobody).connect(&tls).await.unwrap_err();

    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
}

#[test]
fn pauses_grow_to_five_seconds_and_are_drawn_from_nothing_up() {
    let longest: Vec<u128> = (0..9).map(|attempt| backoff(attempt, 1.0).as_millis()).collect();

    assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    assert_eq!(backoff(u32::MAX, 0.5), MAX_BACKOFF / 2);
    assert_eq!(backoff(3, 0.0), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_nobody_uses_is_unsubscribed_and_known_again_at_once() {
    let (mut client, mut sent) = offline_client();
    client.note(&Arc::from(AUTHORITY));
    assert!(matches!(sent.recv().await, Some(Body::Subscribe(_))));
    client.receive(wire::Transaction { upserts: everything(), ..Default::default() }, &fixtures::us());
    assert!(matches!(sent.recv().await, Some(Body::Ack(_))));
    client.discovery.store.table().destinations[AUTHORITY].touch();

    tokio::time::advance(UNUSED_FOR).await;
    client.sweep();
    assert!(sent.try_recv().is_none(), "it was used");
    tokio::time::advance(UNUSED_FOR).await;
    client.sweep();
    assert!(matches!(sent.recv().await, Some(Body::Unsubscribe(gone)) if gone.authority == AUTHORITY));
    assert!(client.discovery.store.table().destinations.is_empty());

    // The control plane has not taken the answer away yet.
    client.note(&Arc::from(AUTHORITY));
    assert!(client.discovery.store.table().destinations.contains_key(AUTHORITY));
    assert!(matches!(sent.recv().await, Some(Body::Subscribe(_))));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_kept_while_there_is_no_control_plane_to_tell_it_again() {
    let (mut client, mut sent) = offline_client();
    client.note(&Arc::from(AUTHORITY));
    assert!(matches!(sent.recv().await, Some(Body::Subscribe(_))));
    client.receive(wire::Transaction { upserts: everything(), ..Default::default() }, &fixtures::us());
    client.hang_up();

    tokio::time::advance(UNUSED_FOR * 2).await;
    client.sweep();

    assert!(client.subscriptions.contains(AUTHORITY));
    assert!(client.discovery.store.table().destinations.contains_key(AUTHORITY));
}

#[tokio::test]
async fn a_control_plane_that_reads_nothing_counts_as_gone() {
    let (mut client, _sent) = offline_client();

    for place in 0..=MAX_OUTGOING {
        assert!(client.outgoing.is_some());
        client.note(&Arc::from(format!("host-{place}")));
    }

    assert!(client.outgoing.is_none());
    assert_eq!(client.hello().authorities.len(), MAX_OUTGOING + 1, "the next stream begins with all of them");
}

/// What a client without a network would have sent.
struct Sent(mpsc::Receiver<wire::ClientMessage>);

impl Sent {
    async fn recv(&mut self) -> Option<Body> {
        self.0.recv().await.and_then(|message| message.message)
    }

    fn try_recv(&mut self) -> Option<Body> {
        self.0.try_recv().ok().and_then(|message| message.message)
    }
}

fn offline_client() -> (Client, Sent) {
    let (store, asked) = Store::new();
    let metrics = Arc::new(Metrics::new(1));
    let mut client = Client::new(Discovery {
        control_plane: fixtures::control_plane("127.0.0.1:1".parse().unwrap()),
        workload: fixtures::workload(),
        joined: watch::channel(None).1,
        store,
        asked,
        binder: fixtures::binder(&metrics),
        bundle: watch::channel(None).0,
        live: Live::new(),
        status: watch::channel(Status::default()).0,
        own_policy: Readiness::default().condition("own policy"),
        seen: Arc::new(Seen::new(1)),
        has_agent: false,
        leave: crate::leave::Leave::default(),
        metrics,
        log_level: selvedge_ops::logging::filter("info").unwrap().1,
    });
    let (outgoing, sent) = mpsc::channel(MAX_OUTGOING);
    client.outgoing = Some(outgoing);
    (client, Sent(sent))
}

#[tokio::test]
async fn reports_come_every_second_while_somebody_looks_at_them() {
    let mut rig = start().await;
    let mut session = rig.control_plane.session().await;
    let taps = |often| wire::Transaction {
        taps: Some(wire::Taps { list: Vec::new(), often }),
        ..wire::Transaction::default()
    };
    session.send(taps(true)).await;
    let labels =
        crate::telemetry::Labels::outbound(&fixtures::workload(), &selvedge_model::ServiceKey::new("a", 80));
    let series = rig.metrics.series(&labels);
    // The usual time between two reports is longer than the fake waits for one.
    for _ in 0..3 {
        series.record(0, Some(200), None, None, Duration::ZERO);
        while session.report().await.edges.is_empty() {}
    }
}
