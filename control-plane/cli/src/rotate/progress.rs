//! How far the sidecars have come: asked of every control plane, again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use selvedge_control_plane::status::{Config, Proxy};
use selvedge_model::WorkloadName;
use tokio::time::{Instant, sleep};

use super::{RotateArgs, say};
use crate::{
    place::Place,
    replicas::{self, ADMIN_PORT, REPLICA_TIME},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// A step is done when nothing has been missing for this long: a sidecar may open its stream anew just now, or be about to
/// put into use what it has acknowledged.
const SETTLED: Duration = Duration::from_secs(3);
/// How many of those that are waited for are named.
const NAMED: usize = 5;

/// What control planes say, each by its name; or why one says nothing.
pub(super) type Replicas = BTreeMap<String, Result<Config, String>>;

/// What must be so at the end of a step.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The trust roots, the first of which signs.
    roots: Vec<String>,
    /// The root of every certificate.
    certificates: Option<String>,
}

impl Wanted {
    pub(super) fn trusting<const N: usize>(roots: [&String; N]) -> Self {
        Self { roots: roots.map(Clone::clone).to_vec(), certificates: None }
    }

    pub(super) fn with_certificates_from(self, root: &str) -> Self {
        Self { certificates: Some(root.to_owned()), ..self }
    }

    fn is_met_by(&self, config: &Config, proxy: &Proxy) -> bool {
        let leads_there = |root: &String| proxy.certificate_root.as_deref() == Some(root);
        config.trusts(proxy) && self.certificates.as_ref().is_none_or(leads_there)
    }
}

/// What is known of the sidecars.
pub(super) struct Progress {
    admin: Vec<SocketAddr>,
    ignore_missing: bool,
    /// All that were connected since this command began.
    seen: BTreeSet<WorkloadName>,
    /// Those of which it was said that nobody waits for them.
    told_of: BTreeSet<WorkloadName>,
    said: String,
}

/// One look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// How many sidecars are where they should be.
    done: usize,
    /// How many there are.
    all: usize,
    /// Whom we wait for.
    waiting: Vec<String>,
}

impl Progress {
    pub(super) fn new(args: &RotateArgs) -> Self {
        Self {
            admin: args.admin.clone(),
            ignore_missing: args.ignore_missing,
            seen: BTreeSet::new(),
            told_of: BTreeSet::new(),
            said: String::new(),
        }
    }

    /// Waits until all is as wanted, and says meanwhile what is not.
    pub(super) async fn until(&mut self, place: &Place, wanted: &Wanted) -> anyhow::Result<()> {
        let mut since = None;
        loop {
            let replicas = self.ask(place).await;
            let look = self.look(&replicas, wanted);
            self.tell(&look)?;
            self.tell_missing(&replicas)?;
            if look.waiting.is_empty() {
                if since.get_or_insert_with(Instant::now).elapsed() >= SETTLED {
                    return Ok(());
                }
            } else {
                since = None;
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask(&self, place: &Place) -> Replicas {
        let default = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT));
        let admin = match place {
            Place::Cluster(place) if self.admin.is_empty() => {
                let (client, namespace) = (place.client(), place.namespace());
                return replicas::ask_replicas(client, namespace, "/config", REPLICA_TIME).await;
            }
            _ if self.admin.is_empty() => &[default][..],
            _ => &self.admin[..],
        };
        let mut answers = BTreeMap::new();
        for address in admin {
            let config = replicas::ask_at(*address, "/config", REPLICA_TIME).await;
            answers.insert(address.to_string(), config.map_err(|error| format!("{error:#}")));
        }
        answers
    }

    /// What is so by the words of the replicas.
    pub(super) fn look(&mut self, replicas: &Replicas, wanted: &Wanted) -> Look {
        let mut look = Look::default();
        if replicas.is_empty() {
            look.waiting.push("a control plane: none runs".to_owned());
        }
        let (mut connected, mut expected) = (BTreeSet::new(), BTreeSet::new());
        for (name, config) in replicas {
            match config {
                Err(why) => look.waiting.push(format!("the control plane {name}: {why}")),
                Ok(config) if config.trust_roots != wanted.roots => {
                    look.waiting.push(format!("the control plane {name}"));
                }
                Ok(config) => {
                    let (done, behind): (Vec<_>, Vec<_>) =
                        config.proxies.iter().partition(|proxy| wanted.is_met_by(config, proxy));
                    look.done += done.len();
                    look.all += config.proxies.len();
                    look.waiting.extend(behind.iter().map(|proxy| proxy.workload.to_string()));
                }
            }
            if let Ok(config) = config {
                connected.extend(config.proxies.iter().map(|proxy| proxy.workload.clone()));
                expected.extend(config.expected.iter().cloned());
            }
        }
        self.seen.extend(connected.iter().cloned());
        if !self.ignore_missing {
            let gone = self.seen.iter().filter(|name| expected.contains(*name) && !connected.contains(*name));
            look.waiting.extend(gone.map(|name| format!("{name}, which is no longer connected")));
        }
        look
    }

    fn tell(&mut self, look: &Look) -> anyhow::Result<()> {
        let mut words = format!("  {} of {} sidecars", look.done, look.all);
        if !look.waiting.is_empty() {
            words += &format!("; waiting for {}", look.waiting[..look.waiting.len().min(NAMED)].join(", "));
            if look.waiting.len() > NAMED {
                words += &format!(" and {} more", look.waiting.len() - NAMED);
            }
        }
        if words != self.said {
            say(&words)?;
            self.said = words;
        }
        Ok(())
    }

    /// Who has a sidecar by its document and was never connected while we looked.
    fn tell_missing(&mut self, replicas: &Replicas) -> anyhow::Result<()> {
        // Each is connected to one of the replicas: unless all are known, nobody is known to be missing.
        let Ok(configs) = replicas.values().map(Result::as_ref).collect::<Result<Vec<_>, _>>() else {
            return Ok(());
        };
        for name in configs.iter().flat_map(|config| &config.expected) {
            if !self.seen.contains(name) && self.told_of.insert(name.clone()) {
                say(&format!("  {name} is not connected, and is not waited for: it may have to join again"))?;
            }
        }
        Ok(())
    }
}
