//! What is said of a connection, as a short tree.

use super::{Explanation, Overall, Place};
use crate::explain::{ends::Judgement, tree::Tree};

/// All of `explanation`.
pub(in crate::explain) fn text(explanation: &Explanation) -> String {
    let mut tree = Tree::default();
    tree.line(0, &format!("connection to {}", explanation.to));
    tree.sender(&explanation.from);
    if let Some(request) = &explanation.request {
        tree.line(1, &format!("with the request {} {}", request.method, request.path));
        request.headers.iter().for_each(|(name, value)| tree.line(2, &format!("{name}: {value}")));
    }
    tree.line(0, &format!("name: {}", explanation.name));
    explanation.places.iter().for_each(|one| place(&mut tree, explanation, one));
    tree.errors(explanation.errors);
    tree.line(0, &format!("outcome: {}", outcome(explanation)));
    tree.0
}

fn place(tree: &mut Tree, explanation: &Explanation, place: &Place) {
    let workload = place.workload.as_ref().map(|workload| format!(" ({workload})")).unwrap_or_default();
    tree.line(0, &format!("endpoint {}{workload}", place.address));
    tree.line(1, &place.how);
    if place.opaque && explanation.request.is_some() {
        tree.line(1, "its connections are opaque (TCP), so policies do not see the request");
    }
    if let Some(judgement) = &place.source {
        tree.line(1, "the client's sidecar");
        tree.line(2, &format!("NetworkPolicy (egress): {}", words(judgement)));
    }
    if !place.destination.is_empty() {
        tree.line(1, "the server's sidecar");
    }
    for step in &place.destination {
        tree.line(2, &format!("{}: {}", step.asked, words(&step.judgement)));
    }
    tree.line(1, &format!("together: {}", words(&place.judgement)));
}

fn words(judgement: &Judgement) -> String {
    format!("{}, by {}", judgement.outcome.word(), judgement.reason())
}

fn outcome(explanation: &Explanation) -> &'static str {
    match explanation.outcome {
        Overall::Allowed if explanation.request.is_some() => "it is let in, with this request",
        Overall::Allowed => "it is let in",
        Overall::Denied if explanation.places.is_empty() => "it is refused: there is nowhere to go",
        Overall::Denied => "it is refused",
        Overall::DependsOnTheRequest => {
            "it depends on the request; give one by -X, --path, -H or --token to hear what becomes of it"
        }
        Overall::DependsOnTheEndpoint => "it depends on the endpoint: they do not all say the same",
    }
}
