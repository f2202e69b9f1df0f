//! A change of `RateLimit`s, and what becomes of them if workloads, `Service`s or routes change.
//!
//! `RateLimit`s are few, and one without a selector is for all: if one changes, each workload asks them again, and what is to be said of
//! them is found out anew. The limits of routes are what gateways serve, and are compiled with these ([`routing`](super::routing)).
//! Linkerd's limits are for the ports of its `Server`s: if there are any, everything is compiled.

use std::sync::Arc;

use selvedge_model::Workload;

use super::{
    super::{Problems, are_same, meant, rate_limits::RateLimits, services::Catalog},
    Last,
    index::Everything,
};

impl Last {
    /// Makes anew what all workloads limit, and what is to be said of it, after all other changes.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_limits(&mut self) -> Result<(), Everything> {
        let (all, settings) = (&self.resources, &*self.settings);
        if !all.server_limits.is_empty() {
            return Err(Everything);
        }
        let faced = self.facts.faced.as_ref().ok_or(Everything)?;
        // What is wrong with them whichever workloads there are is told where all policies are read.
        let nowhere = &mut Problems::default();
        let limits = RateLimits::new(all, settings, nowhere);
        let mut others = Vec::new();
        for (name, faced) in faced {
            let workload = self.mesh.workloads.get(name).ok_or(Everything)?;
            let before = workload.policy.limits.as_ref();
            let gateway = workload.gateway.as_deref();
            let found = limits.find(faced.selected(workload), gateway, std::iter::empty(), before);
            if !are_same(found.as_ref(), before) {
                let mut other = Workload::clone(workload);
                other.policy.limits = found;
                others.push(Arc::new(other));
            }
        }
        let mut problems = Problems::default();
        if limits.ask_servers() {
            let catalog = Catalog::new(all, settings, &self.mesh.owners, nowhere);
            limits.report(|host| Some(&catalog.find(host)?.ports), &mut problems);
        } else {
            limits.report(|_| None, &mut problems);
        }
        self.put_workloads(others);
        let workloads = &self.mesh.workloads;
        let facing = self.facts.faced.iter().flatten();
        let facing = facing.filter_map(|(name, faced)| Some(faced.facing(workloads.get(name)?)));
        meant::report_limits(&self.resources, &self.settings, facing, &mut problems);
        self.facts.found.limits = problems;
        self.is_said_anew = true;
        Ok(())
    }
}
