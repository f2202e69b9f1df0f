//! Limits that a server counts for all proxies together: who is asked, and what becomes of the answer.
//!
//! Servers are asked after the proxy's own limits, so that a flood that those refuse does not become one of theirs.

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use selvedge_api::rls::{
    HeaderValue as Said, RateLimitResponse,
    rate_limit_response::{Code, DescriptorStatus},
};
use selvedge_model::{
    limit::{Asker, OnFailure},
    policy::Says,
};

use super::{LIMIT, REMAINING, RESET, counted, server, tell, whole};
use crate::{
    bind::{BoundGlobal, BoundLimits, Left},
    body::Body,
    error::{Failure, Reason},
    fields::{self, GRPC_PUSHBACK, is_grpc},
    step::{Conn, Error, Response, headers_of},
    telemetry::Decision,
    worker::Worker,
};

/// The most fields that a server may have added to a message, and their bytes together. What is beyond is left out.
const MOST_FIELDS: usize = 32;
const MOST_BYTES: usize = 8 << 10;

/// A request that servers may have to be asked about.
pub(crate) struct Asking<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) limits: &'a BoundLimits,
    /// The port that it is for.
    pub(crate) port: u16,
    pub(crate) conn: &'a Conn,
    /// The name of the rule that it follows, if it has found one.
    pub(crate) route: Option<&'a str>,
}

/// What the client is told, besides the answer.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// What servers want it to be told.
    fields: Option<Box<HeaderMap>>,
    /// What is left of a limit.
    left: Option<Left>,
}

impl Added {
    /// Notes that so much is `left` of one more limit.
    pub(crate) fn note(&mut self, left: Option<Left>) {
        self.left = Left::least(self.left, left);
    }

    /// Tells it with `result`.
    pub(crate) fn to(self, result: &mut Result<Response, Error>) {
        if let Some(added) = self.fields {
            append(headers_of(result), &added);
        }
        if let Some(left) = self.left {
            tell(left, headers_of(result));
        }
    }
}

