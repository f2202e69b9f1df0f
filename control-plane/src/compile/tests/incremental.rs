//! A change that is compiled alone gives what compiling everything gives.

mod world;

use world::World;

use super::*;

/// How many changes are made in the ordinary run; this variable says another number.
const STEPS: usize = 1_000;
const MORE_STEPS: &str = "SELVEDGE_TEST_CHANGES";
/// Changes of one world.
const OF_WORLD: usize = 40;

/// What is not the same in both.
fn differing(one: &Mesh, other: &Mesh) -> Option<&'static str> {
    let views = |mesh: &Mesh| -> Vec<_> {
        let all = mesh.services.iter();
        all.map(|(key, views)| {
            (key.clone(), views.default.clone(), views.by_namespace.clone(), views.selected.clone())
        })
        .collect()
    };
    let named = |mesh: &Mesh| {
        let named = &mesh.named;
        (named.endpoints.clone(), named.occupants.clone(), named.callers.clone())
    };
    let are_same = [
        ("workloads", one.workloads == other.workloads),
        ("services", views(one) == views(other)),
        ("endpoints", one.endpoints == other.endpoints),
        ("addresses", one.addresses == other.addresses),
        ("occupants", one.occupants == other.occupants),
        ("addresses of services", one.service_addresses == other.service_addresses),
        ("ranges", one.service_ranges == other.service_ranges),
        ("callers", one.callers == other.callers),
        ("exported", one.exported == other.exported),
        ("named", named(one) == named(other)),
        ("revocations", one.revocations == other.revocations),
        ("sets", one.sets == other.sets),
        ("selected", one.selected == other.selected),
        ("gateways", one.gateways == other.gateways),
        ("owners", one.owners == other.owners),
        ("domain", one.cluster_domain == other.cluster_domain),
    ];
    are_same.iter().find(|(_, same)| !same).map(|(name, _)| *name)
}

/// Checks that what is between `before` and `after` gives what compiling everything gives; whether it was compiled alone.
fn is_compiled_alone(before: &Resources, after: &Resources) -> bool {
    let settings = MeshSettings::default();
    let mut compiler = Compiler::default();
    let mesh = compiler.compile(before, &settings, &Mesh::default()).mesh;
    let (whole, problems) = compile(after, &settings, &mesh);
    let compiled = compiler.compile(after, &settings, &mesh);
    assert_eq!(compiled.problems, problems);
    assert_eq!(differing(&compiled.mesh, &whole), None);
    compiled.is_part
}

/// The same of one text, in which `old` becomes `new`.
fn is_alone_if(text: &str, old: &str, new: &str) -> bool {
    assert!(text.contains(old), "{old}");
    is_compiled_alone(&resources(text).0, &resources(&text.replace(old, new)).0)
}

#[test]
fn workloads_that_dns_may_lead_past_their_sidecars_are_listed_anew() {
    let outside = |resolution: &str, host: &str| {
        format!(
            "{MESH}---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: outside}}\n\
             spec: {{hosts: ['{host}'], resolution: {resolution}, ports: [{{number: 9001, name: http, protocol: HTTP}}]}}\n"
        )
    };
    for text in [outside("DNS", "api.example.com"), outside("NONE", "*.example.com")] {
        assert!(!is_alone_if(&text, "serviceAccount: reviews", "serviceAccount: others"));
        assert!(!is_alone_if(
            &text,
            "security.istio.io/tlsMode: istio",
            "security.istio.io/tlsMode: disabled"
        ));
        let elsewhere = text.replace("number: 9001", "number: 9002");
        assert!(is_alone_if(&elsewhere, "serviceAccount: reviews", "serviceAccount: others"));
    }
}

