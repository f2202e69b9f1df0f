//! Who talks to whom, as a picture and as a table.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use selvedge_model::WorkloadName;

use super::Asked;
use crate::{
    dashboard::{
        facts::Facts,
        graph::{self, Graph, NODE},
        html::{Health, cards, count, kubernetes, per_second, service_url, success, with_window},
        page::service::secured,
    },
    seeing::{
        edges::{self, Row, Secured, SeenBy},
        filter::FilterArgs,
        numbers::{percent, shown_percent},
    },
};

/// Where those stand who belong to no namespace of the mesh.
const OUTSIDE: &str = "outside";
/// Who calls in plaintext and has no name.
const NOBODY: &str = "clients in plaintext";
/// The most nodes that are drawn; more are in the table alone.
const MOST_NODES: usize = 300;
/// The most edges that are drawn: each has a bend in every column that it crosses.
const MOST_EDGES: usize = 1_000;
/// The most edges in the table.
const MOST_ROWS: usize = 500;
/// The longest name in a node.
const LONGEST: usize = 20;

/// Somebody who calls, or is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    namespace: String,
    name: String,
    /// Its host, if it is a service. All of its ports are one node.
    host: Option<String>,
}

/// What goes from one to another.
#[derive(Debug, Default)]
struct Flow {
    count: u64,
    failures: u64,
    per_second: f64,
    connections: u64,
    broken: u64,
    secured: BTreeSet<Secured>,
}

impl Flow {
    fn add(&mut self, row: &Row) {
        if let Some(one) = &row.requests {
            self.count = self.count.saturating_add(one.count);
            self.failures = self.failures.saturating_add(one.failures);
            self.per_second += one.per_second;
        }
        if let Some(one) = &row.connections {
            self.connections = self.connections.saturating_add(one.count.max(one.ended));
            self.broken = self.broken.saturating_add(one.failures);
        }
        self.secured.insert(row.secured);
    }

    /// How many percent succeed: of requests or of connections, which do worse.
    fn percent(&self) -> Option<f64> {
        let of = |all: u64, failed: u64| (all > 0).then(|| percent(all.saturating_sub(failed), all));
        let both = [of(self.count, self.failures), of(self.connections, self.broken)];
        both.into_iter().flatten().min_by(f64::total_cmp)
    }

    fn health(&self) -> Health {
        self.percent().map_or(Health::Silent, Health::of_percent)
    }

    /// Plaintext is what matters, if some of it is.
    fn security(&self) -> Secured {
        if self.secured.contains(&Secured::Plaintext) {
            Secured::Plaintext
        } else if self.secured.contains(&Secured::MutualTls) {
            Secured::MutualTls
        } else {
            Secured::NotSent
        }
    }

    fn rate(&self, seconds: u64) -> f64 {
        self.per_second + self.connections as f64 / seconds.max(1) as f64
    }

    fn width(&self, seconds: u64) -> f64 {
        (1.2 + 1.3 * (1.0 + self.rate(seconds)).log10()).min(6.0)
    }
}

/// Who talks to whom.
#[derive(Debug, Default)]
struct Map {
    flows: BTreeMap<(Node, Node), Flow>,
    /// The port of each service to whose page its node leads: the first that is called.
    ports: BTreeMap<String, u16>,
}

pub(in crate::dashboard) fn content(asked: &Asked, facts: &Facts) -> Markup {
    let all = Map::of(facts);
    let namespaces: BTreeSet<String> =
        all.nodes().into_iter().map(|node| node.namespace.clone()).filter(|one| one != OUTSIDE).collect();
    let silent = silent(asked, facts, &all);
    let map = all.only(asked);
    let nodes = map.nodes();
    html! {
        (chooser(asked, &namespaces))
        @if map.flows.is_empty() { p.empty { "Nobody has talked to anybody in this time." } }
        @else if nodes.len() > MOST_NODES || map.flows.len() > MOST_EDGES {
            p.note { "There are " (nodes.len()) " who talk, on " (map.flows.len()) " edges: too many for one picture. Choose a namespace." }
        } @else {
            (legend())
            (picture(asked, &map, &nodes))
        }
        @if asked.focus.is_none() && !silent.is_empty() {
            details #silent { summary { (silent.len()) @if silent.len() == 1 { " service" } @else { " services" } " that nobody has called in this time" }
                ul.flat { @for (host, port) in silent.iter().take(MOST_ROWS) { li { a href=(with_window(&service_url(host, *port), asked.since)) { (host) ":" (port) } } } }
            }
        }
        (edges_table(asked, &map))
    }
}

