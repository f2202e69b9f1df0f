//! `Ingress`es: all that are ours are served by one gateway, [`NAME`] in the control plane's own namespace.
//!
//! What all of them say of one host is merged: at each path the oldest decides. Among paths an exact one goes before the
//! others, and of those the longest.

mod canary;
mod hosts;
mod rules;
mod tls;
mod users;

use std::collections::BTreeSet;

use selvedge_model::{
    Order,
    gateway::{Carries, Hostname},
};

use self::{hosts::Hosts, rules::Over, tls::TlsHosts, users::AllUsers};
use super::{
    super::{MeshSettings, Problems, certificates::Certificates, there::GATEWAY_OF_INGRESSES},
    WantedObject,
    draft::{Draft, NewListener, written},
};
use crate::{
    problem::{Fault, Problem},
    resources::{Document, IngressSpec, Resources},
};

type Ingress = Document<IngressSpec>;

/// What the gateway of all `Ingress`es is called.
pub(super) const NAME: &str = GATEWAY_OF_INGRESSES;

/// The port of plaintext.
const HTTP: u16 = 80;

/// Every `Ingress` that is ours, and what they come to.
pub(super) struct Ingresses<'a> {
    namespace: &'a str,
    ours: Vec<&'a Ingress>,
    hosts: Hosts<'a>,
    over_tls: TlsHosts<'a>,
    users: AllUsers<'a>,
}

impl<'a> Ingresses<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &'a MeshSettings,
        certificates: &Certificates<'_>,
        problems: &mut Problems,
    ) -> Self {
        let ours = ours(resources);
        for ingress in &ours {
            report(ingress, problems);
        }
        let hosts = Hosts::new(&ours, problems);
        let over_tls = TlsHosts::new(&ours, &hosts, problems);
        let users = AllUsers::new(&ours, certificates, problems);
        Self { namespace: &settings.own_namespace, ours, hosts, over_tls, users }
    }

    /// The namespace and name of their gateway, if there is anything for it to serve.
    pub(super) fn name(&self) -> Option<(&'a str, &'a str)> {
        (!self.ours.is_empty()).then_some((self.namespace, NAME))
    }

    /// Adds what they say to `draft`, if that is of their gateway.
    pub(super) fn add_to(&self, draft: &mut Draft<'_>, problems: &mut Problems) {
        let seat = draft.seat;
        let Some(first) = self.ours.first().filter(|_| (seat.namespace, seat.name) == (self.namespace, NAME))
        else {
            return;
        };
        if seat.workloads.is_empty() && first.location.path.is_some() {
            let message = format!(
                "no workload is the gateway {0}/{NAME}, so nobody serves it; add a WorkloadEntry in the namespace {0} with \
                 the annotation config.selvedge.io/gateway: {0}/{NAME}",
                self.namespace
            );
            problems.warning(first, "", message);
        }
        let place = draft.listen(NewListener {
            name: format!("Ingress {}/{NAME} http", self.namespace),
            key: format!("{}/{NAME}/http", self.namespace),
            port: HTTP,
            carries: Carries::Http,
            hostname: Hostname::Any,
            tls: None,
            written: written(first, "spec"),
            with: Vec::new(),
            has_equal_siblings: false,
        });
        let shared = draft.shared;
        for host in self.hosts.iter() {
            let over = Over::Plaintext { tls: self.over_tls.all_covering(&host.name).collect() };
            let at = draft.host(place, &host.name);
            at.order = Order::Listed;
            let rules = rules::of(host, (&over, &self.users), &mut at.backends, problems);
            at.rules = rules.into_iter().map(|rule| shared.share(rule)).collect();
        }
        for refused in self.over_tls.refused() {
            tls::add_refused(refused, place, draft);
        }
        tls::add_to(draft, &self.over_tls, (&self.hosts, &self.users), problems);
        draft.user_lists.extend(self.users.lists());
    }
}

/// The Secrets that those that are ours name.
pub(super) fn wanted(resources: &Resources) -> BTreeSet<WantedObject> {
    let ours = ours(resources);
    tls::wanted(&ours).into_iter().chain(users::wanted(&ours)).collect()
}

/// Those that are ours, oldest first.
pub(super) fn ours(resources: &Resources) -> Vec<&Ingress> {
    let all = resources.ingresses.iter().map(|ingress| &**ingress);
    all.filter(|ingress| is_ours(resources, ingress)).collect()
}

/// Whether `ingress` is ours: in a directory all are, in a cluster those of our classes.
fn is_ours(resources: &Resources, ingress: &Ingress) -> bool {
    let mut classes = resources.ingress_classes.iter();
    let is_named = |name: &str| ingress.spec.class.as_ref().map(|(class, _)| class.as_str()) == Some(name);
    ingress.location.path.is_some()
        || classes.any(|class| {
            let is_meant = match &ingress.spec.class {
                Some(_) => is_named(&class.name.name),
                None => class.spec.is_default,
            };
            class.spec.is_ours && is_meant
        })
}

/// Reports what was noted when its annotations were read.
fn report(ingress: &Ingress, problems: &mut Problems) {
    for (severity, field, message) in ingress.spec.nginx.notes.iter() {
        let problem = ingress.problem(severity, field, message);
        problems.add(Problem { fault: Fault::Part, ..problem });
    }
}
