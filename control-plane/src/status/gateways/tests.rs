use std::{path::Path, sync::Arc};

use selvedge_model::Mesh;

use super::*;
use crate::{
    compile::{Attached, MeshSettings, compile},
    resources::{DecodeOutcome, Resources, decode, gateway::GATEWAY_GROUP},
    status::by_document,
};

const NOW: &str = "2026-01-02T00:00:00Z";

/// A gateway with a route.
fn documents(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\n\
         spec: {{gatewayClassName: a, listeners: [{listeners}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{parentRefs: [{{name: edge, sectionName: a}}]}}\n"
    )
}

fn status(listeners: &str, run: &Run) -> Value {
    status_with(listeners, "", run)
}

fn status_with(listeners: &str, more: &str, run: &Run) -> Value {
    status_before(listeners, more, run, &Value::Null)
}

/// Where `existing` stood, with `more` documents.
fn status_before(listeners: &str, more: &str, run: &Run, existing: &Value) -> Value {
    let (mut resources, mut problems) = (Resources::default(), Vec::new());
    for decoded in decode(&(documents(listeners) + more), &Arc::from(Path::new("mesh.yaml")), "default") {
        problems.extend(decoded.problems);
        if let DecodeOutcome::Understood(resource) = decoded.outcome {
            resources.push(resource);
        }
    }
    problems.extend(compile(&resources, &MeshSettings::default(), &Mesh::default()).1);
    let (by_document, attached) = (by_document(&problems), Attached::new(&resources));
    let gateway = &resources.gateways[0];
    let facts = GatewayFacts {
        spec: &gateway.spec,
        generation: 3,
        problems: by_document.get(&gateway.name).map(Vec::as_slice).unwrap_or_default(),
        attached: attached.holders[&gateway.name].routes.as_ref().unwrap(),
        overlaps: &attached.holders[&gateway.name].overlaps,
        sets: 0,
        run,
    };
    facts.status(existing, NOW)
}

fn running() -> Run {
    let address = json!({"type": "IPAddress", "value": "192.0.2.1"});
    Run { hindrance: None, is_available: true, addresses: vec![address], ingress: Vec::new() }
}

/// Type, status and reason of each condition.
fn conditions(of: &Value) -> Vec<String> {
    let list = of["conditions"].as_array().unwrap().iter();
    list.map(|one| ["type", "status", "reason"].map(|field| one[field].as_str().unwrap()).join(" ")).collect()
}

const ALL_WELL: [&str; 4] = [
    "Accepted True Accepted",
    "Conflicted False NoConflicts",
    "Programmed True Programmed",
    "ResolvedRefs True ResolvedRefs",
];

#[test]
fn a_gateway_that_runs_is_accepted_and_programmed() {
    let status =
        status("{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}", &running());

    assert_eq!(conditions(&status), ["Accepted True Accepted", "Programmed True Programmed"]);
    assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));
    for (listener, routes) in status["listeners"].as_array().unwrap().iter().zip([1, 0]) {
        assert_eq!(conditions(listener), ALL_WELL);
        assert_eq!(listener["attachedRoutes"], routes);
        let kinds: Vec<_> =
            listener["supportedKinds"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
        assert_eq!(kinds, ["HTTPRoute", "GRPCRoute"]);
        assert_eq!(listener["conditions"][0]["observedGeneration"], 3);
    }
}

#[test]
fn a_listener_that_is_not_served_says_why_and_the_others_go_on() {
    let others = |listeners: &str| {
        let status = status(&format!("{{name: a, port: 80, protocol: HTTP}}, {listeners}"), &running());
        assert_eq!(conditions(&status["listeners"][0]), ALL_WELL);
        assert_eq!(conditions(&status), ["Accepted True ListenersNotValid", "Programmed True Programmed"]);
        let all = status["listeners"].as_array().unwrap().iter().skip(1);
        let all = all.map(|one| conditions(one).join(", ")).collect::<Vec<_>>();
        (all, status["conditions"][0]["message"].as_str().unwrap().to_owned())
    };

    let (conditions, message) = others("{name: b, port: 53, protocol: UDP}");
    assert_eq!(
        conditions,
        ["Accepted False UnsupportedProtocol, Conflicted False NoConflicts, Programmed False Invalid, \
         ResolvedRefs True ResolvedRefs"]
    );
    assert_eq!(message, "1 of 2 listeners are valid; not served: b (UnsupportedProtocol)");

    let (conditions, message) = others(
        "{name: b, port: 81, protocol: HTTP, hostname: x.org}, {name: c, port: 81, protocol: HTTP, hostname: x.org}",
    );
    let conflicted = "Accepted False Invalid, Conflicted True HostnameConflict, Programmed False Invalid, ResolvedRefs True ResolvedRefs";
    assert_eq!(conditions, [conflicted; 2]);
    assert_eq!(message, "1 of 3 listeners are valid; not served: b (HostnameConflict), c (HostnameConflict)");

    let tls = "{name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}, \
               {name: c, port: 443, protocol: TLS, tls: {mode: Passthrough}}";
    let (conditions, _) = others(tls);
    assert!(conditions.iter().all(|one| one.contains("Conflicted True ProtocolConflict")), "{conditions:?}");
}

