//! Why the proxy answers itself: a closed set of reasons, and one row of a table for each.
//!
//! All other modules use this table: nothing else says what a reason means. `proxy/errors.md` explains the reasons to
//! people, and a test keeps the two in step.

use std::fmt;

use http::StatusCode;
use selvedge_model::{retry::Failure as Attempt, traffic::FailureKind};
use tonic::Code;

/// Why the proxy answered itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request is not one that HTTP allows, or names no authority.
    BadRequest,
    /// The request's head has more bytes or fields than the limit.
    HeadTooLarge,
    /// The request's body has more bytes than its route or the gateway allows.
    BodyTooLarge,
    /// The rest of the request's head did not come in time, or its body came too slowly.
    RequestTimeout,
    /// The app beside the answering sidecar does not accept connections.
    AppUnreachable,
    /// The client left before its answer had come to its end. Only metrics and logs show it.
    Canceled,
    /// Our own certificate is missing or has expired.
    Certificate,
    /// The app has as many requests in progress as it answers without delay.
    Concurrency,
    /// No connection to the endpoint: refused, unreachable, or not within the connect timeout.
    ConnectFailure,
    /// The route asks for a name and a password, and the request has none, or wrong ones.
    Credentials,
    /// The control plane has not said in time what the authority means, or DNS whose the address is.
    Discovery,
    /// The proxy is shutting down.
    Draining,
    /// A fault in the rule makes the request fail on purpose.
    Fault,
    /// A filter of the rule cannot be used.
    Filter,
    /// The endpoint proved to be another workload than the one expected at its address.
    Identity,
    /// The destination is a sidecar's own listener, or the request came back to the proxy that sent it.
    Loop,
    /// The request belongs to another listener of the gateway than the one that its TLS connection was made to.
    Misdirected,
    /// The rule's backend cannot be used: an unknown host or subset, or weights that sum to nothing.
    NoBackend,
    /// The backend has no endpoint that could be called: none at all, or all are ejected.
    NoEndpoint,
    /// The service has rules, and none matches the request.
    NoRoute,
    /// A limit is reached: of the backend's connectionPool, of connections, or of what is held.
    Overflow,
    /// A policy refuses the connection or request.
    Policy,
    /// The other side did not speak the protocol that was agreed on.
    Protocol,
    /// The request is beyond a rate limit.
    RateLimit,
    /// The server that counts a rate limit has not answered, and the document refuses what it does not answer.
    RateLimitServer,
    /// The destination is in no configuration, and the outbound traffic policy lets only those out.
    RegistryOnly,
    /// The connection to the server broke before the answer had come to its end.
    Reset,
    /// The route's time, or the attempt's, is over.
    Timeout,
    /// No mutual TLS with the endpoint, or no TLS with a server outside the mesh.
    Tls,
    /// The request's token (JWT) is not accepted.
    Token,
}

/// Which proxy says that a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidBy {
    /// We.
    Us,
    /// The endpoint's sidecar, in an answer that it made itself.
    Peer,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The client's: it did not send a request as HTTP requires.
    Client,
    /// The endpoint's: it counts towards ejecting it.
    Endpoint,
    /// The endpoint's, if its sidecar says so. If we say so it is our own fault, and does not count against an
    /// endpoint.
    Speaker,
    /// Not the client's and not the endpoint's: configuration, policy or the mesh itself.
    Neither,
}

/// One row of the table.
#[derive(Debug)]
struct Meaning {
    reason: Reason,
    /// For headers, metrics and logs.
    word: &'static str,
    /// The status of an answer over HTTP.
    status: StatusCode,
    /// The status of an answer to a gRPC call.
    grpc: Code,
    fault: Fault,
    /// Whether the request was certainly not delivered to an app, no matter which proxy says it. Then any request may
    /// be sent again.
    is_undelivered: bool,
    /// What our own retries see in an attempt that we say ended so, unless it is known not to have been delivered.
    /// `None`: nothing that a policy for retries can name.
    ours: Option<Attempt>,
    /// The same where the endpoint's sidecar says so. `None`: the status of its answer alone counts.
    peers: Option<Attempt>,
    /// Whether a client from outside the mesh loses its connection with this answer: others need its place.
    dismisses_strangers: bool,
    /// When to try again (`Retry-After`), in seconds. `None`: nothing is said.
    retry_after: Option<&'static str>,
    /// How to prove who asks (`WWW-Authenticate`). `None`: nothing is said.
    challenge: Option<&'static str>,
}

/// What most reasons have in common: each row says what is different.
const USUAL: Meaning = Meaning {
    reason: Reason::NoEndpoint,
    word: "",
    status: StatusCode::SERVICE_UNAVAILABLE,
    grpc: Code::Unavailable,
    fault: Fault::Neither,
    is_undelivered: false,
    ours: None,
    peers: None,
    dismisses_strangers: false,
    retry_after: None,
    challenge: None,
};

