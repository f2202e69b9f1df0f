//! What is said of requests that clients outside of the mesh send to a gateway.

use std::path::Path;

use super::{explain, explain_directory, text};

/// A gateway with two listeners of HTTP and its workload, and the app behind it.
const SHOP: &str = "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge-1
  annotations: {config.selvedge.io/gateway: default/edge, config.selvedge.io/gateway-ports: '80=8080'}
spec: {address: 127.0.0.9, serviceAccount: edge, labels: {app: edge}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: selvedge
  listeners:
  - {name: shop, port: 80, protocol: HTTP, hostname: shop.example.com}
  - {name: all, port: 80, protocol: HTTP, hostname: '*.example.com'}
  - {name: raw, port: 9000, protocol: TCP}
  - {name: through, port: 8443, protocol: TLS, hostname: pass.example.com, tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
  - matches: [{path: {value: /a}, method: GET}, {path: {value: /b}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-edge, value: 'yes'}]}}]
    backendRefs: [{name: reviews, port: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1, annotations: {config.selvedge.io/inbound: '127.0.0.2:4143'}}
spec:
  address: 127.0.0.2
  labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}
  ports: {http: 9080}
  serviceAccount: reviews
";

/// Who may come to the gateway, and who to the app behind it.
const POLICIES: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: office}
spec:
  selector: {matchLabels: {app: edge}}
  rules: [{from: [{source: {ipBlocks: [198.51.100.0/24]}}], to: [{operation: {paths: [/a*]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: from-the-edge}
spec:
  selector: {matchLabels: {app: reviews}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/edge]}}]}]
";

/// Routes for connections.
const OPAQUE: &str = "---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: raw}
spec: {parentRefs: [{name: edge, sectionName: raw}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: through}
spec:
  parentRefs: [{name: edge, sectionName: through}]
  hostnames: [pass.example.com]
  rules: [{backendRefs: [{name: reviews, port: 9080}]}]
";

#[test]
fn a_request_from_outside_is_followed_to_the_app() {
    let line = ["--to", "http://shop.example.com/a/b", "--from-address", "198.51.100.7"];
    insta::assert_snapshot!(text(&[SHOP, POLICIES], &line));
}

#[test]
fn a_policy_of_the_gateway_refuses() {
    let line = ["--to", "http://shop.example.com:8080/a", "--from-address", "203.0.113.1"];
    insta::assert_snapshot!(text(&[SHOP, POLICIES], &line));
}

#[test]
fn a_claim_is_missed_for_what_the_gateway_makes_of_the_token() {
    let route = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: by-claim}\nspec:\n  \
                 hosts: [a.istio.test]\n  gateways: [istio]\n  http:\n  - match: [{headers: {'@request.auth.claims.groups': {exact: \
                 dev}}}]\n    route: [{destination: {host: reviews}}]\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\n\
                 metadata: {name: istio}\nspec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, \
                 protocol: HTTP}, hosts: [a.istio.test]}]}\n";
    let checked = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt}\nspec:\n  \
                   selector: {matchLabels: {app: edge}}\n  jwtRules: [{issuer: 'https://issuer.example', jwks: '{\"keys\": []}'}]\n";
    let why = |documents: &[&str]| {
        let found = explain(documents, &["--to", "http://a.istio.test/"]).unwrap();
        found.missed.first().expect("it misses the claim").why.clone()
    };

    let checked = why(&[SHOP, route, checked]);
    assert!(checked.contains("(the request has no token) is missing"), "{checked}");
    let unchecked = why(&[SHOP, route]);
    assert!(unchecked.contains("(no RequestAuthentication checks tokens here)"), "{unchecked}");
}

#[test]
fn the_rate_limits_of_the_gateway_itself_are_named() {
    let limit = "---\napiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {name: outside}\nspec:\n  \
                 targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]\n  \
                 limits: [{key: clientAddress, requests: 3, per: 1m}]\n";
    let found = explain(&[SHOP, limit], &["--to", "http://shop.example.com/a"]).unwrap();
    assert_eq!(
        found.gateway.unwrap().limits,
        ["RateLimit default/outside: 3 requests in 60s of each client address, 3 at once"]
    );
}

