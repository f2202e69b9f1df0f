//! Policies of the lesson and of a suite for network plugins, as they were written: who may connect to whom.

use std::net::{IpAddr, SocketAddr};

use super::{
    network::{entry, refused, refused_in, refused_out},
    *,
};

macro_rules! recipe {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/kubernetes/seeds/networkpolicies/", $name, ".yaml"))
    };
}

/// From whom, to whom, at which port. An address is outside the mesh.
type Asked = (&'static str, &'static str, u16);

/// What documents that are in force together let through and what not.
struct Recipe {
    documents: &'static [&'static str],
    passes: &'static [Asked],
    denied: &'static [Asked],
}

const LESSON: &[Recipe] = &[
    Recipe {
        documents: &[recipe!("07-networkpolicy-default-deny-all")],
        passes: &[("default/frontend", "default/backend", 8080), (OUTSIDE, "default/database", 3306)],
        denied: &[
            ("production/web", "production/job", 8080),
            ("production/web", "default/backend", 8080),
            ("default/backend", "production/web", 8080),
            (OUTSIDE, "production/web", 8080),
            ("production/job", OUTSIDE, 443),
        ],
    },
    Recipe {
        documents: &[recipe!("07-networkpolicy-allow-same-namespace")],
        passes: &[
            ("production/web", "production/job", 9090),
            ("production/web", "default/backend", 8080),
            ("production/web", OUTSIDE, 443),
        ],
        denied: &[("default/backend", "production/web", 8080), (OUTSIDE, "production/web", 8080)],
    },
    // Policies add up.
    Recipe {
        documents: &[
            recipe!("07-networkpolicy-default-deny-all"),
            recipe!("07-networkpolicy-allow-same-namespace"),
        ],
        passes: &[("default/frontend", "default/backend", 8080)],
        // Into the other it may come, but out of the first it may not go.
        denied: &[("production/web", "production/job", 8080), ("default/backend", "production/web", 8080)],
    },
    Recipe {
        documents: &[recipe!("07-networkpolicy-allow-from-frontend")],
        passes: &[
            ("default/frontend", "default/backend", 8080),
            ("default/database", "default/frontend", 8080),
            ("default/backend", "default/database", 3306),
        ],
        denied: &[
            ("default/frontend", "default/backend", 9090),
            ("default/database", "default/backend", 8080),
            ("production/frontend", "default/backend", 8080),
            (OUTSIDE, "default/backend", 8080),
        ],
    },
    Recipe {
        documents: &[recipe!("07-networkpolicy-db")],
        passes: &[
            ("default/backend", "default/database", 3306),
            ("default/database", "10.0.5.9", 22),
            ("default/frontend", "default/backend", 8080),
        ],
        denied: &[
            ("default/backend", "default/database", 5432),
            ("default/frontend", "default/database", 3306),
            (OUTSIDE, "default/database", 3306),
            ("default/database", "10.0.5.9", 23),
            ("default/database", "10.0.6.9", 22),
            ("default/database", "default/backend", 8080),
            // What it may ask kube-system for is UDP.
            ("default/database", "kube-system/dns", 53),
        ],
    },
    Recipe {
        documents: &[include_str!("../../../../examples/policies/calico-deny-metadata.yaml")],
        passes: &[
            ("default/frontend", "169.254.169.253", 80),
            ("production/web", OUTSIDE, 443),
            ("default/frontend", "default/backend", 8080),
        ],
        denied: &[("default/frontend", "169.254.169.254", 80), ("production/web", "169.254.169.254", 443)],
    },
];