impl Map {
    fn of(facts: &Facts) -> Self {
        let report = edges::Report::of(&facts.traffic, &facts.services, &FilterArgs::default(), false);
        let services = behind(facts, &report);
        let of_workload = |name: &str| match services.get(name) {
            Some(host) => of_service(host),
            None => {
                let known =
                    name.parse().ok().and_then(|name: WorkloadName| facts.traffic.workloads.get(&name));
                let (namespace, name) = match known {
                    Some(one) => (one.identity.namespace(), one.identity.service_account()),
                    None => name.split_once('/').unwrap_or((OUTSIDE, name)),
                };
                Node { namespace: namespace.to_owned(), name: name.to_owned(), host: None }
            }
        };
        let mut map = Self::default();
        for row in &report.edges {
            let (name, port) = row.to.rsplit_once(':').unwrap_or((&row.to, "0"));
            let (from, to) = match row.seen_by {
                SeenBy::Client => {
                    let from = of_workload(row.from.as_deref().unwrap_or_default());
                    let port = port.parse().unwrap_or_default();
                    let first = map.ports.entry(name.to_owned()).or_insert(port);
                    *first = port.min(*first);
                    (from, of_service(name))
                }
                SeenBy::Server => {
                    let from = match &row.client_identity {
                        Some(one) => Node {
                            namespace: one.namespace().to_owned(),
                            name: one.service_account().to_owned(),
                            host: None,
                        },
                        None => Node { namespace: OUTSIDE.to_owned(), name: NOBODY.to_owned(), host: None },
                    };
                    (from, of_workload(name))
                }
            };
            map.flows.entry((from, to)).or_default().add(row);
        }
        map
    }

    fn nodes(&self) -> Vec<&Node> {
        let all: BTreeSet<&Node> = self.flows.keys().flat_map(|(from, to)| [from, to]).collect();
        all.into_iter().collect()
    }

    /// The page of a service.
    fn url(&self, node: &Node, since: u64) -> Option<String> {
        let host = node.host.as_deref()?;
        let port = self.ports.get(host).copied().unwrap_or_default();
        Some(with_window(&service_url(host, port), since))
    }

    /// What is asked for.
    fn only(mut self, asked: &Asked) -> Self {
        if let Some(namespace) = &asked.namespace {
            self.flows.retain(|(from, to), _| from.namespace == *namespace || to.namespace == *namespace);
        }
        if let Some(focus) = &asked.focus {
            let is = |node: &Node| node.host.as_ref() == Some(focus);
            self.flows.retain(|(from, to), _| is(from) || is(to));
        }
        self
    }
}

fn of_service(host: &str) -> Node {
    let (name, namespace) = kubernetes(host).unwrap_or((host, OUTSIDE));
    Node { namespace: namespace.to_owned(), name: name.to_owned(), host: Some(host.to_owned()) }
}

impl Node {
    fn id(&self) -> String {
        let kind = if self.host.is_some() { "service" } else { "client" };
        format!("{kind} {}/{}", self.namespace, self.name)
    }
}

/// The service that each workload is behind; of several the one that is called, or the first by its name.
fn behind(facts: &Facts, report: &edges::Report) -> BTreeMap<String, String> {
    let called: BTreeSet<&str> = report.edges.iter().map(|row| row.to.as_str()).collect();
    let mut behind = BTreeMap::<String, (bool, String)>::new();
    for service in &facts.services.services {
        let is_called = called.contains(format!("{}:{}", service.host, service.port).as_str());
        for workload in service.endpoints.iter().filter_map(|endpoint| endpoint.workload.as_ref()) {
            let one = (!is_called, service.host.to_string());
            let known = behind.entry(workload.to_string()).or_insert_with(|| one.clone());
            if one < *known {
                *known = one;
            }
        }
    }
    behind.into_iter().map(|(name, (_, host))| (name, host)).collect()
}

