//! Servers where TLS ends.

use selvedge_model::{Trusted, gateway::Termination};

use super::{
    super::secrets::{pair_with, secret},
    *,
};

/// A `Gateway` of one server of `protocol` on port 443, and a `VirtualService` of the service `web` for it.
fn server(protocol: &str, hosts: &str, tls: &str) -> String {
    let server = format!(
        "{{port: {{number: 443, name: tls, protocol: {protocol}}}, hosts: [{hosts}], tls: {{{tls}}}}}"
    );
    let routes = format!("http: [{}], tcp: [{}]", all("web"), all("web"));
    istio("Gateway", "infra/gw", &format!("{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"))
        + &istio("VirtualService", "shop/a", &format!("{{hosts: ['*'], gateways: [infra/gw], {routes}}}"))
}

/// A Secret in the workload's namespace.
fn shown_by(name: &str, hosts: &[&str], more: &[(&str, &str)]) -> String {
    let (chain, key) = pair_with(hosts, |_| ());
    secret("shop", name, &[&[("tls.crt", &*chain), ("tls.key", &*key)], more].concat())
}

/// How TLS ends for the server name `name`.
fn ends(mesh: &Mesh, name: &str) -> Termination {
    match opaque(mesh, 443, Some(name)).1 {
        Some(ListenerTls::Terminate(termination)) => termination,
        other => panic!("{other:?}"),
    }
}

fn certificates(mesh: &Mesh, name: &str) -> Vec<String> {
    ends(mesh, name).certificates.iter().map(ToString::to_string).collect()
}

#[test]
fn the_certificate_is_the_one_in_the_namespace_of_the_gateways_workload() {
    let https = server("HTTPS", "a.example, b.example", "mode: SIMPLE, credentialName: tls");
    let (mesh, problems) = served(&(https.clone() + &shown_by("tls", &["*.example"], &[])));

    assert_eq!(problems, []);
    assert_eq!(sent_to(&mesh, 443, "a.example", "/"), "web");
    let (a, b) = (ends(&mesh, "a.example"), ends(&mesh, "b.example"));
    assert_eq!(a, b, "a connection for one host may carry requests for the other");
    assert!(a.http && a.tls12 && a.clients.is_none());
    assert_eq!(certificates(&mesh, "a.example"), ["shop/tls"]);

    let elsewhere = shown_by("tls", &["*.example"], &[]).replace("namespace: shop", "namespace: infra");
    let (mesh, problems) = served(&(https + &elsewhere));
    assert_eq!(certificates(&mesh, "a.example"), [""; 0]);
    let [told] = errors(&problems).try_into().unwrap();
    assert!(
        told.starts_with("spec.servers[0].tls.credentialName: there is no Secret shop/tls;")
            && told.ends_with("(so nobody is served here)"),
        "{told}"
    );
}

#[test]
fn what_is_in_tls_may_be_opaque() {
    let tls = server("TLS", "a.example", "mode: SIMPLE, credentialName: tls");
    let (mesh, problems) = served(&(tls + &shown_by("tls", &["a.example"], &[])));

    assert_eq!(problems, []);
    assert!(!ends(&mesh, "a.example").http);
    let host = &edge(&mesh).ports[&443].listeners[0].virtual_hosts[0].service;
    assert_eq!(edge(&mesh).virtual_hosts[host].tcp.rules[0].name, "VirtualService shop/a tcp[0]");
}

#[test]
fn a_host_that_no_certificate_is_for_serves_nobody_and_the_others_share_theirs() {
    let https = server(
        "HTTPS",
        "a.example, b.example, c.example",
        "mode: SIMPLE, credentialNames: [of-a, of-b], minProtocolVersion: TLSV1_3",
    );
    let secrets = shown_by("of-a", &["a.example"], &[]) + &shown_by("of-b", &["b.example"], &[]);
    let (mesh, problems) = served(&(https + &secrets));

    for host in ["a.example", "b.example"] {
        assert_eq!(certificates(&mesh, host), ["shop/of-a", "shop/of-b"], "{host}");
    }
    assert!(!ends(&mesh, "a.example").tls12);
    assert_eq!(certificates(&mesh, "c.example"), [""; 0]);
    let [told] = errors(&problems).try_into().unwrap();
    assert!(told.ends_with("(so nobody is served at c.example)"), "{told}");
}

