//! Who may come in by Linkerd's words: each port is a server with policies and maybe routes of its own.
//!
//! As in Linkerd, a port that a `Server` selects lets in only what one of its policies allows. If it has routes, a request
//! that none of them matches is answered 404, and some policies are for requests of certain routes only.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    Authorization, By, Note, Verdict,
    condition::Stage,
    path::{loosen, loosen_beginning},
    reading::Readings,
};
use crate::{RouteTable, Rule, StringMatch, facts, route::Match};

/// The most rules that the routes of one server may have together.
pub const MOST_ROUTES: usize = 1_000;

/// What all servers of one workload say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Servers {
    authorization: Authorization,
    /// By the workload's own port: the routes of those servers that have any.
    routes: BTreeMap<u16, ServerRoutes>,
}

/// The routes of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerRoutes {
    name: Arc<str>,
    table: RouteTable,
    /// The same for [loose](loosen) paths.
    #[serde(skip)]
    loose: RouteTable,
}

/// The routes of a request, by their places among the rules of the table, in each way to read the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routed {
    itself: usize,
    others: [Option<usize>; 2],
}

impl Routed {
    /// Whether all of them are among those that `is_one` says.
    pub(super) fn all(self, is_one: impl Fn(usize) -> bool) -> bool {
        std::iter::once(self.itself).chain(self.others.into_iter().flatten()).all(is_one)
    }

    /// Whether any of them is.
    pub(super) fn any(self, is_one: impl Fn(usize) -> bool) -> bool {
        std::iter::once(self.itself).chain(self.others.into_iter().flatten()).any(is_one)
    }
}

impl ServerRoutes {
    /// The routes `table` of the server called `name`.
    pub fn new(name: Arc<str>, table: RouteTable) -> Self {
        let loose = table.rules().iter().map(|rule| {
            let mut rule = Rule::clone(rule);
            rule.matches.iter_mut().for_each(loosen_path);
            rule
        });
        let loose = RouteTable::new(table.order(), loose.collect());
        Self { name, table, loose }
    }

    /// The server's document.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its routes.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// The routes of a request; `None`: no route matches it.
    fn find(&self, readings: &Readings<'_>) -> Option<Routed> {
        let request = readings.request;
        let itself = self.table.find(request)?.rule;
        let loose = readings.loose_path();
        let at = |table: &RouteTable, path: &str| {
            table.find(&facts::Request { path, ..*request }).map(|found| found.rule)
        };
        let elsewhere = loose.elsewhere.as_deref().and_then(|path| at(&self.table, path));
        Some(Routed { itself, others: [at(&self.loose, &loose.path), elsewhere] })
    }
}

/// Asks for the [loose](loosen) path instead of the path. A regular expression stays as it is.
fn loosen_path(asked: &mut Match) {
    match &mut asked.path {
        Some(StringMatch::Exact(path) | StringMatch::PathPrefix(path)) => {
            *path = loosen(path).path.into_owned();
        }
        Some(StringMatch::Prefix(path)) => *path = loosen_beginning(path),
        Some(StringMatch::Regex(_) | StringMatch::Present) | None => {}
    }
}

impl Servers {
    /// Servers with these policies, and the routes of their ports.
    pub fn new(authorization: Authorization, routes: BTreeMap<u16, ServerRoutes>) -> Self {
        Self { authorization, routes }
    }

    /// Their policies.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The routes of each port that has any.
    pub fn routes(&self) -> &BTreeMap<u16, ServerRoutes> {
        &self.routes
    }

    /// The verdict; `None`: they say nothing of this port. An error is the document that only a request answers.
    pub(super) fn verdict(&self, stage: Stage<'_>) -> Result<Option<Verdict<'_>>, &Arc<str>> {
        let Some(routes) = self.routes.get(&stage.connection().port) else {
            return self.decided(stage);
        };
        match stage {
            Stage::Opaque(_) => self.decided(stage),
            Stage::Connection(_) => match self.decided(stage)? {
                refused @ Some(Verdict::Deny { .. }) => Ok(refused),
                _ => Err(&routes.name),
            },
            Stage::Request(readings) => match routes.find(readings) {
                Some(routed) => self.decided(Stage::Request(&readings.routed(routed))),
                None => Ok(Some(Verdict::Deny {
                    rule: &routes.name,
                    why: "it has routes, and none of them matches the request",
                    by: By::Route,
                })),
            },
        }
    }

    /// Calls `note` with what is to be counted and logged.
    pub(super) fn notes<'p>(&'p self, stage: Stage<'_>, note: &mut dyn FnMut(Note<'p>)) {
        if !self.authorization.has_notes() {
            return;
        }
        let routes = self.routes.get(&stage.connection().port);
        match (stage, routes) {
            (Stage::Request(readings), Some(routes)) => {
                if let Some(routed) = routes.find(readings) {
                    self.authorization.notes(Stage::Request(&readings.routed(routed)), note);
                }
            }
            _ => self.authorization.notes(stage, note),
        }
    }

    fn decided(&self, stage: Stage<'_>) -> Result<Option<Verdict<'_>>, &Arc<str>> {
        self.authorization.decide(stage).verdict()
    }
}

#[cfg(test)]
mod tests;
