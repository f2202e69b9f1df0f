//! Through which gateways a policy has its effect: what its status is told for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{super::Problems, gateway_api::GatewayApi};
use crate::{
    problem::DocumentName,
    resources::{Object, Resources, gateway::GATEWAY_GROUP, kinds::Feedback, policy_target::PolicyTarget},
};

/// A namespace and a name.
type Name<'a> = (&'a str, &'a str);

/// `objects`, of which each policy has its ancestors: the gateways of ours with a route to a Service that it is for; of a
/// Service that no such route names, the Service itself.
pub fn with_ancestors(objects: &Arc<Vec<Object>>, resources: &Resources) -> Arc<Vec<Object>> {
    let of_tls = resources.backend_tls_policies.iter().map(|one| (&one.name, &*one.spec.targets));
    let of_traffic = resources.backend_traffic_policies.iter().map(|one| (&one.name, &*one.spec.targets));
    let policies: BTreeMap<&DocumentName, &[PolicyTarget]> = of_tls.chain(of_traffic).collect();
    if policies.is_empty() {
        return Arc::clone(objects);
    }
    let gateways = gateways_of_services(resources);
    let with = |object: &Object| {
        let policy = policies.get(&object.name).filter(|_| object.feedback == Feedback::Ancestors);
        let parents = policy.map(|targets| Arc::new(ancestors(&object.name.namespace, targets, &gateways)));
        Object { parents: parents.or_else(|| object.parents.clone()), ..object.clone() }
    };
    Arc::new(objects.iter().map(with).collect())
}

/// Those of a policy in `namespace` for `targets`.
fn ancestors(
    namespace: &str,
    targets: &[PolicyTarget],
    gateways: &BTreeMap<Name<'_>, BTreeSet<Name<'_>>>,
) -> Value {
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
    Value::Array(once)
}

/// The gateways of ours with a route to each Service.
fn gateways_of_services(resources: &Resources) -> BTreeMap<Name<'_>, BTreeSet<Name<'_>>> {
    let mut gateways: BTreeMap<Name<'_>, BTreeSet<Name<'_>>> = BTreeMap::new();
    for (service, gateway) in GatewayApi::new(resources, &mut Problems::default()).services() {
        gateways.entry(service).or_default().insert(gateway);
    }
    gateways
}
