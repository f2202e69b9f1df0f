//! The lists of all that is known by name at a port, made once for all who ask for an address there.
//!
//! Such a list has every workload at a DNS name, whoever's it is, and every client that asks for an address outside of the mesh is
//! told of it. So it is neither made nor kept for each address.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use selvedge_model::snapshot::{NamedAddresses, Shared};

use super::Encoded;

/// What was encoded before.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    /// What is known by name; the newest that was asked for.
    of: Option<Shared<NamedAddresses>>,
    /// How often that was another than before.
    generation: u64,
    /// The list of each port, and of which generation it is.
    by_port: HashMap<u16, (u64, Encoded)>,
}

impl Lists {
    /// Counts what is known by name as another generation, if it is another.
    fn generation(&mut self, named: &Shared<NamedAddresses>) -> u64 {
        if !self.of.as_ref().is_some_and(|of| of.is(named)) {
            self.of = Some(named.clone());
            self.generation += 1;
        }
        self.generation
    }
}

impl Named {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list of `port`, which `encode` makes of `named` unless it is known.
    pub(super) fn find_or(
        &self,
        named: &Shared<NamedAddresses>,
        port: u16,
        encode: impl FnOnce() -> Encoded,
    ) -> Encoded {
        let generation = {
            let mut lists = self.lock();
            let generation = lists.generation(named);
            match lists.by_port.get(&port) {
                Some((made, encoded)) if *made == generation => return encoded.clone(),
                _ => generation,
            }
        };
        // Without the lock: two that meet here do the same work, and one result stays.
        let encoded = encode();
        let mut lists = self.lock();
        // What is no other at this port is shared with who was told of it before.
        let there = lists.by_port.get(&port).map(|(_, there)| there);
        let encoded = there.filter(|there| there.version() == encoded.version()).cloned().unwrap_or(encoded);
        lists.by_port.insert(port, (generation, encoded.clone()));
        encoded
    }

    /// Lets go of what no view holds any more.
    pub(super) fn forget_unused(&self) {
        let mut lists = self.lock();
        lists.by_port.retain(|_, (_, encoded)| !encoded.is_unused());
        if lists.by_port.is_empty() {
            lists.of = None;
        }
    }
}
