//! Each field that a document may have, and the test that proves what it does. The list of fields is the decoder's own.

mod gateway_api;
mod istio;
mod kubernetes;
mod network_policies;
mod policies;
mod selvedge;
mod virtual_service;

use std::{collections::BTreeSet, fs, path::Path};

use selvedge_control_plane::resources::kinds::acted_on;

/// What is proven of a field.
enum Proof {
    /// That it does what Istio (or Kubernetes) documents, by the test of this name.
    Test(&'static str),
    /// That it is reported as not acted on, by the test of this name.
    Reported(&'static str),
    /// Nothing: it asks nothing of a mesh, for this reason.
    Nothing(&'static str),
}

use Proof::{Nothing, Reported, Test};

/// A kind; a field, or with `**` all below it; and what is proven of it. `POLICY` is each place of a `trafficPolicy`.
type Row = (&'static str, &'static str, Proof);

/// The rows of all kinds; a new row goes into the file of its kind.
const ALL: &[&[Row]] = &[
    kubernetes::ROWS,
    istio::ROWS,
    virtual_service::ROWS,
    gateway_api::ROWS,
    network_policies::ROWS,
    policies::ROWS,
    selvedge::ROWS,
];

const POLICIES: [&str; 4] = [
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.trafficPolicy",
];

impl Proof {
    fn test(&self) -> Option<&'static str> {
        match self {
            Test(name) | Reported(name) => Some(name),
            Nothing(_) => None,
        }
    }
}

fn is_for((kind, pattern, _): &Row, of_kind: &str, path: &str) -> bool {
    let fits = |path: &str| match pattern.strip_suffix("**") {
        Some(above) => path.starts_with(above),
        None => *pattern == path,
    };
    let mut policies = POLICIES.iter().filter_map(|place| path.strip_prefix(place));
    *kind == of_kind && (fits(path) || policies.any(|rest| fits(&format!("POLICY{rest}"))))
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    let mut directories: Vec<_> =
        ["control-plane", "proxy", "certs", "tests", "examples"].map(|part| root.join(part)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let after_test = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
                let name = |rest: &str| Some(rest.split_once("fn ")?.1.split('(').next()?.to_owned());
                found.extend(after_test.filter_map(name));
            }
        }
    }
    found
}

#[test]
fn every_field_that_is_read_has_a_test_that_proves_what_it_does() {
    let (tests, rows): (_, Vec<&Row>) = (tests(), ALL.iter().copied().flatten().collect());
    let mut used = BTreeSet::new();
    let mut missing = Vec::new();
    for kind in acted_on() {
        // Kinds of one name in several groups share their rows, if the one with the group has none.
        let has_rows = rows.iter().any(|(of_kind, ..)| *of_kind == kind.called);
        let of_kind = if has_rows { kind.called } else { kind.kind };
        for field in kind.known_fields() {
            let own = rows.iter().enumerate().filter(|(_, row)| is_for(row, of_kind, &field.path));
            let own: Vec<_> = own.map(|(index, _)| index).collect();
            if own.is_empty() {
                missing.push(format!("{} {}", kind.called, field.path));
            }
            used.extend(own);
        }
    }
    let stale: Vec<_> = rows
        .iter()
        .enumerate()
        .filter(|(index, _)| !used.contains(index))
        .map(|(_, (kind, path, _))| (kind, path))
        .collect();
    let unknown: BTreeSet<_> =
        rows.iter().filter_map(|(.., proof)| proof.test()).filter(|name| !tests.contains(*name)).collect();
    let reasons = rows.iter().filter(|(.., proof)| matches!(proof, Nothing(why) if why.is_empty())).count();

    assert!(missing.is_empty(), "fields without a row: {missing:#?}");
    assert!(stale.is_empty(), "rows of fields that there are not: {stale:#?}");
    assert!(unknown.is_empty(), "tests that there are not: {unknown:#?}");
    assert_eq!(reasons, 0);
}
