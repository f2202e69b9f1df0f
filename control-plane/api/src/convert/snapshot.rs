//! A workload as its own sidecar sees it, and the answers to lookups.

use std::sync::Arc;

use selvedge_model::{
    AppConnections, Lookup, Protocol, Workload,
    gateway::GatewayRole,
    policy::NetworkRules,
    snapshot::{Address, Declared},
};

use super::{ConvertError, all, invalid, parse, port, required, service::protocol};
use crate::wire::{self, lookup::Answer};

impl From<&Workload> for wire::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            name: workload.name.to_string(),
            identity: workload.identity.to_string(),
            meshed: workload.meshed,
            inbound: workload.inbound.as_ref().map(ToString::to_string),
            ports: workload.ports.iter().copied().map(Into::into).collect(),
            policy: Some((&workload.policy).into()),
            protocols: workload.protocols.iter().map(said).collect(),
            labels: (*workload.labels).clone(),
            app_connections: workload.app_connections.iter().map(app_connections).collect(),
            egress: workload.egress.as_deref().map(Into::into),
            gateway: workload.gateway.as_deref().map(Into::into),
            place: workload.place.as_deref().map(Into::into),
            services: workload
                .services
                .iter()
                .map(|(port, host)| (u32::from(*port), host.to_string()))
                .collect(),
            telemetry: workload.telemetry.as_deref().map(Into::into),
        }
    }
}

fn said((port, protocol): (&u16, &Protocol)) -> (u32, i32) {
    (u32::from(*port), wire::Protocol::from(*protocol).into())
}

fn app_connections((port, connections): (&u16, &AppConnections)) -> (u32, wire::AppConnections) {
    (u32::from(*port), (*connections).into())
}

impl TryFrom<wire::Workload> for Workload {
    type Error = ConvertError;

    fn try_from(workload: wire::Workload) -> Result<Self, ConvertError> {
        let ports = workload.ports.into_iter().map(|number| port("workload port", number));
        let protocols = workload.protocols.into_iter();
        let protocols =
            protocols.map(|(number, spoken)| Ok((port("workload port", number)?, protocol(spoken)?)));
        let app_connections = workload.app_connections.into_iter();
        let app_connections =
            app_connections.map(|(number, said)| Ok((port("workload port", number)?, said.into())));
        let services = workload.services.into_iter();
        let services = services.map(|(number, host)| Ok((port("workload port", number)?, Arc::from(host))));
        Ok(Self {
            services: services.collect::<Result<_, ConvertError>>()?,
            name: parse("workload name", &workload.name)?,
            identity: parse("workload identity", &workload.identity)?,
            meshed: workload.meshed,
            inbound: workload.inbound.map(|address| parse("inbound address", &address)).transpose()?,
            ports: ports.collect::<Result<_, _>>()?,
            policy: required("inbound policy", workload.policy)?.try_into()?,
            protocols: protocols.collect::<Result<_, ConvertError>>()?,
            labels: workload.labels.into(),
            app_connections: app_connections.collect::<Result<_, ConvertError>>()?,
            egress: workload.egress.map(NetworkRules::try_from).transpose()?.map(Arc::new),
            gateway: workload.gateway.map(GatewayRole::try_from).transpose()?.map(Arc::new),
            place: workload.place.map(|place| Arc::new(place.into())),
            telemetry: workload.telemetry.map(|telemetry| Arc::new(telemetry.into())),
        })
    }
}

impl From<&Declared> for wire::Declared {
    fn from(declared: &Declared) -> Self {
        Self { namespace: declared.namespace.to_string(), key: Some((&declared.key).into()) }
    }
}

impl TryFrom<wire::Declared> for Declared {
    type Error = ConvertError;

    fn try_from(declared: wire::Declared) -> Result<Self, ConvertError> {
        let key = required("service's port", declared.key)?.try_into()?;
        Ok(Self { namespace: declared.namespace.into(), key })
    }
}

impl wire::Lookup {
    /// The answer to a lookup of `authority`.
    pub fn new(authority: &str, lookup: &Lookup) -> Self {
        let (mut services, mut named) = (Vec::new(), false);
        let answer = match lookup {
            Lookup::Service(key) => Answer::Service(key.into()),
            Lookup::Address(address) => {
                services.extend(address.services.iter().map(Into::into));
                named = address.named;
                address
                    .endpoint
                    .as_ref()
                    .map_or(Answer::None(true), |endpoint| Answer::Endpoint(endpoint.into()))
            }
            Lookup::None => Answer::None(true),
        };
        Self { authority: authority.to_owned(), answer: Some(answer), services, named }
    }
}

impl TryFrom<wire::Lookup> for Lookup {
    type Error = ConvertError;

    fn try_from(lookup: wire::Lookup) -> Result<Self, ConvertError> {
        let endpoint = match required("lookup answer", lookup.answer)? {
            Answer::Service(key) => return Ok(Self::Service(key.try_into()?)),
            Answer::Endpoint(endpoint) => Some(endpoint.try_into()?),
            Answer::None(true) => None,
            // Only an explicit "none" may pass traffic through unprotected.
            Answer::None(false) => {
                return Err(invalid("lookup answer", "none: false", &"only true is known"));
            }
        };
        let address = Address { endpoint, services: all(lookup.services)?, named: lookup.named };
        Ok(if address == Address::default() { Self::None } else { Self::Address(Box::new(address)) })
    }
}
