//! What there is of our gateways' objects: watched by the labels that we give them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::StreamExt;
use selvedge_kubernetes::{Client, Event, Kind};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::objects::{MADE_BY_US, ObjectKind};

/// Steps that wait to be taken.
const WAITING: usize = 256;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) kind: ObjectKind,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// The objects that have our labels.
#[derive(Debug)]
pub(super) struct Live {
    objects: BTreeMap<Place, Value>,
    /// Of a listing that is not complete yet.
    listing: BTreeMap<ObjectKind, BTreeMap<Place, Value>>,
    listed: BTreeSet<ObjectKind>,
    /// How many kinds there are.
    kinds: usize,
    steps: mpsc::Receiver<(ObjectKind, Event)>,
    _watches: JoinSet<()>,
}

impl Live {
    /// Begins to watch these kinds, for as long as it is not dropped.
    pub(super) fn watch(client: &Client, kinds: &[(ObjectKind, Kind)]) -> Self {
        let (sender, steps) = mpsc::channel(WAITING);
        let selector = MADE_BY_US.map(|(key, value)| format!("{key}={value}")).join(",");
        let mut watches = JoinSet::new();
        for (which, kind) in kinds.iter().cloned() {
            let mut events = Box::pin(client.watch_labelled(&kind, &selector));
            let sender = sender.clone();
            watches.spawn(async move {
                while let Some(event) = events.next().await {
                    if sender.send((which, event)).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (objects, listing) = (BTreeMap::new(), BTreeMap::new());
        Self { objects, listing, listed: BTreeSet::new(), kinds: kinds.len(), steps, _watches: watches }
    }

    /// Waits for news, and takes all that has come.
    pub(super) async fn changed(&mut self) {
        match self.steps.recv().await {
            Some((kind, event)) => self.take(kind, event),
            None => return std::future::pending().await,
        }
        while let Ok((kind, event)) = self.steps.try_recv() {
            self.take(kind, event);
        }
    }

    /// Whether every kind has been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.listed.len() == self.kinds
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Value> {
        self.objects.get(place)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = (&Place, &Value)> {
        self.objects.iter()
    }

    fn take(&mut self, kind: ObjectKind, event: Event) {
        match event {
            Event::Listing => drop(self.listing.insert(kind, BTreeMap::new())),
            Event::Present(object) => {
                self.listing.entry(kind).or_default().insert(place(kind, &object), object);
            }
            Event::Listed => {
                self.objects.retain(|place, _| place.kind != kind);
                self.objects.extend(self.listing.remove(&kind).unwrap_or_default());
                self.listed.insert(kind);
            }
            Event::Applied(object) => drop(self.objects.insert(place(kind, &object), object)),
            Event::Deleted(object) => drop(self.objects.remove(&place(kind, &object))),
            // The watch goes on by itself.
            Event::Failed(error) => {
                tracing::debug!(%error, ?kind, "the objects of gateways cannot be watched now");
            }
        }
    }
}

fn place(kind: ObjectKind, object: &Value) -> Place {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().into();
    Place { kind, namespace: text("namespace"), name: text("name") }
}
