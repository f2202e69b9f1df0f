//! `MeshTLSAuthentication` and `NetworkAuthentication`: which identities, and which networks, a policy asks for.

use serde::Deserialize;

use super::{
    Named, ReferenceYaml,
    identity::Identity,
    networks::{self, Network, NetworkYaml},
};
use crate::resources::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind},
    typed::FieldError,
};

/// Versions of both.
pub(super) const VERSIONS: &[&str] = &["policy.linkerd.io/v1alpha1"];

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const MESH_TLS: ResourceKind =
    ResourceKind::new("MeshTLSAuthentication", VERSIONS, "meshtlsauthentications", Feedback::Events)
        .policy()
        .read_as_spec::<MeshTlsYaml>(|document| document.with_spec(read_mesh_tls));

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const NETWORK: ResourceKind =
    ResourceKind::new("NetworkAuthentication", VERSIONS, "networkauthentications", Feedback::Events)
        .policy()
        .read_as_spec::<NetworksYaml>(|document| document.with_spec(read_networks));

/// What a `MeshTLSAuthentication` says: any of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshTlsSpec {
    /// Identities.
    pub identities: Vec<Identity>,
    /// Service accounts.
    pub accounts: Vec<Named>,
    /// Namespaces of which every service account is meant.
    pub namespaces: Vec<String>,
}

/// What a `NetworkAuthentication` says: any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworksSpec {
    /// Networks.
    pub networks: Vec<Network>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MeshTlsYaml {
    identities: Vec<String>,
    identity_refs: Vec<ReferenceYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworksYaml {
    networks: Vec<NetworkYaml>,
}

fn read_mesh_tls(yaml: MeshTlsYaml, reading: &mut Reading<'_>) -> Result<MeshTlsSpec, FieldError> {
    let MeshTlsYaml { identities, identity_refs } = yaml;
    if identities.is_empty() && identity_refs.is_empty() {
        return Err(wrong("spec.identities", "is missing; list identities, or identityRefs"));
    }
    let identities = read_identities(&identities, "spec.identities", reading);
    let mut spec = MeshTlsSpec { identities, ..MeshTlsSpec::default() };
    for (number, reference) in identity_refs.into_iter().enumerate() {
        let field = format!("spec.identityRefs[{number}]");
        if reference.is("", "ServiceAccount") {
            let name = reference.name(&field)?;
            spec.accounts.push(Named { namespace: reference.namespace, name });
        } else if reference.is("", "Namespace") {
            spec.namespaces.push(reference.name(&field)?);
        } else {
            let message =
                format!("{} has no identity; name a ServiceAccount or a Namespace", reference.words());
            return Err(wrong(field, message));
        }
    }
    Ok(spec)
}

/// The identities of the list at `field`; those that nobody can have are reported.
pub(super) fn read_identities(texts: &[String], field: &str, reading: &mut Reading<'_>) -> Vec<Identity> {
    let read = |(number, text): (usize, &String)| {
        let identity = Identity::of(text);
        if identity == Identity::Nobody {
            let message = format!(
                "{text:?} is nobody's identity in a mesh, so it lets nobody in; write \
                 ACCOUNT.NAMESPACE.serviceaccount.identity.linkerd.cluster.local, *, or *. and the end of such a name"
            );
            reading.warning(format!("{field}[{number}]"), message);
        }
        identity
    };
    texts.iter().enumerate().map(read).collect()
}

fn read_networks(yaml: NetworksYaml, _: &mut Reading<'_>) -> Result<NetworksSpec, FieldError> {
    if yaml.networks.is_empty() {
        return Err(wrong("spec.networks", "is missing; list at least one network"));
    }
    Ok(NetworksSpec { networks: networks::read(yaml.networks, "spec.networks")? })
}
