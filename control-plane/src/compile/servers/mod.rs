//! Linkerd's policies to what each workload's sidecar asks: the `Server` of each of its ports, who may call it, and its
//! routes.

mod clients;
mod defaults;
mod policies;
mod routes;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    Authorization,
    policy::{Action, Policy, Rule, ServerRoutes, Servers as Rules},
};

pub(super) use self::defaults::report_annotations;
use self::{defaults::Defaults, policies::Granted, routes::Routes};
use super::{
    MeshSettings, Problems, keep,
    sharing::{ByNamespace, MadeOnce},
};
use crate::{
    problem::{DocumentName, Fault},
    resources::{
        Document, Resources, ServerSpec,
        linkerd_policy::{access::Access, server::ServerPort},
    },
};

type Written = Document<ServerSpec>;

/// Every `Server`, with what is attached to it.
#[derive(Debug)]
pub(super) struct Servers<'a> {
    all: Vec<Known<'a>>,
    by_namespace: ByNamespace<'a>,
    defaults: Defaults<'a>,
    /// What workloads share whose ports are the same servers.
    shared: MadeOnce<Chosen, Rules>,
    /// Of two servers of one port: the one that counts, and the other.
    conflicts: RefCell<BTreeSet<(usize, usize)>>,
}

/// The servers of a workload's ports, and the default for all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Chosen {
    ports: Vec<(u16, usize)>,
    default: Option<(Access, Arc<str>)>,
}

#[derive(Debug)]
struct Known<'a> {
    document: &'a Written,
    granted: Vec<Granted>,
    routes: Option<ServerRoutes>,
    selects_one: Cell<bool>,
}

impl Known<'_> {
    /// What is asked at `port` of a workload, which is this server.
    fn policies(&self, port: u16) -> Vec<Policy> {
        let Self { document, granted, routes, .. } = self;
        let name: Arc<str> = document.name.to_string().into();
        let mut rules: Vec<Rule> = granted.iter().map(|granted| granted.rule(routes.as_ref())).collect();
        let access = document.spec.access;
        rules.extend(clients::rule_of_access(access, &format!("{name} accessPolicy {}", access.word())));
        let policy = |dry_run, rules| Policy {
            name: Arc::clone(&name),
            action: Action::Allow,
            dry_run,
            ports: Some([port].into()),
            rules,
            why: None,
        };
        if access != Access::Audit {
            return vec![policy(false, rules)];
        }
        let everything = vec![Rule::everything(format!("{name} accessPolicy audit"))];
        vec![policy(false, everything), policy(true, rules)]
    }
}

/// What servers select a workload by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected<'w> {
    pub(super) namespace: &'w str,
    /// `None`: nobody knows them.
    pub(super) labels: Option<&'w BTreeMap<String, String>>,
    pub(super) annotations: &'w BTreeMap<String, String>,
    pub(super) named_ports: &'w [(&'w str, u16)],
}

