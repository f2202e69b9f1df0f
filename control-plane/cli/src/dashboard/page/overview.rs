//! How the mesh does as a whole, what needs attention, and each service in one line.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{AbsentShown, HistoryPoint};
use selvedge_model::traffic::Carried;

use super::{Asked, certificates};
use crate::{
    dashboard::{
        facts::Facts,
        html::{
            Health, count, length, named_service_link, of_connections, per_second, success, table, with_port,
        },
        plot::{self, Line, Plot},
        told::Bad,
    },
    seeing::{
        edges, endpoints,
        filter::FilterArgs,
        numbers::{Requests, WELL, bytes, milliseconds, shown_percent},
        stat::{By, Report, Row},
    },
    status::{State, rows},
};

/// The most services in the table.
const MOST_ROWS: usize = 500;
/// So many lines of what needs attention are shown.
const MOST_LINES: usize = 12;

/// Something that needs attention.
struct Point {
    health: Health,
    words: Markup,
}

pub(in crate::dashboard) fn content(asked: &Asked, facts: &Facts) -> Markup {
    let filter = FilterArgs::default();
    let mut services = Report::of(&facts.traffic, By::Service, &filter);
    services
        .rows
        .sort_by(|a, b| worst_first(a).cmp(&worst_first(b)).then_with(|| load(b).total_cmp(&load(a))));
    html! {
        (attention(asked, facts, &services))
        (signals(asked, facts))
        (requests(asked, facts, &services))
        (connections(asked, &services))
    }
}

fn load(row: &Row) -> f64 {
    row.requests.as_ref().map_or(0.0, |requests| requests.per_second)
}

fn worst_first(row: &Row) -> Health {
    Health::of(row.requests.as_ref(), row.connections.as_ref())
}

/// What somebody who is called at night has to know first.
fn attention(asked: &Asked, facts: &Facts, services: &Report) -> Markup {
    let mut lines = Vec::new();
    for row in &services.rows {
        let link = named_service_link(&row.name, asked.since);
        if let Some(one) = &row.requests {
            let words = html! {
                (link) ": " b { (shown_percent(one.success_percent)) } " succeed, "
                (count(one.failures)) " of " (count(one.count)) " requests have failed"
            };
            lines.push(Point { health: Health::of_percent(one.success_percent), words });
        }
        if let Some(one) = &row.connections {
            let words = html! {
                (link) ": " (count(one.failures)) " of " (count(one.count.max(one.ended))) " connections have failed"
            };
            lines.push(Point { health: Health::of_percent(of_connections(one)), words });
        }
    }
    lines.retain(|line| line.health.is_ill());
    lines.extend(of_endpoints(asked, facts, services));
    lines.extend(of_proxies(facts));
    lines.extend(of_certificates(facts));
    let errors = facts.problems.iter().filter(|problem| problem.severity == Bad::Error).count();
    if errors > 0 {
        let words = html! { a href="/dashboard/problems" { (errors) @if errors == 1 { " error" } @else { " errors" } } " in the configuration" };
        lines.push(Point { health: Health::Strained, words });
    }
    lines.sort_by_key(|line| line.health);
    let more = lines.len().saturating_sub(MOST_LINES);
    html! {
        section.attention aria-labelledby="attention" {
            @if lines.iter().any(|line| line.health.is_ill()) {
                h2 #attention { "Needs attention" }
            } @else {
                h2 #attention.well { (Health::Well.mark()) " Nothing needs attention" }
            }
            @if !lines.is_empty() {
                ul {
                    @for line in lines.iter().take(MOST_LINES) { li.{ (line.health.class()) } { (line.health.mark()) span { (line.words) } } }
                    @if more > 0 { li { span { "and " (more) " more, below" } } }
                }
            }
        }
    }
}

