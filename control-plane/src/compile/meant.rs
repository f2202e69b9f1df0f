//! What policies name that there is not, and what they ask of ports that cannot say it: told to whoever wrote them, with
//! what it then means. Such a policy does what it says, which is hardly what was meant.
//!
//! What there is, documents say, and more may come: these are warnings. Accounts and ports are asked for in files alone. In
//! a cluster pods come and go, and need not declare their ports.

mod istio;
mod linkerd;

use std::collections::{HashMap, HashSet};

pub(super) use self::istio::accounts_named;

use selvedge_model::{Protocol, Workload, WorkloadName, service::OPAQUE_PORTS};

use super::{
    MeshSettings, Problems, some,
    targets::{self, Ports, Selected, Targets},
};
use crate::resources::{Document, Resources};

/// A workload, as far as policies ask for it.
#[derive(Debug)]
pub(super) struct Facing<'w> {
    pub(super) selected: Selected<'w>,
    /// It, as its own sidecar sees it.
    pub(super) workload: &'w Workload,
    /// Whether it has the address of its node (`hostNetwork`).
    pub(super) is_of_node: bool,
    /// First and last of each range of ports whose connections pass by its sidecar.
    pub(super) skipped: &'w [(u16, u16)],
}

impl<'w> Facing<'w> {
    /// Whether sidecars take what is spoken on `port` for opaque.
    fn is_opaque(&self, port: u16) -> bool {
        let said = self.workload.protocols.get(&port).copied().unwrap_or_default();
        said.spoken(port, &OPAQUE_PORTS) == Protocol::Tcp
    }

    /// The namespace and the name of its service account.
    fn account(&self) -> (&'w str, &'w str) {
        (self.workload.name.namespace(), self.workload.identity.service_account())
    }
}

/// All workloads.
#[derive(Debug)]
struct Meant<'w> {
    by_namespace: HashMap<&'w str, Vec<Facing<'w>>>,
    /// Those that are gateways: their namespaces, and their places there.
    gateways: Vec<(&'w str, usize)>,
    /// Namespaces and service accounts of workloads.
    accounts: HashSet<(&'w str, &'w str)>,
}

/// A workload that a policy is for, and the ports of it.
type Chosen<'m, 'w> = (&'m Facing<'w>, Ports);

/// Whether there are none of the policies of which only [`report`] reports something.
pub(super) fn is_nothing(resources: &Resources) -> bool {
    let counts = [
        resources.servers.len(),
        resources.server_policies.len(),
        resources.server_authorizations.len(),
        resources.mesh_tls_authentications.len(),
    ];
    counts == [0; 4]
}

/// Whether there are policies of which [`report_each`] reports something.
pub(super) fn is_any_alone(resources: &Resources) -> bool {
    !resources.peer_authentications.is_empty() || !resources.authorization_policies.is_empty()
}

/// Whether there are policies of which something is said anew without all the others.
pub(super) fn is_any_kept(resources: &Resources) -> bool {
    is_any_alone(resources)
        || !resources.request_authentications.is_empty()
        || !resources.rate_limits.is_empty()
}

/// Reports the `AuthorizationPolicy`s and `PeerAuthentication`s. What is said of one depends on no other, but on all `workloads` of
/// the namespaces that it is for, and on all `accounts`: these, and those of the `workloads`, are the namespaces and names of all
/// service accounts.
pub(super) fn report_each<'w>(
    resources: &Resources,
    settings: &MeshSettings,
    workloads: impl Iterator<Item = Facing<'w>>,
    accounts: impl Iterator<Item = (&'w str, &'w str)>,
    problems: &mut Problems,
) {
    if !is_any_alone(resources) {
        return;
    }
    let mut meant = Meant::new(workloads);
    if resources.authorization_policies.iter().any(|policy| accounts_named(policy, settings).next().is_some())
    {
        meant.accounts.extend(accounts);
    }
    Asked { meant: &meant, settings }.each(resources, problems);
}

/// Reports the `RequestAuthentication`s, where `workloads` are all that there are.
pub(super) fn report_authentications<'w>(
    resources: &Resources,
    settings: &MeshSettings,
    workloads: impl Iterator<Item = Facing<'w>>,
    problems: &mut Problems,
) {
    if !resources.request_authentications.is_empty() {
        let meant = Meant::new(workloads);
        Asked { meant: &meant, settings }.authentications(resources, problems);
    }
}

