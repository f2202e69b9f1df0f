//! Asks every replica of the control plane, and adds up what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use selvedge_control_plane::status::{
    Config, EdgeTraffic, EndpointTraffic, ServicesShown, TrafficSeen, WorkloadTraffic,
};
use selvedge_model::{
    WorkloadName,
    traffic::{Counts, Edge, Way},
};
use serde::Serialize;

use super::known::{Known, NotKnown};
use crate::replicas::{Answers, PlaceArgs, REPLICA_TIME};

/// How long a replica may take where people look on: the others forget who does not ask again for five seconds.
pub(crate) const LIVE_TIME: Duration = Duration::from_secs(4);

/// Of which time.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct SinceArgs {
    /// Of how long until now, an hour at most; sidecars tell what is new every 15 seconds
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = since)]
    since: Duration,
}

fn since(text: &str) -> Result<Duration, String> {
    let since = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let most = Duration::from_secs(3600);
    match since {
        since if since > most => Err("the control plane knows of one hour at most".to_owned()),
        since if since < Duration::from_secs(1) => Err("it is one second at least".to_owned()),
        since => Ok(since),
    }
}

/// What is not known.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Missing {
    /// Requests and connections that control planes have not kept, because there are too many edges.
    pub(crate) dropped: u64,
    /// The same of sidecars, since they started.
    pub(crate) left_out: u64,
    /// Whose sidecar says most of that.
    #[serde(skip)]
    most_by: Option<(WorkloadName, u64)>,
    /// Replicas that could not be asked, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unknown: BTreeMap<String, String>,
    /// What the command was asked about and nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_known: Vec<NotKnown>,
}

/// What all replicas know of traffic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    /// Of how many seconds it is, at most.
    pub(crate) seconds: u64,
    pub(crate) workloads: BTreeMap<WorkloadName, WorkloadTraffic>,
    pub(crate) missing: Missing,
}

impl PlaceArgs {
    /// What goes through the mesh.
    pub(crate) async fn traffic(&self, since: SinceArgs) -> anyhow::Result<Traffic> {
        let seconds = since.since.as_secs().max(1);
        let told = self.ask::<TrafficSeen>(&format!("/traffic?since={seconds}"), REPLICA_TIME).await?;
        Ok(Traffic::told(seconds, told))
    }

    /// What goes through the mesh right now: sidecars report every second for as long as this is asked again and again.
    pub(crate) async fn traffic_now(&self, seconds: u64) -> anyhow::Result<Traffic> {
        let path = format!("/traffic?since={seconds}&often=true");
        Ok(Traffic::told(seconds, self.ask::<TrafficSeen>(&path, LIVE_TIME).await?))
    }

    /// What goes through the mesh, and what services there are. Who does not tell one of them is among those who do not answer.
    pub(crate) async fn traffic_and_services(
        &self,
        since: SinceArgs,
    ) -> anyhow::Result<(Traffic, ServicesShown)> {
        let (mut traffic, services) = tokio::try_join!(self.traffic(since), self.services())?;
        let (services, unknown) = services;
        traffic.missing.unknown.extend(unknown);
        Ok((traffic, services))
    }

    /// What services there are, and who does not tell which endpoints are out. The documents are the same for all replicas; each
    /// knows of other endpoints that are out.
    async fn services(&self) -> anyhow::Result<(ServicesShown, BTreeMap<String, String>)> {
        let Answers { told, unknown } = self.ask::<ServicesShown>("/services", REPLICA_TIME).await?;
        let is_whole = unknown.is_empty() && self.admin.is_none();
        Ok((all_services(told.into_values(), is_whole), unknown))
    }

    /// What services and workloads there are, by the documents, by who is connected and by `traffic`.
    pub(crate) async fn known(&self, traffic: &Traffic) -> anyhow::Result<Known> {
        let asked = self.ask::<Config>("/config", REPLICA_TIME);
        let ((services, _), configs) = tokio::try_join!(self.services(), asked)?;
        let mut known = Known::of(&services);
        configs.told.values().for_each(|config| known.add_proxies(config));
        known.add_traffic(traffic);
        Ok(known)
    }
}

/// What all who were asked have `told`; `is_whole`: they are all replicas that there are. Otherwise, in a cluster, a sidecar that
/// is connected to none of them may be connected to another, and nobody is absent for certain.
pub(crate) fn all_services(told: impl Iterator<Item = ServicesShown>, is_whole: bool) -> ServicesShown {
    let mut all = ServicesShown::default();
    for (place, one) in told.enumerate() {
        all.add(one, place == 0);
    }
    all.is_partial = all.is_in_cluster && !is_whole;
    all
}

impl Traffic {
    /// Of how many seconds something is known, nearly; `None`: of none, because no sidecar has told of anything yet.
    pub(crate) fn known_seconds(&self) -> Option<u64> {
        self.workloads.values().map(|workload| workload.seconds).max()
    }

    fn told(seconds: u64, answers: Answers<TrafficSeen>) -> Self {
        Self::of(seconds, answers.told.into_values().collect(), answers.unknown)
    }

