//! TLS with clients from outside.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use selvedge_model::gateway::{
    CertificateName, ClientValidation, ListenerTls, PrivateKey, ServerCertificate, Termination,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    },
};

use super::*;

/// An authority for servers and clients.
struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().into();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, and its key.
    fn issue(&self, name: &str) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().into(), key)
    }

    /// The Secret `secret` with a certificate for `name`.
    fn secret(&self, secret: &str, name: &str) -> wire::Resource {
        let (certificate, key) = self.issue(name);
        let certificate = ServerCertificate {
            name: CertificateName::new("shop", secret),
            chain: vec![certificate.to_vec()],
            key: PrivateKey::new(key.serialize_der()),
        };
        let body = wire::resource::Body::Certificate((&certificate).into());
        // Its debug text shows no key, so it cannot be the version.
        let version = format!("{:?}", certificate.chain);
        wire::Resource { name: format!("certificate/shop/{secret}"), version, body: Some(body) }
    }
}

/// What clients ask with.
#[derive(Clone)]
struct Asks<'a> {
    authority: &'a Authority,
    alpn: &'a [&'a [u8]],
    versions: &'a [&'static SupportedProtocolVersion],
    certificate: Option<(&'a Authority, &'a str)>,
}

impl<'a> Asks<'a> {
    fn usual(authority: &'a Authority) -> Self {
        Self { authority, alpn: &[b"http/1.1"], versions: rustls::ALL_VERSIONS, certificate: None }
    }

    async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(selvedge_certs::tls::provider())
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some((authority, name)) => {
                let (certificate, key) = authority.issue(name);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.to_vec()).collect();
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        timeout(PATIENCE, connecting).await.expect("a handshake in time")
    }

    /// What is answered to a request for `host` on a connection for `name`.
    async fn get(&self, address: SocketAddr, name: &str, host: &str) -> std::io::Result<String> {
        let mut stream = self.connect(address, name).await?;
        ask_on(&mut stream, host).await
    }
}

async fn ask_on(stream: &mut TlsStream<TcpStream>, host: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET /a HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time")?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        if read == 0 {
            return if text.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(text) };
        }
        // Its body is one object, or one line.
        if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('}') || body.ends_with('\n')) {
            return Ok(text);
        }
    }
}

fn termination(certificates: &[&str]) -> Termination {
    Termination {
        certificates: certificates.iter().map(|name| CertificateName::new("shop", name)).collect(),
        clients: None,
        tls12: true,
        http: true,
    }
}

/// A listener for `hostname` that ends TLS, with one virtual host.
fn secure(hostname: &str, tls: Termination) -> Listener {
    with_tls(hostname, ListenerTls::Terminate(tls))
}

fn with_tls(hostname: &str, tls: ListenerTls) -> Listener {
    let Listener { name, hostname, virtual_hosts, .. } = listener(443, hostname, &[hostname]);
    Listener::new(name, hostname, Some(tls), virtual_hosts)
}

