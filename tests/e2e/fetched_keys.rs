//! `jwksUri` and issuers that say themselves where their keys are: fetched by the control plane, from servers of the tests'
//! own, and enforced by real sidecars.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_demo::{
    call::{self, Call},
    processes::Processes,
    workload::Spec,
};
use selvedge_tests::{
    Mesh, SOON,
    dns::DnsServer,
    issuer::{IssuerKey, key_set, now},
    poll,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::SELVEDGE;

const CLIENT: &str = "caller";
const SERVER: &str = "reviews-v1";
/// What no problem, log or answer may repeat.
const SECRET: &str = "what-only-the-server-knows";

/// What a path is answered.
#[derive(Debug, Clone)]
enum Page {
    Text(String),
    Status(u16),
    Redirect(String),
    /// Never.
    Nothing,
}

type Pages = Arc<Mutex<BTreeMap<String, (Page, usize)>>>;

/// A server of keys.
struct KeyServer {
    address: SocketAddr,
    pages: Pages,
    tls: Option<TlsAcceptor>,
    serving: Option<JoinHandle<()>>,
}

impl KeyServer {
    /// One that is not there yet.
    fn at(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        Self { address, pages: Pages::default(), tls, serving: None }
    }

    async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port");
        let (pages, tls) = (Arc::clone(&self.pages), self.tls.clone());
        self.serving = Some(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, tls.clone(), Arc::clone(&pages)));
            }
        }));
    }

    async fn stop(&mut self) {
        let serving = self.serving.take().expect("it runs");
        serving.abort();
        let _ = serving.await;
    }

    fn put(&self, path: &str, page: Page) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = pages.get(path).map_or(0, |(_, asked)| *asked);
        pages.insert(path.to_owned(), (page, asked));
    }

    fn keys(&self, path: &str, keys: &[&IssuerKey]) {
        self.put(path, Page::Text(key_set(keys)));
    }

    /// How often the path was asked for.
    fn asked(&self, path: &str) -> usize {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(path).map_or(0, |(_, asked)| *asked)
    }

    fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }
}

async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| answer(request, Arc::clone(&pages)));
    let http = http1::Builder::new();
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(tcp), service).await,
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn answer(request: Request<Incoming>, pages: Pages) -> Result<Response<Full<Bytes>>, Infallible> {
    let page =
        pages.lock().unwrap_or_else(PoisonError::into_inner).get_mut(request.uri().path()).map(|page| {
            page.1 += 1;
            page.0.clone()
        });
    let (status, location, text) = match page.unwrap_or(Page::Status(404)) {
        Page::Text(text) => (200, None, text),
        Page::Status(status) => (status, None, SECRET.to_owned()),
        Page::Redirect(to) => (302, Some(to), SECRET.to_owned()),
        Page::Nothing => std::future::pending().await,
    };
    let answer = Response::builder().status(status).header("x-secret", SECRET);
    let answer = location.into_iter().fold(answer, |answer, to| answer.header("location", to));
    Ok(answer.body(Full::from(text)).expect("a valid answer"))
}

/// TLS for a server at `address`, and the authority in PEM form by which it is trusted.
fn tls_for(address: SocketAddr) -> (TlsAcceptor, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![address.ip().to_string()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), issuer.pem())
}

/// A document for the server whose rules these are.
fn document(rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: reviews}}}}\n  jwtRules: [{rules}]\n"
    )
}

fn rule(issuer: &str, more: &str) -> String {
    format!("{{issuer: '{issuer}', {more}}}")
}

fn get() -> Call {
    call::to("reviews:9080", "/")
}

fn bearing(key: &IssuerKey, issuer: &str) -> Call {
    let token = key.sign(&json!({ "iss": issuer, "sub": "alice", "exp": now() + 3600 }));
    get().header("authorization", &format!("Bearer {token}"))
}

/// A control plane that fetches often, a caller and a server, none of which run yet.
fn empty(refresh: &str) -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.control_plane_flag("--jwks-refresh-interval", refresh);
    mesh.service("reviews", 9080);
    mesh
}

async fn start(mesh: &mut Mesh) {
    mesh.start_control_plane().await.expect("a control plane");
    mesh.add([Spec::client(CLIENT), Spec::reviews(SERVER, "v1")]).await.expect("workloads");
}

