//! Every object of a kind, and every change to one, for as long as the kind is served.
//!
//! After a lost connection, `410 Gone` or a restart of the API server, the listing begins again. It replaces what was
//! known before only when it is complete.

use std::{fmt::Debug, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use kube::{
    Resource,
    api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta},
    core::{DynamicResourceScope, PartialObjectMeta},
    runtime::{
        utils::Backoff,
        watcher::{self, Config},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Client, Error, Kind, objects::typed};

/// The API server ends a watch after this long, in seconds, and a silent one is given up 5 s later: a
/// network that loses connections without a word is noticed within that time.
const WATCH_SECONDS: u32 = 60;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Short, because an API server that comes back has news for us.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// One step of a watch. Objects come without `managedFields`.
#[derive(Debug, Clone)]
pub enum Event {
    /// A listing begins: what it does not name until [`Event::Listed`] is gone.
    Listing,
    /// One object of the listing.
    Present(Value),
    /// The listing is complete.
    Listed,
    /// An object is new or has changed.
    Applied(Value),
    /// An object is gone.
    Deleted(Value),
    /// Something failed; the watch goes on by itself after a pause.
    Failed(Error),
}

impl Client {
    /// Follows `kind`, in one namespace or in all. Never ends; dropping the stream ends it.
    pub fn watch(&self, kind: &Kind, namespace: Option<&str>) -> impl Stream<Item = Event> + Send + use<> {
        self.watch_as(kind, namespace, Config::default(), json)
    }

    /// The same of what the metadata of each object says: the API server sends nothing else.
    pub fn watch_metadata(&self, kind: &Kind) -> impl Stream<Item = Event> + Send + use<> {
        self.watch_as(kind, None, Config::default(), |object: PartialObjectMeta<DynamicObject>, kind| {
            with_metadata(Map::new(), object.metadata, kind)
        })
    }

    /// The same for the objects of all namespaces with the labels that `selector` (such as `app=a`) asks for.
    pub fn watch_labelled(&self, kind: &Kind, selector: &str) -> impl Stream<Item = Event> + Send + use<> {
        self.watch_as(kind, None, Config::default().labels(selector), json)
    }

    /// The same for the one object that has this name. The API server tells of no other.
    pub fn watch_one(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> impl Stream<Item = Event> + Send + use<> {
        self.watch_as(kind, namespace, Config::default().fields(&format!("metadata.name={name}")), json)
    }

    /// The one object that has this name, as it is now. Asks for it as [`Self::watch_one`] does, with the same right.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn list_one(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.inner.clone(), namespace, &kind.resource());
        let wanted = ListParams::default().fields(&format!("metadata.name={name}")).limit(1);
        let found = self.within(objects.list(&wanted)).await?;
        Ok(found.items.into_iter().next().map(|object| json(object, kind)))
    }

    /// `json` makes what an event carries of what is sent.
    fn watch_as<K>(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        config: Config,
        json: fn(K, &Kind) -> Value,
    ) -> impl Stream<Item = Event> + Send + use<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let resource = kind.resource();
        let objects: Api<K> = match namespace {
            Some(namespace) => Api::namespaced_with(self.inner.clone(), namespace, &resource),
            None => Api::all_with(self.inner.clone(), &resource),
        };
        let (kind, server) = (kind.clone(), self.server().to_owned());
        let steps = Box::pin(watcher::watcher(objects, config.timeout(WATCH_SECONDS)));
        let state = (steps, Pauses::default());
        stream::unfold(state, |(mut steps, mut pauses)| async move {
            let step = steps.next().await?;
            match &step {
                Ok(_) => pauses.reset(),
                Err(_) => tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await,
            }
            Some((step, (steps, pauses)))
        })
        .map(move |step| match step {
            Ok(watcher::Event::Init) => Event::Listing,
            Ok(watcher::Event::InitApply(object)) => Event::Present(json(object, &kind)),
            Ok(watcher::Event::InitDone) => Event::Listed,
            Ok(watcher::Event::Apply(object)) => Event::Applied(json(object, &kind)),
            Ok(watcher::Event::Delete(object)) => Event::Deleted(json(object, &kind)),
            Err(error) => Event::Failed(failure(&error, &server)),
        })
    }
}

fn failure(error: &watcher::Error, server: &str) -> Error {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Error::of_kube(error, server),
        watcher::Error::WatchError(status) => Error::of_status(status),
        watcher::Error::NoResourceVersion => {
            Error::Unreachable { server: server.to_owned(), reason: error.to_string() }
        }
    }
}

/// The object as JSON, moved and not copied but for its metadata.
fn json(object: DynamicObject, kind: &Kind) -> Value {
    let fields = match object.data {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    with_metadata(fields, object.metadata, kind)
}

fn with_metadata(mut fields: Map<String, Value>, mut metadata: ObjectMeta, kind: &Kind) -> Value {
    metadata.managed_fields = None;
    if let Ok(metadata) = serde_json::to_value(&metadata) {
        fields.insert("metadata".to_owned(), metadata);
    }
    typed(Value::Object(fields), kind)
}

/// Growing pauses between attempts.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Every kind has its own watch: they must not all come back at the same moment.
        Some(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew_after_success() {
        let mut pauses = Pauses::default();

        for most in [500, 1000, 2000, 4000, 4000] {
            let pause = pauses.next().unwrap().as_millis();
            assert!((most / 2..=most).contains(&pause), "{pause} of {most}");
        }

        pauses.reset();
        assert!(pauses.next().unwrap() <= SHORTEST_PAUSE);
    }

    #[test]
    fn an_object_keeps_everything_but_its_managed_fields() {
        let kind = Kind::namespaced("v1", "Service", "services");
        let object = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "y"},
                         "managedFields": [{"manager": "kubectl"}]},
            "spec": {"ports": [{"port": 80}]}
        });

        let value = super::json(serde_json::from_value(object).unwrap(), &kind);

        assert_eq!(
            value,
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "y"}},
                "spec": {"ports": [{"port": 80}]}
            })
        );
    }

    #[test]
    fn an_object_of_which_only_metadata_is_sent_is_of_the_kind_that_is_watched() {
        let kind = Kind::namespaced("v1", "ServiceAccount", "serviceaccounts");
        let sent = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "y"}, "managedFields": []}
        });
        let object: PartialObjectMeta<DynamicObject> = serde_json::from_value(sent).unwrap();

        assert_eq!(
            with_metadata(Map::new(), object.metadata, &kind),
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "y"}}
            })
        );
    }
}
