//! What gateways serve: `Gateway`s with the routes of requests that are attached to them.

mod attached;
mod conflicts;
mod grants;
mod istio;
mod naive;
mod opaque;
mod policies;
mod secrets;
mod shared;

use selvedge_model::{
    Order, Rule,
    gateway::{Gateway, virtual_host},
};
use serde_json::json;

use super::*;

/// A gateway `shop/edge` with one workload, and three services.
const EDGE: &str = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge-1
  namespace: shop
  annotations: {config.selvedge.io/gateway: shop/edge, config.selvedge.io/gateway-ports: "80=8080"}
spec: {address: 127.0.0.1, serviceAccount: edge}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {selector: {app: far}, ports: [{name: http, port: 80}]}
---
"#;

/// One listener of HTTP that allows routes of every namespace.
const HTTP: &str = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";

fn gateway(listeners: &str) -> String {
    document("Gateway", "shop", "edge", &format!("{{gatewayClassName: any, listeners: [{listeners}]}}"))
}

fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// An `HTTPRoute` at `shop/edge`.
fn route(namespace: &str, name: &str, hostnames: &str, rules: &str) -> String {
    let parent = "parentRefs: [{name: edge, namespace: shop}]";
    document(
        "HTTPRoute",
        namespace,
        name,
        &format!("{{{parent}, hostnames: [{hostnames}], rules: [{rules}]}}"),
    )
}

fn to(service: &str) -> String {
    format!("{{backendRefs: [{{name: {service}, port: 80}}]}}")
}

fn edge(mesh: &Mesh) -> &Arc<Gateway> {
    &mesh.gateways[&"shop/edge-1".parse().unwrap()]
}

/// The rule of a GET of `path` at `host` that comes to `port`. `Err`: 404, as no listener, no virtual host or no rule is for
/// it.
fn rule<'m>(
    mesh: &'m Mesh,
    port: u16,
    host: &str,
    path: &str,
) -> Result<(&'m Service, &'m Rule), &'static str> {
    let gateway = edge(mesh);
    let port = gateway.ports.get(&port).ok_or("no port")?;
    let listener = &port.listeners[port.listener(Some(host)).ok_or("no listener")?];
    let host_place = listener.virtual_host(Some(host)).ok_or("no virtual host")?;
    let service = &gateway.virtual_hosts[&listener.virtual_hosts[host_place].service];
    let connection = &facts::Connection::new(facts::Source::UNKNOWN, port.port);
    let facts = facts::Request {
        connection,
        method: &Method::GET,
        scheme: "http",
        authority: host,
        path,
        query: "",
        headers: &HeaderMap::new(),
        token: None,
    };
    let found = service.routes.find(&facts).ok_or("no rule")?;
    Ok((service, &service.routes.rules()[found.rule]))
}

/// The first label of the host that the request is sent to, or the status that it gets.
fn sent_to(mesh: &Mesh, port: u16, host: &str, path: &str) -> String {
    match rule(mesh, port, host, path) {
        Err(_) => "404".to_owned(),
        Ok((_, rule)) if rule.backends.is_empty() => rule.unusable_status.to_string(),
        Ok((service, rule)) => {
            let backend = &service.backends[rule.backends[0].backend];
            match &backend.broken {
                Some(_) => rule.unusable_status.to_string(),
                None => backend.name.service.host.split('.').next().unwrap().to_owned(),
            }
        }
    }
}

fn mesh_of(text: &str) -> Mesh {
    let (mesh, problems) = compiled(&format!("{EDGE}{text}"));
    assert_eq!(problems, []);
    mesh
}

