//! The rule that a request follows, and what it misses before.

use selvedge_control_plane::compile::{RuleLocations, Written};
use selvedge_model::{Followed, Match, RouteTable, Rule, Service, facts::Request};

use super::{
    caller::Caller,
    condition,
    explanation::{MatchView, MissedMatch, RuleView},
};

/// Where a request goes by the rules of a service.
pub(super) struct Ruling<'s> {
    /// The rule that it follows, and the place of the match that holds, as its sidecar knows them.
    pub(super) followed: Option<(Rule, Option<usize>)>,
    pub(super) view: Option<RuleView>,
    pub(super) missed: Vec<MissedMatch>,
    service: &'s Service,
}

/// Finds the rules of a service for one client.
pub(super) struct Finder<'a> {
    pub(super) service: &'a Service,
    pub(super) caller: &'a Caller,
    pub(super) locations: &'a RuleLocations<'a>,
}

impl<'a> Finder<'a> {
    /// What `request` follows.
    pub(super) fn find(&self, request: &Request<'_>) -> Ruling<'a> {
        let all = &self.service.routes;
        // The client's sidecar has a table of its own where matches ask for clients.
        let own = all.clone().for_client(&self.caller.labels, &self.caller.namespace);
        let found = own.find(request);
        let written = found.and_then(|found| self.as_written(found));
        let mut ruling = Ruling { followed: None, view: None, missed: Vec::new(), service: self.service };
        ruling.missed = self.missed(request, written);
        if let Some(Followed { rule, matched }) = found {
            let rule = Rule::clone(&own.rules()[rule]);
            ruling.view = Some(self.view(&rule, written));
            ruling.followed = Some((rule, matched));
        }
        ruling
    }

    fn view(&self, rule: &Rule, written: Option<Followed>) -> RuleView {
        let matched = written.and_then(|written| written.matched).map(|index| MatchView {
            index,
            written: self.matched(&rule.name, index, rule.matches.get(index)),
        });
        let remark = match (self.service.routes.rule_for_others(), written) {
            (Some(_), None) => {
                Some("none of the service's routes is for this client, so it has the default one")
            }
            _ if rule.name == "default" => Some("no document says where requests to the service go"),
            _ => None,
        };
        RuleView { written: self.locations.rule(&rule.name), name: rule.name.clone(), matched, remark }
    }

    /// Where the match `asks`, at `index` of the rule `name`, is written.
    fn matched(&self, name: &str, index: usize, asks: Option<&Match>) -> Option<Written> {
        match self.caller.is_gateway {
            true => self.locations.matched_as(name, asks?),
            false => self.locations.matched(name, self.service.key.port, index),
        }
    }

    /// The places of `found`, which the client's own table has, in the table of all clients; `None`: it is the rule for
    /// those that none is for.
    fn as_written(&self, found: Followed) -> Option<Followed> {
        let is_for = |one: &Match| one.client.is_match(&self.caller.labels, &self.caller.namespace);
        let mut kept = self
            .service
            .routes
            .rules()
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.matches.is_empty() || rule.matches.iter().any(is_for));
        let (rule, written) = kept.nth(found.rule)?;
        let mut matches = (0..written.matches.len()).filter(|place| is_for(&written.matches[*place]));
        let matched = found.matched.and_then(|place| matches.nth(place));
        Some(Followed { rule, matched })
    }

    /// The matches that are tried before `found`, and why `request` misses each.
    fn missed(&self, request: &Request<'_>, found: Option<Followed>) -> Vec<MissedMatch> {
        let table = &self.service.routes;
        let before = table.tried().take_while(|one| Some(*one) != found);
        before.filter_map(|one| self.missed_match(table, one, request)).collect()
    }

    fn missed_match(&self, table: &RouteTable, at: Followed, request: &Request<'_>) -> Option<MissedMatch> {
        let rule = &table.rules()[at.rule];
        let index = at.matched?;
        let one = &rule.matches[index];
        let why = if one.client.is_match(&self.caller.labels, &self.caller.namespace) {
            condition::words(one, one.missed(request)?, request, self.caller)
        } else {
            condition::of_client(&one.client, self.caller)
        };
        let written = self.matched(&rule.name, index, Some(one));
        Some(MissedMatch { rule: rule.name.clone(), written, why })
    }
}

impl Ruling<'_> {
    /// Why there is no rule.
    pub(super) fn no_route(&self) -> String {
        format!("{} has routes, and none matches this request", self.service.key)
    }
}