/// Endpoints that get no requests; those that are far slower than others of their service; and those that fail where others do not,
/// or where retries hide it from the service's clients.
fn of_endpoints(asked: &Asked, facts: &Facts, services: &Report) -> Vec<Point> {
    let report = endpoints::Report::of(&facts.traffic, &facts.services, None);
    let is_ill = |row: &endpoints::Row| {
        matches!(row.state, endpoints::State::Failing | endpoints::State::SomeFailures)
    };
    let mut by_service = BTreeMap::<&str, Vec<&endpoints::Row>>::new();
    for row in &report.endpoints {
        by_service.entry(&row.service).or_default().push(row);
    }
    let of_service = |name: &str| {
        let row = services.rows.iter().find(|row| row.name == name);
        row.map_or(Health::Silent, worst_first)
    };
    // An endpoint of several services is one.
    let (mut named, mut points) = (BTreeSet::new(), Vec::new());
    for (service, rows) in by_service {
        for (row, slow) in rows.iter().filter_map(|row| Some((row, row.slow.as_ref()?))) {
            if row.state != endpoints::State::Slow || !named.insert((&row.workload, row.address)) {
                continue;
            }
            let words = html! {
                (named_service_link(service, asked.since)) ": the endpoint " (endpoint_name(row)) " is slow: "
                (slow.percent) " % of its requests take up to " b { (milliseconds(slow.own_ms)) }
                ", at its siblings " (milliseconds(slow.siblings_ms))
            };
            points.push(Point { health: Health::Strained, words });
        }
        // What is said of the service says it already, unless retries hide how badly its endpoints do.
        let is_said = |row: &&endpoints::Row| {
            is_ill(row) && of_service(service) <= Health::of_endpoint(row.state)
                || row.state == endpoints::State::Idle
        };
        if rows.iter().all(is_said) {
            continue;
        }
        for row in rows.into_iter().filter(|row| is_ill(row) || !row.out.is_empty()) {
            if !named.insert((&row.workload, row.address)) {
                continue;
            }
            // What it is that fails, if there are requests and opaque connections.
            let requests_do_well = row.requests.as_ref().is_none_or(|one| one.success_percent >= WELL);
            let connections = row.connections.as_ref().filter(|_| requests_do_well);
            let counted = Health::of(row.requests.as_ref(), row.connections.as_ref());
            let clients = row.out.len();
            let words = html! {
                (named_service_link(service, asked.since)) ": the endpoint "
                (endpoint_name(row))
                @if clients > 0 { " gets no requests, from " (clients) @if clients == 1 { " client" } @else { " clients" } }
                @if counted.is_ill() {
                    @if clients > 0 { ", and fails: " } @else { " fails: " }
                    @if let Some(one) = connections {
                        (count(one.failures)) " of " (count(one.count.max(one.ended))) " connections"
                    } @else if let Some(one) = &row.requests {
                        (count(one.failures)) " of " (count(one.count)) " requests"
                    }
                    ", as its own sidecar counts them"
                }
                @if let Some(failing) = &row.failing {
                    @if clients > 0 || counted.is_ill() { "; it " } @else { " " }
                    (failing.to_string())
                }
            };
            points.push(Point { health: counted.min(Health::of_endpoint(row.state)), words });
        }
    }
    // Of services that are in no document of their own, such as names below a wildcard, only this is known.
    let is_shown = |name: &str| report.endpoints.iter().any(|row| row.service == name);
    let mut others = BTreeMap::<String, BTreeSet<_>>::new();
    for out in &facts.services.out {
        others.entry(with_port(&out.host, out.port)).or_default().insert(&out.by);
    }
    for (name, clients) in others.into_iter().filter(|(name, _)| !is_shown(name)) {
        let clients = clients.len();
        let words = html! {
            (named_service_link(&name, asked.since)) ": endpoints get no requests, from " (clients) @if clients == 1 { " client" } @else { " clients" }
        };
        points.push(Point { health: Health::Strained, words });
    }
    points
}

/// Its workload, or its address where none is known.
fn endpoint_name(row: &endpoints::Row) -> String {
    row.workload.as_ref().map_or_else(|| row.address.to_string(), ToString::to_string)
}

/// So many of those that are not connected are named.
const MOST_NAMED: usize = 3;

