//! Live requests, as somebody asks to see them: which, how many, and what is seen of each.
//!
//! A sidecar shows them only while somebody asks. Values of header fields and the query are left out unless they are asked
//! for: they often hold what should not be seen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{SpiffeId, WorkloadName, traffic::Way};

/// The most that one sidecar is asked at a time.
pub const MOST_TAPS: usize = 4;
/// The most requests in a second that one sidecar shows to one who asks.
pub const MOST_PER_SECOND: u32 = 100;
/// The most bytes of a text that is shown of a request, or asked for.
pub const LONGEST_TEXT: usize = 1_024;
/// The most header fields that are shown of a request.
pub const MOST_FIELDS: usize = 64;
/// What stands for a value that nobody has asked for.
pub const REDACTED: &str = "(redacted)";

/// Which requests somebody asks to see. What is absent is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Those that the workload's app sends, or those that come to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The begin of the authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The begin of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The least status; without an answer it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_from: Option<u16>,
    /// The highest status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_to: Option<u16>,
    /// Why a proxy made the answer, or why it broke off: a word of `proxy/errors.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took at least, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_ms: Option<u64>,
    /// Who the client has proven to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SpiffeId>,
    /// Header fields, their values redacted.
    #[serde(default)]
    pub headers: bool,
    /// The header fields whose values are shown, in lower case, with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<String>,
    /// The query.
    #[serde(default)]
    pub query: bool,
}

/// What is known of a request without copying anything.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Whether the workload's app has sent it.
    pub way: Way,
    /// Its method.
    pub method: &'a str,
    /// Its authority.
    pub authority: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The answer's status; 0: there was none.
    pub status: u16,
    /// Why a proxy made the answer, or why it broke off.
    pub reason: Option<&'static str>,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Who the client has proven to be.
    pub client: Option<&'a SpiffeId>,
}

impl Wanted {
    /// Whether it is asked for.
    pub fn admits(&self, facts: &Facts<'_>) -> bool {
        self.admits_head(facts.way, facts.method, facts.authority, facts.path)
            && self.status_from.is_none_or(|least| facts.status >= least)
            && self.status_to.is_none_or(|most| facts.status <= most)
            && self.reason.as_deref().is_none_or(|reason| facts.reason == Some(reason))
            && self.slower_ms.is_none_or(|least| facts.micros / 1_000 >= least)
            && self.client.as_ref().is_none_or(|client| facts.client == Some(client))
    }

    /// Whether a request may be asked for of which only this is known yet.
    pub fn admits_head(&self, way: Way, method: &str, authority: &str, path: &str) -> bool {
        let begins = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| text.starts_with(wanted))
        };
        self.way.is_none_or(|wanted| wanted == way)
            && self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && begins(&self.authority, authority)
            && begins(&self.path, path)
    }

    /// Whether the value of the header field `name` is shown, which is in lower case.
    pub fn reveals(&self, name: &str) -> bool {
        self.reveal.as_deref().is_some_and(|all| all.split(',').any(|one| one.trim() == name))
    }

    /// Takes out of `sample` what was not asked for.
    pub fn redact(&self, sample: &mut Sample) {
        if !self.query {
            sample.query = None;
        }
        if !self.headers {
            sample.headers.clear();
        }
        for (name, value) in &mut sample.headers {
            if !self.reveals(name) {
                REDACTED.clone_into(value);
            }
        }
    }

    /// Whether no text of it is too long.
    pub fn is_bounded(&self) -> bool {
        let texts = [&self.method, &self.authority, &self.path, &self.reason, &self.reveal];
        texts.into_iter().flatten().all(|text| text.len() <= LONGEST_TEXT)
    }
}

/// What is shown of one request, now that it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was over, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the workload's app has sent it.
    pub way: Way,
    /// Its method.
    pub method: String,
    /// Its authority.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// Its query, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The answer's status. `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The gRPC status, where one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// Why a proxy made the answer, or why it broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Where it came from.
    pub client_address: String,
    /// Who that has proven to be. `None`: plaintext, or the workload's own app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_identity: Option<SpiffeId>,
    /// The route that it followed. `None`: none, or it came to the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The endpoint that has answered, or was tried last. `None`: none was, or it came to the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The workload there, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_workload: Option<WorkloadName>,
    /// Who that must prove to be before it gets a request. `None`: nobody, it is called in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_identity: Option<SpiffeId>,
    /// How often it was sent.
    pub attempts: u32,
    /// The request's header fields, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl Sample {
    /// What it takes in memory, nearly.
    pub fn bytes(&self) -> usize {
        let texts = [Some(&self.method), Some(&self.authority), Some(&self.path), self.query.as_ref()];
        let more = [Some(&self.client_address), self.route.as_ref(), self.endpoint.as_ref()];
        let texts: usize = texts.into_iter().chain(more).flatten().map(String::len).sum();
        let identities = [&self.client_identity, &self.endpoint_identity].into_iter().flatten();
        let identities: usize = identities.map(|identity| identity.as_str().len()).sum();
        let workload = self.endpoint_workload.as_ref();
        let workload = workload.map_or(0, |name| name.namespace().len() + name.name().len());
        let reason = self.reason.as_ref().map_or(0, |reason| reason.len());
        let of = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
        let headers: usize = self.headers.iter().map(of).sum();
        size_of::<Self>() + texts + identities + workload + reason + headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_admitted() {
        let client: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let facts = Facts {
            way: Way::Inbound,
            method: "GET",
            authority: "reviews:9080",
            path: "/api/items",
            status: 503,
            reason: Some("no-endpoint"),
            micros: 12_345,
            client: Some(&client),
        };
        let some = |text: &str| Some(text.to_owned());
        for (wanted, is_meant) in [
            (Wanted::default(), true),
            (Wanted { way: Some(Way::Outbound), ..Wanted::default() }, false),
            (Wanted { method: some("get"), ..Wanted::default() }, true),
            (Wanted { method: some("POST"), ..Wanted::default() }, false),
            (Wanted { authority: some("reviews"), path: some("/api"), ..Wanted::default() }, true),
            (Wanted { path: some("/other"), ..Wanted::default() }, false),
            (Wanted { status_from: Some(500), status_to: Some(599), ..Wanted::default() }, true),
            (Wanted { status_to: Some(499), ..Wanted::default() }, false),
            (Wanted { reason: some("policy"), ..Wanted::default() }, false),
            (Wanted { slower_ms: Some(12), ..Wanted::default() }, true),
            (Wanted { slower_ms: Some(13), ..Wanted::default() }, false),
            (Wanted { client: Some(client.clone()), ..Wanted::default() }, true),
        ] {
            assert_eq!(wanted.admits(&facts), is_meant, "{wanted:?}");
        }
    }

    #[test]
    fn a_value_is_shown_only_if_its_field_is_named() {
        let wanted =
            Wanted { headers: true, reveal: Some("x-a, user-agent".to_owned()), ..Wanted::default() };

        assert!(wanted.reveals("x-a") && wanted.reveals("user-agent"));
        assert!(!wanted.reveals("authorization") && !Wanted::default().reveals("x-a"));
    }
}
