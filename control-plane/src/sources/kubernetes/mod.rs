//! Documents from a cluster's API server, which watches every kind.
//!
//! Each kind is watched separately, because each may be missing, come and go with its CRD, or fail alone. Nothing is used
//! before every kind has been listed once, because half a configuration would be wrong. After that the last good state
//! stays in use, however long the API server is away.

mod held;
mod in_use;
mod named;
mod served;

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use selvedge_kubernetes::{Client, Error, Event};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub use self::named::Naming;
use self::{
    held::{ClusterObjects, Step},
    named::NamedObjects,
    served::{Served, look},
};
use super::Loaded;
use crate::resources::kinds::{self, ResourceKind};

/// Steps that wait to be taken: enough to keep a listing going, and no more memory than that.
const WAITING: usize = 1024;

/// The API server has refused something: it will not change its mind at once.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// How long a change waits for objects that it is the first to name.
const NAMED: Duration = Duration::from_secs(3);

/// A cluster that is being followed.
#[derive(Debug)]
pub struct Kubernetes {
    client: Client,
    default_namespace: String,
    naming: Naming,
}

impl Kubernetes {
    /// The cluster behind `client`, not yet asked.
    pub fn new(client: Client, default_namespace: &str) -> Self {
        Self { client, default_namespace: default_namespace.to_owned(), naming: Naming::nothing() }
    }

    /// The same with the objects that its documents name, of kinds that are not followed as a whole.
    #[must_use]
    pub fn with(self, naming: Naming) -> Self {
        Self { naming, ..self }
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
        let (steps_of_named, mut taken_of_named) = mpsc::channel(WAITING);
        let mut named = NamedObjects::new(self.client.clone(), steps_of_named);
        let mut held = ClusterObjects::new(&self.default_namespace);
        // The newest state, while objects that it names are not known; and until when it waits for them.
        let mut waiting: Option<(Loaded, Instant)> = None;
        loop {
            let until = waiting.as_ref().map(|(_, until)| *until);
            tokio::select! {
                step = taken.recv() => match step {
                    Some(step) => held.take(step),
                    None => return,
                },
                Some((name, step)) = taken_of_named.recv() => held.take_named(&name, step),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = sender.closed() => return,
                Some(ended) = tasks.join_next() => {
                    tracing::error!(?ended, "watching the cluster has stopped; its last state stays in use");
                    return;
                }
            }
            // Whatever else has happened already belongs to the same state.
            while let Ok(step) = taken.try_recv() {
                held.take(step);
            }
            while let Ok((name, step)) = taken_of_named.try_recv() {
                held.take_named(&name, step);
            }
            // Once more if something is named no longer.
            while let Some(loaded) = held.changed() {
                named.follow(&self.naming.of(&loaded.resources), &mut held);
                let until = waiting.map_or_else(|| Instant::now() + NAMED, |(_, until)| until);
                waiting = Some((loaded, until));
            }
            let is_ready = |until: Instant| held.are_named_known() || Instant::now() >= until;
            if let Some((loaded, _)) = waiting.take_if(|(_, until)| is_ready(*until)) {
                sender.send_replace(Arc::new(loaded));
            }
        }
    }
}

/// What is done after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It is no news.
    Nothing,
    /// The watch goes on where it was.
    GoOn,
    /// A refusal is over once a whole listing has succeeded.
    Pause,
}

fn after(event: &Event) -> After {
    match event {
        // Listed again at once.
        Event::Failed(Error::Refused { code: 410, .. }) => After::Nothing,
        Event::Failed(Error::Unreachable { .. }) => After::GoOn,
        Event::Failed(_) => After::Pause,
        _ => After::GoOn,
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
        let mut events = match wanted.is_metadata {
            true => client.watch_metadata(&kind).boxed(),
            false => client.watch(&kind, None).boxed(),
        };
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
            let after = after(&event);
            if after == After::Nothing {
                continue;
            }
            if steps.send((index, trimmed(event, wanted))).await.is_err() {
                return std::future::pending().await;
            }
            if after == After::Pause {
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
