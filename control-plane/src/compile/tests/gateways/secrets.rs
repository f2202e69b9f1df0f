//! Listeners where TLS ends: their certificates, and whom they ask for one.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair};
use selvedge_model::gateway::{Carries, ListenerTls, Termination};

use super::*;
use crate::problem::Fault;

/// A certificate for `names`, and its key, as PEM; `change` makes it another one.
pub(super) fn pair_with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn pair(name: &str) -> (String, String) {
    pair_with(&[name], |_| ())
}

pub(super) fn secret(namespace: &str, name: &str, data: &[(&str, &str)]) -> String {
    let data: Vec<String> =
        data.iter().map(|(key, text)| format!("{key}: {}", BASE64_STANDARD.encode(text))).collect();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
         data: {{{}}}\n---\n",
        data.join(", ")
    )
}

fn tls(namespace: &str, (chain, key): &(String, String)) -> String {
    secret(namespace, "tls", &[("tls.crt", chain), ("tls.key", key)])
}

/// A gateway with a listener of HTTPS for `a.example`, whose `tls` has these fields, and one of HTTP.
fn https(more: &str) -> String {
    let listener = format!(
        "{{name: https, port: 443, protocol: HTTPS, hostname: a.example, tls: {{mode: Terminate, {more}}}}}"
    );
    gateway(&format!("{listener}, {HTTP}")) + &route("shop", "web", "a.example", &to("web"))
}

const NAMES_TLS: &str = "certificateRefs: [{name: tls}]";

fn termination(mesh: &Mesh) -> &Termination {
    match &edge(mesh).ports[&443].listeners[0].tls {
        Some(ListenerTls::Terminate(termination)) => termination,
        other => panic!("{other:?}"),
    }
}

/// How many certificates the listener has, and what is wrong.
fn shown(text: &str) -> (usize, Vec<String>) {
    let (mesh, problems) = compiled(&format!("{EDGE}{text}"));
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web", "the other listener goes on");
    assert_eq!(edge(&mesh).certificates.len(), termination(&mesh).certificates.len());
    (termination(&mesh).certificates.len(), errors(&problems))
}

#[test]
fn a_listener_of_https_shows_the_certificates_that_it_names() {
    let pair = pair("a.example");
    let mesh = mesh_of(&(https(NAMES_TLS) + &tls("shop", &pair)));

    assert_eq!(sent_to(&mesh, 443, "a.example", "/"), "web");
    assert_eq!(edge(&mesh).ports[&443].carries, Carries::Tls);
    let name = termination(&mesh).certificates[0].clone();
    assert_eq!(name.to_string(), "shop/tls");
    assert!(termination(&mesh).http && termination(&mesh).clients.is_none());
    let certificate = &edge(&mesh).certificates[&name];
    assert_eq!(certificate.chain.len(), 1);
    assert!(!certificate.key.reveal().is_empty());

    let plain = tls("shop", &pair);
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let string_data = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: shop}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        indented(&pair.0),
        indented(&pair.1)
    );
    let same = mesh_of(&(https(NAMES_TLS) + &string_data));
    assert_eq!(edge(&same).certificates, edge(&mesh).certificates, "{plain}");
}

#[test]
fn a_secret_that_cannot_be_shown_is_reported_and_the_listener_serves_nobody() {
    let (chain, key) = pair("a.example");
    let (_, other) = pair("a.example");
    let at = "spec.listeners[0].tls.certificateRefs";
    for (text, expected) in [
        (String::new(), format!("{at}[0]: there is no Secret shop/tls; add one")),
        (tls("shop", &(chain.clone(), other)), "data[tls.key]: is not the key of the certificate".to_owned()),
        (tls("shop", &(chain.clone(), "x".to_owned())), "data[tls.key]: holds no private key".to_owned()),
        (tls("shop", &("x".to_owned(), key.clone())), "data[tls.crt]: holds no certificate".to_owned()),
        (
            secret("shop", "tls", &[("tls.crt", &chain)]),
            "data[tls.crt]: stands alone; add tls.key".to_owned(),
        ),
        (secret("shop", "tls", &[("tls.key", &key)]), "data[tls.key]: stands alone; add tls.crt".to_owned()),
        (secret("shop", "tls", &[("other", &key)]), format!("{at}[0]: Secret shop/tls (mesh.yaml:")),
        (
            tls("shop", &(chain.clone(), key.clone())).replace("tls.key: ", "tls.key: x!"),
            "is not base64".to_owned(),
        ),
        (tls("shop", &pair("b.example")), format!("{at}[0]: the certificate of Secret shop/tls")),
    ] {
        let (count, errors) = shown(&(https(NAMES_TLS) + &text));
        assert_eq!(count, 0, "{expected}");
        assert!(errors.iter().any(|error| error.contains(&expected)), "{expected}: {errors:?}");
        assert!(errors.iter().any(|error| error.contains("so nobody is served here")), "{errors:?}");
    }
    let (count, errors) = shown(&https("certificateRefs: []"));
    assert_eq!((count, errors.len()), (0, 1));
    assert!(errors[0].starts_with(&format!("{at}: names no Secret")), "{errors:?}");
    let (_, errors) = shown(&(https("certificateRefs: [{kind: Service, name: tls}]")));
    assert!(errors[0].contains("Service is not acted on here; name a Secret"), "{errors:?}");
    let both = https("certificateRefs: [{name: tls}, {name: gone}]") + &tls("shop", &(chain, key));
    let (count, errors) = shown(&both);
    assert_eq!(count, 1);
    assert!(errors[0].contains("so it is not shown here"), "{errors:?}");
}

