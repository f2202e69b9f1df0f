use std::path::Path;

use super::*;
use crate::resources::{DecodeOutcome, decode};

/// A route that asks for `count` expressions of some 450 KiB, which begin with `tag`.
fn route(name: &str, namespace: &str, tag: &str, count: usize) -> Resource {
    let matches: Vec<String> = (0..count)
        .map(|at| format!("{{path: {{type: RegularExpression, value: '/{tag}/{at}/\\pL{{1,5}}'}}}}"))
        .collect();
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{kind: Service, group: '', name: web}}]\n  rules:\n  - matches: [{}]\n    backendRefs: [{{name: web, port: 80}}]\n",
        matches.join(", ")
    );
    let decoded = decode(&text, &Arc::from(Path::new("a.yaml")), "default").remove(0);
    let DecodeOutcome::Understood(route) = decoded.outcome else { panic!("{:?}", decoded.problems) };
    route
}

fn apply(budgets: &mut Budgets, documents: &[&Resource]) -> (Vec<Resource>, Vec<String>) {
    let (mut resources, mut problems) = (Resources::default(), Vec::new());
    documents.iter().for_each(|document| resources.push((*document).clone()));
    budgets.apply(&mut resources, &mut problems);
    (resources.with_expressions(), problems.iter().map(ToString::to_string).collect())
}

#[test]
fn what_has_no_room_keeps_its_last_version_and_takes_nothing_from_others() {
    let mut budgets = Budgets::default();
    let (a, b, elsewhere) = (route("a", "x", "a", 6), route("b", "x", "b", 6), route("c", "y", "c", 12));
    let (in_use, problems) = apply(&mut budgets, &[&a, &b, &elsewhere]);
    assert_eq!((in_use, problems.len()), (vec![a.clone(), b.clone(), elsewhere.clone()], 0));

    // It comes first, and yet it is the one that has changed.
    let larger = route("a", "x", "other", 14);
    let (in_use, problems) = apply(&mut budgets, &[&larger, &b, &elsewhere]);
    assert_eq!(in_use, [a.clone(), b.clone(), elsewhere.clone()]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("HTTPRoute x/a") && problems[0].ends_with("its last good version stays in use")
    );

    // Once the other is gone there is room.
    let (in_use, problems) = apply(&mut budgets, &[&larger, &elsewhere]);
    assert_eq!((in_use, problems.len()), (vec![larger.clone(), elsewhere.clone()], 0));
    let (in_use, problems) = apply(&mut budgets, &[&larger, &b, &elsewhere]);
    assert_eq!(in_use, [larger, elsewhere]);
    assert!(problems[0].ends_with("nothing of it is in use"), "{problems:?}");
}

#[test]
fn equal_expressions_count_once_and_the_oldest_come_first() {
    let mut budgets = Budgets::default();
    let equal: Vec<Resource> = ["a", "b", "c"].iter().map(|name| route(name, "x", "same", 12)).collect();
    let (in_use, problems) = apply(&mut budgets, &equal.iter().collect::<Vec<_>>());
    assert_eq!((in_use.len(), problems.len()), (3, 0));

    let different: Vec<Resource> = ["a", "b", "c"].iter().map(|name| route(name, "x", name, 12)).collect();
    let (in_use, problems) = apply(&mut Budgets::default(), &different.iter().collect::<Vec<_>>());
    assert_eq!((in_use, problems.len()), (different[..1].to_vec(), 2));
}
