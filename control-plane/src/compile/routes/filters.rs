//! What a `VirtualService`'s route does to its requests and their answers, besides sending them somewhere.

use selvedge_model::{Filters, Match, StringMatch, WeightedBackend, filter::PathRewrite};

use crate::resources::virtual_service::{Destination, Headers, HttpRoute};

/// The filters of all requests of `route`.
pub(super) fn of_route(route: &HttpRoute) -> Filters {
    let mut filters = route.headers.as_ref().map(of_headers).unwrap_or_default();
    // An answer of our own goes before it.
    let rewrite = route.rewrite.as_ref().filter(|_| route.answer.is_none());
    if let Some(rewrite) = rewrite {
        filters.rewrite.path.clone_from(&rewrite.path);
        filters.rewrite.authority = rewrite.authority.clone().or(filters.rewrite.authority);
    }
    Filters { cors: route.cors.clone(), fault: route.fault.clone(), answer: route.answer.clone(), ..filters }
}

/// The share of `destination`, which is the backend at the index `backend`.
pub(super) fn share(backend: usize, destination: &Destination) -> WeightedBackend {
    let filters = of_headers(&destination.headers);
    let filters = (!filters.is_empty()).then(|| Box::new(filters));
    WeightedBackend { filters, ..WeightedBackend::new(backend, destination.weight) }
}

fn of_headers(headers: &Headers) -> Filters {
    let mut filters = Filters {
        request_headers: headers.request.clone(),
        response_headers: headers.response.clone(),
        ..Filters::default()
    };
    filters.rewrite.authority.clone_from(&headers.authority);
    filters
}

/// `matches` as a rewrite of the prefix needs them: to Istio a match without a path has the prefix `/`, and that is what
/// becomes something else.
pub(super) fn with_prefix(mut matches: Vec<Match>, filters: &Filters) -> Vec<Match> {
    if !filters.path_rewrites().any(|path| matches!(path, PathRewrite::Prefix(_))) {
        return matches;
    }
    if matches.is_empty() {
        matches.push(Match::default());
    }
    for one in &mut matches {
        one.path.get_or_insert_with(|| StringMatch::Prefix("/".to_owned()));
    }
    matches
}
