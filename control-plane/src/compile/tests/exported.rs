//! `exportTo`: whose clients a document is for.

use super::*;

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {selector: {app: other}, ports: [{name: http, port: 80}]}
---
"#;

const DB: &str = "db.shop.svc.cluster.local";

/// A `VirtualService` of `db` that sends everything to `other`.
fn to_other(namespace: &str, name: &str, export_to: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  hosts: [{DB}]\n  exportTo: {export_to}\n\
         \x20 http: [{{route: [{{destination: {{host: other.shop.svc.cluster.local}}}}]}}]\n---\n"
    )
}

/// Where clients in `client` are sent that call `db`.
fn sent_to(mesh: &Mesh, client: &str) -> String {
    let service = service(mesh, DB, 80, client);
    let rule = &service.routes.rules()[0];
    service.backends[rule.backends[0].backend].name.service.host.split('.').next().unwrap().to_owned()
}

#[test]
fn a_virtual_service_is_followed_by_those_whom_it_is_for() {
    for (export_to, expected) in [
        ("['*']", ["other", "other", "other"]),
        ("['.']", ["other", "db", "db"]),
        ("[a]", ["db", "other", "db"]),
        ("['.', a]", ["other", "other", "db"]),
    ] {
        let (mesh, problems) = compiled(&format!("{SERVICES}{}", to_other("shop", "one", export_to)));

        assert_eq!(problems, []);
        assert_eq!(["shop", "a", "b"].map(|client| sent_to(&mesh, client)), expected, "{export_to}");
    }
}

#[test]
fn two_documents_for_one_host_are_fine_unless_somebody_follows_both() {
    let apart = format!("{SERVICES}{}{}", to_other("shop", "one", "[a]"), to_other("shop", "two", "[b]"));
    assert_eq!(compiled(&apart).1, []);

    let closer = format!("{SERVICES}{}{}", to_other("shop", "one", "['*']"), to_other("shop", "two", "[b]"));
    assert_eq!(compiled(&closer).1, [], "clients in b follow the one that names them");

    for export_to in ["['*']", "[b, c]"] {
        let one = to_other("shop", "one", export_to);
        let both = format!("{SERVICES}{one}{}", to_other("shop", "two", export_to));
        let (_, problems) = compiled(&both);
        assert!(errors(&problems)[0].contains("already follows VirtualService shop/one"), "{problems:?}");
    }
    let some = format!("{SERVICES}{}{}", to_other("shop", "one", "[b]"), to_other("shop", "two", "[b, c]"));
    let (_, problems) = compiled(&some);
    assert_eq!(errors(&problems), [""; 0]);
    assert!(problems[0].message.contains("some of its clients already follow"), "{problems:?}");
}

#[test]
fn a_destination_rule_holds_for_those_whom_it_is_for() {
    let rule = |export_to: &str| {
        format!(
            "{SERVICES}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: db, namespace: shop}}\n\
             spec:\n  host: {DB}\n  exportTo: {export_to}\n\
             \x20 trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}\n"
        )
    };
    let limit =
        |mesh: &Mesh, client| service(mesh, DB, 80, client).backends[0].policy.connections.max_connections;
    for (export_to, expected) in [
        ("['*']", [Some(7), Some(7), Some(7)]),
        ("['.']", [Some(7), None, None]),
        ("[a]", [None, Some(7), None]),
    ] {
        let (mesh, problems) = compiled(&rule(export_to));

        assert_eq!(problems, []);
        assert_eq!(["shop", "a", "b"].map(|client| limit(&mesh, client)), expected, "{export_to}");
    }
}

#[test]
fn a_service_entry_is_known_to_those_whom_it_is_for() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: out, namespace: shop}\n\
         spec:\n  hosts: [api.example.com]\n  addresses: [240.0.0.1, 240.1.0.0/16]\n  resolution: STATIC\n\
         \x20 exportTo: ['.', a]\n\
         \x20 ports: [{number: 80, name: http}]\n  endpoints: [{address: 192.0.2.1}]\n";
    let (mesh, problems) = compiled(entry);

    assert_eq!(problems, []);
    let key = ServiceKey::new("api.example.com", 80);
    for authority in ["api.example.com", "240.0.0.1", "240.1.2.3"] {
        for client in ["shop", "a"] {
            assert_eq!(mesh.lookup(client, authority), Lookup::Service(key.clone()), "{authority}");
        }
        assert_eq!(mesh.lookup("b", authority), Lookup::None, "{authority}");
    }
}

