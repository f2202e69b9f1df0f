//! A gateway as a whole: a control plane, clients and a server on loopback, over real sockets.

mod tls;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use axum::{Json, Router, http::HeaderMap};
use clap::Parser;
use selvedge_api::wire;
use selvedge_model::{
    Backend, BackendName, Endpoint, Endpoints, InboundPolicy, Layer, Order, Protocol, RouteTable, Rule,
    Service, ServiceKey, TcpRule, TcpTable, TrafficPolicy, WeightedBackend, Workload,
    gateway::{Carries, GatewayPort, GatewayRole, Listener, VirtualHost, virtual_host},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::{
    accept::PortState,
    discovery::{
        fake::{Ca, FakeControlPlane, PATIENCE, Session, join_token, until},
        fixtures,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: Args,
}

/// A gateway, its control plane, and what runs beside them.
struct Rig {
    session: Session,
    nonce: u64,
    ports: Arc<Ports>,
    admin: SocketAddr,
    leave: Leave,
    _control_plane: FakeControlPlane,
    _tasks: JoinSet<()>,
}

async fn start_gateway(options: &[&str]) -> Rig {
    let ca = Ca::new();
    let mut control_plane = FakeControlPlane::start(&ca, fixtures::identity("frontend"), HOUR).await;
    let address = control_plane.address.to_string();
    let token = join_token(&ca, std::time::SystemTime::now() + HOUR);
    let fixed = [
        "selvedge-proxy",
        "--gateway",
        "--workload=shop/frontend-1",
        "--admin=127.0.0.1:0",
        "--drain-delay=0s",
        "--control-plane",
        &address,
        "--token",
        &token,
    ];
    let args = CommandLine::parse_from(fixed.iter().chain(options)).args;
    assert!(args.outbound.is_empty() && args.inbound.is_none(), "a gateway has no listeners by default");
    let Started { control, leave, .. } = start(args).unwrap();
    let ports = Arc::clone(control.ports.as_ref().unwrap());
    let admin = control.admin.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let ordered = leave.clone();
    tasks.spawn(async move {
        let limits = leave::Limits { delay: Duration::ZERO, timeout: PATIENCE };
        ordered.in_order(limits, || leave::App::Everywhere).await;
    });
    tasks.spawn(async move { control::run(control).await.unwrap() });
    let session = control_plane.session().await;
    Rig { session, nonce: 0, ports, admin, leave, _control_plane: control_plane, _tasks: tasks }
}

impl Rig {
    async fn transact(&mut self, upserts: Vec<wire::Resource>, removals: &[&str]) {
        self.nonce += 1;
        assert_eq!(self.session.transact(self.nonce, upserts, removals).await.refused, None);
    }

    /// Where clients reach `port`, as soon as it is open.
    async fn at(&self, port: u16) -> SocketAddr {
        let listening = || match self.ports.states().get(&port) {
            Some(PortState::Listening(at)) => Some(*at),
            _ => None,
        };
        until("an open port", || listening().is_some()).await;
        listening().unwrap()
    }

    async fn admin(&self, path: &str) -> String {
        ask(self.admin, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    async fn is_ready(&self) -> bool {
        self.admin("/ready").await.starts_with("HTTP/1.1 200")
    }
}

/// Everything that comes back for `request`, on a connection of its own.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, host: &str) -> String {
    ask(address, &format!("GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
}

/// A server that answers with the headers that it was sent.
async fn server(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = |headers: HeaderMap| async move {
        let headers =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Json(headers.collect::<BTreeMap<_, _>>())
    };
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await.unwrap() });
    address
}

fn own(policy: InboundPolicy, ports: &[(u16, u16)]) -> wire::Resource {
    let role = GatewayRole {
        name: "shop/edge".into(),
        address: Some("127.0.0.1".parse().unwrap()),
        ports: ports.iter().copied().collect(),
    };
    let workload = Workload {
        name: fixtures::workload(),
        identity: fixtures::identity("frontend"),
        meshed: true,
        inbound: None,
        ports: Vec::new(),
        policy,
        protocols: BTreeMap::new(),
        app_connections: BTreeMap::new(),
        egress: None,
        gateway: Some(Arc::new(role)),
        place: None,
        services: BTreeMap::new(),
        telemetry: None,
        labels: Arc::default(),
    };
    resource("self".into(), wire::resource::Body::Self_((&workload).into()))
}

fn resource(name: String, body: wire::resource::Body) -> wire::Resource {
    // What is in it is its version.
    wire::Resource { name, version: format!("{body:?}"), body: Some(body) }
}

/// A listener of `port` for `listener`, with a virtual host for each of `hosts`.
fn listener(port: u16, listener: &str, hosts: &[&str]) -> Listener {
    let host = |host: &&str| {
        let hostname = host.parse().unwrap();
        VirtualHost { service: virtual_host(&hostname, "shop/edge/http", port), hostname }
    };
    let name = format!("Gateway shop/edge {listener}");
    Listener::new(name.into(), listener.parse().unwrap(), None, hosts.iter().map(host).collect())
}

/// What is needed for `port` with these listeners: their virtual hosts all lead to `backend`.
fn port(number: u16, carries: Carries, listeners: Vec<Listener>, backend: SocketAddr) -> Vec<wire::Resource> {
    let key = ServiceKey::new("web.shop.svc.cluster.local", 80);
    let endpoint = Endpoint {
        address: backend,
        dial: backend,
        identity: None,
        workload: None,
        labels: Arc::default(),
        weight: 1,
        place: None,
    };
    let endpoints = Endpoints::new(key.clone(), vec![endpoint]);
    let port = GatewayPort::new(number, carries, listeners);
    let hosts = port.virtual_hosts().map(|host| {
        let service = Service {
            key: host.service.clone(),
            addresses: Vec::new(),
            protocol: Protocol::Unspecified,
            routes: RouteTable::new(
                Order::Listed,
                vec![Rule {
                    name: "HTTPRoute shop/web rules[0]".into(),
                    backends: vec![WeightedBackend::new(0, 1)],
                    ..Rule::default()
                }],
            ),
            tcp: TcpTable {
                rules: vec![TcpRule {
                    name: "TCPRoute shop/web rules[0]".into(),
                    layer: Layer::Tcp,
                    matches: Vec::new(),
                    backends: vec![WeightedBackend::new(0, 1)],
                }],
            },
            backends: vec![Backend {
                name: BackendName { service: key.clone(), subset: None },
                labels: BTreeMap::new(),
                policy: TrafficPolicy::default(),
                broken: None,
            }],
        };
        resource(format!("service/{}", service.key), wire::resource::Body::Service((&service).into()))
    });
    let mut resources: Vec<_> = hosts.collect();
    resources
        .push(resource(format!("endpoints/{key}"), wire::resource::Body::Endpoints((&endpoints).into())));
    resources.push(resource(format!("gateway/{number}"), wire::resource::Body::GatewayPort((&port).into())));
    resources
}

/// What configures a gateway with one port 80 for `shop.example.com`.
fn everything(backend: SocketAddr) -> Vec<wire::Resource> {
    let mut all = port(80, Carries::Http, vec![listener(80, "", &["shop.example.com"])], backend);
    all.push(own(InboundPolicy::default(), &[(80, 0), (81, 0)]));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_the_virtual_host_that_it_names_and_no_further() {
    requests_go_to_their_hosts(&["--workers=1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_share_the_connections_of_a_port() {
    requests_go_to_their_hosts(&["--workers=2"]).await;
}

async fn requests_go_to_their_hosts(options: &[&str]) {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let mut rig = start_gateway(options).await;
    assert!(!rig.is_ready().await);
    rig.transact(everything(backend), &[]).await;
    let address = rig.at(80).await;

    let found = get(address, "Shop.example.com:80").await;
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    for field in [
        r#""x-forwarded-for":"127.0.0.1""#,
        r#""x-forwarded-proto":"http""#,
        r#""x-forwarded-host":"Shop.example.com:80""#,
        r#""x-request-id""#,
    ] {
        assert!(found.contains(field), "{field} in {found}");
    }
    let other = get(address, "bank.example.com").await;
    assert!(other.starts_with("HTTP/1.1 404") && other.contains("selvedge-error: no-route"), "{other}");

    assert!(rig.is_ready().await);
    let config = rig.admin("/config").await;
    assert!(
        config.contains(&format!(r#""gateway":{{"80":{{"state":{{"listening":"{address}"}}"#)),
        "{config}"
    );
    let metrics = rig.admin("/metrics").await;
    let counted = r#"selvedge_outbound_requests_total{server_address="shop.example.com@shop/edge/http",server_port="80""#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_with_prior_knowledge_is_served_like_http1() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let mut rig = start_gateway(&[]).await;
    rig.transact(everything(backend), &[]).await;
    let tcp = TcpStream::connect(rig.at(80).await).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tcp);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });

    for (host, status) in [("shop.example.com", 200), ("bank.example.com", 404), ("shop.example.com", 200)] {
        let request = http::Request::get(format!("https://{host}/")).body(String::new()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_come_and_go_without_touching_each_other() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let mut rig = start_gateway(&[]).await;
    rig.transact(everything(backend), &[]).await;
    let first = rig.at(80).await;
    let mut kept = TcpStream::connect(first).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
    let mut answer = [0; 4096];
    kept.write_all(request).await.unwrap();
    assert!(kept.read(&mut answer).await.unwrap() > 0);

    rig.transact(port(81, Carries::Http, vec![listener(81, "", &[""])], backend), &[]).await;
    let second = rig.at(81).await;
    let mut other = TcpStream::connect(second).await.unwrap();
    other.write_all(request).await.unwrap();
    assert!(other.read(&mut answer).await.unwrap() > 0);
    rig.transact(Vec::new(), &["gateway/80", "service/shop.example.com@shop/edge/http:80"]).await;

    until("a closed port", || std::net::TcpStream::connect(first).is_err()).await;
    let ended = timeout(PATIENCE, kept.read(&mut answer)).await.expect("an idle connection is ended");
    assert_eq!(ended.unwrap(), 0);
    other.write_all(request).await.unwrap();
    assert!(timeout(PATIENCE, other.read(&mut answer)).await.unwrap().unwrap() > 0);
    assert_eq!(rig.ports.states().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_told_of_and_opened_when_it_is_free() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = start_gateway(&[]).await;
    let mut all = everything(backend);
    all.extend(port(81, Carries::Http, vec![listener(81, "", &[""])], backend));
    all.retain(|resource| resource.name != "self");
    all.push(own(InboundPolicy::default(), &[(80, 0), (81, taken.local_addr().unwrap().port())]));

    rig.transact(all, &[]).await;

    let works = get(rig.at(80).await, "shop.example.com").await;
    assert!(works.starts_with("HTTP/1.1 200"), "the other port goes on: {works}");
    let failed = || match rig.ports.states().get(&81) {
        Some(PortState::Failed(why)) => why.contains("already in use") && why.contains("gateway-ports"),
        _ => false,
    };
    until("a failure", failed).await;
    assert!(rig.admin("/metrics").await.contains("selvedge_gateway_listen_failures_total"));
    drop(taken);
    assert!(get(rig.at(81).await, "any.example").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_for_tcp_carries_whatever_comes() {
    let mut tasks = JoinSet::new();
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = echo.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = echo.accept().await {
            tcp.write_all(b"220 first\n").await.unwrap();
            let (mut read, mut write) = tcp.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    });
    let mut rig = start_gateway(&[]).await;
    let mut all = port(81, Carries::Tcp, vec![listener(81, "", &[""])], backend);
    all.push(own(InboundPolicy::default(), &[(81, 0)]));
    rig.transact(all, &[]).await;

    let mut client = TcpStream::connect(rig.at(81).await).await.unwrap();
    let mut read = [0; 10];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"220 first\n", "the server may speak first");
    client.write_all(b"0123456789").await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"0123456789");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_is_asked_at_a_gateway_and_mutual_tls_is_not() {
    use selvedge_model::policy::{MtlsMode, MtlsRule};
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let mut rig = start_gateway(&[]).await;
    let strict = InboundPolicy {
        default: MtlsRule { mode: MtlsMode::Strict, name: "PeerAuthentication shop/default".into() },
        ..InboundPolicy::default()
    };
    let mut all = everything(backend);
    all.retain(|resource| resource.name != "self");
    all.push(own(strict.clone(), &[(80, 0)]));
    rig.transact(all, &[]).await;
    let address = rig.at(80).await;
    assert!(get(address, "shop.example.com").await.starts_with("HTTP/1.1 200"));

    let nobody = selvedge_model::policy::network::NetworkRules::one_tier(
        Vec::new(),
        vec!["NetworkPolicy shop/nobody".into()],
    );
    rig.transact(vec![own(InboundPolicy { network: Some(Arc::new(nobody)), ..strict }, &[(80, 0)])], &[])
        .await;

    let refused = get(address, "shop.example.com").await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("selvedge-error: policy"), "{refused}");
}

/// A policy that refuses clients in this block.
fn without(block: &str) -> InboundPolicy {
    use selvedge_model::policy::{Action, AddressSet, Asks, Authorization, Condition, Policy, Rule};
    let asks = Asks::Remote(AddressSet::new([block.parse().unwrap()]));
    let when = vec![Condition { asks, negated: false }];
    let rule =
        Rule { name: "AuthorizationPolicy shop/edge rule 1".into(), from: Vec::new(), to: Vec::new(), when };
    let name = "AuthorizationPolicy shop/edge".into();
    let policy =
        Policy { name, action: Action::Deny, rules: vec![rule], dry_run: false, ports: None, why: None };
    InboundPolicy {
        authorization: Some(Arc::new(Authorization::new(vec![policy]))),
        ..InboundPolicy::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_says_whose_request_it_is_and_each_may_be_anothers() {
    let mut tasks = JoinSet::new();
    let backend = server(&mut tasks).await;
    let mut rig = start_gateway(&["--trusted-hops=1"]).await;
    let mut all = everything(backend);
    all.retain(|resource| resource.name != "self");
    all.push(own(without("203.0.113.0/24"), &[(80, 0)]));
    rig.transact(all, &[]).await;
    let mut stream = TcpStream::connect(rig.at(80).await).await.unwrap();

    for (client, status) in [("198.51.100.1", "200"), ("203.0.113.9", "403")] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-forwarded-for: 10.0.0.1, {client}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{client}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_leaves_finishes_what_is_in_progress() {
    let mut tasks = JoinSet::new();
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = slow.local_addr().unwrap();
    let mut rig = start_gateway(&[]).await;
    rig.transact(everything(backend), &[]).await;
    let address = rig.at(80).await;
    let asking = tasks.spawn(async move {
        let answer = get(address, "shop.example.com").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{answer}");
    });
    let (mut tcp, _) = slow.accept().await.unwrap();

    rig.leave.told().begin(selvedge_ops::Reason::Asked);
    until("a closed port", || std::net::TcpStream::connect(address).is_err()).await;
    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();

    assert!(!rig.is_ready().await);
    drop(asking);
    timeout(PATIENCE, tasks.join_next()).await.unwrap().unwrap().unwrap();
}
