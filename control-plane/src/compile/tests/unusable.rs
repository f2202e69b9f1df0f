//! What cannot be used opens nothing.

use selvedge_model::{InboundPolicy, snapshot::Address};

use super::*;

fn policy(spec: &str) -> String {
    policy_in("default", spec)
}

fn policy_in(namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: bad, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// What `reviews-v1` lets in, in a mesh with `documents` besides, whose problems are errors.
fn lets_in(documents: &str) -> InboundPolicy {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    assert_ne!(errors(&problems), [""; 0], "{documents}");
    mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy.clone()
}

fn modes(documents: &str) -> [MtlsMode; 2] {
    let policy = lets_in(documents);
    [policy.rule(9001).mode, policy.rule(8080).mode]
}

const STRICT: [MtlsMode; 2] = [MtlsMode::Strict; 2];
const PERMISSIVE: [MtlsMode; 2] = [MtlsMode::Permissive; 2];

#[test]
fn a_policy_that_cannot_be_used_is_strict_at_every_port() {
    for spec in [
        "{mtls: {mode: STRICT}, portLevelMtls: {eighty: {mode: STRICT}}}",
        "{mtls: {mode: PERMISSIVE}, portLevelMtls: {9001: {mode: OPEN}}}",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}, portLevelMtls: {0: {mode: STRICT}}}",
        "{selector: {match_labels: {app: reviews}}, port_level_mtls: {99999: {mode: STRICT}}}",
        "{mtls: {mode: strict}}",
        "{mtls: {mode: 5}}",
        "{mtls: STRICT}",
        "{mtls: {mode: [STRICT]}}",
        "{mtsl: {mode: STRICT}}",
        "{mtls: {mode: STRICT, mod: x}}",
        "{selector: {matchLabels: [reviews]}, mtls: {mode: STRICT}}",
        "{selector: {matchLabels: {app: 5}}, mtls: {mode: STRICT}}",
        "{selector: {matchExpressions: [{key: app, operator: Exists}]}, mtls: {mode: STRICT}}",
        "{selector: app, mtls: {mode: STRICT}}",
        "[mtls]",
        "STRICT",
        "{mtls: {mode: STRICT}, mtls: {mode: STRICT}}",
    ] {
        assert_eq!(modes(&policy(spec)), STRICT, "{spec}");
        // One that selects workloads has no effect in the root namespace, whatever else it says.
        let for_mesh = if spec.contains("app: reviews") { PERMISSIVE } else { STRICT };
        assert_eq!(modes(&policy_in("istio-system", spec)), for_mesh, "{spec} for the mesh");
    }
}

#[test]
fn a_policy_whose_name_or_kind_or_version_cannot_be_read_is_one_all_the_same() {
    let spec = "spec: {mtls: {mode: STRICT}}";
    for head in [
        "apiVersion: security.istio.io/v9\nkind: PeerAuthentication\nmetadata: {name: a}\n",
        "apiVersion: security.istio/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: peerauthentication\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentications\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nmetadata: {name: a}\n",
        "kind: PeerAuthentication\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: 5}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: A_B}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: 5}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: Not One}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: [a]\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, creationTimestamp: now}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, labels: 5}\n",
        "Apiversion: security.istio.io/v1\nKind: PeerAuthentication\nmetadata: {name: a}\n",
        "apiVersion: Security.Istio.io/v1\nkind: Peer\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, Namespace: shop}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namspace: shop}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nnamespace: shop\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nMetadata: {name: a, namespace: shop}\n",
    ] {
        assert_eq!(modes(&format!("---\n{head}{spec}\n")), STRICT, "{head}");
    }
}