#[test]
fn routes_and_rules_are_compiled_for_their_hosts_alone_where_nothing_else_reads_them() {
    let route =
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 90}]}]}";
    let other =
        "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {ports: [{name: http, port: 80}]}\n";
    let text = format!("{MESH}{SUBSETS}{other}{}", virtual_service("a", route));

    assert!(is_alone_if(&text, "weight: 90", "weight: 80"));
    assert!(is_alone_if(&text, "subset: v1", "subset: gone"));
    assert!(is_alone_if(&text, "hosts: [reviews]", "hosts: [nobody]"), "what is wrong is told");
    assert!(is_alone_if(&text, "hosts: [reviews]", "hosts: [other]"), "its backends are elsewhere");
    assert!(is_alone_if(&text, "name: v2", "name: v3"));
    assert!(is_alone_if(&text, "maxConnections: 5", "maxConnections: 6"));
    assert!(is_alone_if(&text, "connectTimeout: 1s", "connectTimeout: 2s"), "sidecars of servers are told");

    let elsewhere = text.replace("hosts: [reviews]", "hosts: [other]");
    assert!(is_alone_if(&elsewhere, "maxConnections: 5", "maxConnections: 6"), "through its backends");

    let outside = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: outside}\n\
                   spec: {hosts: ['*.example.com'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}\n";
    let below = text.replace("hosts: [reviews]", "hosts: [reviews, a.example.com]") + outside;
    assert!(is_alone_if(&below, "weight: 90", "weight: 80"));
    assert!(!is_alone_if(&below, "a.example.com", "b.example.com"), "that is a host of its own");

    let gateway = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                   spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n";
    let beside = text.clone() + gateway;
    assert!(is_alone_if(&beside, "weight: 90", "weight: 80"), "it is not the gateway's");
    assert!(
        is_alone_if(&beside, "maxConnections: 5", "maxConnections: 6"),
        "the gateway does not lead there"
    );
    let led = beside.replace("hosts: [reviews]", "gateways: [edge], hosts: [reviews]");
    assert!(is_alone_if(&beside, "hosts: [reviews]", "gateways: [edge], hosts: [reviews]"));
    assert!(is_alone_if(&led, "weight: 90", "weight: 80"));
    assert!(is_alone_if(&led, "subset: v1", "subset: gone"), "it is told");
    assert!(is_alone_if(&led, "name: v1", "name: v0"), "what the gateway leads to is broken now, and told");
}

