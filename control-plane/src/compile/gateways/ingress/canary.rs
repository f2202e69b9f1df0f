//! Which requests a canary takes: those whose header says so, then those whose cookie does, then some of the others.

use selvedge_model::{Match, Rule, StringMatch, WeightedBackend};

use super::{
    super::super::{Problems, routes::Backends},
    Ingress,
    hosts::Path,
    rules::backend,
};
use crate::resources::ingress::{
    IngressBackend,
    nginx::{Canary, CanaryHeader},
};

/// Who takes a part of the requests for a path.
#[derive(Clone)]
pub(super) struct CanaryOf<'a> {
    pub(super) ingress: &'a Ingress,
    pub(super) canary: &'a Canary,
    pub(super) backend: &'a IngressBackend,
}

/// Adds `main` to `rules`, and before it what its canary takes. Of the canary's annotations only those count that say what
/// it takes, as in nginx.
pub(super) fn add(
    path: &Path<'_>,
    main: Rule,
    backends: &mut Backends<'_>,
    problems: &mut Problems,
    rules: &mut Vec<Rule>,
) {
    let Some(CanaryOf { ingress, canary, backend: to }) = &path.canary else {
        rules.push(main);
        return;
    };
    let canary_backend = backend(ingress, to, &path.ingress.spec.nginx, backends, problems);
    let main_backend = main.backends.first().map(|share| share.backend);
    let asked = [("header", &canary.header), ("cookie", &canary.cookie)];
    for (what, header) in asked.into_iter().filter_map(|(what, header)| Some((what, header.as_ref()?))) {
        let CanaryHeader { name, wanted } = header;
        let of = |value: &StringMatch, whose: &str, to: usize| Rule {
            name: format!("{} {whose} by {what}", main.name),
            matches: main.matches.iter().map(|one| with(one, (name.clone(), value.clone()))).collect(),
            backends: vec![WeightedBackend::new(to, 1)],
            ..main.clone()
        };
        rules.push(of(&wanted.always, "canary", canary_backend));
        rules.extend(
            wanted.never.as_ref().zip(main_backend).map(|(never, main)| of(never, "no canary", main)),
        );
    }
    let shares = main_backend.map(|main| WeightedBackend::new(main, canary.total - canary.weight));
    let shares = shares.into_iter().chain([WeightedBackend::new(canary_backend, canary.weight)]);
    rules.push(Rule { backends: shares.filter(|share| share.weight > 0).collect(), ..main });
}

/// `one`, which also asks for this header.
fn with(one: &Match, header: (selvedge_model::HeaderField, StringMatch)) -> Match {
    let mut one = one.clone();
    one.headers.push(header);
    one
}
