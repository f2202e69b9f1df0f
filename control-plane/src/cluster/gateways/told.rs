//! Writes the status of Gateways, of their ListenerSets and of their classes, where it says something new.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use selvedge_certs::facts::Utc;
use selvedge_kubernetes::{Client, Error, Kind, objects::Change};
use serde_json::{Value, json};

use super::{Kinds, known::Known, running::Running};
use crate::{
    compile::our_ingresses,
    problem::DocumentName,
    resources::{Object, Resources},
    sources::Loaded,
    status::{
        Verdicts,
        gateways::{Run, class_status},
    },
};

/// Writes the status of Gateways and of their classes.
#[derive(Debug)]
pub(super) struct Teller {
    client: Client,
    /// By an object's uid, what it has been told.
    told: HashMap<Arc<str>, Value>,
}

impl Teller {
    pub(super) fn new(client: Client) -> Self {
        Self { client, told: HashMap::new() }
    }

    /// Writes what is new; whether all of it is written. `verdicts` are those of `loaded`.
    pub(super) async fn tell(
        &mut self,
        kinds: &Kinds,
        loaded: &Loaded,
        verdicts: &Verdicts,
        running: &Running,
    ) -> bool {
        let present: HashSet<&Arc<str>> = loaded.objects.iter().map(|object| &object.uid).collect();
        self.told.retain(|uid, _| present.contains(uid));
        let known = Known::new(&loaded.resources, verdicts, running);
        let mut complete = true;
        for object in loaded.objects.iter() {
            let Some(kind) = kinds.told(&object.name.kind) else { continue };
            let written = match &*object.name.kind {
                "GatewayClass" if is_our_class(&loaded.resources, object) => {
                    let version = kinds.version.as_ref().map(|version| version.as_deref());
                    let status = |old: &Value, now: &str| class_status(object.generation, version, old, now);
                    self.write(kind, object, status).await
                }
                "Gateway" => {
                    let Some(facts) = known.gateway(&object.name, object.generation) else { continue };
                    self.write(kind, object, |old, now| facts.status(old, now)).await
                }
                "ListenerSet" | "XListenerSet" => {
                    let Some(facts) = known.set(&object.name, object.generation) else { continue };
                    let with_ports = kind.kind == "XListenerSet";
                    self.write(kind, object, |old, now| facts.status(with_ports, old, now)).await
                }
                _ => continue,
            };
            if let Err(error) = written {
                tracing::debug!(%error, object = %object.name, "its status could not be written yet");
                complete = false;
            }
        }
        complete
    }

    /// Writes into each Ingress of ours where clients find it; whether all of it is written.
    pub(super) async fn tell_ingresses(&mut self, loaded: &Loaded, run: &Run) -> bool {
        let kind = Kind::namespaced("networking.k8s.io/v1", "Ingress", "ingresses");
        let ours: HashSet<&DocumentName> =
            our_ingresses(&loaded.resources).map(|ingress| &ingress.name).collect();
        let mut complete = true;
        for object in loaded.objects.iter().filter(|object| ours.contains(&object.name)) {
            let places = |_: &Value, _: &str| json!({ "loadBalancer": { "ingress": run.ingress } });
            if let Err(error) = self.write(&kind, object, places).await {
                tracing::debug!(%error, object = %object.name, "its status could not be written yet");
                complete = false;
            }
        }
        complete
    }

    async fn write(
        &mut self,
        kind: &Kind,
        object: &Object,
        status: impl Fn(&Value, &str) -> Value,
    ) -> Result<(), Error> {
        // Without dates, which say nothing new.
        let says = status(&Value::Null, "");
        if self.told.get(&object.uid) == Some(&says) {
            return Ok(());
        }
        let (namespace, name) = (Some(&*object.name.namespace), &object.name.name);
        let Some(found) = self.client.get(kind, namespace, name).await? else { return Ok(()) };
        // Of a newer one we know nothing yet.
        if found["metadata"]["uid"] != *object.uid
            || found["metadata"]["generation"].as_i64().unwrap_or_default() != object.generation
        {
            return Ok(());
        }
        let new = status(&found["status"], &Utc(SystemTime::now()).to_string());
        let is_new =
            new.as_object().into_iter().flatten().any(|(field, value)| found["status"][field] != *value);
        if is_new {
            let version = &found["metadata"]["resourceVersion"];
            let patch = json!({ "metadata": { "resourceVersion": version }, "status": new });
            match self.client.change_status(kind, namespace, name, Change::Merge(&patch)).await {
                Err(Error::NotFound(_)) => {}
                written => drop(written?),
            }
        }
        self.told.insert(Arc::clone(&object.uid), says);
        Ok(())
    }
}

fn is_our_class(resources: &Resources, object: &Object) -> bool {
    resources.gateway_classes.iter().any(|class| class.name == object.name && class.spec.is_ours())
}
