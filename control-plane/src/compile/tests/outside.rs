//! `ServiceEntry`s by name, wildcards, and TLS to servers outside the mesh.

use selvedge_model::UpstreamTls;

use super::*;

fn entry(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 443}}]\n{spec}---\n"
    )
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec:\n  \
         host: '{host}'\n  trafficPolicy: {policy}\n---\n"
    )
}

fn named(mesh: &Mesh, host: &str) -> Vec<(String, bool)> {
    let endpoints = &mesh.endpoints[&ServiceKey::new(host, 80)];
    endpoints.named.iter().map(|one| (one.address.to_string(), one.one_address)).collect()
}

fn tls(mesh: &Mesh, host: &str) -> Option<UpstreamTls> {
    service(mesh, host, 80, "default").backends[0].policy.tls.clone()
}

#[test]
fn hosts_are_their_own_endpoints_where_dns_is_asked() {
    let (mesh, problems) = compiled(&entry("  hosts: [api.example.com, b.example.com]\n  resolution: DNS\n"));

    assert_eq!(problems, []);
    assert_eq!(named(&mesh, "api.example.com"), [("api.example.com:443".to_owned(), false)]);
    assert_eq!(named(&mesh, "b.example.com"), [("b.example.com:443".to_owned(), false)]);
}

#[test]
fn a_wildcard_is_found_by_the_names_under_it_and_goes_where_they_say() {
    let wide = entry("  hosts: ['*.example.com']\n  resolution: NONE\n");
    let narrow = entry("  hosts: ['*.eu.example.com']\n").replace("name: e}", "name: f}");
    let (mesh, problems) = compiled(&(wide + &narrow));

    assert_eq!(problems, []);
    let found = |authority: &str| match mesh.lookup("default", authority) {
        Lookup::Service(key) => key.host.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(found("api.example.com"), "*.example.com");
    assert_eq!(found("a.eu.example.com:80"), "*.eu.example.com", "the longest wildcard");
    assert_eq!(found("example.com"), "None");
    assert_eq!(found("api.example.com:81"), "None");
    assert_eq!(mesh.endpoints[&ServiceKey::new("*.example.com", 80)].requested, Some(443));
}

#[test]
fn tls_is_begun_with_the_hosts_name_unless_it_says_otherwise() {
    let hosts =
        entry("  hosts: [api.example.com]\n  resolution: DNS\n  subjectAltNames: [alt.example.com]\n");
    let (mesh, problems) = compiled(&(hosts.clone() + &rule("api.example.com", "{tls: {mode: SIMPLE}}")));

    assert_eq!(problems, []);
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, "api.example.com") else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("api.example.com"));
    assert_eq!(origination.subject_alt_names, ["alt.example.com"]);

    let by_port = "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: x.example}}]}";
    let (mesh, _) = compiled(&(hosts.clone() + &rule("*.example.com", by_port)));
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, "api.example.com") else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("x.example"));

    let other_port = "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}}]}";
    let (mesh, _) = compiled(&(hosts + &rule("api.example.com", other_port)));
    assert_eq!(tls(&mesh, "api.example.com"), None, "what is said for a port replaces all blocks");
}

#[test]
fn tls_that_does_not_fit_the_endpoints_is_reported() {
    let told = |mode: &str| {
        let (_, problems) =
            compiled(&format!("{MESH}{}", rule("reviews", &format!("{{tls: {{mode: {mode}}}}}"))));
        let told = problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message));
        told.collect::<Vec<_>>().join("\n")
    };

    let mutual = told("ISTIO_MUTUAL");
    assert!(mutual.contains("127.0.0.2:9080") && mutual.contains("503"), "{mutual}");
    for mode in ["DISABLE", "SIMPLE"] {
        let replaced = told(mode);
        assert!(replaced.contains("127.0.0.1:9001") && replaced.contains("STRICT"), "{mode}: {replaced}");
    }
}