#[test]
fn a_reference_that_no_grant_permits_is_told_from_one_that_leads_nowhere() {
    let reason = |certificate: &str| {
        let tls =
            format!("{{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{certificate}]}}}}");
        conditions(&status(&tls, &running())["listeners"][0]).remove(3)
    };

    assert_eq!(reason("{name: none}"), "ResolvedRefs False InvalidCertificateRef");
    assert_eq!(reason("{name: a, kind: Thing, group: x.org}"), "ResolvedRefs False InvalidCertificateRef");
    assert_eq!(reason("{name: a, namespace: other}"), "ResolvedRefs False RefNotPermitted");
}

#[test]
fn kinds_that_do_not_fit_are_told_and_the_others_are_supported() {
    let kinds = "allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}";
    let status = status(&format!("{{name: a, port: 80, protocol: HTTP, {kinds}}}"), &running());

    let listener = &status["listeners"][0];
    assert_eq!(conditions(listener)[3], "ResolvedRefs False InvalidRouteKinds");
    assert_eq!(listener["supportedKinds"], json!([{"group": GATEWAY_GROUP, "kind": "HTTPRoute"}]));
}

#[test]
fn what_hinders_a_gateway_is_its_reason() {
    let hindrance = |is_refusal, reason| Hindrance { is_refusal, reason, message: "why".to_owned() };
    let run = |hindrance| Run { hindrance: Some(hindrance), ..running() };
    for (run, expected) in [
        (
            run(hindrance(true, "InvalidParameters")),
            ["Accepted False InvalidParameters", "Programmed False Invalid"],
        ),
        (run(hindrance(false, "Pending")), ["Accepted True Accepted", "Programmed False Pending"]),
        (
            Run { addresses: Vec::new(), ..running() },
            ["Accepted True Accepted", "Programmed False AddressNotAssigned"],
        ),
        (Run { is_available: false, ..running() }, ["Accepted True Accepted", "Programmed False Pending"]),
    ] {
        let status = status("{name: a, port: 80, protocol: HTTP}", &run);
        assert_eq!(conditions(&status), expected);
        assert_eq!(conditions(&status["listeners"][0])[2], "Programmed False Pending");
    }
}

