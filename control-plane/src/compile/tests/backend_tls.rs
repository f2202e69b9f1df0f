//! `BackendTLSPolicy`: which services it is for, which of several counts, and what becomes of one that cannot be used.

use selvedge_model::{Layer, Trusted};

use super::*;
use crate::problem::{Fault, PolicyFault, Severity};

/// A service with a port for HTTP and one for TLS.
const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.9.0.1, ports: [{name: http, port: 80}, {name: other, port: 8080}, {name: https, port: 443}]}
---
";

fn authority(name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let pem: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n{pem}---\n"
    )
}

fn policy(name: &str, section: &str, host: &str, authorities: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: shop{section}}}]\n  \
         validation: {{hostname: {host}, {authorities}}}\n---\n"
    )
}

const GIVEN: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
const SYSTEM: &str = "wellKnownCACertificates: System";

fn asked(mesh: &Mesh, port: u16) -> Option<selvedge_model::TlsOrigination> {
    match &service(mesh, "shop.default.svc.cluster.local", port, "default").backends[0].policy.tls {
        Some(UpstreamTls::Originate(origination)) => Some(origination.clone()),
        _ => None,
    }
}

fn sni(mesh: &Mesh, port: u16) -> Option<String> {
    asked(mesh, port).and_then(|asked| asked.sni)
}

fn refused(mesh: &Mesh, port: u16) -> Option<String> {
    service(mesh, "shop.default.svc.cluster.local", port, "default").backends[0].broken.clone()
}

#[test]
fn a_policy_says_which_name_is_sent_and_whom_to_believe() {
    let names =
        "subjectAltNames: [{type: Hostname, hostname: '*.shop.test'}, {type: URI, uri: 'spiffe://a/b'}], ";
    let text =
        [SERVICE, &authority("ca"), &policy("tls", "", "Shop.test", &(names.to_owned() + GIVEN))].concat();
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    let asked = asked(&mesh, 80).unwrap();
    assert_eq!(asked.sni.as_deref(), Some("shop.test"));
    assert_eq!(asked.subject_alt_names, ["*.shop.test", "spiffe://a/b"]);
    assert_eq!(asked.policy.as_deref(), Some("BackendTLSPolicy default/tls"));
    assert!(matches!(asked.trusted, Trusted::Given(given) if given.certificates().len() == 1));

    let (mesh, problems) = compiled(&(SERVICE.to_owned() + &policy("tls", "", "shop.test", SYSTEM)));
    assert_eq!(problems, []);
    assert_eq!(super::backend_tls::asked(&mesh, 8080).unwrap().trusted, Trusted::System);
}

#[test]
fn one_for_a_port_counts_before_one_for_the_service_and_of_two_for_the_same_the_first() {
    let text = [
        SERVICE,
        &policy("all", "", "all.test", SYSTEM),
        &policy("port", ", sectionName: other", "port.test", SYSTEM),
        &policy("late", ", sectionName: other", "late.test", SYSTEM),
        &policy("later", "", "later.test", SYSTEM),
    ];
    let (mesh, problems) = compiled(&text.concat());

    assert_eq!(
        (sni(&mesh, 80).as_deref(), sni(&mesh, 8080).as_deref()),
        (Some("all.test"), Some("port.test"))
    );
    let losers: Vec<_> =
        problems.iter().map(|one| (&*one.document.as_ref().unwrap().name, one.fault)).collect();
    assert_eq!(losers, [("late", Fault::Overruled), ("later", Fault::Overruled)], "{problems:#?}");
    assert!(problems[0].message.contains("BackendTLSPolicy default/port (mesh.yaml:"), "{problems:#?}");
}

#[test]
fn what_a_policy_is_for_must_be_there() {
    for (change, told) in [
        (("name: shop", "name: shopp"), "there is no Service default/shopp"),
        (("kind: Service, name", "kind: Deployment, name"), "Deployment cannot be a target"),
        (("name: shop}", "name: shop, sectionName: grpc}"), "has no port called \"grpc\""),
    ] {
        let policy = policy("tls", "", "shop.test", SYSTEM).replacen(change.0, change.1, 1);
        let (mesh, problems) = compiled(&(SERVICE.to_owned() + &policy));

        assert_eq!(asked(&mesh, 80), None);
        let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
        assert_eq!(
            (problem.field.as_str(), problem.fault),
            ("spec.targetRefs[0]", Fault::Policy(PolicyFault::NoTarget))
        );
        assert!(problem.message.contains(told), "{problem}");
    }
}