/// What each reason means, in the order of [`Reason`].
static TABLE: [Meaning; 30] = [
    Meaning {
        reason: Reason::BadRequest,
        word: "bad-request",
        status: StatusCode::BAD_REQUEST,
        grpc: Code::Internal,
        fault: Fault::Client,
        dismisses_strangers: true,
        ..USUAL
    },
    Meaning {
        reason: Reason::HeadTooLarge,
        word: "head-too-large",
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        grpc: Code::ResourceExhausted,
        fault: Fault::Client,
        dismisses_strangers: true,
        ..USUAL
    },
    Meaning {
        reason: Reason::BodyTooLarge,
        word: "body-too-large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        grpc: Code::ResourceExhausted,
        fault: Fault::Client,
        dismisses_strangers: true,
        ..USUAL
    },
    Meaning {
        reason: Reason::RequestTimeout,
        word: "request-timeout",
        status: StatusCode::REQUEST_TIMEOUT,
        fault: Fault::Client,
        dismisses_strangers: true,
        ..USUAL
    },
    Meaning {
        reason: Reason::AppUnreachable,
        word: "app-unreachable",
        fault: Fault::Endpoint,
        is_undelivered: true,
        peers: Some(Attempt::Connect),
        ..USUAL
    },
    // There is no answer whose status it could be.
    Meaning {
        reason: Reason::Canceled,
        word: "canceled",
        status: StatusCode::BAD_REQUEST,
        grpc: Code::Cancelled,
        ..USUAL
    },
    // A peer with it has no TLS to say so over.
    Meaning { reason: Reason::Certificate, word: "certificate", is_undelivered: true, ..USUAL },
    // As for `Overflow`. But whoever is busy is not broken, and is not ejected.
    Meaning { reason: Reason::Concurrency, word: "concurrency", retry_after: Some("1"), ..USUAL },
    Meaning {
        reason: Reason::ConnectFailure,
        word: "connect-failure",
        fault: Fault::Endpoint,
        is_undelivered: true,
        peers: Some(Attempt::Connect),
        ..USUAL
    },
    // The route says what to ask for (`WWW-Authenticate`). A browser asks first without a password, so it keeps its connection.
    Meaning {
        reason: Reason::Credentials,
        word: "credentials",
        status: StatusCode::UNAUTHORIZED,
        grpc: Code::Unauthenticated,
        ..USUAL
    },
    Meaning { reason: Reason::Discovery, word: "discovery", ..USUAL },
    Meaning {
        reason: Reason::Draining,
        word: "draining",
        fault: Fault::Endpoint,
        is_undelivered: true,
        peers: Some(Attempt::NotDelivered),
        ..USUAL
    },
    // The fault says the status itself.
    Meaning { reason: Reason::Fault, word: "fault", ..USUAL },
    Meaning {
        reason: Reason::Filter,
        word: "filter",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        grpc: Code::Internal,
        ..USUAL
    },
    Meaning {
        reason: Reason::Identity,
        word: "identity",
        fault: Fault::Endpoint,
        is_undelivered: true,
        peers: Some(Attempt::Connect),
        ..USUAL
    },
    Meaning {
        reason: Reason::Loop,
        word: "loop",
        status: StatusCode::LOOP_DETECTED,
        grpc: Code::Internal,
        ..USUAL
    },
    // A client that gets it makes a connection of its own for that host (RFC 9110, section 15.5.20).
    Meaning {
        reason: Reason::Misdirected,
        word: "misdirected",
        status: StatusCode::MISDIRECTED_REQUEST,
        fault: Fault::Client,
        ..USUAL
    },
    Meaning { reason: Reason::NoBackend, word: "no-backend", ..USUAL },
    Meaning { reason: Reason::NoEndpoint, word: "no-endpoint", ..USUAL },
    Meaning {
        reason: Reason::NoRoute,
        word: "no-route",
        status: StatusCode::NOT_FOUND,
        grpc: Code::Unimplemented,
        ..USUAL
    },
    // Nothing was delivered, but the request may not be sent again at once: trying again what there was no room for
    // would spread the overload.
    Meaning {
        reason: Reason::Overflow,
        word: "overflow",
        grpc: Code::ResourceExhausted,
        fault: Fault::Speaker,
        dismisses_strangers: true,
        retry_after: Some("1"),
        ..USUAL
    },
    Meaning {
        reason: Reason::Policy,
        word: "policy",
        status: StatusCode::FORBIDDEN,
        grpc: Code::PermissionDenied,
        dismisses_strangers: true,
        ..USUAL
    },
    Meaning {
        reason: Reason::Protocol,
        word: "protocol",
        status: StatusCode::BAD_GATEWAY,
        fault: Fault::Endpoint,
        ours: Some(Attempt::Reset),
        ..USUAL
    },
    // The answer itself says when to try again. Nobody does so by himself: that would be one more request.
    Meaning {
        reason: Reason::RateLimit,
        word: "rate-limit",
        status: StatusCode::TOO_MANY_REQUESTS,
        grpc: Code::ResourceExhausted,
        ..USUAL
    },
    // Envoy's status for it.
    Meaning {
        reason: Reason::RateLimitServer,
        word: "rate-limit-server",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..USUAL
    },
    Meaning { reason: Reason::RegistryOnly, word: "registry-only", status: StatusCode::BAD_GATEWAY, ..USUAL },
    Meaning {
        reason: Reason::Reset,
        word: "reset",
        status: StatusCode::BAD_GATEWAY,
        fault: Fault::Endpoint,
        ours: Some(Attempt::Reset),
        peers: Some(Attempt::Reset),
        ..USUAL
    },
    Meaning {
        reason: Reason::Timeout,
        word: "timeout",
        status: StatusCode::GATEWAY_TIMEOUT,
        grpc: Code::DeadlineExceeded,
        fault: Fault::Endpoint,
        ours: Some(Attempt::PerTryTimeout),
        ..USUAL
    },
    Meaning {
        reason: Reason::Tls,
        word: "tls",
        fault: Fault::Endpoint,
        is_undelivered: true,
        peers: Some(Attempt::Connect),
        ..USUAL
    },
    Meaning {
        reason: Reason::Token,
        word: "token",
        status: StatusCode::UNAUTHORIZED,
        grpc: Code::Unauthenticated,
        dismisses_strangers: true,
        challenge: Some("Bearer error=\"invalid_token\""),
        ..USUAL
    },
];

