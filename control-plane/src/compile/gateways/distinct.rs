//! Which listeners of one port are served beside each other.
//!
//! All agree in what clients begin with, and no two have the same host names. Of listeners of one `Gateway` or `ListenerSet`
//! that exclude each other none is served; of several documents the first one's is
//! (<https://gateway-api.sigs.k8s.io/reference/spec/#gatewayspec>, "Handling indistinct Listeners"; the order of
//! `ListenerSet`s is that of <https://gateway-api.sigs.k8s.io/geps/gep-1713/>).

use std::collections::HashMap;

use selvedge_model::gateway::{Carries, Hostname, ListenerTls};

use super::{super::Problems, draft::NewListener};
use crate::problem::{Fault, ListenerFault, Problem};

/// For each of `listeners` of one port, in their order, whether it is served. Those that are not are reported.
pub(super) fn served(listeners: &[&NewListener], problems: &mut Problems) -> Vec<bool> {
    // Whoever comes later must not be in their way. One that only its own siblings exclude keeps its place: somebody
    // else's listener there would serve its clients.
    let mut holding = Holding::default();
    let mut served = vec![false; listeners.len()];
    for (place, one) in listeners.iter().copied().enumerate() {
        let elder = holding.elder(one).map(|elder| listeners[elder]);
        let elder = elder.and_then(|elder| Some((elder, conflict(one, elder)?)));
        if let Some((elder, why)) = elder.filter(|(elder, _)| !is_sibling(one, elder)) {
            report(one, elder, why, "so this one is not served", problems);
            continue;
        }
        holding.add(one, place);
        let siblings: &[&NewListener] = if one.has_equal_siblings { listeners } else { &[] };
        let mut siblings = siblings.iter().filter(|other| is_sibling(one, other));
        match siblings.find_map(|other| Some((*other, conflict(one, other)?))) {
            Some((sibling, why)) => report(one, sibling, why, "so neither is served", problems),
            None => served[place] = true,
        }
    }
    served
}

/// The listeners that have their places, by what nobody else can have beside them: there may be many.
#[derive(Default)]
struct Holding<'n> {
    /// The first place of each host name.
    by_hostname: HashMap<&'n Hostname, usize>,
    /// The first place of each that clients begin with.
    by_carries: Vec<(Carries, usize)>,
}

impl<'n> Holding<'n> {
    fn add(&mut self, one: &'n NewListener, place: usize) {
        self.by_hostname.entry(&one.hostname).or_insert(place);
        if !self.by_carries.iter().any(|(carries, _)| *carries == one.carries) {
            self.by_carries.push((one.carries, place));
        }
    }

    /// The first place of one that excludes `one`, as [`conflict`] says why.
    fn elder(&self, one: &NewListener) -> Option<usize> {
        let others = self.by_carries.iter().filter(|(carries, _)| *carries != one.carries);
        let others = others.map(|(_, place)| *place);
        others.chain(self.by_hostname.get(&one.hostname).copied()).min()
    }
}

/// Whether they are two listeners of one document of which neither goes before the other.
fn is_sibling(one: &NewListener, other: &NewListener) -> bool {
    let same = one.written.document == other.written.document;
    same && one.has_equal_siblings && !std::ptr::eq(one, other)
}

/// Why they cannot be served beside each other.
fn conflict(one: &NewListener, other: &NewListener) -> Option<ListenerFault> {
    match () {
        () if one.carries != other.carries => Some(ListenerFault::OtherProtocol),
        () if one.hostname != other.hostname => None,
        () if is_https(one) == is_https(other) => Some(ListenerFault::SameHostname),
        () => Some(ListenerFault::OtherProtocol),
    }
}

fn is_https(listener: &NewListener) -> bool {
    matches!(&listener.tls, Some(ListenerTls::Terminate(termination)) if termination.http)
}

fn report(
    one: &NewListener,
    other: &NewListener,
    why: ListenerFault,
    outcome: &str,
    problems: &mut Problems,
) {
    let (port, carries) = (one.port, words(other.carries));
    let message = match why {
        ListenerFault::SameHostname => format!(
            "{} has the same host names ({}) at port {port}, {outcome}; give one of them another port or hostname",
            other.name, one.hostname
        ),
        _ if one.carries == other.carries => format!(
            "{} has the same host names ({}) at port {port} with another protocol, {outcome}; give one of them \
             another port or hostname",
            other.name, one.hostname
        ),
        _ => format!(
            "port {port} also carries {carries} for {}, {outcome}; give one of them another port",
            other.name
        ),
    };
    for written in [&one.written].into_iter().chain(&one.with) {
        problems.add(Problem { message: message.clone(), fault: Fault::Listener(why), ..written.clone() });
    }
}

/// What clients begin with, in words.
fn words(carries: Carries) -> &'static str {
    match carries {
        Carries::Http => "HTTP",
        Carries::Tls => "TLS",
        Carries::Tcp => "opaque TCP",
    }
}
