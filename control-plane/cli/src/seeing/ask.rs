//! Asks every replica of the control plane, and adds up what they say.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use selvedge_control_plane::status::{Config, EdgeTraffic, ServicesShown, TrafficSeen, WorkloadTraffic};
use selvedge_model::WorkloadName;
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
/// is connected to none of them may be connected to another, and nobody is absent.
pub(crate) fn all_services(told: impl Iterator<Item = ServicesShown>, is_whole: bool) -> ServicesShown {
    let mut all = ServicesShown::default();
    for (place, one) in told.enumerate() {
        all.add(one, place == 0);
    }
    if all.is_in_cluster && !is_whole {
        all.absent.clear();
    }
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

/// Adds what another replica knows of the same workload: its sidecar was connected there before, or after.
fn add(known: &mut WorkloadTraffic, other: WorkloadTraffic) {
    known.seconds = known.seconds.max(other.seconds);
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