fn of_proxies(facts: &Facts) -> Vec<Point> {
    let rows: Vec<_> =
        facts.replicas.iter().flat_map(|replica| rows(&replica.config, &replica.name)).collect();
    let (missing, awaited) = (facts.absent(), facts.awaited().len());
    let left = facts.services.starting.map_or(0, |starting| starting.seconds_left);
    let of = |state| rows.iter().filter(|row| row.state == state).count();
    let line = |health, number: usize, one: &str, more: &str, names: &str| {
        let words = html! {
            a href="/dashboard/proxies" { (number) @if number == 1 { " proxy" } @else { " proxies" } } " "
            @if number == 1 { (one) } @else { (more) } (names)
        };
        (number > 0).then_some(Point { health, words })
    };
    let since = |absent: &AbsentShown| {
        let since = absent.since.map(|since| format!(" (since {})", Utc(since)));
        format!("{}{}", absent.workload, since.unwrap_or_default())
    };
    let names: Vec<String> = missing.iter().take(MOST_NAMED).map(|one| since(one)).collect();
    let more = if missing.len() > MOST_NAMED { ", …" } else { "" };
    let names = if facts.is_partial { String::new() } else { format!(": {}{more}", names.join(", ")) };
    let away = match facts.is_partial {
        true => ("is not connected to this replica", "are not connected to this replica"),
        false => ("is not connected", "are not connected"),
    };
    let missing_health = if facts.is_partial { Health::Silent } else { Health::Failing };
    [
        line(
            Health::Failing,
            of(State::Refused),
            "has refused its configuration",
            "have refused their configuration",
            "",
        ),
        line(missing_health, missing.len(), away.0, away.1, &names),
        line(
            Health::Silent,
            awaited,
            "may still be coming back",
            "may still be coming back",
            &format!(": the control plane has just started, and waits for {left} s at most"),
        ),
        line(
            Health::Strained,
            of(State::Behind),
            "has an older configuration",
            "have an older configuration",
            "",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_certificates(facts: &Facts) -> Vec<Point> {
    let mut points = Vec::new();
    for own in facts.replicas.iter().map(|replica| &replica.config.certificates) {
        for (purpose, life) in own {
            let health = certificates::health(*purpose, life, own, facts);
            let left = life.not_after.duration_since(facts.at).unwrap_or_default();
            let words = html! {
                "the control plane's " a href="/dashboard/certificates" { "certificate" } " (" (purpose.word()) ") "
                @if left.is_zero() { "has expired" } @else { "ends in " (length(left)) }
            };
            if health.is_ill() {
                points.push(Point { health, words });
            }
        }
    }
    points
}

/// The four signals, each as a number and over the hour.
fn signals(asked: &Asked, facts: &Facts) -> Markup {
    let requests = totals(facts);
    let sums = facts.history.sum(|key| key.carried == Carried::Http);
    let known = facts.history.known_seconds;
    let line =
        |name: &str, class: &str, points| Line { name: name.to_owned(), class: class.to_owned(), points };
    let quantile = |share: f64| {
        plot::points(&facts.history, &sums, move |point: &HistoryPoint, _| point.latencies.quantile(share))
    };
    let rates = Plot {
        title: "Requests per second",
        write: per_second,
        least: Some(0.0),
        most: None,
        is_filled: true,
        lines: [
            Some(line("all", "s1", plot::points(&facts.history, &sums, plot::rate))),
            plot::failed(&facts.history, &sums),
        ]
        .into_iter()
        .flatten()
        .collect(),
        known,
    };
    let times = Plot {
        title: "Latency",
        write: milliseconds,
        least: Some(0.0),
        most: None,
        is_filled: false,
        lines: vec![
            line("p50", "s1", quantile(0.5)),
            line("p95", "s2", quantile(0.95)),
            line("p99", "s3", quantile(0.99)),
        ],
        known,
    };
    let window =
        super::WINDOWS.iter().find(|(seconds, ..)| *seconds == asked.since).map_or("", |(_, _, words)| words);
    html! {
        section aria-labelledby="signals" {
            h2 #signals { "Signals " span.of { "last " (window) ", as clients see it" } }
            @match &requests {
                None => p.empty { "No request was seen." },
                Some(one) => dl.tiles { (tiles(one, goes_plain(facts))) },
            }
            div.plots { (rates.draw()) (times.draw()) }
        }
    }
}

/// Whether anything goes in plaintext: also opaque connections, and what comes from clients without a sidecar.
fn goes_plain(facts: &Facts) -> bool {
    let edges = edges::Report::of(&facts.traffic, &facts.services, &FilterArgs::default(), false);
    edges.edges.iter().any(|row| row.secured == edges::Secured::Plaintext)
}

fn tiles(one: &Requests, goes_plain: bool) -> Markup {
    html! {
        div { dt { "Success" } dd { (success(one.success_percent)) } dd.more { (count(one.failures)) " failed of " (count(one.count)) } }
        div { dt { "Requests" } dd { (per_second(one.per_second)) span.unit { "/s" } } dd.more { (bytes(one.sent_bytes)) " of answers" } }
        div { dt { "Latency p95" } dd { (milliseconds(one.p95_ms)) } dd.more { "p50 " (milliseconds(one.p50_ms)) ", p99 " (milliseconds(one.p99_ms)) } }
        div { dt { "Mutual TLS" } dd { (one.mtls()) } dd.more {
            @if goes_plain { "some goes in plaintext: " a href="/dashboard/topology" { "which" } } @else { "nothing goes in plaintext" }
        } }
    }
}

/// All requests together, as clients count them.
fn totals(facts: &Facts) -> Option<Requests> {
    let mut sum = crate::seeing::numbers::Sum::default();
    for workload in facts.traffic.workloads.values() {
        for one in workload.edges.iter().filter(|one| one.edge.way == selvedge_model::traffic::Way::Outbound)
        {
            sum.add(&one.edge, &one.counts, workload.seconds);
        }
    }
    sum.requests()
}

fn requests(asked: &Asked, facts: &Facts, services: &Report) -> Markup {
    let head = [
        ("Service", false),
        ("Success", true),
        ("Per second", true),
        ("p50", true),
        ("p95", true),
        ("p99", true),
        ("Mutual TLS", true),
        ("Requests", true),
        ("Over the hour", false),
    ];
    let history = facts.history.by_service();
    let all = services.rows.iter().filter(|row| row.requests.is_some()).count();
    let rows = html! {
        @for row in services.rows.iter().filter(|row| row.requests.is_some()).take(MOST_ROWS) {
            @if let Some(one) = &row.requests {
                @let [_, _, p50, p95, p99] = one.cells();
                tr.{ (Health::of_percent(one.success_percent).class()) } {
                    th scope="row" { (named_service_link(&row.name, asked.since)) }
                    td.num { (success(one.success_percent)) }
                    td.num { (per_second(one.per_second)) }
                    td.num { (p50) } td.num { (p95) } td.num { (p99) }
                    td.num { (one.mtls()) }
                    td.num { (count(one.count)) }
                    td { @if let Some(sums) = history.get(&row.name) { (plot::small(&facts.history, sums)) } @else { span.none { "–" } } }
                }
            }
        }
    };
    html! {
        section aria-labelledby="services" {
            h2 #services { "Services " span.of { "those that fail first, then the busiest" } }
            @if all > 0 {
                (table("Requests to each service, as its clients count them", &head, &rows))
                @if all > MOST_ROWS { p.note { "and " (all - MOST_ROWS) " more, which do well and have less to do: " code { "selvedge stat" } " shows all" } }
            } @else { p.empty { "Nobody has sent a request." } }
        }
    }
}

fn connections(asked: &Asked, services: &Report) -> Markup {
    let head = [
        ("Service", false),
        ("Connections", true),
        ("Failed", true),
        ("Mutual TLS", true),
        ("Received", true),
        ("Sent", true),
    ];
    let all = services.rows.iter().filter(|row| row.connections.is_some()).count();
    let rows = html! {
        @for row in services.rows.iter().filter(|row| row.connections.is_some()).take(MOST_ROWS) {
            @if let Some(one) = &row.connections {
                tr.{ (Health::of_percent(of_connections(one)).class()) } {
                    th scope="row" { (named_service_link(&row.name, asked.since)) }
                    td.num { (count(one.count)) } td.num { (count(one.failures)) } td.num { (one.mtls()) }
                    td.num { (bytes(one.received_bytes)) } td.num { (bytes(one.sent_bytes)) }
                }
            }
        }
    };
    html! {
        @if all > 0 {
            section aria-labelledby="connections" {
                h2 #connections { "Opaque connections" }
                (table("Connections to each service that are not HTTP", &head, &rows))
                @if all > MOST_ROWS { p.note { "and " (all - MOST_ROWS) " more: " code { "selvedge stat" } " shows all" } }
            }
        }
    }
}
