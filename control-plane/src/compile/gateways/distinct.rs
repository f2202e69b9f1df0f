//! Which listeners of one port are served beside each other.
//!
//! All agree in what clients begin with, and no two have the same host names. Of listeners of one `Gateway` or `ListenerSet`
//! that exclude each other none is served; of several documents the first one's is
//! (<https://gateway-api.sigs.k8s.io/reference/spec/#gatewayspec>, "Handling indistinct Listeners"; the order of
//! `ListenerSet`s is that of <https://gateway-api.sigs.k8s.io/geps/gep-1713/>).

use selvedge_model::gateway::{Carries, ListenerTls};

use super::{super::Problems, draft::NewListener};
use crate::problem::{Fault, ListenerFault, Problem};

/// For each of `listeners` of one port, in their order, whether it is served. Those that are not are reported.
pub(super) fn served(listeners: &[&NewListener], problems: &mut Problems) -> Vec<bool> {
    // Whoever comes later must not be in their way. One that only its own siblings exclude keeps its place: somebody
    // else's listener there would serve its clients.
    let mut holding: Vec<&NewListener> = Vec::new();
    let mut served = vec![false; listeners.len()];
    for (place, one) in listeners.iter().copied().enumerate() {
        let elder = holding.iter().find_map(|other| Some((*other, conflict(one, other)?)));
        if let Some((elder, why)) = elder.filter(|(elder, _)| !is_sibling(one, elder)) {
            report(one, elder, why, "so this one is not served", problems);
            continue;
        }
        holding.push(one);
        let mut siblings = listeners.iter().filter(|other| is_sibling(one, other));
        match siblings.find_map(|other| Some((*other, conflict(one, other)?))) {
            Some((sibling, why)) => report(one, sibling, why, "so neither is served", problems),
            None => served[place] = true,
        }
    }
    served
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