#[test]
fn a_gateway_serves_the_rules_of_its_routes_by_host_name() {
    let routes = route("shop", "web", "shop.example.com, '*.example.com'", &to("web"))
        + &route(
            "shop",
            "api",
            "api.example.com",
            "{matches: [{path: {value: /v1}}], backendRefs: [{name: api, port: 80}]}",
        );
    let mesh = mesh_of(&(gateway(HTTP) + &routes));

    assert_eq!(sent_to(&mesh, 80, "shop.example.com", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "a.b.example.com", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "api.example.com", "/v1/x"), "api");
    assert_eq!(sent_to(&mesh, 80, "api.example.com", "/v2"), "404", "the wildcard is not tried, too");
    assert_eq!(sent_to(&mesh, 80, "example.com", "/"), "404");
    assert_eq!(sent_to(&mesh, 80, "example.org", "/"), "404");
    let (service, rule) = rule(&mesh, 80, "shop.example.com", "/").unwrap();
    assert_eq!(service.key, virtual_host(&"shop.example.com".parse().unwrap(), "shop/edge/http", 80));
    assert_eq!(service.routes.order(), Order::MostSpecific);
    assert_eq!((rule.name.as_str(), rule.unusable_status), ("HTTPRoute shop/web rules[0]", 500));
    let port = &edge(&mesh).ports[&80];
    assert_eq!(&*port.listeners[0].name, "Gateway shop/edge http");
}

#[test]
fn the_workload_of_a_gateway_is_told_where_it_listens() {
    let mesh = mesh_of(&gateway(HTTP));

    let role = mesh.workloads[&"shop/edge-1".parse().unwrap()].gateway.clone().unwrap();
    assert_eq!((&*role.name, role.listens(80)), ("shop/edge", "127.0.0.1:8080".parse().unwrap()));
    assert!(edge(&mesh).virtual_hosts.is_empty());
    assert_eq!(edge(&mesh).ports[&80].listeners.len(), 1, "it answers 404");
}

#[test]
fn rules_of_several_routes_of_one_host_are_one_table() {
    let by_path = |path: &str, service: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {service}, port: 80}}]}}")
    };
    let routes = route("shop", "first", "a.example", &by_path("/", "web"))
        + &route("shop", "second", "a.example", &by_path("/api", "api"))
        + &route("shop", "third", "a.example, b.example", &by_path("/api", "web"));
    let (mesh, problems) = compiled(&format!("{EDGE}{}{routes}", gateway(HTTP)));
    let [told] = &problems[..] else { panic!("{problems:?}") };
    assert!(told.severity == Severity::Warning && told.field == "spec.rules[0]", "{told}");
    let words = "is never reached at Gateway shop/edge http for a.example: rules[0] of HTTPRoute shop/second";
    assert!(told.message.starts_with(words), "{told}");

    assert_eq!(sent_to(&mesh, 80, "a.example", "/api/x"), "api", "the longer prefix, and the older route");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "b.example", "/api"), "web");
}

#[test]
fn the_route_whose_own_host_name_is_closest_goes_before_every_more_specific_match() {
    let of_http = "path: {type: Exact, value: /calls.Greeter/Hello}";
    let of_grpc = "method: {service: calls.Greeter, method: Hello}";
    for (kind, specific) in [("HTTPRoute", of_http), ("GRPCRoute", of_grpc)] {
        for (listener, wider, closer) in [
            ("abc.example.com", "'*.example.com'", "abc.example.com"),
            ("abc.example.com", "", "'*.example.com'"),
            ("'*.example.com'", "'*.com'", "'*.example.com'"),
            ("'*.example.com'", "'*.com'", "'*.com', '*.example.com'"),
        ] {
            let listener = format!("{{name: http, port: 80, protocol: HTTP, hostname: {listener}}}");
            let route = |name: &str, hostnames: &str, rules: &str| {
                let spec =
                    format!("{{parentRefs: [{{name: edge}}], hostnames: [{hostnames}], rules: [{rules}]}}");
                document(kind, "shop", name, &spec)
            };
            let narrow = format!("{{matches: [{{{specific}}}], backendRefs: [{{name: web, port: 80}}]}}");
            let routes = route("older", wider, &format!("{}, {narrow}", to("web")))
                + &route("newer", closer, &to("api"));
            let mesh = mesh_of(&(gateway(&listener) + &routes));

            for path in ["/", "/calls.Greeter/Hello"] {
                assert_eq!(sent_to(&mesh, 80, "abc.example.com", path), "api", "{kind} {wider} {closer}");
            }
        }
    }
}

