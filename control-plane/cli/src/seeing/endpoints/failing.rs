//! What clients' sidecars see fail at which endpoint.
//!
//! A client's sidecar tells of endpoints at which its own attempts have failed, and of how many attempts those were. So what is
//! said of an endpoint is of those clients alone for which it fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{EndpointTraffic, ServiceShown};
use selvedge_model::WorkloadName;
use serde::Serialize;

use super::Row;
use crate::seeing::{ask::Traffic, numbers::ILL};

/// So many clients are named, those with the most failures first.
const MOST_NAMED: usize = 5;
/// So many addresses are shown of a service whose addresses only DNS knows.
const MOST_BY_NAME: usize = 50;

/// What has failed at one endpoint.
#[derive(Debug, Serialize)]
pub(crate) struct SeenFailing {
    /// How many attempts there were of clients for which some have failed.
    pub(crate) attempts: u64,
    /// How many of them have failed.
    pub(crate) failures: u64,
    /// How many in which way.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Since when, again and again (RFC 3339, UTC).
    pub(crate) since: String,
    /// For how many clients.
    pub(crate) clients: usize,
    /// Those of them with the most failures.
    pub(crate) most_by: Vec<ByClient>,
}

/// What has failed for one client.
#[derive(Debug, Serialize)]
pub(crate) struct ByClient {
    pub(crate) client: WorkloadName,
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
}

/// What has failed at addresses that a service does not have, or not any more.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Elsewhere {
    pub(crate) service: String,
    /// At how many addresses.
    pub(crate) addresses: usize,
    pub(crate) failures: u64,
}

/// What one client's sidecar tells of an endpoint, of all of its subsets together.
type Told<'a> = BTreeMap<&'a WorkloadName, EndpointTraffic>;

/// What has failed, by service and endpoint.
pub(super) struct Failing<'a> {
    at: BTreeMap<(&'a str, u16), BTreeMap<SocketAddr, Told<'a>>>,
    /// What of it is not known.
    pub(super) left_out: u64,
    now: SystemTime,
}

impl<'a> Failing<'a> {
    pub(super) fn of(traffic: &'a Traffic) -> Self {
        let mut all = Self { at: BTreeMap::new(), left_out: 0, now: SystemTime::now() };
        for (client, workload) in &traffic.workloads {
            all.left_out = all.left_out.saturating_add(workload.endpoints_left_out);
            for one in &workload.endpoints {
                let of_service = all.at.entry((&*one.host, one.port)).or_default();
                let told = of_service.entry(one.address).or_default();
                match told.get_mut(client) {
                    // Each subset has all attempts at the endpoint: they are counted once.
                    Some(known) => {
                        let attempts = known.attempts.max(one.attempts);
                        known.add(one);
                        known.attempts = attempts.max(known.failed());
                    }
                    None => drop(told.insert(client, one.clone())),
                }
            }
        }
        all
    }

    /// What has failed at the endpoint of `service` at `address`; `None`: nothing.
    pub(super) fn at(&self, service: &ServiceShown, address: SocketAddr) -> Option<SeenFailing> {
        let told = self.at.get(&(&*service.host, service.port))?.get(&address)?;
        let (mut reasons, mut seconds) = (BTreeMap::<String, u64>::new(), 0);
        for one in told.values() {
            seconds = seconds.max(one.failing_seconds);
            for (reason, count) in &one.failures {
                let sum = reasons.entry(reason.to_string()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        let client = |(client, one): (&&WorkloadName, &EndpointTraffic)| ByClient {
            client: (*client).clone(),
            attempts: one.attempts,
            failures: one.failed(),
        };
        let mut most_by: Vec<ByClient> = told.iter().map(client).collect();
        most_by.sort_by_key(|one| std::cmp::Reverse(one.failures));
        let sum = |of: fn(&ByClient) -> u64| most_by.iter().map(of).fold(0, u64::saturating_add);
        let (attempts, failures) = (sum(|one| one.attempts), sum(|one| one.failures));
        most_by.truncate(MOST_NAMED);
        let since = self.now.checked_sub(Duration::from_secs(seconds)).unwrap_or(self.now);
        Some(SeenFailing {
            attempts,
            failures,
            reasons,
            since: Utc(since).to_string(),
            clients: told.len(),
            most_by,
        })
    }

    /// The addresses at which something of `service` has failed, those with the most failures first.
    pub(super) fn addresses(&self, service: &ServiceShown) -> Vec<SocketAddr> {
        let Some(all) = self.at.get(&(&*service.host, service.port)) else { return Vec::new() };
        let failed =
            |told: &Told<'_>| told.values().map(EndpointTraffic::failed).fold(0, u64::saturating_add);
        let mut addresses: Vec<(u64, SocketAddr)> =
            all.iter().map(|(address, told)| (failed(told), *address)).collect();
        addresses.sort_by_key(|(failed, _)| std::cmp::Reverse(*failed));
        addresses.into_iter().take(MOST_BY_NAME).map(|(_, address)| address).collect()
    }

    /// What has failed at addresses that are none of the `rows` of `service`.
    pub(super) fn elsewhere(&self, service: &ServiceShown, rows: &[Row]) -> Option<Elsewhere> {
        let all = self.at.get(&(&*service.host, service.port))?;
        let shown: BTreeSet<SocketAddr> = rows.iter().map(|row| row.address).collect();
        let others: Vec<&Told<'_>> =
            all.iter().filter(|(address, _)| !shown.contains(*address)).map(|(_, told)| told).collect();
        let failed = others.iter().flat_map(|told| told.values()).map(EndpointTraffic::failed);
        let service = format!("{}:{}", service.host, service.port);
        let failures = failed.fold(0, u64::saturating_add);
        (!others.is_empty()).then_some(Elsewhere { service, addresses: others.len(), failures })
    }
}

impl SeenFailing {
    /// How many percent of the attempts have not failed.
    fn success_percent(&self) -> f64 {
        100.0 - self.failures as f64 * 100.0 / self.attempts.max(1) as f64
    }

    /// The share that counts in the endpoint's state. One client may have trouble of its own: where the endpoint's sidecar has told
    /// of others (`has_own`), a single one does not make it `failing`.
    pub(super) fn seen_percent(&self, has_own: bool) -> f64 {
        let percent = self.success_percent();
        if has_own && self.clients < 2 { percent.max(ILL) } else { percent }
    }
}

impl fmt::Display for SeenFailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, failures, reasons, since, clients, most_by } = self;
        let mut reasons: Vec<(&String, &u64)> = reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let reasons: Vec<String> =
            reasons.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let mut names: Vec<String> = most_by.iter().map(|one| one.client.to_string()).collect();
        if *clients > names.len() {
            names.push("…".to_owned());
        }
        let word = if *clients == 1 { "client" } else { "clients" };
        write!(
            f,
            "fails for {clients} {word} since {since}: {failures} of their {attempts} attempts: {} ({})",
            reasons.join(", "),
            names.join(", ")
        )
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, addresses, failures } = self;
        write!(
            f,
            "{service}: {failures} more attempts failed at {addresses} addresses that are none of its endpoints, or no longer"
        )
    }
}
