//! Which routes are attached to which listeners of a `Gateway` or `ListenerSet`, and why others are not.
//!
//! A route is attached to each listener that its `parentRefs` name, that allows it, and that has a host name in common with
//! it (<https://gateway-api.sigs.k8s.io/reference/spec/#parentreference>). It is told only where no listener takes it.

use std::{cmp::Reverse, collections::BTreeSet};

use selvedge_model::gateway::Hostname;

use super::{
    super::{Problems, network::NamespaceLabels, parent_field},
    holders::Holder,
};
use crate::{
    problem::{Detached, Fault},
    resources::{
        Document,
        gateway::{FromNamespaces, ListenerSpec},
        references::Parent,
    },
};

/// A route at a listener.
#[derive(Debug)]
pub(super) struct AtListener<'a, T> {
    pub(super) route: &'a Document<T>,
    /// The place of the parent by which it is there.
    pub(super) parent: usize,
    /// The host names that both have.
    pub(super) hostnames: Vec<Common>,
}

/// A host name that a route and a listener have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// It.
    pub(super) hostname: Hostname,
    /// The route's own of which it is a part; of several, the most specific one.
    own: Hostname,
}

impl<'a, T> AtListener<'a, T> {
    /// `routes` at their host names, oldest first as they are; but before those that come to one name by a wider one of their
    /// own, those whose own is more specific (`HTTPRoute` `spec.hostnames`). With each its tier, the smaller the more specific
    /// its own name: that goes before all that a request is matched by.
    pub(super) fn by_own_hostnames(routes: &[Self]) -> Vec<(&Hostname, u32, &Self)> {
        let mut all: Vec<(&Common, &Self)> =
            routes.iter().flat_map(|at| at.hostnames.iter().map(move |common| (common, at))).collect();
        all.sort_by_key(|(common, _)| Reverse(common.own.rank()));
        let (mut tier, mut own) = (0, None);
        let mut in_tiers = Vec::with_capacity(all.len());
        for (common, at) in all {
            let rank = common.own.rank();
            tier += u32::from(own.as_ref().is_some_and(|own| *own != rank));
            own = Some(rank);
            in_tiers.push((&common.hostname, tier, at));
        }
        in_tiers
    }
}

/// What a route has to do with listeners.
pub(super) struct Attaching<'r, 'a, T> {
    pub(super) route: &'a Document<T>,
    pub(super) hostnames: &'r [Hostname],
    pub(super) namespaces: &'r NamespaceLabels<'a>,
}

/// Why a listener does not take a route; the later a reason, the nearer the route has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Kind,
    Namespace,
    Hostname,
}

impl<'a, T> Attaching<'_, 'a, T> {
    /// Attaches the route to listeners of `holder`, by its parent at `parent`: gives each the host names that both have.
    pub(super) fn attach(
        &self,
        holder: Holder<'_>,
        parent: &Parent,
        problems: &mut Problems,
    ) -> Vec<(usize, AtListener<'a, T>)> {
        let is_meant = |listener: &&ListenerSpec| {
            parent.section.as_deref().is_none_or(|section| section == listener.name)
                && parent.port.is_none_or(|port| port == listener.port)
        };
        let meant: Vec<&ListenerSpec> = holder.listeners().iter().filter(is_meant).collect();
        let mut attached = Vec::new();
        // Of several refusals the last one counts that came nearest.
        let mut refusal: Option<(Refusal, usize)> = None;
        for listener in &meant {
            match self.hostnames_at(holder, listener) {
                Ok(hostnames) => {
                    let at = AtListener { route: self.route, parent: parent.index, hostnames };
                    attached.push((listener.index, at));
                }
                Err(why) => refusal = refusal.max(Some((why, listener.index))),
            }
        }
        if attached.is_empty() {
            let refusal = refusal.map(|(why, index)| (why, &holder.listeners()[index]));
            self.report(holder, parent, refusal, problems);
        }
        attached
    }

    /// The host names that the route and `listener` have in common.
    fn hostnames_at(&self, holder: Holder<'_>, listener: &ListenerSpec) -> Result<Vec<Common>, Refusal> {
        let kind = &*self.route.name.kind;
        let fits = listener.protocol.route_kinds().contains(&kind);
        let listed = listener.allowed.kinds.as_ref();
        if !fits || listed.is_some_and(|kinds| !kinds.iter().any(|one| one.is(kind))) {
            return Err(Refusal::Kind);
        }
        let own = &holder.name().namespace;
        if !self.allows(&listener.allowed.namespaces, own) {
            return Err(Refusal::Namespace);
        }
        if self.hostnames.is_empty() {
            return Ok(vec![Common { hostname: listener.hostname.clone(), own: Hostname::Any }]);
        }
        let mut common: Vec<Common> = Vec::new();
        for own in self.hostnames {
            let Some(hostname) = listener.hostname.intersection(own) else { continue };
            match common.iter_mut().find(|there| there.hostname == hostname) {
                None => common.push(Common { hostname, own: own.clone() }),
                Some(there) if there.own.rank() < own.rank() => there.own = own.clone(),
                Some(_) => {}
            }
        }
        if common.is_empty() { Err(Refusal::Hostname) } else { Ok(common) }
    }

    /// Whether a listener of a document in the namespace `own` takes routes of this one's.
    fn allows(&self, from: &FromNamespaces, own: &str) -> bool {
        let namespace = &*self.route.name.namespace;
        match from {
            FromNamespaces::Same => own == namespace,
            FromNamespaces::All => true,
            FromNamespaces::None => false,
            FromNamespaces::Selected(selector) => self.namespaces.are_selected(namespace, selector),
        }
    }

    /// Says why no listener of `holder` takes the route.
    fn report(
        &self,
        holder: Holder<'_>,
        parent: &Parent,
        refusal: Option<(Refusal, &ListenerSpec)>,
        problems: &mut Problems,
    ) {
        let (kind, namespace) = (&self.route.name.kind, &self.route.name.namespace);
        let (why, message) = match refusal {
            None => {
                let names: BTreeSet<_> = holder
                    .listeners()
                    .iter()
                    .map(|listener| format!("{} (port {})", listener.name, listener.port))
                    .collect();
                let names: Vec<String> = names.into_iter().collect();
                let message =
                    format!("{} has no such listener; name one of {}", holder.name(), names.join(", "));
                (Detached::NoSuchParent, message)
            }
            Some((Refusal::Kind, listener)) => (
                Detached::NotAllowed,
                format!(
                    "the listener {} of {} takes no {kind}; use another listener, or change its protocol or \
                     allowedRoutes.kinds",
                    listener.name,
                    holder.name()
                ),
            ),
            Some((Refusal::Namespace, listener)) => (
                Detached::NotAllowed,
                format!(
                    "the listener {} of {} takes no routes of the namespace {namespace}; change its \
                     allowedRoutes.namespaces",
                    listener.name,
                    holder.name()
                ),
            ),
            Some((Refusal::Hostname, listener)) => (
                Detached::NoMatchingHostname,
                format!(
                    "none of its hostnames is among {}, which the listener {} of {} is for; change one of the two",
                    listener.hostname,
                    listener.name,
                    holder.name()
                ),
            ),
        };
        let fault = Fault::Parent { index: parent.index, why };
        problems.fault(self.route, &parent_field(parent.index), message, fault);
    }
}
