//! Which hosts the gateway of all `Ingress`es serves over TLS, with which certificates and rules.

use rcgen::generate_simple_self_signed;
use selvedge_model::gateway::{Listener, ListenerTls};

use super::*;

/// A Secret with a certificate for `hosts`.
fn secret(name: &str, hosts: &[&str]) -> String {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let pair = generate_simple_self_signed(hosts).unwrap();
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  \
         tls.key: |\n{}---\n",
        indented(&pair.cert.pem()),
        indented(&pair.signing_key.serialize_pem())
    )
}

/// An `Ingress` of which all of `at` goes to `service`, with this `tls`.
fn over_tls(name: &str, annotations: &[(&str, &str)], at: &str, service: &str, tls: &str) -> String {
    ingress(name, annotations, &format!("tls: [{tls}], {}", host(at, &[path("Prefix", "/", service)])))
}

/// The listener at port 443 for the server name `name`.
fn listener<'m>(mesh: &'m Mesh, name: &str) -> Option<&'m Listener> {
    let port = edge(mesh).ports.get(&443)?;
    Some(&port.listeners[port.listener(Some(name))?])
}

/// The certificates that it shows.
fn shown(mesh: &Mesh, name: &str) -> Option<Vec<String>> {
    match &listener(mesh, name)?.tls {
        Some(ListenerTls::Terminate(termination)) => {
            Some(termination.certificates.iter().map(ToString::to_string).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// The name of the rule for `/` at `name` over TLS.
fn rule_over_tls(mesh: &Mesh, name: &str) -> Option<String> {
    let listener = listener(mesh, name)?;
    let host = &listener.virtual_hosts[listener.virtual_host(Some(name))?];
    Some(edge(mesh).virtual_hosts[&host.service].routes.rules()[0].name.clone())
}

#[test]
fn the_lessons_ingress_is_served_over_tls_and_its_plaintext_is_sent_there() {
    let (mesh, problems) = served(
        &(secret("tls-secret", &["example.com"]) + include_str!("../../../resources/ingress/lesson.yaml")),
    );

    assert_eq!(problems, []);
    assert_eq!(shown(&mesh, "example.com"), Some(vec!["default/tls-secret".to_owned()]));
    assert_eq!(
        rule_over_tls(&mesh, "example.com").as_deref(),
        Some("Ingress default/my-ingress rules[0].paths[0]")
    );
    assert_eq!(sent_to(&mesh, "example.com", "/app1", &[]), "308");
    assert_eq!(edge(&mesh).certificates.len(), 1);
}

#[test]
fn each_listener_has_the_hosts_that_are_its_own() {
    let text = secret("wild", &["*.example.com"])
        + &secret("a", &["a.example.com"])
        + &over_tls("a", &[], "a.example.com", "app1-service", "{hosts: [a.example.com], secretName: a}")
        + &over_tls("w", &[], "*.example.com", "app2-service", "{secretName: wild}")
        + &ingress("b", &[], &host("b.example.com", &[path("Prefix", "/", "app1-service")]))
        + &ingress("c", &[], &host("c.example.org", &[path("Prefix", "/", "app1-service")]));
    let (mesh, problems) = served(&text);

    assert_eq!(problems, []);
    for (name, certificate, rule) in [
        ("a.example.com", Some("default/a"), Some("Ingress default/a rules[0].paths[0]")),
        ("b.example.com", Some("default/wild"), Some("Ingress default/b rules[0].paths[0]")),
        ("x.example.com", Some("default/wild"), Some("Ingress default/w rules[0].paths[0]")),
        ("c.example.org", None, None),
    ] {
        assert_eq!(shown(&mesh, name), certificate.map(|name| vec![name.to_owned()]), "{name}");
        assert_eq!(rule_over_tls(&mesh, name).as_deref(), rule, "{name}");
    }
    for (name, plaintext) in
        [("b.example.com", "308"), ("x.example.com", "308"), ("c.example.org", "app1-service 1")]
    {
        assert_eq!(sent_to(&mesh, name, "/", &[]), plaintext, "{name}");
    }
}

#[test]
fn plaintext_goes_on_where_an_annotation_says_so_and_certificates_are_asked_for_in_plaintext() {
    let tls = "{hosts: [a.example.com], secretName: a}";
    let plain = over_tls("a", &[("ssl-redirect", "false")], "a.example.com", "app1-service", tls);
    let (mesh, _) = served(&(secret("a", &["a.example.com"]) + &plain));
    assert_eq!(sent_to(&mesh, "a.example.com", "/", &[]), "app1-service 1");

    let challenge = ingress(
        "solver",
        &[],
        &host("a.example.com", &[path("Exact", "/.well-known/acme-challenge/x", "app2-service")]),
    );
    let text = over_tls("a", &[], "a.example.com", "app1-service", tls) + &challenge;
    let (mesh, problems) = served(&text);
    assert_eq!(sent_to(&mesh, "a.example.com", "/.well-known/acme-challenge/x", &[]), "app2-service 1");
    assert_eq!(sent_to(&mesh, "a.example.com", "/x", &[]), "308");
    // The certificate is not there yet: nobody is served over TLS, and that is told.
    assert_eq!(shown(&mesh, "a.example.com"), Some(Vec::new()));
    let told = errors(&problems);
    assert!(told[0].starts_with("spec.tls[0].secretName: there is no Secret default/a;"), "{told:?}");
    assert!(told[0].ends_with("(so nobody is served at a.example.com over TLS)"), "{told:?}");
}

#[test]
fn a_secret_of_another_host_and_none_at_all_and_a_second_one_are_told() {
    let text = secret("a", &["a.example.com"])
        + &over_tls("one", &[], "a.example.com", "app1-service", "{hosts: [a.example.com], secretName: a}")
        + &over_tls("two", &[], "b.example.com", "app1-service", "{hosts: [b.example.com], secretName: a}")
        + &over_tls("three", &[], "c.example.com", "app1-service", "{hosts: [c.example.com]}")
        + &over_tls("four", &[], "d.example.com", "app1-service", "{hosts: [a.example.com], secretName: b}")
        + &over_tls("five", &[], "e.example.com", "app1-service", "{hosts: [a.example.com], secretName: a}");
    let (mesh, problems) = served(&text);

    let told = errors(&problems);
    for (start, words) in [
        (
            "spec.tls[0].secretName: the certificate of Secret default/a",
            "is for a.example.com, and not for b.example.com",
        ),
        ("spec.tls[0]: names no secretName", "nobody is served at c.example.com over TLS"),
        ("spec.tls[0]: has no effect for a.example.com: Ingress default/one", "is older"),
    ] {
        assert!(
            told.iter().any(|told| told.starts_with(start) && told.contains(words)),
            "{start}: {told:#?}"
        );
    }
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(shown(&mesh, "a.example.com"), Some(vec!["default/a".to_owned()]));
}

#[test]
fn only_the_secrets_that_ours_name_are_wanted() {
    let (all, _) = resources(&format!(
        "{EDGE}{}",
        over_tls("a", &[], "a.example.com", "app1-service", "{secretName: a}, {hosts: [b.example.com]}")
    ));

    let wanted: Vec<_> = wanted_objects(&all, "istio-system").into_iter().collect();
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].kind, &*wanted[0].namespace, &*wanted[0].name), ("Secret", "default", "a"));
}

#[test]
fn names_over_tls_that_follow_a_wildcard_are_copies_of_its_rules_and_too_many_are_refused() {
    let paths =
        (0..100).map(|place| path("Prefix", &format!("/{place}/{}", "x".repeat(2_000)), "app1-service"));
    let wide = ingress("wide", &[], &host("*.example.com", &paths.collect::<Vec<_>>()));
    let names = (0..400).map(|place| format!("h{place}.example.com")).collect::<Vec<_>>().join(", ");
    let own = host("own.example.org", &[path("Prefix", "/", "app1-service")]);
    let over_tls = ingress("tls", &[], &format!("tls: [{{hosts: [{names}], secretName: a}}], {own}"));
    let (mesh, problems) = served(&(secret("a", &["*.example.com"]) + &wide + &over_tls));

    let rule = rule_over_tls(&mesh, "h0.example.com").unwrap();
    assert!(rule.starts_with("Ingress default/wide rules[0].paths["), "{rule}");
    let refused: Vec<&Problem> =
        problems.iter().filter(|problem| problem.message.contains("is not served over TLS")).collect();
    assert_eq!(refused.len(), 50, "so many are told of one document");
    let more = problems.iter().find_map(|problem| problem.message.strip_prefix("and ")?.split(' ').next());
    let more: usize = more.unwrap().parse().unwrap();
    assert!(more < 150, "{more}");
    assert!(refused.iter().all(|problem| problem.field == "spec.tls[0]" && problem.message.contains("MiB")));
    assert!(listener(&mesh, "h399.example.com").is_none());
    // What asks for TLS and has no room for it is not served in plaintext by the wildcard.
    assert!(sent_to(&mesh, "h399.example.com", "/1/x", &[]).contains("is not served over TLS"));
    let plain = edge(&mesh).ports[&80].listeners[0].virtual_hosts.len();
    assert_eq!(plain, 2 + refused.len() + more, "the others follow the wildcard");
}

#[test]
fn tls_of_a_host_may_go_on_to_its_app_as_it_is() {
    let annotations = [("ssl-passthrough", "true"), ("backend-protocol", "HTTPS")];
    let paths = [path("Prefix", "/", "app1-service"), path("Prefix", "/more", "app2-service")];
    let passing = ingress("pass", &annotations, &host("a.example.com", &paths));
    let ending =
        over_tls("ends", &[], "a.example.com", "app2-service", "{hosts: [a.example.com], secretName: a}")
            .replace("path: '/'", "path: '/x'");
    let ending = secret("a", &["a.example.com"]) + &ending;

    let (mesh, problems) = served(&passing);
    assert_eq!(problems, []);
    let found = listener(&mesh, "a.example.com").unwrap();
    assert_eq!(found.tls, Some(ListenerTls::Passthrough));
    let service = &edge(&mesh).virtual_hosts[&found.virtual_hosts[0].service];
    let [rule] = &service.tcp.rules[..] else { panic!("{:?}", service.tcp) };
    assert_eq!(rule.name, "Ingress default/pass ssl-passthrough");
    let backend = &service.backends[rule.backends[0].backend];
    assert!(backend.name.service.host.starts_with("app1-service.") && backend.policy.tls.is_none());
    assert_eq!(sent_to(&mesh, "a.example.com", "/", &[]), "app1-service 1", "plaintext goes on, as in nginx");

    let (mesh, problems) = served(&(passing.clone() + &ending));
    assert_eq!(listener(&mesh, "a.example.com").unwrap().tls, Some(ListenerTls::Passthrough));
    assert!(errors(&problems)[0].contains("is older and passes TLS of that host on"), "{problems:?}");
    let (mesh, problems) = served(&(ending + &passing));
    assert_eq!(shown(&mesh, "a.example.com"), Some(vec!["default/a".to_owned()]));
    assert!(errors(&problems)[0].contains("is older and names the certificate"), "{problems:?}");

    let rootless = ingress("pass", &annotations, &host("a.example.com", &paths[1..]));
    assert!(errors(&served(&rootless).1)[0].contains("needs a path / of a.example.com"));
}

#[test]
fn an_older_ingress_has_its_certificate_shown_at_other_names_of_its_host() {
    let older = over_tls(
        "old",
        &[("server-alias", r"b.example.com,~^c\d+\.example\.com$")],
        "a.example.com",
        "app1-service",
        "{hosts: [a.example.com], secretName: wild}",
    );
    let younger =
        over_tls("new", &[], "b.example.com", "app2-service", "{hosts: [b.example.com], secretName: b}");
    let secrets = secret("wild", &["a.example.com", "*.example.com"]) + &secret("b", &["b.example.com"]);
    let (mesh, problems) = served(&(secrets + &older + &younger));

    for name in ["a.example.com", "b.example.com", "c1.example.com"] {
        assert_eq!(shown(&mesh, name), Some(vec!["default/wild".to_owned()]), "{name}");
        assert_eq!(
            rule_over_tls(&mesh, name).as_deref(),
            Some("Ingress default/old rules[0].paths[0]"),
            "{name}"
        );
        assert_eq!(sent_to(&mesh, name, "/", &[]), "308", "{name}");
    }
    let told = errors(&problems);
    assert!(
        told.iter().any(|told| told.starts_with("spec.tls[0]: has no effect for b.example.com")),
        "{told:?}"
    );
    assert_eq!(told.len(), 2, "and its path");
}
