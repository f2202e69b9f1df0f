//! The model's types at random, and the properties that every conversion has.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use selvedge_model::{
    AppConnections, Authorization, Backend, BackendName, ClientCertificate, ClientMatch, ConnectionLimits,
    ConnectionPool, Endpoint, Endpoints, FailurePercentage, FullRegex, GivenAuthorities, GrpcMatch,
    HeaderField, HealthCheck, HealthQuestion, Hedge, Host, HostPort, Http2Upgrade, HttpTunnel, InboundPolicy,
    Layer, Lookup, Match, MtlsMode, MtlsRule, NamedEndpoint, Order, OutlierDetection, Protocol,
    ProxyProtocol, RetryBudget, RetryOn, RetryPolicy, RouteTable, Rule, Service, ServiceKey, SpiffeId,
    StreamTimeouts, StringMatch, SuccessRate, TcpKeepalive, TcpMatch, TcpRule, TcpTable, TlsOrigination,
    TrafficPolicy, Trusted, TunnelMethod, UpstreamTls, WeightedBackend, Workload, WorkloadName,
    filter::Fraction,
    gateway::CertificateName,
    limit::RateLimits,
    policy::{self, Action, Asks, Condition, Policy, ServerRoutes, Servers},
    snapshot::{Address, Declared},
};

use self::{filters::filters, limits::rate_limit};
use super::*;
use crate::wire;

mod balancing;
mod filters;
mod limits;
mod locality;

fn object_name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn time() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()))
}

fn shared_text() -> impl Strategy<Value = Arc<str>> {
    ".{0,12}".prop_map(Arc::from)
}

fn port_number() -> impl Strategy<Value = u16> {
    1u16..
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip(), address.port()))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z./]{1,8}", "[a-z0-9]{0,8}", 0..4)
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    ("[a-z.]{1,12}", object_name(), object_name()).prop_map(|(td, ns, sa)| {
        SpiffeId::new(&td.parse().expect("a valid trust domain"), &ns, &sa).expect("valid names")
    })
}

fn workload_name() -> impl Strategy<Value = WorkloadName> {
    (object_name(), object_name()).prop_map(|(ns, name)| WorkloadName::new(&ns, &name).expect("valid names"))
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    ("[a-z.-]{1,20}", port_number()).prop_map(|(host, port)| ServiceKey::new(&host, port))
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        ".{0,12}".prop_map(StringMatch::Exact),
        ".{0,12}".prop_map(StringMatch::Prefix),
        ".{0,12}".prop_map(StringMatch::PathPrefix),
        "[a-z]{0,4}(\\.\\*|\\[0-9\\]\\+)?"
            .prop_map(|source| StringMatch::Regex(FullRegex::new(&source).expect("a valid expression"))),
        Just(StringMatch::Present),
    ]
}

fn header_matches() -> impl Strategy<Value = Vec<(HeaderField, StringMatch)>> {
    let claim = vec("[A-Za-z0-9./:]{1,4}", 1..4);
    let name = prop_oneof![
        "[a-z]([a-z0-9-]{0,8})",
        Just(":authority".to_owned()),
        Just(":scheme".to_owned()),
        claim.prop_map(|names| format!("@request.auth.claims[{}]", names.join("]["))),
    ];
    let name = name.prop_map(|name| name.parse::<HeaderField>().expect("a valid name"));
    vec((name, string_match()), 0..3)
}

prop_compose! {
    fn a_match()(
        path in option::of(string_match()), ignore_path_case: bool, method in option::of(string_match()),
        authority in option::of(string_match()), headers in header_matches(),
        without_headers in header_matches(), query in vec((".{0,8}", string_match()), 0..3),
        grpc in option::of((option::of(string_match()), option::of(string_match()))),
        client_labels in labels(), client_namespace in option::of(object_name()),
    ) -> Match {
        Match {
            path, ignore_path_case, method, authority, headers, without_headers, query,
            grpc: grpc.map(|(service, method)| GrpcMatch { service, method }),
            client: ClientMatch { labels: client_labels, namespace: client_namespace },
        }
    }
}

