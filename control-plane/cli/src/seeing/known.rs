//! Names that nobody knows: who mistypes a filter is told so, and not only that nothing was seen.

use std::{
    collections::BTreeSet,
    fmt::{Display, Formatter},
};

use selvedge_control_plane::status::{Config, ServicesShown};
use selvedge_model::{SpiffeId, WorkloadName, traffic::Edge};
use serde::Serialize;

use super::{ask::Traffic, filter::Party};

/// How like a name must be to be near, 0 to 1 (Jaro-Winkler): `reveiws` is to `reviews`, and `ratings` is not.
const NEAR: f64 = 0.8;
/// So many near names are said.
const MOST_NEAR: usize = 3;

/// What a filter names and nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NotKnown {
    /// As it was given.
    name: String,
    #[serde(skip)]
    kinds: Kinds,
    /// Known names that are like it, the nearest first.
    near: Vec<String>,
}

/// What a filter may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    Services,
    /// By their names, or the ServiceAccounts as which they run.
    Workloads,
    Both,
}

/// The names of a mesh.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By host and port: those that documents declare, and those that were called.
    services: BTreeSet<(String, u16)>,
    /// The namespaces and names of workloads and of their ServiceAccounts.
    workloads: BTreeSet<(String, String)>,
}

impl Known {
    /// What documents declare as services, with what is behind them.
    pub(crate) fn of(services: &ServicesShown) -> Self {
        let mut known = Self::default();
        for service in &services.services {
            known.services.insert((service.host.to_string(), service.port));
            for endpoint in &service.endpoints {
                endpoint.workload.iter().for_each(|name| known.add_workload(name));
                endpoint.identity.iter().for_each(|identity| known.add_account(identity));
            }
        }
        for out in &services.out {
            known.services.insert((out.host.to_string(), out.port));
            known.add_workload(&out.by);
        }
        known
    }

    /// Adds who has sent or got something, and who was called.
    pub(crate) fn add_traffic(&mut self, traffic: &Traffic) {
        for (teller, workload) in &traffic.workloads {
            self.add_workload(teller);
            self.add_account(&workload.identity);
            for Edge { host, port, backend, client, .. } in workload.edges.iter().map(|one| &one.edge) {
                self.services.insert((host.to_string(), *port));
                if let Some((host, port)) = backend.rsplit_once(':') {
                    self.services.insert((host.to_owned(), port.parse().unwrap_or_default()));
                }
                client.iter().for_each(|client| self.add_account(client));
            }
        }
    }

    /// Adds those that are connected, and those that should be.
    pub(crate) fn add_proxies(&mut self, config: &Config) {
        config.expected.iter().for_each(|name| self.add_workload(name));
        for proxy in &config.proxies {
            self.add_workload(&proxy.workload);
            self.add_account(&proxy.identity);
        }
    }

    fn add_workload(&mut self, name: &WorkloadName) {
        self.workloads.insert((name.namespace().to_owned(), name.name().to_owned()));
    }

    fn add_account(&mut self, identity: &SpiffeId) {
        self.workloads.insert((identity.namespace().to_owned(), identity.service_account().to_owned()));
    }

    /// What there is to say if nothing of these `kinds` is called `party`.
    pub(crate) fn not_known(&self, party: &Party, kinds: Kinds) -> Option<NotKnown> {
        let services = self.services.iter().filter(|(host, _)| kinds != Kinds::Workloads && !host.is_empty());
        let workloads = self.workloads.iter().filter(|_| kinds != Kinds::Services);
        let is_known = services.clone().any(|(host, port)| party.is_service(host, *port))
            || workloads.clone().any(|(namespace, name)| party.is_named(namespace, name));
        if is_known {
            return None;
        }
        let services = services.map(|(host, port)| likeness_to_service(party, host, *port));
        let workloads = workloads.map(|(namespace, name)| likeness_to_workload(party, namespace, name));
        Some(NotKnown { name: party.to_string(), kinds, near: nearest(services.chain(workloads)) })
    }
}

/// How like `party` is to the service, and what it would have to be.
fn likeness_to_service(party: &Party, host: &str, port: u16) -> (f64, String) {
    let whole = if port == 0 { host.to_owned() } else { format!("{host}:{port}") };
    let mut parts = host.split('.');
    match party {
        Party::Host { host: wanted, .. } => {
            let alike = wanted.split('.').zip(parts).map(|(one, other)| like(one, other));
            (alike.fold(1.0, f64::min), whole)
        }
        Party::Named { namespace, name } => {
            let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            match name {
                Some(name) => (like(namespace, second).min(like(name, first)), whole),
                None => (like(namespace, second), format!("{second}/*")),
            }
        }
    }
}