/// Waits until `call` is answered with `status`; what the sidecar says about it.
async fn answered(mesh: &Mesh, call: Call, status: u16) -> String {
    poll(SOON, &format!("{status}"), async || {
        let answer = call::send(mesh.workload(CLIENT).outbound, call.clone()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status.as_u16() == status {
            true => Ok(answer.proxy_error().unwrap_or_default().to_owned()),
            false => Err(answer.summary()),
        }
    })
    .await
}

/// Waits until a problem has all of `words`, and returns it.
async fn problem(mesh: &Mesh, words: &[&str]) -> Value {
    poll(SOON, &format!("a problem with {words:?}"), async || {
        let problems = mesh.control_plane_admin("/problems").await;
        let problems: Vec<Value> =
            problems.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        let message = |problem: &Value| problem["message"].as_str().unwrap_or_default().to_owned();
        let found = problems.iter().find(|problem| words.iter().all(|word| message(problem).contains(word)));
        found.cloned().ok_or_else(|| format!("{problems:#?}"))
    })
    .await
}

async fn no_problem(mesh: &Mesh) {
    poll(SOON, "no problem", async || {
        let problems = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?.text();
        if problems == "[]" { Ok(()) } else { Err(problems) }
    })
    .await;
}

async fn metrics(mesh: &Mesh) -> String {
    mesh.control_plane_admin("/metrics").await.expect("metrics").text()
}

#[tokio::test]
async fn fetched_keys_are_refreshed_and_the_last_ones_stay_in_use_while_their_server_is_away() {
    let mut mesh = empty("200ms");
    let mut server = KeyServer::at(mesh.ground().socket(201, 8080).unwrap(), None);
    server.start().await;
    let [old, new] = [IssuerKey::p256("old"), IssuerKey::p256("new")];
    let issuer = "https://issuer.example";
    let [with_old, with_new] = [&old, &new].map(|key| bearing(key, issuer));
    server.keys("/keys", &[&old]);
    mesh.write("jwt.yaml", &document(&rule(issuer, &format!("jwksUri: '{}'", server.url("/keys"))))).unwrap();

    // The first configuration has the keys already.
    start(&mut mesh).await;
    assert_eq!(answered(&mesh, with_old.clone(), 200).await, "");
    assert!(answered(&mesh, with_new.clone(), 401).await.contains("a key that its issuer does not have"));
    answered(&mesh, get(), 200).await;

    server.keys("/keys", &[&old, &new]);
    answered(&mesh, with_new.clone(), 200).await;
    server.keys("/keys", &[&new]);
    answered(&mesh, with_old.clone(), 401).await;
    assert!(metrics(&mesh).await.contains("selvedge_control_plane_key_sets{state=\"fresh\"} 1"));

    server.stop().await;
    let url = server.url("/keys");
    let told =
        problem(&mesh, &[&url, "the keys from before stay in use", "since 20", "reach the server"]).await;
    assert_eq!((&told["severity"], &told["field"]), (&json!("warning"), &json!("spec.jwtRules[0].jwksUri")));
    answered(&mesh, with_new.clone(), 200).await;
    answered(&mesh, with_old.clone(), 401).await;
    assert!(metrics(&mesh).await.contains("selvedge_control_plane_key_sets{state=\"kept\"} 1"));

    // A control plane and a sidecar that know nothing else but what is on disk.
    mesh.kill_control_plane().await.unwrap();
    mesh.kill_sidecar(SERVER).await.unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.start_sidecar(SERVER).await.unwrap();
    mesh.sidecar_ready(SERVER).await.unwrap();
    answered(&mesh, with_new.clone(), 200).await;
    answered(&mesh, with_old.clone(), 401).await;
    problem(&mesh, &[&url, "the keys from before stay in use"]).await;

    server.keys("/keys", &[&old]);
    server.start().await;
    answered(&mesh, with_old, 200).await;
    answered(&mesh, with_new, 401).await;
    no_problem(&mesh).await;

    // What is not named any more is not kept.
    let saved = || fs::read_dir(mesh.data_dir().join("keys")).unwrap().count();
    assert_eq!(saved(), 1);
    mesh.remove("jwt.yaml").unwrap();
    poll(SOON, "no saved keys", async || if saved() == 0 { Ok(()) } else { Err("some") }).await;
}

#[tokio::test]
async fn a_token_of_a_key_that_is_not_known_has_the_keys_fetched_early_and_strangers_cause_few_fetches() {
    let mut mesh = empty("1h");
    let mut server = KeyServer::at(mesh.ground().socket(201, 8080).unwrap(), None);
    server.start().await;
    let [old, new] = [IssuerKey::p256("old"), IssuerKey::p256("new")];
    let issuer = "https://issuer.example";
    let [with_old, with_new] = [&old, &new].map(|key| bearing(key, issuer));
    server.keys("/keys", &[&old]);
    server.keys("/elsewhere", &[&old]);
    let rules = [("/keys", issuer), ("/elsewhere", "https://other.example")]
        .map(|(path, issuer)| rule(issuer, &format!("jwksUri: '{}'", server.url(path))));
    mesh.write("jwt.yaml", &document(&rules.join(", "))).unwrap();
    start(&mut mesh).await;
    answered(&mesh, with_old.clone(), 200).await;
    assert_eq!(server.asked("/keys"), 1);

    // The issuer has another key from now on, long before the keys are due. No request waits for it.
    server.keys("/keys", &[&new]);
    answered(&mesh, with_new.clone(), 200).await;
    answered(&mesh, with_old.clone(), 401).await;
    assert_eq!(server.asked("/keys"), 2);

    // Names of keys that nobody has: the fetch that they cause brings nothing new, so the next one is not before 10 s.
    let stranger = IssuerKey::p256("made-up");
    let asked = Instant::now();
    poll(SOON, "an early fetch", async || {
        let answer = call::send(mesh.workload(CLIENT).outbound, bearing(&stranger, issuer)).await;
        let status = answer.map_err(|error| error.to_string())?.status;
        assert_eq!(status, 401);
        match server.asked("/keys") {
            2 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    for _ in 0..200 {
        answered(&mesh, bearing(&stranger, issuer), 401).await;
    }
    let most = 3 + usize::try_from(asked.elapsed().as_secs() / 10).unwrap();
    assert!(server.asked("/keys") <= most, "{}", server.asked("/keys"));
    // Nobody named a key of the other issuer.
    assert_eq!(server.asked("/elsewhere"), 1);
    answered(&mesh, with_new, 200).await;
}

#[tokio::test]
async fn tokens_are_refused_with_the_reason_while_keys_were_never_fetched_and_accepted_once_they_are() {
    let mut mesh = empty("20m");
    let mut server = KeyServer::at(mesh.ground().socket(201, 8080).unwrap(), None);
    let key = IssuerKey::ed25519("a");
    let issuer = "https://issuer.example";
    server.keys("/keys", &[&key]);
    mesh.write("jwt.yaml", &document(&rule(issuer, &format!("jwksUri: '{}'", server.url("/keys"))))).unwrap();
    start(&mut mesh).await;

    let told = answered(&mesh, bearing(&key, issuer), 401).await;
    assert!(told.contains("default/jwt rule 1") && told.contains("keys of the token's issuer"), "{told}");
    answered(&mesh, get(), 200).await;
    let url = server.url("/keys");
    let told =
        problem(&mesh, &[&url, "cannot be fetched: no connection to", "are refused", "since 20"]).await;
    assert_eq!(told["severity"], "error");
    let metrics = metrics(&mesh).await;
    assert!(metrics.contains("selvedge_control_plane_key_sets{state=\"missing\"} 1"), "{metrics}");
    assert!(metrics.contains("selvedge_control_plane_key_fetches_total{outcome=\"failed\"}"), "{metrics}");

    server.start().await;
    answered(&mesh, bearing(&key, issuer), 200).await;
    no_problem(&mesh).await;
}

#[tokio::test]
async fn an_issuer_says_itself_where_its_keys_are_and_one_url_is_fetched_once() {
    let mut mesh = empty("20m");
    let address = mesh.ground().socket(201, 8443).unwrap();
    let (tls, authority) = tls_for(address);
    let mut server = KeyServer::at(address, Some(tls));
    server.start().await;
    let key = IssuerKey::rsa("a");
    let issuer = server.url("/realms/shop");
    let configuration = json!({ "issuer": issuer, "jwks_uri": server.url("/moved") });
    server.put("/realms/shop/.well-known/openid-configuration", Page::Text(configuration.to_string()));
    server.put("/moved", Page::Redirect("/keys".to_owned()));
    server.keys("/keys", &[&key]);
    let rules = format!("{}, {}", rule(&issuer, ""), rule(&issuer, "audiences: [a], timeout: 3s"));
    mesh.write("jwt.yaml", &document(&rules)).unwrap();
    let authorities = mesh.directory().join("authorities.pem");
    fs::write(&authorities, authority).unwrap();
    mesh.control_plane_flag("--jwks-ca", &authorities.display().to_string());

    start(&mut mesh).await;

    answered(&mesh, bearing(&key, &issuer), 200).await;
    assert_eq!([server.asked("/moved"), server.asked("/keys")], [1, 1]);
}

#[tokio::test]
async fn what_is_not_a_key_set_or_may_not_be_asked_is_refused_and_never_shown() {
    let mut mesh = empty("20m");
    let dns = DnsServer::start().await;
    dns.set("metadata.test", &["169.254.169.254".parse().unwrap()]);
    mesh.control_plane_flag("--resolv-conf", &dns.resolv_conf().display().to_string());
    mesh.control_plane_flag("--hosts-file", "/dev/null");
    let mut server = KeyServer::at(mesh.ground().socket(201, 8080).unwrap(), None);
    server.start().await;
    let secret = json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": SECRET }] }).to_string();
    let configuration = json!({ "issuer": SECRET, "jwks_uri": server.url("/keys") }).to_string();
    let to_metadata = json!({ "jwks_uri": "http://169.254.169.254/latest" }).to_string();
    for (path, page) in [
        ("/large", Page::Text(format!("{{\"keys\": [], \"x\": \"{}\"}}", SECRET.repeat(10_000)))),
        ("/text", Page::Text(format!("\"{SECRET}\""))),
        ("/secret", Page::Text(secret)),
        ("/loop", Page::Redirect("/loop".to_owned())),
        ("/elsewhere", Page::Redirect("ftp://a.example/".to_owned())),
        ("/inside", Page::Redirect("http://169.254.169.254/latest".to_owned())),
        ("/broken", Page::Status(500)),
        ("/slow", Page::Nothing),
        ("/other/.well-known/openid-configuration", Page::Text(configuration)),
        ("/inner/.well-known/openid-configuration", Page::Text(to_metadata)),
        ("/none/.well-known/openid-configuration", Page::Text(format!("{{\"x\": \"{SECRET}\"}}"))),
    ] {
        server.put(path, page);
    }
    let expected = [
        (server.url("/large"), "longer than 131072 bytes"),
        (server.url("/text"), "is not a JSON Web Key Set"),
        (server.url("/secret"), "no public key that can verify signatures"),
        (server.url("/loop"), "redirects more than 5 times"),
        (server.url("/elsewhere"), "redirects to a place whose URL has neither the scheme"),
        (server.url("/inside"), "link-local addresses"),
        (server.url("/broken"), "answered with status 500"),
        (server.url("/missing"), "answered with status 404"),
        (server.url("/slow"), "took longer than 1s"),
        ("http://169.254.169.254/latest".to_owned(), "link-local addresses"),
        ("http://[::ffff:169.254.169.254]/".to_owned(), "link-local addresses"),
        ("http://metadata.test/latest".to_owned(), "link-local addresses"),
        ("http://unknown.test/".to_owned(), "does not exist"),
        (format!("https://{}/", server.address), "TLS handshake failed"),
    ];
    let issuers = [
        (server.url("/other"), "that of another issuer"),
        (server.url("/inner"), "link-local addresses"),
        (server.url("/none"), "not JSON with a jwks_uri"),
    ];
    let by_url = expected
        .iter()
        .map(|(url, _)| rule("https://issuer.example", &format!("jwksUri: '{url}', timeout: 1s")));
    let by_issuer = issuers.iter().map(|(url, _)| rule(url, ""));
    let rules: Vec<String> = by_url.chain(by_issuer).collect();
    mesh.write("jwt.yaml", &document(&rules.join(", "))).unwrap();
    start(&mut mesh).await;

    for (url, why) in expected.iter().chain(&issuers) {
        let told = problem(&mesh, &[&format!("the keys of {url} cannot be fetched"), why]).await;
        assert_eq!(told["severity"], "error", "{told}");
    }
    let key = IssuerKey::p256("a");
    let told = answered(&mesh, bearing(&key, "https://issuer.example"), 401).await;
    let problems = mesh.control_plane_admin("/problems").await.unwrap().text();
    let logs: String = logs_of(mesh.processes());
    for (place, text) in [("answer", &told), ("problems", &problems), ("logs", &logs)] {
        assert!(!text.contains(SECRET), "{place}: {text}");
    }
}

fn logs_of(processes: &Processes) -> String {
    processes.logs().iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
}

#[test]
fn a_check_fetches_nothing_says_so_and_passes() {
    let directory = tempfile::tempdir().unwrap();
    let rules =
        [rule("https://issuer.example", "jwksUri: 'https://192.0.2.1/keys'"), rule("https://a.example", "")];
    fs::write(
        directory.path().join("jwt.yaml"),
        document(&rules.join(", ")).replace("{matchLabels: {app: reviews}}", "{}"),
    )
    .unwrap();
    let checked = std::process::Command::new(SELVEDGE)
        .arg("check")
        .arg("--config-dir")
        .arg(directory.path())
        .output()
        .unwrap();

    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{told}");
    assert!(told.contains("Not checked here\n"), "{told}");
    for (field, url) in [("jwksUri", "https://192.0.2.1/keys"), ("issuer", "https://a.example")] {
        assert!(
            told.contains(&format!(
                "{field}: the control plane fetches the keys of {url}; nothing is fetched here"
            )),
            "{told}"
        );
    }
    assert!(told.contains("0 errors, 0 warnings"), "{told}");
}