prop_compose! {
    fn retry_on()(
        any_5xx: bool, gateway_error: bool, reset: bool, connect_failure: bool, retriable_4xx: bool,
        refused_stream: bool, reset_before_request: bool, per_try_timeout: bool,
        status_codes in vec(100u16..600, 0..3), grpc_statuses in vec(0u8..17, 0..3),
    ) -> RetryOn {
        RetryOn {
            any_5xx, gateway_error, reset, connect_failure, retriable_4xx, refused_stream, reset_before_request,
            per_try_timeout, status_codes, grpc_statuses,
        }
    }
}

prop_compose! {
    fn retry_policy()(
        attempts: u32, on in retry_on(), per_try_timeout in option::of(time()), last_attempt_unlimited: bool,
        backoff in time(),
    ) -> RetryPolicy {
        RetryPolicy { attempts, on, per_try_timeout, last_attempt_unlimited, backoff }
    }
}

fn shares(backends: usize) -> impl Strategy<Value = Vec<WeightedBackend>> {
    let filters = option::of(filters(backends));
    let share =
        (0..backends.max(1), any::<u32>(), filters).prop_map(|(backend, weight, filters)| WeightedBackend {
            backend,
            weight,
            filters: filters.filter(|filters| !filters.is_empty()).map(Box::new),
        });
    vec(share, 0..if backends == 0 { 1 } else { 4 })
}

fn rule(backends: usize) -> impl Strategy<Value = Rule> {
    let what = (filters(backends), 200_u16..600, option::of(balancing::session()));
    let times = (option::of(time()), option::of(time()), option::of(time())).boxed();
    (".{0,12}", vec(a_match(), 0..3), shares(backends), times, retry_policy(), what).prop_map(
        |(name, matches, backends, (timeout, response, idle), retry, (filters, unusable_status, session))| {
            Rule {
                name,
                matches,
                backends,
                timeout,
                stream: StreamTimeouts { response, idle },
                retry,
                filters,
                session: session.map(Box::new),
                unusable_status,
                access_log: None,
            }
        },
    )
}

fn route_table(backends: usize) -> impl Strategy<Value = RouteTable> {
    let order = prop_oneof![Just(Order::Listed), Just(Order::MostSpecific)];
    let rules = vec(rule(backends), 0..3);
    (order, rules, vec(0..3_u32, 0..3), any::<bool>()).prop_map(
        |(order, mut rules, tiers, has_one_for_others)| {
            let for_others = if has_one_for_others { rules.pop() } else { None };
            let rules = rules.into_iter().map(Arc::new).collect();
            let table = RouteTable::in_tiers(order, rules, tiers);
            for_others.into_iter().fold(table, RouteTable::with_rule_for_others)
        },
    )
}

fn tcp_table(backends: usize) -> impl Strategy<Value = TcpTable> {
    let subnet = (any::<std::net::IpAddr>(), 0_u8..=32)
        .prop_map(|(address, length)| format!("{address}/{length}").parse().expect("a subnet"));
    let names = vec("[a-z*.]{1,12}", 0..3);
    let wanted = (names, vec(subnet, 0..3), labels(), option::of(object_name())).prop_map(
        |(server_names, destination_subnets, source_labels, source_namespace)| TcpMatch {
            server_names,
            destination_subnets,
            source_labels,
            source_namespace,
        },
    );
    let layer = prop_oneof![Just(Layer::Tls), Just(Layer::Tcp)];
    let rule = (".{0,12}", layer, vec(wanted, 0..3), shares(backends))
        .prop_map(|(name, layer, matches, backends)| TcpRule { name, layer, matches, backends });
    vec(rule, 0..3).prop_map(|rules| TcpTable { rules })
}

prop_compose! {
    fn connection_limits()(
        max_connections: Option<u32>, idle_timeout in option::of(time()), max_duration in option::of(time()),
        keepalive in option::of(tcp_keepalive()),
    ) -> ConnectionLimits {
        ConnectionLimits { max_connections, idle_timeout, max_duration, keepalive }
    }
}

