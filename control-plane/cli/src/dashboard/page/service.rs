//! One service's port: how it does over the hour, its routes and how a canary does, its endpoints, who calls it, whom it calls.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use selvedge_control_plane::status::{HistoryKey, HistoryPoint, ServiceShown};
use selvedge_model::traffic::{Carried, Way};

use super::Asked;
use crate::{
    dashboard::{
        facts::Facts,
        html::{
            Health, cards, count, encoded, identity, length, named_service_link, of_connections, per_second,
            success, with_port,
        },
        plot::{self, Line, Plot},
        reason::{Meaning, meaning},
    },
    seeing::{
        edges::{self, Secured},
        endpoints::{self, State},
        filter::{FilterArgs, Party},
        numbers::{Connections, Requests, bytes, milliseconds, shown_percent},
        routes,
        stat::{By, Report},
    },
};

/// So many lines are in one plot.
const MOST_LINES: usize = 5;
/// So many rows are in one table: those with the most failures, and then the busiest.
const MOST_ROWS: usize = 200;

fn shown<'a>(facts: &'a Facts, host: &str, port: u16) -> Option<&'a ServiceShown> {
    facts.services.services.iter().find(|service| &*service.host == host && service.port == port)
}

pub(in crate::dashboard) fn is_there(facts: &Facts, host: &str, port: u16) -> bool {
    // What was called first in the last half minute is in no piece of time that is over.
    let mut edges =
        facts.traffic.workloads.values().flat_map(|workload| &workload.edges).map(|one| &one.edge);
    shown(facts, host, port).is_some()
        || facts.history.lines.keys().any(|key| &*key.host == host && key.port == port)
        || edges.any(|edge| edge.way == Way::Outbound && &*edge.host == host && edge.port == port)
}

pub(in crate::dashboard) fn content(asked: &Asked, facts: &Facts, host: &str, port: u16) -> Markup {
    if !is_there(facts, host, port) {
        return html! { p.empty { "No document declares this service, and nobody has called it in the last hour." } };
    }
    let name = with_port(host, port);
    let party = Party::Host { host: host.to_owned(), port: Some(port) };
    let stat = Report::of(&facts.traffic, By::Service, &FilterArgs::default());
    let row = stat.rows.iter().find(|row| row.name == name);
    let edges = edges::Report::of(&facts.traffic, &facts.services, &FilterArgs::default(), true);
    html! {
        p.sub { code { (name) } " · " a href={ "/dashboard/topology?focus=" (encoded(host)) } { "beside its neighbours" } }
        (signals(facts, host, port, row.and_then(|row| row.requests.as_ref()), row.and_then(|row| row.connections.as_ref())))
        (canary(facts, host, port, &party))
        (routes_of(facts, &name, &party))
        (endpoints_of(facts, &name, &party))
        (callers(facts, host, port, &edges))
        (called(asked, facts, host, port, &edges))
    }
}

