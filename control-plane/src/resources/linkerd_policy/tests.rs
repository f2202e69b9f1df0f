//! What Linkerd's policies say alone, and what is refused.

use std::{path::Path, sync::Arc};

use selvedge_model::policy::TextPattern;

use super::{
    access::Access,
    authorization::Target,
    identity::Identity,
    server::{ServerPort, ServerSpec},
};
use crate::resources::{DecodeOutcome, Decoded, Resource, decode};

fn only(kind: &str, version: &str, spec: &str) -> Decoded {
    let text = format!(
        "apiVersion: policy.linkerd.io/{version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
    );
    let mut documents = decode(&text, &Arc::from(Path::new("policy.yaml")), "default");
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0)
}

fn server(spec: &str) -> ServerSpec {
    let decoded = only("Server", "v1beta3", spec);
    match &decoded.outcome {
        DecodeOutcome::Understood(Resource::Server(document)) => document.spec.clone(),
        _ => panic!("{:?}", decoded.problems),
    }
}

#[test]
fn a_server_is_a_port_by_number_or_name_and_closed_unless_it_says_otherwise() {
    let numbered = server("{podSelector: {matchLabels: {app: web}}, port: 8080}");
    assert_eq!((numbered.port, numbered.access), (ServerPort::Number(8080), Access::Deny));
    assert!(!numbered.is_opaque && numbered.labels.is_some());

    let named =
        server("{podSelector: {}, port: http, proxyProtocol: opaque, accessPolicy: all-authenticated}");
    assert_eq!((named.port, named.access), (ServerPort::Named("http".to_owned()), Access::AllAuthenticated));
    assert!(named.is_opaque);
    let quoted = server("{podSelector: {}, port: '8080', proxyProtocol: TLS}");
    assert!(quoted.is_opaque && quoted.port == ServerPort::Number(8080));
    for version in ["v1beta1", "v1beta2"] {
        let decoded = only("Server", version, "{podSelector: {}, port: 1}");
        assert!(matches!(decoded.outcome, DecodeOutcome::Understood(_)), "{version}");
    }
    let outside = only("Server", "v1beta3", "{externalWorkloadSelector: {}, port: 1}");
    assert_eq!(outside.problems[0].field, "spec.externalWorkloadSelector");
}

#[test]
fn a_target_is_what_linkerd_attaches_policies_to() {
    let target = |reference: &str| {
        let decoded = only(
            "AuthorizationPolicy",
            "v1alpha1",
            &format!(
                "{{targetRef: {reference}, requiredAuthenticationRefs: [{{kind: ServiceAccount, name: b}}]}}"
            ),
        );
        match &decoded.outcome {
            DecodeOutcome::Understood(Resource::ServerPolicy(document)) => {
                assert_eq!(document.name.to_string(), "AuthorizationPolicy.policy.linkerd.io shop/a");
                document.spec.target.clone()
            }
            _ => panic!("{:?}", decoded.problems),
        }
    };
    let route = |kind| Target::Route { kind, name: "r".to_owned() };

    assert_eq!(target("{group: policy.linkerd.io, kind: Server, name: r}"), Target::Server("r".to_owned()));
    assert_eq!(target("{kind: Namespace, name: shop}"), Target::Namespace);
    assert_eq!(
        target("{group: policy.linkerd.io, kind: HTTPRoute, name: r}"),
        route("HTTPRoute.policy.linkerd.io")
    );
    assert_eq!(target("{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}"), route("HTTPRoute"));
    assert_eq!(target("{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}"), route("GRPCRoute"));
}

#[test]
fn identities_are_spiffe_ids_in_linkerds_words() {
    let exact = |text: &str| Identity::Of(TextPattern::Exact(text.into()));
    let prefix = |text: &str| Identity::Of(TextPattern::Prefix(text.into()));
    let end = "serviceaccount.identity.linkerd.cluster.local";

    assert_eq!(Identity::of("*"), Identity::Of(TextPattern::Present));
    assert_eq!(Identity::of(&format!("web.shop.{end}")), exact("cluster.local/ns/shop/sa/web"));
    assert_eq!(Identity::of(&format!("a.b.shop.{end}")), exact("cluster.local/ns/shop/sa/a.b"));
    assert_eq!(
        Identity::of("w.s.serviceaccount.identity.mesh.corp.example"),
        exact("corp.example/ns/s/sa/w")
    );
    assert_eq!(Identity::of(&format!("*.shop.{end}")), prefix("cluster.local/ns/shop/sa/"));
    assert_eq!(Identity::of(&format!("*.{end}")), prefix("cluster.local/"));
    assert_eq!(Identity::of("*.cluster.local"), Identity::EndsWith("cluster.local".to_owned()));
    assert_eq!(Identity::of("spiffe://a/b"), exact("a/b"));
    let Identity::Of(pattern) = Identity::of(&format!("*.b.shop.{end}")) else { panic!() };
    assert!(pattern.is_match("cluster.local/ns/shop/sa/a.b"));
    assert!(
        !pattern.is_match("cluster.local/ns/shop/sa/ab") && !pattern.is_match("cluster.local/ns/x/sa/a.b")
    );
    for nobody in ["web", "", "web.shop", &format!("shop.{end}"), &format!(".{end}")] {
        assert_eq!(Identity::of(nobody), Identity::Nobody, "{nobody}");
    }
}