#[test]
fn a_condition_is_dated_when_its_status_changes_and_what_others_say_stays() {
    let theirs = json!({"type": "example.com/Seen", "status": "True"});
    let old =
        json!({"conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "then"}, theirs]});

    let class = class_status(2, None, &old, NOW);

    assert_eq!(class["conditions"][0]["lastTransitionTime"], "then");
    assert_eq!(class["conditions"][0]["observedGeneration"], 2);
    assert_eq!(class["supportedFeatures"][0], json!({"name": "BackendTLSPolicy"}));
    assert_eq!(class["conditions"][1], theirs);
}

#[test]
fn a_class_says_whether_the_version_of_the_gateway_api_is_supported() {
    for (version, expected) in [
        (Some("v1.0.0"), "SupportedVersion True SupportedVersion"),
        (Some("v1.4.1"), "SupportedVersion True SupportedVersion"),
        (Some("v1.6.0-dev"), "SupportedVersion True SupportedVersion"),
        (Some("v0.8.1"), "SupportedVersion False UnsupportedVersion"),
        (Some("v2.0.0"), "SupportedVersion False UnsupportedVersion"),
        (Some("v10.0.0"), "SupportedVersion False UnsupportedVersion"),
        (Some("latest"), "SupportedVersion False UnsupportedVersion"),
        (None, "SupportedVersion False UnsupportedVersion"),
    ] {
        let class = class_status(1, Some(version), &Value::Null, NOW);
        assert_eq!(conditions(&class), ["Accepted True Accepted", expected], "{version:?}");
    }
    assert_eq!(conditions(&class_status(1, None, &Value::Null, NOW)), ["Accepted True Accepted"]);
}

#[test]
fn a_certificate_for_backends_that_cannot_be_shown_is_said_of_the_gateway() {
    let listener =
        "{name: a, port: 80, protocol: HTTP}], tls: {backend: {clientCertificateRef: {REF}}}, addresses: [";
    for (reference, said) in [
        ("name: none", "ResolvedRefs False InvalidClientCertificateRef"),
        ("name: none, namespace: other", "ResolvedRefs False RefNotPermitted"),
        ("kind: Service, name: none", "ResolvedRefs False InvalidClientCertificateRef"),
    ] {
        let told = conditions(&status(&listener.replace("REF", reference), &running()));
        assert!(told.contains(&said.to_owned()), "{told:?}");
        assert!(told.contains(&"Accepted True Accepted".to_owned()), "the listeners go on: {told:?}");
    }
    let without = conditions(&status("{name: a, port: 80, protocol: HTTP}", &running()));
    assert!(!without.iter().any(|one| one.starts_with("ResolvedRefs")), "{without:?}");
}

#[test]
fn listeners_of_one_port_whose_tls_overlaps_say_so_and_no_others_do() {
    let secret = |name: &str, hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let pair = rcgen::generate_simple_self_signed(hosts).unwrap();
        let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n  tls.crt: |\n{}  \
             tls.key: |\n{}",
            indented(&pair.cert.pem()),
            indented(&pair.signing_key.serialize_pem())
        )
    };
    let secrets = secret("wild", &["*.example.com"])
        + &secret("a", &["a.example.com"])
        + &secret("b", &["b.example.org"]);
    let listener = |name: &str, port: u16, hostname: &str, secret: &str| {
        format!(
            "{{name: {name}, port: {port}, protocol: HTTPS, hostname: '{hostname}', tls: {{certificateRefs: [{{name: {secret}}}]}}}}"
        )
    };
    let overlapping = |listeners: &[String]| -> Vec<String> {
        let status = status_with(&listeners.join(", "), &secrets, &running());
        let of = |listener: &Value| {
            let mut all = conditions(listener).into_iter();
            let found = all.find(|one| one.starts_with("OverlappingTLSConfig"));
            found
                .map(|one| one.trim_start_matches("OverlappingTLSConfig True ").to_owned())
                .unwrap_or_default()
        };
        status["listeners"].as_array().unwrap().iter().map(of).collect()
    };
    let (hostnames, certificates) = ("OverlappingHostnames", "OverlappingCertificates");

    // That of the wildcard is for the other's name, too.
    let both = [listener("a", 443, "a.example.com", "a"), listener("w", 443, "*.example.com", "wild")];
    assert_eq!(overlapping(&both), [certificates; 2]);
    let other = [listener("a", 443, "a.example.com", "none"), listener("w", 443, "*.example.com", "wild")];
    assert_eq!(overlapping(&other), [hostnames; 2]);
    let any = [listener("a", 443, "b.example.org", "b"), listener("w", 443, "", "wild")];
    assert_eq!(overlapping(&any), [hostnames; 2]);
    let shared = [listener("a", 443, "a.example.com", "wild"), listener("c", 443, "c.example.com", "wild")];
    assert_eq!(overlapping(&shared), [certificates; 2]);

    let apart = [
        listener("a", 443, "a.example.com", "a"),
        listener("b", 443, "b.example.org", "b"),
        listener("w", 8443, "*.example.com", "wild"),
    ];
    assert_eq!(overlapping(&apart), [""; 3]);
    let plain = "{name: a, port: 80, protocol: HTTP, hostname: a.example.com}, \
                 {name: w, port: 80, protocol: HTTP, hostname: '*.example.com'}";
    assert_eq!(overlapping(&[plain.to_owned()]), [""; 2]);
}

#[test]
fn what_overlaps_no_longer_is_not_said_any_more() {
    let pair = "{name: a, port: 443, protocol: HTTPS, hostname: a.example, tls: {certificateRefs: [{name: x}]}}, \
                {name: w, port: 443, protocol: HTTPS, hostname: '*.example', tls: {certificateRefs: [{name: x}]}}";
    let before = status(pair, &running());
    let message = before["listeners"][0]["conditions"][4]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "its hostname is a.example, and that of Gateway shop/edge w *.example: a request for one that comes on a connection to the \
         other is answered 421"
    );

    let after = status_before(&pair.replace("*.example", "b.example"), "", &running(), &before);
    assert!(!after.to_string().contains("OverlappingTLSConfig"), "{after}");
}
