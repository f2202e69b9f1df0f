//! Targets: what connections reach, shared by all endpoints that reach the same, and the slots of their pools.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Weak},
};

use selvedge_model::{
    ProxyProtocol, Shown, SpiffeId, TlsOrigination, Transport, UpstreamTls, WorkloadName,
    gateway::CertificateName,
};

use crate::{
    balance::Flight,
    bind::{ClientTls, Egress, Others, Slot, Target},
    trust::outside::Originations,
};

/// What connections reach: the address that is dialled, that of the app, the identity that must answer, the workload, TLS to
/// servers outside the mesh with the version of the PROXY protocol that they are spoken to in, and the name that the address was
/// found by. Connections to a name may go to its other addresses, so they are not shared with what has another name, or none.
pub(super) type Reach = (
    SocketAddr,
    SocketAddr,
    Option<SpiffeId>,
    Option<WorkloadName>,
    (Tls, Option<ProxyProtocol>),
    Option<Arc<str>>,
);

/// What a [`ClientTls`] is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tls {
    ByIdentity,
    Impossible,
    Outside(Box<TlsOrigination>, Arc<str>),
}

impl Tls {
    /// As `policy` says for an endpoint which asks for `identity`, at a server called `host`; and who must answer then. `shows`
    /// says what a gateway shows.
    pub(super) fn of(
        policy: Option<&UpstreamTls>,
        identity: Option<&SpiffeId>,
        host: &Arc<str>,
        shows: impl FnOnce(&TlsOrigination) -> Option<Shown>,
    ) -> (Self, Option<SpiffeId>) {
        match Transport::of(policy, identity) {
            Transport::Mutual(identity) => (Self::ByIdentity, Some(identity.clone())),
            Transport::Plaintext => (Self::ByIdentity, None),
            Transport::Impossible => (Self::Impossible, None),
            Transport::Originated(settings) => {
                let shown = shows(settings);
                (
                    Self::Outside(Box::new(TlsOrigination { shown, ..settings.clone() }), Arc::clone(host)),
                    None,
                )
            }
        }
    }
}

/// The targets that tables name, and the slots where workers keep their connections.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_reach: HashMap<Reach, Weak<Target>>,
    pub(super) originations: Originations,
    /// What we show to servers outside the mesh, as a gateway.
    pub(super) shown: Option<Shown>,
    /// The same of single backends.
    pub(super) certificates: BTreeMap<CertificateName, Shown>,
    /// Whom our workload may call.
    pub(super) egress: Egress,
    /// The target that has each slot, or had it last.
    slots: Vec<Weak<Target>>,
    /// Slots known to be free.
    free: Vec<usize>,
    /// How many targets at most may not be held any more by the tables since that was last looked at.
    left: usize,
}

/// With fewer slots, all are looked at after each change.
const FEW_SLOTS: usize = 1024;

/// With more, after changes that concern at least one in so many.
const ONE_IN: usize = 8;

impl Targets {
    /// None yet; `egress` says whom our workload may call.
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress, ..Self::default() }
    }

    /// What is shown to a server that is called so: where a `BackendTLSPolicy` asks for TLS the gateway's own certificate,
    /// elsewhere that of the Secret which is named.
    pub(super) fn shown_to(&self, settings: &TlsOrigination) -> Option<Shown> {
        match &settings.certificate {
            Some(name) => self.certificates.get(name).cloned(),
            None => self.shown.clone().filter(|_| settings.policy.is_some()),
        }
    }

    /// The target for `reach`; the existing one if there is one. Nothing keeps our `own` workload from itself.
    pub(super) fn reach(
        &mut self,
        reach: Reach,
        others: &[SocketAddr],
        own: &WorkloadName,
        work: &mut Work,
    ) -> Arc<Target> {
        let known = self.by_reach.get(&reach).and_then(Weak::upgrade);
        let target = known.unwrap_or_else(|| self.make(reach, own, work));
        target.others.set(others, |other| {
            // Where the app is does not change with the address that is dialled for it, unless that is its own.
            let address = match target.permit.as_ref()?.address() {
                app if app.ip() == target.dial.ip() => SocketAddr::new(other.ip(), app.port()),
                app => app,
            };
            Some(self.egress.permit(address, other, target.identity.clone()))
        });
        target
    }

    fn make(&mut self, reach: Reach, own: &WorkloadName, work: &mut Work) -> Arc<Target> {
        work.targets += 1;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let (dial, address, identity, workload, (tls, proxy_protocol), _) = reach.clone();
        let is_own = workload.as_ref() == Some(own);
        let permit = (!is_own).then(|| self.egress.permit(address, dial, identity.clone()));
        let tls = match tls {
            Tls::ByIdentity => ClientTls::ByIdentity,
            Tls::Impossible => ClientTls::Impossible,
            Tls::Outside(settings, host) => {
                ClientTls::Outside(self.originations.find_or_make(&settings, &host))
            }
        };
        let target = Arc::new(Target {
            slot: Slot::Endpoint(slot),
            dial,
            port: address.port(),
            identity,
            workload,
            permit,
            tls,
            proxy_protocol,
            flight: Flight::default(),
            others: Others::default(),
        });
        if slot == self.slots.len() {
            self.slots.push(Weak::new());
        }
        self.slots[slot] = Arc::downgrade(&target);
        self.by_reach.insert(reach, Arc::downgrade(&target));
        target
    }

    /// Notes that tables may have let go of so many targets.
    pub(super) fn left(&mut self, targets: usize) {
        self.left += targets;
    }

    /// The same as [`Self::forget_all_unused`], if it is worth it.
    pub(super) fn forget_unused(&mut self) {
        if self.slots.len() < FEW_SLOTS || self.left >= self.slots.len() / ONE_IN {
            self.forget_all_unused();
        }
    }

    /// Drops what nobody holds any more, and frees its slots. Looks at all of them.
    pub(super) fn forget_all_unused(&mut self) {
        self.left = 0;
        self.by_reach.retain(|_, target| target.strong_count() > 0);
        while self.slots.last().is_some_and(|last| last.strong_count() == 0) {
            self.slots.pop();
        }
        let slots = self.slots.iter().enumerate().rev();
        self.free = slots.filter(|(_, target)| target.strong_count() == 0).map(|(slot, _)| slot).collect();
    }
}

/// How much was bound anew: the cost of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Services.
    pub services: usize,
    /// Endpoints looked at, once for each backend that selects among them: those that are new or have changed.
    pub endpoints: usize,
    /// Targets that did not exist before.
    pub targets: usize,
}