#[test]
fn clients_are_verified_by_the_authorities_of_the_secret_or_the_one_beside_it() {
    let (root, _) = pair_with(&["root"], |_| ());
    let root = [("ca.crt", &*root)];
    let own = |more: &[(&str, &str)]| shown_by("tls", &["a.example"], more);
    let beside = secret("shop", "tls-cacert", &root);
    let named = secret("shop", "roots", &root);
    let mutual = "mode: MUTUAL, credentialName: tls";
    let missing = "Secret shop/tls (mesh.yaml";
    for (tls, secrets, roots, expected) in [
        (mutual, own(&root), 1, None),
        (mutual, own(&[]) + &beside, 1, None),
        ("mode: MUTUAL, credentialName: tls, caCertCredentialName: roots", own(&[]) + &named, 1, None),
        ("mode: OPTIONAL_MUTUAL, credentialName: tls", own(&root), 1, None),
        (mutual, own(&[]), 0, Some(missing)),
        (mutual, own(&[]) + &named, 0, Some(missing)),
        (mutual, own(&[("ca.crt", "x")]) + &beside, 0, Some("ca.crt] holds no certificate")),
        (
            "mode: OPTIONAL_MUTUAL, credentialName: tls, caCertCredentialName: gone",
            own(&root),
            0,
            Some("there is no Secret shop/gone"),
        ),
    ] {
        let (mesh, problems) = served(&(server("HTTPS", "a.example", tls) + &secrets));
        let clients = ends(&mesh, "a.example").clients.unwrap();
        let told = errors(&problems);
        assert_eq!((clients.roots.len(), clients.optional), (roots, tls.contains("OPTIONAL")), "{told:?}");
        match expected {
            None => assert_eq!(told, [""; 0], "{tls}"),
            Some(words) => assert!(told.iter().any(|told| told.contains(words)), "{words}: {told:?}"),
        }
    }
}

#[test]
fn secrets_are_wanted_where_the_workloads_are_that_serve_the_gateway() {
    let wanted = |tls: &str| -> Vec<String> {
        let (resources, _) = resources(&(labelled() + &server("HTTPS", "a.example", tls)));
        wanted_objects(&resources, "istio-system")
            .into_iter()
            .map(|one| format!("{} {}/{}", one.kind, one.namespace, one.name))
            .collect()
    };

    assert_eq!(wanted("mode: SIMPLE, credentialNames: [rsa, ec]"), ["Secret shop/ec", "Secret shop/rsa"]);
    assert_eq!(wanted("mode: MUTUAL, credentialName: tls"), ["Secret shop/tls", "Secret shop/tls-cacert"]);
    let named = "mode: MUTUAL, credentialName: tls, caCertCredentialName: clients";
    assert_eq!(wanted(named), ["Secret shop/clients", "Secret shop/tls"]);
    assert_eq!(wanted("mode: PASSTHROUGH"), [""; 0]);
}

#[test]
fn nobody_takes_the_places_of_other_namespaces_secrets_by_naming_much() {
    let names = |secrets: &str| {
        format!(
            "{{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 443, name: tls, protocol: HTTPS}}, hosts: ['*'], \
             tls: {{mode: SIMPLE, credentialNames: [{secrets}]}}}}]}}"
        )
    };
    let rule = "{host: a.example, trafficPolicy: {tls: {mode: SIMPLE, credentialName: a5}}}";
    let grant = "{from: [{group: networking.istio.io, kind: DestinationRule, namespace: loud}], to: [{group: '', kind: Secret}]}";
    let text = labelled()
        + &document("ReferenceGrant", "shop", "loud", grant)
        + &istio("Gateway", "loud/gw", &names("a1, a2, a3, a4"))
        + &istio("DestinationRule", "loud/rule", rule)
        + &istio("Gateway", "other/gw", &names("a1, y"))
        + &istio("Gateway", "shop/gw", &names("z"));

    let (resources, _) = resources(&text);
    let wanted: Vec<String> =
        wanted_objects(&resources, "istio-system").into_iter().map(|one| one.name).collect();
    assert_eq!(wanted, ["z", "a1", "a2", "y", "a3", "a4", "a5", "a5-cacert"]);
}

#[test]
fn what_is_wrong_with_the_credential_of_a_port_is_told_where_that_is_written() {
    let port = |number: u16, secret: &str| {
        format!("{{port: {{number: {number}}}, tls: {{mode: SIMPLE, credentialName: {secret}}}}}")
    };
    let ports = [port(90, "other"), port(80, "gone")].join(", ");
    let rule = format!("{{host: web, trafficPolicy: {{portLevelSettings: [{ports}]}}}}");
    let documents = http("shop/gw", "'*'")
        + &virtual_service("shop/a", "'*'", &all("web"))
        + &istio("DestinationRule", "shop/rule", &rule);

    let (_, problems) = served(&documents);
    let told = problems.iter().filter(|problem| problem.message.contains("there is no Secret shop/gone"));
    let fields: Vec<&str> = told.map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.trafficPolicy.portLevelSettings[1].tls.credentialName"], "{problems:?}");
}

#[test]
fn no_gateway_gets_the_key_of_the_meshs_ca() {
    // One that runs in the control plane's namespace, as that of all `Ingress`es does.
    let edge = labelled().replace("  namespace: shop\n  annotations", "  namespace: selvedge\n  annotations");
    let (chain, key) = pair_with(&["a.example"], |_| ());
    let secret = secret("selvedge", "selvedge-ca", &[("tls.crt", &*chain), ("tls.key", &*key)]);
    let rule = "{host: web.shop.svc.cluster.local, trafficPolicy: {tls: {mode: MUTUAL, credentialName: selvedge-ca}}}";
    let as_server = server("HTTPS", "a.example", "mode: SIMPLE, credentialName: selvedge-ca");
    let as_client = http("shop/gw", "'*'")
        + &virtual_service("shop/a", "'*'", &all("web"))
        + &istio("DestinationRule", "istio-system/rule", rule);

    for documents in [as_server, as_client] {
        let (mesh, problems) = compiled(&format!("{edge}{secret}{documents}"));
        let told = errors(&problems).concat();
        assert!(told.contains("the Secret selvedge/selvedge-ca is the control plane's own"), "{told}");
        assert!(mesh.gateways.values().all(|gateway| gateway.certificates.is_empty()), "{documents}");
    }
}