#[test]
fn without_an_authority_that_can_be_used_nothing_is_sent() {
    let broken =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {ca.crt: nonsense}\n---\n";
    for (objects, reference, is_kind) in [
        ("", GIVEN, false),
        (broken, GIVEN, false),
        ("", "caCertificateRefs: [{group: '', kind: Pod, name: ca}]", true),
    ] {
        let (mesh, problems) =
            compiled(&[SERVICE, objects, &policy("tls", "", "shop.test", reference)].concat());

        assert!(refused(&mesh, 80).unwrap().contains("BackendTLSPolicy default/tls"));
        let faults: Vec<_> = problems.iter().map(|problem| problem.fault).collect();
        for fault in [PolicyFault::NoAuthority, PolicyFault::Authority { is_kind }] {
            assert!(faults.contains(&Fault::Policy(fault)), "{problems:#?}");
        }
    }

    // One of two is enough, and the other one is reported.
    let two = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: gone}]";
    let (mesh, problems) =
        compiled(&[SERVICE, &authority("ca"), &policy("tls", "", "shop.test", two)].concat());
    assert_eq!((sni(&mesh, 80).as_deref(), refused(&mesh, 80)), (Some("shop.test"), None));
    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    assert_eq!(problem.field, "spec.validation.caCertificateRefs[1]");
}

#[test]
fn a_policy_that_cannot_be_used_has_nothing_sent_to_its_service() {
    let good = policy("tls", "", "shop.test", SYSTEM);
    for (change, told) in [
        (("hostname: shop.test", "hostname: '*.test'"), "is not a DNS name"),
        ((SYSTEM, "wellKnownCACertificates: Mine"), "write System"),
        ((SYSTEM, "caCertificateRefs: []"), "is empty"),
        ((SYSTEM, &format!("{SYSTEM}, {GIVEN}")), "exclude each other"),
        ((SYSTEM, &format!("{SYSTEM}, subjectAltNames: [{{type: URI, uri: x}}]")), "is not a URI"),
        (("name: shop}", "name: shop}, {group: '', kind: Service, name: shop}"), "given twice"),
    ] {
        let (mesh, problems) = compiled(&(SERVICE.to_owned() + &good.replacen(change.0, change.1, 1)));

        assert!(refused(&mesh, 80).unwrap().contains("cannot be used"), "{change:?}");
        assert!(problems.iter().any(|problem| problem.message.contains(told)), "{problems:#?}");
    }

    // Of one whose targets cannot be read, nobody knows what it is for.
    let (mesh, _) = compiled(&(SERVICE.to_owned() + &good.replace("targetRefs", "targets")));
    assert!(refused(&mesh, 80).is_some() && refused(&mesh, 443).is_some());
}

#[test]
fn what_is_tls_already_is_not_wrapped_again() {
    let (mesh, problems) = compiled(&(SERVICE.to_owned() + &policy("tls", "", "shop.test", SYSTEM)));
    assert_eq!(problems, []);
    let service = service(&mesh, "shop.default.svc.cluster.local", 443, "default");
    let tls_of = |layer| {
        let rule = service.tcp.rules.iter().find(|rule| rule.layer == layer).unwrap();
        service.backends[rule.backends[0].backend].policy.tls.clone()
    };

    assert!(matches!(tls_of(Layer::Tcp), Some(UpstreamTls::Originate(_))), "any other bytes are");
    assert_eq!(tls_of(Layer::Tls), None);
}

#[test]
fn a_policy_counts_before_a_destination_rule_which_is_reported() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n\
                spec: {host: shop, trafficPolicy: {tls: {mode: DISABLE}}}\n---\n";
    let (mesh, problems) = compiled(&[SERVICE, rule, &policy("tls", "", "shop.test", SYSTEM)].concat());

    assert_eq!(sni(&mesh, 80).as_deref(), Some("shop.test"));
    assert!(
        !problems.is_empty()
            && problems.iter().all(|one| {
                one.severity == Severity::Warning
                    && one.field == "spec.trafficPolicy.tls"
                    && one.message.contains("BackendTLSPolicy")
            }),
        "{problems:#?}"
    );
}

#[test]
fn servers_with_sidecars_are_called_as_the_policy_says_and_that_is_reported() {
    let meshed = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: shop-1}\n\
                  spec: {address: 10.0.0.7, labels: {app: shop, security.istio.io/tlsMode: istio}}\n---\n";
    let service = SERVICE.replace("spec: {", "spec: {selector: {app: shop}, ");
    let (mesh, problems) = compiled(&[&service, meshed, &policy("tls", "", "shop.test", SYSTEM)].concat());

    assert_eq!(sni(&mesh, 80).as_deref(), Some("shop.test"));
    let told = problems.iter().find(|one| one.field == "spec.targetRefs").unwrap();
    assert!(told.message.contains("which has a sidecar"), "{told}");
}

#[test]
fn options_are_not_acted_on() {
    let policy = policy("tls", "", "shop.test", SYSTEM).replace("---\n", "")
        + "  options: {example.com/tls: '1.3'}\n---\n";
    let (_, problems) = compiled(&(SERVICE.to_owned() + "---\n" + &policy));

    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    assert_eq!(
        (problem.severity, problem.field.as_str()),
        (Severity::NotActedOn, "spec.options.example.com/tls")
    );
}
