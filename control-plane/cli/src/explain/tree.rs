//! An explanation as a short tree.

use std::fmt::Write as _;

use selvedge_control_plane::compile::Written;
use selvedge_ops::plain;

use super::explanation::{
    BackendView, EndpointView, Explanation, FilterStep, MissedMatch, RequestView, RuleView, Sender,
};

/// The most matches that are shown of those that miss.
const MOST_MISSED: usize = 20;

/// All of `explanation`.
pub(super) fn text(explanation: &Explanation) -> String {
    let RequestView { method, scheme, authority, path, .. } = &explanation.request;
    told(explanation, &format!("{method} {scheme}://{authority}{path}"))
}

/// The same of a connection to a gateway.
pub(super) fn of_connection(explanation: &Explanation) -> String {
    told(explanation, &format!("connection to {}", explanation.request.authority))
}

/// All of `explanation`, which is of `what`.
fn told(explanation: &Explanation, what: &str) -> String {
    let mut tree = Tree::default();
    tree.line(0, what);
    tree.sender(&explanation.from);
    if let Some(gateway) = &explanation.gateway {
        gateway.tell(&mut tree);
    }
    if let Some(name) = &explanation.name {
        tree.line(0, &format!("name: {name}"));
    }
    if let Some(rule) = &explanation.rule {
        tree.rule(rule);
    }
    tree.missed(&explanation.missed);
    tree.filters(0, "filters, in order", &explanation.filters);
    if !explanation.limits.is_empty() {
        tree.line(0, "limits");
        explanation.limits.iter().for_each(|limit| tree.line(1, limit));
    }
    if !explanation.backends.is_empty() {
        tree.line(0, "backends");
        explanation.backends.iter().for_each(|backend| tree.backend(backend));
    }
    tree.errors(explanation.errors);
    let outcome = match (&explanation.refused, &explanation.answer) {
        (Some(refusal), _) => format!("the gateway refuses the connection: {}", refusal.words()),
        (None, Some(answer)) => format!("the mesh answers {}", answer.words()),
        (None, None) if explanation.depends_on_the_request => {
            "it carries requests, and each of them is asked for; selvedge explain request says what becomes of one"
                .to_owned()
        }
        (None, None) => format!("it is sent{}", except(&explanation.backends)),
    };
    tree.line(0, &format!("outcome: {outcome}"));
    tree.0
}

/// Which share of such requests is not sent all the same.
fn except(backends: &[BackendView]) -> String {
    let refusing = backends.iter().filter(|backend| backend.answer.is_some() && backend.drawn.is_none());
    let names: Vec<&str> = refusing.map(|backend| &*backend.name).collect();
    if names.is_empty() { String::new() } else { format!(", but for the share of {}", names.join(" and ")) }
}

#[derive(Default)]
pub(super) struct Tree(pub(super) String);

impl Tree {
    /// Documents and requests are others' words, and this comes to a terminal.
    pub(super) fn line(&mut self, depth: usize, words: &str) {
        let words = plain(words);
        writeln!(self.0, "{:width$}{words}", "", width = depth * 2).expect("writing to a String cannot fail");
    }

    /// Who sends or connects.
    pub(super) fn sender(&mut self, from: &Sender) {
        let identity = from.identity.as_deref().unwrap_or("no identity");
        self.line(1, &format!("from {} ({identity})", from.name));
        if let Some(remark) = &from.remark {
            self.line(2, remark);
        }
    }

    /// How many errors there are in the documents, if there are any.
    pub(super) fn errors(&mut self, count: usize) {
        if count > 0 {
            let errors = if count == 1 { "1 error" } else { &format!("{count} errors") };
            self.line(
                0,
                &format!("note: the documents have {errors}; selvedge check names what has no effect"),
            );
        }
    }

    fn rule(&mut self, rule: &RuleView) {
        self.line(0, &format!("rule: {}{}", rule.name, place(rule.written.as_ref())));
        match (&rule.matched, rule.remark) {
            (_, Some(remark)) => self.line(1, remark),
            (Some(matched), None) => {
                self.line(1, &format!("by match[{}]{}", matched.index, place(matched.written.as_ref())));
            }
            (None, None) => self.line(1, "it is for every request"),
        }
    }

    fn missed(&mut self, missed: &[MissedMatch]) {
        if missed.is_empty() {
            return;
        }
        self.line(0, "tried before, and missed");
        let line = |one: &MissedMatch| format!("{}{}: {}", one.rule, place(one.written.as_ref()), one.why);
        let mut lines: Vec<String> = missed.iter().map(line).collect();
        // A path that TLS is asked for stands there twice: with the redirect to it, and for what came over it.
        lines.dedup();
        for one in lines.iter().take(MOST_MISSED) {
            self.line(1, one);
        }
        if lines.len() > MOST_MISSED {
            self.line(1, &format!("and {} more; --output json has all", lines.len() - MOST_MISSED));
        }
    }

    fn filters(&mut self, depth: usize, title: &str, steps: &[FilterStep]) {
        if steps.is_empty() {
            return;
        }
        self.line(depth, title);
        for step in steps {
            self.line(depth + 1, &format!("{}: {}", step.filter, step.does));
            if let Some(request) = &step.request {
                self.line(depth + 2, &format!("now {}", one_line(request)));
            }
        }
    }

    fn backend(&mut self, backend: &BackendView) {
        let drawn = match backend.drawn {
            Some(true) => ", drawn",
            Some(false) => ", not drawn",
            None => "",
        };
        self.line(1, &format!("{} % {}{drawn}", backend.percent, backend.name));
        if let Some(answer) = &backend.answer {
            self.line(2, &format!("answered {}", answer.words()));
        }
        self.filters(2, "filters of its own", &backend.filters);
        backend.policy.iter().for_each(|limit| self.line(2, limit));
        backend.endpoints.iter().for_each(|endpoint| self.endpoint(endpoint));
    }

    fn endpoint(&mut self, endpoint: &EndpointView) {
        let workload = endpoint.workload.as_ref().map(|workload| format!(" ({workload})"));
        let priority = endpoint.priority.map(|priority| format!(", group {priority}")).unwrap_or_default();
        let place = endpoint.locality.as_ref().map(|place| format!(" in {place}")).unwrap_or_default();
        self.line(
            2,
            &format!("endpoint {}{}{place}{priority}", endpoint.address, workload.unwrap_or_default()),
        );
        self.line(3, &endpoint.how);
        match (&endpoint.verdict, &endpoint.refused) {
            (Some(verdict), _) => self.line(3, verdict),
            (None, Some(refused)) => self.line(3, &refused.why),
            (None, None) => {}
        }
    }
}

fn place(written: Option<&Written>) -> String {
    written.map(|written| format!(" ({written})")).unwrap_or_default()
}

fn one_line(request: &RequestView) -> String {
    let headers: String = request.headers.iter().map(|(name, value)| format!("; {name}: {value}")).collect();
    let RequestView { method, scheme, authority, path, .. } = request;
    format!("{method} {scheme}://{authority}{path}{headers}")
}
