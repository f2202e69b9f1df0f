//! What Istio's `Gateway`, and the gateways that a `VirtualService` names, mean alone.

use selvedge_model::gateway::Hostname;

use super::{
    istio_gateway::{AskedClients, HostsOf, ServerProtocol, ServerTls},
    virtual_service::GatewayRef,
    *,
};

fn gateway(server: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - {server}\n"
    ))
}

fn server(decoded: &Decoded) -> &istio_gateway::GatewayServer {
    match understood(decoded) {
        Resource::IstioGateway(document) => &document.spec.servers[0],
        other => panic!("{other:?}"),
    }
}

fn https(tls: &str) -> Decoded {
    gateway(&format!("{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {{{tls}}}}}"))
}

#[test]
fn a_server_is_a_port_for_hosts_of_namespaces() {
    let decoded = gateway(
        "{name: web, port: {number: 80, name: http, protocol: http2}, hosts: ['*', shop/a.example.com, ./*.example.com, '*/b.example.com']}",
    );

    assert_eq!(decoded.problems, []);
    let server = server(&decoded);
    assert_eq!((server.port, server.port_name.as_str(), server.protocol), (80, "http", ServerProtocol::Http));
    let hosts: Vec<_> =
        server.hosts.iter().map(|host| (host.of.clone(), host.hostname.to_string())).collect();
    let host = |of, name: &str| (of, name.to_owned());
    assert_eq!(
        hosts,
        [
            host(HostsOf::Everywhere, "*"),
            host(HostsOf::Namespace("shop".to_owned()), "a.example.com"),
            host(HostsOf::Own, "*.example.com"),
            host(HostsOf::Everywhere, "b.example.com"),
        ]
    );
    assert_eq!(server.hosts[0].hostname, Hostname::Any);
    let is_for = |place: usize, namespace| server.hosts[place].is_for(namespace, "default");
    assert!(
        is_for(0, "web")
            && is_for(1, "shop")
            && !is_for(1, "web")
            && is_for(2, "default")
            && !is_for(2, "shop")
    );
    assert_eq!(understood(&decoded).name().to_string(), "Gateway.networking.istio.io default/edge");
}

#[test]
fn each_protocol_is_one_that_is_served() {
    let protocol = |word: &str, tls: &str| {
        let decoded =
            gateway(&format!("{{port: {{number: 1, name: a, protocol: {word}}}, hosts: [a.b]{tls}}}"));
        server(&decoded).protocol
    };
    for word in ["HTTP", "HTTP2", "GRPC", "GRPC-WEB"] {
        assert_eq!(protocol(word, ""), ServerProtocol::Http, "{word}");
    }
    for word in ["TCP", "MONGO", "MYSQL", "REDIS"] {
        assert_eq!(protocol(word, ""), ServerProtocol::Tcp, "{word}");
    }
    let simple = ", tls: {mode: SIMPLE, credentialName: a}";
    assert_eq!(protocol("HTTPS", simple), ServerProtocol::Https);
    assert_eq!(protocol("TLS", simple), ServerProtocol::Tls);
}

#[test]
fn each_mode_of_tls_says_who_shows_a_certificate() {
    let terminate =
        |clients, tls12| Some(ServerTls::Terminate { secrets: vec!["web".to_owned()], clients, tls12 });
    let asked = |optional| Some(AskedClients { optional, ..AskedClients::default() });
    let of_partner = Some(AskedClients {
        subject_alt_names: vec!["partner.example".to_owned()],
        authorities: Some("partners".to_owned()),
        ..AskedClients::default()
    });
    for (tls, expected) in [
        ("mode: SIMPLE, credentialName: web", terminate(None, true)),
        ("mode: SIMPLE, credentialNames: [web]", terminate(None, true)),
        ("mode: SIMPLE, credentialName: web, minProtocolVersion: TLSV1_2", terminate(None, true)),
        ("mode: SIMPLE, credentialName: web, minProtocolVersion: TLSV1_3", terminate(None, false)),
        ("mode: MUTUAL, credentialName: web", terminate(asked(false), true)),
        ("mode: OPTIONAL_MUTUAL, credentialName: web", terminate(asked(true), true)),
        (
            "mode: MUTUAL, credentialName: web, subjectAltNames: [partner.example], caCertCredentialName: partners",
            terminate(of_partner, true),
        ),
        ("mode: PASSTHROUGH", Some(ServerTls::Passthrough)),
        ("maxProtocolVersion: TLSV1_3", Some(ServerTls::Passthrough)),
    ] {
        let decoded = https(tls);
        assert_eq!(server(&decoded).tls, expected, "{tls}");
        assert_eq!(decoded.problems, [], "{tls}");
    }
}