#[test]
fn what_is_no_namespace_is_refused() {
    let (_, problems) = compiled(&format!("{SERVICES}{}", to_other("shop", "one", "[Shop]")));

    assert!(
        errors(&problems)[0].starts_with("spec.exportTo[0]: \"Shop\" is not a namespace"),
        "{problems:?}"
    );
}

#[test]
fn namespaces_that_see_the_same_share_it() {
    let (mesh, _) = compiled(&format!("{SERVICES}{}", to_other("shop", "one", "[a, b]")));

    let views = &mesh.services[&ServiceKey::new(DB, 80)].by_namespace;
    assert!(Arc::ptr_eq(&views["a"], &views["b"]));
}

#[test]
fn namespaces_share_what_they_see_wherever_they_stand_and_see_their_own_rules() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: other, namespace: c}\n\
                spec: {host: other.shop.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}\n---\n";
    let one = to_other("shop", "one", "[a, c, e, g]");
    let two = to_other("shop", "two", "[b, d]").replace("other.shop", "db.shop");
    let (mesh, problems) = compiled(&format!("{SERVICES}{one}{two}{rule}"));

    assert_eq!(problems, []);
    let views = &mesh.services[&ServiceKey::new(DB, 80)].by_namespace;
    assert!(Arc::ptr_eq(&views["a"], &views["e"]) && Arc::ptr_eq(&views["a"], &views["g"]));
    assert!(Arc::ptr_eq(&views["b"], &views["d"]));
    let limit = |namespace: &str| views[namespace].backends[0].policy.connections.max_connections;
    assert_eq!([limit("a"), limit("c"), limit("e")], [None, Some(7), None]);
}

#[test]
fn small_rules_count_as_much_as_is_made_of_them_at_each_port() {
    let ports: Vec<String> = (1..=500).map(|port| format!("{{name: http-{port}, port: {port}}}")).collect();
    let rules: Vec<String> = (0..500)
        .map(|rule| {
            format!("{{match: [{{uri: {{prefix: /{rule}}}}}], route: [{{destination: {{host: x{rule}}}}}]}}")
        })
        .collect();
    let text = |rules: &[String]| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v}}\n\
             spec: {{hosts: [s], http: [{}]}}\n",
            ports.join(", "),
            rules.join(", ")
        )
    };

    let (mesh, problems) = compiled(&text(&rules));
    let [error] = &errors(&problems)[..] else { panic!("{problems:?}") };
    assert!(error.contains("does not follow it: at 500 ports"), "{error}");
    assert_eq!(service(&mesh, "s.default.svc.cluster.local", 500, "default").backends.len(), 1);

    let (mesh, _) = compiled(&text(&rules[..5]));
    assert_eq!(service(&mesh, "s.default.svc.cluster.local", 500, "default").backends.len(), 5);
}

#[test]
fn a_document_that_would_cost_too_much_at_many_ports_for_many_namespaces_is_refused() {
    let ports =
        (1..=300).map(|port| format!("{{number: {port}, name: http-{port}}}")).collect::<Vec<_>>().join(", ");
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: wide, namespace: shop}}\n\
         spec: {{hosts: [wide.example.com], resolution: STATIC, ports: [{ports}], endpoints: [{{address: 192.0.2.1}}]}}\n---\n"
    );
    let namespaces = (0..10_000).map(|place| format!("ns-{place}")).collect::<Vec<_>>().join(", ");
    let route = to_other("shop", "one", &format!("[{namespaces}]")).replace(DB, "wide.example.com");
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: wide, namespace: shop}}\n\
         spec: {{host: wide.example.com, exportTo: [{namespaces}], trafficPolicy: {{tls: {{mode: SIMPLE}}}}}}\n---\n"
    );
    let views = |mesh: &Mesh| mesh.services[&ServiceKey::new("wide.example.com", 1)].clone();

    let (mesh, problems) = compiled(&format!("{SERVICES}{entry}{route}"));
    let told = errors(&problems).concat();
    assert!(told.starts_with("spec.hosts[0]: wide.example.com does not follow it: at 300 ports"), "{told}");
    assert!(views(&mesh).by_namespace.is_empty());

    // What a rule is to protect is not sent without it.
    let (mesh, problems) = compiled(&format!("{SERVICES}{entry}{rule}"));
    let told = errors(&problems).concat();
    assert!(told.starts_with("spec.host: cannot be used (at 300 ports"), "{told}");
    assert!(views(&mesh).for_namespace("ns-7").backends[0].broken.is_some());
    assert!(views(&mesh).by_namespace.len() <= 1);
}