    pub(crate) fn of(seconds: u64, told: Vec<TrafficSeen>, unknown: BTreeMap<String, String>) -> Self {
        let mut all = Self { seconds, missing: Missing { unknown, ..Missing::default() }, ..Self::default() };
        for one in told {
            all.seconds = all.seconds.min(one.kept_seconds);
            all.missing.dropped = all.missing.dropped.saturating_add(one.dropped);
            for (name, workload) in one.workloads {
                all.missing.left_out = all.missing.left_out.saturating_add(workload.left_out);
                if workload.left_out > all.missing.most_by.as_ref().map_or(0, |(_, most)| *most) {
                    all.missing.most_by = Some((name.clone(), workload.left_out));
                }
                match all.workloads.get_mut(&name) {
                    Some(known) => add(known, workload),
                    None => drop(all.workloads.insert(name, workload)),
                }
            }
        }
        all
    }
}

/// So many services that no document declares are shown of what one sidecar tells: its busiest.
const MOST_UNDECLARED: usize = 50;
/// What proxies call a service that is in no configuration.
const UNKNOWN: &str = "unknown";

/// Which hosts documents declare.
struct Declared<'a> {
    hosts: BTreeSet<&'a str>,
    /// What names below a wildcard end with.
    endings: BTreeSet<&'a str>,
}

impl<'a> Declared<'a> {
    fn of(services: &'a ServicesShown) -> Self {
        let hosts: BTreeSet<&str> = services.services.iter().map(|one| &*one.host).collect();
        let endings = hosts.iter().filter_map(|host| host.strip_prefix('*')).collect();
        Self { hosts, endings }
    }

    fn has(&self, host: &str) -> bool {
        let mut endings = host.match_indices('.').map(|(at, _)| &host[at..]);
        host == UNKNOWN || self.hosts.contains(host) || endings.any(|ending| self.endings.contains(ending))
    }

    /// What `edge` names that no document declares; `None`: nothing.
    fn lacks<'e>(&self, edge: &'e Edge) -> Option<&'e Arc<str>> {
        let backend = edge.backend.rsplit_once(':').map_or("", |(host, _)| host);
        if edge.way == Way::Inbound {
            return None;
        }
        if !self.has(&edge.host) {
            return Some(&edge.host);
        }
        (!edge.backend.is_empty() && !self.has(backend)).then_some(&edge.backend)
    }
}

impl Traffic {
    /// Of services that no document declares, what one sidecar tells beyond its busiest is one: `unknown`. Whoever runs it can make
    /// up as many names as he likes, and pages are for people. Returns of whom something is folded together, and how many services.
    pub(crate) fn fold_undeclared(&mut self, services: &ServicesShown) -> Vec<(WorkloadName, usize)> {
        let declared = Declared::of(services);
        let mut folded = Vec::new();
        for (name, workload) in &mut self.workloads {
            let mut counts = BTreeMap::<Arc<str>, u64>::new();
            for one in &workload.edges {
                let Some(lacking) = declared.lacks(&one.edge) else { continue };
                let sum = counts.entry(Arc::clone(lacking)).or_default();
                *sum = sum.saturating_add(one.counts.came(one.edge.carried));
            }
            let Some(more) = counts.len().checked_sub(MOST_UNDECLARED).filter(|more| *more > 0) else {
                continue;
            };
            let mut counts: Vec<(Arc<str>, u64)> = counts.into_iter().collect();
            counts.sort_by_key(|(_, count)| *count);
            let gone: BTreeSet<Arc<str>> = counts.into_iter().take(more).map(|(name, _)| name).collect();
            let mut all = BTreeMap::<Edge, Counts>::new();
            for EdgeTraffic { mut edge, counts } in std::mem::take(&mut workload.edges) {
                if declared.lacks(&edge).is_some_and(|name| gone.contains(name)) {
                    (edge.host, edge.port) = (UNKNOWN.into(), 0);
                    (edge.route, edge.subset, edge.backend) =
                        (Arc::default(), Arc::default(), Arc::default());
                }
                all.entry(edge).or_default().add(&counts);
            }
            workload.edges = all.into_iter().map(|(edge, counts)| EdgeTraffic { edge, counts }).collect();
            folded.push((name.clone(), more));
        }
        folded
    }
}

/// Adds what another replica knows of the same workload: its sidecar was connected there before, or after.
fn add(known: &mut WorkloadTraffic, other: WorkloadTraffic) {
    known.seconds = known.seconds.max(other.seconds);
    known.endpoints_left_out = known.endpoints_left_out.saturating_add(other.endpoints_left_out);
    for other in other.endpoints {
        let is_same = |one: &&mut EndpointTraffic| {
            (&one.host, one.port, &one.subset, one.address)
                == (&other.host, other.port, &other.subset, other.address)
        };
        match known.endpoints.iter_mut().find(is_same) {
            Some(one) => one.add(&other),
            None => known.endpoints.push(other),
        }
    }
    for EdgeTraffic { edge, counts } in other.edges {
        match known.edges.iter_mut().find(|one| one.edge == edge) {
            Some(one) => one.counts.add(&counts),
            None => known.edges.push(EdgeTraffic { edge, counts }),
        }
    }
}

impl Missing {
    /// What people are told of it.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("writing to a String cannot fail");
        if self.dropped > 0 {
            line(format!(
                "not shown: {} requests and connections, because there are too many edges",
                self.dropped
            ));
        }
        if self.left_out > 0 {
            let most = self.most_by.as_ref().map(|(name, most)| format!("; {name} says {most} of them"));
            line(format!(
                "not shown: {} requests and connections that sidecars do not tell apart{}",
                self.left_out,
                most.unwrap_or_default()
            ));
        }
        for (replica, why) in &self.unknown {
            line(format!("replica {replica} does not answer: {why}"));
        }
        for not_known in &self.not_known {
            line(not_known.to_string());
        }
        text
    }
}
