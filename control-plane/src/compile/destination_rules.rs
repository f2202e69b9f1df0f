//! Which `DestinationRule` a client follows for a host, and what it says about a subset.

mod of_host;
mod reports;

use std::collections::{BTreeMap, HashMap, HashSet};

use selvedge_model::{
    AppConnections, Endpoints, HealthCheck, Hedge, TrafficPolicy, UpstreamTls, facts::selects,
};

pub(super) use self::reports::{conflict, report_checks};
use self::{
    of_host::HostRules,
    reports::{
        CHECKED, HEDGED, report_empty_subsets, report_http_of_opaque, report_limits_of_http, report_ports,
        report_selects_nobody,
    },
};
use super::{
    MeshSettings, Problems,
    clients::{Client, Labels, SelectedClients},
    hosts::{matching, resolve, suggestion},
    places,
    room::{Reach, Room},
    services::{Catalog, KnownHost},
};
use crate::resources::{
    DestinationRuleSpec, Document, Resources,
    destination_rule::{PolicyBlocks, Subset},
    load_balancer::BalancerBlock,
};

type Rule = Document<DestinationRuleSpec>;

/// All rules of one namespace for one host or pattern and for the same clients, whom the same labels select: the policy of the
/// first that has one, everyone's subsets. What annotations ask for is that of the first that has it, too.
#[derive(Debug)]
pub(super) struct RuleSet<'a> {
    policy: (&'a Rule, &'a PolicyBlocks),
    health_check: Option<(&'a Rule, &'a HealthCheck)>,
    hedge: Option<(&'a Rule, Hedge)>,
    subsets: Vec<(&'a Rule, &'a Subset)>,
    /// The first place in there of each name: many rules may define a subset each.
    by_name: HashMap<&'a str, usize>,
    /// The first of them that cannot be used: nothing is sent to the host.
    unusable: Option<&'a Rule>,
}

/// The namespace of clients, if it has rules of its own for some hosts, and which they follow for each, by where that is in
/// memory.
pub(super) type Found<'r> = (Option<&'r str>, Vec<Option<*const ()>>);

/// Every rule, by namespace and host pattern.
#[derive(Debug)]
pub(super) struct DestinationRules<'a> {
    namespaces: BTreeMap<&'a str, BTreeMap<String, HostRules<'a>>>,
    root_namespace: &'a str,
    /// The namespaces with rules, and those that rules name. All others follow the same.
    told_apart: HashSet<&'a str>,
    /// Those with subsets, by the host that they name; none that is for all below a wildcard.
    with_subsets: HashMap<String, Vec<&'a Rule>>,
    /// Whether any of them cannot be used. There seldom is one to look for.
    some_unusable: bool,
    documents: Vec<&'a Rule>,
}

