//! What configuration changes of these metrics. It is sorted when configuration changes, and read when they are scraped: a
//! request does not meet it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use selvedge_model::{
    Telemetry,
    telemetry::{LabelChange, LabelFact, LabelValue, StandardMetric},
};

use super::{
    super::{labels::Labels, page::Written, registered::lock, series::End},
    UNKNOWN,
};
use crate::arrival::Direction;

/// What becomes of labels, by name.
type Changes = BTreeMap<String, LabelChange>;

/// Which metrics are told, and with which labels.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Told {
    /// Those of requests.
    pub(super) requests: Vec<Group>,
    /// Those of opaque connections.
    pub(super) streams: Vec<Group>,
}

/// Metrics that have the same labels, so that those are made once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    metrics: Vec<StandardMetric>,
    /// By direction. `None`: they are not told of it.
    changes: [Option<Changes>; Direction::ALL.len()],
}

impl Default for Told {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Told {
    /// As configuration says.
    pub(in super::super) fn new(telemetry: Option<&Telemetry>) -> Self {
        let [mut requests, mut streams]: [Vec<Group>; 2] = Default::default();
        for metric in StandardMetric::ALL {
            let groups = if metric <= StandardMetric::ResponseSize { &mut requests } else { &mut streams };
            let changes = Direction::ALL.map(|direction| {
                let changed = telemetry.and_then(|telemetry| {
                    let one_way = match direction {
                        Direction::Inbound => &telemetry.inbound,
                        Direction::Outbound => &telemetry.outbound,
                    };
                    one_way.metrics.get(&metric)
                });
                match changed {
                    None => Some(Changes::new()),
                    Some(changed) => (!changed.disabled).then(|| changed.labels.clone()),
                }
            });
            match groups.iter_mut().find(|group| group.changes == changes) {
                Some(group) => group.metrics.push(metric),
                None => groups.push(Group { metrics: vec![metric], changes }),
            }
        }
        Self { requests, streams }
    }
}

impl Group {
    pub(super) fn has(&self, metric: StandardMetric) -> bool {
        self.metrics.contains(&metric)
    }

    /// Begins the labels of what `labels` tell apart; `None`: it is not told.
    pub(super) fn begin(&self, labels: &Labels) -> Option<Building<'_>> {
        let changes = self.changes[labels.direction as usize].as_ref()?;
        Some(Building { written: Written::default(), changes })
    }
}

/// Labels as far as they are written.
#[derive(Debug, Clone)]
pub(super) struct Building<'g> {
    written: Written,
    changes: &'g Changes,
}

impl Building<'_> {
    /// Adds a label, unless configuration says otherwise.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.add(name, value);
        self
    }

    /// Adds a label, unless configuration says otherwise.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if self.changes.is_empty() || !self.changes.contains_key(name) {
            self.written.add(name, value);
        }
    }

    /// Adds what configuration has said: of requests that ended so, if they are such and have all ended so.
    pub(super) fn finish(self, labels: &Labels, end: Option<End>) -> Written {
        let Self { mut written, changes } = self;
        for (name, change) in changes {
            let value = match change {
                LabelChange::Removed => continue,
                LabelChange::Set(LabelValue::Literal(text)) => Cow::Borrowed(&**text),
                LabelChange::Set(LabelValue::Fact(fact)) => value(*fact, labels, end),
            };
            written.add(name, &value);
        }
        written
    }
}

fn value(fact: LabelFact, labels: &Labels, end: Option<End>) -> Cow<'_, str> {
    let text = match fact {
        LabelFact::Port => match labels.server_port {
            0 => UNKNOWN.into(),
            port => port.to_string().into(),
        },
        LabelFact::Method => end.and_then(|end| end.method).map_or(UNKNOWN, |method| method.word()).into(),
        LabelFact::Status => {
            end.map_or(UNKNOWN.into(), |end| end.status.unwrap_or_default().to_string().into())
        }
        LabelFact::GrpcStatus => {
            end.and_then(|end| end.grpc_status).map_or(UNKNOWN.into(), |status| status.to_string().into())
        }
        LabelFact::Route => Cow::Borrowed(&*labels.route),
        LabelFact::Mtls => if labels.mtls { "true" } else { "false" }.into(),
        LabelFact::Caller => Cow::Borrowed(&*labels.source_principal),
    };
    if text.is_empty() { UNKNOWN.into() } else { text }
}

/// What configuration has last said.
#[derive(Debug, Default)]
pub(in super::super) struct InForce {
    told: Mutex<Arc<Told>>,
    /// It was said that something is changed of what this proxy does not tell.
    not_told: OnceLock<()>,
}

impl InForce {
    /// From now on this is told, if these metrics are.
    pub(in super::super) fn set(&self, telemetry: Option<&Telemetry>, are_told: bool) {
        let told = Told::new(telemetry);
        if !are_told && told != Told::default() {
            self.not_told.get_or_init(|| {
                tracing::info!(
                    "configuration changes Istio's metrics, and this proxy tells none; if it should, set --metrics-compat istio"
                );
            });
        }
        let mut last = lock(&self.told);
        if **last != told {
            *last = Arc::new(told);
        }
    }

    pub(in super::super) fn get(&self) -> Arc<Told> {
        Arc::clone(&lock(&self.told))
    }
}
