//! Who may call whom by the documents, and who was refused.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use selvedge_model::traffic::{Carried, Way};

use super::Asked;
use crate::{
    authz::matrix::Outcome,
    dashboard::{
        facts::Facts,
        html::{count, length, table},
        told::May,
    },
};

/// The most accounts of which the whole matrix is shown.
const MOST_IN_MATRIX: usize = 40;
/// A client that has proven nothing.
const PLAIN: &str = "somebody in plaintext";
/// The most rows of a table.
const MOST_ROWS: usize = 300;
/// Of one rule, the most calls that clients' own sidecars refuse: those that were refused last.
const MOST_OF_RULE: usize = 20;
/// Reasons of a proxy's that say that a policy or a limit refuses.
const REFUSALS: [&str; 4] = ["policy", "token", "credentials", "rate-limit"];

pub(in crate::dashboard) fn content(asked: &Asked, facts: &Facts) -> Markup {
    let Some(matrix) = &facts.matrix else {
        return html! {
            (refused(facts, None))
            p.note { "There are too many pairs of workloads to show who may call whom: " code { "selvedge authz matrix --to NAMESPACE/NAME" } " says it of some." }
        };
    };
    let namespaces: BTreeSet<&str> = matrix
        .iter()
        .filter_map(|one| one.server_account.split_once('/').map(|(namespace, _)| namespace))
        .collect();
    let is_meant = |one: &&May| {
        asked
            .namespace
            .as_deref()
            .is_none_or(|namespace| one.server_account.split('/').next() == Some(namespace))
    };
    let meant: Vec<&May> = matrix.iter().filter(is_meant).collect();
    html! {
        (refused(facts, Some(matrix.as_slice())))
        (forbidden_calls(facts))
        section aria-labelledby="may" {
            h2 #may { "Who may call whom " span.of { "by the documents, before anybody does" } }
            (chooser(asked, &namespaces))
            @if meant.is_empty() { p.empty { "There are no two workloads of which one has a sidecar and one has a port to call." } }
            @else { (squares(&meant)) (servers(&meant)) }
        }
    }
}

fn chooser(asked: &Asked, namespaces: &BTreeSet<&str>) -> Markup {
    let window =
        super::WINDOWS.iter().find(|(seconds, ..)| *seconds == asked.since).map_or("1m", |(_, word, _)| word);
    html! {
        @if namespaces.len() > 1 {
            form.chooser method="get" action="/dashboard/policies" {
                input type="hidden" name="since" value=(window);
                label { "Servers of " select name="ns" {
                    option value="" { "all namespaces" }
                    @for one in namespaces { option value=(one) selected[asked.namespace.as_deref() == Some(*one)] { (one) } }
                } }
                button type="submit" { "Show" }
            }
        }
    }
}

/// Who was refused in this time, how often, and the rule that refuses it by the documents.
fn refused(facts: &Facts, matrix: Option<&[May]>) -> Markup {
    let mut refused = BTreeMap::<(String, String, u16, String), u64>::new();
    for (server, workload) in &facts.traffic.workloads {
        for one in workload.edges.iter().filter(|one| one.edge.way == Way::Inbound) {
            if one.edge.carried == Carried::WebSocket {
                continue;
            }
            for end in &one.counts.outcomes {
                let Some(reason) = end.outcome.reason.as_deref().filter(|reason| is_refusal(reason)) else {
                    continue;
                };
                let client = match &one.edge.client {
                    Some(client) => format!("{}/{}", client.namespace(), client.service_account()),
                    None => PLAIN.to_owned(),
                };
                let sum = refused
                    .entry((server.to_string(), client, one.edge.port, reason.to_owned()))
                    .or_default();
                *sum = sum.saturating_add(end.count);
            }
        }
    }
    let matrix = matrix.map(by_ends);
    let mut refused: Vec<_> = refused.into_iter().collect();
    refused.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let all = refused.iter().fold(0_u64, |sum, (_, number)| sum.saturating_add(*number));
    let head = [
        ("Client", false),
        ("Server", false),
        ("Refused", true),
        ("Reason", false),
        ("By the documents", false),
    ];
    let rows = html! {
        @for ((server, client, port, reason), number) in refused.iter().take(MOST_ROWS) {
            tr.warn {
                th scope="row" { (client) }
                td { (server) ":" (port) }
                td.num { (count(*number)) }
                td { code { (reason) } }
                td.text { @if client == PLAIN { span.rest { "it has shown no certificate of the mesh" } } @else { (rules(matrix.as_ref(), server, client, *port)) } }
            }
        }
    };
    html! {
        section aria-labelledby="refused" {
            h2 #refused { "Refused " span.of { "in this time, as servers' sidecars tell it" } }
            @if refused.is_empty() { p.empty { "Nobody was refused." } } @else {
                p { b { (count(all)) } " requests and connections were refused." }
                (table("Who was refused, and why", &head, &rows))
                @if refused.len() > MOST_ROWS { p.note { "and " (refused.len() - MOST_ROWS) " more rows, of those that are refused less often" } }
            }
        }
    }
}