#[test]
fn what_cannot_be_checked_shuts_a_server_and_is_reported() {
    for (tls, field) in [
        ("mode: AUTO_PASSTHROUGH", "mode"),
        ("mode: ISTIO_MUTUAL", "mode"),
        ("mode: SIMPLE, serverCertificate: /a.pem, privateKey: /b.pem", "serverCertificate"),
        ("mode: SIMPLE, credentialName: a, privateKey: /b.pem", "privateKey"),
        ("mode: MUTUAL, credentialName: a, caCertificates: /c.pem", "caCertificates"),
        ("mode: MUTUAL, credentialName: a, caCrl: /c.pem", "caCrl"),
        ("mode: SIMPLE, tlsCertificates: [{privateKey: /a}]", "tlsCertificates"),
        ("mode: MUTUAL, credentialName: a, verifyCertificateSpki: [x]", "verifyCertificateSpki"),
        ("mode: MUTUAL, credentialName: a, verifyCertificateHash: [x]", "verifyCertificateHash"),
    ] {
        let decoded = https(tls);
        let shut = Some(ServerTls::Terminate { secrets: Vec::new(), clients: None, tls12: false });
        assert_eq!(server(&decoded).tls, shut, "{tls}");
        let [(at, _, Severity::Error)] = told(&decoded)[..] else { panic!("{tls}: {:?}", decoded.problems) };
        assert_eq!(at, format!("spec.servers[0].tls.{field}"));
    }
}

#[test]
fn what_a_server_says_and_nobody_acts_on_is_reported() {
    let http = |fields: &str| {
        let port = "port: {number: 80, name: http, protocol: HTTP}";
        gateway(&format!("{{{port}, hosts: ['*'], {fields}}}"))
    };
    for (decoded, field) in [
        (http("bind: 10.0.0.1"), "bind"),
        (http("defaultEndpoint: '127.0.0.1:1'"), "defaultEndpoint"),
        (https("mode: SIMPLE, credentialName: a, cipherSuites: [x]"), "tls.cipherSuites"),
        (https("mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_0"), "tls.minProtocolVersion"),
        (https("mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_2"), "tls.maxProtocolVersion"),
    ] {
        let [(at, _, Severity::NotActedOn)] = told(&decoded)[..] else { panic!("{field}: {decoded:?}") };
        assert_eq!(at, format!("spec.servers[0].{field}"));
    }
    assert_eq!(http("bind: 0.0.0.0").problems, []);
    let redirect = http("tls: {httpsRedirect: true}");
    assert!(redirect.problems.is_empty() && server(&redirect).https_redirect);
    let useless = https("mode: SIMPLE, credentialName: a, httpsRedirect: true, subjectAltNames: [a]");
    let fields: Vec<_> = told(&useless).into_iter().map(|(field, _, severity)| (field, severity)).collect();
    let tls = "spec.servers[0].tls";
    let [redirect, names] = [format!("{tls}.httpsRedirect"), format!("{tls}.subjectAltNames")];
    assert_eq!(fields.len(), 2);
    assert!(
        fields.contains(&(&*redirect, Severity::Warning)) && fields.contains(&(&*names, Severity::Warning))
    );
    assert!(!server(&useless).https_redirect);
}

