//! What has happened in the last hour piece by piece, for plots: by the minute, and of the last two by the half.
//!
//! It is what clients' sidecars tell. A piece has what was told in it, which has happened up to 15 seconds earlier.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::traffic::{Carried, Edge, Latencies, Way};
use serde::{Deserialize, Serialize};

use super::{
    Inner, KEPT,
    slots::{COARSE, Piece, oldest_fine},
};

/// Seconds in a piece of the last two minutes.
const HALF: u64 = 30;
/// The most lines of an answer; what is beyond is of those workloads that tell of most, and left out.
const MOST_LINES: usize = 20_000;

/// What has happened piece by piece.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistorySeen {
    /// For how many seconds something is known at all, 3,600 at most.
    pub known_seconds: u64,
    /// The pieces of time, the oldest first; each is over.
    pub pieces: Vec<PieceOfTime>,
    /// Where requests and connections went.
    pub lines: Vec<HistoryLine>,
    /// How many lines there was no room for.
    pub left_out: usize,
}

/// A piece of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceOfTime {
    /// How many seconds ago it began.
    pub began: u64,
    /// How many seconds it has.
    pub seconds: u64,
}

/// What went one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Where.
    #[serde(flatten)]
    pub to: HistoryKey,
    /// What has happened in each piece that has something, by its place in the list of pieces.
    pub points: BTreeMap<usize, HistoryPoint>,
}

/// Where requests or connections went.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HistoryKey {
    /// The service's host that was called.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// What is counted.
    pub carried: Carried,
    /// The service that the route leads to, as `host:port`. Empty: the one that was called.
    pub backend: Arc<str>,
    /// The subset. Empty: none.
    pub subset: Arc<str>,
}

/// What has happened in one piece of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryPoint {
    /// Requests that have ended, or connections that have come.
    pub count: u64,
    /// How many have ended: of connections, also those that had come before.
    #[serde(default)]
    pub ended: u64,
    /// How many of those that have ended have failed.
    pub failures: u64,
    /// How long requests took.
    pub latencies: Latencies,
}

impl HistoryPoint {
    /// Adds what has happened elsewhere in the same time.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.ended = self.ended.saturating_add(other.ended);
        self.failures = self.failures.saturating_add(other.failures);
        self.latencies.add(&other.latencies);
    }
}

/// Pieces, each with when it began, in seconds, and how many it is long.
type Pieces = Vec<(u64, u64, Piece)>;

/// A history whose pieces are still to be read: that takes a while, in which nobody else has to wait.
#[derive(Debug)]
pub(super) struct Unread {
    known_seconds: u64,
    now: u64,
    edges: Vec<(Arc<Edge>, Pieces)>,
}

impl Inner {
    /// All that is kept.
    pub(super) fn history(&mut self, now: u64) -> Unread {
        self.sweep_if_due(now);
        let begun = self.workloads.values().map(|known| known.known_since).min().unwrap_or(now);
        // Those that tell of much come last: what there is no room for is theirs.
        let mut workloads: Vec<_> = self.workloads.values().collect();
        workloads.sort_by_key(|known| known.edges.len());
        let outbound = workloads.into_iter().flat_map(|known| &known.edges);
        let outbound =
            outbound.filter(|(edge, _)| edge.way == Way::Outbound && edge.carried != Carried::WebSocket);
        Unread {
            known_seconds: now.saturating_sub(begun).min(KEPT),
            now,
            edges: outbound.map(|(edge, slots)| (Arc::clone(edge), slots.pieces())).collect(),
        }
    }
}

/// The piece of time for what began then: when it begins, and how long it is.
fn piece_of(began: u64, now: u64) -> (u64, u64) {
    let minute = began / COARSE * COARSE;
    // Of a minute of which a part is kept as a whole, the halves are not known.
    if minute < oldest_fine(now) { (minute, COARSE) } else { (began / HALF * HALF, HALF) }
}

/// All pieces that are over and in which something may be known, the oldest first.
fn all_pieces(now: u64, known_seconds: u64) -> Vec<(u64, u64)> {
    let (mut all, mut at) = (Vec::new(), now.saturating_sub(known_seconds));
    loop {
        let (began, seconds) = piece_of(at, now);
        at = began + seconds;
        if at > now {
            return all;
        }
        all.push((began, seconds));
    }
}