// Each row stands at the place of its reason.
const _: () = {
    let mut place = 0;
    while place < TABLE.len() {
        assert!(TABLE[place].reason as usize == place);
        place += 1;
    }
};

impl Reason {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::BadRequest; TABLE.len()];
        let mut place = 0;
        while place < TABLE.len() {
            all[place] = TABLE[place].reason;
            place += 1;
        }
        all
    };

    const fn meaning(self) -> &'static Meaning {
        &TABLE[self as usize]
    }

    /// The word for headers, metrics and logs.
    pub const fn word(self) -> &'static str {
        self.meaning().word
    }

    /// The HTTP status of the answer.
    pub const fn status(self) -> StatusCode {
        self.meaning().status
    }

    /// The gRPC status of the answer, for callers that speak gRPC.
    pub const fn grpc(self) -> u8 {
        self.meaning().grpc as u8
    }

    /// Envoy's response flag for it, as Istio's metrics and access logs have it (Envoy, "access log format operators",
    /// `RESPONSE_FLAGS`); `-`: Envoy has none.
    pub const fn response_flags(self) -> &'static str {
        match self {
            Self::BadRequest | Self::HeadTooLarge => "DPE",
            Self::RequestTimeout => "SI",
            Self::AppUnreachable | Self::Certificate | Self::ConnectFailure | Self::Identity | Self::Tls => {
                "UF"
            }
            Self::Canceled => "DC",
            Self::Concurrency => "OM",
            Self::Discovery | Self::Filter | Self::Loop | Self::NoBackend => "NC",
            Self::Draining => "LR",
            Self::Fault => "FI",
            Self::Misdirected | Self::NoRoute | Self::RegistryOnly => "NR",
            Self::NoEndpoint => "UH",
            Self::Overflow => "UO",
            Self::Protocol => "UPE",
            Self::RateLimit => "RL",
            Self::RateLimitServer => "RLSE",
            Self::Reset => "UC",
            Self::Timeout => "UT",
            Self::BodyTooLarge | Self::Credentials | Self::Policy | Self::Token => "-",
        }
    }

    /// What it is as a failure of an attempt at an endpoint.
    pub const fn kind(self) -> FailureKind {
        match self {
            Self::AppUnreachable => FailureKind::AppUnreachable,
            Self::ConnectFailure => FailureKind::ConnectFailure,
            Self::Draining => FailureKind::Draining,
            Self::Identity => FailureKind::Identity,
            Self::Protocol => FailureKind::Protocol,
            Self::Reset => FailureKind::Reset,
            Self::Timeout => FailureKind::Timeout,
            Self::Tls => FailureKind::Tls,
            _ => FailureKind::Other,
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads the reason out of a peer's `selvedge-error` header.
    pub fn from_header(value: &http::HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        Self::from_word(text.split(':').next()?.trim())
    }

    /// The reason that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// Whether the client did not send a request as HTTP requires. What follows on its connection may then be meant
    /// as something else than the next request.
    pub const fn is_clients_fault(self) -> bool {
        matches!(self.meaning().fault, Fault::Client)
    }

    /// Whether the failure says something about the endpoint that was called, rather than about us or the request.
    pub const fn blames_endpoint(self, said_by: SaidBy) -> bool {
        match self.meaning().fault {
            Fault::Endpoint => true,
            Fault::Speaker => matches!(said_by, SaidBy::Peer),
            Fault::Client | Fault::Neither => false,
        }
    }

    /// Whether the app was certainly not reached, so that any request may be sent again.
    pub const fn proves_undelivered(self) -> bool {
        self.meaning().is_undelivered
    }

    /// What retries see in an attempt that ended so; `None`: nothing that a policy for retries can name, and the answer's
    /// status alone counts.
    pub const fn for_retries(self, said_by: SaidBy) -> Option<Attempt> {
        match said_by {
            SaidBy::Us => self.meaning().ours,
            SaidBy::Peer => self.meaning().peers,
        }
    }

    /// Whether a client that has proven nothing loses its connection with such an answer: others need its place.
    pub const fn dismisses_strangers(self) -> bool {
        self.meaning().dismisses_strangers
    }

    /// After how many seconds a client may try again (`Retry-After`; RFC 9110, section 10.2.3); `None`: nothing is said.
    pub const fn retry_after(self) -> Option<&'static str> {
        self.meaning().retry_after
    }

    /// How a client may prove who asks (`WWW-Authenticate`; RFC 6750, section 3); `None`: nothing is said.
    pub const fn challenge(self) -> Option<&'static str> {
        self.meaning().challenge
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::traffic::{Carried, Outcome};

    use super::*;

    /// A row of the guide: reason, HTTP status, gRPC status.
    fn row_of_guide(line: &str) -> Option<[&str; 3]> {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some([cells.next()?.trim_end_matches('`'), cells.next()?, cells.next()?])
    }

    /// As the guide writes gRPC's codes: `RESOURCE_EXHAUSTED`.
    fn in_capitals(code: Code) -> String {
        let mut text = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_ascii_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.push(letter.to_ascii_uppercase());
        }
        text
    }

    #[test]
    fn the_guide_has_the_same_reasons_with_the_same_statuses() {
        let guide: Vec<[&str; 3]> =
            include_str!("../../errors.md").lines().filter_map(row_of_guide).collect();

        let mut table: Vec<[String; 3]> = Reason::ALL
            .into_iter()
            .map(|reason| match reason {
                // Nobody is there to be answered.
                Reason::Canceled => [reason.word().to_owned(), String::new(), String::new()],
                _ => {
                    let grpc = in_capitals(reason.meaning().grpc);
                    [reason.word().to_owned(), reason.status().as_u16().to_string(), grpc]
                }
            })
            .collect();
        table.sort();
        assert_eq!(guide, table);
    }

    #[test]
    fn every_reason_has_one_word_and_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
            let header = http::HeaderValue::from_str(&format!("{reason}: anything: else")).unwrap();
            assert_eq!(Reason::from_header(&header), Some(reason));
        }
    }

    #[test]
    fn another_word_is_no_reason() {
        assert_eq!(Reason::from_header(&http::HeaderValue::from_static("nonsense: x")), None);
    }

    #[test]
    fn what_a_peer_was_asked_in_vain_for_can_be_asked_for_again() {
        for reason in Reason::ALL {
            let named = reason.for_retries(SaidBy::Peer);
            if matches!(named, Some(Attempt::Connect | Attempt::NotDelivered)) {
                assert!(reason.proves_undelivered() && reason.blames_endpoint(SaidBy::Peer), "{reason}");
            }
        }
    }

    #[test]
    fn what_the_mesh_does_not_serve_is_a_failure_over_http_and_grpc_alike() {
        let fails = |status, grpc_status, reason: Reason| {
            let reason = Some(reason.word().into());
            Outcome { status: Some(status), grpc_status, reason }.is_failure(Carried::Http)
        };
        // What is refused, and what is asked of the client.
        let refusals = [Reason::Credentials, Reason::Policy, Reason::RateLimit, Reason::Token];
        // Nobody is answered, or as the document says.
        let others = |reason: &Reason| {
            !reason.is_clients_fault() && !matches!(reason, Reason::Canceled | Reason::Fault)
        };
        for reason in Reason::ALL.into_iter().filter(others) {
            let is_failure = !refusals.contains(&reason);
            assert_eq!(fails(reason.status().as_u16(), None, reason), is_failure, "{reason} over HTTP");
            assert_eq!(fails(200, Some(reason.grpc()), reason), is_failure, "{reason} over gRPC");
        }
    }

    #[test]
    fn our_own_limit_is_no_endpoints_fault() {
        assert!(!Reason::Overflow.blames_endpoint(SaidBy::Us));
        assert!(Reason::Overflow.blames_endpoint(SaidBy::Peer));
    }
}
