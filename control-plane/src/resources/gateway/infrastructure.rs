//! How a `Gateway` runs in a cluster: what the Deployment and the Service that are made for it are to be like.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::super::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// `infrastructure`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// Labels for everything that is made.
    pub labels: BTreeMap<String, String>,
    /// Annotations for everything that is made.
    pub annotations: BTreeMap<String, String>,
    /// The ConfigMap with further parameters, in the gateway's namespace.
    pub parameters: Option<String>,
}

/// One of `addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// Any other, such as a host name, as it is written.
    Other(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct InfrastructureYaml {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    parameters_ref: Option<ParametersYaml>,
}

#[derive(Debug, Deserialize)]
struct ParametersYaml {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct AddressYaml {
    #[serde(rename = "type")]
    kind: Option<String>,
    value: Option<String>,
}

impl InfrastructureYaml {
    /// It stands at `spec.infrastructure`.
    pub(super) fn read(self, in_file: bool, reading: &mut Reading<'_>) -> Result<Infrastructure, FieldError> {
        let Self { labels, annotations, parameters_ref } = self;
        let parameters = parameters_ref.map(ParametersYaml::read).transpose()?;
        let infrastructure = Infrastructure { labels, annotations, parameters };
        if in_file && infrastructure != Infrastructure::default() {
            let message =
                "is not acted on here: it is for the Deployment that is made in a cluster; remove it";
            reading.not_acted_on("spec.infrastructure", message);
        }
        Ok(infrastructure)
    }
}

impl ParametersYaml {
    fn read(self) -> Result<String, FieldError> {
        let Self { group, kind, name } = self;
        if !group.is_empty() || kind != "ConfigMap" {
            let message = format!("{group}/{kind} holds no parameters; name a ConfigMap, of the group \"\"");
            return Err(wrong("spec.infrastructure.parametersRef", message));
        }
        Ok(name)
    }
}

/// `spec.addresses`. One without a value asks for any address.
pub(super) fn read_addresses(
    list: Vec<AddressYaml>,
    in_file: bool,
    reading: &mut Reading<'_>,
) -> Result<Vec<Address>, FieldError> {
    if in_file && !list.is_empty() {
        let message = "is not acted on: a gateway listens where its workload is; remove it";
        reading.not_acted_on("spec.addresses", message);
    }
    let mut addresses = Vec::new();
    for (index, AddressYaml { kind, value }) in list.into_iter().enumerate() {
        let kind = kind.unwrap_or_else(|| "IPAddress".to_owned());
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        addresses.push(match (kind.as_str(), value.parse()) {
            ("IPAddress", Ok(address)) => Address::Ip(address),
            ("IPAddress", Err(_)) => {
                let field = format!("spec.addresses[{index}].value");
                return Err(wrong(field, format!("{value:?} is not an IP address; write one, or remove it")));
            }
            _ => Address::Other(format!("{kind} {value}")),
        });
    }
    Ok(addresses)
}
