//! Gateways that run: a Deployment, Service, ServiceAccount and PodDisruptionBudget for each `Gateway` of ours.
//!
//! The replica that holds the Lease makes them by server-side apply and puts back what others change of them. They belong
//! to their `Gateway`, so that the cluster removes them with it. An object of another owner that has one of their names is
//! reported, and never touched.

mod classes;
mod keeper;
mod known;
mod live;
mod objects;
mod parameters;
mod ports;
mod running;
mod told;
mod wanted;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use selvedge_kubernetes::{Client, Error, Kind};
use serde_json::Value;
use tokio::sync::watch;

pub use self::{classes::CLASS, objects::MADE_BY_US as MADE_FOR_GATEWAYS};
use self::{
    keeper::Keeper,
    live::{Live, Place},
    objects::{CLASS_LABEL, ObjectKind, Wanted},
    parameters::Parameters,
    running::{Running, bad_parameters, hindered_by, run},
    told::Teller,
    wanted::{Asked, asked},
};
use crate::{
    compile::INGRESS_GATEWAY,
    inject::InjectionSettings,
    resources::Resources,
    sources::Loaded,
    status::{
        Verdicts,
        gateways::{BUNDLE_VERSION, Hindrance},
    },
};

/// How often that is read again which is not watched: ConfigMaps of parameters, whether our classes are still there, and the
/// version of the Gateway API.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Changes that come within this time are handled together.
const QUIET: Duration = Duration::from_millis(50);
/// Versions of PodDisruptionBudget, best first.
const BUDGETS: [&str; 2] = ["policy/v1", "policy/v1beta1"];
/// Versions of `Gateway` and `GatewayClass`, best first.
const GATEWAY: [&str; 2] = ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
/// The version of `XListenerSet`.
const OLD_LISTENER_SETS: [&str; 1] = ["gateway.networking.x-k8s.io/v1alpha1"];
/// The definition that tells the version of the Gateway API.
const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";

/// Keeps gateways running.
#[derive(Debug)]
pub(super) struct Gateways {
    pub(super) client: Client,
    /// The control plane's, in which the gateway of all Ingresses is.
    pub(super) namespace: String,
    /// How proxies are put into pods.
    pub(super) settings: watch::Receiver<Arc<InjectionSettings>>,
    pub(super) loaded: watch::Receiver<Arc<Loaded>>,
    /// What is wrong with the documents.
    pub(super) verdicts: watch::Receiver<Arc<Verdicts>>,
}

/// Kinds whose version depends on the cluster.
#[derive(Debug)]
struct Kinds {
    objects: BTreeMap<ObjectKind, Kind>,
    gateway: Option<Kind>,
    class: Option<Kind>,
    sets: [Option<Kind>; 2],
    /// What the definition of GatewayClass says of its version. `None`: it could not be read.
    version: Option<Option<String>>,
}

impl Kinds {
    /// The kind of this name, if it has a status of ours and the cluster has it.
    fn told(&self, kind: &str) -> Option<&Kind> {
        match kind {
            "Gateway" => self.gateway.as_ref(),
            "GatewayClass" => self.class.as_ref(),
            _ => self.sets.iter().flatten().find(|known| known.kind == kind),
        }
    }
}

impl Gateways {
    /// Keeps them while `held` says that we hold the Lease. Never ends.
    pub(super) async fn run(mut self, mut held: watch::Receiver<bool>) {
        // Before anything is read, nothing is wanted, and that must not be believed.
        if self.loaded.changed().await.is_err() {
            return std::future::pending().await;
        }
        loop {
            if held.wait_for(|held| *held).await.is_err() {
                return std::future::pending().await;
            }
            tokio::select! {
                () = self.keep_all() => {}
                _ = held.wait_for(|held| !*held) => {}
            }
        }
    }

