//! What of a `trafficPolicy` no setting for a port takes away, and which of several rules counts.

use std::collections::BTreeSet;

use selvedge_model::{ConsistentHash, HashKey, Hedge, ProxyProtocol, RetryBudget, SessionKey};

use super::*;

/// The policies of the host and of its subset, where these are their `trafficPolicy`s.
fn policies(host: &str, subset: &str) -> [TrafficPolicy; 2] {
    let (host, subset) = (given(host), given(subset));
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy: {host}\n  subsets: [{{name: v1, labels: {{version: v1}}, \
         trafficPolicy: {subset}}}]\n{}",
        virtual_service(
            "r",
            "{hosts: [reviews], http: [{match: [{uri: {exact: /v1}}], route: [{destination: {host: reviews, subset: v1}}]}, {route: [{destination: {host: reviews}}]}]}"
        )
    );
    let (mesh, problems) = compiled(&text);
    assert_eq!(errors(&problems), [""; 0], "{text}");
    [None, Some("v1")].map(|name| {
        let backends = &reviews(&mesh).backends;
        backends.iter().find(|one| one.name.subset.as_deref() == name).unwrap().policy.clone()
    })
}

#[test]
fn a_subset_has_its_hosts_retry_budget_unless_it_has_its_own_whatever_is_set_for_the_port() {
    let budget = |at_once: u32| format!("retryBudget: {{minRetryConcurrency: {at_once}}}");
    let port = "portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]";
    for (host, subset, whole, part) in [
        (budget(7), String::new(), Some(7), Some(7)),
        (String::new(), budget(8), None, Some(8)),
        (budget(7), budget(8), Some(7), Some(8)),
        (format!("{}, {port}", budget(7)), String::new(), Some(7), Some(7)),
        (format!("{}, {port}", budget(7)), budget(8), Some(7), Some(8)),
        (budget(7), format!("{}, {port}", budget(8)), Some(7), Some(8)),
        (budget(7), port.to_owned(), Some(7), Some(7)),
        (port.to_owned(), port.to_owned(), None, None),
    ] {
        let expected = [whole, part]
            .map(|at_once| at_once.map(|at_once| RetryBudget { at_once, ..RetryBudget::default() }));
        assert_eq!(policies(&host, &subset).map(|policy| policy.retry_budget), expected, "{host}; {subset}");
    }
}

#[test]
fn what_is_said_on_the_way_is_a_hosts_or_its_subsets_whatever_is_set_for_the_port() {
    let header = |version: u8| format!("proxyProtocol: {{version: V{version}}}");
    let tunnel = |target: &str| format!("tunnel: {{targetHost: {target}, targetPort: 1}}");
    let port = "portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]";
    let (one, other) = (Some(ProxyProtocol::V1), Some(ProxyProtocol::V2));
    for (host, subset, expected) in [
        (header(1), String::new(), [one, one]),
        (header(1), header(2), [one, other]),
        (format!("{}, {port}", header(1)), port.to_owned(), [one, one]),
        (String::new(), format!("{}, {port}", header(2)), [None, other]),
    ] {
        let found = policies(&host, &subset).map(|policy| policy.proxy_protocol);
        assert_eq!(found, expected, "{host}; {subset}");
    }
    let (one, other) = (Some("a.b:1".to_owned()), Some("c.d:1".to_owned()));
    for (host, subset, expected) in [
        (tunnel("a.b"), String::new(), [&one, &one]),
        (tunnel("a.b"), tunnel("c.d"), [&one, &other]),
        (format!("{}, {port}", tunnel("a.b")), port.to_owned(), [&one, &one]),
        (String::new(), format!("{}, {port}", tunnel("c.d")), [&None, &other]),
    ] {
        let target = |policy: TrafficPolicy| policy.tunnel.map(|tunnel| tunnel.target.to_string());
        let found = policies(&host, &subset).map(target);
        assert_eq!(found, expected.map(Clone::clone), "{host}; {subset}");
    }
}