impl Asking<'_> {
    /// Asks every server that must be asked about the request `http`, and adds to it what they say.
    ///
    /// # Errors
    /// If one refuses it, or does not answer and its document says that nothing goes on then.
    pub(crate) async fn ask(&self, http: &mut http::Request<Body>) -> Result<Added, Error> {
        let (mut added, mut told_app, mut left) = (HeaderMap::new(), Vec::new(), None);
        for bound in self.limits.globals.iter().filter(|bound| bound.is_for(self.port)) {
            let told = bound.global.descriptors(self.asker(http));
            if told.is_empty() {
                continue;
            }
            let answer = server::ask(self.worker, bound, self.conn, told).await;
            let answer = answer.and_then(|answer| match answer.overall_code() {
                Code::Unknown => Err("its answer says neither OK nor OVER_LIMIT".to_owned()),
                code => Ok((code, answer)),
            });
            let grpc = is_grpc(http.headers());
            let refusal = match answer {
                Ok((Code::OverLimit, answer)) => self.over_limit(bound, &answer, grpc, self.asker(http)),
                Ok((_, answer)) => {
                    told_app.push(fields_of(&answer.request_headers_to_add));
                    append(&mut added, &fields_of(&answer.response_headers_to_add));
                    left = Left::least(left, bound.tells_all.then(|| least(&answer.statuses)).flatten());
                    None
                }
                Err(why) => self.unanswered(bound, &why),
            };
            if let Some(error) = refusal {
                self.limits.refused_elsewhere(self.port, self.asker(http));
                return Err(error);
            }
        }
        // Not before: by what the client has written it is known whose tokens were taken, and what is asked.
        for fields in &told_app {
            replace(http.headers_mut(), fields);
        }
        Ok(Added { fields: (!added.is_empty()).then(|| Box::new(added)), left })
    }

    fn asker<'h>(&'h self, http: &'h http::Request<Body>) -> Asker<'h> {
        let address = Some(self.conn.client_address(http));
        Asker { address, identity: self.conn.identity(), headers: http.headers(), route: self.route }
    }

    /// The server refuses it. `None`: the document refuses nothing.
    fn over_limit(
        &self,
        bound: &BoundGlobal,
        answer: &RateLimitResponse,
        grpc: bool,
        asker: Asker<'_>,
    ) -> Option<Error> {
        let Self { worker, .. } = self;
        let (document, server) = (&bound.document, bound.server.as_ref().map(|server| &*server.authority));
        let decision = if bound.dry_run { Says::WouldDeny.into() } else { Decision::Deny };
        if let Some(left_out) = counted(worker, document, asker, decision) {
            let (peer, identity) =
                (asker.address.map(tracing::field::display), asker.identity.map(tracing::field::display));
            let outcome = if bound.dry_run { "noted" } else { "refused" };
            tracing::info!(peer, identity, port = self.port, rule = %document, server, left_out, "{outcome} by rate limit");
        }
        if bound.dry_run {
            return None;
        }
        let server = server.unwrap_or_default();
        let what =
            format!("{document}: {server} says that this is beyond a limit of {}", bound.global.domain);
        let mut headers = when(&answer.statuses, grpc);
        append(&mut headers, &fields_of(&answer.response_headers_to_add));
        Some(refused(Failure::new(Reason::RateLimit, what), headers))
    }

    /// The server has not answered. `None`: the request goes on.
    fn unanswered(&self, bound: &BoundGlobal, why: &str) -> Option<Error> {
        let Self { worker, .. } = self;
        let (document, server) = (&bound.document, bound.server.as_ref().map(|server| &*server.authority));
        worker.metrics.policy_decision(document, Decision::Error, worker.index);
        let is_refused = bound.global.on_failure == OnFailure::Closed && !bound.dry_run;
        let about = ("server of a rate limit", &**document);
        if let Some(left_out) = worker.said.says(about, std::time::Instant::now()) {
            let then = if is_refused { "requests are refused" } else { "requests go on without it" };
            tracing::warn!(rule = %document, server, why, left_out, "a rate limit's server has not answered: {then}");
        }
        is_refused.then(|| {
            let what = format!("{document}: {} has not answered: {why}", server.unwrap_or("its server"));
            refused(Failure::new(Reason::RateLimitServer, what), HeaderMap::new())
        })
    }
}

/// The answer to a request that failed with `failure`, and has these `headers`.
pub(super) fn refused(failure: Failure, headers: HeaderMap) -> Error {
    let mut error = Error::from(failure);
    if !headers.is_empty() {
        error.facts.rare().headers = headers;
    }
    error
}

/// When the client may try again, as far as the server says it: of those limits that it is beyond, the last.
fn when(statuses: &[DescriptorStatus], grpc: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let beyond = statuses.iter().filter(|status| status.code() == Code::OverLimit);
    let Some((reset, status)) = beyond.map(|status| (reset(status), status)).max_by_key(|(reset, _)| *reset)
    else {
        return headers;
    };
    if let Some(limit) = &status.current_limit {
        headers.insert(LIMIT, HeaderValue::from(limit.requests_per_unit));
        headers.insert(REMAINING, HeaderValue::from(status.limit_remaining));
    }
    if let Some(reset) = reset {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole(reset)));
        headers.insert(RESET, HeaderValue::from(whole(reset)));
        if grpc {
            let milliseconds = u64::try_from(reset.as_millis()).unwrap_or(u64::MAX);
            headers.insert(GRPC_PUSHBACK, HeaderValue::from(milliseconds));
        }
    }
    headers
}

/// What is left of that limit of which the least is left, as far as the server says it.
fn least(statuses: &[DescriptorStatus]) -> Option<Left> {
    let known = statuses.iter().filter_map(|status| {
        let limit = status.current_limit.as_ref()?.requests_per_unit;
        Some(Left { limit, remaining: status.limit_remaining, reset: reset(status) })
    });
    known.min_by_key(|left| left.remaining)
}

