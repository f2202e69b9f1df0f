//! Who we are, and who is at the other end, as metrics name them.
//!
//! What a peer says of itself is input: it can name its own namespace only, and no more than a few names of each kind are
//! told apart of one identity.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use selvedge_model::{SpiffeId, Workload, WorkloadName, naming::Naming};

use super::registered::lock;

/// How many identities are told apart that call us.
const MOST_IDENTITIES: usize = 2_000;
/// How many names one identity may have: an identity is a ServiceAccount's, which several Deployments may use.
const MOST_NAMES: usize = 32;

/// A workload at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What people call it.
    pub naming: Naming,
    /// Its identity, which it has proven or must prove. Empty: none, plaintext.
    pub principal: Arc<str>,
}

/// Our own workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) namespace: Arc<str>,
    pub(super) naming: Naming,
    pub(super) principal: Arc<str>,
    /// The host of the Service that leads to each of its ports.
    pub(super) services: BTreeMap<u16, Arc<str>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ends {
    own: Mutex<Arc<Own>>,
    /// Those that have called, by their identity.
    callers: Mutex<BTreeMap<Arc<str>, Vec<Arc<Peer>>>>,
}

impl Ends {
    /// Our own workload.
    pub(super) fn own(&self) -> Arc<Own> {
        Arc::clone(&lock(&self.own))
    }

    /// Says who we are before configuration does.
    pub(super) fn begin(&self, name: &WorkloadName) {
        let naming = Naming::of(name.name(), &BTreeMap::new());
        *lock(&self.own) = Arc::new(Own { namespace: name.namespace().into(), naming, ..Own::default() });
    }

    /// Takes over what configuration says of us.
    pub(super) fn set_own(&self, own: &Workload) {
        let told = Own {
            namespace: own.name.namespace().into(),
            naming: Naming::of(own.name.name(), &own.labels),
            principal: own.identity.as_str().into(),
            services: own.services.clone(),
        };
        let mut before = lock(&self.own);
        if **before != told {
            *before = Arc::new(told);
        }
    }

    /// The caller that has proven to be `identity`, and says that it is called so. `None`: it says nothing that could be, or
    /// has said too many things.
    pub(super) fn caller(&self, identity: &SpiffeId, naming: Naming) -> Option<Arc<Peer>> {
        if naming.owner.is_empty() || !naming.is_plausible() {
            return None;
        }
        let mut callers = lock(&self.callers);
        let count = callers.len();
        let known = match callers.get_mut(identity.as_str()) {
            Some(known) => known,
            None if count >= MOST_IDENTITIES => {
                // Those that no connection names any more make room.
                callers.retain(|_, known| known.iter().any(|peer| Arc::strong_count(peer) > 1));
                if callers.len() >= MOST_IDENTITIES {
                    return None;
                }
                callers.entry(identity.as_str().into()).or_default()
            }
            None => callers.entry(identity.as_str().into()).or_default(),
        };
        if let Some(peer) = known.iter().find(|peer| peer.naming == naming) {
            return Some(Arc::clone(peer));
        }
        if known.len() >= MOST_NAMES {
            known.retain(|peer| Arc::strong_count(peer) > 1);
        }
        (known.len() < MOST_NAMES).then(|| {
            let (namespace, principal) = (identity.namespace().into(), identity.as_str().into());
            let peer = Arc::new(Peer { namespace, naming, principal });
            known.push(Arc::clone(&peer));
            peer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_believed_its_name_but_not_any_number_of_them() {
        let ends = Ends::default();
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
        let called =
            |owner: &str| ends.caller(&identity, Naming { owner: owner.into(), ..Naming::default() });

        let cart = called("cart").expect("the first");
        assert_eq!((&*cart.namespace, &*cart.naming.owner), ("shop", "cart"));
        assert!(Arc::ptr_eq(&cart, &called("cart").expect("the same")));
        assert!(called("").is_none() && called("a\nb").is_none());
        let held: Vec<_> = (0..2 * MOST_NAMES).filter_map(|name| called(&format!("cart-{name}"))).collect();
        assert_eq!(held.len(), MOST_NAMES - 1);
        drop(held);
        assert!(called("another").is_some(), "names that nobody has any more make room");
    }
}
