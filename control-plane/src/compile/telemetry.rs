//! `Telemetry` and our annotations to what is written down, traced and told in Istio's metrics at each workload.
//!
//! Of metrics see [`metrics`].
//!
//! Istio's rules: what a workload's own document says replaces what its namespace's says, and that what the mesh's says,
//! field by field. Of several documents of one rank the oldest counts, and the others are reported. Annotations of a
//! namespace or a workload have its rank, and yield to its document.

mod metrics;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use selvedge_model::{
    AccessLog, Telemetry,
    telemetry::{LogFilter, LogSink, LogTo, OneWay, SpanTag, Tracing},
};

use super::{
    MeshSettings, Problems,
    sharing::MadeOnce,
    targets::{Selected, Targets},
    there::There,
};
use crate::{
    problem::DocumentName,
    resources::{
        Document, LogRule, NamespaceSpec, Resources, TelemetryAnnotations, TelemetrySpec, TraceRule, Ways,
    },
};

type Written = Document<TelemetrySpec>;

/// How many of a million requests are traced where nothing says it: one percent, as Istio does.
const USUAL_SAMPLING: u32 = 10_000;

/// Every document and annotation, to be asked for each workload.
#[derive(Debug)]
pub(super) struct Telemetries<'a> {
    /// Of the mesh.
    mesh: Option<&'a Written>,
    /// Of a namespace.
    wide: HashMap<&'a str, &'a Written>,
    /// Of some workloads of a namespace, the oldest first.
    chosen: HashMap<&'a str, Vec<Chosen<'a>>>,
    annotated: HashMap<&'a str, TelemetryAnnotations>,
    is_empty: bool,
    shared: MadeOnce<Telemetry, Telemetry>,
}

#[derive(Debug)]
struct Chosen<'a> {
    document: &'a Written,
    targets: Targets<'a>,
    selects_one: Cell<bool>,
    /// An older one that selects a workload which it selects, too.
    overruled_by: Cell<Option<&'a Written>>,
}

/// One rank of what may be said: first what annotations say, then a document.
#[derive(Debug, Clone, Copy)]
struct Rank<'r> {
    annotations: Option<&'r TelemetryAnnotations>,
    document: Option<&'r TelemetrySpec>,
}

