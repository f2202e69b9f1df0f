//! Our classes: made if there is none of their name.
//!
//! Not by the chart: a cluster may get the Gateway API after it is installed.

use selvedge_kubernetes::{Client, Error, Kind};
use serde_json::{Value, json};

use crate::resources::{Resources, gateway_class, ingress_class};

/// The name of the GatewayClass and of the IngressClass that we make.
pub const CLASS: &str = "selvedge";

/// Makes the classes that are missing; whether they are there. `gateways` is the kind of GatewayClasses, if the cluster
/// has it.
pub(super) async fn keep(client: &Client, gateways: Option<&Kind>, resources: &Resources) -> bool {
    let mut complete = true;
    let has_gateway_class = resources.gateway_classes.iter().any(|class| &*class.name.name == CLASS);
    if let Some(kind) = gateways.filter(|_| !has_gateway_class) {
        let spec = json!({
            "controllerName": gateway_class::CONTROLLER,
            "description": "Gateways of the mesh: each is a Deployment of selvedge-proxy",
        });
        complete &= make(client, kind, &spec).await;
    }
    if !resources.ingress_classes.iter().any(|class| &*class.name.name == CLASS) {
        let kind = Kind::cluster_wide("networking.k8s.io/v1", "IngressClass", "ingressclasses");
        complete &= make(client, &kind, &json!({ "controller": ingress_class::CONTROLLER })).await;
    }
    complete
}

async fn make(client: &Client, kind: &Kind, spec: &Value) -> bool {
    let class = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": { "name": CLASS, "labels": { "app.kubernetes.io/part-of": "selvedge" } },
        "spec": spec,
    });
    match client.create(kind, None, &class).await {
        Ok(_) => {
            tracing::info!(kind = kind.kind, name = CLASS, "made our class");
            true
        }
        // It has not arrived here yet; or the kind is just going.
        Err(Error::AlreadyExists(_) | Error::NotFound(_)) => true,
        Err(error) => {
            tracing::warn!(%error, kind = kind.kind, name = CLASS, "our class could not be made");
            false
        }
    }
}
