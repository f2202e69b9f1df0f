//! Which `DestinationRule` a client follows for a host, and what it says about a subset.

use std::collections::{BTreeMap, HashMap, HashSet};

use selvedge_model::{
    AppConnections, Endpoints, HealthCheck, Hedge, Protocol, ServiceKey, TrafficPolicy, UpstreamTls,
    facts::selects,
};

use super::{
    MeshSettings, Problems,
    clients::{Client, Labels, SelectedClients, SelectorTree},
    hosts::{matching, resolve, suggestion},
    places,
    room::Room,
    services::{Below, Catalog, KnownHost},
};
use crate::problem::{DocumentName, Severity};
use crate::resources::{
    DestinationRuleSpec, Document, Resources,
    destination_rule::{PolicyBlocks, Subset},
    export_to::ExportTo,
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

/// All rules of one namespace for one host or pattern. There may be a set for each namespace: none is looked for through all.
#[derive(Debug, Default)]
struct HostRules<'a> {
    sets: Vec<RuleSet<'a>>,
    /// The places of those that are for everybody.
    for_all: Vec<usize>,
    /// The places of those that are for all clients of some namespaces, by these.
    by_client: HashMap<&'a str, Vec<usize>>,
    /// The places of those that select clients by their labels.
    selecting: SelectorTree<'a>,
    /// The place of the first of those that are for the same clients.
    by_clients: HashMap<(&'a ExportTo, Option<&'a Labels>), usize>,
    /// The first place with a subset of each name, and the first of those that select clients.
    by_subset: HashMap<&'a str, (usize, Option<usize>)>,
    /// The places of those with a rule that cannot be used and that select no clients.
    unusable: Vec<usize>,
    /// The places of those with a rule that cannot be used and that select clients.
    unusable_selecting: SelectorTree<'a>,
}

impl<'a> HostRules<'a> {
    fn push(&mut self, set: RuleSet<'a>) {
        let (place, rule) = (self.sets.len(), set.policy.0);
        let export_to = &rule.spec.export_to;
        if let Some(selector) = set.selector() {
            self.selecting.insert(selector, place);
        } else {
            if export_to.is_everywhere() {
                self.for_all.push(place);
            }
            for client in export_to.namespaces(&rule.name.namespace) {
                self.by_client.entry(client).or_default().push(place);
            }
        }
        self.by_clients.entry((export_to, set.selector())).or_insert(place);
        self.defines_subsets(rule, place);
        if set.unusable.is_some() {
            self.cannot_be_used(set.selector(), place);
        }
        self.sets.push(set);
    }

    /// Adds a later rule to the first set that is for the same clients; whether there is one.
    fn join(&mut self, rule: &'a Rule, problems: &mut Problems) -> bool {
        let clients = (&rule.spec.export_to, rule.spec.selector.as_ref());
        let Some(place) = self.by_clients.get(&clients).copied() else { return false };
        let set = &mut self.sets[place];
        let was_usable = set.unusable.is_none();
        set.join(rule, problems);
        if set.unusable.is_some() && was_usable {
            self.cannot_be_used(rule.spec.selector.as_ref(), place);
        }
        self.defines_subsets(rule, place);
        true
    }

    /// The set at `place`, which selects its clients by `selector` if it does, has a rule that cannot be used.
    fn cannot_be_used(&mut self, selector: Option<&'a Labels>, place: usize) {
        match selector {
            Some(selector) => self.unusable_selecting.insert(selector, place),
            None => {
                let after = self.unusable.partition_point(|before| *before < place);
                self.unusable.insert(after, place);
            }
        }
    }

    /// The set at `place` has the subsets of `rule`.
    fn defines_subsets(&mut self, rule: &'a Rule, place: usize) {
        let of_selecting = rule.spec.selector.is_some().then_some(place);
        for subset in &rule.spec.subsets {
            let (first, selecting) = self.by_subset.entry(&subset.name).or_insert((place, of_selecting));
            *first = place.min(*first);
            *selecting = (*selecting).into_iter().chain(of_selecting).min();
        }
    }

