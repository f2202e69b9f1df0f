//! What is wrong with a `DestinationRule`, and what it does not do.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{
    ConnectionPool, Endpoints, HashKey, LoadBalancer, Protocol, ServiceKey, UpstreamTls, facts::selects,
};

use super::{
    super::{
        Problems,
        clients::SelectedClients,
        places,
        services::{Below, KnownHost},
    },
    Rule, RuleSet, blocks,
};
use crate::{
    problem::{DocumentName, Severity},
    resources::destination_rule::PolicyBlocks,
};

/// The annotation that asks for a second request.
pub(super) const HEDGED: &str = "metadata.annotations[config.selvedge.io/hedge]";

/// The annotation that asks for health checks.
pub(super) const CHECKED: &str = "metadata.annotations[config.selvedge.io/health-check]";

/// Reports that nobody is asked for the annotation of the host's own document, because all of `endpoints` are in the mesh.
pub(in super::super) fn report_checks(host: &KnownHost<'_>, endpoints: &Endpoints, problems: &mut Problems) {
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

/// Says that a rule selects no workload of its namespace.
pub(super) fn report_selects_nobody(rule: &Rule, clients: &SelectedClients<'_>, problems: &mut Problems) {
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
pub(super) fn report_limits_of_http(rule: &Rule, below: &Below, problems: &mut Problems) {
    let http = |spoken| matches!(spoken, Protocol::Http | Protocol::Http2);
    if below.is_empty() || !below.all_speak(http) {
        return;
    }
    for (field, policy) in policies(rule) {
        if policy.connection_pool.as_ref().is_some_and(|pool| pool.connections.idle_timeout.is_some()) {
            let field = format!("{field}.connectionPool.tcp.idleTimeout");
            let message = "not acted on: it is for opaque connections, and all ports of the host speak HTTP; \
                           set http.idleTimeout";
            problems.add_between(rule.problem(Severity::NotActedOn, &field, message));
        }
        if policy.tunnel.is_some() {
            let field = format!("{field}.tunnel");
            let message = "not acted on: it is for opaque connections, and all ports of the host speak HTTP";
            problems.add_between(rule.problem(Severity::NotActedOn, &field, message));
        }
    }
}

/// The policies of `rule`, as a whole and of its subsets, each with where it stands.
fn policies(rule: &Rule) -> impl Iterator<Item = (String, &PolicyBlocks)> {
    let subsets = rule.spec.subsets.iter().enumerate();
    let subsets =
        subsets.map(|(index, subset)| (format!("spec.subsets[{index}].trafficPolicy"), &subset.policy));
    std::iter::once(("spec.trafficPolicy".to_owned(), &rule.spec.policy)).chain(subsets)
}

/// Where the setting for a port of the policy at `field` stands.
fn of_port(field: &str, blocks: &PolicyBlocks) -> String {
    format!("{field}.portLevelSettings[{}]", blocks.place)
}

/// Says which settings are for ports that the host does not have.
pub(super) fn report_ports(rule: &Rule, (host, below): (&str, &Below), problems: &mut Problems) {
    for (field, policy) in policies(rule) {
        for (port, blocks) in policy.ports.iter().filter(|(port, _)| below.lacks(**port)) {
            let message = format!(
                "{host} has no port {port}, so this has no effect; {} (the port of the service, not that of its endpoints)",
                below.port_remedy()
            );
            problems.warning(rule, &format!("{}.port.number", of_port(&field, blocks)), message);
        }
    }
}

/// Says that what is for requests does nothing where no HTTP is spoken.
pub(super) fn report_http_of_opaque(rule: &Rule, (host, below): (&str, &Below), problems: &mut Problems) {
    let is_opaque = |spoken| spoken == Protocol::Tcp;
    // Where clients begin TLS, requests may be sent to a port that says that TLS is spoken there.
    let begins_tls = |blocks: &PolicyBlocks| matches!(blocks.tls, Some(UpstreamTls::Originate(_)));
    let may_be_sent_requests =
        |policy: &PolicyBlocks| begins_tls(policy) || policy.ports.values().any(begins_tls);
    if policies(rule).any(|(_, policy)| may_be_sent_requests(policy)) {
        return;
    }
    for (field, policy) in policies(rule) {
        if !below.is_empty() && below.all_speak(is_opaque) {
            report_http_blocks(rule, &field, (policy, format!("no port of {host} speaks HTTP")), problems);
        }
        for (port, blocks) in &policy.ports {
            if below.speaks_none_at(*port, |spoken| !is_opaque(spoken)) {
                let why = format!("{host} does not speak HTTP at port {port}");
                report_http_blocks(rule, &of_port(&field, blocks), (blocks, why), problems);
            }
        }
    }
}

/// Says that those of the `blocks` at `field` that are for requests do nothing, and `why`.
fn report_http_blocks(
    rule: &Rule,
    field: &str,
    (blocks, why): (&PolicyBlocks, String),
    problems: &mut Problems,
) {
    let mut told = |block: &str, remedy: &str| {
        let message = format!("has no effect, because {why}; {remedy}");
        problems.warning(rule, &format!("{field}.{block}"), message);
    };
    if blocks.connection_pool.as_ref().is_some_and(|block| block.pool != ConnectionPool::default()) {
        told("connectionPool.http", "remove it, or name the port http");
    }
    let hash = match blocks.load_balancer.as_ref().map(|block| &block.balancer) {
        Some(LoadBalancer::ConsistentHash(hash)) => &hash.key,
        _ => return,
    };
    let key = match hash {
        HashKey::Header(_) => "httpHeaderName",
        HashKey::Cookie(_) => "httpCookie",
        HashKey::Query(_) => "httpQueryParameterName",
        HashKey::SourceAddress => return,
    };
    told(
        &format!("loadBalancer.consistentHash.{key}"),
        "connections go to any endpoint: write useSourceIp: true, or name the port http",
    );
}

/// How often a subset of a host may be compared with the labels of an endpoint, all of its subsets together. There may be very many
/// of both; beyond, nothing is told.
const MOST_COMPARED: usize = 100_000;

/// The labels of endpoints, different ones alone.
#[derive(Default)]
struct DifferentLabels<'e> {
    all: HashSet<&'e BTreeMap<String, String>>,
    /// Those with each label.
    with: HashMap<(&'e str, &'e str), Vec<&'e BTreeMap<String, String>>>,
}

impl<'e> DifferentLabels<'e> {
    fn add(&mut self, labels: &'e BTreeMap<String, String>) {
        if self.all.insert(labels) {
            for (name, value) in labels {
                self.with.entry((name, value)).or_default().push(labels);
            }
        }
    }

    /// Those among which all are that have `asked`: the fewest.
    fn with_some_of<'s>(&'s self, asked: &'s BTreeMap<String, String>) -> &'s [&'e BTreeMap<String, String>] {
        let with = asked.iter().map(|(name, value)| {
            self.with.get(&(name.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
        });
        with.min_by_key(|with| with.len()).unwrap_or_default()
    }
}

/// Says which subsets of `rules`, which are for `host`, select none of `endpoints`, if there are any.
pub(super) fn report_empty_subsets<'e>(
    host: &str,
    rules: &[&Rule],
    endpoints: impl Iterator<Item = &'e Endpoints>,
    problems: &mut Problems,
) {
    let mut known = DifferentLabels::default();
    let mut shared = HashSet::new();
    for Endpoints { list, named, .. } in endpoints {
        let all = list.iter().map(|one| &one.labels).chain(named.iter().map(|one| &one.labels));
        // Those of one workload are the same at all ports.
        all.filter(|labels| shared.insert(Arc::as_ptr(*labels))).for_each(|labels| known.add(labels));
    }
    if known.all.is_empty() {
        return;
    }
    let mut compared = 0;
    let subsets =
        rules.iter().flat_map(|rule| rule.spec.subsets.iter().enumerate().map(move |one| (*rule, one)));
    for (rule, (index, subset)) in subsets.filter(|(_, (_, subset))| !subset.labels.is_empty()) {
        let candidates = known.with_some_of(&subset.labels);
        compared += candidates.len();
        if compared > MOST_COMPARED {
            return;
        }
        if !candidates.iter().any(|labels| selects(&subset.labels, labels)) {
            let message = format!(
                "select none of the endpoints of {host} now, so requests to {} are answered 503, and connections refused; correct \
                 the labels, or start a workload that has them",
                subset.name
            );
            problems.warning(rule, &format!("spec.subsets[{index}].labels"), message);
        }
    }
}

impl RuleSet<'_> {
    /// Reports that nobody is asked for the annotations of a document, because all of `endpoints` are in the mesh.
    pub(in super::super) fn report_checks(&self, endpoints: &Endpoints, problems: &mut Problems) {
        if let Some((rule, _)) = self.health_check
            && let Some(message) = unasked(endpoints)
        {
            problems.warning(rule, CHECKED, message);
        }
    }

    /// Reports where the mode of `tls` and what endpoints are do not go together.
    pub(in super::super) fn report_tls(
        &self,
        host: &KnownHost<'_>,
        endpoints: &Endpoints,
        problems: &mut Problems,
    ) {
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
    pub(in super::super) fn report_passed_over(
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
    pub(in super::super) fn report_places(
        &self,
        host: &KnownHost<'_>,
        endpoints: &Endpoints,
        problems: &mut Problems,
    ) {
        let (rule, policy) = self.policy;
        let balancer = blocks(None, policy, endpoints.key.port).load_balancer;
        let setting = balancer.and_then(|block| block.locality);
        if let Some(what) = setting.and_then(|setting| places::missing(&setting, endpoints)) {
            let field = "spec.trafficPolicy.loadBalancer.localityLbSetting";
            problems.warning(rule, field, format!("has no effect on {}: {what}", host.host));
        }
    }

    /// Reports that a `BackendTLSPolicy` says how `port` of `host` is called, and not this.
    pub(in super::super) fn report_replaced_tls(
        &self,
        host: &KnownHost<'_>,
        port: u16,
        problems: &mut Problems,
    ) {
        if self.policy(host, port).tls.is_some() {
            let message = format!(
                "has no effect on {}:{port}: a BackendTLSPolicy says how its servers are called; remove one of them",
                host.host
            );
            problems.warning(self.policy.0, "spec.trafficPolicy.tls", message);
        }
    }

    /// Reports that `policy`, an `XBackendTrafficPolicy`, says how many retries `host` may be sent, and not this.
    pub(in super::super) fn report_replaced_budget(
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
}

/// What calls to those of `endpoints` that carry `labels` come to, if `tls` does not fit them.
pub(in super::super) fn conflict(
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
