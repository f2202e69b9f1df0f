//! The objects that a gateway needs. Pure.
//!
//! Names and labels are those of <https://gateway-api.sigs.k8s.io/geps/gep-1762/>.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use selvedge_kubernetes::Kind;
use serde_json::{Value, json};

use super::{
    parameters::{Parameters, ServiceType},
    ports::{self, Mapped},
};
use crate::{
    inject::{
        InjectionSettings, PROXY_CONTAINER,
        gateway::{NOT_INJECTED, pod_spec},
    },
    resources::gateway_role::{GATEWAY_ANNOTATION, GATEWAY_PORTS_ANNOTATION},
};

/// The label with the gateway's name, of its objects and pods.
pub(super) const NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The label with the name of its class.
pub(super) const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Labels by which we know what we have made.
pub const MADE_BY_US: [(&str, &str); 2] =
    [("app.kubernetes.io/managed-by", "selvedge"), ("app.kubernetes.io/component", "gateway")];

/// The longest name of a Service, and the longest value of a label.
const LONGEST: usize = 63;

/// A gateway that is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its namespace.
    pub(super) namespace: Arc<str>,
    /// Its name.
    pub(super) name: Arc<str>,
    /// Its class. `None`: it is the one of all Ingresses.
    pub(super) class: Option<Arc<str>>,
    /// What tells its `Gateway` from an earlier one of that name. `None`: it has none.
    pub(super) uid: Option<Arc<str>>,
    /// The ports that clients call, with what they speak there.
    pub(super) ports: BTreeMap<u16, &'static str>,
    /// Labels for all its objects and pods.
    pub(super) labels: BTreeMap<String, String>,
    /// Annotations for all its objects and pods.
    pub(super) annotations: BTreeMap<String, String>,
    /// The address that it asks for.
    pub(super) address: Option<IpAddr>,
}

/// The kinds of a gateway's objects, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ObjectKind {
    ServiceAccount,
    Service,
    Deployment,
    PodDisruptionBudget,
}

impl ObjectKind {
    /// All of them.
    pub(super) const ALL: [Self; 4] =
        [Self::ServiceAccount, Self::Service, Self::Deployment, Self::PodDisruptionBudget];

    /// As the API server knows it. Kubernetes before 1.21 has budgets in `policy/v1beta1` alone, where they mean the same.
    pub(super) fn kind(self, budgets: &str) -> Kind {
        match self {
            Self::ServiceAccount => Kind::namespaced("v1", "ServiceAccount", "serviceaccounts"),
            Self::Service => Kind::namespaced("v1", "Service", "services"),
            Self::Deployment => Kind::namespaced("apps/v1", "Deployment", "deployments"),
            Self::PodDisruptionBudget => {
                Kind::namespaced(budgets, "PodDisruptionBudget", "poddisruptionbudgets")
            }
        }
    }
}

impl Wanted {
    /// The name of all its objects: `<gateway>-<class>`.
    pub(super) fn object_name(&self) -> String {
        match &self.class {
            Some(class) => short(&format!("{}-{class}", self.name), is_service_name),
            None => self.name.to_string(),
        }
    }

    /// The value of [`NAME_LABEL`].
    fn label(&self) -> String {
        label(&self.name)
    }

    /// The labels by which its pods are found.
    fn selector(&self) -> BTreeMap<String, String> {
        let own = [(NAME_LABEL.to_owned(), self.label())];
        own.into_iter().chain(MADE_BY_US.map(owned)).collect()
    }