/// The same of a workload.
fn likeness_to_workload(party: &Party, namespace: &str, name: &str) -> (f64, String) {
    let whole = format!("{namespace}/{name}");
    match party {
        Party::Host { host, .. } => (like(host.split('.').next().unwrap_or_default(), name), whole),
        Party::Named { namespace: wanted, name: None } => (like(wanted, namespace), format!("{namespace}/*")),
        Party::Named { namespace: wanted, name: Some(one) } => {
            (like(wanted, namespace).min(like(one, name)), whole)
        }
    }
}

/// Longer names are like none: a URL may have any text, and each of its letters is compared with each of all names.
const LONGEST: usize = 253;

/// Those of `all` that are like `name`, the nearest first.
pub(crate) fn near<'a>(name: &str, all: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if name.len() > LONGEST {
        return Vec::new();
    }
    nearest(all.into_iter().map(|one| (like(name, one), one)))
}

/// Those of `all` that are near, each with how like it is, the nearest first.
fn nearest<N: Ord>(all: impl Iterator<Item = (f64, N)>) -> Vec<N> {
    let mut near: Vec<(f64, N)> = all.filter(|(likeness, _)| *likeness >= NEAR).collect();
    near.sort_by(|(one, a), (other, b)| other.total_cmp(one).then_with(|| a.cmp(b)));
    near.dedup_by(|(_, a), (_, b)| a == b);
    near.into_iter().take(MOST_NEAR).map(|(_, name)| name).collect()
}

/// How like they are, 0 to 1. By Jaro and Winkler alone short words are never near: those that differ by one letter in three are,
/// two that are swapped being one.
fn like(one: &str, other: &str) -> f64 {
    let longest = one.chars().count().max(other.chars().count());
    let likeness = strsim::jaro_winkler(one, other);
    if strsim::osa_distance(one, other) * 3 <= longest { likeness.max(NEAR) } else { likeness }
}

impl Display for NotKnown {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (what, all) = match self.kinds {
            Kinds::Services => ("service", "selvedge routes shows all"),
            Kinds::Workloads => ("workload", "selvedge status --all shows all that are connected"),
            Kinds::Both => {
                ("service or workload", "selvedge routes and selvedge status --all show what there is")
            }
        };
        write!(f, "no {what} is known as {}", self.name)?;
        if self.near.is_empty() {
            write!(f, "; {all}")
        } else {
            write!(f, "; near: {}", self.near.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let services = ["reviews", "ratings", "details"]
            .map(|name| (format!("{name}.default.svc.cluster.local"), 9080))
            .into_iter()
            .chain([("api.example.com".to_owned(), 443)]);
        let workloads = ["frontend", "reviews-v1-a", "reviews-v2"].map(|name| ("default", name));
        let workloads = workloads.into_iter().chain([("shop", "cart")]);
        Known {
            services: services.collect(),
            workloads: workloads.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).collect(),
        }
    }

    fn said(party: &str, kinds: Kinds) -> Option<String> {
        known().not_known(&party.parse().unwrap(), kinds).map(|not_known| not_known.to_string())
    }

    #[test]
    fn a_name_that_is_known_is_no_mistake() {
        for (party, kinds) in [
            ("reviews", Kinds::Services),
            ("reviews.default:9080", Kinds::Services),
            ("default/reviews", Kinds::Both),
            ("api.example.com", Kinds::Services),
            ("default/frontend", Kinds::Workloads),
            ("frontend", Kinds::Both),
            ("shop/*", Kinds::Workloads),
        ] {
            assert_eq!(said(party, kinds), None, "{party}");
        }
    }

    #[test]
    fn who_mistypes_a_name_is_told_which_are_near() {
        let reviews = "reviews.default.svc.cluster.local:9080";
        for (party, kinds, near) in [
            ("reveiws", Kinds::Services, reviews),
            ("review", Kinds::Services, reviews),
            ("reviews:9081", Kinds::Services, reviews),
            ("reviews.defualt", Kinds::Services, reviews),
            ("default/reviws", Kinds::Services, reviews),
            ("default/frontnd", Kinds::Workloads, "default/frontend"),
            ("defalt/frontend", Kinds::Workloads, "default/frontend"),
            ("reviews", Kinds::Workloads, "default/reviews-v2, default/reviews-v1-a"),
            ("shpo/*", Kinds::Workloads, "shop/*"),
            ("aip.example.com", Kinds::Services, "api.example.com:443"),
        ] {
            let said = said(party, kinds).unwrap_or_else(|| panic!("{party} is known"));
            assert!(said.ends_with(&format!(" is known as {party}; near: {near}")), "{said}");
        }
    }

    #[test]
    fn who_names_something_else_altogether_is_told_where_all_names_are() {
        let services = said("zzz", Kinds::Services).unwrap();
        assert_eq!(services, "no service is known as zzz; selvedge routes shows all");
        // A service is not a workload, and the other way round.
        assert!(said("shop/cart", Kinds::Services).is_some() && said("details", Kinds::Workloads).is_some());
        let workloads = said("elsewhere/*", Kinds::Workloads).unwrap();
        assert!(workloads.starts_with("no workload is known as elsewhere/*; selvedge status"), "{workloads}");
    }
}
