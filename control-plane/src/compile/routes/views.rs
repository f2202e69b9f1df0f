//! What clients see of each service port. Namespaces for which the same documents decide share it: a document may be for
//! very many namespaces, and have very many rules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{
    Protocol, Service, ServiceKey, TcpTable,
    snapshot::{SelectedViews, ServiceViews},
};

use super::{
    super::{Problems, clients::Client, destination_rules::Found, keep, services::KnownHost},
    Port, Routing, VirtualService,
    backends::Backends,
    may_be_opaque,
    parents::Followed,
};

/// What decides where clients are sent that call a port.
struct Deciding<'r, 'a> {
    followed: Followed<'r, 'a>,
    document: Option<&'a VirtualService>,
}

/// The documents that decide, by where they are in memory.
type Decided = Vec<*const ()>;

/// What those see for whom the same routes decide.
struct Seen<'r, 'a> {
    /// The hosts that the routes lead to.
    hosts: Vec<&'r KnownHost<'a>>,
    /// What those see who also follow the same rules for these hosts. `None`: what everybody sees.
    by_rules: HashMap<Option<Found<'r>>, Option<Arc<Service>>>,
}

impl Deciding<'_, '_> {
    fn decided(&self) -> Decided {
        let http = self.followed.http.iter().map(|one| std::ptr::from_ref(*one).cast());
        let tcp = self.followed.tcp.iter().map(|one| std::ptr::from_ref(*one).cast());
        let document = self.document.map_or(std::ptr::null(), |document| std::ptr::from_ref(document).cast());
        http.chain(tcp).chain([document]).collect()
    }
}

impl<'a> Routing<'a> {
    /// Each port of `host`, as every namespace's clients see it.
    pub(super) fn views(
        &self,
        host: &KnownHost<'_>,
        previous: &BTreeMap<ServiceKey, ServiceViews>,
        problems: &mut Problems,
    ) -> Vec<(ServiceKey, ServiceViews)> {
        let mut views = Vec::new();
        for (port, protocol) in &host.ports {
            let key = host.service(*port);
            let port = Port { host, key: &key, protocol: *protocol };
            let seen = self.views_of(&port, previous.get(&key), problems);
            views.push((key, seen));
        }
        views
    }

    fn views_of(
        &self,
        port: &Port<'_>,
        before: Option<&ServiceViews>,
        problems: &mut Problems,
    ) -> ServiceViews {
        let deciding = self.deciding(None, port, problems);
        let default = self.view(Client::of(None), &deciding, port, problems);
        let involved = involved_hosts(&default);
        let namespaces: BTreeSet<&str> = self
            .rules
            .namespaces_with_rules(&involved)
            .chain(self.gateway_routes.namespaces(&port.host.host))
            .chain(self.tcp_routes.namespaces(&port.host.host))
            .chain(self.exported_to(port.host))
            .collect();
        let mut by_namespace: BTreeMap<Arc<str>, Arc<Service>> = BTreeMap::new();
        let mut seen: HashMap<Decided, Seen<'_, 'a>> = HashMap::new();
        for &namespace in &namespaces {
            let client = Client::of(Some(namespace));
            let deciding = self.deciding(Some(namespace), port, problems);
            let decided = deciding.decided();
            let shared = seen.get(&decided).and_then(|seen| {
                let found = self.rules.found(client, &seen.hosts);
                seen.by_rules.get(&found).cloned()
            });
            let own = shared.unwrap_or_else(|| {
                let mut own = self.view(client, &deciding, port, problems);
                own.routes.share(&default.routes);
                let hosts = self.known_hosts(&own);
                let found = self.rules.found(client, &hosts);
                let before = before.and_then(|views| views.by_namespace.get(namespace));
                let own = (own != default).then(|| keep(own, before));
                let seen = seen.entry(decided).or_insert_with(|| Seen { hosts, by_rules: HashMap::new() });
                seen.by_rules.insert(found, own.clone());
                own
            });
            by_namespace.extend(own.map(|own| (Arc::from(namespace), own)));
        }
        let default = keep(default, before.map(|views| &views.default));
        let views = ServiceViews { default, by_namespace, selected: None };
        let selected = self.selected_views(port, &namespaces, (&views, before), problems);
        ServiceViews { selected, ..views }
    }

