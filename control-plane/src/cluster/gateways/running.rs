//! How a gateway runs, as its objects show it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    keeper::Trouble,
    live::Live,
    objects::{ObjectKind, Wanted},
};
use crate::status::gateways::{Hindrance, Run};

/// How each gateway runs, by its namespace and name.
pub(super) type Running = BTreeMap<(Arc<str>, Arc<str>), Run>;

/// The ConfigMap of its parameters cannot be used.
pub(super) fn bad_parameters(message: String) -> Hindrance {
    Hindrance { is_refusal: true, reason: "InvalidParameters", message }
}

/// The address that it asks for is not one that a Service can have.
pub(super) fn bad_address(message: String) -> Hindrance {
    Hindrance { is_refusal: true, reason: "UnsupportedAddress", message }
}

/// One of its objects could not be made or changed.
pub(super) fn hindered_by(trouble: &Trouble) -> Hindrance {
    let reason = match trouble {
        Trouble::Foreign { .. } => "Invalid",
        Trouble::Going { .. } | Trouble::Refused { .. } => "Pending",
    };
    Hindrance { is_refusal: false, reason, message: trouble.to_string() }
}

/// The state of `gateway`, as its objects in the cluster show it.
pub(super) fn run(gateway: &Wanted, hindrance: Option<Hindrance>, live: &Live) -> Run {
    let deployment = live.get(&gateway.place(ObjectKind::Deployment));
    let available = deployment.map(|found| found["status"]["availableReplicas"].as_u64().unwrap_or_default());
    let service = live.get(&gateway.place(ObjectKind::Service));
    let (addresses, ingress) = service.map(places).unwrap_or_default();
    let wants = gateway.address.map(|address| address.to_string());
    let has = |wanted: &String| addresses.iter().any(|address| address["value"] == wanted.as_str());
    let hindrance = hindrance.or_else(|| {
        let missing = wants.filter(|wanted| !addresses.is_empty() && !has(wanted))?;
        let message =
            format!("its Service has another address than {missing}, which spec.addresses asks for");
        Some(Hindrance { is_refusal: false, reason: "AddressNotUsable", message })
    });
    Run { hindrance, is_available: available.is_some_and(|count| count > 0), addresses, ingress }
}

/// Where clients find a Service, in the words of a Gateway's status and of an Ingress's.
fn places(service: &Value) -> (Vec<Value>, Vec<Value>) {
    if service["spec"]["type"] != "LoadBalancer" {
        let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
        let name = format!("{}.{}.svc", text("name"), text("namespace"));
        return (vec![address("Hostname", &name)], vec![json!({ "hostname": name })]);
    }
    let listed = service["status"]["loadBalancer"]["ingress"].as_array().map(Vec::as_slice);
    let mut both = (Vec::new(), Vec::new());
    for one in listed.unwrap_or_default() {
        for (field, kind) in [("ip", "IPAddress"), ("hostname", "Hostname")] {
            if let Some(value) = one[field].as_str() {
                both.0.push(address(kind, value));
                both.1.push(json!({ field: value }));
            }
        }
    }
    both
}

fn address(kind: &str, value: &str) -> Value {
    json!({ "type": kind, "value": value })
}