/// Two `ServiceEntry`s of `shop`, each with two endpoints, exported to these.
fn vault(export_to: &str) -> String {
    let entry = |(name, host): (&str, &str)| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  hosts: [{host}]\n  exportTo: {export_to}\n\
             \x20 ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 81, name: tcp, protocol: TCP}}]\n\
             \x20 resolution: STATIC\n  endpoints: [{{address: 10.9.9.9}}, {{address: 10.9.9.8}}]\n---\n"
        )
    };
    [("vault", "vault.internal"), ("again", "vault.shop.svc.cluster.local")].map(entry).concat()
}

/// A `Service` of `guest`, and a route of each kind there that leads to the vault.
fn to_vault() -> String {
    let name = |kind: &str, version: &str| {
        format!(
            "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {}, namespace: guest}}\n",
            kind.to_lowercase()
        )
    };
    let ports = "[{name: http, port: 80}, {name: tcp, port: 81}]";
    [
        "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: guest}\nspec: {selector: {a: b}, ports: ".to_owned(),
        format!("{ports}}}\n---\n"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: second, namespace: guest}\nspec: {selector: {a: b}, ports: ".to_owned(),
        format!("{ports}}}\n"),
        name("VirtualService", "networking.istio.io/v1"),
        "spec:\n  hosts: [own]\n  http:\n  - {route: [{destination: {host: vault.internal, port: {number: 80}}}], \
         mirror: {host: vault.internal, port: {number: 80}}}\n\
         \x20 tcp: [{route: [{destination: {host: vault.internal, port: {number: 81}}}]}]\n".to_owned(),
        name("HTTPRoute", "gateway.networking.k8s.io/v1"),
        "spec: {parentRefs: [{group: '', kind: Service, name: second, port: 80}], \
         rules: [{backendRefs: [{name: vault, namespace: shop, port: 80}]}]}\n".to_owned(),
        name("TCPRoute", "gateway.networking.k8s.io/v1alpha2"),
        "spec: {parentRefs: [{group: '', kind: Service, name: second, port: 81}], \
         rules: [{backendRefs: [{name: vault, namespace: shop, port: 81}]}]}\n---\n".to_owned(),
    ]
    .concat()
}

#[test]
fn a_route_leads_to_no_host_that_is_not_exported_to_its_namespace() {
    for (export_to, fields) in [
        ("['*']", &[][..]),
        ("[., guest]", &[]),
        (
            "[.]",
            &[
                "spec.http[0].mirror.host",
                "spec.http[0].route[0].destination.host",
                "spec.tcp[0].route[0].destination.host",
                "spec.rules[0].backendRefs[0].name",
                "spec.rules[0].backendRefs[0].name",
            ],
        ),
    ] {
        let (mesh, problems) = compiled(&format!("{}{}", vault(export_to), to_vault()));

        let is_of_export = |problem: &&Problem| problem.message.contains("is not exported to guest");
        let mut told: Vec<_> = problems.iter().filter(is_of_export).map(|problem| &*problem.field).collect();
        let mut fields = fields.to_vec();
        told.sort_unstable();
        fields.sort_unstable();
        assert_eq!(told, fields, "{export_to}: {problems:?}");
        for (host, port) in [("own", 80), ("own", 81), ("second", 80), ("second", 81)] {
            let service = service(&mesh, &format!("{host}.guest.svc.cluster.local"), port, "guest");
            let leads = |backend: &selvedge_model::Backend| backend.name.service.host.starts_with("vault.");
            assert_eq!(service.backends.iter().any(leads), told.is_empty(), "{export_to} {host} {port}");
        }
    }
}

#[test]
fn whoever_does_not_know_of_a_host_is_not_told_which_ports_it_has() {
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: guest}\n\
                 spec:\n  hosts: [own]\n  http: [{route: [{destination: {host: vault.internal, port: {number: 8080}}}]}]\n---\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: guest}\n\
                   spec: {selector: {a: b}, ports: [{name: http, port: 80}]}\n---\n";
    let (_, problems) = compiled(&format!("{}{service}{route}", vault("[.]")));

    let told = errors(&problems);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("vault.internal is not exported to guest") && !told[0].contains("80"),
        "{told:?}"
    );
}

