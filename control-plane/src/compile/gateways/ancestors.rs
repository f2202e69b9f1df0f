//! Through which gateways a policy has its effect: what its status is told for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{super::grants::Grants, gateway_api::GatewayApi};
use crate::{
    problem::DocumentName,
    resources::{Resources, gateway::GATEWAY_GROUP, policy_target::PolicyTarget},
};

/// So many an API server keeps of one policy. The others are not told.
const MOST: usize = 16;

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
    let gateways = gateways_of_services(api, &Grants::new(resources));
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
    let mut found: Vec<Value> = Vec::new();
    for target in targets {
        let key = (namespace, target.name.as_str());
        let through = gateways.get(&key).filter(|_| target.is_service());
        let itself = || json!({"group": target.group, "kind": target.kind, "name": target.name});
        let itself = through.is_none().then(itself);
        let through = through.into_iter().flatten().map(|(namespace, name)| {
            json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace, "name": name})
        });
        for one in through.chain(itself) {
            if found.len() == MOST {
                return found;
            }
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// The gateways of ours with a route to each Service.
fn gateways_of_services<'a>(
    api: &GatewayApi<'a>,
    grants: &Grants<'_>,
) -> BTreeMap<Name<'a>, BTreeSet<Name<'a>>> {
    let mut gateways: BTreeMap<Name<'a>, BTreeSet<Name<'a>>> = BTreeMap::new();
    for (service, gateway) in api.services(grants) {
        gateways.entry(service).or_default().insert(gateway);
    }
    gateways
}
