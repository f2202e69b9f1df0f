//! Which requests to a service go where as its `HTTPRoute`s or `GRPCRoute`s say.
//!
//! All routes of one kind on a port are one table, in which the most specific match decides, whosever it is; among
//! equals the oldest route, and in a route the first rule (HTTPRoute `rules.matches`).

use std::{collections::HashMap, fmt};

use selvedge_model::{Filters, Order, Protocol, RouteTable, Rule, WeightedBackend, filter::Fraction};
use selvedge_ops::plain_within;

use super::{
    super::Problems,
    VirtualService,
    backends::{Backends, Share},
    parents::{Attached, Attachments, GatewayRoute, Rank},
    resolve::Reference,
};
use crate::{
    problem::LONGEST_NAME,
    resources::{
        Document, HttpRouteSpec,
        http_route::{Asks, HttpBackend, HttpRouteRule},
        linkerd::Timeouts,
        references::Parent,
        route_filters::{RouteFilters, RouteMirror},
    },
};

pub(super) type HttpRoutes<'a> = Attachments<'a, HttpRouteSpec>;

/// The status of what has no backend that can be used (HTTPRoute `backendRefs`).
const UNUSABLE: u16 = 500;

impl GatewayRoute for HttpRouteSpec {
    fn parents(&self) -> &[Parent] {
        &self.parents.services
    }

    fn rank(&self) -> Rank {
        if self.is_grpc { Rank::Grpc } else { Rank::Http }
    }

    fn suits(&self, protocol: Protocol) -> bool {
        protocol != Protocol::Tcp
    }

    fn has_no_effect(&self, host: &str) -> String {
        format!(
            "has no effect: what {host} speaks there is not HTTP; name its port http or grpc, or use a TCPRoute"
        )
    }
}

/// What a rule of a route is called.
pub(super) fn rule_name(route: &Document<HttpRouteSpec>, rule: &HttpRouteRule) -> String {
    match &rule.name {
        Some(name) => format!("{} rules[{}] {}", route.name, rule.index, plain_within(name, LONGEST_NAME)),
        None => format!("{} rules[{}]", route.name, rule.index),
    }
}

/// Reports those rules and matches of `routes`, of which the first goes first, that requests `at` some place never reach, because
/// another route that goes before theirs asks for the very same. Of one route that is told of it alone.
pub(in super::super) fn report_repeated(
    routes: &[&Document<HttpRouteSpec>],
    at: impl fmt::Display,
    problems: &mut Problems,
) {
    if routes.len() < 2 {
        return;
    }
    let mut first: HashMap<Asks, (&Document<HttpRouteSpec>, usize)> = HashMap::new();
    for route in routes.iter().copied() {
        for rule in &route.spec.rules {
            let of_others = |asks: &Asks| first.get(asks).filter(|(other, _)| !std::ptr::eq(*other, route));
            let before: Vec<_> = rule.asks.iter().map(of_others).collect();
            let field = format!("spec.rules[{}]", rule.index);
            let mut tell = |field: &str, (other, index): (&Document<HttpRouteSpec>, usize)| {
                let message = format!(
                    "is never reached at {at}: rules[{index}] of {} ({}), which goes before it, asks for the same; change or \
                     remove one of them",
                    other.name, other.location
                );
                problems.warning(route, field, message);
            };
            match before.first().copied().flatten() {
                Some(other) if before.iter().all(Option::is_some) => tell(&field, *other),
                _ => {
                    for (place, other) in before.into_iter().enumerate() {
                        if let Some(other) = other {
                            tell(&format!("{field}.matches[{place}]"), *other);
                        }
                    }
                }
            }
        }
        for rule in &route.spec.rules {
            for asks in &rule.asks {
                first.entry(*asks).or_insert((route, rule.index));
            }
        }
    }
}

