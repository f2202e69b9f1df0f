//! `AuthorizationPolicy` of Linkerd: who may call a `Server`, or a route of it.

use serde::Deserialize;

use super::{GROUP, Named, ReferenceYaml, authentication::VERSIONS};
use crate::resources::{
    document::{Reading, wrong},
    http_route,
    kinds::{Feedback, ResourceKind},
    typed::FieldError,
};

/// Istio has a kind of that name, too.
pub const CALLED: &str = "AuthorizationPolicy.policy.linkerd.io";

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const KIND: ResourceKind =
    ResourceKind::new("AuthorizationPolicy", VERSIONS, "authorizationpolicies", Feedback::Events)
        .called(CALLED)
        .policy()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What an `AuthorizationPolicy` of Linkerd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPolicySpec {
    /// What it is for.
    pub target: Target,
    /// Who may call it: whoever is what all of these ask for.
    pub required: Vec<Authentication>,
}

/// What a policy is for; all of it is in the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A `Server`.
    Server(String),
    /// A route whose parent is a `Server`.
    Route {
        /// What its kind is [called](ResourceKind::called).
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Each `Server` of the namespace.
    Namespace,
}

/// What is asked of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// What a `MeshTLSAuthentication` says.
    MeshTls(Named),
    /// What a `NetworkAuthentication` says.
    Network(Named),
    /// To be this service account.
    Account(Named),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    target_ref: ReferenceYaml,
    required_authentication_refs: Vec<ReferenceYaml>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ServerPolicySpec, FieldError> {
    let required = yaml.required_authentication_refs.into_iter().enumerate();
    let required: Vec<_> =
        required.map(|(number, one)| authentication(one, number)).collect::<Result<_, _>>()?;
    for is_one in [is_identity, is_network] {
        if let Some((number, _)) = required.iter().enumerate().filter(|(_, one)| is_one(one)).nth(1) {
            let message = "asks for the same as another; at most one MeshTLSAuthentication or ServiceAccount, and one \
                           NetworkAuthentication can be required";
            return Err(wrong(format!("spec.requiredAuthenticationRefs[{number}]"), message));
        }
    }
    let target = target(&yaml.target_ref)?;
    if required.is_empty() {
        let message = "is empty, so everybody may call what this policy is for";
        reading.warning("spec.requiredAuthenticationRefs", message);
    }
    Ok(ServerPolicySpec { target, required })
}

fn is_identity(one: &Authentication) -> bool {
    matches!(one, Authentication::MeshTls(_) | Authentication::Account(_))
}

fn is_network(one: &Authentication) -> bool {
    matches!(one, Authentication::Network(_))
}

fn target(yaml: &ReferenceYaml) -> Result<Target, FieldError> {
    let field = "spec.targetRef";
    if let Some(namespace) = &yaml.namespace {
        let message =
            format!("{namespace:?} is set, but a policy is for what is in its own namespace; remove it");
        return Err(wrong(format!("{field}.namespace"), message));
    }
    let is_route = |group: &str, kind: &str| yaml.is(group, kind);
    Ok(if yaml.is(GROUP, "Server") {
        Target::Server(yaml.name(field)?)
    } else if yaml.is("", "Namespace") {
        Target::Namespace
    } else if is_route(GROUP, "HTTPRoute") {
        Target::Route { kind: http_route::LINKERDS, name: yaml.name(field)? }
    } else if is_route("gateway.networking.k8s.io", "HTTPRoute") {
        Target::Route { kind: "HTTPRoute", name: yaml.name(field)? }
    } else if is_route("gateway.networking.k8s.io", "GRPCRoute") {
        Target::Route { kind: "GRPCRoute", name: yaml.name(field)? }
    } else {
        let message = format!(
            "{} cannot have a policy; name a Server, HTTPRoute, GRPCRoute or Namespace",
            yaml.words()
        );
        return Err(wrong(field, message));
    })
}

fn authentication(yaml: ReferenceYaml, number: usize) -> Result<Authentication, FieldError> {
    let field = format!("spec.requiredAuthenticationRefs[{number}]");
    let kind = if yaml.is(GROUP, "MeshTLSAuthentication") {
        Authentication::MeshTls
    } else if yaml.is(GROUP, "NetworkAuthentication") {
        Authentication::Network
    } else if yaml.is("", "ServiceAccount") {
        Authentication::Account
    } else {
        let message = format!(
            "{} says nothing of clients; name a MeshTLSAuthentication, NetworkAuthentication or ServiceAccount",
            yaml.words()
        );
        return Err(wrong(field, message));
    };
    let name = yaml.name(&field)?;
    Ok(kind(Named { namespace: yaml.namespace, name }))
}