#[test]
fn a_certificate_that_is_not_valid_by_its_dates_is_shown_after_others_and_reported() {
    let old = pair_with(&["a.example"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let young = pair_with(&["a.example"], |params| params.not_before = rcgen::date_time_ymd(2400, 1, 1));
    for (not_valid, told) in [(&old, "has expired at 2020-01-01"), (&young, "is valid from 2400-01-01")] {
        let both = https("certificateRefs: [{name: tls}, {name: good}]")
            + &tls("shop", not_valid)
            + &tls("shop", &pair("a.example")).replace("name: tls", "name: good");
        let (mesh, problems) = compiled(&format!("{EDGE}{both}"));
        let names: Vec<_> = termination(&mesh).certificates.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["shop/good", "shop/tls"]);
        let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
        assert_eq!(problem.severity, crate::problem::Severity::Warning);
        assert!(
            problem.message.contains(told) && problem.message.contains("so clients refuse it"),
            "{problem}"
        );

        let (count, errors) = shown(&(https(NAMES_TLS) + &tls("shop", not_valid)));
        assert_eq!((count, errors), (1, vec![]), "whoever still believes it is served");
    }
}

#[test]
fn a_broken_secret_keeps_its_last_good_version_and_one_that_is_gone_keeps_nothing() {
    let good = pair("a.example");
    let (resources, _) = resources(&tls("shop", &good));
    let before = crate::resources::Resource::Secret(Arc::clone(&resources.secrets[0]));
    let after = |text: &str| {
        let (mut all, _) = super::resources(&(EDGE.to_owned() + &https(NAMES_TLS) + text));
        for secret in std::mem::take(&mut all.secrets) {
            let (kept, _) = crate::resources::secret::with_last_good(secret.into(), Some(&before));
            all.push(kept);
        }
        compile(&all, &MeshSettings::default(), &Mesh::default())
    };

    for broken in
        [tls("shop", &("x".to_owned(), good.1.clone())), tls("shop", &(good.0.clone(), pair("a.example").1))]
    {
        let (mesh, problems) = after(&broken);
        assert_eq!(termination(&mesh).certificates.len(), 1);
        let told: Vec<_> =
            problems.iter().map(|one| (one.severity, one.message.contains("stays in use"))).collect();
        assert!(told.contains(&(crate::problem::Severity::Error, true)), "at the Secret: {problems:#?}");
        assert!(told.contains(&(crate::problem::Severity::Warning, true)), "at the listener: {problems:#?}");
    }
    for gone in [String::new(), secret("shop", "tls", &[("other", "x")])] {
        assert_eq!(termination(&after(&gone).0).certificates.len(), 0);
    }
}

#[test]
fn a_secret_of_another_namespace_needs_a_grant() {
    let names = "certificateRefs: [{name: tls, namespace: other}]";
    let grant = |kind: &str, to: &str| {
        let from = format!("[{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]");
        document(
            "ReferenceGrant",
            "other",
            "grant",
            &format!("{{from: {from}, to: [{{group: '', kind: {to}}}]}}"),
        )
    };
    let text = https(names) + &tls("other", &pair("a.example"));
    for (grant, count) in [
        (String::new(), 0),
        (grant("HTTPRoute", "Secret"), 0),
        (grant("Gateway", "Service"), 0),
        (grant("Gateway", "Secret, name: x"), 0),
        (grant("Gateway", "Secret, name: tls"), 1),
        (grant("Gateway", "Secret"), 1),
    ] {
        let (found, errors) = shown(&(text.clone() + &grant));
        assert_eq!(found, count, "{grant}: {errors:?}");
        let (resources, _) = resources(&(text.clone() + &grant));
        let wanted: Vec<_> = wanted_objects(&resources, "istio-system").into_iter().collect();
        let name = |wanted: &WantedObject| format!("{} {}/{}", wanted.kind, wanted.namespace, wanted.name);
        let expected = if count == 1 { vec!["Secret other/tls".to_owned()] } else { Vec::new() };
        assert_eq!(wanted.iter().map(name).collect::<Vec<_>>(), expected, "{grant}");
    }
}

#[test]
fn a_set_needs_grants_of_its_own_for_its_certificates() {
    let grant = |group: &str, kind: &str| {
        let from = format!("[{{group: {group}, kind: {kind}, namespace: shop}}]");
        document(
            "ReferenceGrant",
            "other",
            "grant",
            &format!("{{from: {from}, to: [{{group: '', kind: Secret}}]}}"),
        )
    };
    let gateway = "{gatewayClassName: any, allowedListeners: {namespaces: {from: Same}}, listeners: [{name: a, port: 80, protocol: HTTP}]}";
    let set = |group: &str, kind: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: more, namespace: shop}}\nspec: {{parentRef: {{name: edge}}, \
             listeners: [{{name: b, port: 443, protocol: HTTPS, hostname: a.example, \
             tls: {{certificateRefs: [{{name: tls, namespace: other}}]}}}}]}}\n---\n"
        )
    };
    let (new, old) = ("gateway.networking.k8s.io", "gateway.networking.x-k8s.io");
    for (group, version, kind) in [(new, "v1", "ListenerSet"), (old, "v1alpha1", "XListenerSet")] {
        let text = [
            document("Gateway", "shop", "edge", gateway),
            set(&format!("{group}/{version}"), kind),
            tls("other", &pair("a.example")),
        ]
        .concat();
        for (grant, count) in [
            (String::new(), 0),
            (grant(new, "Gateway"), 0),
            (grant(if group == new { old } else { new }, kind), 0),
            (grant(group, kind), 1),
        ] {
            let text = text.clone() + &grant;
            let (mesh, problems) = compiled(&format!("{EDGE}{text}"));
            assert_eq!(termination(&mesh).certificates.len(), count, "{grant}: {problems:?}");
            let (resources, _) = resources(&text);
            assert_eq!(wanted_objects(&resources, "istio-system").len(), count, "{grant}");
        }
    }
}

