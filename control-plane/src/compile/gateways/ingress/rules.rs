//! The rules of one host.

use std::sync::Arc;

use http::{HeaderName, header::AUTHORIZATION};
use selvedge_model::{
    Filters, Match, Protocol, Rule, StreamTimeouts, StringMatch, TlsOrigination, TrafficPolicy, UpstreamTls,
    WeightedBackend,
    filter::{HeaderChange, HeaderChanges, OwnAnswer, Redirect, Rewrite},
    limit::RateLimit,
};

use super::{
    super::{
        super::{
            Problems,
            routes::{Backends, Reference, Share},
            rule_names::{APP_ROOT, ingress_rule_name},
        },
        spoken_in_plaintext,
    },
    HTTP, Ingress, canary,
    hosts::{Host, Path},
    tls::TlsHost,
    users::AllUsers,
};
use crate::resources::{
    ingress::{
        BackendObject, IngressBackend, ServicePort,
        nginx::{Affinity, BackendProtocol, Nginx},
    },
    references::BackendRef,
};

/// Below this nothing is sent to TLS: who makes certificates asks for it in plaintext (nginx's
/// `no-tls-redirect-locations`).
pub(super) const CHALLENGES: &str = "/.well-known/acme-challenge";

/// What tells an app where its paths begin for clients.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What nginx's controller tells an app of its client, besides what every gateway says: what a header is called, and its
/// value. The port is told over TLS alone. Before plaintext a trusted proxy may have ended TLS, at a port that nobody knows.
const TOLD: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("x-real-ip"), "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
    (HeaderName::from_static("x-forwarded-scheme"), "%REQ(x-forwarded-proto)%"),
    (HeaderName::from_static("x-scheme"), "%REQ(x-forwarded-proto)%"),
];
const TOLD_OVER_TLS: (HeaderName, &str) = (HeaderName::from_static("x-forwarded-port"), "443");

/// What requests come over.
#[derive(Debug)]
pub(super) enum Over<'t, 'a> {
    /// Plaintext.
    Plaintext {
        /// What has their host served over TLS, too.
        tls: Vec<&'t TlsHost<'a>>,
    },
    /// TLS.
    Tls,
}

impl Over<'_, '_> {
    /// What the app of a path is told of its clients.
    fn tells(&self) -> impl Iterator<Item = HeaderChange> {
        let over_tls = matches!(self, Self::Tls).then_some(TOLD_OVER_TLS);
        TOLD.into_iter().chain(over_tls).filter_map(|(name, value)| {
            let value = value.parse().ok()?;
            Some(HeaderChange { name, value })
        })
    }

    /// Whether requests for `path` are sent to TLS.
    fn sends_to_tls(&self, path: &Path<'_>) -> bool {
        let Self::Plaintext { tls } = self else { return false };
        let nginx = &path.ingress.spec.nginx;
        if nginx.answer.is_some() || why_unusable(nginx).is_some() {
            return false;
        }
        nginx.force_ssl_redirect || nginx.ssl_redirect && tls.iter().any(|tls| tls.may_redirect(path.ingress))
    }
}

/// The rules for requests to `host`, first tried first.
pub(super) fn of(
    host: &Host<'_>,
    (over, users): (&Over<'_, '_>, &AllUsers<'_>),
    backends: &mut Backends<'_>,
    problems: &mut Problems,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = app_root(host).into_iter().collect();
    for path in &host.paths {
        let rule = rule(path, (over, users), backends, problems);
        if over.sends_to_tls(path) && !path.is_challenge() {
            rules.push(to_tls(path, rule.name.clone()));
        }
        canary::add(path, rule, backends, problems, &mut rules);
    }
    rules
}

impl Path<'_> {
    fn is_challenge(&self) -> bool {
        match &self.asks {
            StringMatch::Exact(path) | StringMatch::Prefix(path) | StringMatch::PathPrefix(path) => {
                path.starts_with(CHALLENGES)
            }
            _ => false,
        }
    }
}

/// Where requests for `/` are sent, if who gets them says so.
fn app_root(host: &Host<'_>) -> Option<Rule> {
    let path = host.paths.iter().find(|path| path.asks.is_match("/"))?;
    let nginx = &path.ingress.spec.nginx;
    let app_root = nginx.app_root.clone().filter(|_| why_unusable(nginx).is_none())?;
    let filters = Filters { sources: nginx.sources.clone(), ..app_root };
    Some(Rule {
        name: ingress_rule_name(path.ingress, APP_ROOT),
        matches: vec![Match { path: Some(StringMatch::Exact("/".to_owned())), ..Match::default() }],
        filters,
        ..Rule::default()
    })
}

/// Where requests for `path` are sent, unless a trusted proxy has ended their TLS.
fn to_tls(path: &Path<'_>, name: String) -> Rule {
    let filters = Filters {
        sources: path.ingress.spec.nginx.sources.clone(),
        answer: Some(OwnAnswer::Redirect(Redirect::to_https(308))),
        ..Filters::default()
    };
    let asked = Match { path: Some(path.asks.clone()), ..spoken_in_plaintext() };
    Rule { name, matches: vec![asked], filters, ..Rule::default() }
}