#[test]
fn a_workload_by_name_keeps_its_identity_and_its_listener() {
    let by_name = MESH
        .replace("127.0.0.1\n", "reviews-v1.test\n")
        .replace("\"127.0.0.1:4143\"", "\"sidecar.test:4143\"");
    let (mesh, problems) = compiled(&by_name);

    assert_eq!(problems, []);
    let endpoints = &mesh.endpoints[&ServiceKey::new(REVIEWS, 9080)];
    assert_eq!((endpoints.list.len(), endpoints.named.len()), (1, 1));
    let named = &endpoints.named[0];
    assert_eq!(
        (named.address.to_string(), named.dial.to_string()),
        ("reviews-v1.test:9001".into(), "sidecar.test:4143".into())
    );
    assert!(named.identity.as_ref().unwrap().as_str().ends_with("/sa/reviews"));
}

#[test]
fn whoever_calls_a_name_in_plaintext_knows_the_workloads_that_must_not_be_called_so() {
    let at = |text: &str, port: u16| {
        let (mesh, problems) = compiled(text);
        assert_eq!(problems, []);
        let found = mesh.endpoints.get(&ServiceKey::beside_sidecars(port));
        found.map(|found| {
            let named = found.named.iter().map(|one| (one.address.to_string(), one.dial.to_string()));
            let list = found.list.iter().map(|one| (one.address.to_string(), one.dial.to_string()));
            list.chain(named).collect::<Vec<_>>()
        })
    };
    let dns = |port: u16| {
        entry("  hosts: [api.example.com]\n  resolution: DNS\n").replace("443", &port.to_string())
    };
    let by_name = MESH.replace("127.0.0.1\n", "reviews-v1.test\n");
    // They go to the port there, whichever is called.
    let requested = entry("  hosts: ['*.example.com']\n  resolution: NONE\n").replace("443", "9001");
    let found = |address: &str| Some(vec![(address.to_owned(), "127.0.0.1:4143".to_owned())]);

    for outside in [dns(9001), requested] {
        assert_eq!(at(&format!("{MESH}{outside}"), 9001), found("127.0.0.1:9001"));
        assert_eq!(at(&format!("{by_name}{outside}"), 9001), found("reviews-v1.test:9001"));
    }
    assert_eq!(at(&format!("{MESH}{}", dns(5432)), 5432), None, "no workload has that port");
    assert_eq!(at(MESH, 9001), None, "nobody asks");
}

/// A route of all requests for `host` to `to`.
fn routed(host: &str, to: &str) -> String {
    virtual_service(
        "v",
        &format!("{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}"),
    )
}

/// The backend of the one rule that requests for `authority` follow.
fn leads(mesh: &Mesh, authority: &str) -> Option<String> {
    let Lookup::Service(key) = mesh.lookup("default", authority) else { return None };
    let service = mesh.services[&key].for_namespace("default");
    let backend = &service.backends[service.routes.rules()[0].backends[0].backend];
    Some(match &backend.broken {
        Some(why) => format!("broken: {why}"),
        None => backend.name.to_string(),
    })
}

#[test]
fn a_route_for_a_name_below_a_wildcard_is_followed() {
    let wild = entry("  hosts: ['*.example.com']\n  resolution: NONE\n");
    for host in ["api.example.com", "API.example.com.", "*.example.com"] {
        let (mesh, problems) = compiled(&format!("{MESH}{wild}{}", routed(host, "reviews")));

        assert_eq!(problems, [], "{host}");
        for authority in ["api.example.com", "API.example.com.", "api.example.com:80"] {
            assert_eq!(
                leads(&mesh, authority).as_deref(),
                Some("reviews.default.svc.cluster.local:9080"),
                "{host}"
            );
        }
        let other = leads(&mesh, "other.example.com").unwrap();
        assert_eq!(other.starts_with("reviews"), host.starts_with('*'), "{host}: {other}");
    }
    let (mesh, problems) = compiled(&format!("{MESH}{wild}{}", routed("*.eu.example.com", "reviews")));
    assert_eq!(problems, []);
    assert_eq!(leads(&mesh, "a.eu.example.com").as_deref(), Some("reviews.default.svc.cluster.local:9080"));
    assert_eq!(leads(&mesh, "a.us.example.com").as_deref(), Some("*.example.com:80"));
    assert_eq!(mesh.endpoints[&ServiceKey::new("*.eu.example.com", 80)].requested, Some(443));
}

