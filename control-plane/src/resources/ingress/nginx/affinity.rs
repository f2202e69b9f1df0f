//! `affinity: cookie`: a client's requests go to one endpoint.
//!
//! As nginx does it: in the mode `balanced`, the cookie is what endpoints are [hashed](selvedge_model::ConsistentHash) by,
//! so some sessions move when endpoints come or leave; in the mode `persistent`, it names its endpoint.

use std::time::Duration;

use selvedge_model::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, SessionCarrier, SessionKey,
    SessionPersistence,
};

use super::Annotations;

/// The cookie of an `Ingress` that gives it no name.
const NAME: &str = "INGRESSCOOKIE";

/// How long a cookie may be kept: ten years, in seconds.
const LONGEST: u32 = 315_360_000;

/// What keeps a client's requests together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affinity {
    /// `balanced`.
    Balanced(LoadBalancer),
    /// `persistent`. Its key is not made yet.
    Persistent(Box<SessionPersistence>),
}

/// What the annotations ask for.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Option<Affinity> {
    match annotations.text("affinity")? {
        "cookie" => {}
        other => {
            annotations.wrong("affinity", format!("{other:?} is not an affinity; write cookie"));
            return None;
        }
    }
    let persistent = is_persistent(annotations);
    let name = annotations.text("session-cookie-name").unwrap_or(NAME).to_owned();
    if super::super::super::load_balancer::cookie_name(&name, "").is_err() {
        annotations
            .wrong("session-cookie-name", format!("{name:?} is not a cookie's name; use letters and digits"));
    }
    let path = annotations.text("session-cookie-path").unwrap_or("/").to_owned();
    let max_age = annotations.number("session-cookie-max-age", "a number of seconds", 0, LONGEST);
    let expires = annotations.number("session-cookie-expires", "a number of seconds", 0, LONGEST);
    let max_age = max_age.or(expires).filter(|seconds| *seconds > 0);
    let max_age = max_age.map(|seconds| Duration::from_secs(seconds.into()));
    let mut attributes = vec!["HttpOnly".to_owned()];
    attributes.extend(annotations.text("session-cookie-domain").map(|domain| format!("Domain={domain}")));
    attributes.extend(same_site(annotations).map(|policy| format!("SameSite={policy}")));
    if annotations.flag("session-cookie-secure", false) {
        attributes.push("Secure".to_owned());
    }
    for (annotation, text) in [
        ("session-cookie-path", Some(path.as_str())),
        ("session-cookie-domain", annotations.text("session-cookie-domain")),
    ] {
        if text.is_some_and(|text| super::super::super::load_balancer::cookie_text(text, "").is_err()) {
            annotations.wrong(annotation, "cannot stand in a cookie; use printable ASCII without ;");
        }
    }
    let on_failure = annotations.flag("session-cookie-change-on-failure", false);
    Some(match persistent {
        false => {
            let cookie = HashCookie {
                name,
                ttl: Some(max_age.unwrap_or_default()),
                path: Some(path),
                attributes,
                renewed_on_failure: on_failure,
                key: None,
            };
            let (key, table) = (HashKey::Cookie(cookie), HashTable::MAGLEV);
            Affinity::Balanced(LoadBalancer::ConsistentHash(ConsistentHash { key, table, load_bound: None }))
        }
        true => Affinity::Persistent(Box::new(SessionPersistence {
            name,
            carrier: SessionCarrier::Cookie { path, max_age, attributes },
            absolute_timeout: None,
            idle_timeout: None,
            moves_on_failure: on_failure,
            key: SessionKey([0; 32]),
        })),
    })
}

/// Whether `affinity-mode` is `persistent`.
fn is_persistent(annotations: &mut Annotations<'_>) -> bool {
    match annotations.text("affinity-mode") {
        None | Some("balanced") => false,
        Some("persistent") => true,
        Some("persistent-drainable") => {
            let message = "is taken for persistent: a session leaves its endpoint as soon as that one ends, before its \
                           preStop hook is over";
            annotations.notes.not_acted_on(super::annotation("affinity-mode"), message);
            true
        }
        Some(other) => {
            let message = format!("{other:?} is not a mode of affinity; write balanced or persistent");
            annotations.wrong("affinity-mode", message);
            false
        }
    }
}

fn same_site<'a>(annotations: &mut Annotations<'a>) -> Option<&'a str> {
    let policy = annotations.text("session-cookie-samesite")?;
    if !["None", "Lax", "Strict"].contains(&policy) {
        let message = format!("{policy:?} is not a policy of SameSite; write None, Lax or Strict");
        annotations.wrong("session-cookie-samesite", message);
    }
    Some(policy)
}
