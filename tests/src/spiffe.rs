//! A SPIFFE agent of the tests' own, and the CA behind it: the Workload API over a Unix socket, as SPIRE serves it.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use http::{Request, Response};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use selvedge_certs::{CertificateDer, leaf::Leaf};
use tokio::{net::UnixListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Status, body::Body, metadata::MetadataMap, server::NamedService, transport::Server};

/// The CA of a SPIRE server.
pub struct SpireCa {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for SpireCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpireCa").field(&self.root_pem()).finish()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

impl SpireCa {
    /// The CA of `trust_domain`.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(trust_domain: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SPIFFE");
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).expect("a certificate").into();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Its root, as `spire-server bundle show` prints it.
    pub fn root_pem(&self) -> String {
        selvedge_certs::ca::to_pem(std::slice::from_ref(&self.root))
    }

    /// An SVID for `identity` that ends in so long.
    ///
    /// # Panics
    /// If none can be made.
    pub fn svid(&self, identity: &str, ttl: Duration) -> Svid {
        let key = KeyPair::generate().expect("a key");
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.not_before = (now - Duration::from_secs(10)).into();
        params.not_after = (now + ttl).into();
        params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        params.subject_alt_names = vec![uri(identity)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Svid {
            spiffe_id: identity.to_owned(),
            x509_svid: certificate.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.root.to_vec(),
            hint: String::new(),
        }
    }
}

/// One identity, as it is on the wire (SPIFFE Workload API, `message X509SVID`).
#[derive(Clone, PartialEq, Message)]
pub struct Svid {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The chain, in DER, one after the other.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// Its key, in PKCS #8.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The roots of its trust domain.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// Which of several it is.
    #[prost(string, tag = "5")]
    pub hint: String,
}

impl Svid {
    /// The same as a certificate in use.
    ///
    /// # Panics
    /// If it is none.
    pub fn leaf(&self) -> Leaf {
        let key = selvedge_certs::PrivateKeyDer::try_from(self.x509_svid_key.clone()).expect("a key");
        Leaf::new(vec![CertificateDer::from(self.x509_svid.clone())], key).expect("a leaf")
    }
}

#[derive(Clone, PartialEq, Message)]
struct SvidRequest {}

#[derive(Clone, PartialEq, Message)]
struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

/// What the agent says to every client: all its identities; none: that it has none.
type Said = Vec<Svid>;

/// An agent that runs, on threads of its own. It ends as if it was killed, with all its connections.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    said: watch::Sender<Said>,
    runtime: Option<Runtime>,
}

impl Agent {
    /// An agent at the socket `path` that gives every client these identities.
    ///
    /// # Panics
    /// If it cannot listen there.
    pub fn start(path: &Path, svids: Said) -> Self {
        let mut agent = Self { path: path.to_owned(), said: watch::Sender::new(svids), runtime: None };
        agent.start_again();
        agent
    }

    /// Its address, as clients are given it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Tells all clients that these are their identities now; none: that they have none.
    pub fn say(&self, svids: Said) {
        self.said.send_replace(svids);
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it after it was killed.
    ///
    /// # Panics
    /// If it cannot listen where it was.
    pub fn start_again(&mut self) {
        // What was there before has no more listener.
        let _ = std::fs::remove_file(&self.path);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&self.path).expect("a socket")
        };
        let service = WorkloadApi { said: self.said.clone() };
        runtime.spawn(async move {
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(UnixListenerStream::new(listener)).await
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Clone)]
struct WorkloadApi {
    said: watch::Sender<Said>,
}

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tower::Service<Request<Body>> for WorkloadApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fetch = Fetch { said: self.said.clone() };
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("no such method here").into_http());
            }
            let codec = tonic_prost::ProstCodec::<SvidResponse, SvidRequest>::default();
            Ok(tonic::server::Grpc::new(codec).server_streaming(fetch, request).await)
        })
    }
}

struct Fetch {
    said: watch::Sender<Said>,
}

impl tonic::server::ServerStreamingService<SvidRequest> for Fetch {
    type Response = SvidResponse;
    type ResponseStream = BoxStream<'static, Result<SvidResponse, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<SvidRequest>) -> Self::Future {
        let said = self.said.subscribe();
        Box::pin(async move {
            // SPIFFE Workload Endpoint, section 3: it shows that nobody was tricked into this request.
            let is_meant =
                |metadata: &MetadataMap| metadata.get("workload.spiffe.io").is_some_and(|v| v == "true");
            if !is_meant(request.metadata()) {
                return Err(Status::invalid_argument("the security header is missing"));
            }
            let answers = WatchStream::new(said).map(|svids| match svids.is_empty() {
                true => Err(Status::permission_denied("no identity issued")),
                false => Ok(SvidResponse { svids, ..SvidResponse::default() }),
            });
            Ok(tonic::Response::new(answers.boxed()))
        })
    }
}
