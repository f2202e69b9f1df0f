//! What must be true before `/ready` says so: a list of named conditions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The conditions of one daemon. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, bool>>>,
    remarks: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// Something that `/ready` says while it lasts, although it keeps nobody from being ready.
#[derive(Debug, Clone)]
pub struct Remark {
    remarks: Arc<Mutex<BTreeSet<&'static str>>>,
    text: &'static str,
}

impl Remark {
    /// Says whether it is so; logs when that changes.
    pub fn set(&self, so: bool) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = if so { remarks.insert(self.text) } else { remarks.remove(self.text) };
        drop(remarks);
        if changed {
            tracing::info!(remark = self.text, so, "readiness has another remark");
        }
    }
}

/// One condition; not met until somebody says so.
#[derive(Debug, Clone)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Adds a condition that is not met yet. `name` is what `/ready` shows while it is missing.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.lock().entry(name).or_insert(false);
        Condition { readiness: self.clone(), name }
    }

    /// The names of the conditions that are not met, in alphabetical order; empty = ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock().iter().filter(|(_, met)| !**met).map(|(name, _)| *name).collect()
    }

    /// Adds a remark that does not hold yet. `text` is what `/ready` says while it does.
    pub fn remark(&self, text: &'static str) -> Remark {
        Remark { remarks: Arc::clone(&self.remarks), text }
    }

    /// The remarks that hold now, in alphabetical order.
    pub fn remarks(&self) -> Vec<&'static str> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// Says whether it is met; logs when that changes.
    pub fn set(&self, met: bool) {
        let before = self.readiness.lock().insert(self.name, met);
        if before != Some(met) {
            tracing::info!(condition = self.name, met, "readiness changed");
        }
    }

    /// It is met from now on.
    pub fn met(&self) {
        self.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_condition_is_met() {
        let readiness = Readiness::default();
        let certificate = readiness.condition("certificate");
        let policy = readiness.condition("policy");
        assert_eq!(readiness.missing(), ["certificate", "policy"]);

        certificate.met();
        assert_eq!(readiness.missing(), ["policy"]);

        policy.met();
        assert!(readiness.missing().is_empty());

        certificate.set(false);
        assert_eq!(readiness.missing(), ["certificate"]);
    }

    #[test]
    fn a_remark_keeps_nobody_from_being_ready() {
        let readiness = Readiness::default();
        let busy = readiness.remark("busy");
        assert!(readiness.remarks().is_empty());

        busy.set(true);
        assert_eq!((readiness.remarks(), readiness.missing()), (vec!["busy"], vec![]));

        busy.set(false);
        assert!(readiness.remarks().is_empty());
    }
}
