//! Services, backends and endpoints.

use std::sync::Arc;

use selvedge_model::{
    Backend, BackendName, Endpoint, Endpoints, NamedEndpoint, Place, Protocol, Rule, Service, ServiceKey,
};

use super::{
    ConvertError, all, invalid,
    locality::{PlaceTable, numbered},
    parse, port, required,
};
use crate::wire;

impl From<&ServiceKey> for wire::ServiceKey {
    fn from(key: &ServiceKey) -> Self {
        Self { host: key.host.to_string(), port: key.port.into() }
    }
}

impl TryFrom<wire::ServiceKey> for ServiceKey {
    type Error = ConvertError;

    fn try_from(key: wire::ServiceKey) -> Result<Self, ConvertError> {
        if key.host.is_empty() {
            return Err(invalid("service host", "", &"a service has a host"));
        }
        Ok(Self { host: Arc::from(key.host), port: port("service port", key.port)? })
    }
}

impl From<Protocol> for wire::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Unspecified => Self::Unspecified,
            Protocol::Http => Self::Http,
            Protocol::Http2 => Self::Http2,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

pub(super) fn protocol(value: i32) -> Result<Protocol, ConvertError> {
    match wire::Protocol::try_from(value) {
        Ok(wire::Protocol::Unspecified) => Ok(Protocol::Unspecified),
        Ok(wire::Protocol::Http) => Ok(Protocol::Http),
        Ok(wire::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Err(_) => Err(ConvertError::Unknown { field: "service protocol", value }),
    }
}

impl From<&Service> for wire::Service {
    fn from(service: &Service) -> Self {
        Self {
            key: Some((&service.key).into()),
            protocol: wire::Protocol::from(service.protocol).into(),
            routes: Some((&service.routes).into()),
            tcp: Some((&service.tcp).into()),
            backends: service.backends.iter().map(Into::into).collect(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<wire::Service> for Service {
    type Error = ConvertError;

    fn try_from(service: wire::Service) -> Result<Self, ConvertError> {
        let addresses = service.addresses.iter().map(|address| parse("service address", address));
        let service = Self {
            addresses: addresses.collect::<Result<_, _>>()?,
            key: required("service key", service.key)?.try_into()?,
            protocol: protocol(service.protocol)?,
            routes: required("service routes", service.routes)?.try_into()?,
            tcp: required("service TCP routes", service.tcp)?.try_into()?,
            backends: all(service.backends)?,
        };
        backends_exist(&service)?;
        Ok(service)
    }
}

/// Rules name backends by index; one beyond the end would be a crash later.
fn backends_exist(service: &Service) -> Result<(), ConvertError> {
    let count = service.backends.len();
    let rules = service.routes.rules().iter().map(|rule| &**rule);
    let rules = rules.chain(service.routes.rule_for_others());
    let of_requests = rules.flat_map(Rule::backends_named);
    let of_connections = service.tcp.rules.iter().flat_map(|rule| &rule.backends).map(|share| share.backend);
    match of_requests.chain(of_connections).max() {
        Some(backend) if backend >= count => Err(ConvertError::OutOfRange {
            field: "rule backend",
            value: u64::try_from(backend).unwrap_or(u64::MAX),
            largest: u64::try_from(count.saturating_sub(1)).unwrap_or(u64::MAX),
        }),
        _ => Ok(()),
    }
}

impl From<&BackendName> for wire::BackendName {
    fn from(name: &BackendName) -> Self {
        Self {
            service: Some((&name.service).into()),
            subset: name.subset.as_ref().map(|subset| subset.to_string()),
        }
    }
}

impl TryFrom<wire::BackendName> for BackendName {
    type Error = ConvertError;

    fn try_from(name: wire::BackendName) -> Result<Self, ConvertError> {
        Ok(Self {
            service: required("backend service", name.service)?.try_into()?,
            subset: name.subset.map(Arc::from),
        })
    }
}

impl From<&Backend> for wire::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            name: Some((&backend.name).into()),
            labels: backend.labels.clone(),
            policy: Some((&backend.policy).into()),
            broken: backend.broken.clone(),
        }
    }
}

impl TryFrom<wire::Backend> for Backend {
    type Error = ConvertError;

    fn try_from(backend: wire::Backend) -> Result<Self, ConvertError> {
        Ok(Self {
            name: required("backend name", backend.name)?.try_into()?,
            labels: backend.labels,
            policy: required("backend policy", backend.policy)?.try_into()?,
            broken: backend.broken,
        })
    }
}

impl From<&Endpoint> for wire::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: endpoint.address.to_string(),
            dial: endpoint.dial.to_string(),
            identity: endpoint.identity.as_ref().map(ToString::to_string),
            workload: endpoint.workload.as_ref().map(ToString::to_string),
            labels: (*endpoint.labels).clone(),
            weight: endpoint.weight,
            // Those of lists have a number in the list's table.
            place: 0,
        }
    }
}

impl TryFrom<wire::Endpoint> for Endpoint {
    type Error = ConvertError;