#[test]
fn a_policy_in_a_list_that_cannot_be_opened_is_one_all_the_same() {
    let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    for text in [
        format!("apiVersion: v1\nitems: [{policy}]\n"),
        format!("apiVersion: v1\nkind: List\nItems: [{policy}]\n"),
        format!("apiVersion: v1\nkind: List\nitems: {policy}\n"),
        format!("apiVersion: v1\nkind: List\nitems: {{a: {policy}}}\n"),
        format!("- {policy}\n"),
        format!("[[{policy}]]\n"),
    ] {
        assert_eq!(modes(&format!("---\n{text}")), STRICT, "{text}");
    }
    let (mesh, problems) = compiled(&format!("{MESH}---\napiVersion: v1\nkind: list\nitems: [{policy}]\n"));
    assert_eq!(errors(&problems), [""; 0], "a list of which only the case is wrong is one");
    assert_eq!(
        mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy.rule(80).mode,
        MtlsMode::Permissive
    );
    let crd = "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: peerauthentications.security.istio.io}\nspec: {group: security.istio.io, names: {kind: PeerAuthentication}}\n";
    let (_, problems) = compiled(&format!("{MESH}{crd}"));
    assert_eq!(errors(&problems), [""; 0], "what only speaks of policies is none");
}

#[test]
fn a_service_whose_name_no_host_can_have_is_not_there() {
    let hosts = |name: &str| -> Vec<String> {
        let (mesh, _) = compiled(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        ));
        mesh.services.keys().map(ToString::to_string).collect()
    };

    assert_eq!(hosts("\"a\\e[31m\""), [""; 0]);
    assert_eq!(hosts("Reviews"), ["reviews.default.svc.cluster.local:80"]);
}

#[test]
fn an_empty_namespace_is_the_default_one() {
    let (mesh, problems) = compiled(&format!("{MESH}{}", policy_in("''", "{mtls: {mode: STRICT}}")));
    assert_eq!(errors(&problems), [""; 0]);
    let names: Vec<_> = mesh.workloads.values().map(|workload| &*workload.policy.default.name).collect();
    assert!(names.iter().all(|name| name.contains("default/bad")), "{names:?}");
}

#[test]
fn a_policy_that_is_not_even_yaml_is_strict_for_whomever_it_may_be_for() {
    let malformed = [
        "kind: PeerAuthentication\nmetadata:\n  name: a\n  namespace: default\nspec: {mtls: {mode: STRICT}\n",
        "kind: PeerAuthentication\nmetadata: {name: a, namespace: shop\nspec: {}\n",
        "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"PeerAuthentication\", \"spec\": {\"mtls\": {,}}}",
        "apiVersion: security.istio.io/v1\nkin\nd: x\n",
        "apiVersion: v1\nkind: List\nitems:\n- kind: PeerAuthentication\n  spec: {mtls: {mode: [}\n",
        // A label's name is not a namespace, wherever it stands.
        "kind: PeerAuthentication\nmetadata:\n  labels:\n    namespace: shop\n  name: a\n  namespace: default\nspec: [\n",
        "kind: PeerAuthentication\nmetadata:\n  labels:\n    namespace: shop\n  name: a\nspec: [\n",
        "kind: PeerAuthentication\nmetadata:\n  name: a\n\tnamespace: default\nspec: {}\n",
        "KIND: peerauthentication\nmetadata: {name: a}\nspec: [\n",
    ];
    for text in malformed {
        assert_eq!(modes(&format!("---\n{text}")), STRICT, "{text}");
    }
    let elsewhere =
        "kind: PeerAuthentication\nmetadata:\n  name: a\n  namespace: shop\nspec: {mtls: {mode: STRICT}\n";
    assert_eq!(modes(&format!("---\n{elsewhere}")), PERMISSIVE);
    assert_eq!(modes("---\nkind: Service\nspec: [\n"), PERMISSIVE, "what cannot be a policy closes nothing");
}

#[test]
fn it_reaches_no_further_than_it_may_have_meant() {
    let bad = "mtls: {mode: NONE}";
    assert_eq!(modes(&policy_in("shop", &format!("{{{bad}}}"))), PERMISSIVE);
    assert_eq!(modes(&policy(&format!("{{selector: {{matchLabels: {{app: db}}}}, {bad}}}"))), PERMISSIVE);
    assert_eq!(modes(&policy(&format!("{{selector: {{matchLabels: {{app: reviews}}}}, {bad}}}"))), STRICT);
    // A narrower policy that can be used still rules its workloads, as it would beside one that is right.
    let own = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: own}\nspec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}}\n";
    assert_eq!(modes(&format!("{own}{}", policy(&format!("{{{bad}}}")))), PERMISSIVE);
    // But not if the other may be for the same workloads.
    assert_eq!(modes(&format!("{own}{}", policy(&format!("{{selector: 5, {bad}}}")))), STRICT);
    let first = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: first}\nspec: {mtls: {mode: PERMISSIVE}}\n";
    assert_eq!(modes(&format!("{first}{}", policy(&format!("{{{bad}}}")))), STRICT);
}