#[test]
fn what_a_gateway_answers_by_itself() {
    for (to, status, error, location) in [
        ("http://shop.example.com/old", 302, None, Some("http://shop.example.com/new")),
        ("http://shop.example.com/none", 404, Some("no-route"), None),
        ("http://other.example.com/", 404, Some("no-route"), None),
        ("http://shop.example.org/", 404, Some("no-route"), None),
    ] {
        let found = explain(&[SHOP], &["--to", to]).unwrap();
        let answer = found.answer.unwrap_or_else(|| panic!("{to}"));
        let said = (answer.status, answer.error, answer.location.as_deref());
        assert_eq!(said, (status, error, location), "{to}");
    }
}

#[test]
fn a_connection_that_no_listener_takes_is_refused() {
    for (to, why) in [
        ("https://shop.example.com:80/", "the client speaks TLS"),
        ("http://pass.example.com:8443/", "does not speak TLS"),
        ("https://other.example.com:8443/", "no listener of this port"),
        ("https://shop.example.com:444/", "does not listen for port 444; its ports: 80, 8443, 9000"),
    ] {
        let found = explain(&[SHOP, OPAQUE], &["--to", to]).unwrap();
        let refused = found.refused.unwrap_or_else(|| panic!("{to}"));
        assert!(!found.sent && refused.why.contains(why), "{to}: {}", refused.why);
    }
}

#[test]
fn the_match_that_holds_is_named_in_its_document() {
    let found = explain(&[SHOP], &["--to", "http://shop.example.com/b", "-X", "POST"]).unwrap();
    let matched = found.rule.unwrap().matched.unwrap();
    assert_eq!(matched.written.unwrap().field, "spec.rules[1].matches[1]");
}

#[test]
fn the_lessons_gateway_and_ingress_are_explained_before_anybody_runs_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/seed-yaml");
    // A plain clone has it not.
    if !directory.exists() {
        return;
    }
    let lesson = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap();
    let gateway = lesson("09-gateway-httproute.yaml");
    let found = text(&["---\n", &gateway], &["--to", "http://example.com/app1/x"]);
    insta::assert_snapshot!("the_lessons_gateway", found);
    let ingress = lesson("09-ingress.yaml");
    let found = text(&["---\n", &ingress], &["--to", "http://example.com/app2/x"]);
    insta::assert_snapshot!("the_lessons_ingress", found);
    let both = explain_directory(&directory, &["--to", "http://example.com/app1"]).unwrap_err();
    assert!(
        both.contains("several gateways serve example.com at port 80; name one with --gateway"),
        "{both}"
    );
    let one = ["--to", "http://example.com/app1", "--gateway", "default/my-gateway"];
    assert_eq!(explain_directory(&directory, &one).unwrap().gateway.unwrap().name, "default/my-gateway");
}

#[test]
fn a_gateway_is_named_or_found_and_otherwise_the_reader_is_told_which_there_are() {
    let nobody = explain(&[], &["--to", "http://shop.example.com/"]).unwrap_err();
    assert!(nobody.contains("no document declares a gateway"), "{nobody}");
    let wrong = explain(&[SHOP], &["--to", "http://a/", "--gateway", "default/none"]).unwrap_err();
    assert!(wrong.contains("there is no gateway default/none; there is default/edge (80 HTTP"), "{wrong}");
    let both =
        explain(&[SHOP], &["--to", "http://a/", "--from", "a/b", "--gateway", "default/edge"]).unwrap_err();
    assert!(both.contains("cannot be used with"), "{both}");
}

/// What is said of a connection from outside to `to`.
fn connect(documents: &[&str], to: &str) -> super::Explanation {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        connection: crate::explain::arguments::ConnectionArgs,
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mesh.yaml"), documents.concat()).unwrap();
    let directory = directory.path().to_str().unwrap();
    let line = <Line as clap::Parser>::parse_from(["a", "--config-dir", directory, "--to", to]);
    crate::explain::connection::to_gateway(&line.connection).unwrap()
}

