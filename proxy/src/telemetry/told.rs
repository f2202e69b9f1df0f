//! What of the traffic the control plane has been told, and what is to be told next.
//!
//! Nothing is counted for it: it reads the numbers of metrics, now and then, and tells how they have changed. What could not
//! be told, because there was no stream, or too much at once, is told later. Only a report on its way when a stream breaks
//! is lost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Instant,
};

use prost::Message as _;
use selvedge_api::wire;
use selvedge_model::traffic::{Carried, Counts, Edge, MOST_EDGES, Outcome, Told, Way};

use super::{Metrics, Series, TcpSeries, labels::Labels, latencies::Sum, series::End};
use crate::arrival::Direction;

/// The most bytes of traffic in one report.
const MOST_BYTES: usize = 128 << 10;

/// See the module. For as long as the proxy runs, whatever becomes of streams.
#[derive(Debug, Default)]
pub struct TrafficTold {
    /// By the address of their series, which no other has while it is held weakly.
    edges: HashMap<usize, Known>,
    /// Which edge each number stands for.
    numbers: Vec<Option<usize>>,
    /// What there was no room for in metrics, as last told.
    others: u64,
    /// Counts the reports.
    round: u64,
}

/// What has been told of one edge.
#[derive(Debug)]
struct Known {
    series: Counted<Weak<Series>, Weak<TcpSeries>>,
    last: Totals,
    /// By which number it is told; on this stream, if it `is_named`.
    number: Option<u32>,
    is_named: bool,
    /// The report that it was last in.
    told_in: u64,
}

/// What counts the traffic of an edge, held.
type Held = Counted<Arc<Series>, Arc<TcpSeries>>;

/// What counts the traffic of an edge.
#[derive(Debug, Clone)]
enum Counted<R, S> {
    Requests(R),
    Streams(Carried, S),
}

/// All that has happened on an edge.
#[derive(Debug, Default)]
struct Totals {
    /// Changes whenever something happens.
    activity: u64,
    connections: u64,
    outcomes: BTreeMap<Outcome, u64>,
    latencies: Option<Box<Sum>>,
    received: u64,
    sent: u64,
}

impl TrafficTold {
    /// A new stream begins: whoever is at its other end knows no number.
    pub fn begin(&mut self) {
        for known in self.edges.values_mut() {
            known.is_named = false;
        }
    }

    /// What has happened since it was last told.
    pub fn next(&mut self, metrics: &Metrics) -> Told {
        self.round += 1;
        metrics.expire(Instant::now());
        self.forget();
        let others = metrics.not_told_apart();
        let mut told = Told { left_out: others.wrapping_sub(self.others), ..Told::default() };
        self.others = others;
        let mut bytes = 0;
        for (key, counted) in self.active(metrics) {
            if told.counts.len() >= MOST_EDGES {
                break;
            }
            let Some(edge) = edge_of(&counted) else { continue };
            let totals = Totals::of(&counted);
            let known = self.edges.entry(key).or_insert_with(|| Known::new(&counted));
            let counts = totals.since(&known.last);
            let number = self.number(key);
            let Some(known) = self.edges.get_mut(&key) else { continue };
            let counts = (number, counts);
            let name = (!known.is_named).then_some((number, edge));
            bytes += wire::EdgeCounts::from(&counts).encoded_len();
            bytes += name.as_ref().map_or(0, |name| wire::EdgeName::from(name).encoded_len());
            if bytes > MOST_BYTES {
                break;
            }
            known.last = totals;
            known.is_named = true;
            known.told_in = self.round;
            told.named.extend(name);
            told.counts.push(counts);
        }
        told
    }

    /// Those on which something has happened; first those that were not told for longest.
    fn active(&self, metrics: &Metrics) -> Vec<(usize, Held)> {
        let mut active = Vec::new();
        let mut add = |key: usize, activity: u64, counted| {
            let known = self.edges.get(&key);
            if activity != known.map_or(0, |known| known.last.activity) {
                active.push((known.map_or(0, |known| known.told_in), key, counted));
            }
        };
        for series in metrics.requests() {
            add(Arc::as_ptr(&series).addr(), series.total(), Counted::Requests(series));
        }
        for (carried, series) in metrics.streams() {
            add(Arc::as_ptr(&series).addr(), series.activity(), Counted::Streams(carried, series));
        }
        active.sort_by_key(|(told_in, key, _)| (*told_in, *key));
        active.into_iter().map(|(_, key, counted)| (key, counted)).collect()
    }

    /// Forgets the edges that are gone from metrics.
    fn forget(&mut self) {
        let numbers = &mut self.numbers;
        self.edges.retain(|_, known| {
            let is_there = known.series.is_there();
            if !is_there && let Some(place) = known.number.and_then(|number| numbers.get_mut(number as usize))
            {
                *place = None;
            }
            is_there
        });
    }

