//! What a workload lets in.

use std::sync::Arc;

use selvedge_model::{
    Authorization, InboundPolicy, MtlsMode, MtlsRule,
    limit::RateLimits,
    policy::{NetworkRules, Servers},
};

use super::{ConvertError, all, port, required};
use crate::wire;

impl From<MtlsMode> for wire::MtlsMode {
    fn from(mode: MtlsMode) -> Self {
        match mode {
            MtlsMode::Strict => Self::Strict,
            MtlsMode::Permissive => Self::Permissive,
            MtlsMode::Disable => Self::Disable,
        }
    }
}

impl From<&MtlsRule> for wire::MtlsRule {
    fn from(rule: &MtlsRule) -> Self {
        Self { mode: wire::MtlsMode::from(rule.mode).into(), name: rule.name.to_string() }
    }
}

impl TryFrom<wire::MtlsRule> for MtlsRule {
    type Error = ConvertError;

    fn try_from(rule: wire::MtlsRule) -> Result<Self, ConvertError> {
        let mode = match wire::MtlsMode::try_from(rule.mode) {
            Ok(wire::MtlsMode::Strict) => MtlsMode::Strict,
            Ok(wire::MtlsMode::Permissive) => MtlsMode::Permissive,
            Ok(wire::MtlsMode::Disable) => MtlsMode::Disable,
            Ok(wire::MtlsMode::Unspecified) | Err(_) => {
                return Err(ConvertError::Unknown { field: "mutual-TLS mode", value: rule.mode });
            }
        };
        Ok(Self { mode, name: Arc::from(rule.name) })
    }
}

impl From<&InboundPolicy> for wire::InboundPolicy {
    fn from(policy: &InboundPolicy) -> Self {
        Self {
            default: Some((&policy.default).into()),
            ports: policy.ports.iter().map(|(port, rule)| (u32::from(*port), rule.into())).collect(),
            authorization: policy.authorization.as_deref().map(Into::into),
            network: policy.network.as_deref().map(Into::into),
            authentication: policy.authentication.as_deref().map(Into::into),
            servers: policy.servers.as_deref().map(Into::into),
            limits: policy.limits.iter().flat_map(|limits| &limits.all).map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::InboundPolicy> for InboundPolicy {
    type Error = ConvertError;

    fn try_from(policy: wire::InboundPolicy) -> Result<Self, ConvertError> {
        let rule = |(number, rule)| Ok((port("inbound policy port", number)?, MtlsRule::try_from(rule)?));
        Ok(Self {
            default: required("inbound policy default", policy.default)?.try_into()?,
            ports: policy.ports.into_iter().map(rule).collect::<Result<_, _>>()?,
            authorization: match policy.authorization {
                Some(authorization) => Some(Arc::new(Authorization::try_from(authorization)?)),
                None => None,
            },
            network: policy.network.map(NetworkRules::try_from).transpose()?.map(Arc::new),
            authentication: match policy.authentication {
                Some(authentication) => Some(Arc::new(authentication.try_into()?)),
                None => None,
            },
            servers: policy.servers.map(Servers::try_from).transpose()?.map(Arc::new),
            limits: match policy.limits.is_empty() {
                true => None,
                false => Some(Arc::new(RateLimits { all: all(policy.limits)? })),
            },
        })
    }
}