#[test]
fn what_istio_refuses_of_a_gateway_is_refused() {
    let http = "number: 80, name: http, protocol: HTTP";
    for (server, field) in [
        ("{port: {number: 0, name: http, protocol: HTTP}, hosts: ['*']}".to_owned(), "port.number"),
        ("{port: {number: 65536, name: http, protocol: HTTP}, hosts: ['*']}".to_owned(), "port.number"),
        ("{port: {number: 80, protocol: HTTP}, hosts: ['*']}".to_owned(), "port.name"),
        ("{port: {number: 80, name: a}, hosts: ['*']}".to_owned(), "port.protocol"),
        ("{port: {number: 80, name: a, protocol: UDP}, hosts: ['*']}".to_owned(), "port.protocol"),
        (format!("{{port: {{{http}}}, hosts: []}}"), "hosts"),
        (format!("{{port: {{{http}}}}}"), "hosts"),
        (format!("{{port: {{{http}}}, hosts: ['*', '']}}"), "hosts[1]"),
        (format!("{{port: {{{http}}}, hosts: ['*a.b']}}"), "hosts[0]"),
        (format!("{{port: {{{http}}}, hosts: ['a/']}}"), "hosts[0]"),
        (format!("{{port: {{{http}}}, hosts: ['a_/b.c']}}"), "hosts[0]"),
        (format!("{{port: {{{http}}}, hosts: ['a.b'], bind: here}}"), "bind"),
        (format!("{{port: {{{http}}}, hosts: ['a.b'], bind: 'unix:///a'}}"), "bind"),
        (format!("{{port: {{{http}, targetPort: 8080}}, hosts: ['a.b']}}"), "port.targetPort"),
        (format!("{{port: {{{http}}}, hosts: ['a.b'], tls: {{mode: SIMPLE, credentialName: a}}}}"), "tls"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*']}".to_owned(), "tls"),
        ("{port: {number: 443, name: a, protocol: TLS}, hosts: ['*']}".to_owned(), "tls"),
        ("{port: {number: 443, name: a, protocol: TLS}, hosts: ['*'], tls: {mode: ODD}}".to_owned(), "tls.mode"),
        (
            "{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}}".to_owned(),
            "tls.credentialName",
        ),
        (
            "{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {credentialName: a}}".to_owned(),
            "tls.mode",
        ),
        (
            "{port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: a/b}}"
                .to_owned(),
            "tls.credentialName",
        ),
    ] {
        let decoded = gateway(&server);
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{server}");
        assert_eq!(decoded.problems[0].field, format!("spec.servers[0].{field}"), "{server}");
    }
    let one = format!("{{port: {{{http}}}, hosts: ['*']}}");
    let twice = gateway(&format!("{one}\n  - {one}"));
    assert_eq!(twice.problems[0].field, "spec.servers[1].port.name");
    let none = only(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {selector: {a: b}}\n",
    );
    assert_eq!(none.problems[0].field, "spec.servers");
}

#[test]
fn gateways_are_named_in_each_way_that_istio_knows() {
    let followed = |names: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a, namespace: shop}}\nspec: {{hosts: [a], gateways: {names}, http: [{{route: [{{destination: {{host: a}}}}]}}]}}\n"
        );
        let decoded = only(&text);
        match &decoded.outcome {
            DecodeOutcome::Understood(Resource::VirtualService(document)) => {
                Ok(document.spec.followed_by.clone())
            }
            _ => Err(decoded.problems[0].field.clone()),
        }
    };
    let edge = |index, namespace: &str| GatewayRef {
        index,
        namespace: namespace.to_owned(),
        name: "edge".to_owned(),
    };

    let named = followed("[edge, ./edge, istio-system/edge, mesh, edge.other.svc.cluster.local]").unwrap();
    assert!(named.sidecars);
    assert_eq!(named.gateways, [edge(0, "shop"), edge(1, "shop"), edge(2, "istio-system"), edge(4, "other")]);
    assert!(!followed("[edge]").unwrap().sidecars);
    let unsaid = followed("[]").unwrap();
    assert!(unsaid.sidecars && unsaid.gateways.is_empty());
    for wrong in ["['']", "[a/]", "[/a]", "[a/b/c]", "['*']"] {
        assert_eq!(followed(wrong), Err("spec.gateways[0]".to_owned()), "{wrong}");
    }
}
