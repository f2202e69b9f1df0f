//! Whom `Revocation`s reach.

use selvedge_model::Revoked;

use super::*;

fn revocation(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: selvedge.io/v1alpha1\nkind: Revocation\nmetadata: {{name: a, namespace: {namespace}}}\nspec:\n{spec}"
    )
}

fn revoked(text: &str) -> (Vec<String>, Vec<String>) {
    let (mesh, problems) = compiled(text);
    let word = |entry: &selvedge_model::Revocation| match &entry.revoked {
        Revoked::Identity(identity) => identity.to_string(),
        Revoked::Workload(workload) => workload.to_string(),
        Revoked::Serial { serial, namespace } => format!("{serial} of {namespace:?}"),
    };
    let problems = problems.iter().map(ToString::to_string).collect();
    (mesh.revocations.list().iter().map(word).collect(), problems)
}

const EVERYTHING: &str = "  identities:\n  - {namespace: shop, serviceAccount: a}\n  - {serviceAccount: own}\n  workloads: [shop/b-1]\n  serials: [\"4F\"]\n";

#[test]
fn one_of_the_root_namespace_or_the_control_planes_own_reaches_everybody() {
    for namespace in ["istio-system", "selvedge"] {
        let (list, problems) = revoked(&revocation(namespace, EVERYTHING));

        let own = format!("spiffe://cluster.local/ns/{namespace}/sa/own");
        assert_eq!(list, ["spiffe://cluster.local/ns/shop/sa/a", &own, "shop/b-1", "4f of None"]);
        assert_eq!(problems, Vec::<String>::new());
    }
}

#[test]
fn one_of_another_namespace_reaches_its_own_alone_and_says_so() {
    let (list, problems) = revoked(&revocation("bank", EVERYTHING));

    assert_eq!(list, ["spiffe://cluster.local/ns/bank/sa/own", "4f of Some(\"bank\")"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    for problem in problems {
        assert!(problem.contains("revokes nobody in namespace shop"), "{problem}");
    }
    let (own, none) = revoked(&revocation("shop", "  workloads: [b-1, shop/b-2]\n"));
    assert_eq!((own.as_slice(), none.len()), (["shop/b-1".to_owned(), "shop/b-2".to_owned()].as_slice(), 0));
}

#[test]
fn an_entry_that_cannot_be_used_takes_no_other_with_it() {
    let spec = "  identities:\n  - {spiffeId: nobody}\n  - {spiffeId: spiffe://elsewhere/ns/a/sa/b}\n  - {namespace: selvedge, \
                serviceAccount: control-plane}\n  - {namespace: shop}\n  - {namespace: shop, serviceAccount: a}\n  \
                workloads: [A/b]\n  serials: [zz]\n  until: tomorrow\n";

    let (list, problems) = revoked(&revocation("selvedge", spec));

    assert_eq!(list, ["spiffe://cluster.local/ns/shop/sa/a"]);
    assert_eq!(problems.len(), 7, "{problems:#?}");
    let (_, nobody) = revoked(&revocation("selvedge", "  reason: none\n"));
    assert!(nobody[0].contains("revokes nobody"), "{nobody:?}");
}

#[test]
fn a_reason_is_shown_as_it_is_written_and_does_nothing_where_it_is_read() {
    let spec = "  serials: [\"4F\"]\n  reason: \"key\\nERROR \\u202egnp\"\n";

    let (mesh, _) = compiled(&revocation("selvedge", spec));

    assert_eq!(mesh.revocations.list()[0].reason.as_deref(), Some("key\\nERROR \\u{202e}gnp"));
}
