//! Binds what we serve as a gateway. A virtual host is bound like a service, and keeps its state as long as it has its
//! name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use selvedge_certs::{facts::Facts, tls::Edge};
use selvedge_model::{
    ServiceKey, Shown, Workload,
    gateway::{
        CertificateName, GatewayPort, GatewayRole, Hostname, Listener, ListenerTls, ServerCertificate,
        Termination, VirtualHost,
    },
};

use super::{
    Binder, Resources,
    inputs::{BoundKey, Collected, Resolution, same},
};
use crate::bind::{BoundListener, BoundPort, BoundTls, Destination, Life};

/// What is kept of a gateway from one table to the next.
#[derive(Debug, Default)]
pub(super) struct KeptGateway {
    /// What its virtual hosts are bound as; those whose backends DNS has not told yet are missing.
    keys: BTreeMap<ServiceKey, BoundKey>,
    hosts: HashMap<ServiceKey, Arc<Destination>>,
    /// When each certificate expires that is shown.
    expiries: BTreeMap<CertificateName, (Arc<ServerCertificate>, SystemTime)>,
    /// The workload as the control plane tells of it, and as a gateway's policy is asked.
    own: Option<(Arc<Workload>, Arc<Workload>)>,
}

/// What is shown to servers of single backends.
fn certificates_of_backends(held: &Resources) -> BTreeMap<CertificateName, Shown> {
    let hosts = held.gateway_ports().values().flat_map(|port| port.virtual_hosts());
    let services = hosts.filter_map(|host| held.service(&host.service));
    let names = services.flat_map(|service| service.certificates());
    names.filter_map(|name| Some((name.clone(), Shown(Arc::clone(held.certificate(name)?))))).collect()
}

impl Binder {
    /// Says that this proxy is a gateway.
    #[must_use]
    pub fn as_gateway(mut self) -> Self {
        self.gateway = Some(KeptGateway::default());
        self
    }

    /// Collects what must be bound for our virtual hosts.
    pub(super) fn virtual_hosts(&mut self, held: &Resources, collected: &mut Collected) {
        if self.gateway.is_none() {
            return;
        }
        let mut keys = BTreeMap::new();
        for host in held.gateway_ports().values().flat_map(|port| port.virtual_hosts()) {
            let authority = Arc::from(host.service.to_string());
            if let Some(bound) = self.service(held, &host.service, &authority, collected) {
                keys.insert(host.service.clone(), bound);
            }
        }
        if let Some(gateway) = &mut self.gateway {
            gateway.keys = keys;
        }
    }

    /// Takes over what we show to backends that ask for a certificate. Returns whether that is not as before.
    pub(super) fn take_shown(&mut self, held: &Resources) -> bool {
        let named = held.gateway_ports().values().find_map(|port| port.to_backends.as_ref());
        let shown = named.filter(|_| self.gateway.is_some()).and_then(|name| held.certificate(name));
        let is_other = self.targets.shown.as_ref().map(|Shown(before)| before) != shown;
        if is_other {
            self.targets.shown = shown.cloned().map(Shown);
        }
        let of_backends = match self.gateway {
            Some(_) => certificates_of_backends(held),
            None => BTreeMap::new(),
        };
        let are_others = self.targets.certificates != of_backends;
        self.targets.certificates = of_backends;
        is_other | are_others
    }

    /// Our own workload, with the policy of a gateway if we are one.
    pub(super) fn own(&mut self, held: &Resources) -> Option<Arc<Workload>> {
        let told = held.own()?;
        let Some(gateway) = &mut self.gateway else { return Some(Arc::clone(told)) };
        if let Some((before, own)) = &gateway.own
            && Arc::ptr_eq(before, told)
        {
            return Some(Arc::clone(own));
        }
        let own = Arc::new(Workload { policy: told.policy.at_gateway(), ..(**told).clone() });
        gateway.own = Some((Arc::clone(told), Arc::clone(&own)));
        Some(own)
    }

