//! Matches on claims of a request's token, for sidecars.
//!
//! A sidecar knows no verified token of the requests that its app sends: a `RequestAuthentication` is for the server, and
//! for a gateway, which routes and verifies in one place. So such a match never holds at a sidecar, whether it asks for
//! a claim or for its absence; Istio refuses it.

use super::{
    super::Problems,
    VirtualService,
    delegates::{Effective, delegate_field},
};

/// `route` without the matches that ask for claims. That is reported, unless `root`, of whose hosts it decides, is for
/// gateways too.
pub(super) fn for_sidecars<'a>(
    root: &VirtualService,
    mut route: Effective<'a>,
    problems: &mut Problems,
) -> Effective<'a> {
    let matches = route.route.matches.iter().flatten();
    let asking: Vec<usize> =
        matches.filter(|one| one.condition.asks_for_claims()).map(|one| one.index).collect();
    if asking.is_empty() {
        return route;
    }
    if root.spec.followed_by.gateways.is_empty() {
        let (document, index) = route.asked_by;
        for place in asking {
            let field = format!("spec.http[{index}].match[{place}]");
            let message = "asks for a claim of a token, which sidecars do not know of what their apps send, so it never \
                           holds; name a gateway in spec.gateways, or ask for something else";
            match route.left_by.filter(|(root, _)| root.name != document.name) {
                Some((root, index)) => {
                    let message = format!("{field} of {} {message}", document.name);
                    problems.warning(root, &delegate_field(index), message);
                }
                None => problems.warning(document, &field, message),
            }
        }
    }
    let own = route.route.to_mut();
    own.matches.iter_mut().for_each(|list| list.retain(|one| !one.condition.asks_for_claims()));
    own.left_out = true;
    route
}
