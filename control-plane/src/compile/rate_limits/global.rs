//! The servers that `RateLimit`s name, and which documents may name them.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{
    Protocol,
    limit::{Descriptor, Global, MOST_DESCRIPTORS, RateLimit},
    snapshot::completed,
};

use super::super::{
    MeshSettings, Problems,
    grants::{Grants, Named},
    hosts::{namespace_of, service_host},
    targets::{Selected, Targets},
};
use super::Written;
use crate::resources::{GlobalSpec, LimitTarget, Resources};

const SERVICE: &str = "spec.global.service";

/// What `document` asks its server, whose full name is `host`.
pub(super) fn global(
    document: &Written,
    host: &str,
    settings: &MeshSettings,
    grants: &Grants<'_>,
    problems: &mut Problems,
) -> Option<Global> {
    let GlobalSpec { server, domain, timeout, on_failure, descriptors } = document.spec.global.as_ref()?;
    let may_name = may_name(document, host, settings, grants, problems);
    Some(Global {
        server: may_name.then(|| Arc::from(format!("{host}:{}", server.port))),
        domain: Arc::from(domain.as_str()),
        timeout: *timeout,
        on_failure: *on_failure,
        descriptors: descriptors.iter().filter_map(|one| one.of(None)).collect(),
    })
}

/// By what servers may be found that `RateLimit`s name. It is made for the first of these that needs it: most need nothing, and
/// there may be as many of them as Services.
pub(super) struct Servers<'a> {
    resources: &'a Resources,
    settings: &'a MeshSettings,
    known: OnceCell<Known<'a>>,
}

#[derive(Default)]
struct Known<'a> {
    /// The full names of Services.
    services: HashSet<String>,
    /// Those of the first Service at each address.
    at: HashMap<IpAddr, String>,
    /// The hosts of `ServiceEntry`s.
    entries: HashSet<&'a str>,
}

impl<'a> Servers<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings) -> Self {
        Self { resources, settings, known: OnceCell::new() }
    }

    fn known(&self) -> &Known<'a> {
        self.known.get_or_init(|| {
            let mut known = Known::default();
            for service in &self.resources.services {
                let (name, domain) = (&service.name, &self.settings.cluster_domain);
                let full = service_host(&name.name, &name.namespace, domain);
                for address in &service.spec.addresses {
                    known.at.entry(*address).or_insert_with(|| full.clone());
                }
                known.services.insert(full);
            }
            let hosts = self.resources.service_entries.iter().flat_map(|entry| &entry.spec.hosts);
            known.entries = hosts.map(String::as_str).collect();
            known
        })
    }

    /// The full name of the server that `document` names, if it names one: the one that is found where the proxy calls it by
    /// what is written, so that whoever is checked here is who is asked there.
    pub(super) fn host(&self, document: &Written) -> Option<String> {
        let server = &document.spec.global.as_ref()?.server;
        let domain = &self.settings.cluster_domain;
        if let Some(namespace) = &server.namespace {
            return Some(service_host(&server.host, namespace, domain));
        }
        let host = server.host.trim_end_matches('.');
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(self.known().at.get(&ip).map_or_else(|| host.to_owned(), String::clone));
        }
        let Some(full) = completed(host, &document.name.namespace, domain) else {
            return Some(host.to_owned());
        };
        // A ServiceEntry may have a name as short, and counts where no service has the full one.
        let is_entry = |host: &str| self.known().entries.contains(host);
        let is_service = || self.known().services.contains(&full) || is_entry(&full);
        Some(if host.contains('.') && is_entry(host) && !is_service() { host.to_owned() } else { full })
    }
}