    /// Our ports as a gateway. Connections to one that is gone are told to end.
    pub(super) fn ports(&mut self, held: &Resources) -> BTreeMap<u16, Arc<BoundPort>> {
        let Some(mut gateway) = self.gateway.take() else { return BTreeMap::new() };
        let bound = gateway.keys.iter().map(|(key, bound)| {
            let before = gateway.hosts.get(key);
            let resolution = Resolution { bound: Some(bound.clone()), ..Resolution::default() };
            (key.clone(), self.bound_as(before, || key.to_string().into(), resolution))
        });
        gateway.hosts = bound.collect();
        let role = held.own().and_then(|own| own.gateway.as_deref());
        let served = held.gateway_ports().iter();
        let ports: BTreeMap<u16, Arc<BoundPort>> = match role {
            Some(role) => served
                .map(|(number, served)| {
                    let binder = PortBinder::new(held, &gateway.hosts, self.table.gateway.get(number));
                    (*number, binder.port(served, role))
                })
                .collect(),
            None => BTreeMap::new(),
        };
        end_what_is_gone(&self.table.gateway, &ports);
        if gateway.look_at_certificates(&ports) {
            let shown = gateway.expiries.iter();
            self.metrics.set_gateway_certificates(shown.map(|(name, (_, ends))| (name.to_string(), *ends)));
        }
        self.gateway = Some(gateway);
        ports
    }
}

impl KeptGateway {
    /// Looks when the certificates of `ports` expire. Whether anything is different now.
    fn look_at_certificates(&mut self, ports: &BTreeMap<u16, Arc<BoundPort>>) -> bool {
        let listeners = ports.values().flat_map(|port| &port.listeners);
        let shown = listeners.flat_map(|listener| match listener.tls.as_deref() {
            Some(BoundTls::Terminate { certificates, .. }) => certificates.as_slice(),
            Some(BoundTls::Passthrough) | None => &[],
        });
        let shown: BTreeMap<_, _> = shown.map(|certificate| (&certificate.name, certificate)).collect();
        let before = self.expiries.len();
        self.expiries.retain(|name, (known, _)| shown.get(name).is_some_and(|now| Arc::ptr_eq(now, known)));
        let mut different = self.expiries.len() != before;
        for (name, certificate) in shown {
            if self.expiries.contains_key(name) {
                continue;
            }
            // One that cannot be read is reported where it is bound.
            let facts = certificate.chain.first().and_then(|leaf| Facts::parse(leaf).ok());
            if let Some(facts) = facts {
                self.expiries.insert(name.clone(), (Arc::clone(certificate), facts.not_after));
                different = true;
            }
        }
        different
    }
}

/// Tells connections to end that came to what is served no longer.
fn end_what_is_gone(before: &BTreeMap<u16, Arc<BoundPort>>, now: &BTreeMap<u16, Arc<BoundPort>>) {
    for (number, before) in before {
        let now = now.get(number);
        if now.is_none_or(|port| !port.life.is(&before.life)) {
            before.life.end();
        }
        let listeners = now.into_iter().flat_map(|port| &port.listeners);
        let lives: HashSet<usize> = listeners.map(|listener| listener.life.id()).collect();
        for listener in before.listeners.iter().filter(|listener| !lives.contains(&listener.life.id())) {
            listener.life.end();
        }
    }
}

/// Binds one port.
struct PortBinder<'a> {
    held: &'a Resources,
    hosts: &'a HashMap<ServiceKey, Arc<Destination>>,
    before: Option<&'a Arc<BoundPort>>,
    /// The listeners that there were before, by what they are called and for which names they are.
    listeners: HashMap<(&'a str, &'a Hostname), &'a BoundListener>,
}

impl<'a> PortBinder<'a> {
    fn new(
        held: &'a Resources,
        hosts: &'a HashMap<ServiceKey, Arc<Destination>>,
        before: Option<&'a Arc<BoundPort>>,
    ) -> Self {
        let known = before.into_iter().flat_map(|port| port.served.listeners.iter().zip(&port.listeners));
        let listeners =
            known.map(|(listener, bound)| ((&*listener.name, &listener.hostname), bound)).collect();
        Self { held, hosts, before, listeners }
    }