#[test]
fn a_rule_of_another_namespace_needs_a_grant_to_have_the_gateway_show_a_certificate() {
    let rule = |namespace: &str| {
        let spec = "{host: far.other.svc.cluster.local, trafficPolicy: {tls: {mode: MUTUAL, credentialName: partner}}}";
        istio("DestinationRule", &format!("{namespace}/rule"), spec)
    };
    let grant = |kind: &str, from: &str, name: &str| {
        let from = format!("{{group: networking.istio.io, kind: {kind}, namespace: {from}}}");
        let to = format!("{{group: '', kind: Secret, name: {name}}}");
        document("ReferenceGrant", "shop", "grant", &format!("{{from: [{from}], to: [{to}]}}"))
    };
    let base = http("shop/gw", "'*'")
        + &virtual_service("shop/a", "'*'", &all("far.other.svc.cluster.local"))
        + &shown_by("partner", &["client.example"], &[]);
    let shown = |more: &str| {
        let (mesh, problems) = served(&format!("{base}{more}"));
        let broken = edge(&mesh).virtual_hosts.values().flat_map(|host| &host.backends);
        let broken: Vec<&str> = broken.filter_map(|backend| backend.broken.as_deref()).collect();
        (edge(&mesh).certificates.len(), broken.concat(), errors(&problems).concat())
    };

    // In a cluster, a Secret is not even read without a permit.
    let read = |more: &str| -> Vec<String> {
        let wanted = wanted_objects(&resources(&format!("{}{base}{more}", labelled())).0, "istio-system");
        wanted.into_iter().map(|one| one.name).collect()
    };

    // That of the gateway's own namespace, of the root namespace, and one that is permitted.
    for more in
        [rule("shop"), rule("istio-system"), rule("other") + &grant("DestinationRule", "other", "partner")]
    {
        assert_eq!(shown(&more), (1, String::new(), String::new()), "{more}");
        assert_eq!(read(&more), ["partner", "partner-cacert"], "{more}");
    }
    for more in [
        rule("other"),
        rule("other") + &grant("DestinationRule", "third", "partner"),
        rule("other") + &grant("DestinationRule", "other", "another"),
        rule("other") + &grant("VirtualService", "other", "partner"),
    ] {
        let (certificates, broken, told) = shown(&more);
        let why = "no ReferenceGrant in shop lets a DestinationRule of other name Secret partner";
        assert_eq!((certificates, read(&more)), (0, Vec::new()), "{more}");
        assert!(broken.starts_with("credentialName partner: ") && broken.contains(why), "{broken}");
        assert!(told.starts_with("spec.trafficPolicy.tls.credentialName") && told.contains(why), "{told}");
    }
}

#[test]
fn a_rule_of_another_namespace_has_the_gateway_use_no_file() {
    let base =
        http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &all("far.other.svc.cluster.local"));
    for (field, tls) in [
        ("clientCertificate", "mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem"),
        ("caCertificates", "mode: SIMPLE, caCertificates: /ca.pem"),
    ] {
        let of = |namespace: &str| {
            let spec = format!("{{host: far.other.svc.cluster.local, trafficPolicy: {{tls: {{{tls}}}}}}}");
            let (mesh, problems) =
                served(&format!("{base}{}", istio("DestinationRule", &format!("{namespace}/rule"), &spec)));
            let mut backends = edge(&mesh).virtual_hosts.values().flat_map(|host| &host.backends).cloned();
            let backend = backends.find(|backend| backend.policy.tls.is_some()).unwrap();
            let Some(UpstreamTls::Originate(settings)) = backend.policy.tls else { panic!("{backend:?}") };
            let names_files = settings.client.is_some() || settings.trusted != Trusted::System;
            (names_files, backend.broken, errors(&problems).concat())
        };

        for namespace in ["shop", "istio-system"] {
            assert_eq!(of(namespace), (true, None, String::new()), "{namespace} {tls}");
        }
        let (names_files, broken, told) = of("other");
        if field == "caCertificates" {
            assert_eq!((names_files, broken, told), (true, None, String::new()), "it lends nobody anything");
            continue;
        }
        let why = "a rule of the namespace other cannot name files of a gateway in shop";
        assert!(!names_files && broken.as_deref().is_some_and(|broken| broken.contains(why)), "{broken:?}");
        assert!(told.starts_with(&format!("spec.trafficPolicy.tls.{field}")) && told.contains(why), "{told}");
    }
}