impl<'a> Telemetries<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        let mut found = Self {
            mesh: None,
            wide: HashMap::new(),
            chosen: HashMap::new(),
            annotated: annotated(&resources.namespaces, problems),
            is_empty: false,
            shared: MadeOnce::default(),
        };
        let there = There::new(resources, settings);
        let mut all: Vec<&Written> = resources.telemetries.iter().map(|document| &**document).collect();
        all.sort_by_key(|document| document.seniority());
        for document in all.into_iter().filter(|document| !document.unusable) {
            let (namespace, spec) = (&*document.name.namespace, &document.spec);
            let targets = Targets::new(namespace, &spec.selector, spec.services.as_deref(), settings);
            let targets = targets.with_gateways(&spec.gateways);
            if targets.chooses() {
                targets.report_missing(document, &there, problems);
                let (selects_one, overruled_by) = (Cell::new(false), Cell::new(None));
                let chosen = Chosen { document, targets, selects_one, overruled_by };
                // A gateway may run in another namespace than its documents are in.
                found.chosen.entry(namespace).or_default().push(chosen);
                continue;
            }
            let older = if namespace == settings.root_namespace {
                let older = found.mesh;
                found.mesh = older.or(Some(document));
                older
            } else {
                let older = found.wide.get(namespace).copied();
                found.wide.entry(namespace).or_insert(document);
                older
            };
            if let Some(older) = older {
                let message = format!(
                    "has no effect, because {} ({}) is for all of the same workloads and came first; put both into one",
                    older.name, older.location
                );
                problems.overruled(document, "spec", message);
            }
        }
        found.is_empty = found.mesh.is_none()
            && found.wide.is_empty()
            && found.chosen.is_empty()
            && found.annotated.is_empty();
        found
    }

    /// What is written down and traced at a workload that has these annotations; as `previous` says, if that is the same.
    /// `None`: nothing.
    pub(super) fn find(
        &self,
        workload: Selected<'_>,
        annotations: &TelemetryAnnotations,
        previous: Option<&Arc<Telemetry>>,
    ) -> Option<Arc<Telemetry>> {
        if self.is_empty && annotations.is_nothing() {
            return None;
        }
        let mesh = Rank { annotations: None, document: self.mesh.map(|document| &document.spec) };
        let namespace = Rank {
            annotations: self.annotated.get(workload.namespace),
            document: self.wide.get(workload.namespace).map(|document| &document.spec),
        };
        let own = Rank { annotations: Some(annotations), document: self.own(workload).map(|one| &one.spec) };
        let ranks = [mesh, namespace, own];
        let telemetry = Telemetry {
            inbound: one_way(&ranks, |ways| ways.inbound),
            outbound: one_way(&ranks, |ways| ways.outbound),
        };
        (!telemetry.is_nothing()).then(|| self.shared.get(telemetry, previous, |telemetry| telemetry.clone()))
    }

    /// The document of the workload's own; the others that select it are noted as overruled.
    fn own(&self, workload: Selected<'_>) -> Option<&'a Written> {
        workload.labels?;
        let of_gateway = workload.gateway.and_then(|gateway| gateway.split_once('/'));
        let elsewhere = of_gateway.map(|(namespace, _)| namespace).filter(|name| *name != workload.namespace);
        let lists = [Some(workload.namespace), elsewhere].into_iter().flatten();
        let all = lists.filter_map(|namespace| self.chosen.get(namespace)).flatten();
        let mut selecting = all.filter(|one| {
            let is_here = *one.document.name.namespace == *workload.namespace;
            // Only by the Gateway that it is can one of another namespace be meant.
            (is_here || !one.document.spec.gateways.is_empty()) && one.targets.ports(workload).is_some()
        });
        let first = selecting.next()?;
        first.selects_one.set(true);
        for other in selecting {
            other.selects_one.set(true);
            other.overruled_by.set(other.overruled_by.get().or(Some(first.document)));
        }
        Some(first.document)
    }

    /// Reports what selects nothing, or what another document has. Asked when each workload has its own.
    pub(super) fn report(&self, problems: &mut Problems) {
        for Chosen { document, selects_one, overruled_by, .. } in self.chosen.values().flatten() {
            if let Some(older) = overruled_by.get() {
                let message = format!(
                    "has no effect at workloads that {} ({}) is for too, which came first; put both into one",
                    older.name, older.location
                );
                problems.overruled(document, "spec", message);
            }
            if !document.spec.selector.is_empty() && !selects_one.get() {
                let message = "selects no workload, so it changes nothing; compare the labels";
                problems.warning(document, "spec.selector.matchLabels", message);
            }
        }
    }
}

/// What annotations of namespaces say.
fn annotated<'a>(
    namespaces: &'a [Arc<Document<NamespaceSpec>>],
    problems: &mut Problems,
) -> HashMap<&'a str, TelemetryAnnotations> {
    let mut found = HashMap::new();
    for document in namespaces {
        let DocumentName { name, .. } = &document.name;
        let said = said(document, problems);
        if !said.is_nothing() {
            found.insert(&**name, said);
        }
    }
    found
}

/// What the annotations of `document` say, which is a namespace or a workload; what cannot be used is reported, and then
/// none of them counts.
pub(super) fn said<T>(document: &Document<T>, problems: &mut Problems) -> TelemetryAnnotations {
    TelemetryAnnotations::read(&document.metadata.annotations).unwrap_or_else(|(name, why)| {
        problems.error_alone(document, &format!("metadata.annotations[{name}]"), why);
        TelemetryAnnotations::default()
    })
}

/// The access log of a route, by its annotations; `None`: as its client's proxy does. A document that has a wrong one was
/// refused as it was read.
pub(super) fn of_route<T>(document: &Document<T>) -> Option<AccessLog> {
    TelemetryAnnotations::read(&document.metadata.annotations).ok()?.of_route()
}