impl<'a> DestinationRules<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &'a MeshSettings,
        catalog: &Catalog<'_>,
        clients: &SelectedClients<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut namespaces: BTreeMap<&str, BTreeMap<String, HostRules<'_>>> = BTreeMap::new();
        let (mut told_apart, mut with_subsets) = (HashSet::new(), HashMap::<String, Vec<&Rule>>::new());
        let mut room = Room::default();
        let mut some_unusable = resources.destination_rules.iter().any(|rule| rule.unusable);
        for rule in &resources.destination_rules {
            let rule: &Rule = rule;
            let namespace = &*rule.name.namespace;
            let host = resolve(&rule.spec.host, namespace, &settings.cluster_domain);
            let below = catalog.below(&host);
            if below.is_empty() {
                let remedy = suggestion(&host, &settings.cluster_domain, |name| catalog.find(name).is_some());
                problems.warning(rule, "spec.host", format!("nothing is called {host}; {remedy}"));
            }
            report_limits_of_http(rule, &below, problems);
            report_http_of_opaque(rule, (&host, &*below), problems);
            report_ports(rule, (&host, &*below), problems);
            report_selects_nobody(rule, clients, problems);
            let selected = rule.spec.selector.as_ref().map(|selector| clients.count(namespace, selector));
            let named = || rule.spec.export_to.namespaces(namespace);
            let reach = Reach { ports: below.ports, namespaces: named().count(), clients: selected };
            let taken = room.take(namespace, rule.size, reach);
            told_apart.insert(namespace);
            let is_too_much = match taken {
                Ok(()) => {
                    told_apart.extend(named());
                    false
                }
                Err(why) => {
                    let told = format!("cannot be used ({why}), so nothing is sent to {host}");
                    problems.no_room(rule, "spec.host", told);
                    some_unusable = true;
                    true
                }
            };
            if !is_too_much && !rule.unusable && !rule.spec.subsets.is_empty() && !host.starts_with('*') {
                with_subsets.entry(host.clone()).or_default().push(rule);
            }
            let sets = namespaces.entry(namespace).or_default();
            let sets = sets.entry(host).or_default();
            if is_too_much {
                sets.push(RuleSet { unusable: Some(rule), ..RuleSet::of(rule) });
                continue;
            }
            if !sets.join(rule, problems) {
                sets.push(RuleSet::of(rule));
            }
        }
        let documents = resources.destination_rules.iter().map(|rule| &**rule).collect();
        let root_namespace = &settings.root_namespace;
        Self { namespaces, root_namespace, told_apart, with_subsets, some_unusable, documents }
    }

    /// Each of them, as it is written.
    pub(super) fn documents(&self) -> impl Iterator<Item = &'a Rule> {
        self.documents.iter().copied()
    }

    /// Reports the subsets of `host` that select none of `endpoints`, which are those of all its ports, if it has any.
    pub(super) fn report_subsets<'e>(
        &self,
        host: &KnownHost<'_>,
        endpoints: impl Iterator<Item = &'e Endpoints>,
        problems: &mut Problems,
    ) {
        if let Some(rules) = self.with_subsets.get(&*host.host) {
            let meant = rules.iter().copied().filter(|rule| host.is_meant_in(&rule.name.namespace));
            let meant: Vec<&Rule> = meant.collect();
            report_empty_subsets(&host.host, &meant, endpoints, problems);
        }
    }

    /// The rules for `host` that `client` follows.
    pub(super) fn find(&self, client: Client<'_>, host: &KnownHost<'_>) -> Option<&RuleSet<'a>> {
        // Rules of the root namespace are for everybody, unless they say that they are not. So a client there, often a
        // gateway, follows the host's own before them, as any other does (Istio's `destinationRule`).
        let is_root = client.namespace == Some(self.root_namespace);
        let first = |set: &RuleSet<'_>| !is_root || !set.policy.0.spec.export_to.leaves(self.root_namespace);
        let any = |_: &RuleSet<'_>| true;
        let find = |namespace, step: &dyn Fn(&RuleSet<'_>) -> bool| {
            self.in_namespace(namespace, &host.host, client, step)
        };
        client
            .namespace
            .and_then(|own| find(own, &first))
            .or_else(|| find(host.namespace, &any))
            .or_else(|| find(self.root_namespace, &any))
    }

    /// What tells the rules for `hosts` that `client`, in a namespace, follows from those that others do. `None`: those of
    /// clients in a namespace without rules.
    pub(super) fn found<'r>(&self, client: Client<'r>, hosts: &[&KnownHost<'_>]) -> Option<Found<'r>> {
        let namespace = client.namespace.filter(|namespace| self.told_apart.contains(namespace))?;
        let own = self.namespaces.get(namespace);
        let has_own =
            own.is_some_and(|own| hosts.iter().any(|host| matching(own, &host.host).next().is_some()));
        let sets = hosts.iter().map(|host| self.find(client, host));
        let places = sets.map(|set| set.map(|set| std::ptr::from_ref(set).cast()));
        Some((has_own.then_some(namespace), places.collect()))
    }

    /// Whether rules for any of `hosts` select clients in `namespace`.
    pub(super) fn select_clients(&self, namespace: &str, hosts: &[&KnownHost<'_>]) -> bool {
        let Some(own) = self.namespaces.get(namespace) else { return false };
        let mut here = hosts.iter().flat_map(|host| matching(own, &host.host));
        here.any(|(_, rules)| !rules.selecting.is_empty())
    }

    /// A rule that defines the subset `name` of `host` for the clients of its own namespace alone, or for some of these.
    pub(super) fn subset_elsewhere(&self, name: &str, host: &KnownHost<'_>) -> Option<&'a Rule> {
        let for_all = [host.namespace, self.root_namespace];
        self.namespaces.iter().find_map(|(namespace, sets)| {
            let is_for_all = for_all.contains(namespace);
            let set =
                matching(sets, &host.host).find_map(|(_, rules)| rules.with_subset(name, is_for_all))?;
            Some(set.subsets[*set.by_name.get(name)?].0)
        })
    }

    /// The namespaces with rules of their own for any of `hosts`: in them, or for them and not for all.
    pub(super) fn namespaces_with_rules<'s>(
        &'s self,
        hosts: &'s [&str],
    ) -> impl Iterator<Item = &'a str> + use<'s, 'a> {
        self.namespaces.iter().flat_map(move |(namespace, sets)| {
            let sets = hosts.iter().flat_map(|host| matching(sets, host)).flat_map(|(_, rules)| &rules.sets);
            // One that cannot be used is for everybody.
            let rules: Vec<_> = sets.map(|set| (set.policy.0, set.unusable.is_none())).collect();
            let own = (!rules.is_empty()).then_some(*namespace);
            let usable = rules.into_iter().filter_map(|(rule, is_usable)| is_usable.then_some(rule));
            own.into_iter().chain(usable.flat_map(|rule: &'a Rule| rule.spec.export_to.namespaces(namespace)))
        })
    }

    /// The rules of `namespace` for `host` that `client` follows, of those that `counts`.
    fn in_namespace(
        &self,
        namespace: &str,
        host: &str,
        client: Client<'_>,
        counts: &dyn Fn(&RuleSet<'_>) -> bool,
    ) -> Option<&RuleSet<'a>> {
        let here = self.namespaces.get(namespace)?;
        // Whether a closer rule would overrule one that cannot be used, nobody knows.
        if self.some_unusable {
            let mut matching = matching(here, host);
            let unusable = matching.find_map(|(_, rules)| rules.unusable(client, counts));
            if unusable.is_some() {
                return unusable;
            }
        }
        let matching = matching(here, host)
            .filter_map(|(closeness, rules)| Some((closeness, rules.find(client, counts)?)));
        matching.max_by_key(|(closeness, _)| *closeness).map(|(_, set)| set)
    }
}

impl<'a> RuleSet<'a> {
    /// The first of them, if they are in `namespace`.
    pub(super) fn in_namespace(&self, namespace: &str) -> Option<&'a Rule> {
        let first = self.unusable.unwrap_or(self.policy.0);
        (*first.name.namespace == *namespace).then_some(first)
    }

    /// What `rule` says alone.
    fn of(rule: &'a Rule) -> Self {
        Self {
            policy: (rule, &rule.spec.policy),
            health_check: rule.spec.health_check.as_ref().map(|check| (rule, check)),
            hedge: rule.spec.hedge.map(|hedge| (rule, hedge)),
            by_name: rule
                .spec
                .subsets
                .iter()
                .enumerate()
                .rev()
                .map(|(place, one)| (&*one.name, place))
                .collect(),
            subsets: rule.spec.subsets.iter().map(|subset| (rule, subset)).collect(),
            unusable: rule.unusable.then_some(rule),
        }
    }

    /// The labels of the clients that they select; `None`: they select none, and are for all.
    fn selector(&self) -> Option<&'a Labels> {
        self.policy.0.spec.selector.as_ref()
    }

    /// Whether they are for `client`.
    fn is_for(&self, client: Client<'_>) -> bool {
        let is_selected = |asked: &Labels| client.labels.is_some_and(|labels| selects(asked, labels));
        let (namespace, own) = (&self.policy.0.name.namespace, &self.policy.0.spec);
        own.export_to.includes(namespace, client.namespace) && own.selector.as_ref().is_none_or(is_selected)
    }

    /// Adds a later rule of the same namespace for the same host and the same clients.
    fn join(&mut self, rule: &'a Rule, problems: &mut Problems) {
        let later = Self::of(rule);
        let mut overruled = |field: &str, first: &Rule| {
            let message = format!(
                "has no effect: {} ({}) comes first for this host; merge them",
                first.name, first.location
            );
            problems.overruled(rule, field, message);
        };
        match (self.health_check, later.health_check) {
            (Some((first, _)), Some(_)) => overruled(CHECKED, first),
            (first, later) => self.health_check = first.or(later),
        }
        match (self.hedge, later.hedge) {
            (Some((first, _)), Some(_)) => overruled(HEDGED, first),
            (first, later) => self.hedge = first.or(later),
        }
        let says_nothing = |(_, policy): (&Rule, &PolicyBlocks)| *policy == PolicyBlocks::default();
        if says_nothing(self.policy) {
            self.policy = later.policy;
        } else if !says_nothing(later.policy) {
            overruled("spec.trafficPolicy", self.policy.0);
        }
        self.unusable = self.unusable.or(later.unusable);
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            match self.by_name.get(&*subset.name).map(|place| self.subsets[*place]) {
                None => {
                    self.by_name.insert(&subset.name, self.subsets.len());
                    self.subsets.push((rule, subset));
                }
                Some((first, _)) => {
                    let message = format!(
                        "{:?} is already defined by {} ({}), which is used",
                        subset.name, first.name, first.location
                    );
                    problems.overruled(rule, &format!("spec.subsets[{index}].name"), message);
                }
            }
        }
    }

    /// The labels of a subset of `host` and the policy for its `port`; `None` if no rule defines it.
    pub(super) fn subset(
        &self,
        name: &str,
        host: &KnownHost<'_>,
        port: u16,
    ) -> Option<(BTreeMap<String, String>, TrafficPolicy)> {
        let (_, subset) = self.subsets[*self.by_name.get(name)?];
        Some((subset.labels.clone(), self.merged(Some(&subset.policy), host, port)))
    }

    /// The policy for `port` of `host` as a whole.
    pub(super) fn policy(&self, host: &KnownHost<'_>, port: u16) -> TrafficPolicy {
        self.merged(None, host, port)
    }

    /// The policy for `port` of `host`, of a subset or as a whole.
    fn merged(&self, subset: Option<&PolicyBlocks>, host: &KnownHost<'_>, port: u16) -> TrafficPolicy {
        let blocks = blocks(subset, self.policy.1, port);
        let default = TrafficPolicy::default();
        let pool = blocks.connection_pool.unwrap_or_default();
        let balancing = blocks.load_balancer.or_else(|| host.balancer().cloned()).unwrap_or_default();
        let health_check =
            self.health_check.map(|(_, check)| check).or_else(|| Some(host.health_check(port)?.1));
        TrafficPolicy {
            load_balancer: balancing.balancer,
            warmup: balancing.warmup,
            locality: places::policy(balancing.locality.as_ref(), host, blocks.outlier_detection.is_some()),
            outlier_detection: blocks.outlier_detection,
            health_check: health_check.cloned(),
            connect_timeout: pool.connect_timeout.unwrap_or(default.connect_timeout),
            connections: pool.connections,
            connection_pool: pool.pool,
            retry_budget: blocks.retry_budget,
            hedge: self.hedge.map(|(_, hedge)| hedge).or_else(|| host.hedge()),
            proxy_protocol: blocks.proxy_protocol,
            tunnel: blocks.tunnel,
            tls: blocks.tls.map(|tls| named(tls, host, port)),
            spoken: default.spoken,
        }
    }

    /// How sidecars of the servers of `host` connect to their apps for its `port`. As in Istio, subsets say nothing
    /// about it.
    pub(super) fn app_connections(&self, port: u16) -> AppConnections {
        let pool = blocks(None, self.policy.1, port).connection_pool.unwrap_or_default();
        AppConnections {
            connect_timeout: pool.connect_timeout,
            idle_timeout: pool.pool.idle_timeout,
            max_requests: pool.pool.max_requests_per_connection,
        }
    }

    /// Why nothing may be sent to the host, if that is so.
    pub(super) fn refusal(&self, host: &str) -> Option<String> {
        let rule = self.unusable?;
        Some(format!("{} ({}) cannot be used, so nothing is sent to {host}", rule.name, rule.location))
    }

    /// Whether there is a subset of that name.
    pub(super) fn has_subset(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The names of the subsets, for error messages.
    pub(super) fn subset_names(&self) -> impl Iterator<Item = &'a str> {
        self.subsets.iter().map(|(_, subset)| subset.name.as_str())
    }
}

