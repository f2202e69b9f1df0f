//! Through which gateways a policy has its effect: what its status is told for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::gateway_api::GatewayApi;
use crate::{
    problem::DocumentName,
    resources::{Resources, gateway::GATEWAY_GROUP, policy_target::PolicyTarget},
};

/// A namespace and a name.
type Name<'a> = (&'a str, &'a str);

/// The references to the ancestors of each policy: the gateways of ours with a route to a Service that it is for; of a Service
/// that no such route names, the Service itself.
pub(super) fn ancestors(resources: &Resources, api: &GatewayApi<'_>) -> BTreeMap<DocumentName, Vec<Value>> {
    let of_tls = resources.backend_tls_policies.iter().map(|one| (&one.name, &*one.spec.targets));
    let of_traffic = resources.backend_traffic_policies.iter().map(|one| (&one.name, &*one.spec.targets));
    let policies: Vec<(&DocumentName, &[PolicyTarget])> = of_tls.chain(of_traffic).collect();
    if policies.is_empty() {
        return BTreeMap::new();
    }
    let gateways = gateways_of_services(api);
    let of = |(name, targets): (&DocumentName, &[PolicyTarget])| {
        (name.clone(), of_policy(&name.namespace, targets, &gateways))
    };
    policies.into_iter().map(of).collect()
}

/// Those of a policy in `namespace` for `targets`.
fn of_policy(
    namespace: &str,
    targets: &[PolicyTarget],
    gateways: &BTreeMap<Name<'_>, BTreeSet<Name<'_>>>,
) -> Vec<Value> {
    let mut found = Vec::new();
    for target in targets {
        let key = (namespace, target.name.as_str());
        let through = gateways.get(&key).filter(|_| target.is_service()).into_iter().flatten();
        let before = found.len();
        for (namespace, name) in through {
            found.push(
                json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace, "name": name}),
            );
        }
        if found.len() == before {
            found.push(json!({"group": target.group, "kind": target.kind, "name": target.name}));
        }
    }
    let mut once: Vec<Value> = Vec::new();
    for one in found {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

/// The gateways of ours with a route to each Service.
fn gateways_of_services<'a>(api: &GatewayApi<'a>) -> BTreeMap<Name<'a>, BTreeSet<Name<'a>>> {
    let mut gateways: BTreeMap<Name<'a>, BTreeSet<Name<'a>>> = BTreeMap::new();
    for (service, gateway) in api.services() {
        gateways.entry(service).or_default().insert(gateway);
    }
    gateways
}
