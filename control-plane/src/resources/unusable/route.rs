//! A route of a `Server` that cannot be used. Left out, it would let in requests that only it tells apart: a server without
//! routes lets in every request of those who may call. As a route without rules it refuses what no other route matches.

use std::sync::Arc;

use super::{
    StandIn, Unusable,
    strict::{Whom, strict},
};
use crate::{
    problem::DocumentName,
    resources::{
        Document, HttpRouteSpec, Location, Metadata, Resource,
        node::{Node, Value},
        references::{HttpParents, ServerParent},
    },
};

/// The kind of the parents that policies are for.
const SERVER: &str = "Server";

/// The stand-in of a route that is understood and not in use; `None` if leaving it out opens nothing.
pub fn of_route(resource: &Resource) -> Option<StandIn> {
    match resource {
        Resource::HttpRoute(route) => {
            of_servers(&route.name, &route.location, route.spec.parents.servers.clone())
        }
        _ => None,
    }
}

fn of_servers(name: &DocumentName, location: &Location, servers: Vec<ServerParent>) -> Option<StandIn> {
    let [first, others @ ..] = servers.as_slice() else { return None };
    let names = others.iter().fold(first.name.to_string(), |names, other| format!("{names}, {}", other.name));
    let parents = HttpParents { servers, ..HttpParents::default() };
    let spec = HttpRouteSpec { is_grpc: false, parents, hostnames: Vec::new(), rules: Vec::new() };
    let route = Document::standing_in(name.clone(), Metadata::default(), location.clone(), spec);
    Some(StandIn {
        resource: Resource::HttpRoute(Arc::new(route)),
        words: format!(
            "until it is repaired, Server {names} refuses every request that no other of its routes matches"
        ),
    })
}

impl Unusable<'_> {
    /// Of a route. If it cannot be read whose it is and it says `Server`, nothing is let in.
    pub(super) fn route(&self, left: Option<&Resource>) -> Option<StandIn> {
        if let Some(left) = left.filter(|_| !self.has_lost("spec.parentRefs")) {
            return of_route(left);
        }
        names_server(self.node).then(|| {
            let kind = super::AUTHORIZATION.into();
            strict(DocumentName { kind, ..self.name.clone() }, self.location, Whom::Anybody)
        })
    }
}

/// Whether the text `Server` stands anywhere in `node`, as the kind of a parent would.
fn names_server(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => entries.iter().any(|entry| names_server(&entry.node)),
        Value::List(items) => items.iter().any(names_server),
        Value::Text(text) => text.trim().eq_ignore_ascii_case(SERVER),
        _ => false,
    }
}