prop_compose! {
    fn tcp_keepalive()(
        probes: Option<u32>, time in option::of(time()), interval in option::of(time()),
    ) -> TcpKeepalive {
        TcpKeepalive { probes, time, interval }
    }
}

fn hedge() -> impl Strategy<Value = Hedge> {
    let share =
        (0..=1_000_000_u32).prop_map(|parts| Fraction::of_million(parts).expect("a part of a million"));
    prop_oneof![share.prop_map(Hedge::Percentile), time().prop_map(Hedge::After)]
}

prop_compose! {
    fn retry_budget()(
        parts in 0..=1_000_000_u32,
        (at_once, at_least) in any::<(u32, u32)>(),
        interval in option::of(time().prop_filter("0 is none", |time| !time.is_zero())),
        refuses in any::<bool>(),
    ) -> RetryBudget {
        let share = Fraction::of_million(parts).expect("a part of a million");
        RetryBudget { share, at_once, interval, at_least, refuses }
    }
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Unspecified), Just(Protocol::Http), Just(Protocol::Http2), Just(Protocol::Tcp),]
}

prop_compose! {
    fn success_rate()(minimum_hosts: u32, request_volume: u32, stdev_factor: u32) -> SuccessRate {
        SuccessRate { minimum_hosts, request_volume, stdev_factor }
    }
}

prop_compose! {
    fn failure_percentage()(
        threshold in 0u8..=100, minimum_hosts: u32, request_volume: u32,
    ) -> FailurePercentage {
        FailurePercentage { threshold, minimum_hosts, request_volume }
    }
}

prop_compose! {
    fn outlier_detection()(
        consecutive_5xx: Option<u32>, consecutive_gateway_errors: Option<u32>, interval in time(),
        base_ejection_time in time(), max_ejection_time in time(), max_ejection_percent in 0u8..=100,
        consecutive_local_origin_failures: Option<u32>, min_health_percent in 0u8..=100,
        max_ejection_time_jitter in time(), success_rate in option::of(success_rate()),
        failure_percentage in option::of(failure_percentage()),
    ) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx, consecutive_gateway_errors, interval, base_ejection_time, max_ejection_time,
            max_ejection_time_jitter, max_ejection_percent, consecutive_local_origin_failures, min_health_percent,
            success_rate, failure_percentage,
        }
    }
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let (host, text) = (|| option::of(".{0,12}"), ".{0,12}");
    let statuses = vec((0_u16..=999, 0_u16..=999), 0..3);
    let http = (text, host(), statuses).prop_map(|(path, host, statuses)| HealthQuestion::Http {
        path,
        host,
        statuses,
    });
    let grpc = (host(), text).prop_map(|(host, service)| HealthQuestion::Grpc { host, service });
    let question = prop_oneof![http, grpc, Just(HealthQuestion::Tcp)];
    (question, option::of(1_u16..), time(), time(), any::<[u32; 2]>()).prop_map(
        |(question, port, interval, timeout, [unhealthy_threshold, healthy_threshold])| HealthCheck {
            question,
            port,
            interval,
            timeout,
            unhealthy_threshold,
            healthy_threshold,
        },
    )
}

fn upstream_tls() -> impl Strategy<Value = UpstreamTls> {
    let text = || ".{0,12}";
    let client = (text(), text())
        .prop_map(|(certificate, private_key)| ClientCertificate { certificate, private_key });
    let trusted = prop_oneof![
        Just(Trusted::System),
        text().prop_map(Trusted::File),
        vec(vec(any::<u8>(), 0..4), 1..3).prop_map(|given| Trusted::Given(GivenAuthorities::new(given))),
    ];
    let policy = option::of(text().prop_map(Into::into));
    let certificate = option::of(Just(CertificateName::new("edge", "shop")));
    let origination = (
        option::of(text()),
        vec(text(), 0..3),
        trusted,
        option::of(client),
        any::<bool>(),
        policy,
        certificate,
    )
        .prop_map(
            |(sni, subject_alt_names, trusted, client, insecure_skip_verify, policy, certificate)| {
                TlsOrigination {
                    sni,
                    subject_alt_names,
                    trusted,
                    client,
                    insecure_skip_verify,
                    credential: None,
                    files_named_by: None,
                    certificate,
                    shown: None,
                    policy,
                }
            },
        );
    prop_oneof![
        Just(UpstreamTls::Disable),
        Just(UpstreamTls::IstioMutual),
        origination.prop_map(UpstreamTls::Originate),
    ]
}