    fn try_from(endpoint: wire::Endpoint) -> Result<Self, ConvertError> {
        Ok(Self {
            address: parse("endpoint address", &endpoint.address)?,
            dial: parse("endpoint dial address", &endpoint.dial)?,
            identity: endpoint.identity.map(|id| parse("endpoint identity", &id)).transpose()?,
            workload: endpoint.workload.map(|name| parse("endpoint workload", &name)).transpose()?,
            labels: endpoint.labels.into(),
            // An older control plane says nothing of it.
            weight: endpoint.weight.max(1),
            place: None,
        })
    }
}

impl From<&NamedEndpoint> for wire::NamedEndpoint {
    fn from(endpoint: &NamedEndpoint) -> Self {
        Self {
            address: endpoint.address.to_string(),
            dial: endpoint.dial.to_string(),
            one_address: endpoint.one_address,
            identity: endpoint.identity.as_ref().map(ToString::to_string),
            workload: endpoint.workload.as_ref().map(ToString::to_string),
            labels: (*endpoint.labels).clone(),
            weight: endpoint.weight,
            // Those of lists have a number in the list's table.
            place: 0,
        }
    }
}

impl TryFrom<wire::NamedEndpoint> for NamedEndpoint {
    type Error = ConvertError;

    fn try_from(endpoint: wire::NamedEndpoint) -> Result<Self, ConvertError> {
        Ok(Self {
            address: parse("named endpoint address", &endpoint.address)?,
            dial: parse("named endpoint dial address", &endpoint.dial)?,
            one_address: endpoint.one_address,
            identity: endpoint.identity.map(|id| parse("named endpoint identity", &id)).transpose()?,
            workload: endpoint.workload.map(|name| parse("named endpoint workload", &name)).transpose()?,
            labels: endpoint.labels.into(),
            // An older control plane says nothing of it.
            weight: endpoint.weight.max(1),
            place: None,
        })
    }
}

impl From<&Endpoints> for wire::Endpoints {
    fn from(endpoints: &Endpoints) -> Self {
        let mut places = PlaceTable::default();
        let list: Vec<_> = endpoints
            .list
            .iter()
            .map(|one| wire::Endpoint { place: places.number(one.place.as_ref()), ..one.into() })
            .collect();
        let named = endpoints
            .named
            .iter()
            .map(|one| wire::NamedEndpoint { place: places.number(one.place.as_ref()), ..one.into() })
            .collect();
        Self {
            key: Some((&endpoints.key).into()),
            list,
            named,
            requested: endpoints.requested.is_some(),
            requested_port: endpoints
                .requested
                .filter(|port| *port != endpoints.key.port)
                .map_or(0, u32::from),
            places: places.list,
        }
    }
}

impl TryFrom<wire::Endpoints> for Endpoints {
    type Error = ConvertError;

    fn try_from(endpoints: wire::Endpoints) -> Result<Self, ConvertError> {
        let places: Vec<Arc<Place>> =
            endpoints.places.into_iter().map(|place| Arc::new(place.into())).collect();
        let list = endpoints.list.into_iter().map(|one| {
            let place = numbered(&places, one.place)?;
            Ok(Endpoint { place, ..one.try_into()? })
        });
        let named = endpoints.named.into_iter().map(|one| {
            let place = numbered(&places, one.place)?;
            Ok(NamedEndpoint { place, ..one.try_into()? })
        });
        let key: ServiceKey = required("endpoints key", endpoints.key)?.try_into()?;
        let requested = match (endpoints.requested, endpoints.requested_port) {
            (false, _) => None,
            (true, 0) => Some(key.port),
            (true, number) => Some(port("endpoints requested port", number)?),
        };
        Ok(Self {
            key,
            list: list.collect::<Result<_, ConvertError>>()?,
            named: named.collect::<Result<_, ConvertError>>()?,
            requested,
        })
    }
}

/// What has changed in a list of endpoints, as the wire carries it: of the list with the version `base` those at these places
/// are `removed`, and then these are `added`, each with its place.
pub fn endpoints_delta<'a>(
    base: &str,
    removed: Vec<u32>,
    added: impl IntoIterator<Item = (u32, &'a Endpoint)>,
) -> wire::EndpointsDelta {
    let mut places = PlaceTable::default();
    let added = added.into_iter().map(|(at, endpoint)| {
        (at, wire::Endpoint { place: places.number(endpoint.place.as_ref()), ..endpoint.into() })
    });
    let (added_at, added) = added.unzip();
    wire::EndpointsDelta { base: base.to_owned(), removed, added_at, added, places: places.list }
}

/// The endpoints that `delta` adds, each with its place.
///
/// # Errors
/// If one of them cannot be read, or there are not as many places.
pub fn added_endpoints(delta: wire::EndpointsDelta) -> Result<Vec<(u32, Endpoint)>, ConvertError> {
    if delta.added.len() != delta.added_at.len() {
        return Err(ConvertError::Missing { field: "place of an added endpoint" });
    }
    let places: Vec<Arc<Place>> = delta.places.into_iter().map(|place| Arc::new(place.into())).collect();
    let endpoints = delta.added.into_iter().map(|one| {
        let place = numbered(&places, one.place)?;
        Ok(Endpoint { place, ..one.try_into()? })
    });
    let endpoints = delta.added_at.into_iter().zip(endpoints);
    endpoints.map(|(at, endpoint)| Ok((at, endpoint?))).collect()
}