fn is_refusal(reason: &str) -> bool {
    REFUSALS.contains(&reason)
}

/// The pairs by their server's workload and port, and their client's account.
type ByEnds<'a> = BTreeMap<(&'a str, u16, &'a str), Vec<&'a May>>;

fn by_ends(matrix: &[May]) -> ByEnds<'_> {
    let mut found = ByEnds::new();
    for one in matrix {
        found.entry((&one.pair.to, one.pair.port, &one.client_account)).or_default().push(one);
    }
    found
}

/// What the documents say of such calls. Without the matrix that is not known.
fn rules(matrix: Option<&ByEnds<'_>>, server: &str, client: &str, port: u16) -> Markup {
    let Some(matrix) = matrix else { return html! { "–" } };
    let those = matrix.get(&(server, port, client)).into_iter().flatten();
    let rules: BTreeSet<(Outcome, String)> = those.map(|one| (one.cell.outcome(), one.cell.by())).collect();
    html! {
        @if rules.is_empty() { span.rest { "no workload that is declared now" } }
        @for (place, (outcome, by)) in rules.iter().take(3).enumerate() { @if place > 0 { "; " } (mark(*outcome)) " " (by) }
    }
}

/// Whom workloads were to call and their own sidecars have refused to, in the last hour, by rule.
fn forbidden_calls(facts: &Facts) -> Markup {
    let mut by_rule = BTreeMap::<&str, Vec<(String, String, u64)>>::new();
    for (name, seen) in &facts.seen.workloads {
        for one in &seen.refused_calls {
            by_rule.entry(&one.policy).or_default().push((
                name.to_string(),
                one.target.to_string(),
                one.seconds_ago,
            ));
        }
    }
    for calls in by_rule.values_mut() {
        calls.sort_by_key(|(.., ago)| *ago);
    }
    let shown = || {
        by_rule.iter().take(MOST_ROWS).map(|(rule, calls)| (rule, &calls[..calls.len().min(MOST_OF_RULE)]))
    };
    let all: usize = by_rule.values().map(Vec::len).sum();
    let left_out = all - shown().map(|(_, calls)| calls.len()).sum::<usize>();
    let head = [("Rule", false), ("Client", false), ("Was to be called", false), ("Last", true)];
    let rows = html! {
        @for (rule, calls) in shown() {
            @for (client, target, ago) in calls {
                tr.warn { th scope="row" { (rule) } td { (client) } td { code { (target) } } td.num { (length(std::time::Duration::from_secs(*ago))) " ago" } }
            }
        }
    };
    html! {
        @if !by_rule.is_empty() {
            section aria-labelledby="forbidden" {
                h2 #forbidden { "Calls that clients' own sidecars refuse " span.of { "in the last hour" } }
                (table("Calls that network policies do not let out", &head, &rows))
                @if left_out > 0 { p.note { "and " (left_out) " more: of each rule those that were refused last are shown" } }
            }
        }
    }
}

fn mark(outcome: Outcome) -> Markup {
    let (class, sign) = match outcome {
        Outcome::Allowed => ("good", "✓"),
        Outcome::Denied => ("bad", "✕"),
        Outcome::DependsOnTheRequest => ("warn", "?"),
    };
    html! { span class={"mark " (class)} title=(outcome.word()) { span aria-hidden="true" { (sign) } span.hide { (outcome.word()) } } }
}