fn rule(
    path: &Path<'_>,
    (over, users): (&Over<'_, '_>, &AllUsers<'_>),
    backends: &mut Backends<'_>,
    problems: &mut Problems,
) -> Rule {
    let nginx = &path.ingress.spec.nginx;
    let backend = backend(path.ingress, path.backend, nginx, backends, problems);
    let name = ingress_rule_name(path.ingress, &path.called);
    let session = match &nginx.affinity {
        // One for all paths of the `Ingress`, as its cookie is.
        Some(Affinity::Persistent(session)) => {
            Some(backends.session(session, &path.ingress.name.to_string()))
        }
        Some(Affinity::Balanced(_)) | None => {
            let written = Some((path.ingress, "spec.rules"));
            backends.session_of_service(&[WeightedBackend::new(backend, 1)], &name, written, problems)
        }
    };
    Rule {
        name,
        session,
        matches: vec![Match { path: Some(path.asks.clone()), ..Match::default() }],
        backends: vec![WeightedBackend::new(backend, 1)],
        stream: StreamTimeouts { idle: nginx.read_timeout, response: None },
        filters: filters(path, nginx, (over, users)),
        ..Rule::default()
    }
}

/// Why requests cannot be answered as the annotations ask.
fn why_unusable(nginx: &Nginx) -> Option<String> {
    let broken = nginx.notes.first_error().map(|(field, message)| format!("{field}: {message}"));
    nginx.refuses.clone().or(broken)
}

fn filters(path: &Path<'_>, nginx: &Nginx, (over, users): (&Over<'_, '_>, &AllUsers<'_>)) -> Filters {
    if let Some(why) = why_unusable(nginx) {
        return Filters { answer: Some(OwnAnswer::Unusable(why)), ..Filters::default() };
    }
    let sources = nginx.sources.clone();
    if let Some(answer) = &nginx.answer {
        return Filters { sources, ..answer.clone() };
    }
    let basic = match users.of(path.ingress) {
        Ok(basic) => basic,
        Err(why) => return Filters { sources, answer: Some(OwnAnswer::Unusable(why)), ..Filters::default() },
    };
    let limits = match nginx.limits.as_slice() {
        [] => Vec::new(),
        limits => {
            let name = Arc::from(path.ingress.name.to_string());
            vec![RateLimit::new(name, None, false, limits.to_vec())]
        }
    };
    let remove = if path.hides_passwords { vec![AUTHORIZATION] } else { Vec::new() };
    let prefix = nginx.forwarded_prefix.clone().filter(|_| path.rewrite.is_some());
    let prefix = prefix.map(|value| HeaderChange { name: FORWARDED_PREFIX, value });
    let set = prefix.into_iter().chain(over.tells()).collect();
    Filters {
        sources,
        limits,
        cors: nginx.cors.clone(),
        basic,
        request_headers: HeaderChanges { remove, set, add: Vec::new() },
        max_body: nginx.body_size,
        rewrite: Rewrite {
            path: path.rewrite.cloned(),
            adds_query: nginx.adds_query() && path.rewrite.is_some(),
            authority: nginx.upstream_vhost.clone(),
        },
        ..Filters::default()
    }
}

/// The index of `backend` of `ingress`, treated as `nginx` says.
pub(super) fn backend(
    ingress: &Ingress,
    backend: &IngressBackend,
    nginx: &Nginx,
    backends: &mut Backends<'_>,
    problems: &mut Problems,
) -> usize {
    let (kind, name, port) = match &backend.to {
        BackendObject::Other(kind) => (kind.as_str(), "", None),
        BackendObject::Service(name, ServicePort::Number(port)) => ("Service", name.as_str(), Some(*port)),
        BackendObject::Service(name, ServicePort::Name(port)) => {
            match backends.port_named(&ingress.name.namespace, name, port) {
                // Of a Service that there is not, any port will do.
                Ok(port) => ("Service", name.as_str(), port.or(Some(HTTP))),
                Err(why) => {
                    problems.error(
                        ingress,
                        &format!("{}.service.port.name", backend.field),
                        format!("{why} (its share of requests is answered 503)"),
                    );
                    return backends.unusable(&format!("{}/{}", ingress.name, backend.field), why);
                }
            }
        }
    };
    let to = BackendRef {
        index: 0,
        group: String::new(),
        kind: kind.to_owned(),
        namespace: None,
        name: name.to_owned(),
        port,
        weight: 1,
    };
    let list = format!("{}.{}", backend.field, if kind == "Service" { "service" } else { "resource" });
    let index = backends.backend(ingress, &list, Reference::MirrorObject(&to), Share::Requests, problems);
    let is_balanced = matches!(nginx.affinity, Some(Affinity::Balanced(_)));
    if nginx.protocol == BackendProtocol::AsDeclared && nginx.connect_timeout.is_none() && !is_balanced {
        return index;
    }
    backends.changed(index, &ingress.name.to_string(), |policy| change(policy, nginx))
}

fn change(policy: &mut TrafficPolicy, nginx: &Nginx) {
    if let Some(Affinity::Balanced(balancer)) = &nginx.affinity {
        policy.load_balancer = balancer.clone();
    }
    if let Some(timeout) = nginx.connect_timeout {
        policy.connect_timeout = timeout;
    }
    if matches!(nginx.protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs) {
        policy.spoken = Some(Protocol::Http2);
    }
    if matches!(nginx.protocol, BackendProtocol::Https | BackendProtocol::Grpcs) && policy.tls.is_none() {
        // As nginx does, which asks for no certificate that it could check.
        let settings = TlsOrigination { insecure_skip_verify: true, ..TlsOrigination::default() };
        policy.tls = Some(UpstreamTls::Originate(settings));
    }
}
