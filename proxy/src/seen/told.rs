//! What of it the control plane has been told on one stream, and what is to be told next.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use prost::Message as _;
use selvedge_api::{convert::put_traffic, wire};
use selvedge_model::{
    seen::{Called, Caller, MOST_REFUSED, RefusedCall, Report, Svid},
    traffic,
};

use super::Seen;

/// Between two reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(15);
/// After so many seconds what goes on is told again.
const TELL_AGAIN: u64 = 600;
/// The most bytes of callers in one report.
const MOST_BYTES: usize = 128 << 10;

/// What was told, and when, in seconds.
#[derive(Debug, Default)]
pub struct Told {
    at: HashMap<(Caller, u16), u64>,
    refused: HashMap<(SocketAddr, Arc<str>), u64>,
    svid: Option<Svid>,
    /// Whether anything was told at all.
    begun: bool,
}

impl Told {
    /// What is to be told now; `svid`: of the certificate that an agent gives; `traffic`: of what was carried. `None`:
    /// nothing is new.
    pub fn next(&mut self, seen: &Seen, svid: Option<Svid>, traffic: &traffic::Told) -> Option<wire::Report> {
        let now = seen.now();
        let report = self.next_at(seen, now);
        let svid = svid.filter(|svid| self.svid != Some(*svid));
        if svid.is_none() && traffic.is_empty() {
            return report;
        }
        let mut report =
            report.unwrap_or_else(|| wire::Report::from(&Report { watched: now, ..Report::default() }));
        if svid.is_some() {
            self.svid = svid;
            report.svid = svid.map(|svid| wire::Svid { expires_at: svid.expires_at });
        }
        put_traffic(traffic, &mut report);
        Some(report)
    }

    pub(super) fn next_at(&mut self, seen: &Seen, now: u64) -> Option<wire::Report> {
        let (known, left_out) = seen.take(now);
        self.at.retain(|(caller, port), _| {
            known.get(caller).is_some_and(|called| called.iter().any(|one| one.port == *port))
        });
        let mut report = wire::Report::from(&Report { left_out, watched: now, ..Report::default() });
        report.refused = self.refused_next(seen, now);
        let mut bytes = 0;
        for (caller, mut called) in known {
            called.retain(|one| self.is_new(&caller, *one, now));
            if called.is_empty() {
                continue;
            }
            let ports: Vec<u16> = called.iter().map(|one| one.port).collect();
            let one = Report { callers: vec![(caller.clone(), called)], ..Report::default() };
            let mut one = wire::Report::from(&one);
            bytes += one.encoded_len();
            if bytes > MOST_BYTES {
                break;
            }
            report.callers.append(&mut one.callers);
            self.at.extend(ports.into_iter().map(|port| ((caller.clone(), port), now)));
        }
        let is_news = !report.callers.is_empty() || !report.refused.is_empty() || left_out > 0 || !self.begun;
        self.begun = true;
        is_news.then_some(report)
    }

    /// What is to be told of refused calls.
    fn refused_next(&mut self, seen: &Seen, now: u64) -> Vec<wire::RefusedCall> {
        let known = seen.refused(now);
        self.refused.retain(|key, _| known.contains_key(key));
        let told = &mut self.refused;
        let news = known.into_iter().filter(|(key, last)| is_news(told.get(key), *last, now));
        let news: Vec<_> = news.take(MOST_REFUSED).collect();
        let tell = |((target, policy), last): ((SocketAddr, Arc<str>), u64)| {
            told.insert((target, Arc::clone(&policy)), now);
            wire::RefusedCall::from(&RefusedCall { target, policy, seconds_ago: now.saturating_sub(last) })
        };
        news.into_iter().map(tell).collect()
    }

    /// Whether it was not told, or has gone on for long since.
    fn is_new(&self, caller: &Caller, called: Called, now: u64) -> bool {
        // Its last connection may have ended only now.
        let last = now.saturating_sub(called.seconds_ago);
        is_news(self.at.get(&(caller.clone(), called.port)), last, now)
    }
}

/// Whether what was last so at `last` was not `told`, or has gone on for long since.
fn is_news(told: Option<&u64>, last: u64, now: u64) -> bool {
    told.is_none_or(|told| last > *told && now.saturating_sub(*told) >= TELL_AGAIN)
}