#[test]
fn a_route_may_lead_to_a_name_below_a_wildcard() {
    for (endpoints, expected) in [
        ("  resolution: NONE\n", "api.example.com:443"),
        ("  resolution: DNS\n  endpoints: [{address: gateway.test}]\n", "gateway.test:443"),
    ] {
        let wild = entry(&format!("  hosts: ['*.example.com']\n{endpoints}"));
        let (mesh, problems) = compiled(&format!("{MESH}{wild}{}", routed("reviews", "api.example.com")));

        assert_eq!(problems, []);
        assert_eq!(leads(&mesh, "reviews:9080").as_deref(), Some("api.example.com:80"));
        assert_eq!(named(&mesh, "api.example.com")[0].0, expected);
    }
}

#[test]
fn a_rule_for_a_name_below_a_wildcard_is_that_names_alone() {
    let wild = entry("  hosts: ['*.example.com']\n  resolution: NONE\n");
    let (mesh, problems) = compiled(&(wild + &rule("api.example.com", "{tls: {mode: SIMPLE}}")));

    assert_eq!(problems, []);
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, "api.example.com") else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("api.example.com"));
    assert_eq!(
        mesh.lookup("default", "api.example.com"),
        Lookup::Service(ServiceKey::new("api.example.com", 80))
    );
    assert_eq!(tls(&mesh, "*.example.com"), None);
}

#[test]
fn a_name_below_a_private_wildcard_stays_private() {
    let wild = entry("  hosts: ['*.example.com']\n  resolution: NONE\n  exportTo: ['.']\n");
    let (mesh, _) = compiled(&format!("{MESH}{wild}{}", routed("api.example.com", "reviews")));

    assert!(leads(&mesh, "api.example.com").is_some());
    assert_eq!(mesh.lookup("shop", "api.example.com"), Lookup::None);
}

#[test]
fn entries_of_one_host_and_namespace_add_up_port_by_port() {
    let first = entry("  hosts: [api.example.com]\n  resolution: DNS\n");
    let second = first.replace("name: e}", "name: f}").replace("number: 80, ", "number: 81, ").replace(
        "resolution: DNS",
        "resolution: STATIC\n  location: MESH_INTERNAL\n  exportTo: ['.']\n  endpoints: [{address: 192.0.2.7}]",
    );
    let (mesh, problems) = compiled(&format!("{first}{second}"));

    assert_eq!(problems, []);
    assert_eq!(leads(&mesh, "api.example.com:80").as_deref(), Some("api.example.com:80"));
    assert_eq!(leads(&mesh, "api.example.com:81").as_deref(), Some("api.example.com:81"));
    assert_eq!(named(&mesh, "api.example.com")[0].0, "api.example.com:443");
    assert_eq!(endpoint_addresses(&mesh, "api.example.com", 81), ["192.0.2.7:443"]);
    assert_eq!(mesh.lookup("shop", "api.example.com:81"), Lookup::None, "each is for whom it says");
    assert!(matches!(mesh.lookup("shop", "api.example.com:80"), Lookup::Service(_)));

    let elsewhere = second.replace("name: f}", "name: f, namespace: shop}");
    let (mesh, problems) = compiled(&format!("{first}{elsewhere}"));
    assert_eq!(errors(&problems), [""; 0], "it is for its own clients alone");
    assert_eq!(leads(&mesh, "api.example.com:81"), None);
    let exported = elsewhere.replace("['.']", "['*']");
    let (_, problems) = compiled(&format!("{first}{exported}"));
    assert!(errors(&problems)[0].contains("belongs to ServiceEntry default/e"), "{problems:?}");

    let same = first.replace("name: e}", "name: f}");
    let (_, problems) = compiled(&format!("{first}{same}"));
    assert!(
        errors(&problems)[0].contains("port 80 of api.example.com is already defined by"),
        "{problems:?}"
    );
}

fn external(spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: ext}}\nspec: {{type: ExternalName, {spec}}}\n---\n"
    )
}

