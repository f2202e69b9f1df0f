//! Where the rules of the mesh are written: from a rule back to its document, and the line there.
//!
//! Rules carry only their names, which is all that proxies need. Whoever asks for lines goes through the documents again,
//! so that a running control plane keeps nothing for it.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use selvedge_ops::plain;
use serde::Serialize;

use super::{
    super::Problems,
    delegates::{Delegates, Effective},
    http, tcp,
};
use crate::{
    problem::DocumentName,
    resources::{Document, Location, Resources},
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
    /// Its matches, each with the service's port that it is for; `None` = any.
    matches: Vec<(Option<u16>, Place<'a>)>,
}

/// A field of a document.
#[derive(Debug)]
struct Place<'a> {
    document: &'a DocumentName,
    location: &'a Location,
    field: String,
}

impl<'a> RuleLocations<'a> {
    /// Of all rules that `resources` can become.
    pub fn new(resources: &'a Resources) -> Self {
        let mut locations = Self { by_name: BTreeMap::new() };
        locations.add_virtual_services(resources);
        for route in &resources.http_routes {
            for rule in &route.spec.rules {
                let field = format!("spec.rules[{}]", rule.index);
                let matches = (0..rule.matches.len()).map(|place| format!("{field}.matches[{place}]"));
                let matches = matches.map(|field| (None, place(route, field))).collect();
                locations.add(http::rule_name(route, rule), place(route, field), matches);
            }
        }
        for route in &resources.tcp_routes {
            locations.add(route.name.to_string(), place(route, "spec.rules[0]".to_owned()), Vec::new());
        }
        locations
    }

    fn add_virtual_services(&mut self, resources: &'a Resources) {
        // What is wrong with them is reported where they are compiled.
        let (mut delegates, mut problems) = (Delegates::new(resources), Problems::default());
        for document in &resources.virtual_services {
            for Effective { document, name, asked_by, route, .. } in delegates.routes(document, &mut problems)
            {
                let (asking, at) = asked_by;
                let matches = route.matches.iter().flatten();
                let matches = matches
                    .map(|one| (one.port, place(asking, format!("spec.http[{at}].match[{}]", one.index))));
                let matches = matches.collect();
                self.add(name, place(document, format!("spec.http[{}]", route.index)), matches);
            }
            for route in &document.spec.tcp {
                self.add(tcp::rule_name(document, route), place(document, route.field()), Vec::new());
            }
        }
    }

    fn add(&mut self, name: String, place: Place<'a>, matches: Vec<(Option<u16>, Place<'a>)>) {
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
        let mut here = matches.filter(|(only, _)| only.is_none_or(|only| only == port));
        here.nth(index).map(|(_, place)| place.written())
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