/// Whether `document` may name `host`. A sidecar may ask whom its own app may ask. A gateway asks for everybody: what it
/// asks in another namespace must be allowed there, as what it sends there.
fn may_name(
    document: &Written,
    host: &str,
    settings: &MeshSettings,
    grants: &Grants<'_>,
    problems: &mut Problems,
) -> bool {
    let is_for_gateways = document.spec.targets.iter().any(|target| match target {
        LimitTarget::Gateway(_) | LimitTarget::Route { .. } => true,
        LimitTarget::Service(_) => false,
    });
    if !is_for_gateways || *document.name.namespace == *settings.root_namespace {
        return true;
    }
    if host.parse::<IpAddr>().is_ok() {
        let message = "is the address of no Service, and a document for gateways must name whose its server is; write \
                       NAMESPACE/NAME:PORT of a Service, or the host of a ServiceEntry";
        problems.error(document, SERVICE, message);
        return false;
    }
    let Some(namespace) = namespace_of(host, &settings.cluster_domain) else { return true };
    let name = host.rsplit_once(&format!(".{namespace}.svc")).map_or(host, |(name, _)| name);
    let named = Named { group: "", kind: "Service", namespace, name };
    let may = grants.permit(&document.name, named);
    if !may {
        problems.error(document, SERVICE, Grants::advice(&document.name, named));
    }
    may
}

/// Reports that there is no server called `host`, which `document` names; `ports` says which ones a host has.
pub(super) fn report_missing<'p>(
    document: &Written,
    host: &str,
    ports: impl Fn(&str) -> Option<&'p BTreeMap<u16, Protocol>>,
    problems: &mut Problems,
) {
    let Some(global) = &document.spec.global else { return };
    let (port, mode) = (global.server.port, global.on_failure);
    let what = match ports(host) {
        Some(known) if known.contains_key(&port) => return,
        Some(_) => format!("{host} has no port {port}"),
        None => format!("no Service or ServiceEntry has the host {host}"),
    };
    let message = format!("{what}, so nobody answers and what failureMode says ({mode}) holds; correct it");
    problems.error(document, SERVICE, message);
}

/// `limit` as `workload` asks it: the server itself does not ask itself whether it may be asked.
pub(super) fn at(limit: RateLimit, workload: Selected<'_>) -> RateLimit {
    let is_server = limit.global.as_ref().and_then(|global| global.server.as_deref()).is_some_and(|server| {
        let mut behind = workload.services.values().flatten();
        behind.any(|key| server.rsplit_once(':').is_some_and(|(host, _)| *key.host == *host))
    });
    if is_server { limit.with_global(None) } else { limit }
}

/// `limit` of `document` at `workload`, and apart from it what its server is told of each Service, if it is told that. Of a
/// port that several of the Services send to, it is told all of them.
pub(super) fn for_services(
    document: &Written,
    limit: RateLimit,
    targets: &Targets<'_>,
    workload: Selected<'_>,
) -> Vec<RateLimit> {
    let spec = document.spec.global.as_ref();
    let spec = spec.filter(|spec| spec.descriptors.iter().any(|one| one.tells_service()));
    let (Some(spec), Some(global)) = (spec, &limit.global) else { return vec![limit] };
    let mut by_services: BTreeMap<BTreeSet<&str>, BTreeSet<u16>> = BTreeMap::new();
    for port in limit.ports.iter().flatten() {
        by_services.entry(targets.hosts_at(workload, *port)).or_default().insert(*port);
    }
    let asked = by_services.into_iter().map(|(services, ports)| {
        let told = spec.descriptors.iter().flat_map(|one| -> Vec<Descriptor> {
            match one.tells_service() {
                true => services.iter().filter_map(|service| one.of(Some(*service))).collect(),
                false => one.of(None).into_iter().collect(),
            }
        });
        let global = Global { descriptors: told.take(MOST_DESCRIPTORS).collect(), ..global.clone() };
        RateLimit { ports: Some(ports), limits: Vec::new(), ..limit.clone() }.with_global(Some(global))
    });
    let asked: Vec<_> = asked.collect();
    let own = limit.with_global(None);
    Some(own).filter(|own| !own.limits.is_empty()).into_iter().chain(asked).collect()
}