#[test]
fn a_service_may_stand_for_a_name_outside_the_mesh() {
    let ports = "externalName: api.example.com, ports: [{name: http, port: 80, targetPort: 8080}]";
    let text = format!("{MESH}{}{}", external(ports), routed("reviews", "ext"));
    let (mesh, problems) = compiled(&(text.clone() + &rule("ext", "{tls: {mode: SIMPLE}}")));

    assert_eq!(problems, []);
    assert_eq!(leads(&mesh, "reviews:9080").as_deref(), Some("ext.default.svc.cluster.local:80"));
    assert_eq!(leads(&mesh, "ext").as_deref(), Some("ext.default.svc.cluster.local:80"));
    let host = "ext.default.svc.cluster.local";
    assert_eq!(named(&mesh, host), [("api.example.com:8080".to_owned(), false)]);
    assert_eq!(mesh.endpoints[&ServiceKey::new(host, 80)].named[0].identity, None);
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, host) else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("api.example.com"), "as its servers know it");
}

#[test]
fn a_service_that_stands_for_a_name_may_leave_its_ports_to_routes() {
    let to = |port: &str| {
        let spec = format!("{{hosts: [reviews], http: [{{route: [{{destination: {{host: ext{port}}}}}]}}]}}");
        format!("{MESH}{}{}", external("externalName: api.example.com"), virtual_service("v", &spec))
    };
    let (mesh, problems) = compiled(&to(", port: {number: 8443}"));
    assert_eq!(problems, []);
    assert_eq!(leads(&mesh, "reviews:9080").as_deref(), Some("ext.default.svc.cluster.local:8443"));
    let key = ServiceKey::new("ext.default.svc.cluster.local", 8443);
    assert_eq!(mesh.endpoints[&key].named[0].address.to_string(), "api.example.com:8443");

    let (_, problems) = compiled(&to(""));
    let errors = errors(&problems);
    assert!(errors[0].contains("ExternalName and declares no ports: add spec.ports"), "{errors:?}");
}

#[test]
fn a_service_that_stands_for_another_has_its_workloads_and_their_mutual_tls() {
    let chain = external("externalName: REVIEWS.default.svc.cluster.local.")
        + &external(
            "externalName: ext.default.svc.cluster.local, ports: [{name: http, port: 80, targetPort: 9080}]",
        )
        .replace("name: ext}", "name: far, namespace: shop}");
    let (mesh, problems) = compiled(&format!("{MESH}{chain}"));

    assert_eq!(problems, []);
    for (host, port) in [("ext.default.svc.cluster.local", 9080), ("far.shop.svc.cluster.local", 80)] {
        let endpoints = &mesh.endpoints[&ServiceKey::new(host, port)];
        assert_eq!(endpoints.list, mesh.endpoints[&ServiceKey::new(REVIEWS, 9080)].list, "{host}");
    }

    let (_, problems) = compiled(&external("externalName: ext.default.svc.cluster.local"));
    assert!(errors(&problems)[0].contains("leads back to itself"), "{problems:?}");
    let (_, problems) = compiled(&external("ports: [{port: 80}]"));
    assert!(errors(&problems)[0].starts_with("spec.externalName: \"\" is"), "{problems:?}");
}

#[test]
fn whoever_calls_an_address_outside_is_told_of_so_many_services_of_a_namespace_and_no_more() {
    let entry = |namespace: &str, count: usize, more: &str| {
        let hosts: Vec<String> =
            (0..count).map(|place| format!("h{place:03}.{namespace}.example.com")).collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec: {{hosts: [{}], ports: [{{number: 443, name: tls, protocol: TLS}}], {more}}}\n---\n",
            hosts.join(", ")
        )
    };
    let by_name = entry("greedy", 502, "resolution: DNS") + &entry("other", 2, "resolution: DNS");
    let by_address = entry("fixed", 501, "resolution: STATIC, endpoints: [{address: 192.0.2.1}]");

    let (mesh, problems) = compiled(&(by_name + &by_address));

    let of = |callers: &[selvedge_model::snapshot::Declared], namespace: &str| {
        callers.iter().filter(|declared| &*declared.namespace == namespace).count()
    };
    let named = &mesh.named.callers[&443];
    assert_eq!((of(named, "greedy"), of(named, "other")), (500, 2));
    assert_eq!(of(&mesh.callers.get(&"192.0.2.1:443".parse().unwrap()).unwrap()[..], "fixed"), 500);
    let told: Vec<_> = problems.iter().map(|problem| (&*problem.field, &problem.message)).collect();
    assert_eq!(told.len(), 2, "once of each document: {told:?}");
    assert!(told.iter().all(|(_, message)| message.starts_with("is not found by who dials")), "{told:?}");
}