/// Services, of the namespace that is asked for, that nobody has called at all.
fn silent(asked: &Asked, facts: &Facts, all: &Map) -> Vec<(String, u16)> {
    let called: BTreeSet<&str> = all.flows.keys().filter_map(|(_, to)| to.host.as_deref()).collect();
    let is_meant = |host: &str| {
        asked.namespace.as_ref().is_none_or(|namespace| of_service(host).namespace == *namespace)
    };
    let services = facts.services.services.iter();
    let services = services.filter(|service| !called.contains(&*service.host) && is_meant(&service.host));
    services.map(|service| (service.host.to_string(), service.port)).collect()
}

fn chooser(asked: &Asked, namespaces: &BTreeSet<String>) -> Markup {
    let window =
        super::WINDOWS.iter().find(|(seconds, ..)| *seconds == asked.since).map_or("1m", |(_, word, _)| word);
    html! {
        form.chooser method="get" action="/dashboard/topology" {
            input type="hidden" name="since" value=(window);
            @if let Some(focus) = &asked.focus {
                p { "Only " b { (focus) } " and its neighbours. " a href=(with_window("/dashboard/topology", asked.since)) { "All" } }
            } @else {
                label { "Namespace " select name="ns" {
                    option value="" { "all" }
                    @for one in namespaces { option value=(one) selected[asked.namespace.as_ref() == Some(one)] { (one) } }
                } }
                button type="submit" { "Show" }
            }
        }
    }
}

fn legend() -> Markup {
    let edge = |class: &str, words: &str| {
        html! { li { svg viewBox="0 0 34 10" aria-hidden="true" { path class={"edge " (class)} d="M1 5H33" stroke-width="2.5" {} } (words) } }
    };
    html! {
        ul.legend aria-label="Legend" {
            (edge("good", "99.5 % or more succeed"))
            (edge("warn", "95 % or more"))
            (edge("bad", "fewer: with its figure"))
            (edge("good plain", "plaintext"))
            (edge("none unsent", "not sent: no endpoint, or no connection"))
            li { svg viewBox="0 0 12 12" aria-hidden="true" { g transform="translate(6 6)" { (lock("good", true)) } } "mutual TLS" }
            li { "Wider: more in a second" }
        }
    }
}

/// A lock, around the origin.
pub(in crate::dashboard) fn lock(class: &str, is_closed: bool) -> Markup {
    html! {
        g class={"lock " (class)} {
            rect x="-3.6" y="-.8" width="7.2" height="5.2" rx="1.1" {}
            // After the body, whose rim would cut it off: a lock looks closed only if its bow reaches the body.
            path.bow d=(if is_closed { "M-2.2 -.5V-2.3a2.2 2.2 0 0 1 4.4 0V-.5" } else { "M-2.2 -.5V-2.9a2.2 2.2 0 0 1 4.2 -.9" }) {}
        }
    }
}

