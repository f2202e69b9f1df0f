//! A control plane with a mesh, and a proxy that talks to it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex, time::SystemTime};

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
use selvedge_model::{Mesh, SpiffeId, TrustDomain};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::super::*;
use crate::{
    metrics::Metrics,
    serve::{
        allowance::Allowance,
        attestation::{Attestor, Grant, TokenKey, create},
        audit::Audit,
        own::OwnIssuing,
    },
    snapshot::Store,
    status::{Proxies, Seen, Taps, Traffic},
    testing::{self, add_service, add_workload, identity},
};

pub(super) const LIMIT: Duration = Duration::from_secs(10);

pub(super) const REVIEWS: &str = "reviews.shop.svc.cluster.local";

pub(super) struct TestMesh {
    pub(super) directory: tempfile::TempDir,
    pub(super) authority: Arc<Authority>,
    pub(super) store: Arc<Store>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) seen: Arc<Seen>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) taps: Arc<Taps>,
    pub(super) drain: Drain,
    pub(super) address: SocketAddr,
    pub(super) server: JoinHandle<Result<(), ServeError>>,
}

impl TestMesh {
    /// A control plane with this mesh.
    pub(super) fn start(mesh: Mesh) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(testing::authority(directory.path()));
        let (store, metrics) = (Arc::new(Store::new(&authority.bundle())), Arc::new(Metrics::default()));
        store.publish(mesh);
        let proxies = Arc::new(Proxies::new(Arc::clone(&metrics)));
        let (drain, seen) = (Drain::default(), Arc::new(Seen::default()));
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
            said: Mutex::default(),
        };
        let shown = Arc::new(crate::status::OwnCertificates::new(&authority, Arc::clone(&metrics)));
        let traffic = Arc::new(Traffic::new(Arc::clone(&metrics)));
        let taps = Arc::<Taps>::default();
        let streams = Streams {
            traffic: Arc::clone(&traffic),
            taps: Arc::clone(&taps),
            levels: Arc::default(),
            store: Arc::clone(&store),
            proxies: Arc::clone(&proxies),
            seen: Arc::clone(&seen),
            metrics,
            keys: crate::keys::KeyWishes::unheard(),
            turns: Arc::default(),
            drain: drain.clone(),
        };
        let listener = selvedge_ops::listen::tcp("--listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let tickets = TokenKey::load_or_create(directory.path()).unwrap().ticket_secret();
        let issuing = OwnIssuing {
            authority: Arc::clone(&authority),
            ttl: Duration::from_secs(3600),
            tickets,
            audit,
            shown,
        };
        let (own, _renewing) = OwnCertificate::make(issuing).unwrap();
        let server = tokio::spawn(serve(
            listener,
            own,
            certificates,
            streams,
            drain.clone(),
            selvedge_ops::Readiness::default().remark("crowded"),
        ));
        Self { directory, authority, store, proxies, seen, traffic, taps, drain, address, server }
    }

    pub(super) fn token(&self, identity: SpiffeId, now: SystemTime) -> String {
        self.token_for(identity, None, now)
    }

    pub(super) fn token_for(&self, identity: SpiffeId, workload: Option<&str>, now: SystemTime) -> String {
        let key = TokenKey::load_or_create(self.directory.path()).unwrap();
        let workload = workload.map(|workload| workload.parse().unwrap());
        let grant = Grant { identity, workload, ttl: Duration::from_secs(60), once: false };
        create(&key, &grant, self.authority.root_sha256(), now).unwrap().0
    }

    pub(super) async fn connect(&self, tls: Arc<ClientConfig>) -> Channel {
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
    pub(super) async fn newcomer(&self) -> CertificatesClient<Channel> {
        let tls = bootstrap_client(&[self.authority.root_sha256()], &TrustDomain::default());
        CertificatesClient::new(self.connect(tls).await)
    }

    /// A channel of a workload with a certificate.
    pub(super) async fn member(&self, identity: &SpiffeId, ttl: Duration) -> Channel {
        let leaf = self.authority.issue(identity, &[], ttl, SystemTime::now()).unwrap();
        let own = Credentials { leaf, bundle: self.authority.bundle() };
        self.connect(grpc_client(&own).unwrap()).await
    }

    /// A channel of a workload whose first certificate was for a token, which is for it alone if it `proves` that.
    pub(super) async fn joined(&self, account: &str, workload: &str, proves: bool) -> Channel {
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

    pub(super) async fn talk(&self, account: &str, hello: wire::Hello) -> ProxyStream {
        let channel = self.member(&identity("shop", account), Duration::from_secs(600)).await;
        ProxyStream::open(channel, hello).await
    }
}

/// One stream, from the proxy's side.
pub(super) struct ProxyStream {
    pub(super) outgoing: mpsc::Sender<wire::ClientMessage>,
    pub(super) incoming: Streaming<Transaction>,
}

impl ProxyStream {
    pub(super) async fn open(channel: Channel, hello: wire::Hello) -> Self {
        Self::try_open(channel, hello).await.unwrap()
    }

    pub(super) async fn try_open(channel: Channel, hello: wire::Hello) -> Result<Self, Status> {
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

    pub(super) async fn say(&self, message: Message) {
        self.outgoing.send(wire::ClientMessage { message: Some(message) }).await.unwrap();
    }

    pub(super) async fn subscribe(&self, authority: &str) {
        self.say(Message::Subscribe(wire::Subscribe { authority: authority.into() })).await;
    }

    pub(super) async fn next(&mut self) -> Transaction {
        timeout(LIMIT, self.incoming.message()).await.expect("in time").unwrap().expect("not closed")
    }

    pub(super) async fn status(&mut self) -> Status {
        timeout(LIMIT, self.incoming.message()).await.expect("in time").unwrap_err()
    }

    pub(super) async fn answer(&self, transaction: &Transaction, refused: Option<&str>) {
        let refused = refused.map(Into::into);
        self.say(Message::Ack(wire::Ack { nonce: transaction.nonce, refused })).await;
    }

    /// The next transaction, applied.
    pub(super) async fn apply(&mut self) -> Transaction {
        let transaction = self.next().await;
        self.answer(&transaction, None).await;
        transaction
    }
}

pub(super) fn hello(workload: &str) -> wire::Hello {
    wire::Hello { workload: workload.into(), ..wire::Hello::default() }
}

/// Knows `shop/frontend` and the service `reviews.shop`.
pub(super) fn mesh() -> Mesh {
    let mut mesh = testing::mesh();
    add_workload(&mut mesh, "shop/frontend", "frontend");
    add_workload(&mut mesh, "shop/reviews-1", "reviews");
    add_service(&mut mesh, REVIEWS, &["127.0.0.2:80"]);
    mesh
}

/// The same, with another endpoint.
pub(super) fn changed(mesh: &Mesh, endpoint: &str) -> Mesh {
    let mut mesh = mesh.clone();
    let mut other = testing::mesh();
    add_service(&mut other, REVIEWS, &[endpoint]);
    mesh.endpoints.extend(other.endpoints);
    mesh
}

pub(super) fn names(transaction: &Transaction) -> Vec<&str> {
    transaction.upserts.iter().map(|resource| resource.name.as_str()).collect()
}

pub(super) fn versions(transaction: &Transaction) -> BTreeMap<String, String> {
    transaction.upserts.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}

pub(super) fn endpoints(transaction: &Transaction) -> Vec<String> {
    let body = transaction.upserts.iter().filter_map(|resource| resource.body.as_ref());
    let lists =
        body.filter_map(|body| if let Body::Endpoints(list) = body { Some(&list.list) } else { None });
    lists.flatten().map(|endpoint| endpoint.address.clone()).collect()
}

pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} within {LIMIT:?}");
        tokio::task::yield_now().await;
    }
}
