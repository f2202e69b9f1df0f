//! Which gateways are to run, as the documents say it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use super::{objects::Wanted, running::bad_address};
use crate::{
    compile::{INGRESS_GATEWAY, our_ingresses, our_listeners},
    resources::{
        Document, GatewaySpec, Resources,
        gateway::{Address, ListenerProtocol, ListenerSpec},
    },
    status::gateways::Hindrance,
};

/// A gateway that is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    /// The ConfigMap with its parameters, in its namespace.
    pub(super) parameters: Option<String>,
    /// Whether it has parameters only if that is there.
    pub(super) may_lack_them: bool,
    /// Why it cannot be.
    pub(super) refusal: Option<Hindrance>,
}

/// The ConfigMap with the parameters of the gateway of all `Ingress`es.
const INGRESS_PARAMETERS: &str = "selvedge-ingress";

/// Every `Gateway` of a class of ours, and the gateway of all `Ingress`es in the namespace `own`, if there is one.
pub(super) fn asked(resources: &Resources, own: &str) -> Vec<Asked> {
    let ingresses = our_ingresses(resources).next().map(|_| of_ingresses(own));
    let gateways = our_listeners(resources).into_iter();
    gateways.filter_map(|(gateway, listeners)| one(gateway, &listeners)).chain(ingresses).collect()
}

fn of_ingresses(own: &str) -> Asked {
    let wanted = Wanted {
        namespace: own.into(),
        name: INGRESS_GATEWAY.into(),
        class: None,
        uid: None,
        ports: BTreeMap::from([(80, "http"), (443, "https")]),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        address: None,
    };
    let parameters = Some(INGRESS_PARAMETERS.to_owned());
    Asked { wanted, parameters, may_lack_them: true, refusal: None }
}

fn one(gateway: &Document<GatewaySpec>, listeners: &[&ListenerSpec]) -> Option<Asked> {
    let spec = &gateway.spec;
    // A file has none.
    let uid = gateway.metadata.uid.as_deref().filter(|_| !gateway.metadata.ending)?;
    let mut ports = BTreeMap::new();
    for listener in listeners {
        let speaks = match listener.protocol {
            ListenerProtocol::Http => "http",
            ListenerProtocol::Https => "https",
            ListenerProtocol::Tls => "tls",
            ListenerProtocol::Tcp => "tcp",
            ListenerProtocol::Other(_) => continue,
        };
        ports.entry(listener.port).or_insert(speaks);
    }
    let (address, refusal) = match spec.addresses.as_slice() {
        [] => (None, None),
        [Address::Ip(address)] => (Some(*address), None),
        _ => {
            let message =
                "spec.addresses: a gateway's Service can have one address of type IPAddress; give that alone";
            (None, Some(bad_address(message.to_owned())))
        }
    };
    let infrastructure = &spec.infrastructure;
    let wanted = Wanted {
        namespace: Arc::clone(&gateway.name.namespace),
        name: Arc::clone(&gateway.name.name),
        class: Some(spec.class.as_str().into()),
        uid: Some(uid.into()),
        ports,
        labels: infrastructure.labels.clone(),
        annotations: infrastructure.annotations.clone(),
        address,
    };
    let parameters = infrastructure.parameters.clone();
    Some(Asked { wanted, parameters, may_lack_them: false, refusal })
}