#[test]
fn a_refusal_names_the_document_that_cannot_be_used() {
    let policy = lets_in(&policy("{mtls: {mode: NONE}}"));

    assert_eq!(&*policy.default.name, "PeerAuthentication default/bad (mesh.yaml:26), which cannot be used");
}

fn entry(fields: &str, metadata: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: db{metadata}}}\nspec: {{address: 10.0.0.9, {fields}}}\n"
    )
}

/// What is known of the address of `db`.
fn endpoint(documents: &str) -> (Option<String>, MtlsMode) {
    let (mesh, problems) = compiled(documents);
    assert_ne!(errors(&problems), [""; 0], "{documents}");
    let found = mesh.lookup("default", "10.0.0.9:5432");
    let Lookup::Address(found) = found else { panic!("{documents}: {found:?}") };
    let Address { endpoint: Some(endpoint), .. } = *found else { panic!("{documents}: {found:?}") };
    let mode = mesh.workloads[&"default/db".parse().unwrap()].policy.rule(5432).mode;
    (endpoint.identity.map(|identity| identity.to_string()), mode)
}

#[test]
fn a_workload_that_cannot_be_used_keeps_its_address_and_is_never_called_in_plaintext() {
    let identity = |account: &str| Some(format!("spiffe://cluster.local/ns/default/sa/{account}"));
    let label = "labels: {security.istio.io/tlsMode: istio}, ports: {db: 5432}";
    for (document, account) in [
        (
            entry("serviceAccount: db, ports: {db: 5432}, labels: {security.istio.io/tlsMode: Istio}", ""),
            "db",
        ),
        (entry("serviceAccount: db, ports: {db: 5432}, labels: {security.istio.io/tlsMode: 5}", ""), "db"),
        (entry("serviceAccount: db, ports: {db: 5432}, labels: [tlsMode]", ""), "db"),
        (
            entry("serviceAccount: db, ports: {db: 5432}", ", labels: {security.istio.io/tlsMode: [istio]}"),
            "db",
        ),
        (
            entry("serviceAccount: db, ports: {db: 5432}", ", labels: {security.istio.io/tlsMode: mutual}"),
            "db",
        ),
        (entry(&format!("serviceAccount: db, weight: heavy, {label}"), ""), "db"),
        (entry(&format!("serviceAccount: Not One, {label}"), ""), "cannot.be.read"),
        (
            entry(
                &format!("serviceAccount: db, {label}"),
                ", annotations: {config.selvedge.io/inbound: nowhere}",
            ),
            "db",
        ),
    ] {
        assert_eq!(endpoint(&document), (identity(account), MtlsMode::Strict), "{document}");
    }
}

fn rule(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: bad}}\nspec: {{{spec}}}\n"
    )
}

fn refusals(documents: &str) -> Vec<String> {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    assert_ne!(errors(&problems), [""; 0], "{documents}");
    reviews(&mesh).backends.iter().filter_map(|backend| backend.broken.clone()).collect()
}

