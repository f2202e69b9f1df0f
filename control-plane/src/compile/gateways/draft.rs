//! What a gateway is to serve, as documents come to say it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{
    Order, Protocol, RouteTable, Rule, Service, ServiceKey, TcpRule, TcpTable,
    gateway::{
        Carries, CertificateName, Gateway, GatewayPort, Hostname, Listener, ListenerTls, ServerCertificate,
        UserList, UserListName, VirtualHost, virtual_host,
    },
};

use super::{
    super::{
        Problems,
        certificates::{Certificates, Found, Refused},
        grants::Grants,
        rate_limits::RateLimits,
        routes::{Backends, Routing},
    },
    credentials::Credentials,
    distinct::served,
    seats::Seat,
    shared::SharedRules,
};
use crate::{
    problem::{DocumentName, Fault, Problem},
    resources::Document,
};

/// What a gateway is to serve, so far.
///
/// Each kind of documents [adds its listeners](Self::listen), and to each the [host names](Self::host) with their rules.
/// [`finish`](Self::finish) makes it a [`Gateway`].
pub(super) struct Draft<'a> {
    /// Whose it is.
    pub(super) seat: &'a Seat<'a>,
    /// What documents of one namespace may name in another.
    pub(super) grants: &'a Grants<'a>,
    /// The certificates that may be named.
    pub(super) certificates: &'a Certificates<'a>,
    /// The limits of routes.
    pub(super) limits: &'a RateLimits<'a>,
    /// The rules of all gateways.
    pub(super) shared: &'a SharedRules,
    routing: &'a Routing<'a>,
    listeners: Vec<DraftListener<'a>>,
    shown: BTreeMap<CertificateName, Arc<ServerCertificate>>,
    /// What is shown to backends that ask for a certificate.
    pub(super) to_backends: Option<CertificateName>,
    /// The users that rules let in by their passwords.
    pub(super) user_lists: BTreeMap<UserListName, Arc<UserList>>,
}

/// A listener, as a document asks for it.
pub(super) struct NewListener {
    /// What it is called in logs and errors, such as `Gateway shop/edge https`.
    pub(super) name: String,
    /// What tells its virtual hosts from those of others: `namespace/gateway/section`.
    pub(super) key: String,
    /// The port that clients call.
    pub(super) port: u16,
    /// What clients begin with.
    pub(super) carries: Carries,
    /// The names that it is for.
    pub(super) hostname: Hostname,
    /// What happens to TLS.
    pub(super) tls: Option<ListenerTls>,
    /// Where it is written: an error without words, for whoever wrote it.
    pub(super) written: Problem,
    /// The same of further documents that are part of it.
    pub(super) with: Vec<Problem>,
    /// Whether it and others of its document that exclude each other are all left out. Otherwise the first is served.
    pub(super) has_equal_siblings: bool,
}

struct DraftListener<'a> {
    new: NewListener,
    hosts: Vec<DraftHost<'a>>,
    places: HashMap<Hostname, usize>,
}

/// A virtual host of a listener, to which routes are added.
pub(super) struct DraftHost<'a> {
    /// The names that it is for.
    pub(super) hostname: Hostname,
    /// The backends that its rules name. It makes the rules.
    pub(super) backends: Backends<'a>,
    /// Which of several rules for requests decides.
    pub(super) order: Order,
    /// The rules for requests.
    pub(super) rules: Vec<Arc<Rule>>,
    /// The tier of each of these; none: all are of one.
    pub(super) tiers: Vec<u32>,
    /// The rules for opaque connections.
    pub(super) tcp: Vec<TcpRule>,
    /// The first document with rules here, and where it stands.
    first: Option<(DocumentName, String)>,
}

impl<'a> Draft<'a> {
    /// Of the gateway in `seat`, which serves nothing so far.
    pub(super) fn new(
        seat: &'a Seat<'a>,
        (routing, limits, shared): (&'a Routing<'a>, &'a RateLimits<'a>, &'a SharedRules),
        grants: &'a Grants<'a>,
        certificates: &'a Certificates<'a>,
    ) -> Self {
        let (listeners, shown, user_lists) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let to_backends = None;
        Self {
            seat,
            grants,
            certificates,
            limits,
            shared,
            routing,
            listeners,
            shown,
            to_backends,
            user_lists,
        }
    }

    /// The certificate of the Secret `name` in `namespace`, which a listener of `hostname` shows. Whether it may be named is
    /// not asked here.
    pub(super) fn certificate(
        &mut self,
        namespace: &str,
        name: &str,
        hostname: &Hostname,
    ) -> Result<Found<'a>, Refused> {
        let found = self.certificates.server(namespace, name, hostname)?;
        self.shown.insert(found.server.name.clone(), Arc::clone(found.server));
        Ok(found)
    }