#[test]
fn services_are_compiled_alone_with_what_is_behind_them_and_who_sends_to_them() {
    let to =
        |host: &str| format!("{{hosts: [reviews], http: [{{route: [{{destination: {{host: {host}}}}}]}}]}}");
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\n\
                 spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 9080}]}\n---\n";
    let text = format!("{MESH}{SUBSETS}{other}{}", virtual_service("a", &to("other")));

    assert!(is_alone_if(&text, "metadata: {name: other}", "metadata: {name: other, labels: {a: b}}"));
    assert!(is_alone_if(&text, "selector: {app: reviews}, ports", "selector: {app: nobody}, ports"));
    assert!(is_alone_if(&text, "port: 80, targetPort", "port: 81, targetPort"), "its route is broken now");
    assert!(is_alone_if(&text, "targetPort: 9080", "targetPort: 9081"), "workloads have another port");
    assert!(is_alone_if(&text, "name: http, port: 80", "name: tcp, port: 80"));
    assert!(is_alone_if(&text, other, ""), "it goes, and the route to it is told so");
    let elsewhere = text.replace(&to("other"), &to("other.default"));
    assert!(is_alone_if(&elsewhere, other, ""), "how to write it is told by what there is");
    let without = text.replace(other, "");
    let (before, after) = (resources(&without).0, resources(&text).0);
    assert!(is_compiled_alone(&before, &after), "it comes");

    let named = "apiVersion: v1\nkind: Service\nmetadata: {name: alias}\n\
                 spec: {type: ExternalName, externalName: other.default.svc.cluster.local}\n---\n";
    assert!(!is_alone_if(&(text.clone() + named), other, ""), "it has another name");
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\n\
                 spec: {hosts: ['*.default.svc.cluster.local'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n";
    assert!(!is_alone_if(&(text + entry), other, ""), "it is below a wildcard then");
}

#[test]
fn service_entries_are_compiled_alone_where_they_are_nothing_but_themselves() {
    let entry = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\n\
             spec: {{ports: [{{number: 80, name: http, protocol: HTTP}}], {spec}}}\n"
        )
    };
    let one = entry(
        "one",
        "hosts: [a.outside], resolution: STATIC, location: MESH_EXTERNAL, addresses: [10.9.0.1], \
         endpoints: [{address: 10.1.0.1}, {address: 10.1.0.2}]",
    );
    let to = "{hosts: [reviews], http: [{route: [{destination: {host: a.outside}}]}]}";
    let text = format!("{MESH}{SUBSETS}{}{one}", virtual_service("a", to));

    assert!(is_alone_if(&text, ", {address: 10.1.0.2}", ""), "an endpoint goes");
    assert!(is_alone_if(&text, "10.1.0.2", "10.1.0.3"));
    assert!(is_alone_if(&text, "10.1.0.2", "127.0.0.2"), "that is a workload's");
    assert!(is_alone_if(&text, "10.9.0.1", "10.9.0.2"));
    assert!(is_alone_if(&text, "number: 80", "number: 81"), "that is told where a route names it");
    assert!(is_alone_if(&text, "MESH_EXTERNAL", "MESH_INTERNAL"));
    assert!(is_alone_if(&text, "protocol: HTTP", "protocol: TCP"));
    assert!(is_alone_if(&text, "[a.outside]", "[b.outside]"), "the route leads nowhere");
    assert!(is_alone_if(&text, "[a.outside]", "[a.outside, b.outside]"));
    assert!(is_alone_if(&text, &one, "---\n"), "so it does now");
    assert!(is_compiled_alone(&resources(&text.replace(&one, "---\n")).0, &resources(&text).0), "it comes");
    assert!(is_alone_if(&text, "hosts: [a.outside],", "hosts: [a.outside], exportTo: ['.'],"));

    // A route that may not know of a host does not say which one it names.
    let for_some = text.replace("hosts: [a.outside],", "hosts: [a.outside], exportTo: [others],");
    assert!(is_alone_if(&for_some, "10.1.0.2", "10.1.0.3"));
    assert!(!is_alone_if(&for_some, "exportTo: [others]", "exportTo: ['*']"));

    let selecting = entry(
        "selecting",
        "hosts: [s.outside], resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {labels: {version: v1}}",
    );
    let both = format!("{text}{selecting}");
    assert!(is_alone_if(&both, "labels: {version: v1}}}", "labels: {version: v2}}}"));
    assert!(
        is_alone_if(&both, "app: reviews, version: v2", "app: reviews, version: v1"),
        "one more is selected"
    );
    assert!(
        is_alone_if(&both, "serviceAccount: reviews", "serviceAccount: others"),
        "it is called otherwise"
    );

    // Whoever shares a host, or is called by names, has to do with others.
    for other in [
        entry("two", "hosts: [a.outside], resolution: STATIC, endpoints: [{address: 10.1.1.1}]"),
        entry("two", "hosts: ['*.outside'], resolution: NONE"),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: a.outside}\n"
            .to_owned(),
    ] {
        assert!(!is_alone_if(&format!("{text}{other}"), "10.1.0.2", "10.1.0.3"), "{other}");
        assert!(!is_compiled_alone(&resources(&text).0, &resources(&format!("{text}{other}")).0), "{other}");
    }
    let by_name = entry("dns", "hosts: [api.example.com], resolution: DNS");
    assert!(is_alone_if(&format!("{text}{by_name}"), "10.1.0.2", "10.1.0.3"));
    assert!(!is_alone_if(&format!("{text}{by_name}"), "api.example.com", "api.example.org"));
}

#[test]
fn policies_are_compiled_alone_for_the_workloads_that_they_select() {
    let policy = |name: &str, selector: &str, account: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{matchLabels: {{{selector}}}}}, rules: [{{from: [{{source: {{principals: [{account}]}}}}]}}]}}\n---\n"
        )
    };
    let one = policy("one", "app: reviews", "cluster.local/ns/default/sa/reviews");
    let mtls = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n\
                spec: {selector: {matchLabels: {version: v1}}, mtls: {mode: STRICT}}\n---\n";
    let text = format!("{MESH}{SUBSETS}{one}{mtls}");

    assert!(is_alone_if(&text, "sa/reviews]", "sa/nobody]"), "it is told");
    assert!(is_alone_if(&text, "matchLabels: {app: reviews}", "matchLabels: {app: nobody}"), "it is told");
    assert!(is_alone_if(&text, &one, ""));
    assert!(is_alone_if(&text, mtls, &format!("{mtls}{}", policy("two", "version: v1", "'*'"))));
    assert!(is_alone_if(&text, "mode: STRICT", "mode: PERMISSIVE"));
    assert!(is_alone_if(&text, "mode: STRICT", "mode: DISABLE"), "endpoints are called otherwise");
    assert!(is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {version: v9}"));
    assert!(
        is_alone_if(&text, "serviceAccount: reviews", "serviceAccount: others"),
        "nobody has the account"
    );
}