fn picture(asked: &Asked, map: &Map, nodes: &[&Node]) -> Markup {
    let places: BTreeMap<&Node, usize> =
        nodes.iter().enumerate().map(|(place, node)| (*node, place)).collect();
    let names: Vec<&str> = {
        let all: BTreeSet<&str> = nodes.iter().map(|node| node.namespace.as_str()).collect();
        all.into_iter().collect()
    };
    let lane = |node: &&Node| names.binary_search(&node.namespace.as_str()).unwrap_or_default();
    let drawn: Vec<(&(Node, Node), &Flow)> = map.flows.iter().filter(|((from, to), _)| from != to).collect();
    let graph = Graph {
        lanes: nodes.iter().map(lane).collect(),
        edges: drawn.iter().map(|((from, to), _)| (places[from], places[to])).collect(),
    };
    let drawing = graph::draw(&graph);
    let (width, height) = drawing.size;
    let mut lanes: Vec<_> = names.iter().zip(drawing.lanes.iter().copied()).collect();
    lanes.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    // What fails lies above what does not.
    let mut edges: Vec<_> = drawn.iter().zip(&drawing.edges).collect();
    edges.sort_by_key(|((_, flow), _)| std::cmp::Reverse(flow.health()));
    html! {
        div.map tabindex="0" role="region" aria-label="The picture; the same is in the table below" {
            svg.map viewBox={"0 0 " (rounded(width)) " " (rounded(height))} width=(rounded(width)) height=(rounded(height)) role="group" aria-labelledby="map-title map-desc" {
                title #map-title { "Who talks to whom" }
                desc #map-desc { (nodes.len()) " services and clients in " (names.len()) " namespaces, " (drawn.len()) " edges. Calls go from left to right. The same is in the table below." }
                @for (row, (name, (begin, end))) in lanes.iter().enumerate() {
                    rect.lane.odd[row % 2 == 1] x="0" y=(rounded(*begin)) width=(rounded(width)) height=(rounded(end - begin)) {}
                    text.lane x="14" y=(rounded(begin + 17.0)) { (name) }
                }
                @for (edge, points) in &edges { (draw_edge(asked, edge, points)) }
                // Above all lines, so that they can be read.
                (figures(&edges))
                @for (place, node) in nodes.iter().enumerate() { (draw_node(asked, map, node, drawing.nodes[place])) }
            }
        }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn words(flow: &Flow) -> String {
    let mut words = match flow.percent() {
        Some(percent) => format!("{} succeed", shown_percent(percent)),
        None => "nothing has ended".to_owned(),
    };
    if flow.count > 0 {
        words += &format!(", {} requests, {} in a second", count(flow.count), per_second(flow.per_second));
    }
    if flow.connections > 0 {
        words += &format!(", {} connections", count(flow.connections));
    }
    words
        + match flow.security() {
            Secured::MutualTls => ", mutual TLS",
            Secured::Plaintext => ", plaintext",
            Secured::NotSent => ", nothing has been sent",
        }
}

fn draw_edge(asked: &Asked, ((from, to), flow): &(&(Node, Node), &Flow), points: &[(f64, f64)]) -> Markup {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! {} };
    let is_right = last.0 > points[points.len() - 2].0;
    // The line ends where its head begins.
    let head = if is_right { -7.0 } else { 7.0 };
    let mut path = format!("M{} {}", rounded(first.0), rounded(first.1));
    for (place, pair) in points.windows(2).enumerate() {
        let (a, mut b) = (pair[0], pair[1]);
        if place + 2 == points.len() {
            b.0 += head;
        }
        if (a.1 - b.1).abs() < 0.05 {
            path += &format!("L{} {}", rounded(b.0), rounded(b.1));
        } else {
            let middle = rounded(f64::midpoint(a.0, b.0));
            path += &format!(
                "C{middle} {} {middle} {} {} {}",
                rounded(a.1),
                rounded(b.1),
                rounded(b.0),
                rounded(b.1)
            );
        }
    }
    let (x, y) = (rounded(last.0), rounded(last.1));
    let health = flow.health().class();
    let security = flow.security();
    let kind = match security {
        Secured::MutualTls => "",
        Secured::Plaintext => " plain",
        Secured::NotSent => " unsent",
    };
    let sign = x + 2.4 * head;
    html! {
        g.flow data-from=(from.id()) data-to=(to.id()) {
            title { (from.name) " → " (to.name) ": " (words(flow)) }
            path.hit d=(path) {}
            path class={"edge " (health) (kind)} d=(path) stroke-width=(rounded(flow.width(asked.since))) {}
            path class={"head " (health)} d={"M" (x) " " (y) "l" (rounded(head * 1.3)) " -4.2v8.4z"} {}
            g transform={"translate(" (rounded(sign)) " " (rounded(y - 0.2)) ")"} {
                @if security != Secured::NotSent { (lock(health, security == Secured::MutualTls)) }
            }
        }
    }
}

/// An edge with its traffic, and the points that it goes through.
type Drawn<'a> = (&'a (&'a (Node, Node), &'a Flow), &'a Vec<(f64, f64)>);

/// So many figures stand above each other where edges end.
const MOST_FIGURES: usize = 2;

/// How many percent succeed on edges that do not do well, where they end. Of those that end at one place the worst stands lowest,
/// at the edge, and of many only how many more there are.
fn figures(edges: &[Drawn<'_>]) -> Markup {
    type End<'a> = Vec<(f64, f64, bool, &'a (Node, Node), &'a Flow)>;
    let mut ends = BTreeMap::<(&Node, bool), End<'_>>::new();
    for ((both, flow), points) in edges {
        let Some(last) = points.last().filter(|_| flow.health().is_ill()) else { continue };
        let is_right = points.len() < 2 || last.0 > points[points.len() - 2].0;
        ends.entry((&both.1, is_right)).or_default().push((last.0, last.1, is_right, *both, *flow));
    }
    let percent = |flow: &Flow| flow.percent().unwrap_or(100.0);
    for end in ends.values_mut() {
        end.sort_by(|a, b| percent(a.4).total_cmp(&percent(b.4)));
    }
    html! {
        @for end in ends.values() {
            @let more = end.len().saturating_sub(MOST_FIGURES);
            @let shown = if more > 0 { MOST_FIGURES - 1 } else { end.len() };
            @for (place, (x, y, is_right, (from, to), flow)) in end.iter().take(shown).enumerate() {
                g.flow data-from=(from.id()) data-to=(to.id()) {
                    (figure((*x, *y), *is_right, place, flow.health(), &format!("{} {}", flow.health().sign(), shown_percent(percent(flow)))))
                }
            }
            @if let (true, Some((x, y, is_right, _, flow))) = (more > 0, end.get(shown)) {
                g.flow { (figure((*x, *y), *is_right, shown, flow.health(), &format!("and {} more", end.len() - shown))) }
            }
        }
    }
}

fn figure((x, y): (f64, f64), is_right: bool, place: usize, health: Health, words: &str) -> Markup {
    const APART: f64 = 13.0;
    let x = x + if is_right { -24.0 } else { 24.0 };
    let y = y - 5.0 - APART * place as f64;
    html! {
        text class={"figure " (health.class())} x=(rounded(x)) y=(rounded(y)) text-anchor=(if is_right { "end" } else { "start" }) { (words) }
    }
}

fn draw_node(asked: &Asked, map: &Map, node: &Node, (x, y): (f64, f64)) -> Markup {
    let mut own = Flow::default();
    let mut sent = Flow::default();
    let sum = |sum: &mut Flow, flow: &Flow| {
        sum.count = sum.count.saturating_add(flow.count);
        sum.failures = sum.failures.saturating_add(flow.failures);
        sum.per_second += flow.per_second;
        sum.connections = sum.connections.saturating_add(flow.connections);
        sum.broken = sum.broken.saturating_add(flow.broken);
    };
    for ((from, to), flow) in &map.flows {
        if to == node {
            sum(&mut own, flow);
        } else if from == node {
            sum(&mut sent, flow);
        }
    }
    let is_called = own.count > 0 || own.connections > 0;
    let (told, verb) = if is_called { (&own, "gets") } else { (&sent, "sends") };
    let health = if is_called { own.health() } else { Health::Silent };
    let short: String = if node.name.chars().count() > LONGEST {
        node.name.chars().take(LONGEST - 1).chain(['…']).collect()
    } else {
        node.name.clone()
    };
    let kind = if node.host.is_some() { "service" } else { "client" };
    let inner = html! {
        title { (node.name) " in " (node.namespace) ": " (verb) " " (words(told)) }
        rect.box width=(NODE.0) height=(NODE.1) rx="6" {}
        rect class={"side " (health.class())} width="5" height=(NODE.1) rx="2" {}
        text.name x="14" y="17" { (short) }
        text.facts x="14" y="31" {
            (per_second(told.rate(asked.since))) "/s"
            @if let Some(percent) = own.percent().filter(|_| is_called) { " · " tspan class=(health.class()) { @if health != Health::Well { (health.sign()) " " } (shown_percent(percent)) } }
            @else { " sent" }
        }
    };
    let url = map.url(node, asked.since);
    html! {
        g class={"node " (kind) " " (health.class())} data-node=(node.id()) transform={"translate(" (rounded(x)) " " (rounded(y)) ")"} {
            @match url { Some(url) => { a href=(url) { (inner) } }, None => { (inner) } }
        }
    }
}

fn edges_table(asked: &Asked, map: &Map) -> Markup {
    let head = [
        ("From", false),
        ("To", false),
        ("Secured", false),
        ("Success", true),
        ("Per second", true),
        ("Count", true),
    ];
    let mut flows: Vec<_> = map.flows.iter().collect();
    flows.sort_by(|a, b| {
        a.1.health().cmp(&b.1.health()).then(b.1.rate(asked.since).total_cmp(&a.1.rate(asked.since)))
    });
    let name = |node: &Node| html! { (node.name) span.rest { " in " (node.namespace) } };
    let rows = html! {
        @for ((from, to), flow) in flows.iter().take(MOST_ROWS) {
            tr.{ (flow.health().class()) } {
                th scope="row" { (name(from)) }
                td data-label="To" { @match map.url(to, asked.since) { Some(url) => { a.service href=(url) { (name(to)) } }, None => { (name(to)) } } }
                td data-label="Secured" { (secured(flow.security())) }
                td.num data-label="Success" { @match flow.percent() { Some(percent) => { (success(percent)) }, None => "–" } }
                td.num data-label="Per second" { (per_second(flow.rate(asked.since))) }
                td.num data-label="Count" { (count(flow.count.saturating_add(flow.connections))) }
            }
        }
    };
    html! {
        @if !map.flows.is_empty() {
            section aria-labelledby="edges" {
                h2 #edges { "Edges " span.of { "those that fail first, then the busiest" } }
                (cards("Who talks to whom", &head, &rows))
                @if flows.len() > MOST_ROWS { p.note { "and " (flows.len() - MOST_ROWS) " more" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_edges_that_end_at_one_place_do_not_lie_on_each_other() {
        let node = |name: &str| Node { namespace: "a".to_owned(), name: name.to_owned(), host: None };
        let drawn = |count: usize| {
            let ends: Vec<(Node, Node)> =
                (0..count).map(|one| (node(&format!("c{one}")), node("s"))).collect();
            let flows: Vec<Flow> = (0..count)
                .map(|one| Flow { count: 100, failures: 10 + one as u64, ..Flow::default() })
                .collect();
            let both: Vec<(&(Node, Node), &Flow)> = ends.iter().zip(&flows).collect();
            let points = vec![(0.0, 0.0), (100.0, 50.0)];
            let points: Vec<_> = both.iter().map(|_| points.clone()).collect();
            let edges: Vec<_> = both.iter().zip(&points).collect();
            figures(&edges).0
        };
        let two = drawn(2);
        assert!(two.contains("y=\"45\"") && two.contains("y=\"32\""), "{two}");
        assert!(
            two.find("89.00 %").unwrap() < two.find("90.00 %").unwrap(),
            "the worst stands at the edge: {two}"
        );
        let many = drawn(5);
        assert_eq!((many.matches("<text").count(), many.contains("and 4 more")), (2, true), "{many}");
        assert!(many.contains("86.00 %"), "{many}");
    }

    #[test]
    fn connections_that_fail_are_not_hidden_by_requests_that_succeed() {
        let percent = |count, failures, connections, broken| {
            Flow { count, failures, connections, broken, ..Flow::default() }.percent()
        };
        assert_eq!(percent(0, 0, 0, 0), None);
        assert_eq!(percent(100, 10, 0, 0), Some(90.0));
        assert_eq!(percent(100, 0, 4, 4), Some(0.0));
        assert_eq!(percent(4, 2, 4, 0), Some(50.0));
    }
}