/// Kind, `spec`, and the field that is told.
const REFUSED: &[(&str, &str, &str)] = &[
    ("Server", "{port: 80}", "spec.podSelector"),
    ("Server", "{podSelector: {}, externalWorkloadSelector: {}, port: 80}", "spec.externalWorkloadSelector"),
    ("Server", "{podSelector: {}, port: 0}", "spec.port"),
    ("Server", "{podSelector: {}, port: 80, proxyProtocol: http}", "spec.proxyProtocol"),
    ("Server", "{podSelector: {}, port: 80, accessPolicy: allow}", "spec.accessPolicy"),
    ("Server", "{podSelector: {}, port: 80, acessPolicy: deny}", "spec.acessPolicy"),
    (
        "AuthorizationPolicy",
        "{targetRef: {kind: Pod, name: a}, requiredAuthenticationRefs: []}",
        "spec.targetRef",
    ),
    (
        "AuthorizationPolicy",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: a, namespace: b}, requiredAuthenticationRefs: []}",
        "spec.targetRef.namespace",
    ),
    (
        "AuthorizationPolicy",
        "{targetRef: {group: policy.linkerd.io, kind: Server}, requiredAuthenticationRefs: []}",
        "spec.targetRef.name",
    ),
    (
        "AuthorizationPolicy",
        "{targetRef: {kind: Namespace, name: a}, requiredAuthenticationRefs: [{kind: User, name: a}]}",
        "spec.requiredAuthenticationRefs[0]",
    ),
    (
        "AuthorizationPolicy",
        "{targetRef: {kind: Namespace, name: a}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: a}, \
         {group: policy.linkerd.io, kind: MeshTLSAuthentication, name: b}]}",
        "spec.requiredAuthenticationRefs[1]",
    ),
    ("MeshTLSAuthentication", "{}", "spec.identities"),
    ("MeshTLSAuthentication", "{identityRefs: [{kind: Pod, name: a}]}", "spec.identityRefs[0]"),
    ("NetworkAuthentication", "{networks: []}", "spec.networks"),
    ("NetworkAuthentication", "{networks: [{cidr: 10.0.0.0/33}]}", "spec.networks[0].cidr"),
    (
        "NetworkAuthentication",
        "{networks: [{cidr: 10.0.0.0/8, except: [11.0.0.0/9]}]}",
        "spec.networks[0].except[0]",
    ),
    (
        "NetworkAuthentication",
        "{networks: [{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}]}",
        "spec.networks[0].except[0]",
    ),
];

const REFUSED_OF_SERVERS: &[(&str, &str)] = &[
    ("{server: {}, client: {unauthenticated: true}}", "spec.server"),
    ("{server: {name: a, selector: {}}, client: {unauthenticated: true}}", "spec.server"),
    ("{server: {name: a}, client: {networks: [{cidr: 10.0.0.0/8}]}}", "spec.client"),
    ("{server: {name: a}, client: {meshTLS: {}}}", "spec.client.meshTLS"),
    (
        "{server: {name: a}, client: {unauthenticated: true, meshTLS: {identities: ['*']}}}",
        "spec.client.unauthenticated",
    ),
    (
        "{server: {name: a}, client: {meshTLS: {unauthenticatedTLS: true, identities: ['*']}}}",
        "spec.client.meshTLS.unauthenticatedTLS",
    ),
    (
        "{server: {name: a}, client: {meshTLS: {serviceAccounts: [{namespace: b}]}}}",
        "spec.client.meshTLS.serviceAccounts[0].name",
    ),
];

#[test]
fn what_linkerds_webhook_refuses_is_refused_at_its_field() {
    let version = |kind: &str| if kind == "Server" { "v1beta3" } else { "v1alpha1" };
    let all = REFUSED.iter().map(|(kind, spec, field)| (*kind, version(kind), *spec, *field));
    let of_servers = REFUSED_OF_SERVERS.iter();
    let of_servers = of_servers.map(|(spec, field)| ("ServerAuthorization", "v1beta1", *spec, *field));
    for (kind, version, spec, field) in all.chain(of_servers) {
        let decoded = only(kind, version, spec);
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{kind} {spec}: {decoded:?}");
        let problem = &decoded.problems[0];
        assert_eq!((problem.field.as_str(), problem.line), (field, Some(4)), "{kind} {spec}: {problem}");
        // Only without a Server, more may come in than was meant.
        assert_eq!(decoded.stand_in.is_some(), kind == "Server", "{kind} {spec}");
    }
}

#[test]
fn an_identity_that_nobody_can_have_is_told() {
    let decoded = only("MeshTLSAuthentication", "v1alpha1", "{identities: [web.shop, '*']}");
    let fields: Vec<_> = decoded.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.identities[0]"]);
}