#[test]
fn a_subsets_block_replaces_what_its_host_says_for_the_port() {
    const BLOCKS: &str = "loadBalancer: {simple: RANDOM}, outlierDetection: {consecutive5xxErrors: 9}, \
                          connectionPool: {tcp: {maxConnections: 9}}, tls: {mode: DISABLE}";
    let port = |blocks: &str| format!("portLevelSettings: [{{port: {{number: 9080}}, {blocks}}}]");
    let seen = |host: &str, subset: &str| {
        policies(host, subset).map(|policy| {
            let TrafficPolicy { load_balancer, outlier_detection, connections, tls, .. } = policy;
            let detected = outlier_detection.and_then(|detection| detection.consecutive_5xx);
            (load_balancer, detected, connections.max_connections, tls)
        })
    };
    let [usual, _] = seen("", "");
    let [theirs, _] = seen(BLOCKS, "");
    assert_eq!(theirs, (LoadBalancer::Random, Some(9), Some(9), Some(UpstreamTls::Disable)));

    let of_host = port("loadBalancer: {simple: ROUND_ROBIN}");
    let round_robin = (LoadBalancer::RoundRobin, usual.1, usual.2, usual.3.clone());
    assert_eq!(seen(&of_host, BLOCKS), [round_robin.clone(), theirs.clone()], "block by block");
    assert_eq!(seen(&port(BLOCKS), ""), [theirs.clone(), theirs.clone()]);
    let with_outliers = (LoadBalancer::RoundRobin, Some(3), usual.2, usual.3.clone());
    assert_eq!(
        seen(&of_host, "outlierDetection: {consecutive5xxErrors: 3}"),
        [round_robin.clone(), with_outliers],
        "what it does not give is the host's for the port"
    );
    let own = format!("{BLOCKS}, {}", port("loadBalancer: {simple: ROUND_ROBIN}"));
    assert_eq!(seen(&port(BLOCKS), &own), [theirs, round_robin], "its own for the port is all of them");
}

/// The policy that clients in `client` have for reviews, and what is told of `rules`.
fn followed(client: &str, rules: &str) -> (TrafficPolicy, String) {
    let (mesh, problems) = compiled(&format!("{MESH}{rules}"));
    let key = ServiceKey::new(REVIEWS, 9080);
    let service = mesh.services[&key].for_namespace(client);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (service.backends[0].policy.clone(), problems.concat())
}

fn rule(namespace: &str, name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}, \
         annotations: {{{annotations}}}}}\nspec: {{{spec}}}\n---\n"
    )
}

#[test]
fn a_rule_for_its_own_clients_alone_puts_no_error_on_a_route_of_another_namespace() {
    let subsets = rule("default", "ours", "", "host: reviews, subsets: [{name: v1, labels: {version: v1}}]");
    let theirs = rule("shop", "theirs", "", "host: reviews.default.svc.cluster.local");
    let told = |subset: &str| -> BTreeSet<String> {
        let route = format!(
            "{{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}"
        );
        let (_, problems) = compiled(&format!("{MESH}{subsets}{theirs}{}", virtual_service("a", &route)));
        let errors = problems.iter().filter(|one| one.severity == Severity::Error);
        errors.map(|one| format!("{} {}", one.document.as_ref().unwrap(), one.field)).collect()
    };

    let one = |told: &str| BTreeSet::from([told.to_owned()]);
    assert_eq!(told("v1"), one("DestinationRule shop/theirs spec.host"));
    assert_eq!(
        told("v3"),
        one("VirtualService default/a spec.http[0].route[0].destination.subset"),
        "nobody has it, so theirs is not at fault"
    );
}

#[test]
fn a_subset_that_only_clients_of_another_namespace_have_is_told_as_that() {
    let subset = "host: reviews.default.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]";
    let route = virtual_service(
        "r",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}",
    );
    let (_, problems) = compiled(&format!("{MESH}{}{route}", rule("shop", "theirs", "", subset)));

    let [error] = &errors(&problems)[..] else { panic!("{problems:?}") };
    assert!(
        error.contains(
            "is defined by DestinationRule shop/theirs, which only clients in namespace shop follow"
        ),
        "{error}"
    );
    assert!(error.contains("move it to namespace default"), "{error}");
}

#[test]
fn a_credential_is_the_name_of_a_secret_alone() {
    for name in ["shop/tls", "'a,metadata.namespace=b'"] {
        let tls = format!("host: reviews, trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: {name}}}}}");
        let (_, problems) = compiled(&format!("{MESH}{}", rule("default", "a", "", &tls)));
        assert!(errors(&problems).concat().contains("is not the name of a Secret"), "{name}: {problems:?}");
    }
}