#[test]
fn a_namespace_without_room_costs_no_other() {
    let service = |name: &str, namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{ports: [{{name: http, port: 80}}, {{name: more, port: 81, appProtocol: http}}]}}\n---\n"
        )
    };
    let route = |name: &str, namespace: &str, timeout: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{hosts: [{name}], http: [{{timeout: {timeout}, route: [{{destination: {{host: {name}}}}}]}}]}}\n---\n"
        )
    };
    let text = ["a", "b"].map(|name| service(name, "greedy") + &route(name, "greedy", "1s")).concat();
    let text = text + &service("c", "other") + &route("c", "other", "3s");
    let large = |text: &str, sizes: [usize; 2]| {
        let (mut resources, _) = resources(text);
        for (document, size) in resources.virtual_services.iter_mut().zip(sizes) {
            Arc::make_mut(document).size = size << 20;
        }
        resources
    };
    let crowded = large(&text, [200, 200]);
    let problems = compile(&crowded, &MeshSettings::default(), &Mesh::default()).1;
    assert!(problems[0].message.contains("does not follow it"), "{problems:?}");

    assert!(is_compiled_alone(&crowded, &large(&text.replace("3s", "4s"), [200, 200])));
    assert!(is_compiled_alone(&crowded, &large(&text.replace("1s", "2s"), [200, 200])), "its own change");
    assert!(is_compiled_alone(&crowded, &large(&text, [1, 200])), "now there is room for both");
    assert!(is_compiled_alone(&large(&text, [1, 200]), &crowded), "and now not");
    assert!(is_compiled_alone(
        &crowded,
        &large(&text.replacen(", {name: more, port: 81, appProtocol: http}", "", 1), [200, 200])
    ));
}

#[test]
fn of_clients_that_rules_select_it_matters_which_there_are() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: selecting}\n\
                spec: {host: reviews, workloadSelector: {matchLabels: {tier: front}}, \
                trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}\n";
    let client = |name: &str, tier: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
             spec: {{address: 127.0.1.1, labels: {{app: {name}, tier: {tier}}}}}\n"
        )
    };
    let text = format!("{MESH}{rule}{}", client("one", "front"));

    assert!(is_alone_if(&text, "maxConnections: 5", "maxConnections: 6"));
    assert!(!is_alone_if(&text, "matchLabels: {tier: front}", "matchLabels: {tier: back}"));
    assert!(!is_alone_if(&text, "app: one, tier: front", "app: one, tier: back"), "the last one is gone");
    assert!(is_alone_if(&text, "app: one", "app: two"));
    let two = client("two", "front").replace("127.0.1.1", "127.0.1.2");
    let both = format!("{text}{two}");
    assert!(is_alone_if(&both, "app: one, tier: front", "app: one, tier: back"));
    assert!(is_alone_if(&both, &two, "---\n"), "another one is left");
    assert!(is_compiled_alone(&resources(&text).0, &resources(&both).0), "it is one more");
}

#[test]
fn annotations_of_workloads_that_cannot_be_read_are_told_and_no_longer_told() {
    let wrong = MESH.replace(
        "metadata: {name: reviews-v2}",
        "metadata: {name: reviews-v2, annotations: {config.linkerd.io/default-inbound-policy: nobody}}",
    );
    let (right, wrong) = (resources(MESH).0, resources(&wrong).0);
    let problems =
        |resources: &Resources| compile(resources, &MeshSettings::default(), &Mesh::default()).1.len();

    assert_eq!((problems(&right), problems(&wrong)), (0, 1));
    assert!(is_compiled_alone(&right, &wrong));
    assert!(is_compiled_alone(&wrong, &right));
}