/// Reports the `RateLimit`s, where `workloads` are all that there are.
pub(super) fn report_limits<'w>(
    resources: &Resources,
    settings: &MeshSettings,
    workloads: impl Iterator<Item = Facing<'w>>,
    problems: &mut Problems,
) {
    if !resources.rate_limits.is_empty() {
        let meant = Meant::new(workloads);
        Asked { meant: &meant, settings }.rate_limits(resources, problems);
    }
}

/// Reports all other policies. `workloads` are looked at if there are any.
pub(super) fn report<'w>(
    resources: &Resources,
    settings: &MeshSettings,
    workloads: impl Iterator<Item = Facing<'w>>,
    problems: &mut Problems,
) {
    if is_nothing(resources) {
        return;
    }
    let meant = Meant::new(workloads);
    Asked { meant: &meant, settings }.linkerd(resources, problems);
}

/// Reports all of them, where `workloads` are all that there are: what [`report_each`] reports into `of_each`, what
/// [`report_authentications`] does into `of_tokens`, and what [`report_limits`] does into `of_limits`.
pub(super) fn report_all<'w>(
    resources: &Resources,
    settings: &MeshSettings,
    workloads: impl Iterator<Item = Facing<'w>>,
    (of_each, of_tokens, of_limits): (&mut Problems, &mut Problems, &mut Problems),
    problems: &mut Problems,
) {
    if !is_any_kept(resources) && is_nothing(resources) {
        return;
    }
    let meant = Meant::new(workloads);
    let asked = Asked { meant: &meant, settings };
    asked.each(resources, of_each);
    asked.authentications(resources, of_tokens);
    asked.rate_limits(resources, of_limits);
    asked.linkerd(resources, problems);
}

impl Asked<'_, '_> {
    fn each(&self, resources: &Resources, problems: &mut Problems) {
        self.peer_authentications(resources, problems);
        self.authorizations(resources, problems);
    }
}

impl<'w> Meant<'w> {
    fn new(all: impl Iterator<Item = Facing<'w>>) -> Self {
        let mut meant = Self { by_namespace: HashMap::new(), gateways: Vec::new(), accounts: HashSet::new() };
        for one in all {
            let namespace = one.selected.namespace;
            meant.accounts.insert(one.account());
            let here = meant.by_namespace.entry(namespace).or_default();
            if one.selected.gateway.is_some() {
                meant.gateways.push((namespace, here.len()));
            }
            here.push(one);
        }
        meant
    }
}

/// All workloads, and what the meaning of policies depends on besides.
#[derive(Debug, Clone, Copy)]
struct Asked<'m, 'w> {
    meant: &'m Meant<'w>,
    settings: &'m MeshSettings,
}

impl<'m, 'w> Asked<'m, 'w> {
    /// The workloads that a policy in `namespace` with these `targets` is for.
    fn chosen(&self, namespace: &str, targets: &Targets<'_>) -> Vec<Chosen<'m, 'w>> {
        let chosen = |one: &'m Facing<'w>| Some((one, targets.ports(one.selected)?));
        let meant: &'m Meant<'w> = self.meant;
        match targets::only_namespace(namespace, self.settings) {
            Some(namespace) => {
                // A gateway may run in another namespace than its Gateway is in.
                let elsewhere = meant.gateways.iter().filter(|(at, _)| *at != namespace);
                let elsewhere = elsewhere.filter_map(|(at, place)| meant.by_namespace.get(at)?.get(*place));
                let elsewhere = elsewhere.filter(|_| targets.names_gateways());
                let here = meant.by_namespace.get(namespace).into_iter().flatten();
                here.chain(elsewhere).filter_map(chosen).collect()
            }
            None => meant.by_namespace.values().flatten().filter_map(chosen).collect(),
        }
    }

    /// Whether a workload has this service account.
    fn is_account(&self, namespace: &str, name: &str) -> bool {
        self.meant.accounts.contains(&(namespace, name))
    }

    /// The namespace and name of the service account that `principal` is one of, if that is of this mesh and nobody has it.
    fn missing_account<'t>(&self, principal: &'t str) -> Option<(&'t str, &'t str)> {
        let (namespace, name) = account_of(principal, self.settings)?;
        (!self.is_account(namespace, name)).then_some((namespace, name))
    }
}

/// The namespace and name of the service account that `principal` is one of, if that is of this mesh.
fn account_of<'t>(principal: &'t str, settings: &MeshSettings) -> Option<(&'t str, &'t str)> {
    let (domain, rest) = principal.split_once("/ns/")?;
    let account = rest.split_once("/sa/")?;
    (domain == "cluster.local" || domain == settings.trust_domain.as_str()).then_some(account)
}