fn traffic_policy() -> impl Strategy<Value = TrafficPolicy> {
    // Boxed: all of them together are more than a stack of a test holds.
    let balancer = (balancing::balancer(), option::of(balancing::warmup())).boxed();
    let health = (option::of(outlier_detection()).boxed(), option::of(health_check()).boxed());
    let blocks = (health, connection_limits(), connection_pool()).boxed();
    let speaking = (option::of(upstream_tls()), option::of(protocol())).boxed();
    let versions = prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)];
    let method = prop_oneof![Just(TunnelMethod::Connect), Just(TunnelMethod::Post)];
    let tunnel = (place(), method).prop_map(|(target, method)| HttpTunnel { target, method });
    let blocks =
        (blocks, (option::of(retry_budget()), option::of(hedge())), option::of(versions), option::of(tunnel))
            .boxed();
    (balancer, blocks, time(), speaking, locality::policy()).prop_map(
        |(
            (load_balancer, warmup),
            (
                ((outlier_detection, health_check), connections, connection_pool),
                (retry_budget, hedge),
                proxy_protocol,
                tunnel,
            ),
            connect_timeout,
            (tls, spoken),
            locality,
        )| {
            TrafficPolicy {
                load_balancer,
                warmup,
                locality,
                outlier_detection,
                health_check,
                connect_timeout,
                connections,
                connection_pool,
                retry_budget,
                hedge,
                proxy_protocol,
                tunnel,
                tls,
                spoken,
            }
        },
    )
}

prop_compose! {
    fn connection_pool()(
        max_pending_requests: Option<u32>, max_requests: Option<u32>, max_requests_per_connection: Option<u32>,
        max_concurrent_streams: Option<u32>, max_retries: Option<u32>, idle_timeout in option::of(time()),
        http2_upgrade in prop_oneof![
            Just(Http2Upgrade::Default), Just(Http2Upgrade::Never), Just(Http2Upgrade::Always),
            Just(Http2Upgrade::AsClient),
        ],
    ) -> ConnectionPool {
        ConnectionPool {
            max_pending_requests, max_requests, max_requests_per_connection, max_concurrent_streams,
            max_retries, idle_timeout, http2_upgrade,
        }
    }
}

fn backend() -> impl Strategy<Value = Backend> {
    let name = (service_key(), option::of(shared_text()))
        .prop_map(|(service, subset)| BackendName { service, subset });
    (name, labels(), traffic_policy(), option::of(".{0,12}"))
        .prop_map(|(name, labels, policy, broken)| Backend { name, labels, policy, broken })
}

fn service() -> impl Strategy<Value = Service> {
    vec(backend(), 0..3).prop_flat_map(move |backends| {
        let count = backends.len();
        let addresses = vec(any::<std::net::IpAddr>(), 0..3);
        let routes = (route_table(count), tcp_table(count));
        (service_key(), addresses, protocol(), routes, Just(backends)).prop_map(
            |(key, addresses, protocol, (routes, tcp), backends)| Service {
                key,
                addresses,
                protocol,
                routes,
                tcp,
                backends,
            },
        )
    })
}

prop_compose! {
    fn endpoint()(
        address in address(), dial in address(), identity in option::of(identity()),
        workload in option::of(workload_name()), labels in labels(), weight in 1_u32..,
    ) -> Endpoint {
        Endpoint { address, dial, identity, workload, labels: labels.into(), weight, place: None }
    }
}