#[test]
fn clients_are_asked_for_certificates_of_the_authorities_that_are_named() {
    let tls = tls("shop", &pair("a.example"));
    let (root, _) = pair("root");
    let (second, _) = pair("second");
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots, namespace: shop}}\ndata:\n  ca.crt: |\n{}{}---\n",
        indented(&root),
        indented(&second)
    );
    let with = |more: &str| https(NAMES_TLS).replace("listeners:", &format!("{more}, listeners:")) + &tls;
    let frontend =
        |validation: &str| format!("tls: {{frontend: {{default: {{validation: {{{validation}}}}}}}}}");
    let clients = |text: &str| {
        let (mesh, problems) = compiled(&format!("{EDGE}{text}"));
        let clients = termination(&mesh).clients.clone();
        let roots = clients.as_ref().map(|clients| (clients.roots.len(), clients.optional));
        (
            roots,
            problems
                .iter()
                .map(|problem| format!("{}: {}", problem.field, problem.message))
                .collect::<Vec<_>>(),
        )
    };
    let refs = "caCertificateRefs: [{kind: ConfigMap, name: roots}]";

    assert_eq!(clients(&(with(&frontend(refs)) + &map)), (Some((2, false)), Vec::new()));
    let listener =
        https(&format!("{NAMES_TLS}, frontendValidation: {{caCertificateRefs: [{{name: roots}}]}}"));
    assert_eq!(clients(&(listener + &tls + &map)), (Some((2, false)), Vec::new()));
    let secret = secret("shop", "roots", &[("ca.crt", &root)]);
    let of_secret = frontend("caCertificateRefs: [{kind: Secret, name: roots}]");
    assert_eq!(clients(&(with(&of_secret) + &secret)), (Some((1, false)), Vec::new()));
    let per_port = "tls: {frontend: {default: {}, perPort: [{port: 443, tls: {validation: {caCertificateRefs: [{name: roots}]}}}]}}";
    assert_eq!(clients(&(with(per_port) + &map)), (Some((2, false)), Vec::new()));
    assert_eq!(clients(&with(&per_port.replace("443", "444"))), (None, Vec::new()));

    let (optional, told) =
        clients(&(with(&frontend(&format!("{refs}, mode: AllowInsecureFallback"))) + &map));
    assert_eq!(optional, Some((2, true)));
    assert!(
        told[0].starts_with("spec.tls.frontend.default.validation.mode: AllowInsecureFallback serves"),
        "{told:?}"
    );
    for (validation, map, expected) in [
        (refs, String::new(), "there is no ConfigMap shop/roots"),
        (refs, map.replace("ca.crt", "ca.pem"), "has no certificates of authorities; add ca.crt"),
        (refs, map.replace("BEGIN", "BEGUN"), "data[ca.crt]: holds no certificate"),
        ("caCertificateRefs: []", String::new(), "is empty, so nobody is served"),
    ] {
        let (roots, told) = clients(&(with(&frontend(validation)) + &map));
        assert_eq!(roots, Some((0, false)), "{expected}");
        assert!(told.iter().any(|told| told.contains(expected)), "{expected}: {told:?}");
    }
}