const SUITE: &[Recipe] = &[
    Recipe {
        documents: &[recipe!("allow-all")],
        passes: &[
            ("x/a", "abcd/a", 80),
            ("y/a", "abcd/a", 9090),
            (OUTSIDE, "abcd/a", 80),
            ("abcd/a", "y/a", 80),
        ],
        denied: &[],
    },
    Recipe {
        documents: &[recipe!("deny-all")],
        passes: &[("y/a", "x/a", 80), ("y/a", OUTSIDE, 443), ("y/a", "abcd/a", 80)],
        denied: &[("y/a", "y/b", 80), ("x/a", "y/a", 80), (OUTSIDE, "y/c", 80)],
    },
    Recipe {
        documents: &[recipe!("deny-all-for-label")],
        passes: &[("y/a", "y/b", 80), ("y/a", "x/a", 80), (OUTSIDE, "y/c", 80)],
        denied: &[("y/b", "y/a", 80), ("x/a", "y/a", 80), (OUTSIDE, "y/a", 80)],
    },
    Recipe {
        documents: &[recipe!("allow-all-for-label"), recipe!("deny-all")],
        passes: &[("y/a", "y/b", 80), ("x/a", "y/b", 9090), (OUTSIDE, "y/b", 80)],
        denied: &[("y/b", "y/a", 80), ("x/a", "y/c", 80)],
    },
    Recipe {
        documents: &[recipe!("allow-label-to-label")],
        passes: &[("y/c", "y/a", 80), ("y/a", "y/b", 80), ("x/a", "y/c", 80)],
        denied: &[("y/b", "y/a", 80), ("x/c", "y/a", 80), (OUTSIDE, "y/a", 80)],
    },
    Recipe {
        documents: &[recipe!("allow-by-ip")],
        passes: &[("0.0.0.5", "y/c", 80), ("y/a", "y/b", 80), ("y/c", "y/a", 80)],
        denied: &[("y/a", "y/c", 80), ("0.0.1.5", "y/c", 80), (OUTSIDE, "y/c", 80)],
    },
    Recipe {
        documents: &[recipe!("deny-all-egress")],
        passes: &[("x/a", "y/a", 80), (OUTSIDE, "y/a", 80)],
        denied: &[("y/a", "y/b", 80), ("y/a", "x/a", 80), ("y/c", OUTSIDE, 443)],
    },
    Recipe {
        documents: &[recipe!("allow-all-egress-by-label"), recipe!("deny-all-egress")],
        passes: &[("y/a", "x/a", 80), ("y/b", "y/c", 9090), ("y/b", OUTSIDE, 443)],
        denied: &[("y/c", "y/a", 80), ("y/c", OUTSIDE, 443)],
    },
    Recipe {
        documents: &[recipe!("yaml-list")],
        passes: &[
            ("ns-y/plain", "ns-y/qrs", 9090),
            ("ns-y/qrs", "ns-y/plain", 9090),
            ("x/a", "ns-y/plain", 8080),
            ("x/a", "ns-y/qrs", 9090),
            ("ns-y/plain", OUTSIDE, 443),
        ],
        // Whoever is in no namespace is in none that is selected.
        denied: &[("x/a", "ns-y/plain", 9090), (OUTSIDE, "ns-y/plain", 8080), (OUTSIDE, "ns-y/qrs", 8080)],
    },
];

/// Somebody without a sidecar, far away.
const OUTSIDE: &str = "192.0.2.1";

fn workloads() -> String {
    let all = [
        ("default", "frontend", "app: frontend"),
        ("default", "backend", "app: backend"),
        ("default", "database", "app: database"),
        ("production", "web", "app: web"),
        ("production", "job", "app: job"),
        ("production", "frontend", "app: frontend"),
        ("kube-system", "dns", "app: dns"),
        ("x", "a", "pod: a"),
        ("x", "c", "pod: c"),
        ("y", "a", "pod: a"),
        ("y", "b", "pod: b"),
        ("y", "c", "pod: c"),
        ("ns-y", "plain", "pod: a"),
        ("ns-y", "qrs", "app: qrs"),
        ("abcd", "a", "pod: a"),
    ];
    let entries = all.iter().enumerate();
    entries
        .map(|(at, (namespace, name, labels))| entry(namespace, name, labels, &format!("10.3.0.{}", at + 1)))
        .collect()
}

fn why_not(mesh: &Mesh, (from, to, port): Asked) -> Option<String> {
    match (from.parse::<IpAddr>(), to.parse::<IpAddr>()) {
        (Ok(from), _) => refused_in(mesh, (from, None), to, (port, true)),
        (_, Ok(to)) => refused_out(mesh, from, SocketAddr::new(to, port), None),
        _ => refused(mesh, from, to, port),
    }
}

fn hold(recipes: &[Recipe]) {
    let (open, _) = compiled(&workloads());
    for recipe in recipes {
        let documents = recipe.documents.join("\n---\n");
        let (mesh, problems) = compiled(&format!("{}{documents}", workloads()));
        assert!(errors(&problems).is_empty(), "{problems:?}\n{documents}");
        for asked in recipe.passes {
            assert_eq!(why_not(&mesh, *asked), None, "{asked:?}\n{documents}");
        }
        for asked in recipe.denied {
            assert_eq!(why_not(&open, *asked), None, "{asked:?} without a policy");
            let why = why_not(&mesh, *asked).unwrap_or_else(|| panic!("{asked:?} passes\n{documents}"));
            assert!(why.contains("NetworkPolicy "), "{asked:?}: {why}");
        }
    }
}

#[test]
fn the_lessons_network_policies_let_through_what_they_say() {
    hold(LESSON);
}

#[test]
fn the_policies_of_a_suite_for_network_plugins_let_through_what_they_say() {
    hold(SUITE);
}