    /// The certificate of the Secret `name` in `namespace`, which is shown to backends. Whether it may be named is not asked
    /// here.
    pub(super) fn client_certificate(&mut self, namespace: &str, name: &str) -> Result<Found<'a>, Refused> {
        let found = self.certificates.client(namespace, name)?;
        self.shown.insert(found.server.name.clone(), Arc::clone(found.server));
        Ok(found)
    }

    /// Adds a listener, and says its place.
    pub(super) fn listen(&mut self, new: NewListener) -> usize {
        self.listeners.push(DraftListener { new, hosts: Vec::new(), places: HashMap::new() });
        self.listeners.len() - 1
    }

    /// The virtual host for `hostname` of the listener at `place`; it is made if it is not there.
    pub(super) fn host(&mut self, place: usize, hostname: &Hostname) -> &mut DraftHost<'a> {
        let listener = &mut self.listeners[place];
        let (hosts, port) = (&mut listener.hosts, listener.new.port);
        let at = *listener.places.entry(hostname.clone()).or_insert_with(|| {
            let whose = (self.seat.client(), self.seat.namespace);
            let backends = Backends::of_gateway(self.routing, whose, port, Some(self.grants));
            hosts.push(DraftHost {
                hostname: hostname.clone(),
                backends,
                order: Order::MostSpecific,
                rules: Vec::new(),
                tiers: Vec::new(),
                tcp: Vec::new(),
                first: None,
            });
            hosts.len() - 1
        });
        &mut hosts[at]
    }

    /// Changes every virtual host of the listener at `place`.
    pub(super) fn each_host(&mut self, place: usize, change: impl FnMut(&mut DraftHost<'a>)) {
        self.listeners[place].hosts.iter_mut().for_each(change);
    }

    /// The hosts of all backends that its rules name so far.
    pub(super) fn hosts_of_backends(&self) -> impl Iterator<Item = Arc<str>> {
        let hosts = self.listeners.iter().flat_map(|listener| &listener.hosts);
        let backends = hosts.flat_map(|host| &host.backends.list);
        backends.map(|backend| Arc::clone(&backend.name.service.host))
    }

    /// What the gateway serves. Listeners that exclude each other are [reported](super::distinct).
    pub(super) fn finish(self, problems: &mut Problems) -> Gateway {
        let mut ports: BTreeMap<u16, Vec<DraftListener<'a>>> = BTreeMap::new();
        for listener in self.listeners {
            ports.entry(listener.new.port).or_default().push(listener);
        }
        for here in ports.values_mut() {
            let all: Vec<&NewListener> = here.iter().map(|listener| &listener.new).collect();
            let mut served = served(&all, problems).into_iter();
            here.retain(|_| served.next().unwrap_or_default());
        }
        let mut gateway = Gateway::default();
        let root = self.routing.root_namespace();
        let credentials = Credentials::new(self.seat, root, self.certificates, self.grants);
        for (port, listeners) in ports {
            let Some(carries) = listeners.first().map(|first| first.new.carries) else { continue };
            let finish = |one: DraftListener<'a>| one.finish(&credentials, &mut gateway);
            let listeners = listeners.into_iter().map(finish).collect();
            let served = GatewayPort::new(port, carries, listeners).showing(self.to_backends.clone());
            gateway.ports.insert(port, Arc::new(served));
        }
        let named: BTreeSet<_> =
            gateway.ports.values().flat_map(|port| port.certificates()).cloned().collect();
        credentials.report(self.routing.destination_rules(), problems);
        gateway.user_lists = self.user_lists;
        gateway.certificates.extend(self.shown.into_iter().filter(|(name, _)| named.contains(name)));
        gateway
    }
}

impl DraftListener<'_> {
    fn finish(self, credentials: &Credentials<'_>, gateway: &mut Gateway) -> Listener {
        let NewListener { name, key, port, hostname, tls, .. } = self.new;
        let mut hosts = Vec::new();
        for host in self.hosts.into_iter().filter(|host| !host.is_empty()) {
            let service = virtual_host(&host.hostname, &key, port);
            hosts.push(VirtualHost { hostname: host.hostname.clone(), service: service.clone() });
            let mut finished = host.finish(service.clone());
            let shown = finished.backends.iter_mut().filter_map(|backend| credentials.resolve(backend));
            gateway.certificates.extend(shown.map(|shown| (shown.name.clone(), Arc::clone(shown))));
            gateway.virtual_hosts.insert(service, Arc::new(finished));
        }
        Listener::new(name.into(), hostname, tls, hosts)
    }
}

impl DraftHost<'_> {
    /// Notes that `document` has rules here. What is to be said of that, if the first with rules here is of another
    /// namespace.
    pub(super) fn shared_with<T>(&mut self, document: &Document<T>) -> Option<String> {
        let Some((first, location)) = &self.first else {
            self.first = Some((document.name.clone(), document.location.to_string()));
            return None;
        };
        (first.namespace != document.name.namespace).then(|| sharing(&self.hostname, first, location))
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.tcp.is_empty()
    }

    fn finish(self, key: ServiceKey) -> Service {
        Service {
            key,
            addresses: Vec::new(),
            protocol: if self.tcp.is_empty() { Protocol::Http } else { Protocol::Tcp },
            routes: RouteTable::in_tiers(self.order, self.rules, self.tiers),
            tcp: TcpTable { rules: self.tcp },
            backends: self.backends.list,
        }
    }
}

/// What is said of a document whose rules for `hostname` stand behind those of `first`.
pub(super) fn sharing(hostname: &Hostname, first: &DocumentName, location: &str) -> String {
    format!(
        "{hostname} is also served by {first} ({location}) of another namespace, which is older and whose rules come first; if \
         that is not meant, use another host"
    )
}

/// An error without words about `field` of `document`, which other documents have a part in.
pub(super) fn written<T>(document: &Document<T>, field: &str) -> Problem {
    let problem = document.problem(crate::problem::Severity::Error, field, "");
    Problem { fault: Fault::Between, ..problem }
}
