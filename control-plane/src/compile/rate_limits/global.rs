//! The servers that `RateLimit`s name, and which documents may name them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    Protocol,
    limit::{Descriptor, Global, MOST_DESCRIPTORS, RateLimit},
};

use super::super::{
    MeshSettings, Problems,
    grants::{Grants, Named},
    hosts::{namespace_of, resolve, service_host},
    targets::{Selected, Targets},
};
use super::Written;
use crate::resources::{GlobalSpec, LimitTarget};

const SERVICE: &str = "spec.global.service";

/// What `document` asks a server, if it asks any.
pub(super) fn global(
    document: &Written,
    settings: &MeshSettings,
    grants: &Grants<'_>,
    problems: &mut Problems,
) -> Option<Global> {
    let GlobalSpec { server, domain, timeout, on_failure, descriptors } = document.spec.global.as_ref()?;
    let host = host(document, settings)?;
    let may_name = may_name(document, &host, settings, grants, problems);
    Some(Global {
        server: may_name.then(|| Arc::from(format!("{host}:{}", server.port))),
        domain: Arc::from(domain.as_str()),
        timeout: *timeout,
        on_failure: *on_failure,
        descriptors: descriptors.iter().filter_map(|one| one.of(None)).collect(),
    })
}

/// The full name of the server that `document` names.
fn host(document: &Written, settings: &MeshSettings) -> Option<String> {
    let server = &document.spec.global.as_ref()?.server;
    let domain = &settings.cluster_domain;
    Some(match &server.namespace {
        Some(namespace) => service_host(&server.host, namespace, domain),
        None => resolve(&server.host, &document.name.namespace, domain),
    })
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
    let Some(namespace) = namespace_of(host, &settings.cluster_domain).filter(|_| is_for_gateways) else {
        return true;
    };
    let name = host.split('.').next().unwrap_or_default();
    let named = Named { group: "", kind: "Service", namespace, name };
    let may = *document.name.namespace == *settings.root_namespace || grants.permit(&document.name, named);
    if !may {
        problems.error(document, SERVICE, Grants::advice(&document.name, named));
    }
    may
}

/// Reports a server that `document` names and there is not; `ports` says which ones a host has.
pub(super) fn report_missing<'p>(
    document: &Written,
    ports: impl Fn(&str) -> Option<&'p BTreeMap<u16, Protocol>>,
    settings: &MeshSettings,
    problems: &mut Problems,
) {
    let (Some(host), Some(global)) = (host(document, settings), &document.spec.global) else { return };
    let (port, mode) = (global.server.port, global.on_failure);
    let what = match ports(&host) {
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