fn place() -> impl Strategy<Value = HostPort> {
    let host = prop_oneof![
        any::<std::net::IpAddr>().prop_map(|ip| Host::Ip(ip.to_canonical())),
        "[a-z]{1,8}(\\.[a-z]{1,4})?".prop_map(|name| Host::Name(Arc::from(name))),
    ];
    (host, port_number()).prop_map(|(host, port)| HostPort::new(host, port))
}

prop_compose! {
    fn named_endpoint()(
        address in place(), dial in place(), one_address: bool, identity in option::of(identity()),
        workload in option::of(workload_name()), labels in labels(), weight in 1_u32..,
    ) -> NamedEndpoint {
        NamedEndpoint {
            address, dial, one_address, identity, workload, labels: labels.into(), weight, place: None,
        }
    }
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let place = || option::of(locality::place());
    let endpoint = (endpoint(), place()).prop_map(|(one, place)| Endpoint { place, ..one });
    let named = (named_endpoint(), place()).prop_map(|(one, place)| NamedEndpoint { place, ..one });
    (service_key(), vec(endpoint, 0..4), vec(named, 0..3), option::of(1_u16..))
        .prop_map(|(key, list, named, requested)| Endpoints { key, list, named, requested })
}

fn mtls_rule() -> impl Strategy<Value = MtlsRule> {
    let mode = prop_oneof![Just(MtlsMode::Strict), Just(MtlsMode::Permissive), Just(MtlsMode::Disable)];
    (mode, shared_text()).prop_map(|(mode, name)| MtlsRule { mode, name })
}

fn servers() -> impl Strategy<Value = Servers> {
    let routes = (shared_text(), route_table(0)).prop_map(|(name, table)| ServerRoutes::new(name, table));
    let routes = proptest::collection::btree_map(port_number(), routes, 0..2);
    let places = proptest::collection::btree_set(0_usize..1000, 0..3);
    (routes, places, shared_text()).prop_map(|(routes, places, name)| {
        let mut rule = policy::Rule::everything(name.clone());
        rule.when.push(Condition { asks: Asks::Route(places), negated: false });
        let (ports, rules) = (Some(routes.keys().copied().collect()), vec![rule]);
        let policy = Policy { name, action: Action::Allow, dry_run: false, ports, rules, why: None };
        Servers::new(Authorization::new(vec![policy]), routes)
    })
}

fn inbound_policy() -> impl Strategy<Value = InboundPolicy> {
    let ports = proptest::collection::btree_map(port_number(), mtls_rule(), 0..3);
    let limits = vec(rate_limit(), 0..2);
    (mtls_rule(), ports, option::of(servers()), limits).prop_map(|(default, ports, servers, limits)| {
        let servers = servers.map(std::sync::Arc::new);
        let limits = (!limits.is_empty()).then(|| Arc::new(RateLimits { all: limits }));
        InboundPolicy { default, ports, servers, limits, ..InboundPolicy::default() }
    })
}

prop_compose! {
    fn app_connections()(
        connect_timeout in option::of(time()), idle_timeout in option::of(time()), max_requests: Option<u32>,
    ) -> AppConnections {
        AppConnections { connect_timeout, idle_timeout, max_requests }
    }
}

prop_compose! {
    fn workload()(
        name in workload_name(), identity in identity(), meshed: bool, inbound in option::of(address()),
        ports in vec(port_number(), 0..3), policy in inbound_policy(), labels in labels(),
        protocols in proptest::collection::btree_map(port_number(), protocol(), 0..3),
        app_connections in proptest::collection::btree_map(port_number(), app_connections(), 0..3),
        place in option::of(locality::place()),
        services in proptest::collection::btree_map(port_number(), "[a-z.]{1,9}".prop_map(Arc::from), 0..3),
    ) -> Workload {
        Workload {
            name, identity, meshed, inbound, ports, policy, protocols, app_connections, labels: labels.into(),
            egress: None,
            gateway: None,
            telemetry: None,
            place,
            services,
        }
    }
}

