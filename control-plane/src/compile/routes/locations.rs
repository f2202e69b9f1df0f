//! Where the rules of the mesh are written: from a rule back to its document, and the line there.
//!
//! Rules carry only their names, which is all that proxies need. Whoever asks for lines goes through the documents again,
//! so that a running control plane keeps nothing for it.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use selvedge_model::Match;
use selvedge_ops::plain;
use serde::Serialize;

use super::{
    super::{
        Problems,
        rule_names::{APP_ROOT, CANARY_RULES, DEFAULT_BACKEND, ingress_rule_name, path_name, redirect_name},
    },
    claims,
    delegates::{Delegates, Effective},
    http, tcp,
};
use crate::{
    problem::DocumentName,
    resources::{
        Document, IngressSpec, Location, Resources,
        ingress::nginx::{SSL_PASSTHROUGH, annotation},
        virtual_service::{Follower, PortMatch},
    },
};

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The document.
    pub document: DocumentName,
    /// Its file; `None`: a cluster has it.
    pub path: Option<Arc<Path>>,
    /// The line there, counted from 1; `None` in a cluster.
    pub line: Option<u64>,
    /// The field, such as `spec.http[0].match[1]`.
    pub field: String,
}

impl fmt::Display for Written {
    /// `file:line` in a file; the document and its field in a cluster.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.line) {
            (Some(path), Some(line)) => write!(f, "{}:{line}", path.display()),
            _ => write!(f, "{} {}", self.document, plain(&self.field)),
        }
    }
}

/// Where each rule is written, by its name.
#[derive(Debug)]
pub struct RuleLocations<'a> {
    by_name: BTreeMap<String, WrittenRule<'a>>,
}

#[derive(Debug)]
struct WrittenRule<'a> {
    place: Place<'a>,
    /// Its matches.
    matches: Vec<WrittenMatch<'a>>,
}

#[derive(Debug)]
struct WrittenMatch<'a> {
    /// The service's port that it is for; `None` = any.
    port: Option<u16>,
    /// What it asks.
    asks: Match,
    place: Place<'a>,
}

/// A field of a document.
#[derive(Debug)]
struct Place<'a> {
    document: &'a DocumentName,
    location: &'a Location,
    field: String,
}

impl<'a> RuleLocations<'a> {
    /// Of all rules for sidecars that `resources` can become.
    pub fn new(resources: &'a Resources) -> Self {
        Self::all(resources, true)
    }

    /// Of all rules for gateways that `resources` can become.
    pub fn at_gateways(resources: &'a Resources) -> Self {
        let mut locations = Self::all(resources, false);
        resources.ingresses.iter().for_each(|ingress| locations.add_ingress(ingress));
        for gateway in &resources.istio_gateways {
            for server in gateway.spec.servers.iter().filter(|server| server.https_redirect) {
                let field = format!("spec.servers[{}].tls.httpsRedirect", server.index);
                locations.add(redirect_name(gateway, server), place(gateway, field), Vec::new());
            }
        }
        locations
    }

    fn all(resources: &'a Resources, for_sidecars: bool) -> Self {
        let mut locations = Self { by_name: BTreeMap::new() };
        locations.add_virtual_services(resources, for_sidecars);
        for route in &resources.http_routes {
            for rule in &route.spec.rules {
                let field = format!("spec.rules[{}]", rule.index);
                let written = |(index, asks): (usize, &Match)| WrittenMatch {
                    port: None,
                    asks: asks.clone(),
                    place: place(route, format!("{field}.matches[{index}]")),
                };
                let matches = rule.matches.iter().enumerate().map(written).collect();
                locations.add(http::rule_name(route, rule), place(route, field.clone()), matches);
            }
        }
        for route in &resources.tcp_routes {
            locations.add(route.name.to_string(), place(route, "spec.rules[0]".to_owned()), Vec::new());
        }
        locations
    }

