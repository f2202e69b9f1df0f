//! Listeners of one port of a `Gateway` whose TLS overlaps (`OverlappingTLSConfig`, GEP-3567): a client that has a connection to
//! one may use it for requests to the other, which are answered 421 then.
//!
//! Two overlap if a host name may be of both, or if they show certificates for one name.

use std::collections::HashMap;

use selvedge_model::gateway::Hostname;

use super::{
    super::grants::Grants,
    holders::Holder,
    terminate::{Secrets, permitted_certificates},
};
use crate::resources::gateway::{ListenerProtocol, ListenerSpec};

/// What a listener's TLS overlaps with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Whether certificates are for one name; otherwise host names overlap.
    pub of_certificates: bool,
    /// What is the listener's own, and what is the other's.
    pub names: (String, String),
    /// The other listener.
    pub with: String,
}

/// A listener that has TLS.
struct Secure<'a> {
    /// The place of its holder and its own there.
    place: (usize, usize),
    called: String,
    listener: &'a ListenerSpec,
    certified: Vec<Hostname>,
}

/// Of each listener of each of `holders`, which are those of one gateway, what it overlaps with.
pub(super) fn overlaps(
    holders: &[Holder<'_>],
    secrets: &Secrets<'_>,
    grants: &Grants<'_>,
) -> Vec<Vec<Option<Overlap>>> {
    let none = |holder: &Holder<'_>| vec![None; holder.listeners().len()];
    let mut found: Vec<Vec<Option<Overlap>>> = holders.iter().map(none).collect();
    let mut by_port: HashMap<u16, Vec<Secure<'_>>> = HashMap::new();
    for (at, holder) in holders.iter().enumerate() {
        for (place, listener) in holder.listeners().iter().enumerate() {
            if matches!(listener.protocol, ListenerProtocol::Https | ListenerProtocol::Tls) {
                let certified = permitted_certificates(*holder, listener, secrets, grants);
                let called = format!("{} {}", holder.name(), listener.name);
                let secure = Secure { place: (at, place), called, listener, certified };
                by_port.entry(listener.port).or_default().push(secure);
            }
        }
    }
    for here in by_port.into_values().filter(|here| here.len() > 1) {
        let hostnames: Vec<Vec<&Hostname>> = here.iter().map(|one| vec![&one.listener.hostname]).collect();
        let certified: Vec<Vec<&Hostname>> = here.iter().map(|one| one.certified.iter().collect()).collect();
        // Where both are so, it is told of the certificates.
        for (of_certificates, names) in [(false, hostnames), (true, certified)] {
            for (one, other, names) in pairs(&names, of_certificates) {
                for (own, with, names) in
                    [(one, other, names.clone()), (other, one, (names.1.clone(), names.0.clone()))]
                {
                    let (at, place) = here[own].place;
                    let with = here[with].called.clone();
                    let new = Overlap { of_certificates, names, with };
                    let there = &mut found[at][place];
                    if there.as_ref().is_none_or(|there| of_certificates && !there.of_certificates) {
                        *there = Some(new);
                    }
                }
            }
        }
    }
    found
}

/// Of each that overlaps with others one pair at least, with what overlaps: the sets of names at their places. Two listeners
/// for the same host names exclude each other, which is told elsewhere; certificates may be the same.
fn pairs(sets: &[Vec<&Hostname>], with_equal: bool) -> Vec<(usize, usize, (String, String))> {
    let mut first: HashMap<&Hostname, usize> = HashMap::new();
    let mut pairs = Vec::new();
    for (place, names) in sets.iter().enumerate() {
        for name in names {
            let elder = *first.entry(name).or_insert(place);
            if with_equal && elder != place {
                pairs.push((elder, place, (name.to_string(), name.to_string())));
            }
        }
    }
    for (place, names) in sets.iter().enumerate() {
        for name in names {
            for wider in wider(name) {
                if let Some(other) = first.get(&wider).filter(|other| **other != place) {
                    pairs.push((place, *other, (name.to_string(), wider.to_string())));
                }
            }
        }
    }
    pairs
}

/// The sets that all of `name` is in, without itself.
fn wider(name: &Hostname) -> Vec<Hostname> {
    let (text, one) = match name {
        Hostname::Exact(text) => (text, true),
        Hostname::Below(text) | Hostname::OneBelow(text) => (text, false),
        Hostname::Like(_) | Hostname::Any => return Vec::new(),
    };
    let mut wider = vec![Hostname::Any];
    if matches!(name, Hostname::OneBelow(_)) {
        wider.push(Hostname::Below(text.clone()));
    }
    for (place, (dot, _)) in text.match_indices('.').enumerate() {
        let suffix = || text[dot + 1..].into();
        if one && place == 0 {
            wider.push(Hostname::OneBelow(suffix()));
        }
        wider.push(Hostname::Below(suffix()));
    }
    wider
}