fn signals(
    facts: &Facts,
    host: &str,
    port: u16,
    requests: Option<&Requests>,
    connections: Option<&Connections>,
) -> Markup {
    let history = &facts.history;
    let carried = if requests.is_none() && connections.is_some() { Carried::Tcp } else { Carried::Http };
    let sums = history.sum(|key| key.carried == carried && &*key.host == host && key.port == port);
    let line =
        |name: &str, class: &str, points| Line { name: name.to_owned(), class: class.to_owned(), points };
    let quantile = |share: f64| {
        plot::points(history, &sums, move |point: &HistoryPoint, _| point.latencies.quantile(share))
    };
    let of = |title, write, least, most, lines| Plot {
        title,
        write,
        least,
        most,
        is_filled: true,
        lines,
        known: history.known_seconds,
    };
    let successes = plot::points(history, &sums, plot::success);
    let lowest = successes.iter().filter_map(|(_, value)| *value).fold(100.0, f64::min);
    // What is nearly all is looked at more closely.
    let least = [99.0, 90.0, 50.0].into_iter().find(|least| lowest >= *least).unwrap_or(0.0);
    let title = if carried == Carried::Http { "Requests per second" } else { "Connections per second" };
    let rate = of(
        title,
        per_second,
        Some(0.0),
        None,
        [Some(line("all", "s1", plot::points(history, &sums, plot::rate))), plot::failed(history, &sums)]
            .into_iter()
            .flatten()
            .collect(),
    );
    let success_plot =
        of("Success", shown_percent, Some(least), Some(100.0), vec![line("", "s1", successes)]);
    let times = Plot {
        is_filled: false,
        ..of(
            "Latency",
            milliseconds,
            Some(0.0),
            None,
            vec![
                line("p50", "s1", quantile(0.5)),
                line("p95", "s2", quantile(0.95)),
                line("p99", "s3", quantile(0.99)),
            ],
        )
    };
    html! {
        section aria-labelledby="signals" {
            h2 #signals { "Signals " span.of { "as clients see it" } }
            @if let Some(one) = requests {
                dl.tiles {
                    div { dt { "Success" } dd { (success(one.success_percent)) } dd.more { (count(one.failures)) " failed of " (count(one.count)) } }
                    div { dt { "Requests" } dd { (per_second(one.per_second)) span.unit { "/s" } } dd.more { (bytes(one.sent_bytes)) " of answers" } }
                    div { dt { "Latency p95" } dd { (milliseconds(one.p95_ms)) } dd.more { "p50 " (milliseconds(one.p50_ms)) ", p99 " (milliseconds(one.p99_ms)) } }
                    div { dt { "Mutual TLS" } dd { (one.mtls()) } dd.more { "of what was sent" } }
                }
            } @else if let Some(one) = connections {
                dl.tiles {
                    div { dt { "Connections" } dd { (count(one.count)) } dd.more { (count(one.failures)) " failed" } }
                    div { dt { "Received" } dd { (bytes(one.received_bytes)) } dd.more { "from clients" } }
                    div { dt { "Sent" } dd { (bytes(one.sent_bytes)) } dd.more { "to clients" } }
                    div { dt { "Mutual TLS" } dd { (one.mtls()) } dd.more { "of connections" } }
                }
            } @else { p.empty { "Nobody has called it in this time." } }
            div.plots {
                (rate.draw()) (success_plot.draw())
                @if carried == Carried::Http { (times.draw()) }
                (reasons(facts, host, port))
            }
        }
    }
}

