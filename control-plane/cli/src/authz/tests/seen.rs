//! What becomes of those who talk now.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use selvedge_control_plane::{
    compile::MeshSettings,
    resources::Resources,
    status::{SeenCaller, SeenCallers, SeenTraffic},
};
use selvedge_model::{Mesh, seen::Caller};

use super::{BY_SERVICE_ACCOUNT, DENY_ALL, tiers, vault};
use crate::{
    authz::{
        compile,
        seen::{Comparison, Traffic},
        told,
        trying::{self, Difference},
    },
    replicas::Answers,
};

fn identity(name: &str) -> Caller {
    Caller::Identity(format!("spiffe://cluster.local/ns/default/sa/{name}").parse().unwrap())
}

fn address(text: &str) -> Caller {
    Caller::Address(text.parse().unwrap())
}

/// Traffic to the vault, at its port 9080.
fn traffic(callers: &[Caller]) -> SeenTraffic {
    let caller = |caller: &Caller| SeenCaller { caller: caller.clone(), port: 9080, seconds_ago: 7 };
    let callers = callers.iter().map(caller).collect();
    let seen = SeenCallers { watched_seconds: 600, callers, ..SeenCallers::default() };
    SeenTraffic { workloads: [("default/vault".parse().unwrap(), seen)].into() }
}

/// What adding `change` to `documents` does to `traffic`; without a change: what STRICT does.
fn compared(documents: &str, change: Option<&str>, traffic: SeenTraffic) -> Difference {
    let settings = MeshSettings::default();
    let mut before = Resources::default();
    trying::put(&mut before, documents, Path::new("mesh.yaml"), &settings).unwrap();
    let mut after = before.clone();
    match change {
        Some(change) => drop(trying::put(&mut after, change, Path::new("change.yaml"), &settings).unwrap()),
        None => trying::turn_strict(&mut after, &settings).unwrap(),
    }
    let told = [("one".to_owned(), traffic)].into();
    let traffic = Traffic::merged(Answers { told, unknown: BTreeMap::new() });
    trying::difference(&before, &after, &settings, Ok(traffic)).unwrap()
}

fn seen(difference: &Difference) -> &Comparison {
    difference.seen.as_ref().expect("it was compared")
}

/// Who talks now and is refused.
fn refused(difference: &Difference) -> Vec<&str> {
    seen(difference).refused.iter().map(|one| &*one.change.pair.from).collect()
}

#[test]
fn of_those_who_could_call_only_those_who_do_are_among_the_first() {
    let all = compared(&vault(), Some(DENY_ALL), traffic(&[identity("web")]));

    assert_eq!(refused(&all), ["default/web"]);
    assert!(all.refused.len() > 1 && all.breaks());
    let words = told::words(&all);
    assert!(words.starts_with("talks now, and would be refused"), "{words}");
    assert!(words.contains("some have watched for only 10m"), "{words}");
}

#[test]
fn strict_refuses_who_calls_in_plaintext_whether_a_document_declares_it_or_not() {
    let callers = [identity("web"), address("127.0.0.4"), address("192.0.2.1")];
    let all = compared(&vault(), None, traffic(&callers));

    assert_eq!(refused(&all), ["default/legacy", "192.0.2.1 in plaintext"]);
    // One with a sidecar calls in plaintext only round it.
    let tiers = tiers().replace("name: backend", "name: vault").replace("app: backend", "app: vault");
    let round = compared(&tiers.replace("8080", "9080"), None, traffic(&[address("127.0.0.1")]));
    assert_eq!(refused(&round), ["127.0.0.1 in plaintext"]);
}

#[test]
fn an_identity_that_no_document_declares_any_more_is_judged_by_itself() {
    let all = compared(&vault(), Some(DENY_ALL), traffic(&[identity("gone")]));

    assert_eq!(refused(&all), ["spiffe://cluster.local/ns/default/sa/gone"]);
}

#[test]
fn an_identity_of_several_workloads_is_each_of_them() {
    let twins = vault().replace("serviceAccount: other", "serviceAccount: web");
    let all = compared(&twins, Some(DENY_ALL), traffic(&[identity("web")]));

    assert_eq!(refused(&all), ["default/other", "default/web"]);
}

#[test]
fn requests_that_a_changed_policy_judges_are_named_and_who_is_refused_already_is_not() {
    let documents = vault() + "---\n" + BY_SERVICE_ACCOUNT;
    let narrower = BY_SERVICE_ACCOUNT.replace("methods: [GET]", "methods: [HEAD]");
    let all = compared(&documents, Some(&narrower), traffic(&[identity("web"), identity("other")]));

    assert!(refused(&all).is_empty());
    let anew: Vec<_> = seen(&all).judged_anew.iter().map(|one| &*one.change.pair.from).collect();
    assert_eq!(anew, ["default/web"]);
}

#[test]
fn what_is_not_known_is_said() {
    let mut some = traffic(&[identity("web")]);
    some.workloads.values_mut().for_each(|one| one.left_out = 99);
    let all = compared(&vault(), Some(DENY_ALL), some);

    let silent: BTreeSet<String> = seen(&all).silent.iter().map(ToString::to_string).collect();
    assert_eq!(silent, ["default/other".to_owned(), "default/web".to_owned()].into());
    crate::documented::is_documented("authz", &all);
    let words = told::words(&all);
    assert!(words.contains("default/vault has had 99 connections more"), "{words}");
    assert!(words.contains("default/other has told nothing"), "{words}");
}

#[test]
fn replicas_are_one_to_who_asks_and_one_that_does_not_answer_is_named() {
    let (one, mut other) = (traffic(&[identity("web")]), traffic(&[identity("web"), identity("other")]));
    other.workloads.values_mut().flat_map(|seen| &mut seen.callers).for_each(|caller| caller.seconds_ago = 3);
    let told = [("a".to_owned(), one), ("b".to_owned(), other)].into();
    let unknown = [("c".to_owned(), "it is away".to_owned())].into();
    let traffic = Traffic::merged(Answers { told, unknown });

    let settings = MeshSettings::default();
    let mut resources = Resources::default();
    trying::put(&mut resources, &vault(), Path::new("mesh.yaml"), &settings).unwrap();
    let before = compile(&resources, &settings, &Mesh::default()).0;
    trying::put(&mut resources, DENY_ALL, Path::new("mesh.yaml"), &settings).unwrap();
    let after = compile(&resources, &settings, &Mesh::default()).0;
    let compared = traffic.compared(&before, &after, &BTreeSet::new());
    assert_eq!(compared.compared, 2);
    assert!(compared.refused.iter().all(|one| one.seconds_ago == 3), "{compared:?}");
    assert_eq!(compared.unknown["c"], "it is away");
}
