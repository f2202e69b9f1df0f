//! Objects of kinds that are never followed as a whole, such as Secrets: each is watched by its own name, and only while a
//! document names it. Beyond the first of a namespace they are asked for again and again instead, since each watch costs a
//! connection to the API server.
//!
//! What a control plane may read is one thing (the role says it); what it has in memory is another: nothing that nobody
//! named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use selvedge_kubernetes::{Client, Event, Kind};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    After, PAUSE_AFTER_REFUSAL, after,
    held::{ClusterObjects, Step},
    trimmed,
};
use crate::{
    problem::DocumentName,
    resources::{Resources, kinds},
};

/// How many objects of one namespace are watched.
const MOST_WATCHED: usize = 100;
/// How many objects of one namespace may be named: the first of them.
const MOST_IN_NAMESPACE: usize = 2000;
/// Between two questions, and between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_OF_ROUND: Duration = Duration::from_secs(10);

/// Finds the objects that documents name.
type Names = dyn Fn(&Resources) -> Vec<DocumentName> + Send + Sync;

/// Which objects documents name.
#[derive(Clone)]
pub struct Naming(Arc<Names>);

impl Naming {
    /// Those that `names` finds, each once. If they are too many, the first count.
    pub fn new(names: impl Fn(&Resources) -> Vec<DocumentName> + Send + Sync + 'static) -> Self {
        Self(Arc::new(names))
    }

    /// No objects.
    pub fn nothing() -> Self {
        Self::new(|_| Vec::new())
    }

    pub(super) fn of(&self, resources: &Resources) -> Vec<DocumentName> {
        (self.0)(resources)
    }
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Naming")
    }
}

/// The objects that are watched by name.
pub(super) struct NamedObjects {
    client: Client,
    steps: mpsc::Sender<(DocumentName, Step)>,
    watches: BTreeMap<DocumentName, AbortHandle>,
    asked: watch::Sender<Vec<DocumentName>>,
    tasks: JoinSet<()>,
}

impl NamedObjects {
    /// None yet; what happens to them goes to `steps`.
    pub(super) fn new(client: Client, steps: mpsc::Sender<(DocumentName, Step)>) -> Self {
        let asked = watch::Sender::new(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(ask(client.clone(), asked.subscribe(), steps.clone()));
        Self { client, steps, watches: BTreeMap::new(), asked, tasks }
    }

    /// Watches what `named` names from now on, and nothing else: what is named no longer is forgotten.
    pub(super) fn follow(&mut self, named: &[DocumentName], held: &mut ClusterObjects) {
        let mut counts = BTreeMap::<&str, usize>::new();
        let (mut wanted, mut too_many) = (BTreeSet::new(), BTreeSet::new());
        let (mut watched, mut asked) = (BTreeSet::new(), Vec::new());
        for name in named {
            let count = counts.entry(&name.namespace).or_default();
            *count += 1;
            if *count > MOST_IN_NAMESPACE {
                too_many.insert(name.clone());
                continue;
            }
            if *count > MOST_WATCHED {
                asked.push((*count, name.clone()));
            } else {
                watched.insert(name.clone());
            }
            wanted.insert(name.clone());
        }
        held.name(&wanted, &too_many);
        // One of each namespace after the other: nobody is kept waiting by somebody else's hundreds.
        asked.sort();
        let asked: Vec<_> = asked.into_iter().map(|(_, name)| name).collect();
        self.asked.send_if_modified(|before| {
            let differs = *before != asked;
            *before = asked;
            differs
        });
        self.watches.retain(|name, watch| {
            let is_wanted = watched.contains(name);
            if !is_wanted {
                watch.abort();
            }
            is_wanted
        });
        while self.tasks.try_join_next().is_some() {}
        for name in watched {
            let Some(kind) = kinds::by_name(&name.kind) else { continue };
            self.watches.entry(name.clone()).or_insert_with(|| {
                let watching = watch(self.client.clone(), kind, name, self.steps.clone());
                self.tasks.spawn(watching)
            });
        }
    }
}

/// Asks for each of `names` in turn, again and again. Never ends.
async fn ask(
    client: Client,
    mut names: watch::Receiver<Vec<DocumentName>>,
    steps: mpsc::Sender<(DocumentName, Step)>,
) {
    loop {
        let asked = names.borrow_and_update().clone();
        for name in asked {
            let Some(wanted) = kinds::by_name(&name.kind) else { continue };
            let kind = Kind::namespaced(wanted.api_versions[0], wanted.kind, wanted.plural);
            let found = match client.list_one(&kind, &name.namespace, &name.name).await {
                Ok(Some(object)) => vec![Event::Listing, Event::Present(object), Event::Listed],
                Ok(None) => vec![Event::Listing, Event::Listed],
                Err(error) => vec![Event::Failed(error)],
            };
            for event in found {
                if steps.send((name.clone(), trimmed(event, wanted))).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        // Without any name there is nothing to ask until there is one.
        let is_idle = names.borrow().is_empty();
        let is_over = match is_idle {
            true => names.changed().await.is_err(),
            false => tokio::select! {
                changed = names.changed() => changed.is_err(),
                () = tokio::time::sleep(PAUSE_OF_ROUND) => false,
            },
        };
        if is_over {
            return;
        }
    }
}

/// Watches one object. Never ends.
async fn watch(
    client: Client,
    wanted: &'static kinds::ResourceKind,
    name: DocumentName,
    steps: mpsc::Sender<(DocumentName, Step)>,
) {
    let kind = Kind::namespaced(wanted.api_versions[0], wanted.kind, wanted.plural);
    tracing::debug!(%name, "following");
    loop {
        let mut events = pin!(client.watch_one(&kind, Some(&name.namespace), &name.name));
        while let Some(event) = events.next().await {
            let after = after(&event);
            if after == After::Nothing {
                continue;
            }
            if steps.send((name.clone(), trimmed(event, wanted))).await.is_err() {
                return;
            }
            if after == After::Pause {
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                break;
            }
        }
    }
}