    /// The labels of its objects. Ours come last: nobody may say anything else in their place.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(self.selector());
        if let Some(class) = &self.class {
            labels.insert(CLASS_LABEL.to_owned(), label(class));
        }
        labels
    }

    /// Its objects.
    ///
    /// # Errors
    /// What cannot be meant of what it says of its pods.
    pub(super) fn objects(
        &self,
        parameters: &Parameters,
        settings: &InjectionSettings,
    ) -> Result<Vec<(ObjectKind, Value)>, Vec<String>> {
        let mapped = Mapped::of(&self.ports.keys().copied().collect::<BTreeSet<_>>());
        let deployment = self.deployment(parameters, settings, &mapped)?;
        let mut objects =
            vec![(ObjectKind::ServiceAccount, json!({ "automountServiceAccountToken": false }))];
        if !self.ports.is_empty() {
            objects.push((ObjectKind::Service, self.service(parameters, &mapped)));
        }
        objects.push((ObjectKind::Deployment, deployment));
        // Of one pod, too: it can be moved, and of several one at a time.
        let budget =
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": self.selector() } } });
        objects.push((ObjectKind::PodDisruptionBudget, budget));
        for (_, object) in &mut objects {
            object["metadata"] = self.metadata();
        }
        Ok(objects)
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({
            "name": self.object_name(),
            "namespace": &*self.namespace,
            "labels": self.labels(),
        });
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        if let Some(uid) = &self.uid {
            // Whoever deletes the Gateway deletes all of it.
            metadata["ownerReferences"] = json!([{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": &*self.name,
                "uid": &**uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }]);
        }
        metadata
    }

    fn service(&self, parameters: &Parameters, mapped: &Mapped) -> Value {
        let port = |(port, speaks): (&u16, &&str)| {
            json!({
                "name": ports::name(*port),
                "port": port,
                "targetPort": mapped.target(*port),
                "protocol": "TCP",
                "appProtocol": speaks,
            })
        };
        let ports: Vec<Value> = self.ports.iter().map(port).collect();
        let kind = parameters.service_type;
        let mut spec = json!({ "type": kind.word(), "selector": self.selector(), "ports": ports });
        if let Some(policy) = &parameters.external_traffic_policy {
            spec["externalTrafficPolicy"] = policy.as_str().into();
        }
        if let Some(class) = &parameters.load_balancer_class {
            spec["loadBalancerClass"] = class.as_str().into();
        }
        if !parameters.load_balancer_source_ranges.is_empty() {
            spec["loadBalancerSourceRanges"] = json!(parameters.load_balancer_source_ranges);
        }
        if let Some(address) = self.address.filter(|_| kind == ServiceType::LoadBalancer) {
            spec["loadBalancerIP"] = address.to_string().into();
        }
        json!({ "spec": spec })
    }

    fn deployment(
        &self,
        parameters: &Parameters,
        settings: &InjectionSettings,
        mapped: &Mapped,
    ) -> Result<Value, Vec<String>> {
        let account = self.object_name();
        let pod = pod_spec(settings, &self.annotations, &parameters.resources, &mapped.named(), &account);
        let mut pod = pod.map_err(|refused| refused.reasons)?;
        let pods = json!({ "matchLabels": self.selector() });
        let elsewhere = json!({ "labelSelector": pods, "topologyKey": "kubernetes.io/hostname" });
        pod["affinity"]["podAntiAffinity"] = json!({
            "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": elsewhere }],
        });
        let mut labels = self.labels();
        labels.extend([owned(NOT_INJECTED)]);
        let mut annotations = self.annotations.clone();
        annotations.extend([
            ("kubectl.kubernetes.io/default-container".to_owned(), PROXY_CONTAINER.to_owned()),
            ("prometheus.io/scrape".to_owned(), "true".to_owned()),
            ("prometheus.io/port".to_owned(), "4191".to_owned()),
            ("prometheus.io/path".to_owned(), "/metrics".to_owned()),
            (GATEWAY_ANNOTATION.to_owned(), format!("{}/{}", self.namespace, self.name)),
            (GATEWAY_PORTS_ANNOTATION.to_owned(), mapped.annotation()),
        ]);
        let mut spec = json!({
            "selector": pods,
            "revisionHistoryLimit": 3,
            // A pod goes when another one is there for it.
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "25%" } },
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": pod },
        });
        // Otherwise it is whoever's scales it.
        if let Some(replicas) = parameters.replicas {
            spec["replicas"] = replicas.into();
        }
        Ok(json!({ "spec": spec }))
    }
}

/// The value of a label that says `name`.
pub(super) fn label(name: &str) -> String {
    short(name, |name| name.len() <= LONGEST)
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// `name` if it `is_good`; otherwise as much of it as has a place, and a hash that tells it from others.
fn short(name: &str, is_good: impl Fn(&str) -> bool) -> String {
    if is_good(name) {
        return name.to_owned();
    }
    let hash = digest(&SHA256, name.as_bytes());
    let hash: String = hash.as_ref()[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    let plain = name.replace('.', "-");
    let plain = match plain.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => plain,
        false => format!("g-{plain}"),
    };
    let room = LONGEST - hash.len() - 1;
    let start = plain[..plain.floor_char_boundary(room)].trim_end_matches('-');
    format!("{start}-{hash}")
}

/// Whether a Service may be called so: a label of DNS (RFC 1035).
fn is_service_name(name: &str) -> bool {
    let inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    name.len() <= LONGEST
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests;
