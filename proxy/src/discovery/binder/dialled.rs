//! What an address means that is no service's own: the endpoint there, and the one service that is called by it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use selvedge_model::{
    Backend, BackendName, Endpoint, Endpoints, Layer, Order, Protocol, RouteTable, Rule, Service, ServiceKey,
    TcpRule, TcpTable, TrafficPolicy, WeightedBackend,
    snapshot::{self, Address, Declared},
};

use super::{
    Binder, Resources,
    inputs::{BoundKey, Collected, Inputs, Resolution, reach},
};
use crate::dns::{Doubt, Reached};

/// The name of the one rule of an address that is no service's.
const DIRECT_RULE: &str = "direct";

impl Binder {
    /// What an address means that is no service's own: the endpoint there, and the one service that is called by
    /// it. `None`: names that may lead there are not answered yet.
    pub(super) fn dialled(
        &mut self,
        held: &Resources,
        authority: &Arc<str>,
        found: &Address,
        collected: &mut Collected,
        now: Instant,
    ) -> Option<Resolution> {
        let address = snapshot::address(authority)?;
        let by_name = found.named.then(|| ServiceKey::named(address.port()));
        let declared = found.services.iter().map(|declared| &declared.key);
        let lists = declared.chain(&by_name).filter_map(|key| held.endpoints(key));
        // All are looked at before one that waits ends it: they are looked up at the same time.
        let reached: Vec<Option<Arc<Reached>>> =
            lists.clone().map(|endpoints| reach(held, &mut self.names, endpoints, authority)).collect();
        let reached = reached.into_iter().collect::<Option<Vec<_>>>()?;
        let endpoint = found.endpoint.clone().or_else(|| {
            let places = reached.iter().rev().filter_map(|reached| reached.at(address));
            places.min_by_key(|endpoint| endpoint.workload.is_none()).cloned()
        });
        let mut doubt = None;
        if endpoint.is_none() {
            // Nothing may go out unprotected only because the address is newer than what is known of the names: the
            // client may have asked DNS a moment ago.
            let since = self.asked.get(authority).copied().unwrap_or(now);
            collected.asked.insert(Arc::clone(authority), since);
            // All are looked up at the same time here, too.
            let doubts: Vec<Doubt> =
                lists.map(|endpoints| self.names.may_have_since(endpoints, since)).collect();
            for found in doubts {
                match found {
                    Doubt::None => {}
                    Doubt::Waiting => return None,
                    Doubt::Silence(why) => doubt = Some(why),
                }
            }
        }
        let has_it = |declared: &Declared| {
            let own = reached.iter().find(|reached| *reached.key() == declared.key);
            found.endpoint.is_some() || own.is_some_and(|own| own.at(address).is_some())
        };
        let service = match found.only_service(has_it) {
            Some(only) => Some(self.service(held, &only.key, authority, collected)?),
            None => None,
        };
        let endpoint = endpoint.map(|endpoint| {
            let (endpoint, inputs) = self.address(authority, &endpoint);
            let bound_key = BoundKey::Address(Arc::clone(authority));
            collected.inputs.insert(bound_key.clone(), inputs.clone());
            collected.addresses.insert(Arc::clone(authority), (endpoint, inputs));
            bound_key
        });
        Some(Resolution { bound: endpoint, service, through: None, doubt })
    }

    /// `found`; if `authority` is an address at which nothing is known to be, with the way through to there.
    pub(super) fn or_through(
        &self,
        found: Resolution,
        authority: &Arc<str>,
        collected: &mut Collected,
    ) -> Resolution {
        let address = match found {
            Resolution { bound: None, doubt: None, .. } => authority.parse().ok(),
            _ => None,
        };
        let Some(address) = address else { return found };
        let bound_key = BoundKey::Unknown(Arc::clone(authority));
        let known = self.entries.get(&bound_key).map(|entry| entry.inputs.clone());
        collected.inputs.insert(bound_key.clone(), known.unwrap_or_else(|| direct(&unknown(address))));
        Resolution { through: Some(bound_key), ..found }
    }

    /// What a workload's own address is bound as: a service with one rule, one backend and one endpoint.
    fn address(&self, authority: &Arc<str>, endpoint: &Endpoint) -> (Endpoint, Inputs) {
        match self.addresses.get(authority) {
            Some(known) if known.0 == *endpoint => known.clone(),
            _ => (endpoint.clone(), direct(endpoint)),
        }
    }
}

/// Anything at `address`, called in plaintext.
fn unknown(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        dial: address,
        identity: None,
        workload: None,
        labels: Arc::default(),
        weight: 1,
        place: None,
    }
}

fn direct(endpoint: &Endpoint) -> Inputs {
    let key = ServiceKey::new(&endpoint.address.ip().to_string(), endpoint.address.port());
    let rule =
        Rule { name: DIRECT_RULE.to_owned(), backends: vec![WeightedBackend::new(0, 1)], ..Rule::default() };
    let opaque = TcpRule {
        name: DIRECT_RULE.to_owned(),
        layer: Layer::Tcp,
        matches: Vec::new(),
        backends: vec![WeightedBackend::new(0, 1)],
    };
    let backend = Backend {
        name: BackendName { service: key.clone(), subset: None },
        labels: BTreeMap::new(),
        policy: TrafficPolicy::default(),
        broken: None,
    };
    let service = Service {
        key: key.clone(),
        addresses: Vec::new(),
        protocol: Protocol::Unspecified,
        routes: RouteTable::new(Order::Listed, vec![rule]),
        tcp: TcpTable { rules: vec![opaque] },
        backends: vec![backend],
    };
    let endpoints = Reached::fixed(Arc::new(Endpoints::new(key, vec![endpoint.clone()]).into()));
    Inputs {
        service: Arc::new(service),
        client: None,
        users: Vec::new(),
        endpoints: vec![Some(Arc::new(endpoints))],
    }
}