fn one_way(ranks: &[Rank<'_>], is_for: impl Fn(Ways) -> bool) -> OneWay {
    let rules = || ranks.iter().filter_map(|rank| rank.document).flat_map(|document| &document.metrics);
    OneWay {
        access_log: access_log(ranks, &is_for),
        tracing: tracing(ranks, &is_for),
        metrics: metrics::changes(rules, &is_for),
    }
}

/// Of one place where lines go.
#[derive(Debug, Clone, Default)]
struct Going {
    is_off: bool,
    filter: Option<Arc<LogFilter>>,
}

fn access_log(ranks: &[Rank<'_>], is_for: &impl Fn(Ways) -> bool) -> AccessLog {
    let mut sinks: BTreeMap<LogSink, Going> = BTreeMap::new();
    // What is said of no sink in particular.
    let mut all = Going::default();
    for rank in ranks {
        if let Some(annotations) = rank.annotations {
            if let Some(named) = &annotations.sinks {
                all.is_off = named.is_empty();
                let going = Going { is_off: false, filter: all.filter.clone() };
                sinks = named.iter().map(|sink| (*sink, going.clone())).collect();
            }
            if let Some(filter) = &annotations.filter {
                all.filter = Some(Arc::clone(filter));
                sinks.values_mut().for_each(|going| going.filter = Some(Arc::clone(filter)));
            }
        }
        let rules = rank.document.map_or(&[][..], |document| &document.logging);
        let rules: Vec<&LogRule> = rules.iter().filter(|rule| is_for(rule.ways)).collect();
        if rules.is_empty() {
            continue;
        }
        let named: Vec<LogSink> = rules.iter().flat_map(|rule| rule.sinks.iter().copied()).collect();
        if !named.is_empty() {
            sinks = named.iter().map(|sink| (*sink, Going::default())).collect();
        } else if sinks.is_empty() {
            sinks = [(LogSink::Stdout, all.clone())].into();
        }
        for rule in rules {
            // As in Istio, whatever is said turns on again what a wider rank has turned off, unless it says `disabled`. (That is
            // otherwise with traces.)
            let is_off = rule.disabled.unwrap_or(false);
            if rule.sinks.is_empty() {
                let say = |going: &mut Going| {
                    going.is_off = is_off;
                    if let Some(filter) = &rule.filter {
                        going.filter = Some(Arc::clone(filter));
                    }
                };
                say(&mut all);
                sinks.values_mut().for_each(say);
            } else {
                // Where they are named, they have the filter that stands there, or none.
                let going = Going { is_off, filter: rule.filter.clone() };
                sinks.extend(rule.sinks.iter().map(|sink| (*sink, going.clone())));
            }
        }
    }
    let going = sinks.into_iter().filter(|(_, going)| !going.is_off);
    AccessLog(going.map(|(sink, going)| LogTo { sink, filter: going.filter }).collect())
}

fn tracing(ranks: &[Rank<'_>], is_for: &impl Fn(Ways) -> bool) -> Option<Tracing> {
    let (mut is_on, mut is_disabled, mut sampling) = (false, false, None);
    let mut tags: Vec<SpanTag> = Vec::new();
    for rank in ranks {
        match rank.annotations.and_then(|annotations| annotations.sampling) {
            Some(None) => is_on = false,
            Some(Some(share)) => (is_on, is_disabled, sampling) = (true, false, Some(share)),
            None => {}
        }
        let rules = rank.document.map_or(&[][..], |document| &document.tracing);
        for TraceRule { sampling: share, disabled, tags: said, .. } in
            rules.iter().filter(|rule| is_for(rule.ways))
        {
            // What a wider rank has disabled stays so until a narrower one says otherwise.
            is_disabled = disabled.unwrap_or(is_disabled);
            is_on = !is_disabled;
            sampling = share.or(sampling);
            if let Some(said) = said {
                tags.clone_from(said);
            }
        }
    }
    is_on.then(|| Tracing { sampling: sampling.unwrap_or(USUAL_SAMPLING), tags })
}
