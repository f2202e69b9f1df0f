//! Routes whose parent is a `Server`: they tell its requests apart, so that each can have policies of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use selvedge_model::{
    Order, RouteTable, Rule,
    policy::{MOST_ROUTES, ServerRoutes},
};

use super::Written;
use crate::{
    compile::Problems,
    problem::{Detached, DocumentName, Fault, Severity},
    resources::{
        Document, HttpRouteSpec, Resources, http_route::HttpRouteRule, references::HttpParents,
        route_filters::RouteFilters,
    },
};

type Route = Document<HttpRouteSpec>;

/// Which route: what its kind is called, its namespace and its name, as the names of its rules begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteId(String);

impl RouteId {
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{kind} {namespace}/{name}"))
    }

    /// Whether a rule called so is of this route.
    pub(super) fn is_of(&self, rule: &str) -> bool {
        rule.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with(" rules["))
    }
}

/// Every route with a `Server` as parent, by that `Server`.
#[derive(Debug)]
pub(super) struct Routes<'a> {
    by_server: HashMap<(&'a str, &'a str), Vec<&'a Route>>,
    servers: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Routes<'a> {
    pub(super) fn new(resources: &'a Resources, problems: &mut Problems) -> Self {
        let servers: BTreeSet<_> =
            resources.servers.iter().map(|one| (&*one.name.namespace, &*one.name.name)).collect();
        let mut by_server: HashMap<(&str, &str), Vec<&Route>> = HashMap::new();
        for route in &resources.http_routes {
            for parent in &route.spec.parents.servers {
                let key = (&*route.name.namespace, &*parent.name);
                if !servers.contains(&key) {
                    let message =
                        format!("there is no Server {} in namespace {}; correct the name", key.1, key.0);
                    let why = Fault::Parent { index: parent.index, why: Detached::NoSuchParent };
                    problems.fault(route, &format!("spec.parentRefs[{}]", parent.index), message, why);
                }
                let here = by_server.entry(key).or_default();
                if !here.iter().any(|other| std::ptr::eq(*other, &**route)) {
                    here.push(route);
                }
            }
            report_effects(route, problems);
        }
        // As for Services: calls of gRPC first, then the oldest.
        for routes in by_server.values_mut() {
            routes.sort_by(|a, b| {
                let kind = |route: &Route| Reverse(route.spec.is_grpc);
                kind(a).cmp(&kind(b)).then_with(|| a.seniority().cmp(&b.seniority()))
            });
        }
        Self { by_server, servers }
    }

    /// The servers whose route `id` is.
    pub(super) fn servers_of(&self, id: &RouteId) -> Vec<DocumentName> {
        let has = |routes: &[&Route]| routes.iter().any(|route| route.name.to_string() == id.0);
        let having = self.by_server.iter().filter(|(key, routes)| self.servers.contains(*key) && has(routes));
        let mut names: Vec<_> = having
            .map(|((namespace, name), _)| DocumentName {
                kind: "Server".into(),
                namespace: (*namespace).into(),
                name: (*name).into(),
            })
            .collect();
        names.sort_unstable();
        names
    }

    /// The routes of `server`; `None`: it has none.
    pub(super) fn of_server(&self, server: &Written, problems: &mut Problems) -> Option<ServerRoutes> {
        let routes = self.by_server.get(&(&*server.name.namespace, &*server.name.name))?;
        let rules = routes.iter().flat_map(|route| route.spec.rules.iter().map(move |rule| (route, rule)));
        let mut rules: Vec<Rule> = rules
            .map(|(route, rule)| Rule {
                name: format!("{} rules[{}]", route.name, rule.index),
                matches: rule.matches.clone(),
                ..Rule::default()
            })
            .collect();
        if rules.len() > MOST_ROUTES {
            let message = format!(
                "has routes with {} rules together; {MOST_ROUTES} are allowed, the rest is left out",
                rules.len()
            );
            problems.error(server, "", message);
            rules.truncate(MOST_ROUTES);
        }
        let table = RouteTable::new(Order::MostSpecific, rules);
        Some(ServerRoutes::new(server.name.to_string().into(), table))
    }
}

/// Reports what a route of servers alone asks for besides telling requests apart.
fn report_effects(route: &Route, problems: &mut Problems) {
    let HttpParents { services, gateways, servers } = &route.spec.parents;
    if servers.is_empty() || !(services.is_empty() && gateways.is_empty()) {
        return;
    }
    for rule in &route.spec.rules {
        for part in effects(rule) {
            let field = format!("spec.rules[{}].{part}", rule.index);
            let message = "not acted on for a Server: its routes only tell requests apart for policies";
            problems.add_between(route.problem(Severity::NotActedOn, &field, message));
        }
    }
}

fn effects(rule: &HttpRouteRule) -> impl Iterator<Item = &'static str> {
    let parts = [
        ("filters", rule.filters != RouteFilters::default()),
        ("backendRefs", !rule.backends.is_empty()),
        ("timeouts", rule.timeouts.is_some()),
        ("retry", rule.retry.is_some()),
    ];
    parts.into_iter().filter(|(_, is_there)| *is_there).map(|(part, _)| part)
}