#[test]
fn the_closest_listener_has_a_host_and_no_other_is_tried() {
    let listener = |name: &str, hostname: &str| {
        format!("{{name: {name}, port: 80, protocol: HTTP, hostname: {hostname}}}")
    };
    let listeners =
        [listener("all", "''"), listener("wild", "'*.example.com'"), listener("one", "a.example.com")];
    let at = |section: &str, service: &str| {
        document(
            "HTTPRoute",
            "shop",
            section,
            &format!("{{parentRefs: [{{name: edge, sectionName: {section}}}], rules: [{}]}}", to(service)),
        )
    };
    let mesh = mesh_of(&(gateway(&listeners.join(", ")) + &at("all", "web") + &at("wild", "api")));

    assert_eq!(sent_to(&mesh, 80, "b.example.com", "/"), "api");
    assert_eq!(sent_to(&mesh, 80, "a.example.com", "/"), "404");
    assert_eq!(sent_to(&mesh, 80, "example.org", "/"), "web");
}

#[test]
fn a_gateway_follows_the_policies_of_destination_rules_and_not_the_routes_of_services() {
    let of_service = document(
        "HTTPRoute",
        "shop",
        "of-service",
        &format!("{{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{}]}}", to("api")),
    );
    let policy = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\n\
                  spec: {host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n---\n";
    let mesh =
        mesh_of(&(gateway(HTTP) + &route("shop", "web", "a.example", &to("web")) + &of_service + policy));

    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web");
    let (service, _) = rule(&mesh, 80, "a.example", "/").unwrap();
    assert_eq!(service.backends[0].policy.load_balancer, LoadBalancer::Random);
}

#[test]
fn http_routes_and_grpc_routes_do_not_share_a_host() {
    let grpc = document(
        "GRPCRoute",
        "shop",
        "calls",
        &format!(
            "{{parentRefs: [{{name: edge}}], hostnames: [a.example, b.example], rules: [{}]}}",
            to("api")
        ),
    );
    let text = format!("{EDGE}{}{}{grpc}", gateway(HTTP), route("shop", "web", "a.example", &to("web")));
    let (mesh, problems) = compiled(&text);

    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "b.example", "/"), "api");
    let [told] = errors(&problems).try_into().unwrap();
    assert!(
        told.starts_with("spec.parentRefs[0]: has no effect for a.example: HTTPRoute shop/web"),
        "{told}"
    );
}

#[test]
fn what_stays_the_same_stays_the_same_arc() {
    let before = gateway(HTTP) + &route("shop", "a", "a.example", &to("web"));
    let second =
        EDGE[..EDGE.find("---").unwrap()].replace("edge-1", "edge-2").replace("127.0.0.1", "127.0.0.2");
    let before = format!("{EDGE}{before}{second}---\n");
    let (mesh, problems) = compiled(&before);
    assert_eq!(problems, []);
    let (resources, _) = resources(&(before + &route("shop", "b", "b.example", &to("api"))));
    let (after, _) = compile(&resources, &MeshSettings::default(), &mesh);
    let (again, _) = compile(&resources, &MeshSettings::default(), &after);

    let host = |name: &str| virtual_host(&name.parse().unwrap(), "shop/edge/http", 80);
    let one = |mesh: &Mesh, name: &str| Arc::clone(&edge(mesh).virtual_hosts[&host(name)]);
    assert!(Arc::ptr_eq(&one(&mesh, "a.example"), &one(&after, "a.example")));
    assert!(!Arc::ptr_eq(edge(&mesh), edge(&after)));
    assert!(Arc::ptr_eq(edge(&after), edge(&again)));
    assert!(Arc::ptr_eq(edge(&after), &after.gateways[&"shop/edge-2".parse().unwrap()]), "replicas share");
}

#[test]
fn a_gateway_that_no_workload_is_and_a_workload_of_another_namespace_are_reported() {
    let alone =
        document("Gateway", "shop", "alone", &format!("{{gatewayClassName: any, listeners: [{HTTP}]}}"));
    let (_, problems) = compiled(&format!("{EDGE}{alone}"));
    let message = &problems[0].message;
    assert!(message.contains("annotation config.selvedge.io/gateway: shop/alone"), "{message}");

    let thief = EDGE[..EDGE.find("---").unwrap()].replace("namespace: shop", "namespace: other");
    let (mesh, problems) = compiled(&format!("{thief}---\n"));
    assert_eq!(mesh.workloads[&"other/edge-1".parse().unwrap()].gateway, None);
    assert!(mesh.gateways.is_empty());
    assert!(
        errors(&problems)[0].contains("only workloads of the namespaces shop and selvedge"),
        "{problems:?}"
    );

    let own = thief.replace("namespace: other", "namespace: selvedge");
    let (mesh, problems) = compiled(&format!("{own}---\n{}", gateway(HTTP)));
    assert_eq!(problems, []);
    assert_eq!(mesh.gateways[&"selvedge/edge-1".parse().unwrap()].ports.len(), 1);
}

