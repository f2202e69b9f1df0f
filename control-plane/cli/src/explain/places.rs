//! Which endpoints of a backend come first for a caller, and why.

use std::collections::BTreeMap;

use selvedge_model::{
    Backend, Place,
    locality::{Arrangement, By, LocalityOrder, Located, arrange},
};
use selvedge_proxy::error::Reason;

use super::{
    caller::Caller,
    explanation::{Answer, EndpointView},
};

/// The endpoints of a backend, arranged for a caller as its sidecar does it.
pub(super) struct Arranged {
    arrangement: Arrangement,
    /// Where each endpoint is, and the caller.
    places: Vec<Option<Place>>,
    caller: Option<Place>,
}

impl Arranged {
    /// Those of `backend`, each with its place and its labels.
    pub(super) fn of<'e>(
        caller: &Caller,
        backend: &Backend,
        endpoints: impl Iterator<Item = (Option<&'e Place>, &'e BTreeMap<String, String>)>,
    ) -> Self {
        let own = caller.workload.as_ref().and_then(|workload| workload.place.as_deref());
        let located: Vec<_> = endpoints.map(|(place, labels)| Located { place, labels }).collect();
        let client = Located { place: own, labels: &caller.labels };
        let arrangement = arrange(&backend.policy.locality, client, &located);
        let places = located.iter().map(|one| one.place.cloned()).collect();
        Self { arrangement, places, caller: own.cloned() }
    }

    /// Says of each of `views`, which are in the same order, where it is and which group it is in.
    pub(super) fn tell(&self, views: &mut [EndpointView]) {
        for (view, place) in views.iter_mut().zip(&self.places) {
            view.locality = place.as_ref().map(words_of);
        }
        let grouped = self.arrangement.by != By::Nothing;
        for (place, group) in self.arrangement.groups.iter().enumerate().filter(|_| grouped) {
            for index in &group.members {
                if let Some(view) = views.get_mut(*index) {
                    view.priority = Some(place);
                }
            }
        }
        let Some(why) = &self.arrangement.why else { return };
        for index in &self.arrangement.left_out {
            if let Some(view) = views.get_mut(*index) {
                view.verdict = None;
                view.refused = Some(Answer::failure(Reason::NoEndpoint, format!("it is not called: {why}")));
            }
        }
    }

    /// Which endpoints come first, and why.
    pub(super) fn words(&self, backend: &Backend) -> Vec<String> {
        let policy = &backend.policy.locality;
        let Arrangement { by, groups, left_out, why } = &self.arrangement;
        let mut words = Vec::new();
        let asks = policy.own_node || policy.order != LocalityOrder::Alike || *by != By::Nothing;
        let is_nowhere = self.caller.is_none() && self.places.iter().all(Option::is_none);
        // Outlier detection alone asks for places, which many meshes do not know.
        if !asks || (is_nowhere && *by == By::Nothing && why.is_none()) {
            return words;
        }
        words.push(match &self.caller {
            Some(place) => format!("the caller is in {}", words_of(place)),
            None => "it is not known where the caller is".to_owned(),
        });
        for (index, group) in groups.iter().enumerate() {
            let what = policy.words(&self.arrangement, index);
            let count = counted(group.members.len());
            words.push(match by {
                By::Nothing => format!("{count}, all alike"),
                By::Weight => format!("group {index}: {what}, to {count}"),
                By::Hints | By::Priority if index == 0 => format!("group 0, called first: {count}, {what}"),
                By::Hints | By::Priority => {
                    format!("group {index}, called as far as those before it are ejected: {count}, {what}")
                }
            });
        }
        if let Some(why) = why {
            words.push(format!("never called: {}, because {why}", counted(left_out.len())));
        }
        words
    }
}

fn counted(endpoints: usize) -> String {
    match endpoints {
        1 => "1 endpoint".to_owned(),
        more => format!("{more} endpoints"),
    }
}

fn words_of(place: &Place) -> String {
    let locality = match place.locality.is_empty() {
        true => "a place that is not known".to_owned(),
        false => place.locality.to_string(),
    };
    match &place.node {
        Some(node) => format!("{locality} on {node}"),
        None => locality,
    }
}