/// In what time the limit of `status` begins anew.
fn reset(status: &DescriptorStatus) -> Option<Duration> {
    let until = status.duration_until_reset.as_ref()?;
    let (seconds, nanos) = (u64::try_from(until.seconds).ok()?, u32::try_from(until.nanos).ok()?);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// The fields that a server may add to a message: none that say where it ends or goes, or that only sidecars write.
fn fields_of(said: &[Said]) -> HeaderMap {
    let mut found = HeaderMap::new();
    let mut bytes = 0;
    for Said { key, value, raw_value } in said.iter().take(MOST_FIELDS) {
        let value = if raw_value.is_empty() { value.as_bytes() } else { raw_value };
        bytes += key.len() + value.len();
        let read = (HeaderName::try_from(key.as_str()), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value), true) = (read.0, read.1, bytes <= MOST_BYTES) {
            found.append(name, value);
        }
    }
    fields::trailers(&mut found);
    found
}

/// Writes `fields` into `headers`, instead of what a client may have written there.
fn replace(headers: &mut HeaderMap, fields: &HeaderMap) {
    for name in fields.keys() {
        fields::reserved::remove_as_read(headers, name);
    }
    append(headers, fields);
}

fn append(headers: &mut HeaderMap, fields: &HeaderMap) {
    for (name, value) in fields {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use selvedge_api::rls;

    use super::*;

    fn said(key: &str, value: &str) -> Said {
        Said { key: key.into(), value: value.into(), raw_value: Vec::new() }
    }

    #[test]
    fn a_server_adds_no_field_that_only_we_write_and_no_more_than_there_is_room_for() {
        let taken = |all: &[Said]| {
            let found = fields_of(all);
            found.keys().map(ToString::to_string).collect::<Vec<_>>()
        };

        assert_eq!(taken(&[said("x-tier", "gold"), said("a b", "c"), said("d", "e\nf")]), ["x-tier"]);
        let ours =
            ["selvedge-error", "content-length", "transfer-encoding", "x-forwarded-client-cert", "host"];
        assert!(taken(&ours.map(|name| said(name, "1"))).is_empty());
        let many: Vec<_> = (0..100).map(|number| said(&format!("x-{number}"), "1")).collect();
        assert_eq!(taken(&many).len(), MOST_FIELDS);
        assert_eq!(taken(&[said("x-a", &"a".repeat(MOST_BYTES)), said("x-b", "1")]).len(), 0);
    }

    #[test]
    fn what_a_server_says_replaces_what_a_client_has_written_in_any_spelling() {
        let mut headers = HeaderMap::new();
        for name in ["x-tier", "x_tier"] {
            headers.append(name, HeaderValue::from_static("gold"));
        }

        replace(&mut headers, &fields_of(&[said("X-Tier", "free")]));

        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["x-tier"], "free");
    }

    #[test]
    fn the_last_of_the_limits_that_a_request_is_beyond_says_when_to_try_again() {
        let status = |code: Code, seconds: i64, limit: u32| DescriptorStatus {
            code: code.into(),
            current_limit: Some(rls::rate_limit_response::RateLimit { requests_per_unit: limit, unit: 0 }),
            limit_remaining: 0,
            duration_until_reset: Some(rls::Duration { seconds, nanos: 1 }),
        };
        let statuses =
            [status(Code::OverLimit, 3, 5), status(Code::OverLimit, 7, 9), status(Code::Ok, 50, 1)];

        let least = Left { limit: 5, remaining: 0, reset: Some(Duration::new(3, 1)) };
        assert_eq!((super::least(&statuses), super::least(&[])), (Some(least), None));
        let headers = when(&statuses, true);

        let told = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!([told("retry-after"), told("x-ratelimit-limit")], ["8", "9"]);
        assert_eq!(told("grpc-retry-pushback-ms"), "7000");
        assert!(when(&[], true).is_empty());
        let negative = DescriptorStatus { code: Code::OverLimit.into(), ..status(Code::Ok, -1, 1) };
        assert!(!when(&[negative], false).contains_key(RETRY_AFTER));
    }
}
