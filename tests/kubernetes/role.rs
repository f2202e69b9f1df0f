//! That the role which the chart gives the control plane has every right that it needs, and no more.

use std::collections::BTreeSet;

use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, SeenRequest},
    poll,
};
use serde_json::Value;

use crate::{
    cluster::Cluster,
    control_plane::{ACCOUNT, NAMESPACE},
    kubelet::{items, text},
};

/// Nothing was refused, and each verb of each rule was used: `watch` for every resource that is served, any other for
/// one of the resources that the rule names, since of some kinds there is nothing here to write a status for.
///
/// To be asked when no control plane runs any more: this API server writes a watch down when it is over.
pub(crate) async fn has_what_was_asked_for_and_no_more(cluster: &Cluster) {
    let account = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let rules = rules(cluster).await;
    let served = served(&cluster.server).await;
    poll(SOON, "every right is used", async || {
        let unused = unused(&rules, &served, &cluster.server.asked_by(&account));
        if unused.is_empty() { Ok(()) } else { Err(format!("{unused:?}")) }
    })
    .await;
    let asked = cluster.server.asked_by(&account);
    let refused: Vec<_> = asked.iter().filter(|one| one.status == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

async fn rules(cluster: &Cluster) -> Vec<Value> {
    let mut rules = Vec::new();
    for path in [
        format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{ACCOUNT}"),
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/{ACCOUNT}"),
    ] {
        rules.extend(items(&cluster.api().get(&path).await.unwrap()["rules"]).cloned());
    }
    rules
}

/// Every resource that the API server serves, with its group.
async fn served(server: &ApiServer) -> BTreeSet<(String, String)> {
    let groups = server.api().get("/apis").await.unwrap();
    let versions = items(&groups["groups"]).flat_map(|group| items(&group["versions"]));
    let paths = versions.map(|version| format!("/apis/{}", text(&version["groupVersion"])));
    let mut resources = BTreeSet::new();
    for path in paths.chain(["/api/v1".to_owned()]) {
        let list = server.api().get(&path).await.unwrap();
        let group = text(&list["groupVersion"]).split_once('/').map_or("", |(group, _)| group);
        let names = items(&list["resources"]).map(|resource| text(&resource["name"]));
        resources.extend(names.map(|name| (group.to_owned(), name.to_owned())));
    }
    resources
}

fn unused(rules: &[Value], served: &BTreeSet<(String, String)>, asked: &[SeenRequest]) -> BTreeSet<String> {
    let mut unused = BTreeSet::new();
    for rule in rules {
        let resources: Vec<(&str, &str)> = items(&rule["apiGroups"])
            .flat_map(|group| items(&rule["resources"]).map(|resource| (text(group), text(resource))))
            .filter(|(group, resource)| served.contains(&((*group).to_owned(), (*resource).to_owned())))
            .collect();
        for verb in items(&rule["verbs"]).map(text) {
            // What is applied and not there yet is made, which takes both rights.
            let is_asked = |one: &SeenRequest| {
                one.verb == verb || (verb == "create" && one.verb == "patch" && one.status == 201)
            };
            let used = |(group, resource): &(&str, &str)| {
                asked.iter().any(|one| is_asked(one) && one.is(group, resource))
            };
            if verb == "watch" {
                let missing = resources.iter().filter(|resource| !used(resource));
                unused.extend(missing.map(|resource| format!("watch {resource:?}")));
            } else if !resources.is_empty() && !resources.iter().any(used) {
                unused.insert(format!("{verb} {resources:?}"));
            }
        }
    }
    unused
}