#[test]
fn a_cookie_that_proxies_give_is_signed_with_a_key_of_its_name_and_the_apps_own_is_not() {
    let key = |cookie: &str, settings: &MeshSettings| {
        let text = format!(
            "{MESH}{}",
            rule(
                "default",
                "a",
                "",
                &format!(
                    "host: reviews, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {cookie}}}}}}}"
                ),
            )
        );
        let (mesh, _) = compile(&resources(&text).0, settings, &Mesh::default());
        match &reviews(&mesh).backends[0].policy.load_balancer {
            LoadBalancer::ConsistentHash(ConsistentHash { key: HashKey::Cookie(cookie), .. }) => {
                cookie.key.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    let usual = MeshSettings::default();
    let other = MeshSettings { session_key: SessionKey([7; 32]), ..MeshSettings::default() };

    let given = key("{name: user, ttl: 0s}", &usual);
    assert!(given.is_some());
    assert_eq!(key("{name: user, ttl: 5s, path: /a}", &usual), given, "cookies of one name are one");
    assert_ne!(key("{name: cart, ttl: 0s}", &usual), given);
    assert_ne!(key("{name: user, ttl: 0s}", &other), given);
    assert_eq!(key("{name: user}", &usual), None);
}

#[test]
fn of_several_rules_for_a_host_the_first_that_has_a_policy_counts() {
    let subsets = "host: reviews, subsets: [{name: v1, labels: {version: v1}}]";
    let random = "host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let hedge = |after: &str| format!("config.selvedge.io/hedge: {after}");
    let rules = rule("default", "a", "", subsets)
        + &rule("default", "b", &hedge("100ms"), random)
        + &rule(
            "default",
            "c",
            &hedge("200ms"),
            "host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
        );

    let (policy, problems) = followed("default", &rules);

    assert_eq!(policy.load_balancer, LoadBalancer::Random);
    assert_eq!(policy.hedge, Some(Hedge::After(Duration::from_millis(100))));
    for field in ["spec.trafficPolicy", "metadata.annotations[config.selvedge.io/hedge]"] {
        let told = format!("{field}: has no effect: DestinationRule default/b");
        assert_eq!(problems.matches(&told).count(), 1, "{told}: {problems}");
    }
}

#[test]
fn what_the_root_namespace_says_for_all_comes_after_the_hosts_own_there_too() {
    const ALL: &str = "host: '*.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let root = &*MeshSettings::default().root_namespace;
    let own =
        rule("default", "own", "", "host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}");
    let balancer = |client: &str, rules: &str| followed(client, rules).0.load_balancer;

    let both = own.clone() + &rule(root, "all", "", ALL);
    for client in [root, "default", "third"] {
        assert_eq!(balancer(client, &both), LoadBalancer::RoundRobin, "{client}");
        assert_eq!(balancer(client, &rule(root, "all", "", ALL)), LoadBalancer::Random, "{client}");
    }
    let private = own + &rule(root, "all", "", &format!("{ALL}, exportTo: ['.']"));
    assert_eq!(balancer(root, &private), LoadBalancer::Random, "it is for the root namespace alone");
    assert_eq!(balancer("third", &private), LoadBalancer::RoundRobin);
}

#[test]
fn very_many_rules_for_one_host_or_wildcard_are_each_looked_at_once() {
    let count = 3_000;
    let entries: String = (0..count).map(entry).collect();
    let many = |spec: &dyn Fn(usize) -> String| -> String {
        (0..count).map(|number| rule("default", &format!("r{number}"), "", &spec(number))).collect()
    };
    let wild = many(&|_| "host: '*.many.example'".to_owned());
    let exported = many(&|number| format!("host: h0.many.example, exportTo: [n{number}]"));
    let subsets = many(&|number| format!("host: h0.many.example, subsets: [{{name: v{number}}}]"));
    // They have a label of their own, and share others by which nobody is told apart.
    let select = |number: usize| format!("workloadSelector: {{matchLabels: {{a: a, m: v{number}, z: z}}}}");
    let selecting = many(&|number| format!("host: h0.many.example, {}", select(number)));
    let of_others = many(&|number| format!("host: h{}.many.example, {}", number % 2, select(number)));
    let elsewhere = many(&|number| {
        format!("host: h0.many.example, {}, subsets: [{{name: v{number}}}]", select(number))
    }) + &virtual_service(
        "r",
        "{hosts: [h0.many.example], http: [{route: [{destination: {host: h0.many.example, subset: none}}]}]}",
    );
    let unusable = many(&|number| {
        format!("host: h0.many.example, {}, trafficPolicy: {{tls: {{mode: SIMPLY}}}}", select(number))
    });

    for rules in [wild, exported, subsets, selecting, of_others, elsewhere, unusable] {
        let (mesh, _) = compiled(&format!("{entries}---\n{rules}"));
        assert_eq!(mesh.services.len(), count);
    }
}

fn entry(number: usize) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e{number}}}\nspec: {{hosts: [h{number}.many.example], \
         ports: [{{number: 80, name: http}}], resolution: STATIC}}\n"
    )
}
