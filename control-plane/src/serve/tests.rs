//! The port as a proxy meets it: real sockets, real TLS, real gRPC.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::SystemTime,
};

use hyper_util::rt::TokioIo;
use selvedge_api::wire::{
    self, Transaction, certificates_client::CertificatesClient, client_message::Message,
    discovery_client::DiscoveryClient, resource::Body,
};
use selvedge_certs::{
    ca::Authority,
    csr::KeyAndCsr,
    leaf::Leaf,
    tls::{Credentials, bootstrap_client, grpc_client},
};
use selvedge_model::{Mesh, Revocation, Revocations, Revoked, ServiceKey, SpiffeId, TrustDomain};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    metrics::Metrics,
    serve::{
        allowance::Allowance,
        attestation::{Attestor, Grant, TokenKey, create},
        audit::Audit,
        own::OwnIssuing,
    },
    snapshot::Store,
    status::{Proof, Proxies},
    testing::{self, add_route, add_service, add_workload, identity},
};

const LIMIT: Duration = Duration::from_secs(10);
const REVIEWS: &str = "reviews.shop.svc.cluster.local";

struct TestMesh {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
    store: Arc<Store>,
    proxies: Arc<Proxies>,
    drain: Drain,
    address: SocketAddr,
    server: JoinHandle<Result<(), ServeError>>,
}

impl TestMesh {
    /// A control plane with this mesh.
    fn start(mesh: Mesh) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(testing::authority(directory.path()));
        let (store, metrics) = (Arc::new(Store::new(&authority.bundle())), Arc::new(Metrics::default()));
        store.publish(mesh);
        let proxies = Arc::new(Proxies::new(Arc::clone(&metrics)));
        let drain = Drain::default();
        let attestor = Arc::new(Attestor::open(directory.path(), authority.trust_domain()).unwrap());
        let audit = Arc::new(Audit::new(directory.path()));
        let certificates = Certificates {
            authority: Arc::clone(&authority),
            attestor,
            service_accounts: None,
            store: Arc::clone(&store),
            max_ttl: Duration::from_secs(3600),
            grace: Duration::from_secs(600),
            allowance: Allowance::new(600.try_into().unwrap()),
            audit: Arc::clone(&audit),
            metrics: Arc::clone(&metrics),
        };
        let shown = Arc::new(crate::status::OwnCertificates::new(&authority, Arc::clone(&metrics)));
        let streams = Streams {
            store: Arc::clone(&store),
            proxies: Arc::clone(&proxies),
            metrics,
            turns: Arc::default(),
            drain: drain.clone(),
        };
        let listener = selvedge_ops::listen::tcp("--listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let issuing =
            OwnIssuing { authority: Arc::clone(&authority), ttl: Duration::from_secs(3600), audit, shown };
        let (own, _renewing) = OwnCertificate::make(issuing).unwrap();
        let server = tokio::spawn(serve(listener, own, certificates, streams, drain.clone()));
        Self { directory, authority, store, proxies, drain, address, server }
    }

    fn token(&self, identity: SpiffeId, now: SystemTime) -> String {
        self.token_for(identity, None, now)
    }

    fn token_for(&self, identity: SpiffeId, workload: Option<&str>, now: SystemTime) -> String {
        let key = TokenKey::load_or_create(self.directory.path()).unwrap();
        let workload = workload.map(|workload| workload.parse().unwrap());
        let grant = Grant { identity, workload, ttl: Duration::from_secs(60), once: false };
        create(&key, &grant, self.authority.root_sha256(), now).unwrap().0
    }

