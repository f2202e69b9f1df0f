//! Every proxy: what it runs, which configuration it has and since when, and how much memory it takes.

use maud::{Markup, html};
use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{AbsentShown, Proxy};

use crate::{
    dashboard::{
        facts::{Facts, Replica},
        html::{Health, ago, identity, length, table},
    },
    seeing::numbers::bytes,
    status::{Row, State, rows},
};

/// The most proxies in the table: first those that need attention.
const MOST_ROWS: usize = 500;

fn health(state: State) -> Health {
    match state {
        State::Refused => Health::Failing,
        State::Behind => Health::Strained,
        State::UpToDate => Health::Well,
    }
}

pub(in crate::dashboard) fn content(facts: &Facts) -> Markup {
    let mut all: Vec<(&Replica, &Proxy, Row)> = Vec::new();
    for replica in &facts.replicas {
        let rows = rows(&replica.config, &replica.name);
        all.extend(replica.config.proxies.iter().zip(rows).map(|(proxy, row)| (replica, proxy, row)));
    }
    all.sort_by(|a, b| (a.2.state, &a.1.workload).cmp(&(b.2.state, &b.1.workload)));
    let of = |state| all.iter().filter(|(.., row)| row.state == state).count();
    let (missing, awaited) = (facts.absent(), facts.awaited());
    let left = facts.services.starting.map_or(0, |starting| starting.seconds_left);
    let memory: u64 = all.iter().filter_map(|(_, proxy, _)| proxy.memory_bytes).fold(0, u64::saturating_add);
    html! {
        section aria-labelledby="sum" {
            h2 #sum { "The newest configuration" }
            dl.tiles {
                div { dt { "Up to date" } dd { (of(State::UpToDate)) span.unit { " of " (all.len()) } } dd.more {
                    @if of(State::UpToDate) == all.len() { "all that are connected" } @else { (of(State::Behind)) " behind" } } }
                div { dt { "Refused" } dd { span.{ "rate " (if of(State::Refused) > 0 { "bad" } else { "good" }) } { (of(State::Refused)) } } dd.more { "keep what they had before" } }
                div { dt { "Not connected" } dd { (missing.len()) } dd.more {
                    @if !awaited.is_empty() { (awaited.len()) " more may be coming back" } @else if facts.is_partial { "to this replica" } @else { "and should be" } } }
                div { dt { "Memory" } dd { (bytes(memory)) } dd.more { "of all proxies together" } }
            }
        }
        (replicas(facts))
        @if !awaited.is_empty() {
            section aria-labelledby="awaited" {
                h2 #awaited { "Awaited" }
                p.note {
                    "The control plane has just started. " (awaited.len()) @if awaited.len() == 1 { " proxy" } @else { " proxies" }
                    " may still be coming back, for " (left) " s at most."
                }
            }
        }
        @if !missing.is_empty() {
            section aria-labelledby="missing" {
                h2 #missing { "Not connected" @if facts.is_partial { " to this replica" } }
                ul.flat { @for one in missing.iter().take(MOST_ROWS) { li { (Health::Failing.mark()) " " (one.workload.to_string()) (since(one)) } } }
                @if missing.len() > MOST_ROWS { p.note { "and " (missing.len() - MOST_ROWS) " more" } }
                p.note { "Look at the log of such a sidecar, and what its admin port says at " code { "/ready" } "." }
            }
        }
        section aria-labelledby="proxies" {
            h2 #proxies { "Connected" }
            @if all.is_empty() { p.empty { "No proxy is connected." } } @else { (proxies(facts, &all)) }
        }
    }
}

/// Since when a workload's proxy is not connected, where that is known.
fn since(absent: &AbsentShown) -> Markup {
    html! { @if let Some(since) = absent.since { span.rest { " since " (Utc(since).to_string()) } } }
}

fn replicas(facts: &Facts) -> Markup {
    let head =
        [("Replica", false), ("Runs", false), ("Configuration", true), ("Proxies", true), ("Memory", true)];
    let rows = html! {
        @for replica in &facts.replicas {
            tr {
                th scope="row" { (replica.name) }
                td { (replica.version) }
                td.num { @match replica.config.configuration_version { Some(version) => { (version) }, None => "none yet" } }
                td.num { (replica.config.proxies.len()) }
                td.num { @match replica.memory_bytes { Some(memory) => { (bytes(memory)) }, None => "–" } }
            }
        }
    };
    html! { section aria-labelledby="replicas" { h2 #replicas { "Control plane" } (table("Replicas of the control plane", &head, &rows)) } }
}

fn proxies(facts: &Facts, all: &[(&Replica, &Proxy, Row)]) -> Markup {
    let head = [
        ("Workload", false),
        ("State", false),
        ("Configuration", true),
        ("Since", true),
        ("Memory", true),
        ("Runs", false),
        ("Connected for", true),
        ("Certificate ends in", true),
        ("Identity", false),
    ];
    let newest = |replica: &Replica| replica.config.configuration_version.unwrap_or_default();
    let rows = html! {
        @for (replica, proxy, row) in all.iter().take(MOST_ROWS) {
            @let health = health(row.state);
            tr.{ (health.class()) } {
                th scope="row" { (proxy.workload.to_string()) }
                td { (health.mark()) " " (row.state.word()) @if let Some(reason) = &row.reason { ul.why { li { (reason) } } } }
                td.num { @match proxy.configuration_version {
                    Some(version) if version == newest(replica) => { (version) },
                    Some(version) => { (version) span.rest { " of " (newest(replica)) } },
                    None => "none yet",
                } }
                td.num { @match proxy.configuration_at { Some(at) => { (ago(at, facts.at)) }, None => "–" } }
                td.num { @match proxy.memory_bytes { Some(memory) => { (bytes(memory)) }, None => "–" } }
                td { (proxy.proxy_version) }
                td.num { (ago(proxy.connected_at, facts.at)) }
                td.num { (length(proxy.certificate_expires_at.duration_since(facts.at).unwrap_or_default())) }
                td { (identity(&proxy.identity)) }
            }
        }
    };
    html! {
        (table("Proxies that are connected: those that need attention first", &head, &rows))
        @if all.len() > MOST_ROWS { p.note { "and " (all.len() - MOST_ROWS) " more" } }
    }
}
