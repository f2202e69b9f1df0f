//! What matches of a `VirtualService` ask for that is not there: ports of its hosts, and gateways.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::Protocol;

use super::{
    super::{Problems, hosts::resolve, services::Below, some_of},
    Routing, VirtualService, may_be_opaque,
};
use crate::resources::{
    Resources,
    virtual_service::{FollowedBy, GatewayRef, PortMatch},
};

/// The ports of every Istio `Gateway`'s servers, by its namespace and name.
#[derive(Debug)]
pub(super) struct GatewayPorts<'a>(BTreeMap<(&'a str, &'a str), BTreeSet<u16>>);

/// A match, wherever it stands in a document.
struct Asked<'d> {
    /// Where it stands, such as `spec.http[0].match[0]`.
    field: String,
    port: Option<u16>,
    followed_by: Option<&'d FollowedBy>,
    /// Whether it asks for requests, or else for opaque connections.
    is_http: bool,
}

/// The gateways that follow a document.
struct Following<'d> {
    /// Each once, by its namespace and name.
    gateways: BTreeMap<(&'d str, &'d str), &'d GatewayRef>,
    /// The ports at which they serve; `None`: one of them is unknown.
    ports: Option<BTreeSet<u16>>,
}

/// What the hosts of a document have together, all of which are known.
struct Hosts {
    first: String,
    /// What to write instead of a port that the first one does not have.
    remedy: String,
    all: Below,
}

/// So many ports at gateways are named at most.
const MOST_NAMED: usize = 10;

impl<'a> GatewayPorts<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let ports = resources.istio_gateways.iter().map(|gateway| {
            let ports = gateway.spec.servers.iter().map(|server| server.port).collect();
            ((&*gateway.name.namespace, &*gateway.name.name), ports)
        });
        Self(ports.collect())
    }

    fn of<'s>(&'s self, gateway: &'s GatewayRef) -> Option<&'s BTreeSet<u16>> {
        self.0.get(&(&*gateway.namespace, &*gateway.name))
    }

    /// Reports the gateways that matches of `document` name and that do not follow it there.
    pub(super) fn report(&self, document: &VirtualService, problems: &mut Problems) {
        let of_document = &document.spec.followed_by;
        let known: BTreeSet<_> = of_document.gateways.iter().map(named).collect();
        // Those to which others delegate are followed by whoever follows these.
        let is_delegate = document.spec.hosts.is_empty();
        for Asked { field, followed_by, .. } in matches(document) {
            let Some(asked) = followed_by else { continue };
            if asked.sidecars && !of_document.sidecars && !is_delegate {
                let message = "names mesh, and spec.gateways does not, so no sidecar follows this; add mesh there, or remove it";
                problems.warning(document, &format!("{field}.gateways"), message);
            }
            for gateway in &asked.gateways {
                // One that the document names, too, is told there.
                if known.contains(&named(gateway)) {
                    continue;
                }
                let called = format!("{}/{}", gateway.namespace, gateway.name);
                let message = match self.of(gateway) {
                    None => format!(
                        "there is no Gateway {called} of networking.istio.io, so nobody follows this match there; add it or \
                         correct the name"
                    ),
                    Some(_) if is_delegate => continue,
                    Some(_) => format!(
                        "spec.gateways does not name {called}, so it does not follow this match; add it there, or remove it"
                    ),
                };
                problems.warning(document, &format!("{field}.gateways[{}]", gateway.index), message);
            }
        }
    }

    /// The gateways that follow `document`, each once.
    fn following<'d>(&self, document: &'d VirtualService) -> Following<'d> {
        let mut gateways = BTreeMap::new();
        for gateway in &document.spec.followed_by.gateways {
            gateways.entry(named(gateway)).or_insert(gateway);
        }
        let ports = gateways.values().map(|gateway| self.of(gateway)).collect::<Option<Vec<_>>>();
        let ports = ports.map(|all| all.into_iter().flatten().copied().collect());
        Following { gateways, ports }
    }

    /// Whether one of those of `following` that follow `asked` serves at `port`; `None`: one of them is unknown.
    fn serve(&self, following: &Following<'_>, asked: &Asked<'_>, port: u16) -> Option<bool> {
        let Some(followed_by) = asked.followed_by else {
            return Some(following.ports.as_ref()?.contains(&port));
        };
        let mut does_any = false;
        for gateway in followed_by.gateways.iter().filter(|gateway| following.includes(gateway)) {
            does_any |= self.of(gateway)?.contains(&port);
        }
        Some(does_any)
    }

    /// Some of the ports at which those of `following` serve that follow `asked`, in words; `None`: nobody follows it.
    fn some_ports(&self, following: &Following<'_>, asked: &Asked<'_>) -> Option<String> {
        let Some(followed_by) = asked.followed_by else {
            return some_of(following.ports.iter().flatten().take(MOST_NAMED));
        };
        let gateways = followed_by.gateways.iter().filter(|gateway| following.includes(gateway));
        let ports = gateways.take(MOST_NAMED).filter_map(|gateway| self.of(gateway));
        let ports: BTreeSet<u16> = ports.flat_map(|ports| ports.iter().copied().take(MOST_NAMED)).collect();
        some_of(ports.iter().take(MOST_NAMED))
    }
}

