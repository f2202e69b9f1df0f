//! Rules for opaque connections.

use selvedge_model::{Layer, TcpMatch, TcpRule, TcpTable};

use super::{ConvertError, all, parse};
use crate::wire;

impl From<&TcpTable> for wire::TcpTable {
    fn from(table: &TcpTable) -> Self {
        Self { rules: table.rules.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::TcpTable> for TcpTable {
    type Error = ConvertError;

    fn try_from(table: wire::TcpTable) -> Result<Self, ConvertError> {
        Ok(Self { rules: all(table.rules)? })
    }
}

impl From<Layer> for wire::Layer {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::Tls => Self::Tls,
            Layer::Tcp => Self::Tcp,
        }
    }
}

impl From<&TcpRule> for wire::TcpRule {
    fn from(rule: &TcpRule) -> Self {
        Self {
            name: rule.name.clone(),
            layer: wire::Layer::from(rule.layer).into(),
            matches: rule.matches.iter().map(Into::into).collect(),
            backends: rule.backends.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::TcpRule> for TcpRule {
    type Error = ConvertError;

    fn try_from(rule: wire::TcpRule) -> Result<Self, ConvertError> {
        let layer = match wire::Layer::try_from(rule.layer) {
            Ok(wire::Layer::Tls) => Layer::Tls,
            Ok(wire::Layer::Tcp) => Layer::Tcp,
            Ok(wire::Layer::Unspecified) | Err(_) => {
                return Err(ConvertError::Unknown { field: "rule layer", value: rule.layer });
            }
        };
        Ok(Self { name: rule.name, layer, matches: all(rule.matches)?, backends: all(rule.backends)? })
    }
}

impl From<&TcpMatch> for wire::TcpMatch {
    fn from(wanted: &TcpMatch) -> Self {
        Self {
            server_names: wanted.server_names.clone(),
            destination_subnets: wanted.destination_subnets.iter().map(ToString::to_string).collect(),
            source_labels: wanted.source_labels.clone(),
            source_namespace: wanted.source_namespace.clone(),
        }
    }
}

impl TryFrom<wire::TcpMatch> for TcpMatch {
    type Error = ConvertError;

    fn try_from(wanted: wire::TcpMatch) -> Result<Self, ConvertError> {
        let subnets = wanted.destination_subnets.iter().map(|subnet| parse("destination subnet", subnet));
        Ok(Self {
            server_names: wanted.server_names,
            destination_subnets: subnets.collect::<Result<_, _>>()?,
            source_labels: wanted.source_labels,
            source_namespace: wanted.source_namespace,
        })
    }
}
