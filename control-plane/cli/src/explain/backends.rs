//! The backends of a rule: each with its share, its filters, and its endpoints.

use std::sync::Arc;

use selvedge_model::{Backend, Endpoints, Mesh, WeightedBackend, draw, filter::ReadyFilters};
use selvedge_proxy::error::Reason;

use super::{
    endpoints::Judge,
    explanation::{Answer, BackendView, EndpointView, RequestView},
    limits,
    passage::Passage,
};

/// What is said of the backends that a request may go to.
pub(super) struct Shares {
    pub(super) views: Vec<BackendView>,
    /// What is answered if none of them gets the request.
    pub(super) answer: Option<Answer>,
}

/// The shares of the rule that `passage` has followed, whose filters are `before`.
pub(super) fn shares(mesh: &Mesh, mut passage: Passage<'_>, before: Option<&ReadyFilters>) -> Shares {
    let rule = passage.ground.rule;
    let total: u64 = rule.backends.iter().map(|share| u64::from(share.weight)).sum();
    if total == 0 {
        let why = match rule.backends.len() {
            0 => format!("{} has no backend", rule.name),
            _ => format!("the weights of {} sum to nothing", rule.name),
        };
        let answer = Answer::failure(Reason::NoBackend, why).with_status(rule.unusable_status);
        return Shares { views: Vec::new(), answer: Some(answer.for_caller(passage.ground.is_grpc)) };
    }
    let weights = rule.backends.iter().map(|share| share.weight);
    let drawn = passage.rng.as_mut().map(|rng| draw(weights, rng));
    let mut views = Vec::new();
    for (place, share) in rule.backends.iter().enumerate().filter(|(_, share)| share.weight > 0) {
        let drawn = drawn.map(|drawn| drawn == Some(place));
        let mut view = view(mesh, &passage, share, before);
        view.percent = percent(share.weight, total);
        view.drawn = drawn;
        views.push(view);
    }
    let considered = || views.iter().filter(|view| view.drawn != Some(false));
    let answer = match considered().any(|view| view.answer.is_none()) {
        true => None,
        false => considered().find_map(|view| view.answer.clone()),
    };
    Shares { views, answer }
}

fn view(
    mesh: &Mesh,
    passage: &Passage<'_>,
    share: &WeightedBackend,
    before: Option<&ReadyFilters>,
) -> BackendView {
    let ground = passage.ground;
    let backend = &ground.backends[share.backend];
    let mut own =
        Passage { ground, request: passage.request.clone(), steps: Vec::new(), rng: passage.rng.clone() };
    let passed = match &share.filters {
        Some(filters) => own.through(filters, before).map(drop),
        None => Ok(()),
    };
    let judge = Judge { mesh, caller: ground.caller, request: &own.request, is_opaque: ground.is_opaque };
    let endpoints = mesh.endpoints.get(&backend.name.service).filter(|_| backend.broken.is_none());
    let (views, places) = judge.all(backend, endpoints.map(|endpoints| &**endpoints));
    let answer = passed.err().or_else(|| refusal(backend, ground.rule.unusable_status, endpoints, &views));
    let mut policy = Vec::new();
    if backend.broken.is_none() {
        policy.extend(limits::of_backend(&backend.policy));
        policy.extend(places);
    }
    BackendView {
        name: backend.name.to_string(),
        weight: share.weight,
        percent: 0.0,
        drawn: None,
        request: answer.is_none().then(|| RequestView::of(&own.request)),
        filters: own.steps,
        answer: answer.map(|answer| answer.for_caller(ground.is_grpc)),
        policy,
        endpoints: views,
    }
}

/// Why no request of the share of `backend` is served, if none is.
fn refusal(
    backend: &Backend,
    unusable_status: u16,
    endpoints: Option<&Arc<Endpoints>>,
    views: &[EndpointView],
) -> Option<Answer> {
    if let Some(broken) = &backend.broken {
        let why = format!("{} cannot be used: {broken}", backend.name);
        return Some(Answer::failure(Reason::NoBackend, why).with_status(unusable_status));
    }
    if endpoints.is_some_and(|endpoints| endpoints.requested.is_some()) {
        return None;
    }
    if views.is_empty() {
        return Some(Answer::failure(Reason::NoEndpoint, format!("{} has no endpoint", backend.name)));
    }
    match views.iter().any(|view| view.refused.is_none()) {
        true => None,
        false => views.iter().find_map(|view| view.refused.clone()),
    }
}

fn percent(weight: u32, total: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a sum of weights, shown as a percentage")]
    let total = total as f64;
    (f64::from(weight) * 10_000.0 / total).round() / 100.0
}