    /// What is `served`, bound; the very port that was there before if that is the same.
    fn port(&self, served: &Arc<GatewayPort>, role: &GatewayRole) -> Arc<BoundPort> {
        let before = self.before.filter(|before| before.served.carries == served.carries);
        let port = BoundPort {
            served: Arc::clone(served),
            listens: role.listens(served.port),
            life: before.map_or_else(Life::default, |before| before.life.clone()),
            listeners: served.listeners.iter().map(|listener| self.listener(listener)).collect(),
        };
        match self.before {
            Some(before) if is_as_before(&port, before) => Arc::clone(before),
            _ => Arc::new(port),
        }
    }

    fn listener(&self, listener: &Listener) -> BoundListener {
        let before = self.listeners.get(&(&*listener.name, &listener.hostname)).copied();
        let tls = listener.tls.as_ref().map(|tls| self.tls(listener, tls, before));
        let goes_on = before.filter(|before| asks_the_same(before.tls.as_deref(), tls.as_deref()));
        let host = |host: &VirtualHost| self.hosts.get(&host.service).cloned();
        BoundListener {
            life: goes_on.map_or_else(Life::default, |before| before.life.clone()),
            tls,
            hosts: listener.virtual_hosts.iter().map(host).collect(),
        }
    }

    fn tls(&self, listener: &Listener, tls: &ListenerTls, before: Option<&BoundListener>) -> Arc<BoundTls> {
        let before = before.and_then(|before| before.tls.as_ref());
        let ListenerTls::Terminate(settings) = tls else {
            return match before {
                Some(before) if matches!(**before, BoundTls::Passthrough) => Arc::clone(before),
                _ => Arc::new(BoundTls::Passthrough),
            };
        };
        let certificates =
            settings.certificates.iter().filter_map(|name| self.held.certificate(name).cloned());
        let certificates: Vec<_> = certificates.collect();
        if let Some(before) = before.filter(|before| is_made_of(before, settings, &certificates)) {
            return Arc::clone(before);
        }
        let edge = Edge::new(settings, &certificates);
        match &edge {
            Ok(edge) => edge.unusable.iter().for_each(|(name, error)| {
                tracing::warn!(listener = %listener.name, certificate = %name, %error, "a certificate of this listener cannot be used");
            }),
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "this listener serves nobody");
            }
        }
        Arc::new(BoundTls::Terminate { edge: edge.ok(), settings: settings.clone(), certificates })
    }
}

fn is_made_of(tls: &BoundTls, asked: &Termination, named: &[Arc<ServerCertificate>]) -> bool {
    let BoundTls::Terminate { settings, certificates, .. } = tls else { return false };
    let mut pairs = certificates.iter().zip(named);
    settings == asked
        && certificates.len() == named.len()
        && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
}

/// Whether connections that were made to a listener may go on as it is now: its clients prove the same, and what they send
/// is taken for the same.
fn asks_the_same(before: Option<&BoundTls>, now: Option<&BoundTls>) -> bool {
    match (before, now) {
        (None, None) | (Some(BoundTls::Passthrough), Some(BoundTls::Passthrough)) => true,
        (
            Some(BoundTls::Terminate { settings: before, .. }),
            Some(BoundTls::Terminate { settings: now, .. }),
        ) => before.clients == now.clients && before.http == now.http,
        _ => false,
    }
}

fn is_as_before(port: &BoundPort, before: &BoundPort) -> bool {
    let is_same = |now: &BoundListener, before: &BoundListener| {
        let mut hosts = now.hosts.iter().zip(&before.hosts);
        now.life.is(&before.life)
            && same(now.tls.as_ref(), before.tls.as_ref())
            && hosts.all(|(now, before)| same(now.as_ref(), before.as_ref()))
    };
    Arc::ptr_eq(&port.served, &before.served)
        && port.listens == before.listens
        && port.listeners.iter().zip(&before.listeners).all(|(now, before)| is_same(now, before))
}