#[test]
fn in_a_cluster_the_gateways_of_our_classes_alone_are_ours() {
    let class = |name: &str, controller: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name},
               "spec": {"controllerName": controller, "description": "x"}})
    };
    let gateway = |class: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
               "metadata": {"name": "edge", "namespace": "shop"},
               "spec": {"gatewayClassName": class, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}})
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "edge-1", "namespace": "shop",
                     "annotations": {"config.selvedge.io/gateway": "shop/edge"}},
                     "status": {"phase": "Running", "podIP": "10.0.0.1"}});
    let classes = [class("selvedge", "selvedge.io/gateway"), class("other", "example.com/x")];
    for (named, served) in [("selvedge", 1), ("other", 0), ("none", 0)] {
        let objects = [&classes[..], &[gateway(named), pod.clone()]].concat();
        let (mesh, problems) = cluster::cluster(&objects);
        assert_eq!(edge(&mesh).ports.len(), served, "{named}");
        assert_eq!(problems, [], "{named}");
        let role = mesh.workloads[&"shop/edge-1".parse().unwrap()].gateway.clone().unwrap();
        assert_eq!(role.address, None);
    }
}

#[test]
fn of_a_class_and_a_gateway_what_is_not_acted_on_is_reported() {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: selvedge}\n\
                 spec: {controllerName: CONTROLLER, parametersRef: {name: a}}\n---\n";
    let spec = "{gatewayClassName: any, infrastructure: {labels: {a: b}}, addresses: [{value: 10.0.0.1}], listeners: [{name: a, port: 80, \
                protocol: HTTP, tls: {options: {a: b}}}, {name: b, port: 81, protocol: UDP, hostnam: x}]}";
    let text = format!("{EDGE}{}", document("Gateway", "shop", "edge", spec));
    let (_, problems) = compiled(&(text + &class.replace("CONTROLLER", "selvedge.io/gateway")));

    let told: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = [
        "spec.infrastructure",
        "spec.addresses",
        "spec.listeners[0].tls.options[a]",
        "spec.listeners[1].hostnam",
        "spec.parametersRef",
        "spec.listeners[1].protocol",
    ];
    assert_eq!(told, expected);
    assert!(problems[3].message.contains("did you mean hostname?"), "{}", problems[3]);
    assert_eq!(compiled(&class.replace("CONTROLLER", "example.com/x")).1, [], "it is another's");
}

#[test]
fn a_meshed_workload_is_no_gateway() {
    let meshed = EDGE.replace("spec: {address", "spec: {labels: {security.istio.io/tlsMode: istio}, address");
    let (_, problems) = compiled(&meshed);

    assert!(errors(&problems)[0].contains("remove the label security.istio.io/tlsMode"), "{problems:?}");
}

#[test]
fn the_lessons_gateway_is_served_but_for_what_is_reported() {
    let lesson = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: Gateway\nmetadata: {name: my-gateway}\n\
        spec:\n  gatewayClassName: nginx\n  listeners:\n  - {name: http, protocol: HTTP, port: 80}\n---\n\
        apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {name: my-route}\n\
        spec:\n  parentRefs: [{name: my-gateway}]\n  hostnames: [example.com]\n  rules:\n  - matches: [{path: {type: PathPrefix, value: /app1}}]\n    \
        backendRefs: [{name: app1-service, port: 80}]\n";
    let (_, problems) = compiled(lesson);

    let told: Vec<_> = problems.iter().map(|problem| (problem.field.as_str(), problem.severity)).collect();
    let backend = "spec.rules[0].backendRefs[0].name";
    assert_eq!(told, [("", Severity::Warning), (backend, Severity::Error)], "{problems:?}");
    assert!(problems[1].message.contains("nothing is called app1-service.default.svc"), "{problems:?}");
}