/// A subset's blocks over its host's: block by block, never field by field. What the host says for a port replaces all of
/// its own that a port can have, also the blocks that it does not give; what the subset says for it replaces both (Istio's
/// `MergeSubsetTrafficPolicy`).
fn blocks(subset: Option<&PolicyBlocks>, rule: &PolicyBlocks, port: u16) -> PolicyBlocks {
    let of_port = subset.and_then(|blocks| blocks.ports.get(&port)).cloned();
    let mut blocks = of_port.unwrap_or_else(|| {
        let of_host = rule.ports.get(&port).unwrap_or(rule);
        PolicyBlocks {
            load_balancer: subset
                .and_then(|blocks| blocks.load_balancer.clone())
                .or_else(|| of_host.load_balancer.clone()),
            outlier_detection: subset
                .and_then(|blocks| blocks.outlier_detection.clone())
                .or_else(|| of_host.outlier_detection.clone()),
            connection_pool: subset
                .and_then(|blocks| blocks.connection_pool.clone())
                .or_else(|| of_host.connection_pool.clone()),
            tls: subset.and_then(|blocks| blocks.tls.clone()).or_else(|| of_host.tls.clone()),
            ..PolicyBlocks::default()
        }
    });
    blocks.retry_budget = subset.and_then(|blocks| blocks.retry_budget).or(rule.retry_budget);
    blocks.proxy_protocol = subset.and_then(|blocks| blocks.proxy_protocol).or(rule.proxy_protocol);
    blocks.tunnel = subset.and_then(|blocks| blocks.tunnel.clone()).or_else(|| rule.tunnel.clone());
    blocks
}

/// The policy for `port` of a host that no rule is for.
pub(super) fn without_rules(host: &KnownHost<'_>, port: u16) -> TrafficPolicy {
    let BalancerBlock { balancer, warmup, .. } = host.balancer().cloned().unwrap_or_default();
    let health_check = host.health_check(port).map(|(_, check)| check.clone());
    TrafficPolicy {
        load_balancer: balancer,
        warmup,
        locality: places::policy(None, host, false),
        health_check,
        hedge: host.hedge(),
        ..TrafficPolicy::default()
    }
}

/// `tls` with the names that the host gives where it gives none.
fn named(mut tls: UpstreamTls, host: &KnownHost<'_>, port: u16) -> UpstreamTls {
    if let UpstreamTls::Originate(origination) = &mut tls {
        if origination.sni.is_none() {
            origination.sni = host.server_name().map(str::to_owned);
        }
        if origination.subject_alt_names.is_empty() {
            origination.subject_alt_names = host.subject_alt_names(port).to_vec();
        }
    }
    tls
}