#[test]
fn a_pod_that_ends_leaves_its_place_to_the_entry_of_its_name() {
    let of_cluster = |phase: &str| {
        let entries = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: by-name}\n\
                       spec: {address: vm.example.com, ports: {http: 8080}}\n\
                       ---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: both}\n\
                       spec: {address: 10.0.0.1}\n";
        let (mut all, _) = resources(entries);
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "both", "namespace": "default"},
            "spec": {"containers": []}, "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
        });
        match crate::resources::decode_value(pod, "default").outcome {
            DecodeOutcome::Understood(pod) => all.push(pod),
            other => panic!("{other:?}"),
        }
        all
    };
    let (running, ended) = (of_cluster("Running"), of_cluster("Succeeded"));

    // What is known by name is ranked after it no more.
    assert!(!is_compiled_alone(&running, &ended));
    assert!(!is_compiled_alone(&ended, &running));
}

#[test]
fn which_telemetry_is_named_goes_by_the_order_of_workloads() {
    let telemetry = |name: &str, label: &str| {
        format!(
            "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{matchLabels: {{{label}}}}}, accessLogging: [{{providers: [{{name: envoy}}]}}]}}\n"
        )
    };
    let all = [("a", "version: v1"), ("b", "version: v2"), ("c", "app: reviews")];
    let all = all.map(|(name, label)| telemetry(name, label)).concat();
    let (before, _) = resources(&format!("{MESH}{all}"));
    let mut after = before.clone();
    after.workload_entries.reverse();
    let problems = |resources: &Resources| compile(resources, &MeshSettings::default(), &Mesh::default()).1;

    assert_ne!(problems(&before), problems(&after), "that is what is to be found out");
    assert!(!is_compiled_alone(&before, &after));
}

#[test]
fn request_authentications_are_compiled_alone_and_asked_again_if_workloads_change() {
    let tokens = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{matchLabels: {{{labels}}}}}, jwtRules: [{{issuer: me, jwks: '{{\"keys\":[]}}'}}]}}\n"
        )
    };
    let asks = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: asks}\n\
                spec: {selector: {matchLabels: {app: reviews}}, rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]}\n";
    let one = tokens("one", "version: v1");
    let text = format!("{MESH}{SUBSETS}{one}{asks}");

    assert!(is_alone_if(&text, "issuer: me", "issuer: other"));
    assert!(is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {version: v2}"), "another asks");
    assert!(is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {version: v9}"), "it is told");
    assert!(is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {app: reviews}"));
    assert!(is_alone_if(&text, &one, ""), "the policy is told that nobody accepts tokens");
    assert!(is_alone_if(&text, &one, &format!("{one}{}", tokens("two", "version: v2"))));
    assert!(is_alone_if(&text, "version: v2}", "version: v1}"), "one more workload");
    assert!(is_alone_if(&text, "app: reviews, version: v1", "app: reviews, version: v0"), "none is left");
    let both = text.replace(asks, "");
    assert!(is_alone_if(&both, "app: reviews, version: v1", "app: reviews, version: v0"));
    let none = both.replace(&one, "");
    assert!(!is_compiled_alone(&resources(&none).0, &resources(&both).0), "the first comes");
}

#[test]
fn rate_limits_are_compiled_alone_and_asked_again_if_what_they_read_changes() {
    let limit = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: {name}}}\n\
             spec: {{limits: [{{requests: 5}}], {spec}}}\n"
        )
    };
    let one = limit("one", "selector: {matchLabels: {version: v1}}");
    let text = format!("{MESH}{SUBSETS}{one}");

    assert!(is_alone_if(&text, "requests: 5", "requests: 6"));
    assert!(
        is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {version: v2}"),
        "it is for another"
    );
    assert!(is_alone_if(&text, "matchLabels: {version: v1}", "matchLabels: {version: v9}"), "it is told");
    assert!(is_alone_if(&text, &one, ""), "none is left");
    assert!(is_alone_if(&text, &one, &format!("{one}{}", limit("two", "dryRun: true"))));
    assert!(is_alone_if(&text, "app: reviews, version: v1", "app: reviews, version: v0"), "none is selected");
    assert!(
        !is_compiled_alone(&resources(&text.replace(&one, "")).0, &resources(&text).0),
        "the first comes"
    );

    // By what Services there are it is found who is asked, and whether anybody is.
    let asking = limit(
        "asking",
        "global: {service: 'counter:8081', domain: d, descriptors: [{entries: [{from: clientAddress}]}]}",
    );
    let counter = "---\napiVersion: v1\nkind: Service\nmetadata: {name: counter}\n\
                   spec: {ports: [{name: grpc, port: 8081}]}\n";
    let text = format!("{MESH}{counter}{asking}");
    assert!(is_alone_if(&text, "port: 8081", "port: 8082"), "that is told");
    assert!(is_alone_if(&text, counter, ""), "so is this");
    assert!(is_alone_if(&text, "counter:8081", "nobody:8081"));

    let of_cluster =
        |domain: &str| format!("{MESH}{asking}").replace("counter:8081", &format!("{domain}:80"));
    assert!(is_alone_if(&of_cluster("a.b"), "a.b:80", "c.d:80"));

    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                 spec: {parentRefs: [{name: edge}], rules: [{name: first, backendRefs: [{name: reviews, port: 9080}]}]}\n";
    let gateway = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                   spec: {gatewayClassName: any, listeners: [{name: http, port: 80, protocol: HTTP}]}\n\
                   ---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
                   metadata: {name: edge-1, annotations: {config.selvedge.io/gateway: default/edge}}\n\
                   spec: {address: 127.0.3.1, labels: {app: edge}}\n";
    let of_route = limit(
        "of-route",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r, sectionName: first}]",
    );
    let text = format!("{MESH}{gateway}{route}{of_route}");
    let limits = |resources: &Resources| {
        let mesh = compile(resources, &MeshSettings::default(), &Mesh::default()).0;
        format!("{:?}", mesh.gateways).matches("of-route").count()
    };
    assert_eq!(limits(&resources(&text).0), 1);
    assert!(is_alone_if(&text, "requests: 5", "requests: 6"), "the gateway is told");
    assert!(is_alone_if(&text, "sectionName: first", "sectionName: second"), "there is no such rule");
    assert!(is_alone_if(&text, "name: first, ", ""), "there is none any more");

    let of_server = "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l}\n\
                     spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: s}, total: {requestsPerSecond: 100}}\n";
    assert!(
        !is_alone_if(&(text + of_server), "requests: 5", "requests: 6"),
        "ports have limits of their own"
    );
}