    async fn connect(&self, tls: Arc<ClientConfig>) -> Channel {
        let address = self.address;
        let connector = tower::service_fn(move |_| {
            let tls = Arc::clone(&tls);
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = selvedge_certs::tls::session_name(address);
                Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(tls).connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://control-plane");
        timeout(LIMIT, endpoint.connect_with_connector(connector)).await.unwrap().unwrap()
    }

    /// A channel of a workload that has nothing but a token.
    async fn newcomer(&self) -> CertificatesClient<Channel> {
        let tls = bootstrap_client(&[self.authority.root_sha256()], &TrustDomain::default());
        CertificatesClient::new(self.connect(tls).await)
    }

    /// A channel of a workload with a certificate.
    async fn member(&self, identity: &SpiffeId, ttl: Duration) -> Channel {
        let leaf = self.authority.issue(identity, &[], ttl, SystemTime::now()).unwrap();
        let own = Credentials { leaf, bundle: self.authority.bundle() };
        self.connect(grpc_client(&own).unwrap()).await
    }

    /// A channel of a workload whose first certificate was for a token, which is for it alone if it `proves` that.
    async fn joined(&self, account: &str, workload: &str, proves: bool) -> Channel {
        let identity = identity("shop", account);
        let made = KeyAndCsr::generate(&identity).unwrap();
        let token = self.token_for(identity, proves.then_some(workload), SystemTime::now());
        let request = wire::SignRequest {
            csr: made.der.into(),
            workload: workload.into(),
            token: Some(token),
            ttl_seconds: Some(60),
        };
        let signed = self.newcomer().await.sign(request).await.unwrap().into_inner();
        let chain = signed.chain.iter().map(|der| der.to_vec().into()).collect();
        let leaf = Leaf::new(chain, made.key).unwrap();
        let own = Credentials { leaf, bundle: self.authority.bundle() };
        self.connect(grpc_client(&own).unwrap()).await
    }

    async fn talk(&self, account: &str, hello: wire::Hello) -> ProxyStream {
        let channel = self.member(&identity("shop", account), Duration::from_secs(600)).await;
        ProxyStream::open(channel, hello).await
    }
}

/// One stream, from the proxy's side.
struct ProxyStream {
    outgoing: mpsc::Sender<wire::ClientMessage>,
    incoming: Streaming<Transaction>,
}

impl ProxyStream {
    async fn open(channel: Channel, hello: wire::Hello) -> Self {
        Self::try_open(channel, hello).await.unwrap()
    }

    async fn try_open(channel: Channel, hello: wire::Hello) -> Result<Self, Status> {
        let (outgoing, messages) = mpsc::channel(16);
        let mut client = DiscoveryClient::new(channel);
        let talk = async {
            let incoming = client.stream(ReceiverStream::new(messages)).await?.into_inner();
            let talk = Self { outgoing, incoming };
            talk.say(Message::Hello(hello)).await;
            Ok(talk)
        };
        timeout(LIMIT, talk).await.expect("in time")
    }

    async fn say(&self, message: Message) {
        self.outgoing.send(wire::ClientMessage { message: Some(message) }).await.unwrap();
    }

    async fn subscribe(&self, authority: &str) {
        self.say(Message::Subscribe(wire::Subscribe { authority: authority.into() })).await;
    }

    async fn next(&mut self) -> Transaction {
        timeout(LIMIT, self.incoming.message()).await.expect("in time").unwrap().expect("not closed")
    }

    async fn status(&mut self) -> Status {
        timeout(LIMIT, self.incoming.message()).await.expect("in time").unwrap_err()
    }

    async fn answer(&self, transaction: &Transaction, refused: Option<&str>) {
        let refused = refused.map(Into::into);
        self.say(Message::Ack(wire::Ack { nonce: transaction.nonce, refused })).await;
    }

    /// The next transaction, applied.
    async fn apply(&mut self) -> Transaction {
        let transaction = self.next().await;
        self.answer(&transaction, None).await;
        transaction
    }
}

fn hello(workload: &str) -> wire::Hello {
    wire::Hello { workload: workload.into(), ..wire::Hello::default() }
}

/// Knows `shop/frontend` and the service `reviews.shop`.
fn mesh() -> Mesh {
    let mut mesh = testing::mesh();
    add_workload(&mut mesh, "shop/frontend", "frontend");
    add_workload(&mut mesh, "shop/reviews-1", "reviews");
    add_service(&mut mesh, REVIEWS, &["127.0.0.2:80"]);
    mesh
}

/// The same, with another endpoint.
fn changed(mesh: &Mesh, endpoint: &str) -> Mesh {
    let mut mesh = mesh.clone();
    let mut other = testing::mesh();
    add_service(&mut other, REVIEWS, &[endpoint]);
    mesh.endpoints.extend(other.endpoints);
    mesh
}

fn names(transaction: &Transaction) -> Vec<&str> {
    transaction.upserts.iter().map(|resource| resource.name.as_str()).collect()
}

fn versions(transaction: &Transaction) -> BTreeMap<String, String> {
    transaction.upserts.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}

fn endpoints(transaction: &Transaction) -> Vec<String> {
    let body = transaction.upserts.iter().filter_map(|resource| resource.body.as_ref());
    let lists =
        body.filter_map(|body| if let Body::Endpoints(list) = body { Some(&list.list) } else { None });
    lists.flatten().map(|endpoint| endpoint.address.clone()).collect()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} within {LIMIT:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_becomes_a_certificate_and_that_opens_the_stream() {
    let world = TestMesh::start(mesh());
    let identity = identity("shop", "frontend");
    let made = KeyAndCsr::generate(&identity).unwrap();
    let request = wire::SignRequest {
        csr: made.der.into(),
        workload: "shop/frontend".into(),
        token: Some(world.token(identity, SystemTime::now())),
        ttl_seconds: Some(60),
    };

    let signed = world.newcomer().await.sign(request).await.unwrap().into_inner();
    let chain = signed.chain.iter().map(|der| der.to_vec().into()).collect();
    let leaf = Leaf::new(chain, made.key).unwrap();
    let own = Credentials { leaf, bundle: world.authority.bundle() };
    let channel = world.connect(grpc_client(&own).unwrap()).await;
    let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;

    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
}

#[tokio::test]
async fn a_request_for_somebody_elses_certificate_is_refused() {
    let world = TestMesh::start(mesh());
    let mut newcomer = world.newcomer().await;
    let csr = KeyAndCsr::generate(&identity("shop", "reviews")).unwrap().der;
    let request = wire::SignRequest {
        csr: csr.into(),
        workload: "shop/frontend".into(),
        token: Some(world.token(identity("shop", "frontend"), SystemTime::now())),
        ttl_seconds: None,
    };

    let other_csr = newcomer.sign(request.clone()).await.unwrap_err();
    let other_workload = wire::SignRequest { workload: "shop/reviews-1".into(), ..request };
    let other_workload = newcomer.sign(other_workload).await.unwrap_err();

    assert_eq!(other_csr.code(), Code::InvalidArgument, "{other_csr}");
    assert_eq!(other_workload.code(), Code::PermissionDenied, "{other_workload}");
    assert!(
        other_workload.message().contains("spiffe://cluster.local/ns/shop/sa/reviews"),
        "{other_workload}"
    );
}

#[tokio::test]
async fn an_expired_and_an_altered_token_are_refused() {
    let world = TestMesh::start(mesh());
    let mut newcomer = world.newcomer().await;
    let identity = identity("shop", "frontend");
    let request = |token| wire::SignRequest {
        csr: KeyAndCsr::generate(&identity).unwrap().der.into(),
        workload: "shop/frontend".into(),
        token: Some(token),
        ttl_seconds: None,
    };
    let expired = world.token(identity.clone(), SystemTime::now() - Duration::from_secs(3600));
    let valid = world.token(identity.clone(), SystemTime::now());
    let altered = if valid.ends_with('A') { format!("{valid}B") } else { format!("{valid}A") };

    for (token, word) in [(expired, "expired"), (altered, "join token")] {
        let refused = newcomer.sign(request(token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }
    newcomer.sign(request(valid)).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_for_the_workload_of_its_certificate_alone() {
    let world = TestMesh::start(mesh());

    let other = world.talk("frontend", hello("shop/reviews-1")).await.status().await;
    assert_eq!(other.code(), Code::PermissionDenied, "{other}");

    let unknown = world.talk("frontend", hello("shop/frontend-2")).await.status().await;
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert!(unknown.message().contains("add a WorkloadEntry"), "{unknown}");

    let nameless = world.talk("frontend", hello("frontend")).await.status().await;
    assert_eq!(nameless.code(), Code::InvalidArgument, "{nameless}");

    let tls = bootstrap_client(&[world.authority.root_sha256()], &TrustDomain::default());
    let anonymous = ProxyStream::try_open(world.connect(tls).await, hello("shop/frontend")).await;
    assert_eq!(anonymous.err().map(|status| status.code()), Some(Code::Unauthenticated));
    assert!(world.proxies.connected().is_empty());
}

#[tokio::test]
async fn a_stream_and_a_renewal_are_for_the_workload_that_the_first_token_was_for() {
    let mut mesh = mesh();
    add_workload(&mut mesh, "shop/frontend-2", "frontend");
    let world = TestMesh::start(mesh);
    for (proves, proof) in [(true, Proof::Proven), (false, Proof::Claimed)] {
        let channel = world.joined("frontend", "shop/frontend", proves).await;

        let other = ProxyStream::open(channel.clone(), hello("shop/frontend-2")).await.status().await;
        assert_eq!(other.code(), Code::PermissionDenied, "{other}");
        assert!(other.message().contains("for workload shop/frontend,"), "{other}");
        let renewal = wire::SignRequest {
            csr: KeyAndCsr::generate(&identity("shop", "frontend")).unwrap().der.into(),
            workload: "shop/frontend-2".into(),
            token: None,
            ttl_seconds: None,
        };
        let renewed = CertificatesClient::new(channel.clone()).sign(renewal).await.unwrap_err();
        assert_eq!(renewed.code(), Code::PermissionDenied, "{renewed}");

        let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;
        talk.apply().await;
        assert_eq!(world.proxies.connected()[0].proof, proof);
        drop(talk);
        eventually("it is gone", || world.proxies.connected().is_empty()).await;
    }
}

#[tokio::test]
async fn who_is_revoked_loses_its_stream_whatever_is_under_way_on_it() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    let _unanswered = talk.next().await;

    let revoked = Revoked::Identity(identity("shop", "frontend"));
    let entry = Revocation { revoked, document: "Revocation a/b".into(), reason: None, until: None };
    let list = Revocations::new(vec![entry]);
    world.store.publish(Mesh { revocations: Arc::new(list), ..mesh });

    let status = talk.status().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("revoked by Revocation a/b"), "{status}");
    let again = world.talk("frontend", hello("shop/frontend")).await.status().await;
    assert_eq!(again.code(), Code::PermissionDenied, "{again}");
}

#[tokio::test]
async fn an_answer_comes_with_its_service_and_endpoints_in_one_transaction() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    talk.subscribe("reviews").await;
    let answer = talk.apply().await;

    let service = format!("service/{REVIEWS}:80");
    let list = format!("endpoints/{REVIEWS}:80");
    assert_eq!(names(&answer), ["lookup/reviews", &service, &list]);
    assert_eq!(endpoints(&answer), ["127.0.0.2:80"]);
    talk.subscribe("elsewhere.example").await;
    let none = talk.apply().await;
    let Some(Body::Lookup(lookup)) = &none.upserts[0].body else { panic!("{none:?}") };
    assert_eq!(lookup.answer, Some(wire::lookup::Answer::None(true)));
}

#[tokio::test]
async fn a_new_route_arrives_together_with_its_backends_endpoints() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting).await;
    talk.apply().await;

    let mut next = mesh.clone();
    add_service(&mut next, "ratings.shop.svc.cluster.local", &["127.0.0.9:80"]);
    let ratings = ServiceKey::new("ratings.shop.svc.cluster.local", 80);
    add_route(&mut next, &ServiceKey::new(REVIEWS, 80), None, &[&ratings]);
    world.store.publish(next);
    let change = talk.apply().await;

    let service = format!("service/{REVIEWS}:80");
    assert_eq!(names(&change), [&service, "endpoints/ratings.shop.svc.cluster.local:80"]);
    assert_eq!(change.removals, [format!("endpoints/{REVIEWS}:80")], "nothing names them any more");

    world.store.publish(mesh);
    let back = talk.apply().await;
    assert_eq!(names(&back), [service, format!("endpoints/{REVIEWS}:80")]);
    assert_eq!(back.removals, ["endpoints/ratings.shop.svc.cluster.local:80"]);
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_only_the_difference() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting.clone()).await;
    let held = versions(&talk.apply().await);
    drop(talk);