    /// The first with a subset of that name, of those that select clients or of all.
    fn with_subset(&self, name: &str, is_selecting: bool) -> Option<&RuleSet<'a>> {
        let (first, selecting) = *self.by_subset.get(name)?;
        let place = if is_selecting { selecting? } else { first };
        Some(&self.sets[place])
    }

    /// The first that `client` follows, of those that `counts`: those that select it come before those for all.
    fn find(&self, client: Client<'_>, counts: &dyn Fn(&RuleSet<'_>) -> bool) -> Option<&RuleSet<'a>> {
        let seen = |place: usize| counts(&self.sets[place]) && self.sets[place].is_for(client);
        let selecting = client.labels.and_then(|labels| self.selecting.first(labels, seen));
        let named = client.namespace.and_then(|namespace| self.by_client.get(namespace));
        let first = |places: &Vec<usize>| places.iter().copied().find(|place| seen(*place));
        let for_all = || [first(&self.for_all), named.and_then(first)].into_iter().flatten().min();
        Some(&self.sets[selecting.or_else(for_all)?])
    }

    /// The first that cannot be used, of those that `counts` and that may be for `client`.
    fn unusable(&self, client: Client<'_>, counts: &dyn Fn(&RuleSet<'_>) -> bool) -> Option<&RuleSet<'a>> {
        let for_all = self.unusable.iter().copied().find(|place| counts(&self.sets[*place]));
        let seen = |place: usize| counts(&self.sets[place]) && self.sets[place].is_for(client);
        let selecting = client.labels.and_then(|labels| self.unusable_selecting.first(labels, seen));
        Some(&self.sets[for_all.into_iter().chain(selecting).min()?])
    }
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
        let (mut told_apart, mut room) = (HashSet::new(), Room::default());
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
            report_selects_nobody(rule, clients, problems);
            // Each of those clients may see each port in its own way.
            let selected = rule.spec.selector.as_ref().map(|selector| clients.count(namespace, selector));
            let ports = below.ports.saturating_mul(selected.unwrap_or(1).max(1));
            let named = || rule.spec.export_to.namespaces(namespace);
            let taken = room.take(namespace, rule.size, ports, named().count());
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
        Self { namespaces, root_namespace, told_apart, some_unusable, documents }
    }

    /// Each of them, as it is written.
    pub(super) fn documents(&self) -> impl Iterator<Item = &'a Rule> {
        self.documents.iter().copied()
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

/// Says that a rule selects no workload of its namespace.
fn report_selects_nobody(rule: &Rule, clients: &SelectedClients<'_>, problems: &mut Problems) {
    let asked = rule.spec.selector.as_ref().filter(|selector| !selector.is_empty() && !rule.unusable);
    if let Some(selector) = asked
        && !clients.is_somebody(&rule.name.namespace, selector)
    {
        let message = format!(
            "selects no workload of namespace {}, so nobody follows this document; compare the labels",
            rule.name.namespace
        );
        problems.warning(rule, "spec.workloadSelector.matchLabels", message);
    }
}