#[test]
fn a_rule_about_tls_that_cannot_be_used_refuses_its_host() {
    for spec in [
        "host: reviews, trafficPolicy: {tls: {mode: simple}}",
        "host: reviews, trafficPolicy: {tls: {mode: MUTUAL}}",
        "host: reviews, trafficPolicy: {tls: SIMPLE}",
        "host: reviews, trafficPolicy: {tls: {mode: SIMPLE}, outlierDetection: {interval: soon}}",
        "host: reviews, exportTo: [A B], trafficPolicy: {tls: {mode: SIMPLE}}",
        "host: reviews, trafficPolicy: {portLevelSettings: [{port: {number: 0}, tls: {mode: SIMPLE}}]}",
        "host: reviews, traffic_policy: {port_level_settings: [{port: x, tls: {mode: SIMPLE}}]}",
        "host: reviews, subsets: [{name: v1, trafficPolicy: {tls: {mode: ISTIO}}}]",
        "host: 5, trafficPolicy: {tls: {mode: SIMPLE}}",
        "host: '*.default.svc.cluster.local', trafficPolicy: {tls: {mode: 5}}",
    ] {
        let told = refusals(&rule(spec));
        assert!(told[0].contains("DestinationRule default/bad"), "{spec}: {told:?}");
        let beside = refusals(&format!("{SUBSETS}{}", rule(spec)));
        assert!(beside[0].contains("DestinationRule default/bad"), "{spec} beside a good one: {beside:?}");
    }
    let text = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: bad\nspec:\n  host: reviews\n  trafficPolicy: {tls: {mode: SIMPLE}\n";
    assert!(refusals(text)[0].contains("DestinationRule default/bad"));
    for head in [
        "apiVersion: networking.istio.io/v9\nkind: DestinationRule\n",
        "apiVersion: networking.istio.io/v1\nkind: destinationRule\n",
        "ApiVersion: networking.istio.io/v1\nKind: DestinationRule\n",
    ] {
        let text = format!(
            "---\n{head}metadata: {{name: bad}}\nspec: {{host: reviews, trafficPolicy: {{tls: {{mode: SIMPLE}}}}}}\n"
        );
        assert!(!refusals(&text).is_empty(), "{text}");
    }
    let json = "---\n{\"kind\": \"DestinationRule\", \"spec\": {\"host\": \"reviews\", \"trafficPolicy\": {\"tls\": {\"mode\": \"SIMPLE\"}}\n";
    assert!(!refusals(json).is_empty());
    for spec in [
        "host: reviews, trafficPolicy: {outlierDetection: {interval: soon}}",
        "host: other, trafficPolicy: {tls: 5}",
    ] {
        assert_eq!(refusals(&rule(spec)), [""; 0], "{spec}");
    }
}

#[test]
fn the_hosts_of_an_entry_that_cannot_be_used_are_not_nobodys() {
    for fields in [
        "resolution: STATIC, ports: [{number: 80, name: http}], endpoints: [{address: 192.0.2.1, weight: x}]",
        "resolution: OTHER, ports: [{number: 80, name: http}]",
        "location: INSIDE, resolution: DNS, ports: [{number: 80, name: http}]",
        "exportTo: [A B], resolution: DNS, ports: [{number: 80, name: http}]",
        "resolution: DNS, ports: [{number: 80, name: http}, {number: 0, name: x}]",
        "addresses: [x], resolution: DNS, ports: [{number: 80, name: http}]",
    ] {
        let document = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: bad}}\nspec: {{hosts: [api.example], {fields}}}\n"
        );
        let (mesh, problems) = compiled(&document);

        assert_ne!(errors(&problems), [""; 0], "{fields}");
        let key = ServiceKey::new("api.example", 80);
        assert_eq!(mesh.lookup("default", "api.example"), Lookup::Service(key.clone()), "{fields}");
        let endpoints = &mesh.endpoints[&key];
        assert!(
            endpoints.list.is_empty() && endpoints.named.is_empty() && endpoints.requested.is_none(),
            "{fields}"
        );
    }
}

#[test]
fn whom_a_revocation_names_is_refused_although_the_rest_of_it_cannot_be_read() {
    let text = "apiVersion: selvedge.io/v1alpha1\nkind: Revocation\nmetadata: {name: stolen, namespace: istio-system}\nspec: {workloads: [shop/db-0], serials: all, until: [1]}\n";
    let (mesh, problems) = compiled(text);

    assert_ne!(errors(&problems), [""; 0]);
    let list: Vec<_> =
        mesh.revocations.list().iter().map(|entry| (entry.revoked.clone(), entry.until)).collect();
    assert_eq!(list, [(selvedge_model::Revoked::Workload("shop/db-0".parse().unwrap()), None)]);
}