/// How what has failed has ended.
fn reasons(facts: &Facts, host: &str, port: u16) -> Markup {
    let mut ends = BTreeMap::<(Option<u16>, Option<u8>, Option<&str>), u64>::new();
    for workload in facts.traffic.workloads.values() {
        for one in &workload.edges {
            let edge = &one.edge;
            let is_it = edge.way == Way::Outbound && &*edge.host == host && edge.port == port;
            if !is_it || edge.carried == Carried::WebSocket {
                continue;
            }
            for end in one.counts.outcomes.iter().filter(|end| end.outcome.is_failure(edge.carried)) {
                let how = (end.outcome.status, end.outcome.grpc_status, end.outcome.reason.as_deref());
                let sum = ends.entry(how).or_default();
                *sum = sum.saturating_add(end.count);
            }
        }
    }
    let mut ends: Vec<_> = ends.into_iter().collect();
    ends.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let all = ends.iter().fold(0_u64, |sum, (_, number)| sum.saturating_add(*number));
    html! {
        figure.plot {
            figcaption { "How failures ended" }
            @if ends.is_empty() { p.empty { "nothing has failed in this time" } } @else {
                ul.bars {
                    @for ((status, grpc, reason), number) in ends.iter().take(8) {
                        li {
                            span.name {
                                @match status { Some(status) => { (status) }, None => "no answer" }
                                @if let Some(grpc) = grpc { " · gRPC " (grpc) }
                                @if let Some(reason) = reason { " · " (reason) }
                            }
                            (plot::bar(*number as f64 * 100.0 / all.max(1) as f64, "bad"))
                            span.num { (count(*number)) }
                            @if let Some(Meaning { what, remedy }) = reason.and_then(meaning) {
                                span.what { (what) ". What to do: " (remedy) }
                            } @else if status.is_some() && reason.is_none() {
                                span.what { "no proxy made this answer: the app did. Look at its log" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where a route's share goes: by the documents, now, and over the hour.
fn canary(facts: &Facts, host: &str, port: u16, party: &Party) -> Markup {
    let mut report = routes::Report::of(&facts.traffic, &facts.services, Some(party));
    report.routes.retain(|row| row.service == with_port(host, port));
    let mut by_route = BTreeMap::<(&str, Option<&str>), Vec<&routes::Row>>::new();
    for row in report.routes.iter().filter(|row| row.backend.is_some()) {
        by_route.entry((&row.route, row.clients.as_deref())).or_default().push(row);
    }
    by_route.retain(|_, rows| rows.len() > 1);
    if by_route.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="split" {
            h2 #split { "Traffic split " span.of { "as configured, and as seen" } }
            @for ((route, clients), rows) in &by_route {
                h3 { (route) @if let Some(clients) = clients { " (for clients of " (clients) ")" } }
                div.split {
                    ul.bars.two {
                        @for (place, row) in rows.iter().enumerate() {
                            @let seen = row.seen_percent;
                            li {
                                span.name { span class={"key s" (place % MOST_LINES + 1)} aria-hidden="true" {} (short_backend(row, host, port)) }
                                span.pair {
                                    span.row { span.what { "configured" } (plot::bar(f64::from(row.configured_percent), "plan")) span.num { (row.configured_percent) " %" } }
                                    span.row { span.what { "seen" } (plot::bar(seen.unwrap_or_default(), &format!("s{}", place % MOST_LINES + 1)))
                                        span.num { @match seen { Some(seen) => { (shown_percent(seen)) }, None => "–" } } }
                                }
                                span.num { @match &row.requests { Some(one) => { (success(one.success_percent)) }, None => "–" } }
                            }
                        }
                    }
                    @let others = by_route.values().filter(|other| !std::ptr::eq(*other, rows)).flatten();
                    @let is_shared = others.into_iter().any(|other| rows.iter().any(|row| row.backend == other.backend));
                    (shares(facts, host, port, rows, is_shared).draw())
                }
            }
        }
    }
}

fn short_backend(row: &routes::Row, host: &str, port: u16) -> String {
    let backend = row.backend.clone().unwrap_or_default();
    let own = with_port(host, port);
    match backend.split_once('/') {
        Some((service, subset)) if service == own => subset.to_owned(),
        None if backend == own => "all endpoints".to_owned(),
        _ => backend,
    }
}

/// What share of what went to these backends each has got, over the hour. It is not kept by which route: if the backends of
/// other routes are among them (`is_shared`), that is said.
fn shares<'a>(facts: &Facts, host: &str, port: u16, rows: &[&routes::Row], is_shared: bool) -> Plot<'a> {
    let own = with_port(host, port);
    let of = |row: &routes::Row| {
        let backend = row.backend.as_deref().unwrap_or_default();
        let (service, subset) = backend.split_once('/').unwrap_or((backend, ""));
        let other = if service == own { "" } else { service };
        facts.history.sum(|key: &HistoryKey| {
            &*key.host == host && key.port == port && &*key.backend == other && &*key.subset == subset
        })
    };
    let sums: Vec<Vec<HistoryPoint>> = rows.iter().take(MOST_LINES).map(|row| of(row)).collect();
    let all: Vec<u64> = (0..facts.history.pieces.len())
        .map(|at| sums.iter().fold(0_u64, |sum, one| sum.saturating_add(one[at].count)))
        .collect();
    let line = |(place, sum): (usize, &Vec<HistoryPoint>)| Line {
        name: short_backend(rows[place], host, port),
        class: format!("s{}", place + 1),
        points: facts
            .history
            .pieces
            .iter()
            .enumerate()
            .map(|(at, piece)| {
                let share = (all[at] > 0).then(|| sum[at].count as f64 * 100.0 / all[at] as f64);
                (piece.began as f64 - piece.seconds as f64 / 2.0, share)
            })
            .collect(),
    };
    Plot {
        title: match is_shared {
            false => "Share of requests as seen",
            true => "Share of requests as seen, by all routes to these together",
        },
        write: |percent| format!("{percent:.0} %"),
        least: Some(0.0),
        most: Some(100.0),
        is_filled: false,
        lines: sums.iter().enumerate().map(line).collect(),
        known: facts.history.known_seconds,
    }
}

/// Leaves [`MOST_ROWS`] of `rows` by their `rank`, the highest, in their order. Returns how many are left out.
fn shorten<T>(rows: &mut Vec<T>, rank: impl Fn(&T) -> (u64, u64)) -> usize {
    let Some(more) = rows.len().checked_sub(MOST_ROWS).filter(|more| *more > 0) else { return 0 };
    let mut places: Vec<usize> = (0..rows.len()).collect();
    places.sort_by_key(|place| std::cmp::Reverse(rank(&rows[*place])));
    let kept: BTreeSet<usize> = places.into_iter().take(MOST_ROWS).collect();
    let mut place = 0;
    rows.retain(|_| {
        place += 1;
        kept.contains(&(place - 1))
    });
    more
}

/// What has the most failures stands before what has the most traffic.
fn weight(requests: Option<&Requests>, connections: Option<&Connections>) -> (u64, u64) {
    let of_requests = requests.map(|one| (one.failures, one.count));
    of_requests.or(connections.map(|one| (one.failures, one.count))).unwrap_or_default()
}

/// That there are `more` than are shown, all of which a command shows.
fn and_more(more: usize, command: &str) -> Markup {
    html! { @if more > 0 { p.note { "and " (more) " more, with fewer failures and less traffic: " code { "selvedge " (command) } " shows all" } } }
}

fn routes_of(facts: &Facts, name: &str, party: &Party) -> Markup {
    let mut report = routes::Report::of(&facts.traffic, &facts.services, Some(party));
    report.routes.retain(|row| row.service == name);
    let more = shorten(&mut report.routes, |row| weight(row.requests.as_ref(), row.connections.as_ref()));
    let head = [
        ("Route", false),
        ("Leads to", false),
        ("Share", true),
        ("Seen", true),
        ("Success", true),
        ("Per second", true),
        ("p50", true),
        ("p95", true),
        ("p99", true),
    ];
    let rows = html! {
        @for row in &report.routes {
            tr {
                th scope="row" { (row.route) @if let Some(clients) = &row.clients { span.rest { " for clients of " (clients) } } }
                td data-label="Leads to" { @match (&row.backend, &row.broken) {
                    (None, _) => "–",
                    (Some(backend), None) => { (backend) },
                    (Some(backend), Some(why)) => { (Health::Failing.mark()) " " (backend) span.rest { " cannot be used: " (why) } },
                } }
                td.num data-label="Share" { (row.configured_percent) " %" }
                td.num data-label="Seen" { @match row.seen_percent { Some(seen) => { (shown_percent(seen)) }, None => "–" } }
                @match (&row.requests, &row.connections) {
                    (Some(one), _) => {
                        @let [_, _, p50, p95, p99] = one.cells();
                        td.num data-label="Success" { (success(one.success_percent)) } td.num data-label="Per second" { (per_second(one.per_second)) }
                        td.num data-label="p50" { (p50) } td.num data-label="p95" { (p95) } td.num data-label="p99" { (p99) }
                    },
                    (None, Some(one)) => { td.num data-label="Success" { (success(of_connections(one))) } (unknown(4)) },
                    (None, None) => (unknown(5)),
                }
            }
        }
    };
    html! {
        @if !report.routes.is_empty() {
            section aria-labelledby="routes" { h2 #routes { "Routes" } (cards("Where each route leads, by the documents and as seen", &head, &rows)) (and_more(more, &format!("routes {name}"))) }
        }
    }
}

fn endpoints_of(facts: &Facts, name: &str, party: &Party) -> Markup {
    let mut report = endpoints::Report::of(&facts.traffic, &facts.services, Some(party));
    report.endpoints.retain(|row| row.service == name);
    let more = shorten(&mut report.endpoints, |row| {
        let (failures, count) = weight(row.requests.as_ref(), row.connections.as_ref());
        let failures = failures.max(row.failing.as_ref().map_or(0, |failing| failing.failures));
        // Those that get nothing before all others.
        (if row.out.is_empty() { failures } else { u64::MAX }, count)
    });
    let head = [
        ("Endpoint", false),
        ("Workload", false),
        ("State", false),
        ("Success", true),
        ("Per second", true),
        ("p95", true),
        ("Proves to be", false),
    ];
    let rows = html! {
        @for row in &report.endpoints {
            @let state = row.state;
            @let health = Health::of_endpoint(state);
            tr.{ (if health.is_ill() { health.class() } else { "" }) } {
                th scope="row" { code { (row.address.to_string()) } }
                td data-label="Workload" { @match &row.workload { Some(name) => { (name.to_string()) }, None => "–" } }
                td data-label="State" {
                    (health.mark()) " "
                    @if state != State::Out {
                        (state.word())
                        @if let Some(why) = row.remark() { ul.why { li { (why) } } }
                    } @else {
                        "out for " (row.out.len()) @if row.out.len() == 1 { " client" } @else { " clients" }
                        ul.why {
                            @for out in row.out.iter().take(5) {
                                li { (out.client.to_string()) @if let Some(subset) = &out.subset { " (" (subset) ")" } ": " (out.why) ", " (out.last_failure) ", "
                                    @match out.seconds_left { Some(left) => { (length(std::time::Duration::from_secs(left))) " more" }, None => "until its health checks pass" } }
                            }
                            @if row.out.len() > 5 { li { "and " (row.out.len() - 5) " more" } }
                            @if let Some(why) = row.remark() { li { (why) } }
                        }
                    }
                    @if let Some(failing) = &row.failing { ul.why { li { (failing.to_string()) } } }
                }
                @match (&row.requests, &row.connections) {
                    (Some(one), _) => {
                        td.num data-label="Success" { (success(one.success_percent)) } td.num data-label="Per second" { (per_second(one.per_second)) }
                        td.num data-label="p95" { (milliseconds(one.p95_ms)) }
                    },
                    (None, Some(one)) => { td.num data-label="Success" { (success(of_connections(one))) } (unknown(2)) },
                    (None, None) => (unknown(3)),
                }
                td data-label="Proves to be" { @match &row.identity { Some(one) => { (identity(one)) }, None => { span.rest { "nobody: plaintext" } } } }
            }
        }
    };
    html! {
        section aria-labelledby="endpoints" {
            h2 #endpoints { "Endpoints " span.of { "what comes to each, as its own sidecar counts it, and what its clients see fail there" } }
            @if report.endpoints.is_empty() { p.empty { "It has no endpoint that is known by its address." } }
            @else { (cards("Endpoints, and which of them get no requests", &head, &rows)) (and_more(more, &format!("endpoints {name}"))) }
            @for one in report.elsewhere.iter().filter(|one| one.service == name) { p.note { (one.to_string()) } }
            @if report.failures_left_out > 0 { p.note { "Not shown: " (count(report.failures_left_out)) " failures at further endpoints, of any service." } }
            @for one in report.undelivered.iter().filter(|one| one.service == name) { p.note.warn { (one.to_string()) } }
        }
    }
}

/// So many cells about which nothing is known.
fn unknown(cells: usize) -> Markup {
    html! { @for _ in 0..cells { td.num.nothing { "–" } } }
}

fn edge_rows(rows: &[&edges::Row], name: impl Fn(&edges::Row) -> Markup) -> Markup {
    html! {
        @for row in rows {
            tr {
                th scope="row" { (name(row)) }
                td data-label="Secured" { (secured(row.secured)) }
                @match (&row.requests, &row.connections) {
                    (Some(one), _) => {
                        td.num data-label="Success" { (success(one.success_percent)) } td.num data-label="Per second" { (per_second(one.per_second)) }
                        td.num data-label="p95" { (milliseconds(one.p95_ms)) } td.num data-label="Count" { (count(one.count)) }
                    },
                    (None, Some(one)) => { td.num data-label="Success" { (success(of_connections(one))) } (unknown(2)) td.num data-label="Count" { (count(one.count)) } },
                    (None, None) => (unknown(4)),
                }
                td data-label="Client has proven to be" { @match &row.client_identity { Some(one) => { (identity(one)) }, None => { span.rest { "nobody" } } } }
            }
        }
    }
}

/// A lock beside words, closed or open.
fn glyph(class: &str, is_closed: bool) -> Markup {
    html! { svg.glyph viewBox="-6 -6 12 12" aria-hidden="true" { (super::topology::lock(class, is_closed)) } }
}

/// How something goes, with a sign.
pub(in crate::dashboard) fn secured(secured: Secured) -> Markup {
    match secured {
        Secured::MutualTls => html! { span.lock { (glyph("good", true)) "mutual TLS" } },
        Secured::Plaintext => html! { span.plain { (glyph("warn", false)) "plaintext" } },
        Secured::NotSent => html! { span.rest { "not sent" } },
    }
}

const EDGES: [(&str, bool); 7] = [
    ("", false),
    ("Secured", false),
    ("Success", true),
    ("Per second", true),
    ("p95", true),
    ("Count", true),
    ("Client has proven to be", false),
];

/// The workloads behind a service's port.
fn workloads(facts: &Facts, host: &str, port: u16) -> BTreeSet<String> {
    let service = shown(facts, host, port);
    let endpoints = service.into_iter().flat_map(|service| &service.endpoints);
    endpoints.filter_map(|endpoint| endpoint.workload.as_ref().map(ToString::to_string)).collect()
}

fn callers(facts: &Facts, host: &str, port: u16, report: &edges::Report) -> Markup {
    let name = with_port(host, port);
    let servers = workloads(facts, host, port);
    let is_server =
        |row: &&edges::Row| servers.contains(row.to.rsplit_once(':').map_or(&*row.to, |(name, _)| name));
    let mut by_clients: Vec<&edges::Row> = report.edges.iter().filter(|row| row.to == name).collect();
    // What only servers know of: callers without a sidecar.
    let told = edges::Report::of(&facts.traffic, &facts.services, &FilterArgs::default(), false);
    let mut by_servers: Vec<&edges::Row> =
        told.edges.iter().filter(|row| row.seen_by == edges::SeenBy::Server).filter(is_server).collect();
    let rank = |row: &&edges::Row| weight(row.requests.as_ref(), row.connections.as_ref());
    let more = shorten(&mut by_clients, rank) + shorten(&mut by_servers, rank);
    let mut head = EDGES;
    head[0].0 = "Client";
    let rows = html! {
        (edge_rows(&by_clients, |row| html! { (row.from.as_deref().unwrap_or("unknown")) }))
        (edge_rows(&by_servers, |row| html! {
            @match &row.client_identity { Some(one) => { (identity(one)) }, None => "somebody in plaintext" }
            span.rest { " at " (row.to) }
        }))
    };
    html! {
        section aria-labelledby="callers" {
            h2 #callers { "Who calls it" }
            @if by_clients.is_empty() && by_servers.is_empty() { p.empty { "Nobody has called it in this time." } }
            @else { (cards("Clients, and how their calls go", &head, &rows)) (and_more(more, &format!("edges --to {name} --all"))) }
        }
    }
}

fn called(asked: &Asked, facts: &Facts, host: &str, port: u16, report: &edges::Report) -> Markup {
    let servers = workloads(facts, host, port);
    let calls = report.edges.iter().filter(|row| row.seen_by == edges::SeenBy::Client);
    let mut calls: Vec<&edges::Row> =
        calls.filter(|row| row.from.as_ref().is_some_and(|from| servers.contains(from))).collect();
    let more = shorten(&mut calls, |row| weight(row.requests.as_ref(), row.connections.as_ref()));
    let mut head = EDGES;
    head[0].0 = "Service";
    let rows = edge_rows(&calls, |row| {
        html! { (named_service_link(&row.to, asked.since)) span.rest { " by " (row.from.as_deref().unwrap_or_default()) } }
    });
    html! {
        @if !calls.is_empty() {
            section aria-labelledby="called" { h2 #called { "What it calls" } (cards("Services that its workloads call", &head, &rows)) (and_more(more, "edges")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_table_keeps_what_fails_and_what_is_busy_and_says_how_much_is_missing() {
        let busy = MOST_ROWS as u64 + 50;
        let mut rows: Vec<(u64, u64)> = (0..busy).map(|count| (u64::from(count == 3), count)).collect();

        assert_eq!(shorten(&mut rows, |row| *row), 50);

        assert_eq!((rows.len(), rows[0], rows[1]), (MOST_ROWS, (1, 3), (0, 51)), "in their order");
        assert_eq!(shorten(&mut rows, |row| *row), 0);
        assert!(and_more(50, "edges").0.contains("and 50 more"));
        assert_eq!(and_more(0, "edges").0, "");
    }

    #[test]
    fn a_backend_is_called_by_its_subset_alone_only_at_the_services_own_port() {
        let row = |backend: &str| routes::Row {
            service: "a:80".to_owned(),
            route: String::new(),
            clients: None,
            backend: Some(backend.to_owned()),
            broken: None,
            configured_percent: 50,
            seen_percent: None,
            requests: None,
            connections: None,
        };
        let short = |backend: &str| short_backend(&row(backend), "a", 80);
        let all = ["a:80", "a:80/v1", "a:8080", "b:80/v1"].map(short);
        assert_eq!(all, ["all endpoints", "v1", "a:8080", "b:80/v1"]);
    }
}