#[test]
fn another_route_leads_to_a_host_of_its_own_namespace_all_the_same() {
    let of = |namespace: &str, name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: db, namespace: shop}}], \
             rules: [{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{{name: vault, namespace: shop, port: 80}}]}}]}}\n---\n"
        )
    };
    let (mesh, _) = compiled(&format!("{SERVICES}{}{}{}", vault("[.]"), of("guest", "a"), of("shop", "b")));

    let backends = |client: &str| {
        let service = service(&mesh, DB, 80, client);
        let broken = service.backends.iter().map(|backend| backend.broken.is_some());
        broken.collect::<Vec<_>>()
    };
    assert_eq!(backends("shop"), [false]);
    assert_eq!(backends("guest"), [true]);
}

#[test]
fn clients_who_do_not_know_where_a_route_leads_are_told_of_unless_there_are_none() {
    let route = |host: &str, export_to: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\n\
             spec:\n  hosts: [{host}]\n  exportTo: {export_to}\n  http: [{{route: [{{destination: {{host: vault.internal, \
             port: {{number: 80}}}}}}]}}]\n---\n"
        )
    };
    for (host, export_to, is_told) in
        [(DB, "['*']", true), (DB, "[a]", true), (DB, "[.]", false), ("vault.internal", "['*']", false)]
    {
        let text = format!("{SERVICES}{}{}", vault("[.]"), route(host, export_to));
        let (_, problems) = compiled(&text);

        let fields: Vec<_> = problems.iter().map(|problem| &*problem.field).collect();
        let told: &[&str] = if is_told { &["spec.http[0].route[0].destination.host"] } else { &[] };
        assert_eq!(fields, told, "{host} {export_to}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.message.contains("exports it to shop alone")));
    }
}

/// A `ServiceEntry` of `namespace` for `api.example.com`, with an endpoint of its own.
fn api(namespace: &str, export_to: &str, last: u8) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api, namespace: {namespace}}}\n\
         spec:\n  hosts: [api.example.com]\n  exportTo: {export_to}\n  resolution: STATIC\n\
         \x20 ports: [{{number: 80, name: http}}]\n  endpoints: [{{address: 192.0.2.{last}}}]\n---\n"
    )
}

/// Where a client in `client` is sent that calls `api.example.com` at `port`: the last byte of the only address.
fn api_of(mesh: &Mesh, client: &str, port: u16) -> Option<u8> {
    let Lookup::Service(key) = mesh.lookup(client, &format!("api.example.com:{port}")) else { return None };
    assert_eq!(key.name(), "api.example.com");
    let [backend] = &mesh.services[&key].for_namespace(client).backends[..] else { panic!("{key}") };
    assert!(backend.broken.is_none(), "{client}: {backend:?}");
    let [endpoint] = &mesh.endpoints[&backend.name.service].list[..] else { panic!("{key}") };
    match endpoint.address.ip() {
        std::net::IpAddr::V4(ip) => Some(ip.octets()[3]),
        std::net::IpAddr::V6(_) => None,
    }
}

#[test]
fn what_namespaces_have_for_themselves_is_no_conflict() {
    let all = [api("a", "[.]", 1), api("b", "[b]", 2), api("c", "['.']", 3)];
    for (text, expected) in [
        (all.concat(), [Some(1), Some(2), Some(3), None]),
        (all.iter().rev().cloned().collect(), [Some(1), Some(2), Some(3), None]),
        ([&*all[1], &api("open", "['*']", 9)].concat(), [Some(9), Some(2), Some(9), Some(9)]),
        ([&*api("open", "['*']", 9), &*all[1]].concat(), [Some(9), Some(2), Some(9), Some(9)]),
        ([&*api("open", "[., a]", 9), &*all[1]].concat(), [Some(9), Some(2), None, None]),
        (
            [&*all[0], &api("a", "['*']", 9).replace("name: api", "name: more").replace("80", "81")].concat(),
            [Some(1), None, None, None],
        ),
    ] {
        let (mesh, problems) = compiled(&text);
        assert_eq!(problems, [], "{text}");
        assert_eq!(["a", "b", "c", "d"].map(|client| api_of(&mesh, client, 80)), expected, "{text}");
    }
    // What others have at another port is not its own.
    let text = [api("b", "[.]", 2), api("open", "['*']", 9).replace("80", "81")].concat();
    let (mesh, problems) = compiled(&text);
    assert_eq!(problems, []);
    assert_eq!(
        [("b", 80), ("b", 81), ("a", 81), ("a", 80)].map(|(client, port)| api_of(&mesh, client, port)),
        [Some(2), None, Some(9), None]
    );
}