/// What becomes of the calls of all pairs together.
#[derive(Debug, Default, Clone)]
struct Together {
    outcomes: BTreeSet<Outcome>,
    mutual_tls: BTreeSet<bool>,
    rules: BTreeSet<String>,
}

/// Clients and servers by what they run as, as squares: at a glance, who may call whom.
fn squares(matrix: &[&May]) -> Markup {
    let mut cells = BTreeMap::<(&str, &str), Together>::new();
    for one in matrix {
        let cell = cells.entry((&one.client_account, &one.server_account)).or_default();
        cell.outcomes.insert(one.cell.outcome());
        cell.mutual_tls.insert(one.cell.mutual_tls);
        cell.rules.insert(one.cell.by());
    }
    let clients: BTreeSet<&str> = cells.keys().map(|(client, _)| *client).collect();
    let servers: BTreeSet<&str> = cells.keys().map(|(_, server)| *server).collect();
    if clients.len() > MOST_IN_MATRIX || servers.len() > MOST_IN_MATRIX {
        return html! { p.note { (clients.len()) " clients and " (servers.len()) " servers are too many for one matrix: choose a namespace, or read the list." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="The matrix" {
            table.matrix {
                caption { "Clients (rows) and servers (columns), by what they run as: " (mark(Outcome::Allowed)) " allowed, " (mark(Outcome::Denied)) " denied, " (mark(Outcome::DependsOnTheRequest)) " the request decides, or the port" }
                thead { tr { td {} @for server in &servers { th scope="col" { span { (server) } } } } }
                tbody {
                    @for client in &clients {
                        tr {
                            th scope="row" { (client) }
                            @for server in &servers {
                                @match cells.get(&(*client, *server)) {
                                    None => td.none { span aria-hidden="true" { "·" } },
                                    Some(cell) => td title=(words(client, server, cell)) { (mark(all(cell))) },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn all(cell: &Together) -> Outcome {
    let mut outcomes = cell.outcomes.iter();
    match (outcomes.next(), outcomes.next()) {
        (Some(one), None) => *one,
        _ => Outcome::DependsOnTheRequest,
    }
}

fn words(client: &str, server: &str, cell: &Together) -> String {
    let rules: Vec<&str> = cell.rules.iter().take(4).map(String::as_str).collect();
    let tls = match (cell.mutual_tls.contains(&true), cell.mutual_tls.contains(&false)) {
        (true, false) => "mutual TLS",
        (false, true) => "plaintext",
        _ => "mutual TLS and plaintext",
    };
    format!("{client} → {server}: {}, {tls}; {}", all(cell).word(), rules.join("; "))
}

/// For each server's port, by outcome and rule, who comes under it.
fn servers(matrix: &[&May]) -> Markup {
    type Clients<'a> = BTreeSet<&'a str>;
    let mut by_server = BTreeMap::<(&str, u16), BTreeMap<(Outcome, String), Clients<'_>>>::new();
    for one in matrix {
        let server = by_server.entry((&one.server_account, one.pair.port)).or_default();
        server.entry((one.cell.outcome(), one.cell.by())).or_default().insert(&one.client_account);
    }
    let head = [("Server", false), ("Verdict", false), ("By", false), ("Clients", false)];
    let rows = html! {
        @for ((server, port), rules) in by_server.iter().take(MOST_ROWS) {
            @for (place, ((outcome, by), clients)) in rules.iter().enumerate() {
                tr.more[place > 0] {
                    th scope="row" { @if place > 0 { span.hide { (server) ":" (port) } } @else { (server) span.rest { ":" (port) } } }
                    td { (mark(*outcome)) " " (outcome.word()) }
                    td.text { (by) }
                    td.text { (some(clients)) }
                }
            }
        }
    };
    html! {
        (table("Each server's port, the rules that decide there, and whose calls each decides", &head, &rows))
        @if by_server.len() > MOST_ROWS { p.note { "and " (by_server.len() - MOST_ROWS) " more: choose a namespace" } }
    }
}

fn some(clients: &BTreeSet<&str>) -> String {
    const MOST: usize = 8;
    let mut words = clients.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if clients.len() > MOST {
        words += &format!(" and {} more", clients.len() - MOST);
    }
    words
}