#[test]
fn nothing_of_a_key_is_ever_told() {
    let (chain, key) = pair("a.example");
    let encoded = BASE64_STANDARD.encode(&key);
    let line = key.lines().nth(1).unwrap().to_owned();
    let good = tls("shop", &(chain.clone(), key.clone()));
    let pieces = [&encoded[40..60], &line[..20], "dGhlc2VjcmV0", "thesecret"];
    for text in [
        good.clone(),
        good.replace("tls.key: ", "tls.key: x"),
        good.replace("type: ", "kind: "),
        good.replace("tls.key: ", "tls.key:"),
        good.replace("data: {", "data: {{"),
        good.replace("data: ", "dat: "),
        good.replace("data: {", "data: {tls.crt: 1, "),
        good.replace("tls.key: ", "tls.key: !!int "),
        good.replace("tls.key: ", "tls.key: *"),
        good.replace("tls.key: ", "tls.key: \""),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: shop}\ndata: dGhlc2VjcmV0\n---\n".to_owned(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: shop}\ndata: {tls.key: [dGhlc2VjcmV0]}\n---\n".to_owned(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: shop}\nstringData: {tls.key: {a: thesecret}}\n---\n".to_owned(),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: shop}\ndata:\n  tls.key: |\n thesecret\n---\n".to_owned(),
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: shop}}\nstringData:\n  tls.key: |\n{key}---\n"),
    ] {
        let (resources, problems) = resources(&(https(NAMES_TLS) + EDGE + &text));
        let (mesh, between) = compile(&resources, &MeshSettings::default(), &Mesh::default());
        let told = format!("{problems:?} {between:?} {:?} {:?} {:?}", resources, mesh.gateways, mesh);
        for piece in pieces {
            assert!(!told.contains(piece), "{piece} in {text} {problems:?} {between:?}");
        }
    }
}

#[test]
fn a_gateway_shows_backends_the_certificate_that_it_names() {
    let named = |reference: &str| {
        https(NAMES_TLS).replace(
            "listeners:",
            &format!("tls: {{backend: {{clientCertificateRef: {{{reference}}}}}}}, listeners:"),
        ) + &tls("shop", &pair("a.example"))
    };
    let client = |namespace: &str, pair: &(String, String)| {
        secret(namespace, "client", &[("tls.crt", &pair.0), ("tls.key", &pair.1)])
    };
    let shown = |text: &str| {
        let (mesh, problems) = compiled(&format!("{EDGE}{text}"));
        let gateway = mesh.gateways.values().next().unwrap();
        let port = &gateway.ports[&443];
        let found = port.to_backends.as_ref().map(|name| {
            assert!(gateway.certificates.contains_key(name), "it is sent to the gateway");
            name.to_string()
        });
        (found, problems)
    };
    // It needs to be for no name that clients call.
    let other = pair("client.of.somebody");
    let text = named("name: client") + &client("shop", &other);
    assert_eq!(shown(&text), (Some("shop/client".to_owned()), Vec::new()));
    let (wanted, _) = resources(&named("name: client"));
    assert_eq!(wanted_objects(&wanted, "istio-system").len(), 2, "the listener's and that for backends");

    let allowed = document(
        "ReferenceGrant",
        "other",
        "grant",
        "{from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}], to: [{group: '', kind: Secret}]}",
    );
    let elsewhere = named("name: client, namespace: other") + &client("other", &other);
    assert_eq!(shown(&(elsewhere.clone() + &allowed)).0.as_deref(), Some("other/client"));
    for (text, is_permitted, says) in [
        (elsewhere, false, "ReferenceGrant"),
        (named("name: client"), true, "there is no Secret shop/client"),
        (named("kind: ConfigMap, name: client"), true, "name a Secret"),
        (named("name: client") + &client("shop", &(other.0.clone(), pair("x").1)), true, "cannot be used"),
    ] {
        let (found, problems) = shown(&text);
        assert_eq!(found, None);
        let told = problems.iter().find(|problem| problem.fault == Fault::ToBackends { is_permitted });
        let told = told.unwrap_or_else(|| panic!("{problems:?}"));
        assert!(told.message.contains(says), "{told:?}");
        assert_eq!(told.field, "spec.tls.backend.clientCertificateRef");
    }
}