impl<'a> Servers<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &MeshSettings, problems: &mut Problems) -> Self {
        let routes = Routes::new(resources, problems);
        let mut granted = policies::granted(resources, settings, &routes, problems);
        let mut servers = Self {
            all: Vec::with_capacity(resources.servers.len()),
            by_namespace: ByNamespace::default(),
            defaults: Defaults::new(resources, problems),
            shared: MadeOnce::default(),
            conflicts: RefCell::default(),
        };
        for (place, document) in resources.servers.iter().enumerate() {
            servers.by_namespace.add(Some(&document.name.namespace), place);
            servers.all.push(Known {
                document,
                granted: granted.remove(&document.name).unwrap_or_default(),
                routes: routes.of_server(document, problems),
                selects_one: Cell::new(false),
            });
        }
        servers
    }

    /// What the sidecar of a workload asks; as `previous` says, if that is the same.
    pub(super) fn find(&self, workload: Selected<'_>, previous: Option<&Arc<Rules>>) -> Option<Arc<Rules>> {
        let first = self.by_namespace.places(workload.namespace).next();
        if let (None, Some(first)) = (workload.labels, first) {
            return Some(keep(Rules::new(self.refusing(first), BTreeMap::new()), previous));
        }
        let chosen = Chosen {
            ports: self.ports_of(workload).into_iter().collect(),
            default: self.defaults.of(workload),
        };
        if chosen == Chosen::default() {
            return None;
        }
        Some(self.shared.get(chosen, previous, |chosen| self.made_of(chosen)))
    }

    /// The ports of a workload that its sidecar carries as they are, as their servers say.
    pub(super) fn opaque_ports(&self, workload: Selected<'_>) -> BTreeSet<u16> {
        let ports = self.ports_of(workload).into_iter();
        ports.filter(|(_, place)| self.all[*place].document.spec.is_opaque).map(|(port, _)| port).collect()
    }

    /// What the server of each port of a workload is called.
    pub(super) fn of_ports(&self, workload: Selected<'_>) -> impl Iterator<Item = (u16, &DocumentName)> {
        let ports = self.ports_of(workload).into_iter();
        ports.map(|(port, place)| (port, &self.all[place].document.name))
    }

    /// The server of each port that has one: the oldest, if several select it.
    fn ports_of(&self, workload: Selected<'_>) -> BTreeMap<u16, usize> {
        let mut ports = BTreeMap::new();
        for place in self.by_namespace.places(workload.namespace) {
            let Known { document, selects_one, .. } = &self.all[place];
            let selector = document.spec.workloads.as_ref();
            if !selector.zip(workload.labels).is_some_and(|(selector, labels)| selector.selects(labels)) {
                continue;
            }
            for port in numbers(&document.spec.port, workload) {
                selects_one.set(true);
                let first = *ports.entry(port).or_insert(place);
                if first != place {
                    self.conflicts.borrow_mut().insert((first, place));
                }
            }
        }
        ports
    }

    /// What is asked of a workload of which nobody knows whether the server at `place` selects it.
    fn refusing(&self, place: usize) -> Authorization {
        let name = format!("{}, which may select this workload", self.all[place].document.name);
        let (action, rules) = (Action::Allow, Vec::new());
        let policy = Policy { name: name.into(), action, dry_run: false, ports: None, rules, why: None };
        Authorization::new(vec![policy])
    }

    fn made_of(&self, chosen: &Chosen) -> Rules {
        let mut policies = Vec::new();
        let mut routes = BTreeMap::new();
        for (port, place) in &chosen.ports {
            let known = &self.all[*place];
            policies.extend(known.policies(*port));
            if let Some(its) = &known.routes {
                routes.insert(*port, its.clone());
            }
        }
        if let Some((access, name)) = &chosen.default {
            let others = chosen.ports.iter().map(|(port, _)| *port).collect();
            policies.extend(defaults::policies(*access, name, &others));
        }
        Rules::new(Authorization::new(policies), routes)
    }

    /// Reports what selects nothing, and what is not asked because another server has its port. Asked when each workload
    /// has its servers.
    pub(super) fn report(&self, problems: &mut Problems) {
        for Known { document, selects_one, .. } in &self.all {
            if document.spec.workloads.is_some() && !selects_one.get() {
                let message =
                    "selects no port of a workload, so nothing is enforced by it; compare labels and port";
                problems.warning(document, "spec.podSelector", message);
            }
        }
        for (first, other) in self.conflicts.borrow().iter() {
            let (first, other) = (self.all[*first].document, self.all[*other].document);
            let message = format!(
                "has no effect where {} ({}) has the same port of the same workload; let only one Server select it",
                first.name, first.location
            );
            problems.fault(other, "spec.port", message, Fault::SamePort);
        }
    }
}

/// The numbers of `port` at a workload.
fn numbers(port: &ServerPort, workload: Selected<'_>) -> Vec<u16> {
    match port {
        ServerPort::Number(number) => vec![*number],
        ServerPort::Named(name) => {
            let named = workload.named_ports.iter().filter(|(known, _)| known == name);
            named.map(|(_, number)| *number).collect()
        }
    }
}
