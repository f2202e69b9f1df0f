//! Documents from a cluster's API server, which watches every kind.
//!
//! Each kind is watched separately, because each may be missing, come and go with its CRD, or fail alone. Nothing is used
//! before every kind has been listed once, because half a configuration would be wrong. After that the last good state
//! stays in use, however long the API server is away.

mod held;
mod served;

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use selvedge_kubernetes::{Client, Error, Event};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    held::{ClusterObjects, Step},
    served::{Served, look},
};
use super::Loaded;
use crate::resources::kinds::{self, ResourceKind};

/// Steps that wait to be taken: enough to keep a listing going, and no more memory than that.
const WAITING: usize = 1024;

/// The API server has refused something: it will not change its mind at once.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// A cluster that is being followed.
#[derive(Debug)]
pub struct Kubernetes {
    client: Client,
    default_namespace: String,
}

impl Kubernetes {
    /// The cluster behind `client`, not yet asked.
    pub fn new(client: Client, default_namespace: &str) -> Self {
        Self { client, default_namespace: default_namespace.to_owned() }
    }

    /// Sends all there is once everything has been listed, and again whenever anything changed, until
    /// nobody listens.
    pub async fn watch(self, sender: watch::Sender<Arc<Loaded>>) {
        let (served, looked) = watch::channel(Served::default());
        let (steps, mut taken) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(look(self.client.clone(), served, steps.clone()));
        for (index, wanted) in kinds::followed().enumerate() {
            tasks.spawn(follow(self.client.clone(), index, wanted, looked.clone(), steps.clone()));
        }
        drop(steps);
        let mut held = ClusterObjects::new(&self.default_namespace);
        loop {
            let step = tokio::select! {
                step = taken.recv() => step,
                () = sender.closed() => return,
                Some(ended) = tasks.join_next() => {
                    tracing::error!(?ended, "watching the cluster has stopped; its last state stays in use");
                    return;
                }
            };
            let Some(step) = step else { return };
            held.take(step);
            // Whatever else has happened already belongs to the same state.
            while let Ok(step) = taken.try_recv() {
                held.take(step);
            }
            if let Some(loaded) = held.changed() {
                sender.send_replace(Arc::new(loaded));
            }
        }
    }
}

/// Follows one kind while it is served. Never ends.
async fn follow(
    client: Client,
    index: usize,
    wanted: &'static ResourceKind,
    mut served: watch::Receiver<Served>,
    steps: mpsc::Sender<(usize, Step)>,
) {
    loop {
        let Ok(known) = served.wait_for(|served| served.is_known()).await.map(|served| served.find(wanted))
        else {
            return std::future::pending().await;
        };
        let Some(kind) = known else {
            if steps.send((index, Step::Missing)).await.is_err() || served.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        };
        tracing::debug!(%kind, "following");
        let mut events = std::pin::pin!(client.watch(&kind, None));
        loop {
            let step = tokio::select! {
                event = events.next() => event,
                changed = served.changed() => {
                    match changed {
                        Ok(()) if served.borrow_and_update().find(wanted).as_ref() == Some(&kind) => continue,
                        _ => break,
                    }
                }
            };
            let Some(event) = step else { break };
            let pause = match &event {
                // Listed again at once.
                Event::Failed(Error::Refused { code: 410, .. }) => continue,
                // The watch goes on where it was.
                Event::Failed(Error::Unreachable { .. }) => false,
                Event::Failed(_) => true,
                _ => false,
            };
            if steps.send((index, trimmed(event, wanted))).await.is_err() {
                return std::future::pending().await;
            }
            // A refusal is over once a whole listing has succeeded.
            if pause {
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                break;
            }
        }
    }
}

fn trimmed(event: Event, kind: &ResourceKind) -> Step {
    let trimmed = |mut object| {
        kind.trim(&mut object);
        object
    };
    match event {
        Event::Listing => Step::Listing,
        Event::Present(object) => Step::Present(trimmed(object)),
        Event::Listed => Step::Listed,
        Event::Applied(object) => Step::Applied(trimmed(object)),
        Event::Deleted(object) => Step::Deleted(trimmed(object)),
        Event::Failed(error) => Step::Failed(error),
    }
}

#[cfg(test)]
mod tests;