impl Following<'_> {
    fn includes(&self, gateway: &GatewayRef) -> bool {
        self.gateways.contains_key(&named(gateway))
    }
}

/// The namespace and name of `gateway`.
fn named(gateway: &GatewayRef) -> (&str, &str) {
    (&gateway.namespace, &gateway.name)
}

impl Routing<'_> {
    /// Reports the ports for which matches of `document` ask, where none of its hosts, and none of the gateways that follow it, has
    /// them, or speaks there what is asked for.
    pub(super) fn report_ports(
        &self,
        document: &VirtualService,
        gateways: &GatewayPorts<'_>,
        problems: &mut Problems,
    ) {
        // There may be very many matches, hosts and gateways: what is known of these is put together once.
        let mut known: Option<(Following<'_>, Option<Hosts>)> = None;
        for asked in matches(document) {
            let Some(port) = asked.port else { continue };
            let (following, hosts) =
                known.get_or_insert_with(|| (gateways.following(document), self.hosts_of(document)));
            if gateways.serve(following, &asked, port) != Some(false) {
                continue;
            }
            let by_sidecars = document.spec.followed_by.sidecars
                && asked.followed_by.is_none_or(|followed_by| followed_by.sidecars);
            let why = match by_sidecars {
                true => hosts.as_ref().and_then(|hosts| hosts.lacking(port, asked.is_http)),
                false => gateways.some_ports(following, &asked).map(|ports| {
                    format!("no gateway that follows this match has a server at port {port}, so it never holds; use one of {ports}")
                }),
            };
            if let Some(why) = why {
                problems.warning(document, &format!("{}.port", asked.field), why);
            }
        }
    }

    /// What the hosts of `document` have together. `None`: there are none, or one is not known, which is told elsewhere.
    fn hosts_of(&self, document: &VirtualService) -> Option<Hosts> {
        let mut hosts: Option<Hosts> = None;
        for host in &document.spec.hosts {
            let host = resolve(host, &document.name.namespace, &self.settings.cluster_domain);
            let below = self.catalog.below(&host);
            if below.is_empty() || below.has_unknown_ports() {
                return None;
            }
            let hosts = hosts.get_or_insert_with(|| Hosts {
                first: host,
                remedy: below.port_remedy(),
                all: Below::default(),
            });
            hosts.all.add_ports(&below);
            if hosts.all.has_unknown_ports() {
                return None;
            }
        }
        hosts
    }
}

impl Hosts {
    /// Why a match for `port` of them never holds, if that is so, and what to do.
    fn lacking(&self, port: u16, is_http: bool) -> Option<String> {
        let Self { first, remedy, all } = self;
        let may_be_asked =
            |spoken: Protocol| if is_http { spoken != Protocol::Tcp } else { may_be_opaque(spoken) };
        if all.lacks(port) {
            return Some(format!("{first} has no port {port}, so this match never holds; {remedy}"));
        }
        let (speaks, remedy) = match is_http {
            true => ("does not speak HTTP", "name the port http, or write a tcp route"),
            false => ("speaks HTTP", "name the port tcp, or write an http route"),
        };
        let message = || format!("{first} {speaks} at port {port}, so this match never holds; {remedy}");
        all.speaks_none_at(port, may_be_asked).then(message)
    }
}

/// Every match of `document`.
fn matches(document: &VirtualService) -> impl Iterator<Item = Asked<'_>> {
    fn asked<'d, C>(field: &str, one: &'d PortMatch<C>, is_http: bool) -> Asked<'d> {
        let field = format!("{field}.match[{}]", one.index);
        Asked { field, port: one.port, followed_by: one.followed_by.as_ref(), is_http }
    }
    let of_requests = document.spec.http.iter().flat_map(|route| {
        let list = route.matches.iter().flatten();
        list.map(move |one| asked(&format!("spec.http[{}]", route.index), one, true))
    });
    let of_connections = document.spec.tcp.iter().flat_map(|route| {
        let list = route.matches.iter().flatten();
        list.map(move |one| asked(&route.field(), one, false))
    });
    of_requests.chain(of_connections)
}