impl Backends<'_> {
    /// The routes of the Gateway API for requests to this port; `None` if there are none. They replace what `document`
    /// says of requests.
    pub(super) fn gateway_http(
        &mut self,
        attached: &[&Attached<'_, HttpRouteSpec>],
        document: Option<&VirtualService>,
        problems: &mut Problems,
    ) -> Option<RouteTable> {
        let winner = attached.first()?;
        if let Some(document) = document.filter(|_| !winner.for_own_namespace) {
            let message = format!(
                "has no effect on {}: {} ({}) decides there; remove one of them",
                self.called(),
                winner.route.name,
                winner.route.location
            );
            problems.overruled(document, "spec.http", message);
        }
        let mut followed: Vec<&Document<HttpRouteSpec>> = Vec::new();
        for one in attached {
            problems.decides(one.route, one.parent.index);
            // By its port and as one of all.
            if !followed.iter().any(|route| std::ptr::eq(*route, one.route)) {
                followed.push(one.route);
            }
        }
        report_repeated(&followed, self.called(), problems);
        let rules =
            followed.into_iter().flat_map(|route| route.spec.rules.iter().map(move |rule| (route, rule)));
        let rules = rules.map(|(route, rule)| self.gateway_rule(route, rule, problems)).collect();
        Some(RouteTable::new(Order::MostSpecific, rules))
    }

    /// The rule `rule` of `route`.
    pub(in super::super) fn gateway_rule(
        &mut self,
        route: &Document<HttpRouteSpec>,
        rule: &HttpRouteRule,
        problems: &mut Problems,
    ) -> Rule {
        let field = format!("spec.rules[{}]", rule.index);
        let list = format!("{field}.backendRefs");
        let backends = rule.backends.iter();
        let backends: Vec<_> =
            backends.map(|backend| self.gateway_backend(route, &list, backend, problems)).collect();
        let filters = self.gateway_filters(route, &rule.filters, problems);
        if filters.answer.is_none() && backends.iter().all(|share| share.weight == 0) {
            let message = match backends.as_slice() {
                [] => "names no backend, so its requests are answered 500; name one",
                _ => {
                    "has only backends of weight 0, so its requests are answered 500; give one of them a weight"
                }
            };
            problems.warning(route, &list, message);
        }
        let name = rule_name(route, rule);
        let (Timeouts { request: timeout, stream }, retry) = self.times(rule.timeouts, rule.retry.as_ref());
        let matches = rule.matches.clone();
        let session = rule.session.as_deref().map(|session| self.session(session, &name));
        let session =
            session.or_else(|| self.session_of_service(&backends, &name, Some((route, &*list)), problems));
        Rule {
            name,
            matches,
            backends,
            timeout,
            stream,
            retry,
            filters,
            unusable_status: UNUSABLE,
            session,
            access_log: self.access_log(route, None, problems),
        }
    }

    fn gateway_backend(
        &mut self,
        route: &Document<HttpRouteSpec>,
        list: &str,
        HttpBackend { to, filters }: &HttpBackend,
        problems: &mut Problems,
    ) -> WeightedBackend {
        let backend = self.backend(route, list, Reference::Object(to), Share::GatewayRequests, problems);
        let filters = self.gateway_filters(route, filters, problems);
        let filters = (!filters.is_empty()).then(|| Box::new(filters));
        WeightedBackend { backend, weight: to.weight, filters }
    }

    /// What the filters do, and a report of those that cannot be used.
    fn gateway_filters(
        &mut self,
        route: &Document<HttpRouteSpec>,
        filters: &RouteFilters,
        problems: &mut Problems,
    ) -> Filters {
        for (field, message) in &filters.unusable {
            problems.error(route, field, message);
        }
        let mirrors = filters.mirrors.iter().filter(|mirror| mirror.fraction != Fraction::NONE);
        let mirrors = mirrors.map(|RouteMirror { field, to, fraction }| {
            self.mirror(route, field, Reference::MirrorObject(to), *fraction, problems)
        });
        Filters { mirrors: mirrors.collect(), ..filters.filters.clone() }
    }
}