#[test]
fn of_what_is_exported_one_namespace_has_it_all_the_same() {
    let (mesh, problems) =
        compiled(&[api("a", "['*']", 1), api("b", "['*']", 2), api("c", "[.]", 3)].concat());

    let [told] = errors(&problems).try_into().unwrap();
    assert!(told.starts_with("spec.hosts[0]: api.example.com belongs to ServiceEntry a/api"), "{told}");
    assert_eq!(["a", "b", "c"].map(|client| api_of(&mesh, client, 80)), [Some(1), Some(1), Some(3)]);
}

#[test]
fn routes_and_rules_mean_the_host_of_whoever_follows_them() {
    let entries = [api("a", "[.]", 1), api("b", "[.]", 2)].concat();
    let document = |kind: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: own, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    };
    let limit = |limit: u32, export_to: &str| {
        format!(
            "{{host: api.example.com, exportTo: {export_to}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {limit}}}}}}}}}"
        )
    };
    let to_itself =
        "{hosts: [api.example.com], http: [{timeout: 7s, route: [{destination: {host: api.example.com}}]}]}";
    let own = |mesh: &Mesh, client: &str| {
        let Lookup::Service(key) = mesh.lookup(client, "api.example.com") else { panic!("{client}") };
        let service = mesh.services[&key].for_namespace(client);
        let rule = &service.routes.rules()[0];
        (service.backends[0].policy.connections.max_connections, rule.timeout.is_some())
    };

    let text = entries.clone()
        + &document("DestinationRule", "a", &limit(4, "['*']"))
        + &document("DestinationRule", "b", &limit(5, "[.]"))
        + &document("VirtualService", "b", &to_itself.replace("hosts", "exportTo: [.], hosts"));
    let (mesh, problems) = compiled(&text);
    assert_eq!(problems, []);
    assert_eq!([own(&mesh, "a"), own(&mesh, "b")], [(Some(4), false), (Some(5), true)]);
    assert_eq!([api_of(&mesh, "a", 80), api_of(&mesh, "b", 80)], [Some(1), Some(2)]);

    // One for everybody leads each to his own.
    let (mesh, problems) = compiled(&(entries + &document("VirtualService", "istio-system", to_itself)));
    assert_eq!(errors(&problems), [""; 0]);
    assert_eq!([own(&mesh, "a"), own(&mesh, "b")], [(None, true), (None, true)]);
    assert_eq!([api_of(&mesh, "a", 80), api_of(&mesh, "b", 80)], [Some(1), Some(2)]);
}

#[test]
fn by_the_ownership_of_namespaces_a_route_is_for_the_host_of_its_own_alone() {
    let entries = [api("a", "[.]", 1), api("b", "[.]", 2), api("open", "['*']", 9)].concat();
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: NAMESPACE}\n\
                 spec: {hosts: [api.example.com], http: [{timeout: 7s, route: [{destination: {host: api.example.com}}]}]}\n---\n";
    let (resources, _) = resources(&[&*entries, &route.replace("NAMESPACE", "a")].concat());
    let settings = MeshSettings { route_ownership: RouteOwnership::Namespace, ..MeshSettings::default() };
    let (mesh, _) = compile(&resources, &settings, &Mesh::default());

    let follows = |client: &str| {
        let Lookup::Service(key) = mesh.lookup(client, "api.example.com") else { panic!("{client}") };
        mesh.services[&key].for_namespace(client).routes.rules()[0].timeout.is_some()
    };
    assert_eq!(["a", "b", "c"].map(follows), [true, false, false]);
}
