//! Whose the hosts of `ServiceEntry`s are.

use serde_json::json;

use super::super::{cluster::cluster, *};

const HOST: &str = "api.example.com";

/// An entry for [`HOST`], with an endpoint that says whose it is.
fn entry(namespace: &str, more: &str) -> String {
    let ip = namespace.len();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: {namespace}}}\n\
         spec: {{hosts: [{HOST}], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], \
         endpoints: [{{address: 192.0.2.{ip}}}]{more}}}\n---\n"
    )
}

/// The namespace that has the host after `documents`, and what is told to whom.
fn after(documents: &str, before: &Mesh) -> (Mesh, Option<String>, Vec<(String, String)>) {
    let (resources, _) = resources(documents);
    let (mesh, problems) = compile(&resources, &MeshSettings::default(), before);
    let owner = owner(&mesh);
    let told = problems.into_iter().filter_map(|problem| {
        let field = format!("{}: {}", problem.field, problem.message);
        Some((problem.document?.namespace.to_string(), field))
    });
    let told = told.collect();
    (mesh, owner, told)
}

fn owner(mesh: &Mesh) -> Option<String> {
    let endpoints = mesh.endpoints.get(&ServiceKey::new(HOST, 80))?;
    let of = |namespace: &&str| {
        endpoints
            .list
            .first()
            .is_some_and(|one| one.address.ip().to_string() == format!("192.0.2.{}", namespace.len()))
    };
    ["shop", "aaa", "other"].iter().find(|namespace| of(namespace)).map(|one| (*one).to_owned())
}

fn owned_by(namespace: &str) -> Option<String> {
    Some(namespace.to_owned())
}

#[test]
fn a_file_that_sorts_earlier_takes_no_name_that_somebody_has() {
    let (own, theft) = (entry("shop", ""), entry("aaa", ""));
    let (before, found, told) = after(&own, &Mesh::default());
    assert_eq!((found, told), (owned_by("shop"), vec![]));

    let both = format!("{theft}{own}");
    let (with_thief, found, told) = after(&both, &before);
    assert_eq!(found, owned_by("shop"));
    assert_eq!(told.len(), 1, "{told:?}");
    let (namespace, told) = &told[0];
    assert_eq!(namespace, "aaa");
    assert!(
        told.starts_with("spec.hosts[0]: api.example.com belongs to ServiceEntry shop/e (mesh.yaml:"),
        "{told}"
    );
    assert!(told.ends_with("which clients here follow, too; remove it here"), "{told}");

    // After a restart only the owners are known.
    let restarted = Mesh { owners: with_thief.owners, ..Mesh::default() };
    let (_, found, _) = after(&both, &restarted);
    assert_eq!(found, owned_by("shop"));

    // Who gives it up has it no more.
    let (without, found, told) = after(&theft, &restarted);
    assert_eq!((found, told), (owned_by("aaa"), vec![]));
    let (_, found, _) = after(&both, &without);
    assert_eq!(found, owned_by("aaa"));
}

#[test]
fn a_document_that_cannot_be_used_any_more_keeps_the_name() {
    let (before, ..) = after(&entry("shop", ""), &Mesh::default());
    let broken = entry("shop", ", unknown: [").replace("unknown: [", "location: NOWHERE");

    let (mesh, found, told) = after(&format!("{}{broken}", entry("aaa", "")), &before);

    assert_eq!(found, None, "{told:?}");
    assert!(told.iter().any(|(namespace, _)| namespace == "aaa"), "{told:?}");
    assert_eq!(mesh.owners.names.get(HOST).map(|owner| &**owner), Some("shop"));
    let (_, found, told) = after(&format!("{broken}{}", entry("aaa", "")), &Mesh::default());
    assert_eq!((found, told), (owned_by("aaa"), vec![]), "one that was never of use keeps nothing");
}

#[test]
fn what_is_for_its_own_namespace_alone_takes_a_host_from_nobody() {
    let both = entry("aaa", ", exportTo: ['.']") + &entry("shop", "");

    let (_, found, told) = after(&both, &Mesh::default());

    assert_eq!((found, told), (owned_by("shop"), vec![]));
}

#[test]
fn in_a_cluster_the_older_entry_has_a_name_whatever_had_it_by_a_file() {
    let one = |namespace: &str, created: &str| {
        let mut document: serde_json::Value = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "e", "namespace": namespace, "creationTimestamp": created},
            "spec": {"hosts": [HOST], "resolution": "STATIC", "endpoints": [],
                     "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
        });
        document["spec"]["endpoints"] = json!([{"address": format!("192.0.2.{}", namespace.len())}]);
        document
    };
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");

    // A source gives the older documents first.
    let (mesh, problems) = cluster(&[one("shop", old), one("aaa", new)]);

    assert_eq!(owner(&mesh), owned_by("shop"));
    assert!(errors(&problems)[0].contains("belongs to ServiceEntry shop/e (in the cluster)"), "{problems:?}");
    assert!(mesh.owners.names.is_empty(), "nothing is kept of a cluster");
}

#[test]
fn entries_that_take_much_of_other_namespaces_are_told() {
    let told = |namespace: &str, host: &str, more: &str| -> Vec<String> {
        let text = entry(namespace, more).replace(HOST, host);
        let told = after(&text, &Mesh::default()).2;
        told.into_iter().map(|(_, told)| told).collect()
    };
    for (host, more, field) in [
        ("'*.com'", "", Some("spec.hosts[0]: *.com is every host below a whole top-level domain")),
        ("'*.com'", ", exportTo: [shop, other]", Some("spec.hosts[0]")),
        ("'*.com'", ", exportTo: ['.']", None),
        ("'*.com'", ", exportTo: [shop]", None),
        ("'*.example.com'", "", None),
        (HOST, ", addresses: [10.0.0.0/8]", None),
        (HOST, ", addresses: [10.0.0.0/8, 0.0.0.0/0]", Some("spec.addresses: 0.0.0.0/0 is very wide")),
        (HOST, ", addresses: [128.0.0.0/1]", Some("spec.addresses: 128.0.0.0/1")),
        (HOST, ", addresses: ['2000::/3']", Some("spec.addresses: 2000::/3")),
        (HOST, ", addresses: ['2001:db8::/32']", None),
        (HOST, ", addresses: [0.0.0.0/0], exportTo: ['.']", None),
        (HOST, ", addresses: [0.0.0.0/0], exportTo: ['~']", None),
    ] {
        let found = told("shop", host, more);
        assert_eq!(found.len(), usize::from(field.is_some()), "{host}{more}: {found:?}");
        assert!(field.is_none_or(|field| found[0].starts_with(field)), "{host}{more}: {found:?}");
    }
    assert_eq!(told("istio-system", "'*.com'", ", addresses: [0.0.0.0/0]"), [""; 0]);
}