/// What it means that a policy names a service account that nobody has.
fn nobody_has((namespace, name): (&str, &str)) -> String {
    format!(
        "no workload has the service account {namespace}/{name}, so this is about nobody; compare the name"
    )
}

/// Why a policy is not enforced at a workload that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unenforced {
    NoSidecar,
    HostNetwork,
    SkippedPorts,
}

impl Unenforced {
    /// What is said of it; `names` are the workloads.
    pub(super) fn at(self, names: &str) -> String {
        match self {
            Self::NoSidecar => {
                format!("is not enforced at {names}: without a sidecar nothing here refuses anything")
            }
            Self::HostNetwork => format!("is not enforced at {names}: a pod with hostNetwork has no sidecar"),
            Self::SkippedPorts => {
                format!(
                    "is not enforced at the ports of {names} that are skipped: connections pass by the sidecar"
                )
            }
        }
    }
}

/// Reports the workloads at which nobody enforces `document`, or not at all ports.
fn report_unenforced<T>(
    document: &Document<T>,
    field: &str,
    chosen: &[Chosen<'_, '_>],
    problems: &mut Problems,
) {
    // In a cluster the pods that have no sidecar may be known, and many.
    let is_told = document.location.path.is_some() || chosen.iter().any(|(one, _)| one.workload.meshed);
    if !is_told {
        return;
    }
    for why in [Unenforced::NoSidecar, Unenforced::HostNetwork, Unenforced::SkippedPorts] {
        let names =
            chosen.iter().filter(|one| unenforced(one) == Some(why)).map(|(one, _)| &one.workload.name);
        if let Some(names) = some(names) {
            problems.warning(document, field, why.at(&names));
        }
    }
}

/// Why a policy is not enforced at `one`, or not at all of the ports that it is for.
fn unenforced((one, of): &Chosen<'_, '_>) -> Option<Unenforced> {
    let is_skipped = |(first, last): &(u16, u16)| match of {
        Some(ports) => ports.iter().any(|port| (first..=last).contains(&port)),
        None => true,
    };
    match one.workload.meshed {
        true => one.skipped.iter().any(is_skipped).then_some(Unenforced::SkippedPorts),
        false if one.workload.gateway.is_some() => None,
        false if one.is_of_node => Some(Unenforced::HostNetwork),
        false => Some(Unenforced::NoSidecar),
    }
}

/// Reports the `ports` of which no document says that one of the `chosen` workloads has them.
fn report_ports<T>(
    document: &Document<T>,
    field: &str,
    ports: impl IntoIterator<Item = u16>,
    chosen: &[Chosen<'_, '_>],
    problems: &mut Problems,
) {
    if document.location.path.is_none() || chosen.is_empty() {
        return;
    }
    let has =
        |port: u16| chosen.iter().any(|(one, of)| is_for(of, port) && one.workload.ports.contains(&port));
    for port in ports.into_iter().filter(|port| !has(*port)) {
        let message = format!(
            "no document says that a workload which this is for has port {port}, so it is about no connection that is known; \
             compare the numbers: they are those of the workload, and not those of a Service"
        );
        problems.warning(document, field, message);
    }
}

fn is_for(ports: &Ports, port: u16) -> bool {
    ports.as_ref().is_none_or(|ports| ports.contains(&port))
}

/// The first port by name and number, of those that `asked` is true of, at which no requests are seen.
fn opaque_port<'m>(
    chosen: &[Chosen<'m, '_>],
    asked: impl Fn(u16) -> bool,
) -> Option<(&'m WorkloadName, u16)> {
    let ports = chosen.iter().filter(|(one, _)| one.workload.meshed).flat_map(|(one, of)| {
        let is_one = move |port: &u16| is_for(of, *port) && one.is_opaque(*port);
        let ports = one.workload.ports.iter().copied().filter(is_one);
        ports.map(move |port| (&one.workload.name, port))
    });
    ports.filter(|(_, port)| asked(*port)).min()
}

/// The same, if no other port of the workloads has requests.
fn only_opaque<'m>(chosen: &[Chosen<'m, '_>]) -> Option<(&'m WorkloadName, u16)> {
    let has_requests = |(one, of): &Chosen<'m, '_>| {
        let has = |port: &u16| is_for(of, *port) && !one.is_opaque(*port);
        one.workload.meshed && (one.workload.ports.is_empty() || one.workload.ports.iter().any(has))
    };
    if chosen.iter().any(has_requests) { None } else { opaque_port(chosen, |_| true) }
}