fn declared() -> impl Strategy<Value = Declared> {
    (shared_text(), service_key()).prop_map(|(namespace, key)| Declared { namespace, key })
}

fn lookup() -> impl Strategy<Value = Lookup> {
    prop_oneof![
        service_key().prop_map(Lookup::Service),
        (option::of(endpoint()), vec(declared(), 0..3), any::<bool>())
            .prop_filter("said as none", |(endpoint, services, named)| {
                endpoint.is_some() || !services.is_empty() || *named
            })
            .prop_map(|(endpoint, services, named)| {
                Lookup::Address(Box::new(Address { endpoint, services, named }))
            }),
        Just(Lookup::None),
    ]
}

/// What arrives when `message` is sent.
fn carried<W: Message + Default>(message: &W) -> W {
    W::decode(message.encode_to_vec().as_slice()).expect("what we encoded")
}

proptest! {
    #[test]
    fn a_service_arrives_as_it_was_sent(sent in service()) {
        let arrived = Service::try_from(carried(&wire::Service::from(&sent)));
        prop_assert_eq!(arrived, Ok(sent));
    }

    #[test]
    fn endpoints_arrive_as_they_were_sent(sent in endpoints()) {
        let arrived = Endpoints::try_from(carried(&wire::Endpoints::from(&sent)));
        prop_assert_eq!(arrived, Ok(sent));
    }

    #[test]
    fn a_workload_arrives_as_it_was_sent(sent in workload()) {
        let arrived = Workload::try_from(carried(&wire::Workload::from(&sent)));
        prop_assert_eq!(arrived, Ok(sent));
    }

    #[test]
    fn the_answer_to_a_lookup_arrives_as_it_was_sent(authority in "[a-z.:0-9]{1,20}", sent in lookup()) {
        let message = carried(&wire::Lookup::new(&authority, &sent));
        prop_assert_eq!(&message.authority, &authority);
        prop_assert_eq!(Lookup::try_from(message), Ok(sent));
    }

    /// One value encodes to one sequence of bytes: versions are hashes of it.
    #[test]
    fn equal_services_have_equal_bytes(sent in service()) {
        let bytes = wire::Service::from(&sent).encode_to_vec();
        let again = wire::Service::from(&Service::try_from(wire::Service::from(&sent)).unwrap());
        prop_assert_eq!(again.encode_to_vec(), bytes);
    }

    /// Whatever a peer sends is understood or refused; nothing panics.
    #[test]
    fn any_bytes_are_understood_or_refused(bytes in vec(any::<u8>(), 0..256)) {
        if let Ok(service) = wire::Service::decode(bytes.as_slice()) {
            let _ = Service::try_from(service);
        }
        if let Ok(workload) = wire::Workload::decode(bytes.as_slice()) {
            let _ = Workload::try_from(workload);
        }
        if let Ok(endpoints) = wire::Endpoints::decode(bytes.as_slice()) {
            let _ = Endpoints::try_from(endpoints);
        }
    }
}

#[test]
fn a_rule_of_an_older_control_plane_has_its_status() {
    let mut service = valid_service();
    service.routes.as_mut().unwrap().rules[0].unusable_status = 0;

    assert_eq!(Service::try_from(service).unwrap().routes.rules()[0].unusable_status, 503);
}

fn valid_service() -> wire::Service {
    let key = ServiceKey::new("a", 80);
    let backend = Backend {
        name: BackendName { service: key.clone(), subset: None },
        labels: BTreeMap::new(),
        policy: TrafficPolicy::default(),
        broken: None,
    };
    let rule = Rule {
        name: "rule".into(),
        matches: vec![Match { path: Some(StringMatch::Present), ..Match::default() }],
        backends: vec![WeightedBackend::new(0, 1)],
        ..Rule::default()
    };
    let routes = RouteTable::new(Order::Listed, vec![rule]);
    let tcp = TcpTable {
        rules: vec![TcpRule {
            name: "rule".into(),
            layer: Layer::Tcp,
            matches: Vec::new(),
            backends: vec![WeightedBackend::new(0, 1)],
        }],
    };
    wire::Service::from(&Service {
        key,
        addresses: Vec::new(),
        protocol: Protocol::Http,
        routes,
        tcp,
        backends: vec![backend],
    })
}