    let back = wire::Hello { held: held.clone(), ..greeting };
    let unchanged = world.talk("frontend", back.clone()).await.apply().await;
    assert!(unchanged.upserts.is_empty() && unchanged.removals.is_empty(), "{unchanged:?}");

    world.store.publish(changed(&mesh, "127.0.0.3:80"));
    let mut stale = held;
    stale.insert("lookup/forgotten".into(), "1".into());
    let difference = world.talk("frontend", wire::Hello { held: stale, ..back }).await.apply().await;
    assert_eq!(names(&difference), [format!("endpoints/{REVIEWS}:80")]);
    assert_eq!(difference.removals, ["lookup/forgotten"]);
}

#[tokio::test]
async fn a_slow_proxy_has_one_transaction_under_way_and_then_gets_the_newest() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting).await;
    let first = talk.next().await;

    for n in 3..20 {
        world.store.publish(changed(&mesh, &format!("127.0.0.{n}:80")));
    }
    talk.answer(&first, None).await;
    let second = talk.apply().await;

    assert_eq!(endpoints(&second), ["127.0.0.19:80"]);
    let newest = world.store.current().unwrap().version();
    eventually("the proxy is up to date", || {
        world.proxies.connected().first().and_then(|proxy| proxy.configuration_version) == Some(newest)
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_again_is_answered_again_and_what_is_not_is_removed() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;
    talk.subscribe("reviews").await;
    talk.apply().await;

    talk.subscribe("reviews").await;
    assert_eq!(names(&talk.apply().await), ["lookup/reviews"]);

    talk.say(Message::Unsubscribe(wire::Unsubscribe { authority: "reviews".into() })).await;
    let removed: BTreeSet<String> = talk.apply().await.removals.into_iter().collect();
    let all = [format!("endpoints/{REVIEWS}:80"), "lookup/reviews".into(), format!("service/{REVIEWS}:80")];
    assert_eq!(removed, BTreeSet::from(all));
}

#[tokio::test]
async fn a_part_that_a_proxy_refuses_holds_up_no_other() {
    let mut mesh = mesh();
    add_service(&mut mesh, "ratings.shop.svc.cluster.local", &["127.0.0.9:80"]);
    let world = TestMesh::start(mesh.clone());
    let authorities = vec!["ratings".into(), "reviews".into()];
    let mut talk = world.talk("frontend", wire::Hello { authorities, ..hello("shop/frontend") }).await;

    let whole = talk.next().await;
    talk.answer(&whole, Some("lookup/ratings: a kind that this version does not know")).await;
    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
    let bad = talk.next().await;
    assert_eq!(names(&bad)[0], "lookup/ratings");
    talk.answer(&bad, Some("a kind that this version does not know")).await;
    assert_eq!(names(&talk.apply().await)[0], "lookup/reviews");

    let refused = || world.proxies.connected()[0].refused.clone();
    assert_eq!(refused().map(|refused| refused.nonce), Some(bad.nonce));
    // What was refused is not sent again; the next to come is the next change.
    world.store.publish(changed(&mesh, "127.0.0.3:80"));
    assert_eq!(names(&talk.apply().await), [format!("endpoints/{REVIEWS}:80")]);
}

#[tokio::test]
async fn a_workload_that_is_removed_loses_its_stream() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    let mut without = mesh;
    without.workloads.remove(&"shop/frontend".parse().unwrap());
    world.store.publish(without);

    assert_eq!(talk.status().await.code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let world = TestMesh::start(mesh());
    let channel = world.member(&identity("shop", "frontend"), Duration::from_secs(2)).await;
    let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;
    talk.apply().await;

    let ended = talk.status().await;

    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("expired"), "{ended}");
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_nobody() {
    let world = TestMesh::start(mesh());
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }

    let mut talk = world.talk("frontend", hello("shop/frontend")).await;

    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
}

#[tokio::test]
async fn the_drain_tells_every_stream_and_ends_the_server() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    world.drain.begin(selvedge_ops::Reason::Signal);

    assert_eq!(talk.status().await.code(), Code::Unavailable);
    drop(talk);
    timeout(LIMIT, world.server).await.expect("in time").unwrap().unwrap();
    assert!(TcpStream::connect(world.address).await.is_err(), "the port is closed");
}