impl Unread {
    pub(super) fn read(self) -> HistorySeen {
        let Self { known_seconds, now, edges } = self;
        let pieces = all_pieces(now, known_seconds);
        let mut lines = BTreeMap::<HistoryKey, BTreeMap<usize, HistoryPoint>>::new();
        // Many workloads may have the same one.
        let mut left_out = BTreeSet::new();
        for (edge, kept) in edges {
            let key = HistoryKey {
                host: Arc::clone(&edge.host),
                port: edge.port,
                carried: edge.carried,
                backend: Arc::clone(&edge.backend),
                subset: Arc::clone(&edge.subset),
            };
            if lines.len() >= MOST_LINES && !lines.contains_key(&key) {
                left_out.insert(key);
                continue;
            }
            let points = lines.entry(key).or_default();
            for (began, _, piece) in kept {
                let Ok(place) = pieces.binary_search(&piece_of(began, now)) else { continue };
                let counts = piece.read();
                points.entry(place).or_default().add(&HistoryPoint {
                    count: counts.came(edge.carried),
                    ended: counts.ends(),
                    failures: counts.failures(edge.carried),
                    latencies: counts.latencies,
                });
            }
        }
        let piece = |(began, seconds): &(u64, u64)| PieceOfTime { began: now - began, seconds: *seconds };
        let lines = lines.into_iter().filter(|(_, points)| !points.is_empty());
        HistorySeen {
            known_seconds,
            pieces: pieces.iter().map(piece).collect(),
            lines: lines.map(|(to, points)| HistoryLine { to, points }).collect(),
            left_out: left_out.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::traffic::{Counts, Outcome};

    use super::{
        super::{BYTES, TrafficReport},
        *,
    };

    fn edge(subset: &str, way: Way) -> Arc<Edge> {
        Arc::new(Edge {
            way,
            carried: Carried::Http,
            host: "a".into(),
            port: 80,
            route: "".into(),
            subset: subset.into(),
            backend: "".into(),
            mtls: true,
            client: None,
        })
    }

    fn counts(status: u16) -> Counts {
        let mut counts = Counts::default();
        counts.ended(&Outcome { status: Some(status), ..Outcome::default() }, 1);
        counts
    }

    #[test]
    fn everything_is_in_one_piece_and_pieces_lie_side_by_side() {
        let name = "a/b".parse().unwrap();
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        for end in [10_000_u64, 10_007, 10_031, 10_059] {
            let mut inner = Inner::new(BYTES);
            let mut told = 0;
            for now in (end - 1_000..=end).step_by(5) {
                let status = if now / 5 % 2 == 0 { 200 } else { 500 };
                let edges =
                    vec![(edge("v1", Way::Outbound), counts(status)), (edge("", Way::Inbound), counts(200))];
                inner.tell(&name, &identity, TrafficReport { edges, ..TrafficReport::default() }, now);
                told += 1;
            }
            let history = inner.history(end).read();

            for pair in history.pieces.windows(2) {
                assert_eq!(pair[0].began - pair[0].seconds, pair[1].began, "at {end}: {pair:?}");
            }
            let last = history.pieces.last().unwrap();
            assert!(last.seconds == 30 && last.began - last.seconds < 30, "at {end}: {last:?}");
            assert!(history.pieces.iter().filter(|piece| piece.seconds == 30).count() >= 2);
            let [line] = &history.lines[..] else { panic!("{:?}", history.lines) };
            let count: u64 = line.points.values().map(|point| point.count).sum();
            let not_over = (last.began - last.seconds) / 5 + 1;
            assert_eq!(count, told - not_over, "at {end}");
            let failures: u64 = line.points.values().map(|point| point.failures).sum();
            assert!(failures.abs_diff(count / 2) <= 1);
        }
    }

    #[test]
    fn of_too_many_lines_those_are_left_out_that_are_of_who_tells_of_most() {
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let mut inner = Inner::new(BYTES);
        let to = |host: String| Arc::new(Edge { host: host.into(), ..Edge::clone(&edge("", Way::Outbound)) });
        let mut tell = |name: &str, hosts: usize| {
            let hosts = (0..hosts).map(|number| to(format!("{name}-{number}")));
            let edges = hosts.map(|edge| (edge, counts(200))).collect();
            let report = TrafficReport { edges, ..TrafficReport::default() };
            inner.tell(&name.parse().unwrap(), &identity, report, KEPT);
        };
        for number in 0..11 {
            tell(&format!("a/loud-{number:02}"), 1_900);
        }
        tell("z/quiet", 1);

        let history = inner.history(KEPT + 100).read();

        assert!(history.lines.iter().any(|line| &*line.to.host == "z/quiet-0"));
        assert_eq!((history.lines.len(), history.left_out), (MOST_LINES, 11 * 1_900 + 1 - MOST_LINES));
    }
}
