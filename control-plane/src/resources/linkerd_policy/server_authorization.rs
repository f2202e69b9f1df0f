//! `ServerAuthorization`: Linkerd's older way to say who may call `Server`s.

use serde::Deserialize;

use super::{
    Named,
    authentication::read_identities,
    identity::Identity,
    networks::{self, Network, NetworkYaml},
};
use crate::resources::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind},
    label_selector::{LabelSelector, LabelSelectorYaml},
    typed::FieldError,
};

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const KIND: ResourceKind = ResourceKind::new(
    "ServerAuthorization",
    &["policy.linkerd.io/v1beta1"],
    "serverauthorizations",
    Feedback::Events,
)
.policy()
.read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `ServerAuthorization` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerAuthorizationSpec {
    /// The `Server`s of its namespace that it is for.
    pub servers: Servers,
    /// The networks that clients must connect from; empty: any.
    pub networks: Vec<Network>,
    /// The identities that clients must have; `None`: none is asked for.
    pub identities: Option<Identities>,
}

/// Which `Server`s.
#[derive(Debug, Clone, PartialEq)]
pub enum Servers {
    /// The one of this name.
    Named(String),
    /// Those with these labels.
    Labelled(LabelSelector),
}

/// Any of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// Identities.
    pub identities: Vec<Identity>,
    /// Service accounts.
    pub accounts: Vec<Named>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    server: ServerYaml,
    client: ClientYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerYaml {
    name: Option<String>,
    selector: Option<LabelSelectorYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientYaml {
    networks: Vec<NetworkYaml>,
    unauthenticated: bool,
    #[serde(rename = "meshTLS")]
    mesh_tls: Option<MeshTlsYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshTlsYaml {
    #[serde(rename = "unauthenticatedTLS")]
    unauthenticated_tls: bool,
    identities: Vec<String>,
    service_accounts: Vec<AccountYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccountYaml {
    name: String,
    namespace: Option<String>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ServerAuthorizationSpec, FieldError> {
    let servers = match (yaml.server.name, yaml.server.selector) {
        (Some(name), None) => Servers::Named(name),
        (None, Some(selector)) => Servers::Labelled(selector.read("spec.server.selector")?),
        _ => {
            return Err(wrong(
                "spec.server",
                "needs either name or selector, to say which Servers are meant",
            ));
        }
    };
    let identities = match (yaml.client.mesh_tls, yaml.client.unauthenticated) {
        (None, true) => None,
        (Some(mesh_tls), false) => Some(mesh_tls.read(reading)?),
        (Some(_), true) => {
            let message =
                "cannot be set together with meshTLS, which asks for an identity; remove one of them";
            return Err(wrong("spec.client.unauthenticated", message));
        }
        (None, false) => {
            let message = "says of nobody that he may call; set meshTLS, or unauthenticated: true";
            return Err(wrong("spec.client", message));
        }
    };
    let networks = networks::read(yaml.client.networks, "spec.client.networks")?;
    Ok(ServerAuthorizationSpec { servers, networks, identities })
}

impl MeshTlsYaml {
    fn read(self, reading: &mut Reading<'_>) -> Result<Identities, FieldError> {
        let field = "spec.client.meshTLS";
        let named = !self.identities.is_empty() || !self.service_accounts.is_empty();
        match (self.unauthenticated_tls, named) {
            (true, true) => {
                let message =
                    "cannot be set together with identities or serviceAccounts; remove it, or remove these";
                return Err(wrong(format!("{field}.unauthenticatedTLS"), message));
            }
            (false, false) => {
                return Err(wrong(field, "names nobody; list identities or serviceAccounts"));
            }
            (true, false) => {
                // Whoever speaks mutual TLS here has an identity.
                let identities = vec![Identity::of("*")];
                return Ok(Identities { identities, accounts: Vec::new() });
            }
            (false, true) => {}
        }
        let accounts = self.service_accounts.into_iter().enumerate();
        let accounts = accounts.map(|(number, account)| match account.name.is_empty() {
            true => Err(wrong(format!("{field}.serviceAccounts[{number}].name"), "is missing")),
            false => Ok(Named { namespace: account.namespace, name: account.name }),
        });
        Ok(Identities {
            accounts: accounts.collect::<Result<_, _>>()?,
            identities: read_identities(&self.identities, &format!("{field}.identities"), reading),
        })
    }
}