    /// What clients see whom rules select by their labels, where that is not what `others` of their namespace see. `namespaces`: all
    /// with rules or routes of their own.
    fn selected_views(
        &self,
        port: &Port<'_>,
        namespaces: &BTreeSet<&str>,
        (others, before): (&ServiceViews, Option<&ServiceViews>),
        problems: &mut Problems,
    ) -> Option<Box<SelectedViews>> {
        let before = before.and_then(|views| views.selected.as_ref());
        let mut all = SelectedViews::new();
        for (namespace, clients) in
            self.clients.each().filter(|(namespace, _)| namespaces.contains(namespace))
        {
            let theirs = others.for_namespace(namespace);
            let hosts = self.known_hosts(theirs);
            if !self.rules.select_clients(namespace, &hosts) {
                continue;
            }
            let deciding = self.deciding(Some(namespace), port, problems);
            let before = before.and_then(|views| views.get(namespace));
            let of_all = self.rules.found(Client::of(Some(namespace)), &hosts);
            let mut made: HashMap<Option<Found<'_>>, Option<Arc<Service>>> = HashMap::from([(of_all, None)]);
            for labels in clients {
                let client = Client::selected(namespace, labels);
                let make = || {
                    let mut own = self.view(client, &deciding, port, problems);
                    own.routes.share(&theirs.routes);
                    let before = before.and_then(|views| views.get(labels));
                    (own != **theirs).then(|| keep(own, before))
                };
                let own = made.entry(self.rules.found(client, &hosts)).or_insert_with(make);
                if let Some(own) = own {
                    let here = all.entry(Arc::from(namespace)).or_default();
                    here.insert(Arc::clone(labels), Arc::clone(own));
                }
            }
        }
        (!all.is_empty()).then(|| Box::new(all))
    }

    /// The hosts that a service's backends name, each once.
    fn known_hosts(&self, service: &Service) -> Vec<&KnownHost<'a>> {
        let hosts: BTreeSet<&str> = involved_hosts(service).into_iter().collect();
        hosts.into_iter().filter_map(|host| self.catalog.find(host)).collect()
    }

    fn deciding(&self, client: Option<&str>, port: &Port<'_>, problems: &mut Problems) -> Deciding<'_, 'a> {
        let routes = (&self.gateway_routes, &self.tcp_routes);
        let followed = Followed::new(client, port.key, port.protocol, routes, problems);
        Deciding { followed, document: self.virtual_service(port.host, client) }
    }

    /// The service port as `client` sees it.
    fn view(
        &self,
        client: Client<'_>,
        Deciding { followed, document }: &Deciding<'_, 'a>,
        port: &Port<'_>,
        problems: &mut Problems,
    ) -> Service {
        let mut backends = Backends::new(self, client, port);
        let document = *document;
        let for_http =
            document.filter(|document| port.protocol != Protocol::Tcp && !document.spec.http.is_empty());
        let routes = backends
            .gateway_http(&followed.http, for_http, problems)
            .or_else(|| for_http.and_then(|document| backends.routes(document, problems)));
        let routes = routes.unwrap_or_else(|| backends.default_route(problems));
        let tcp = match may_be_opaque(port.protocol) {
            true => backends.tcp_table(&followed.tcp, document, problems),
            false => TcpTable::default(),
        };
        Service {
            key: port.key.clone(),
            addresses: port.host.own_addresses(),
            protocol: port.protocol,
            routes,
            tcp,
            backends: backends.list,
        }
    }
}

/// The hosts that a service's backends name.
fn involved_hosts(service: &Service) -> Vec<&str> {
    service.backends.iter().map(|backend| &*backend.name.service.host).collect()
}