    /// The number of an edge. If all are given away, that of the edge which was not told for longest.
    fn number(&mut self, key: usize) -> u32 {
        if let Some(number) = self.edges.get(&key).and_then(|known| known.number) {
            return number;
        }
        let place = self.numbers.iter().position(Option::is_none).unwrap_or(self.numbers.len());
        let place = if place < MOST_EDGES { place } else { self.take_number() };
        match self.numbers.get_mut(place) {
            Some(owner) => *owner = Some(key),
            None => self.numbers.push(Some(key)),
        }
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        if let Some(known) = self.edges.get_mut(&key) {
            (known.number, known.is_named) = (Some(number), false);
        }
        number
    }

    fn take_number(&mut self) -> usize {
        let told_in =
            |key: &Option<usize>| key.and_then(|key| self.edges.get(&key)).map_or(0, |known| known.told_in);
        let oldest = self.numbers.iter().enumerate().min_by_key(|(_, key)| told_in(key));
        let (place, owner) = oldest.map_or((0, None), |(place, key)| (place, *key));
        if let Some(known) = owner.and_then(|owner| self.edges.get_mut(&owner)) {
            known.number = None;
        }
        place
    }
}

impl Known {
    fn new(counted: &Held) -> Self {
        let series = match counted {
            Counted::Requests(series) => Counted::Requests(Arc::downgrade(series)),
            Counted::Streams(carried, series) => Counted::Streams(*carried, Arc::downgrade(series)),
        };
        Self { series, last: Totals::default(), number: None, is_named: false, told_in: 0 }
    }
}

impl Counted<Weak<Series>, Weak<TcpSeries>> {
    fn is_there(&self) -> bool {
        match self {
            Self::Requests(series) => series.strong_count() > 0,
            Self::Streams(_, series) => series.strong_count() > 0,
        }
    }
}

impl Totals {
    fn of(counted: &Held) -> Self {
        match counted {
            Counted::Requests(series) => {
                // Before the rest: what comes meanwhile is told next time.
                let activity = series.total();
                let other = || Outcome { reason: Some("other".into()), ..Outcome::default() };
                // Ends that differ only in their method are one outcome.
                let mut outcomes = BTreeMap::new();
                for (end, count) in series.counts() {
                    *outcomes.entry(end.map_or_else(other, End::outcome)).or_default() += count;
                }
                Self {
                    activity,
                    outcomes,
                    latencies: Some(Box::new(series.latencies().collect())),
                    sent: series.bytes_sent(),
                    ..Self::default()
                }
            }
            Counted::Streams(_, series) => series_totals(series),
        }
    }

    /// What has happened since `before`.
    fn since(&self, before: &Self) -> Counts {
        let mut counts = Counts {
            connections: self.connections.wrapping_sub(before.connections),
            received: self.received.wrapping_sub(before.received),
            sent: self.sent.wrapping_sub(before.sent),
            ..Counts::default()
        };
        for (outcome, count) in &self.outcomes {
            let more = count.wrapping_sub(before.outcomes.get(outcome).copied().unwrap_or_default());
            if more > 0 {
                counts.ended(outcome, more);
            }
        }
        let none = Sum::default();
        let before = before.latencies.as_deref().unwrap_or(&none);
        if let Some(now) = self.latencies.as_deref() {
            for (bucket, (now, before)) in (0_u8..).zip(now.buckets.iter().zip(&before.buckets)) {
                counts.latencies.note(bucket, now.wrapping_sub(*before).into());
            }
            counts.latencies.took(now.micros.wrapping_sub(before.micros));
        }
        counts
    }
}

fn series_totals(series: &TcpSeries) -> Totals {
    let mut totals = Totals { activity: series.activity(), ..Totals::default() };
    let told = |reason: Option<crate::error::Reason>| Outcome {
        reason: reason.map(|reason| reason.word().into()),
        ..Outcome::default()
    };
    for (reason, count) in series.refusals() {
        totals.connections += count;
        *totals.outcomes.entry(told(Some(reason))).or_default() += count;
    }
    for (reason, count) in series.ends() {
        *totals.outcomes.entry(told(reason)).or_default() += count;
    }
    let [opened, received, sent] = series.carried();
    totals.connections += opened;
    (totals.received, totals.sent) = (received, sent);
    totals
}

/// Between whom it goes; `None`: it is not told apart.
fn edge_of(counted: &Held) -> Option<Edge> {
    let (carried, labels) = match counted {
        Counted::Requests(series) => (Carried::Http, series.labels()),
        Counted::Streams(carried, series) => (*carried, series.labels()),
    };
    let labels = labels?;
    let Labels { direction, server_address, server_port, route, destination_subset, mtls, .. } = labels;
    let way = match direction {
        Direction::Outbound => Way::Outbound,
        Direction::Inbound => Way::Inbound,
    };
    Some(Edge {
        way,
        carried,
        host: if way == Way::Inbound { Arc::default() } else { Arc::clone(server_address) },
        port: *server_port,
        route: Arc::clone(route),
        subset: Arc::clone(destination_subset),
        mtls: *mtls,
        backend: Arc::clone(&labels.destination_service),
        client: labels.source_principal.parse().ok(),
    })
}

#[cfg(test)]
mod tests;
