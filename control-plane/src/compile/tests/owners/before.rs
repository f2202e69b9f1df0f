//! In files, who had an address keeps it.

use super::super::*;

/// A workload. One whose ports are named shares its host with others.
fn entry(namespace: &str, more: &str) -> String {
    let explicit =
        if more.is_empty() { "" } else { ", annotations: {config.selvedge.io/inbound: '172.16.5.5:4143'}" };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: x, namespace: {namespace}{explicit}}}\n\
         spec: {{address: 172.16.5.5, labels: {{security.istio.io/tlsMode: istio}}{more}}}\n---\n"
    )
}

/// The namespaces of those who are expected at these ports, and who is told.
fn after(documents: &str, before: &Mesh, ports: [u16; 2]) -> (Mesh, [Option<String>; 2], Vec<String>) {
    let (resources, _) = resources(documents);
    let (mesh, problems) = compile(&resources, &MeshSettings::default(), before);
    let at = |port: u16| {
        let address = format!("172.16.5.5:{port}").parse().unwrap();
        let at = mesh.addresses.get(&address).and_then(|found| found.identity.clone());
        at.map(|identity| identity.as_str().split('/').nth(4).unwrap().to_owned())
    };
    let found = ports.map(at);
    let told = problems.iter().filter_map(|problem| problem.document.as_ref());
    let told = told.map(|document| document.namespace.to_string()).collect();
    (mesh, found, told)
}

const EIGHTY: &str = ", ports: {http: 80}";
const BOTH: &str = ", ports: {http: 80, other: 81}";

#[test]
fn a_file_that_sorts_earlier_takes_no_address_that_somebody_has() {
    let (owner, thief) = (entry("shop", EIGHTY), entry("aaa", BOTH));
    let shop = Some("shop".to_owned());
    let (before, found, _) = after(&owner, &Mesh::default(), [80, 81]);
    assert_eq!(found, [shop.clone(), None]);

    let (with_thief, found, told) = after(&format!("{thief}{owner}"), &before, [80, 81]);
    assert_eq!(found, [shop.clone(), Some("aaa".to_owned())], "a port that nobody had is free");
    assert_eq!(told, ["aaa"]);

    // After a restart only the owners are known.
    let restarted = Mesh { owners: with_thief.owners, ..Mesh::default() };
    let (_, found, told) = after(&format!("{thief}{owner}"), &restarted, [80, 81]);
    assert_eq!((found, told), ([shop, Some("aaa".to_owned())], vec!["aaa".to_owned()]));

    // Who gives it up has it no more.
    let (_, found, told) = after(&thief, &restarted, [80, 81]);
    assert_eq!((found, told), ([Some("aaa".to_owned()), Some("aaa".to_owned())], vec![]));
}

#[test]
fn all_of_an_address_is_kept_as_a_port_of_it_is() {
    let (owner, thief) = (entry("shop", ""), entry("aaa", EIGHTY));
    let (before, ..) = after(&owner, &Mesh::default(), [80, 81]);

    let (mesh, _, told) = after(&format!("{thief}{owner}"), &before, [80, 81]);

    assert_eq!(told, ["aaa"]);
    let occupant = mesh.occupants.get(&"172.16.5.5".parse().unwrap()).unwrap();
    assert_eq!(occupant.workload.name.to_string(), "shop/x");
}

#[test]
fn of_two_that_are_new_at_once_the_first_by_file_has_it() {
    let both = entry("aaa", EIGHTY) + &entry("shop", EIGHTY);
    let (_, found, told) = after(&both, &Mesh::default(), [80, 81]);
    assert_eq!((found[0].as_deref(), told), (Some("aaa"), vec!["shop".to_owned()]));
}