#[test]
fn a_connection_is_followed_to_where_its_bytes_go() {
    let documents = [SHOP, OPAQUE];
    for to in ["shop.example.com:9000", "pass.example.com:8443"] {
        let found = connect(&documents, to);
        assert!(found.sent, "{to}: {found:?}");
        assert_eq!(found.backends[0].endpoints[0].workload.as_deref(), Some("default/reviews-v1"), "{to}");
    }
    let tls = connect(&documents, "other.example.com:8443").refused.unwrap();
    assert_eq!(tls.how, "TLS alert unrecognized_name");
    let http = connect(&documents, "shop.example.com:80");
    assert!(http.depends_on_the_request && !http.sent && http.rule.is_none());
}

/// A gateway that ends TLS for one host, with the certificate of `pair`, and asks its clients for one of `pair`'s.
fn with_tls(pair: &rcgen::CertifiedKey<rcgen::KeyPair>, asks: bool) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let (pem, key) = (indented(&pair.cert.pem()), indented(&pair.signing_key.serialize_pem()));
    let clients = "tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}}}, ";
    let clients = if asks { clients } else { "" };
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: tls}}\ntype: kubernetes.io/tls\n\
         stringData:\n  tls.crt: |\n{pem}  tls.key: |\n{key}\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients}}\ndata:\n  ca.crt: |\n{pem}\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec: {{gatewayClassName: selvedge, {clients}listeners: [\
         {{name: https, port: 443, protocol: HTTPS, hostname: '*.example.com', tls: {{certificateRefs: [{{name: tls}}]}}}},\
         {{name: other, port: 443, protocol: HTTPS, hostname: other.example.org, tls: {{certificateRefs: [{{name: none}}]}}}}]}}\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: shop}}\n\
         spec: {{parentRefs: [{{name: edge}}], rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{path: {{type: ReplaceFullPath, replaceFullPath: /x}}}}}}]}}]}}\n"
    )
}

#[test]
fn the_certificate_that_a_client_sees_is_named() {
    let pair = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    let documents = with_tls(&pair, false);
    let found = |line: &[&str]| explain(&[&documents], line).unwrap();
    let tls = |found: &super::Explanation| {
        let listener = found.gateway.as_ref().unwrap().listener.as_ref().unwrap();
        let tls = listener.tls.as_ref().unwrap();
        (tls.certificate.clone(), tls.remarks.clone())
    };

    let served = found(&["--to", "https://shop.example.com/"]);
    assert_eq!(tls(&served), (Some("default/tls".to_owned()), Vec::new()));
    assert_eq!(served.answer.unwrap().location.as_deref(), Some("https://shop.example.com/x"));
    let other = found(&["--to", "https://a.example.com/"]);
    assert!(tls(&other).1[0].contains("is not for that name"), "{:?}", tls(&other));
    let none = found(&["--to", "https://other.example.org/"]).refused.unwrap();
    assert_eq!((none.how, none.error), ("TLS alert handshake_failure", Some("certificate")));
    let misdirected =
        found(&["--to", "https://other.example.org/", "--sni", "shop.example.com"]).answer.unwrap();
    assert_eq!((misdirected.status, misdirected.error), (421, Some("misdirected")));
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let pair = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("client.pem");
    std::fs::write(&file, pair.cert.pem()).unwrap();
    let documents = with_tls(&pair, true);
    let line = ["--to", "https://shop.example.com/"];

    let refused = explain(&[&documents], &line).unwrap().refused.unwrap();
    assert!(refused.why.contains("--client-certificate"), "{}", refused.why);
    let own = ["--client-certificate", file.to_str().unwrap()];
    let shown = explain(&[&documents], &[&line[..], &own].concat()).unwrap();
    assert!(shown.refused.is_none(), "{:?}", shown.refused);
    let told = &shown.request.headers;
    assert!(
        told.iter()
            .any(|(name, value)| name == "x-forwarded-client-cert" && value.contains("DNS=shop.example.com"))
    );
    std::fs::write(&file, rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let foreign = explain(&[&documents], &[&line[..], &own].concat()).unwrap().refused.unwrap();
    assert_eq!(foreign.error, Some("tls"));
}
