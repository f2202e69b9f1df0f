//! Certificates, and how long each is still valid.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use maud::{Markup, html};
use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{Life, Proof, Proxy, Purpose};

use crate::{
    check::{RENEWED_BEFORE, ROOT_RESERVE},
    dashboard::{
        facts::Facts,
        html::{Health, cards, identity, length},
        plot,
    },
};

/// The most certificates of workloads in the table: those that end first.
const MOST_ROWS: usize = 300;
/// The most workloads without a proxy that are named.
const MOST_MISSING: usize = 20;

fn what(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Root => "signs issuers; whoever trusts it trusts the mesh",
        Purpose::Issuer => "signs the certificates of workloads",
        Purpose::Grpc => "what proxies see of the control plane",
        Purpose::Webhook => "what the API server sees of it",
    }
}

pub(in crate::dashboard) fn content(facts: &Facts) -> Markup {
    html! {
        section aria-labelledby="own" {
            h2 #own { "Of the control plane" }
            (own(facts))
        }
        section aria-labelledby="workloads" {
            h2 #workloads { "Of workloads " span.of { "those that end first" } }
            (workloads(facts))
            (unknown(facts))
        }
        (roots(facts))
    }
}

/// Of whose certificates nothing is known here.
fn unknown(facts: &Facts) -> Markup {
    let missing: Vec<_> = facts.services.absent.iter().map(|one| &one.workload).collect();
    html! {
        @if !missing.is_empty() {
            p.note.warn {
                "Of " (missing.len()) @if missing.len() == 1 { " workload" } @else { " workloads" }
                " nothing is known: no proxy is connected "
                @if facts.is_partial { "to this replica" } @else { "to a replica that has answered" } ". "
                (missing.iter().take(MOST_MISSING).map(ToString::to_string).collect::<Vec<_>>().join(", "))
                @if missing.len() > MOST_MISSING { " and " (missing.len() - MOST_MISSING) " more" }
            }
        }
        p.note {
            "Not shown: what a gateway shows to clients from outside (the Secrets that its listeners name), and certificates in apps' files."
        }
    }
}

fn left(until: SystemTime, facts: &Facts) -> Duration {
    until.duration_since(facts.at).unwrap_or_default()
}

/// How many percent of its life is left.
fn share(life: &Life, facts: &Facts) -> f64 {
    let whole = life.not_after.duration_since(life.not_before).unwrap_or_default();
    left(life.not_after, facts).as_secs_f64() * 100.0 / whole.as_secs_f64().max(1.0)
}

/// How one of a replica's own certificates does: as `selvedge check` judges it.
pub(in crate::dashboard) fn health(
    purpose: Purpose,
    life: &Life,
    own: &BTreeMap<Purpose, Life>,
    facts: &Facts,
) -> Health {
    let left = left(life.not_after, facts);
    // An issuer that ends with its root is judged by that.
    let ends_with_root = own.get(&Purpose::Root).is_some_and(|root| life.not_after >= root.not_after);
    let is_late = match purpose {
        Purpose::Root => left < ROOT_RESERVE,
        Purpose::Issuer if ends_with_root => false,
        Purpose::Issuer | Purpose::Grpc | Purpose::Webhook => share(life, facts) < RENEWED_BEFORE * 100.0,
    };
    match (left.is_zero(), is_late) {
        (true, _) => Health::Failing,
        (false, true) => Health::Strained,
        (false, false) => Health::Well,
    }
}

fn ends(left: Duration, health: Health) -> Markup {
    html! { @if health != Health::Well { (health.mark()) " " } @if left.is_zero() { "has expired" } @else { (length(left)) } }
}

