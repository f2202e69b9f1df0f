//! Targets: what connections reach, shared by all endpoints that reach the same, and the slots of their pools.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak, atomic::AtomicU32},
};

use selvedge_model::{SpiffeId, TlsOrigination, Transport, UpstreamTls, WorkloadName};

use crate::{
    bind::{ClientTls, Slot, Target},
    trust::outside::Originations,
};

/// What connections reach: the address, the workload's port, the identity that must answer, the workload, and TLS to
/// servers outside the mesh.
pub(super) type Reach = (SocketAddr, u16, Option<SpiffeId>, Option<WorkloadName>, Tls);

/// What a [`ClientTls`] is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tls {
    ByIdentity,
    Impossible,
    Outside(TlsOrigination, Arc<str>),
}

impl Tls {
    /// As `policy` says for an endpoint which asks for `identity`, at a server called `host`; and who must
    /// answer then.
    pub(super) fn of(
        policy: Option<&UpstreamTls>,
        identity: Option<&SpiffeId>,
        host: &Arc<str>,
    ) -> (Self, Option<SpiffeId>) {
        match Transport::of(policy, identity) {
            Transport::Mutual(identity) => (Self::ByIdentity, Some(identity.clone())),
            Transport::Plaintext => (Self::ByIdentity, None),
            Transport::Impossible => (Self::Impossible, None),
            Transport::Originated(settings) => (Self::Outside(settings.clone(), Arc::clone(host)), None),
        }
    }
}

/// The targets that tables name, and the slots where workers keep their connections.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_reach: HashMap<Reach, Weak<Target>>,
    pub(super) originations: Originations,
    /// The target that has each slot, or had it last.
    slots: Vec<Weak<Target>>,
    /// Slots known to be free.
    free: Vec<usize>,
}

impl Targets {
    /// The target for `reach`; the existing one if there is one.
    pub(super) fn reach(&mut self, reach: Reach, work: &mut Work) -> Arc<Target> {
        if let Some(target) = self.by_reach.get(&reach).and_then(Weak::upgrade) {
            return target;
        }
        work.targets += 1;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let (dial, port, identity, workload, tls) = reach.clone();
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
            port,
            identity,
            workload,
            tls,
            in_flight: AtomicU32::new(0),
        });
        if slot == self.slots.len() {
            self.slots.push(Weak::new());
        }
        self.slots[slot] = Arc::downgrade(&target);
        self.by_reach.insert(reach, Arc::downgrade(&target));
        target
    }

    /// Drops what nobody holds any more, and frees its slots.
    pub(super) fn forget_unused(&mut self) {
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
    /// Endpoints looked at, once for each backend that selects among them.
    pub endpoints: usize,
    /// Targets that did not exist before.
    pub targets: usize,
}