#[test]
fn network_policies_are_compiled_alone_and_asked_again_if_workloads_change() {
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let one = policy(
        "one",
        "{podSelector: {matchLabels: {version: v1}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}",
    );
    let client = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: c}\n\
                  spec: {address: 127.0.1.1, labels: {app: web}, serviceAccount: web}\n";
    let text = format!("{MESH}{SUBSETS}{one}{client}");

    assert!(is_alone_if(&text, "version: v1}}, ingress", "version: v2}}, ingress"), "it is for another");
    assert!(is_alone_if(&text, "{app: web}}}]", "{app: nobody}}}]"), "it is told");
    assert!(is_alone_if(&text, "127.0.1.1", "127.0.1.2"), "the set has another member");
    assert!(is_alone_if(&text, "serviceAccount: web", "serviceAccount: reviews"), "two share an identity");
    assert!(is_alone_if(&text, client, ""), "nobody is left");
    assert!(is_compiled_alone(&resources(&text.replace(client, "")).0, &resources(&text).0), "it comes");
    assert!(is_alone_if(&text, "connectTimeout: 1s", "connectTimeout: 2s"), "its workloads keep their rules");
    let two = policy("two", "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}");
    assert!(is_alone_if(&text, client, &format!("{two}{client}")));
    assert!(is_alone_if(&text, &one, ""), "none is left");
    assert!(
        !is_compiled_alone(&resources(&text.replace(&one, "")).0, &resources(&text).0),
        "the first comes"
    );
    let calico = "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\n\
                  spec: {order: 7, selector: app == 'reviews', ingress: [{action: Deny, source: {selector: app == 'web'}}]}\n";
    let both = format!("{text}{calico}");
    assert!(is_alone_if(&text, client, &format!("{client}{calico}")));
    assert!(is_alone_if(&both, "order: 7", "order: 1001"));
    assert!(is_alone_if(&both, "action: Deny", "action: Allow"));
    assert!(is_alone_if(&both, &one, calico), "another one of the same name");

    // What is removed one after the other leaves nothing behind that is not true any more.
    let settings = MeshSettings::default();
    let (mut compiler, mut mesh) = (Compiler::default(), Mesh::default());
    for (step, text) in [
        text.clone(),
        text.replace(&one, ""),
        text.replace(&one, "").replace("127.0.1.1", "127.0.1.2"),
        text.replace("127.0.1.1", "127.0.1.2"),
    ]
    .iter()
    .enumerate()
    {
        let resources = resources(text).0;
        let (whole, problems) = compile(&resources, &settings, &mesh);
        let compiled = compiler.compile(&resources, &settings, &mesh);
        assert_eq!((compiled.is_part, &compiled.problems), (step > 0, &problems));
        assert_eq!(differing(&compiled.mesh, &whole), None);
        mesh = compiled.mesh;
    }
}

