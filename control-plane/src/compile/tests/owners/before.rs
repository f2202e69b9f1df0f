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

#[test]
fn what_its_owner_cannot_have_any_more_is_somebody_elses_at_once() {
    let mut settled = entry("shop", EIGHTY) + &entry("other", ", ports: {other: 82}");
    let (before, ..) = after(&settled, &Mesh::default(), [80, 82]);
    // All of the address can be nobody's who had a part, because others have another part.
    settled = entry("aaa", BOTH) + &entry("shop", "") + &entry("other", ", ports: {other: 82}");

    let (mesh, found, told) = after(&settled, &before, [80, 82]);
    assert_eq!(found, [Some("aaa".to_owned()), Some("other".to_owned())]);

    let (_, again, told_again) = after(&settled, &mesh, [80, 82]);
    assert_eq!((again, told_again), (found, told), "the same documents mean the same");
}

/// Some documents that claim ports of one address, in some order.
fn some_claims(random: &mut fastrand::Rng) -> String {
    let mut documents = Vec::new();
    for number in 0..random.usize(1..6) {
        let namespace = random.choice(["a", "b", "c"]).unwrap();
        let ports: Vec<u16> = [80, 81, 82].into_iter().filter(|_| random.bool()).collect();
        let numbered: Vec<String> = ports.iter().map(|port| format!("p{port}: {port}")).collect();
        let listed: Vec<String> =
            ports.iter().map(|port| format!("{{number: {port}, name: p{port}, protocol: TCP}}")).collect();
        let entry = |more: &str| entry(namespace, more).replacen("name: x", &format!("name: x{number}"), 1);
        documents.push(match random.u8(0..6) {
            0 => entry(""),
            1 => format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: {namespace}}}\n\
                 spec: {{clusterIP: 172.16.5.5, ports: [{{port: 80}}]}}\n---\n"
            ),
            2 if !ports.is_empty() => format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e{number}, namespace: {namespace}}}\n\
                 spec: {{hosts: [h{}.example.com], addresses: [172.16.5.5], resolution: STATIC, ports: [{}], \
                 endpoints: [{{address: 172.16.5.{}}}]}}\n---\n",
                random.u8(0..3),
                listed.join(", "),
                random.u8(5..7)
            ),
            _ => entry(&format!(", ports: {{{}}}", numbered.join(", "))),
        });
    }
    documents.concat()
}

#[test]
fn documents_that_are_compiled_again_mean_and_say_what_they_did() {
    let mut random = fastrand::Rng::with_seed(7);
    let compile_after = |text: &str, before: &Mesh| {
        let (resources, _) = resources(text);
        compile(&resources, &MeshSettings::default(), before)
    };
    for _ in 0..1_000 {
        let (first, second) = (some_claims(&mut random), some_claims(&mut random));
        let (before, _) = compile_after(&first, &Mesh::default());
        let (mesh, problems) = compile_after(&second, &before);
        let (again, problems_again) = compile_after(&second, &mesh);
        let context = format!("{first}\nand then\n{second}");
        assert_eq!(again.owners, mesh.owners, "{context}");
        assert_eq!(problems_again, problems, "{context}");
        assert!(again.addresses == mesh.addresses, "{context}");
    }
}

#[test]
fn whatever_was_before_the_same_documents_mean_the_same_the_next_time() {
    let whole = |namespace: &str| entry(namespace, "");
    let ports = |namespace: &str, ports: &str| entry(namespace, &format!(", ports: {{{ports}}}"));
    let states: Vec<String> = [
        vec![ports("a", "x: 80"), ports("b", "x: 81"), ports("c", "x: 82")],
        vec![ports("c", "x: 80, y: 81"), whole("a"), ports("b", "x: 81, y: 82")],
        vec![whole("b"), ports("a", "x: 80"), ports("c", "x: 82")],
        vec![ports("a", "x: 80, y: 81, z: 82"), whole("c")],
        vec![ports("b", "x: 82"), ports("a", "x: 82, y: 80"), ports("c", "x: 81, y: 80")],
        vec![whole("a"), whole("b"), whole("c")],
    ]
    .iter()
    .map(|state| state.concat())
    .collect();
    for first in &states {
        let (before, ..) = after(first, &Mesh::default(), [80, 81]);
        for second in &states {
            let (mesh, found, told) = after(second, &before, [80, 81]);
            let (again, found_again, told_again) = after(second, &mesh, [80, 81]);
            assert_eq!((found_again, told_again), (found, told), "{first}\nand then\n{second}");
            assert_eq!(again.owners, mesh.owners, "{first}\nand then\n{second}");
        }
    }
}