    /// Never ends.
    async fn keep_all(&mut self) {
        let mut kinds = self.kinds_patiently().await;
        let watched: Vec<_> = kinds.objects.iter().map(|(which, kind)| (*which, kind.clone())).collect();
        let mut live = Live::watch(&self.client, &watched);
        let (mut keeper, mut teller) = (Keeper::new(self.client.clone()), Teller::new(self.client.clone()));
        loop {
            let mut pause = LOOK_INTERVAL;
            if live.is_complete() {
                // The Gateway API may come, and go, at any time.
                if kinds.gateway.is_none() || lacks_sets(&kinds, &self.loaded.borrow().resources) {
                    kinds = self.kinds_patiently().await;
                }
                kinds.version = self.version(&kinds).await;
                let loaded = Arc::clone(&self.loaded.borrow_and_update());
                let (running, mut complete) =
                    self.keep_each(&kinds, &loaded.resources, &live, &mut keeper).await;
                let verdicts = Arc::clone(&self.verdicts.borrow_and_update());
                // Those of other documents follow, or have come too early.
                if Arc::ptr_eq(&verdicts.objects, &loaded.objects) {
                    complete &= teller.tell(&kinds, &loaded, &verdicts, &running).await;
                    let ingress = (self.namespace.as_str().into(), INGRESS_GATEWAY.into());
                    if let Some(run) = running.get(&ingress) {
                        complete &= teller.tell_ingresses(&loaded, run).await;
                    }
                }
                if !complete {
                    pause = RETRY;
                }
            }
            tokio::select! {
                () = live.changed() => {}
                changed = self.loaded.changed() => if changed.is_err() { return std::future::pending().await },
                changed = self.verdicts.changed() => if changed.is_err() { return std::future::pending().await },
                changed = self.settings.changed() => if changed.is_err() { return std::future::pending().await },
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    async fn kinds_patiently(&self) -> Kinds {
        loop {
            match self.kinds().await {
                Ok(kinds) => return kinds,
                Err(error) => tracing::debug!(%error, "cannot see which kinds are served"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn kinds(&self) -> Result<Kinds, Error> {
        let budgets = self.client.find_kind("PodDisruptionBudget", &BUDGETS).await?;
        let budgets = budgets.map_or_else(|| BUDGETS[0].to_owned(), |kind| kind.api_version());
        let objects = ObjectKind::ALL.map(|which| (which, which.kind(&budgets)));
        Ok(Kinds {
            objects: objects.into(),
            gateway: self.client.find_kind("Gateway", &GATEWAY).await?,
            class: self.client.find_kind("GatewayClass", &GATEWAY).await?,
            sets: [
                self.client.find_kind("ListenerSet", &GATEWAY).await?,
                self.client.find_kind("XListenerSet", &OLD_LISTENER_SETS).await?,
            ],
            version: None,
        })
    }

    /// Which version of the Gateway API the cluster has, as far as it says so. `None`: it cannot be read just now.
    async fn version(&self, kinds: &Kinds) -> Option<Option<String>> {
        kinds.class.as_ref()?;
        let definitions = Kind::cluster_wide(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        );
        match self.client.get(&definitions, None, DEFINITION).await {
            Ok(found) => {
                let annotations = &found?["metadata"]["annotations"];
                Some(annotations[BUNDLE_VERSION].as_str().map(str::to_owned))
            }
            Err(error) => {
                tracing::debug!(%error, "cannot see which version of the Gateway API is installed");
                None
            }
        }
    }

    /// Does all that is to do. Says how gateways run, and whether it could all be done.
    async fn keep_each(
        &self,
        kinds: &Kinds,
        resources: &Resources,
        live: &Live,
        keeper: &mut Keeper,
    ) -> (Running, bool) {
        let mut complete = classes::keep(&self.client, kinds.class.as_ref(), resources).await;
        let settings = Arc::clone(&self.settings.borrow());
        let (mut running, mut wanted, mut places) = (Running::new(), HashSet::new(), HashSet::new());
        let all = asked(resources, &self.namespace);
        for asked in &all {
            let gateway = &asked.wanted;
            let objects = self.objects(asked, &settings).await;
            let hindrance = match objects {
                Ok(objects) => {
                    let mut hindrance = None;
                    for (which, object) in objects {
                        let place = gateway.place(which);
                        places.insert(place.clone());
                        let kind = &kinds.objects[&which];
                        if let Err(trouble) =
                            keeper.keep(&place, kind, object, gateway.uid.as_ref(), live).await
                        {
                            complete = false;
                            hindrance.get_or_insert(hindered_by(&trouble));
                        }
                    }
                    hindrance
                }
                Err(hindrance) => {
                    // What runs goes on running.
                    places.extend(ObjectKind::ALL.map(|which| gateway.place(which)));
                    Some(hindrance)
                }
            };
            wanted.extend(gateway.uid.clone());
            let name = (Arc::clone(&gateway.namespace), Arc::clone(&gateway.name));
            running.insert(name, run(gateway, hindrance, live));
        }
        keeper.retain(&places);
        complete &= self.remove_unwanted(kinds, &wanted, &places, live, keeper).await;
        (running, complete)
    }

    /// The objects of a gateway.
    async fn objects(
        &self,
        asked: &Asked,
        settings: &InjectionSettings,
    ) -> Result<Vec<(ObjectKind, Value)>, Hindrance> {
        if let Some(refusal) = &asked.refusal {
            return Err(refusal.clone());
        }
        let parameters = match &asked.parameters {
            None => Parameters::default(),
            Some(name) => self.parameters(&asked.wanted.namespace, name, asked.may_lack_them).await?,
        };
        asked.wanted.objects(&parameters, settings).map_err(|reasons| bad_parameters(reasons.join("; ")))
    }

    /// What the ConfigMap says.
    async fn parameters(
        &self,
        namespace: &str,
        name: &str,
        may_be_missing: bool,
    ) -> Result<Parameters, Hindrance> {
        let kind = Kind::namespaced("v1", "ConfigMap", "configmaps");
        let refused = |why: &str| bad_parameters(format!("ConfigMap {namespace}/{name}: {why}"));
        let found = self.client.get(&kind, Some(namespace), name).await;
        let found = found.map_err(|error| refused(&error.to_string()))?;
        if found.is_none() && may_be_missing {
            return Ok(Parameters::default());
        }
        let found = found
            .ok_or_else(|| refused("is not there; make it, or remove spec.infrastructure.parametersRef"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let data = found["data"].as_object().into_iter().flatten();
        let data = data.map(|(key, value)| (key.clone(), text(value))).collect();
        Parameters::read(&data).map_err(|reasons| refused(&reasons.join("; ")))
    }

    /// Removes what we have made and nobody wants any more; whether all of it is gone.
    async fn remove_unwanted(
        &self,
        kinds: &Kinds,
        wanted: &HashSet<Arc<str>>,
        places: &HashSet<Place>,
        live: &Live,
        keeper: &mut Keeper,
    ) -> bool {
        let mut complete = true;
        for (place, object) in live.objects() {
            if places.contains(place) || object["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let removed = async {
                let is_left = match owner(object) {
                    Some(owner) if wanted.contains(owner.uid) => true,
                    Some(owner) => self.has_left(kinds, &place.namespace, &owner, object).await?,
                    // The gateway of all Ingresses belongs to nobody.
                    None => *place.namespace == *self.namespace && *place.name == *INGRESS_GATEWAY,
                };
                if is_left {
                    keeper.remove(place, &kinds.objects[&place.kind], object).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = removed.await {
                tracing::debug!(%error, ?place, "what no gateway wants could not be removed yet");
                complete = false;
            }
        }
        complete
    }

    /// Whether the Gateway that `object` belongs to is gone or has another class. One of a class that is not there just
    /// now goes on running.
    async fn has_left(
        &self,
        kinds: &Kinds,
        namespace: &str,
        owner: &Owner<'_>,
        object: &Value,
    ) -> Result<bool, Error> {
        let Some(kind) = &kinds.gateway else { return Ok(false) };
        let Some(found) = self.client.get(kind, Some(namespace), owner.name).await? else { return Ok(true) };
        let class = found["spec"]["gatewayClassName"].as_str().unwrap_or_default();
        let same_class = object["metadata"]["labels"][CLASS_LABEL] == objects::label(class);
        Ok(found["metadata"]["uid"] != owner.uid || !same_class)
    }
}

/// Whether there are ListenerSets of a kind that the cluster did not have when it was asked.
fn lacks_sets(kinds: &Kinds, resources: &Resources) -> bool {
    resources.listener_sets.iter().any(|set| kinds.told(&set.name.kind).is_none())
}

/// The Gateway that an object of ours belongs to.
struct Owner<'a> {
    name: &'a str,
    uid: &'a str,
}

fn owner(object: &Value) -> Option<Owner<'_>> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let gateway = owners.iter().find(|owner| owner["kind"] == "Gateway" && owner["controller"] == true)?;
    Some(Owner { name: gateway["name"].as_str()?, uid: gateway["uid"].as_str()? })
}

impl Wanted {
    /// Where its object of that kind is.
    fn place(&self, kind: ObjectKind) -> Place {
        Place { kind, namespace: Arc::clone(&self.namespace), name: self.object_name().into() }
    }
}