fn steps() -> usize {
    std::env::var(MORE_STEPS).map_or(STEPS, |number| number.parse().expect("a number"))
}

#[test]
fn a_change_that_is_compiled_alone_gives_what_compiling_everything_gives() {
    let settings = MeshSettings::default();
    let [
        mut parts,
        mut changed,
        mut said,
        mut routed,
        mut served,
        mut at_gateways,
        mut policed,
        mut limited,
        mut ruled,
        mut outside,
    ] = [0; 10];
    let all = steps();
    for seed in 0..all.div_ceil(OF_WORLD) as u64 {
        let mut world = World::new(seed);
        let (mut compiler, mut mesh) = (Compiler::default(), Mesh::default());
        let mut problems_before = Vec::new();
        for step in 0..OF_WORLD {
            let resources = world.resources();
            let (whole, problems) = compile(&resources, &settings, &mesh);
            let compiled = compiler.compile(&resources, &settings, &mesh);
            let context = || {
                let documents: Vec<String> =
                    world.documents.iter().map(|(document, _)| document.to_string()).collect();
                format!("seed {seed}, step {step}, part {}:\n{}", compiled.is_part, documents.join("\n"))
            };
            assert_eq!(compiled.problems, problems, "{}", context());
            if let Some(differing) = differing(&compiled.mesh, &whole) {
                panic!("{differing}: {}", context());
            }
            if compiled.is_part {
                parts += 1;
                changed += usize::from(!compiled.mesh.workloads.is(&mesh.workloads));
                said += usize::from(compiled.problems != problems_before);
                routed += usize::from(!compiled.mesh.services.is(&mesh.services));
                served += usize::from(!compiled.mesh.services.keys().eq(mesh.services.keys()));
                at_gateways += usize::from(compiled.mesh.gateways != mesh.gateways);
                let policies = |mesh: &Mesh| -> Vec<_> {
                    mesh.workloads.values().map(|workload| workload.policy.authorization.clone()).collect()
                };
                policed += usize::from(policies(&compiled.mesh) != policies(&mesh));
                let limits = |mesh: &Mesh| -> Vec<_> {
                    mesh.workloads.values().map(|workload| workload.policy.limits.clone()).collect()
                };
                limited += usize::from(limits(&compiled.mesh) != limits(&mesh));
                let of_entries = |mesh: &Mesh| -> Vec<_> {
                    let all = mesh.endpoints.iter().filter(|(key, _)| key.host.ends_with(".outside"));
                    all.map(|(key, endpoints)| (key.clone(), Arc::clone(endpoints))).collect()
                };
                outside += usize::from(of_entries(&compiled.mesh) != of_entries(&mesh));
                let rules = |mesh: &Mesh| -> Vec<_> {
                    let all = mesh.workloads.values();
                    all.map(|workload| (workload.policy.network.clone(), workload.egress.clone())).collect()
                };
                ruled += usize::from(rules(&compiled.mesh) != rules(&mesh));
            }
            problems_before = problems;
            mesh = compiled.mesh;
            world.change();
        }
    }
    println!(
        "{parts} of {all} alone, in {changed} other workloads, in {said} other problems, in {routed} other routes, in {served} other \
         services, in {at_gateways} other gateways, in {policed} other authorization, in {limited} other limits, in {ruled} other \
         network rules, in {outside} other endpoints of ServiceEntrys"
    );
    let enough = parts * 4 > all && changed * 30 > all && said * 100 > all && routed * 30 > all;
    let enough =
        enough && served * 200 > all && policed * 100 > all && limited * 100 > all && ruled * 100 > all;
    let enough = enough && outside * 150 > all;
    assert!(
        enough,
        "{parts}, {changed}, {said}, {routed}, {served}, {at_gateways}, {policed}, {limited}, {ruled}, {outside} of {all}"
    );
}