/// Why the service is refused after `spoil`.
fn refusal(spoil: impl FnOnce(&mut wire::Service)) -> ConvertError {
    let mut service = valid_service();
    spoil(&mut service);
    Service::try_from(service).expect_err("refused")
}

#[test]
fn an_unknown_value_of_an_enumeration_is_refused_with_a_reason() {
    assert!(Service::try_from(valid_service()).is_ok());

    let protocol = refusal(|service| service.protocol = 99);
    let order = refusal(|service| service.routes.as_mut().unwrap().order = 7);
    let balancer = refusal(|service| service.backends[0].policy.as_mut().unwrap().load_balancer = 0);

    assert_eq!(protocol, ConvertError::Unknown { field: "service protocol", value: 99 });
    assert_eq!(order, ConvertError::Unknown { field: "route order", value: 7 });
    assert_eq!(balancer, ConvertError::Unknown { field: "load balancer", value: 0 });
    assert_eq!(protocol.to_string(), "service protocol is 99, which this version does not know");
}

#[test]
fn a_match_of_a_kind_that_is_not_known_never_matches_everything() {
    let refused = refusal(|service| {
        let matches = &mut service.routes.as_mut().unwrap().rules[0].matches;
        matches[0].path = Some(wire::StringMatch { kind: None });
    });

    assert_eq!(refused, ConvertError::Missing { field: "match kind" });
}

#[test]
fn a_rule_cannot_name_a_backend_that_is_not_there() {
    let refused = refusal(|service| {
        service.routes.as_mut().unwrap().rules[0].backends[0].backend = 1;
    });

    assert_eq!(refused, ConvertError::OutOfRange { field: "rule backend", value: 1, largest: 0 });
    let refused = refusal(|service| service.tcp.as_mut().unwrap().rules[0].backends[0].backend = 7);
    assert_eq!(refused, ConvertError::OutOfRange { field: "rule backend", value: 7, largest: 0 });
}

#[test]
fn a_tcp_rule_that_is_not_understood_is_refused() {
    let layer = refusal(|service| service.tcp.as_mut().unwrap().rules[0].layer = 9);
    assert_eq!(layer, ConvertError::Unknown { field: "rule layer", value: 9 });
    let subnet = refusal(|service| {
        let destination_subnets = vec!["10.0.0.0/99".to_owned()];
        let wanted = wire::TcpMatch { destination_subnets, ..wire::TcpMatch::default() };
        service.tcp.as_mut().unwrap().rules[0].matches = vec![wanted];
    });
    assert!(matches!(subnet, ConvertError::Invalid { field: "destination subnet", .. }), "{subnet}");
}

#[test]
fn a_regular_expression_that_does_not_compile_is_refused() {
    let refused = refusal(|service| {
        let matches = &mut service.routes.as_mut().unwrap().rules[0].matches;
        matches[0].path = Some(wire::StringMatch { kind: Some(wire::string_match::Kind::Regex("(".into())) });
    });

    assert!(matches!(refused, ConvertError::Invalid { field: "regular expression", .. }), "{refused}");
}

#[test]
fn an_answer_that_says_nothing_is_not_the_answer_none() {
    let silent = wire::Lookup { authority: "a".into(), ..wire::Lookup::default() };

    assert!(Lookup::try_from(silent).is_err());
}

#[test]
fn a_time_below_a_millisecond_does_not_become_zero() {
    assert_eq!(milliseconds(Duration::from_micros(1)), 1);
    assert_eq!(milliseconds(Duration::from_millis(25)), 25);
    assert_eq!(milliseconds(Duration::ZERO), 0);
}