/// What configures a gateway with one port 443.
fn all(listeners: Vec<Listener>, backend: SocketAddr, secrets: Vec<wire::Resource>) -> Vec<wire::Resource> {
    let mut all = port(443, Carries::Tls, listeners, backend);
    all.extend(secrets);
    all.push(own(InboundPolicy::default(), &[(443, 0)]));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_chooses_the_listener_and_its_certificate() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let (one, other) = (Authority::new(), Authority::new());
    let listeners = vec![
        secure("shop.example.com", termination(&["exact"])),
        secure("*.example.com", termination(&["wildcard"])),
    ];
    let secrets = vec![one.secret("exact", "shop.example.com"), other.secret("wildcard", "*.example.com")];
    let mut rig = start_gateway(&[]).await;
    rig.transact(all(listeners, backend, secrets), &[]).await;
    let address = rig.at(443).await;

    let found = Asks::usual(&one).get(address, "shop.example.com", "shop.example.com").await.unwrap();
    assert!(found.starts_with("HTTP/1.1 200") && found.contains(r#""x-forwarded-proto":"https""#), "{found}");
    let found = Asks::usual(&other).get(address, "api.example.com", "api.example.com:443").await.unwrap();
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    assert!(Asks::usual(&other).connect(address, "shop.example.com").await.is_err(), "exact before wildcard");

    let elsewhere = Asks::usual(&one).get(address, "shop.example.com", "api.example.com").await.unwrap();
    assert!(elsewhere.starts_with("HTTP/1.1 421"), "{elsewhere}");
    assert!(elsewhere.contains("selvedge-error: misdirected"), "{elsewhere}");
    let nowhere = Asks::usual(&one).get(address, "shop.example.com", "example.org").await.unwrap();
    assert!(nowhere.starts_with("HTTP/1.1 404"), "{nowhere}");
    let unknown = Asks::usual(&one).connect(address, "example.org").await.unwrap_err();
    assert!(unknown.to_string().contains("UnrecognisedName"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_speak_http2_and_both_versions_of_tls() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let authority = Authority::new();
    let mut rig = start_gateway(&["--workers=2"]).await;
    let secret = authority.secret("tls", "shop.example.com");
    let listeners = vec![secure("shop.example.com", termination(&["tls"]))];
    rig.transact(all(listeners, backend, vec![secret]), &[]).await;
    let address = rig.at(443).await;

    for version in rustls::ALL_VERSIONS {
        let asks = Asks { alpn: &[b"h2"], versions: &[version], ..Asks::usual(&authority) };
        let stream = asks.connect(address, "shop.example.com").await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        for (host, status) in [("shop.example.com", 200), ("example.org", 404)] {
            let request = http::Request::get(format!("https://{host}/")).body(String::new()).unwrap();
            assert_eq!(client.send_request(request).await.unwrap().status(), status, "{host}");
        }
    }

    let strict = Termination { tls12: false, ..termination(&["tls"]) };
    rig.transact(port(443, Carries::Tls, vec![secure("shop.example.com", strict)], backend), &[]).await;
    let old = Asks { versions: &[&rustls::version::TLS12], ..Asks::usual(&authority) };
    assert!(old.connect(address, "shop.example.com").await.is_err());
    assert!(Asks::usual(&authority).connect(address, "shop.example.com").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let (before, after) = (Authority::new(), Authority::new());
    let mut rig = start_gateway(&[]).await;
    let secret = before.secret("tls", "shop.example.com");
    let listeners = vec![secure("shop.example.com", termination(&["tls"]))];
    rig.transact(all(listeners, backend, vec![secret]), &[]).await;
    let address = rig.at(443).await;
    let mut kept = Asks::usual(&before).connect(address, "shop.example.com").await.unwrap();
    assert!(ask_on(&mut kept, "shop.example.com").await.unwrap().starts_with("HTTP/1.1 200"));

    rig.transact(vec![after.secret("tls", "shop.example.com")], &[]).await;

    assert!(Asks::usual(&after).connect(address, "shop.example.com").await.is_ok());
    assert!(Asks::usual(&before).connect(address, "shop.example.com").await.is_err());
    assert!(ask_on(&mut kept, "shop.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    let config = rig.admin("/config").await;
    assert!(config.contains("shop/tls") && !config.contains("reveal"), "{config}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_prove_who_they_are_where_a_listener_asks() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let (servers, clients) = (Authority::new(), Authority::new());
    let asking = |optional, names: &[&str]| {
        let validation = ClientValidation {
            roots: vec![clients.root.to_vec()],
            optional,
            subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        vec![secure("shop.example.com", Termination { clients: Some(validation), ..termination(&["tls"]) })]
    };
    let mut rig = start_gateway(&[]).await;
    let secret = servers.secret("tls", "shop.example.com");
    let open = vec![secure("shop.example.com", termination(&["tls"]))];
    rig.transact(all(open, backend, vec![secret]), &[]).await;
    let address = rig.at(443).await;
    let nobody = Asks::usual(&servers);
    let mut earlier = nobody.connect(address, "shop.example.com").await.unwrap();
    assert!(ask_on(&mut earlier, "shop.example.com").await.unwrap().starts_with("HTTP/1.1 200"));

    rig.transact(port(443, Carries::Tls, asking(false, &["alice"]), backend), &[]).await;

    let late = ask_on(&mut earlier, "shop.example.com").await;
    assert!(late.as_ref().map_or(true, |answer| answer.starts_with("HTTP/1.1 421")), "{late:?}");
    let get = async |asks: Asks<'_>| asks.get(address, "shop.example.com", "shop.example.com").await;
    let alice = Asks { certificate: Some((&clients, "alice")), ..nobody.clone() };
    let found = get(alice.clone()).await.unwrap();
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    assert!(found.contains(r#""x-forwarded-client-cert":"Hash="#) && found.contains(";DNS=alice"), "{found}");
    assert!(get(nobody.clone()).await.is_err(), "without a certificate");
    assert!(
        get(Asks { certificate: Some((&clients, "bob")), ..nobody.clone() }).await.is_err(),
        "another name"
    );
    assert!(
        get(Asks { certificate: Some((&servers, "alice")), ..nobody.clone() }).await.is_err(),
        "of another"
    );

    rig.transact(port(443, Carries::Tls, asking(true, &[]), backend), &[]).await;
    let found = get(nobody.clone()).await.unwrap();
    assert!(found.starts_with("HTTP/1.1 200") && !found.contains("x-forwarded-client-cert"), "{found}");
    assert!(get(Asks { certificate: Some((&servers, "alice")), ..nobody }).await.is_err(), "of another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_without_a_usable_certificate_refuses_and_others_go_on() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let authority = Authority::new();
    let (certificate, _) = authority.issue("broken.example.com");
    let mixed = ServerCertificate {
        name: CertificateName::new("shop", "mixed"),
        chain: vec![certificate.to_vec()],
        key: PrivateKey::new(KeyPair::generate().unwrap().serialize_der()),
    };
    let body = wire::resource::Body::Certificate((&mixed).into());
    let mixed =
        wire::Resource { name: "certificate/shop/mixed".into(), version: "1".into(), body: Some(body) };
    let listeners = vec![
        secure("shop.example.com", termination(&["tls"])),
        secure("broken.example.com", termination(&["mixed"])),
        secure("none.example.com", termination(&[])),
    ];
    let mut rig = start_gateway(&[]).await;
    let secret = authority.secret("tls", "shop.example.com");
    rig.transact(all(listeners, backend, vec![secret, mixed]), &[]).await;
    let address = rig.at(443).await;

    let asks = Asks::usual(&authority);
    for name in ["broken.example.com", "none.example.com"] {
        let refused = asks.connect(address, name).await.unwrap_err();
        assert!(refused.to_string().contains("HandshakeFailure"), "{refused}");
    }
    assert!(asks.connect(address, "shop.example.com").await.is_ok());
    let plain = ask(address, "GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n");
    assert!(tokio::spawn(plain).await.is_err(), "plaintext on a port for TLS is reset");
}

/// A server that speaks TLS itself, and says so.
async fn tls_server(tasks: &mut JoinSet<()>, authority: &Authority, name: &str) -> SocketAddr {
    let (certificate, key) = authority.issue(name);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(selvedge_certs::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nthe server itself\n").await);
            drop(stream.shutdown().await);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_goes_on_to_the_backend_where_a_listener_says_so() {
    let mut tasks = JoinSet::new();
    let authority = Authority::new();
    let backend = tls_server(&mut tasks, &authority, "db.example.com").await;
    let mut rig = start_gateway(&[]).await;
    let listeners = vec![with_tls("*.example.com", ListenerTls::Passthrough)];
    rig.transact(all(listeners, backend, Vec::new()), &[]).await;

    let found = Asks::usual(&authority).get(rig.at(443).await, "db.example.com", "any").await.unwrap();

    assert!(found.ends_with("the server itself\n"), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inside_tls_may_be_opaque() {
    let mut tasks = JoinSet::new();
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = echo.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = echo.accept().await {
            let (mut read, mut write) = tcp.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    });
    let authority = Authority::new();
    let mut rig = start_gateway(&[]).await;
    let tls = Termination { http: false, ..termination(&["tls"]) };
    let secret = authority.secret("tls", "db.example.com");
    rig.transact(all(vec![secure("db.example.com", tls)], backend, vec![secret]), &[]).await;

    let asks = Asks { alpn: &[], ..Asks::usual(&authority) };
    let mut stream = asks.connect(rig.at(443).await, "db.example.com").await.unwrap();
    stream.write_all(b"0123456789").await.unwrap();
    let mut read = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"0123456789");
}