fn own(facts: &Facts) -> Markup {
    let head = [
        ("Certificate", false),
        ("Replica", false),
        ("Time left", true),
        ("", false),
        ("Ends", false),
        ("What for", false),
    ];
    let rows = html! {
        @for replica in &facts.replicas {
            @for (purpose, life) in &replica.config.certificates {
                @let share = share(life, facts);
                @let left = left(life.not_after, facts);
                @let health = health(*purpose, life, &replica.config.certificates, facts);
                tr.{ (health.class()) } {
                    th scope="row" { (purpose.word()) }
                    td data-label="Replica" { (replica.name) }
                    td.num data-label="Time left" { (ends(left, health)) }
                    td { (plot::bar(share, health.class())) }
                    td data-label="Ends" { time datetime=(Utc(life.not_after).to_string()) { (date(life.not_after)) } }
                    td { (what(*purpose)) }
                }
            }
        }
    };
    cards("The control plane's own certificates", &head, &rows)
}

fn date(at: SystemTime) -> String {
    Utc(at).to_string().replace('T', " ").replace('Z', " UTC")
}

/// The certificate that peers of a proxy see: when it ends; `None`: it has none.
fn seen_end(proxy: &Proxy) -> Option<SystemTime> {
    match proxy.svid {
        None => Some(proxy.certificate_expires_at),
        Some(svid) => {
            svid.expires_at.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        }
    }
}

fn workloads(facts: &Facts) -> Markup {
    let mut all: Vec<&Proxy> = facts.replicas.iter().flat_map(|replica| &replica.config.proxies).collect();
    all.sort_by_key(|proxy| (seen_end(proxy), &proxy.workload));
    if all.is_empty() {
        return html! { p.empty { "No proxy is connected." } };
    }
    let head = [
        ("Workload", false),
        ("Identity", false),
        ("Time left", true),
        ("Ends", false),
        ("From", false),
        ("The workload is", false),
        ("Serial number", false),
    ];
    let rows = html! {
        @for proxy in all.iter().take(MOST_ROWS) {
            @let end = seen_end(proxy);
            @let left = end.map(|end| left(end, facts)).unwrap_or_default();
            @let health = if left.is_zero() { Health::Failing } else if left < Duration::from_secs(120) { Health::Strained } else { Health::Well };
            tr.{ (health.class()) } {
                th scope="row" { (proxy.workload.to_string()) }
                td data-label="Identity" { (identity(&proxy.identity)) }
                td.num data-label="Time left" { @if end.is_none() { (Health::Failing.mark()) " has none" } @else { (ends(left, health)) } }
                td data-label="Ends" { @if let Some(end) = end { time datetime=(Utc(end).to_string()) { (date(end)) } } @else { "–" } }
                td data-label="From" { @if proxy.svid.is_some() { "Workload API" } @else { "the control plane" } }
                td data-label="The workload is" { @match proxy.proof {
                    Proof::Proven => "proven",
                    Proof::Claimed => "claimed, of its service account",
                    Proof::ServiceAccount => "any of its service account",
                } }
                td data-label="Serial number" { code { (proxy.certificate_serial.to_string()) } }
            }
        }
    };
    html! {
        (cards("Certificates that peers of workloads see", &head, &rows))
        @if all.len() > MOST_ROWS { p.note { "and " (all.len() - MOST_ROWS) " more, which end later" } }
    }
}

fn roots(facts: &Facts) -> Markup {
    let all = |of: fn(&selvedge_control_plane::status::Config) -> &Vec<String>| {
        let all: std::collections::BTreeSet<&String> =
            facts.replicas.iter().flat_map(|replica| of(&replica.config)).collect();
        all
    };
    let trusts = |proxy: &&Proxy| facts.replicas.iter().any(|replica| replica.config.trusts(proxy));
    let proxies = || facts.replicas.iter().flat_map(|replica| &replica.config.proxies);
    let (trusting, connected) = (proxies().filter(trusts).count(), proxies().count());
    let workload_roots = all(|config| &config.workload_roots);
    html! {
        section aria-labelledby="roots" {
            h2 #roots { "Trusted roots" }
            p { (trusting) " of " (connected) " proxies trust them as they are now." }
            ul.flat { @for root in all(|config| &config.trust_roots) { li { code { (root) } } } }
            @if !workload_roots.is_empty() {
                h3 { "Of workloads alone" }
                ul.flat { @for root in workload_roots { li { code { (root) } } } }
            }
        }
    }
}
