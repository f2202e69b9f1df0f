//! What became of documents, written where their authors look: in their status, and in Events.
//!
//! Written by the replica that holds the Lease, only where it says something new, and slowly enough that a
//! change to a thousand documents does not keep the API server from its work.

pub(super) mod events;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_certs::facts::Utc;
use selvedge_kubernetes::{Client, Error, Kind, objects::Change};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    compile::Attached,
    problem::{Problem, Severity},
    resources::{Object, kinds::Feedback},
    status::{Verdict, Verdicts, by_document, is_of_kind},
};

/// At most 20 writes each second.
const PAUSE: Duration = Duration::from_millis(50);
/// When something could not be written, it is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);

/// Writes what became of documents.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    instance: String,
    /// By the object's uid, what it has been told.
    told: HashMap<Arc<str>, Told>,
    kinds: HashMap<(Arc<str>, Arc<str>), Option<Kind>>,
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    generation: i64,
    /// With what tells which Gateways were ours then, or which ancestors it had.
    status: Option<(Verdict, u64)>,
    events: HashSet<String>,
}

impl Writer {
    /// Writes through `client`, as the replica `instance`.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned(), told: HashMap::new(), kinds: HashMap::new() }
    }

    /// Writes while `held` says that we hold the Lease. Ends when nothing can change any more.
    pub async fn run(
        mut self,
        mut verdicts: watch::Receiver<Arc<Verdicts>>,
        mut held: watch::Receiver<bool>,
    ) {
        loop {
            if held.wait_for(|held| *held).await.is_err() {
                return;
            }
            tracing::info!("this replica holds the Lease: it writes status and Events");
            // Whoever held it before may have written since.
            self.told.clear();
            while *held.borrow() {
                let newest = Arc::clone(&verdicts.borrow_and_update());
                let complete = self.write_all(&newest, &held).await;
                let retry = tokio::time::sleep(if complete { Duration::MAX } else { RETRY });
                tokio::select! {
                    changed = verdicts.changed() => if changed.is_err() { return },
                    changed = held.changed() => if changed.is_err() { return },
                    () = retry => {}
                }
            }
            tracing::info!("this replica no longer holds the Lease");
        }
    }

    /// Whether everything is written.
    async fn write_all(&mut self, verdicts: &Verdicts, held: &watch::Receiver<bool>) -> bool {
        let by_document = by_document(&verdicts.problems);
        let present: HashSet<&Arc<str>> = verdicts.objects.iter().map(|object| &object.uid).collect();
        self.told.retain(|uid, _| present.contains(uid));
        let mut complete = true;
        for object in verdicts.objects.iter() {
            if !*held.borrow() {
                return true;
            }
            let problems = by_document.get(&object.name).map(Vec::as_slice).unwrap_or_default();
            if let Err(error) = self.write(object, problems, &verdicts.attached).await {
                tracing::debug!(%error, object = %object.name, "its status could not be written yet");
                complete = false;
                // Nothing else can be written either.
                if matches!(error, Error::Unreachable { .. }) {
                    return false;
                }
            }
        }
        complete
    }

    async fn write(
        &mut self,
        object: &Object,
        problems: &[&Problem],
        attached: &Attached,
    ) -> Result<(), Error> {
        let verdict = Verdict::of(problems);
        let before = self.told.remove(&object.uid).unwrap_or_default();
        let mut now = Told { generation: object.generation, status: before.status, events: before.events };
        let ours = match object.feedback {
            Feedback::Parents => ours(attached),
            Feedback::Ancestors => ancestors(object, attached),
            _ => 0,
        };
        let says = Some((verdict, ours));
        let known = before.generation == object.generation && now.status == says;
        let written = match &says {
            Some((verdict, _)) if !known => self.write_status(object, verdict, problems, attached).await,
            _ => Ok(()),
        };
        if written.is_ok() {
            now.status = says;
        }
        let told = match written {
            Ok(()) => self.write_events(object, problems, &mut now.events).await,
            failed => failed,
        };
        self.told.insert(Arc::clone(&object.uid), now);
        told
    }

    async fn write_status(
        &mut self,
        object: &Object,
        verdict: &Verdict,
        problems: &[&Problem],
        attached: &Attached,
    ) -> Result<(), Error> {
        if !matches!(object.feedback, Feedback::Parents | Feedback::Ancestors | Feedback::Conditions) {
            return Ok(());
        }
        let Some(kind) = self.kind(object).await?.filter(|kind| kind.has_status) else { return Ok(()) };
        let namespace = Some(&*object.name.namespace);
        let Some(found) = self.client.get(&kind, namespace, &object.name.name).await? else { return Ok(()) };
        // Of a newer one we know nothing yet; its verdict follows.
        if found.pointer("/metadata/uid").and_then(Value::as_str) != Some(&*object.uid)
            || found.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
                != object.generation
        {
            return Ok(());
        }
        let now = Utc(SystemTime::now()).to_string();
        let status = verdict.status(object, problems, attached, &found["status"], &now);
        let Some(status) = status else { return Ok(()) };
        // Only if nobody, such as another controller, has written meanwhile.
        let version = &found["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        tokio::time::sleep(PAUSE).await;
        let name = &object.name.name;
        match self.client.change_status(&kind, namespace, name, Change::Merge(&patch)).await {
            Err(Error::NotFound(_)) => Ok(()),
            written => written.map(|_| ()),
        }
    }

    /// Tells of each problem once, for as long as it lasts.
    async fn write_events(
        &self,
        object: &Object,
        problems: &[&Problem],
        told: &mut HashSet<String>,
    ) -> Result<(), Error> {
        let events: Vec<(String, &Problem)> = problems
            .iter()
            // Of single fields that nothing acts on, status and `selvedge check` tell.
            .filter(|problem| problem.severity != Severity::NotActedOn || is_of_kind(problem))
            .map(|problem| (events::event_name(object, problem), *problem))
            .collect();
        told.retain(|name| events.iter().any(|(still, _)| still == name));
        let kind = events::event_kind();
        for (name, problem) in events {
            if told.contains(&name) {
                continue;
            }
            let event = events::event(object, problem, &name, &self.instance, SystemTime::now());
            let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
            tokio::time::sleep(PAUSE).await;
            match self.client.create(&kind, Some(namespace), &event).await {
                // The replica that held the Lease before has told of it.
                Ok(_) | Err(Error::AlreadyExists(_)) => {}
                // A namespace that is being deleted takes no Events.
                Err(Error::Forbidden(why)) if why.contains("being terminated") => {}
                Err(error) => return Err(error),
            }
            told.insert(name);
        }
        Ok(())
    }

    async fn kind(&mut self, object: &Object) -> Result<Option<Kind>, Error> {
        let key = (Arc::clone(&object.api_version), Arc::clone(&object.name.kind));
        if let Some(known) = self.kinds.get(&key) {
            return Ok(known.clone());
        }
        let found = self.client.find_kind(object.kind(), &[&object.api_version]).await?;
        self.kinds.insert(key, found.clone());
        Ok(found)
    }
}

/// What tells which Gateways are ours.
fn ours(attached: &Attached) -> u64 {
    let mut hasher = DefaultHasher::new();
    attached.holders.keys().for_each(|name| name.hash(&mut hasher));
    hasher.finish()
}

/// What tells which ancestors a policy has.
fn ancestors(policy: &Object, attached: &Attached) -> u64 {
    let mut hasher = DefaultHasher::new();
    let references = attached.ancestors.get(&policy.name).into_iter().flatten();
    references.for_each(|reference| reference.to_string().hash(&mut hasher));
    hasher.finish()
}
