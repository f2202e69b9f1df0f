//! Every kind has a line of its own, and the guide has the same ones.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_kind_of_a_group_is_listed_once_and_all_its_versions_are_of_that_group() {
    let (mut seen, mut called) = (BTreeSet::new(), BTreeSet::new());
    for kind in followed() {
        assert!(seen.insert((kind.group(), kind.kind)), "{} {}", kind.group(), kind.kind);
        assert!(kind.called.split('.').next() == Some(kind.kind), "{} is called {}", kind.kind, kind.called);
        for version in kind.api_versions {
            let group = version.rsplit_once('/').map_or("", |(group, _)| group);
            assert_eq!(group, kind.group(), "{}", kind.kind);
        }
    }
    for kind in acted_on() {
        assert!(called.insert(kind.called), "two kinds are called {}", kind.called);
    }
}

#[test]
fn what_is_acted_on_has_fields_and_what_is_not_has_none() {
    // Of these only the labels count, which all kinds have.
    for kind in acted_on().iter().filter(|kind| !["Node", "ServiceAccount"].contains(&kind.kind)) {
        assert!(!kind.known_fields().is_empty(), "{}", kind.kind);
    }
    for kind in NOT_ACTED_ON {
        assert!(kind.known_fields().is_empty(), "{}", kind.kind);
    }
}

#[test]
fn the_guide_names_every_kind_that_is_acted_on_and_no_other() {
    let guide = include_str!("../../../README.md");
    let table = guide.lines().skip_while(|line| !line.starts_with("| kind |")).skip(2);
    let first_cells =
        table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let named: BTreeSet<&str> = first_cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| !name.contains('/'))
        .collect();

    // Kinds of one name in several groups may share a line.
    let listed = |kind: &ResourceKind| if named.contains(kind.called) { kind.called } else { kind.kind };
    let listed: BTreeSet<&str> = acted_on().iter().map(listed).collect();
    assert_eq!(named, listed);
}
