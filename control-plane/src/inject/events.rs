//! What happened to pods, for `kubectl describe`: handed to whoever writes Events to the API server.
//!
//! Bounded, and never waited for: an Event that finds no room is left out and counted, since admission must not
//! wait for it.

use tokio::sync::mpsc;

/// How many Events may wait to be written.
const WAITING: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// To whom.
    pub subject: Subject,
    /// Whether somebody should look into it.
    pub warning: bool,
    /// One word in camel case.
    pub reason: &'static str,
    /// The whole of it, for people.
    pub message: String,
}

/// The object that an Event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Its namespace, which is the Event's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that does not exist yet.
    pub uid: String,
}

impl Event {
    pub(super) fn normal(subject: Subject, reason: &'static str, message: String) -> Self {
        Self { subject, warning: false, reason, message }
    }

    pub(super) fn warning(subject: Subject, reason: &'static str, message: String) -> Self {
        Self { subject, warning: true, reason, message }
    }
}

/// Where Events are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// A way in, and the way out of it.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    pub(super) fn send(&self, event: Event) {
        if let Err(error) = self.0.try_send(event) {
            tracing::debug!(%error, "an Event is left out");
        }
    }
}