/// Says that limits of opaque connections do nothing where all ports speak HTTP.
fn report_limits_of_http(rule: &Rule, below: &Below, problems: &mut Problems) {
    let http = |spoken| matches!(spoken, Protocol::Http | Protocol::Http2);
    if below.is_empty() || !below.all_speak(http) {
        return;
    }
    let subsets = rule.spec.subsets.iter().enumerate();
    let subsets = subsets.map(|(index, subset)| (format!("spec.subsets[{index}]"), &subset.policy));
    for (field, policy) in std::iter::once(("spec".to_owned(), &rule.spec.policy)).chain(subsets) {
        if policy.connection_pool.as_ref().is_some_and(|pool| pool.connections.idle_timeout.is_some()) {
            let field = format!("{field}.trafficPolicy.connectionPool.tcp.idleTimeout");
            let message = "not acted on: it is for opaque connections, and all ports of the host speak HTTP; \
                           set http.idleTimeout";
            problems.add_between(rule.problem(Severity::NotActedOn, &field, message));
        }
        if policy.tunnel.is_some() {
            let field = format!("{field}.trafficPolicy.tunnel");
            let message = "not acted on: it is for opaque connections, and all ports of the host speak HTTP";
            problems.add_between(rule.problem(Severity::NotActedOn, &field, message));
        }
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

    /// Reports that nobody is asked for the annotations of a document, because all of `endpoints` are in the mesh.
    pub(super) fn report_checks(&self, endpoints: &Endpoints, problems: &mut Problems) {
        if let Some((rule, _)) = self.health_check
            && let Some(message) = unasked(endpoints)
        {
            problems.warning(rule, CHECKED, message);
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

    /// Reports where the mode of `tls` and what endpoints are do not go together.
    pub(super) fn report_tls(&self, host: &KnownHost<'_>, endpoints: &Endpoints, problems: &mut Problems) {
        let port = endpoints.key.port;
        let everything = BTreeMap::new();
        let whole = (self.policy.0, "spec.trafficPolicy.tls", &everything, self.policy(host, port).tls);
        let subsets = self.subsets.iter().map(|(rule, subset)| {
            let policy = self.merged(Some(&subset.policy), host, port);
            (*rule, "spec.subsets", &subset.labels, policy.tls)
        });
        for (rule, field, labels, tls) in std::iter::once(whole).chain(subsets) {
            let Some(message) = tls.and_then(|tls| conflict(&tls, labels, endpoints)) else { continue };
            problems.warning(rule, field, message);
        }
    }

    /// Reports that servers with a sidecar are told nothing of what is meant for others.
    pub(super) fn report_passed_over(
        &self,
        host: &KnownHost<'_>,
        endpoints: &Endpoints,
        problems: &mut Problems,
    ) {
        // Ports and subsets cannot be told anything else.
        let (rule, blocks) = self.policy;
        if blocks.proxy_protocol.is_none() && blocks.tunnel.is_none() {
            return;
        }
        let policy = self.policy(host, endpoints.key.port);
        let fixed = endpoints.list.iter().any(|one| one.identity.is_some());
        if policy.tls.is_some() || !(fixed || endpoints.named.iter().any(|one| one.identity.is_some())) {
            return;
        }
        if policy.proxy_protocol.is_some() {
            let message = "not acted on for endpoints with a sidecar: it is for servers outside the mesh, and apps \
                           without a sidecar";
            let problem = rule.problem(Severity::NotActedOn, "spec.trafficPolicy.proxyProtocol", message);
            problems.add_between(problem);
        }
        if policy.tunnel.is_some() {
            let message =
                "is for HTTP proxies without a sidecar: opaque connections to endpoints with one are refused";
            problems.warning(rule, "spec.trafficPolicy.tunnel", message);
        }
    }

    /// Reports that places make no difference although a rule asks for it, because nobody knows where endpoints are.
    pub(super) fn report_places(&self, host: &KnownHost<'_>, endpoints: &Endpoints, problems: &mut Problems) {
        let (rule, policy) = self.policy;
        let balancer = blocks(None, policy, endpoints.key.port).load_balancer;
        let setting = balancer.and_then(|block| block.locality);
        if let Some(what) = setting.and_then(|setting| places::missing(&setting, endpoints)) {
            let field = "spec.trafficPolicy.loadBalancer.localityLbSetting";
            problems.warning(rule, field, format!("has no effect on {}: {what}", host.host));
        }
    }

    /// Reports that a `BackendTLSPolicy` says how `port` of `host` is called, and not this.
    pub(super) fn report_replaced_tls(&self, host: &KnownHost<'_>, port: u16, problems: &mut Problems) {
        if self.policy(host, port).tls.is_some() {
            let message = format!(
                "has no effect on {}:{port}: a BackendTLSPolicy says how its servers are called; remove one of them",
                host.host
            );
            problems.warning(self.policy.0, "spec.trafficPolicy.tls", message);
        }
    }

    /// Reports that `policy`, an `XBackendTrafficPolicy`, says how many retries `host` may be sent, and not this.
    pub(super) fn report_replaced_budget(
        &self,
        host: &KnownHost<'_>,
        policy: &DocumentName,
        problems: &mut Problems,
    ) {
        let message = format!(
            "has no effect on {}: {policy} says how many retries there may be; remove one of them",
            host.host
        );
        if self.policy.1.retry_budget.is_some() {
            problems.warning(self.policy.0, "spec.trafficPolicy.retryBudget", message.as_str());
        }
        for (rule, subset) in &self.subsets {
            if subset.policy.retry_budget.is_some() {
                problems.warning(rule, "spec.subsets", format!("retryBudget of {} {message}", subset.name));
            }
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

/// The annotation that asks for a second request.
const HEDGED: &str = "metadata.annotations[config.selvedge.io/hedge]";

/// The annotation that asks for health checks.
const CHECKED: &str = "metadata.annotations[config.selvedge.io/health-check]";

/// Reports that nobody is asked for the annotation of the host's own document, because all of `endpoints` are in the mesh.
pub(super) fn report_checks(host: &KnownHost<'_>, endpoints: &Endpoints, problems: &mut Problems) {
    if let Some((document, _)) = host.health_check(endpoints.key.port)
        && let Some(message) = unasked(endpoints)
    {
        problems.warning(document, CHECKED, message);
    }
}

/// Why none of `endpoints` is asked whether it is well, if that is so.
fn unasked(endpoints: &Endpoints) -> Option<String> {
    let fixed = endpoints.list.iter().map(|one| one.identity.is_some());
    let named = endpoints.named.iter().map(|one| one.identity.is_some());
    let mut meshed = fixed.chain(named).peekable();
    let are_all_meshed = meshed.peek().is_some() && meshed.all(|meshed| meshed);
    let ServiceKey { host, port } = &endpoints.key;
    let message = || {
        format!(
            "has no effect on {host}:{port}: all its endpoints have sidecars, and only endpoints outside the mesh are \
             checked; remove it, and set outlierDetection"
        )
    };
    are_all_meshed.then(message)
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

/// What calls to those of `endpoints` that carry `labels` come to, if `tls` does not fit them.
pub(super) fn conflict(
    tls: &UpstreamTls,
    labels: &BTreeMap<String, String>,
    endpoints: &Endpoints,
) -> Option<String> {
    let fixed =
        endpoints.list.iter().map(|one| (&one.labels, one.identity.is_some(), one.address.to_string()));
    let named =
        endpoints.named.iter().map(|one| (&one.labels, one.identity.is_some(), one.address.to_string()));
    let mut selected = fixed.chain(named).filter(|(own, ..)| selects(labels, own));
    let ServiceKey { host, port } = &endpoints.key;
    match tls {
        UpstreamTls::IstioMutual => {
            let (_, _, place) = selected.find(|(_, meshed, _)| !meshed)?;
            Some(format!(
                "asks for ISTIO_MUTUAL, but {place} of {host}:{port} has no sidecar that accepts it: calls to it \
                 are answered 503; remove tls: sidecars then use mutual TLS where an endpoint has a sidecar"
            ))
        }
        UpstreamTls::Disable | UpstreamTls::Originate(_) => {
            let (_, _, place) = selected.find(|(_, meshed, _)| *meshed)?;
            let remedy = match tls {
                UpstreamTls::Originate(asked) if asked.policy.is_some() => {
                    "remove the policy if its app speaks plaintext"
                }
                _ => "remove tls",
            };
            Some(format!(
                "replaces the mutual TLS of the mesh with {place} of {host}:{port}, which has a sidecar: the \
                 sidecar cannot identify the caller, and refuses it if its PeerAuthentication is STRICT; {remedy}"
            ))
        }
    }
}