    fn add_virtual_services(&mut self, resources: &'a Resources, for_sidecars: bool) {
        // What is wrong with them is reported where they are compiled.
        let (mut delegates, mut problems) = (Delegates::new(resources), Problems::default());
        for document in &resources.virtual_services {
            for route in delegates.routes(document, &mut problems) {
                let route = match for_sidecars {
                    true => claims::for_sidecars(document, route, &mut problems),
                    false => route,
                };
                let Effective { document, name, asked_by, route, .. } = route;
                let (asking, at) = asked_by;
                let counts = |one: &&PortMatch<_>| {
                    let followed = one.followed_by.as_ref();
                    !for_sidecars || followed.is_none_or(|by| by.includes(Follower::Sidecar))
                };
                let matches = route.matches.iter().flatten().filter(counts);
                let matches = matches.map(|one| WrittenMatch {
                    port: one.port,
                    asks: one.condition.clone(),
                    place: place(asking, format!("spec.http[{at}].match[{}]", one.index)),
                });
                let matches = matches.collect();
                self.add(name, place(document, format!("spec.http[{}]", route.index)), matches);
            }
            for route in &document.spec.tcp {
                self.add(tcp::rule_name(document, route), place(document, route.field()), Vec::new());
            }
        }
    }

    fn add_ingress(&mut self, ingress: &'a Document<IngressSpec>) {
        let mut add = |called: &str, field: String| {
            self.add(ingress_rule_name(ingress, called), place(ingress, field), Vec::new());
        };
        for (index, rule) in ingress.spec.rules.iter().enumerate() {
            for (at, path) in rule.paths.iter().enumerate() {
                let called = path_name(index, at);
                add(&called, path.field.clone());
                for canary in CANARY_RULES {
                    add(&format!("{called} {canary}"), path.field.clone());
                }
            }
        }
        for tls in &ingress.spec.tls {
            add(tls.field.trim_start_matches("spec."), tls.field.clone());
        }
        add(DEFAULT_BACKEND, "spec.defaultBackend".to_owned());
        add(APP_ROOT, annotation(APP_ROOT));
        add(SSL_PASSTHROUGH, annotation(SSL_PASSTHROUGH));
    }

    fn add(&mut self, name: String, place: Place<'a>, matches: Vec<WrittenMatch<'a>>) {
        self.by_name.entry(name).or_insert(WrittenRule { place, matches });
    }

    /// Where the rule called `name` is written; `None`: no document has written it.
    pub fn rule(&self, name: &str) -> Option<Written> {
        Some(self.by_name.get(name)?.place.written())
    }

    /// Where the match at `index` of the rule called `name` is written, as the rule is for a service's `port`; `None`: no
    /// document has written it.
    pub fn matched(&self, name: &str, port: u16, index: usize) -> Option<Written> {
        let matches = self.by_name.get(name)?.matches.iter();
        let mut here = matches.filter(|one| one.port.is_none_or(|only| only == port));
        here.nth(index).map(|one| one.place.written())
    }

    /// Where the first match of the rule called `name` is written that asks what `asks` does, whoever the client is: a
    /// gateway brings those of a `VirtualService` into an order of its own. `None`: no document has written it.
    pub fn matched_as(&self, name: &str, asks: &Match) -> Option<Written> {
        let same =
            |one: &&WrittenMatch<'_>| Match { client: asks.client.clone(), ..one.asks.clone() } == *asks;
        self.by_name.get(name)?.matches.iter().find(same).map(|one| one.place.written())
    }
}

impl Place<'_> {
    fn written(&self) -> Written {
        Written {
            document: self.document.clone(),
            path: self.location.path.clone(),
            line: self.location.line_of(&self.field),
            field: self.field.clone(),
        }
    }
}

fn place<T>(document: &Document<T>, field: String) -> Place<'_> {
    Place { document: &document.name, location: &document.location, field }
}
