//! Policies that people write, and whom they let connect to whom: those of the lesson, byte for byte, and the recipes
//! that every guide of `NetworkPolicy` has, in our own words.

/// One or more documents that are in force together.
#[derive(Debug)]
pub struct Recipe {
    /// What they are for.
    pub name: &'static str,
    /// The documents.
    pub documents: &'static [&'static str],
    /// Whether what they say of incoming connections lets this one in.
    pub into: fn(Asked) -> bool,
    /// The same of outgoing ones.
    pub out: fn(Asked) -> bool,
}

/// A connection: from whom, to whom (`NAMESPACE/NAME`, or [`OUTSIDE`]), at which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The client.
    pub from: &'static str,
    /// The server.
    pub to: &'static str,
    /// The server's port.
    pub port: u16,
}

/// A workload that the recipes know: namespace, name, and more labels than `app: NAME`.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name, its label `app`, and its service account.
    pub name: &'static str,
    /// Its name in the form of [`Asked`].
    pub full: &'static str,
    /// Another label.
    pub label: (&'static str, &'static str),
    /// Whether it has a sidecar.
    pub is_meshed: bool,
}

/// Somebody whom no document declares.
pub const OUTSIDE: &str = "outside";

/// A port for HTTP, and two that are opaque.
pub const PORTS: [u16; 3] = [8080, 5432, 3306];

/// The namespaces of the recipes, with labels.
pub const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: production, labels: {purpose: production}}\n\
                              ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {purpose: trial}}\n";

/// The workloads of the recipes.
pub const KNOWN: [Known; 7] = [
    known("default", "frontend", "default/frontend", ("tier", "frontend")),
    known("default", "backend", "default/backend", ("tier", "backend")),
    known("default", "database", "default/database", ("tier", "database")),
    known("default", "other", "default/other", ("tier", "other")),
    Known { is_meshed: false, ..known("default", "legacy", "default/legacy", ("type", "legacy")) },
    known("production", "web", "production/web", ("type", "web")),
    known("production", "job", "production/job", ("type", "monitoring")),
];

const fn known(
    namespace: &'static str,
    name: &'static str,
    full: &'static str,
    label: (&'static str, &'static str),
) -> Known {
    Known { namespace, name, full, label, is_meshed: true }
}

impl Asked {
    fn is_in(name: &str, namespace: &str) -> bool {
        name.split_once('/').is_some_and(|(own, _)| own == namespace)
    }

    /// Whether the client is in a namespace.
    fn comes_from(self, namespace: &str) -> bool {
        Self::is_in(self.from, namespace)
    }

    /// Whether the server is.
    fn goes_to(self, namespace: &str) -> bool {
        Self::is_in(self.to, namespace)
    }

    /// Whether this is so unless the server is another one.
    fn if_to(self, to: &str, so: bool) -> bool {
        self.to != to || so
    }

    /// Whether this is so unless the client is another one.
    fn if_from(self, from: &str, so: bool) -> bool {
        self.from != from || so
    }
}

impl Recipe {
    /// Whether the connection is let through: by both ends that have a sidecar. Nothing keeps a workload from itself.
    pub fn lets(&self, asked: Asked) -> bool {
        let is_meshed = |name: &str| KNOWN.iter().any(|one| one.full == name && one.is_meshed);
        asked.from == asked.to
            || (!is_meshed(asked.to) || (self.into)(asked)) && (!is_meshed(asked.from) || (self.out)(asked))
    }
}

fn anything(_: Asked) -> bool {
    true
}

macro_rules! lesson {
    ($name:literal) => {
        include_str!(concat!("../../kubernetes/seeds/networkpolicies/07-networkpolicy-", $name, ".yaml"))
    };
}

/// The lesson's exercise, byte for byte.
pub const EXERCISE_3: &str = include_str!("../../kubernetes/seeds/exercise3-networkpolicies.yaml");

/// The documents of the lesson, byte for byte.
pub const LESSON: &[Recipe] = &[
    Recipe {
        name: "deny everything in a namespace",
        documents: &[lesson!("default-deny-all")],
        into: |asked| !asked.goes_to("production"),
        out: |asked| !asked.comes_from("production"),
    },
    Recipe {
        name: "allow only the same namespace",
        documents: &[lesson!("allow-same-namespace")],
        into: |asked| !asked.goes_to("production") || asked.comes_from("production"),
        out: anything,
    },
    Recipe {
        name: "both of them",
        documents: &[lesson!("default-deny-all"), lesson!("allow-same-namespace")],
        into: |asked| !asked.goes_to("production") || asked.comes_from("production"),
        out: |asked| !asked.comes_from("production"),
    },
    Recipe {
        name: "allow from the frontend",
        documents: &[lesson!("allow-from-frontend")],
        into: |asked| asked.if_to("default/backend", asked.from == "default/frontend" && asked.port == 8080),
        out: anything,
    },
    Recipe {
        name: "a database",
        documents: &[lesson!("db")],
        into: |asked| asked.if_to("default/database", asked.from == "default/backend" && asked.port == 3306),
        // It may call a backup server, and ask for names over UDP.
        out: |asked| asked.from != "default/database",
    },
    Recipe {
        name: "no metadata server",
        documents: &[include_str!("../../../examples/policies/calico-deny-metadata.yaml")],
        into: anything,
        out: anything,
    },
    Recipe {
        name: "exercise 3",
        documents: &[EXERCISE_3],
        into: |asked| {
            asked.if_to("default/backend", asked.from == "default/frontend" && asked.port == 8080)
                && asked.if_to("default/database", asked.from == "default/backend" && asked.port == 5432)
        },
        out: |asked| asked.if_from("default/backend", asked.to == "default/database" && asked.port == 5432),
    },
];

/// A policy called `own` in a namespace.
macro_rules! policy {
    ($namespace:literal, $spec:literal) => {
        policy!("own", $namespace, $spec)
    };
    ($name:literal, $namespace:literal, $spec:literal) => {
        concat!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ",
            $name,
            ", namespace: ",
            $namespace,
            "}\nspec: ",
            $spec,
            "\n"
        )
    };
}

/// Whether the backend is not called, or by one of these.
fn backend_by(asked: Asked, clients: &[&str]) -> bool {
    asked.if_to("default/backend", clients.contains(&asked.from))
}

/// The recipes that every guide has.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "nobody may connect to an app",
        documents: &[policy!("default", "{podSelector: {matchLabels: {app: backend}}, ingress: []}")],
        into: |asked| backend_by(asked, &[]),
        out: anything,
    },
    Recipe {
        name: "one app may connect to another",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}]}]}"
        )],
        into: |asked| backend_by(asked, &["default/frontend"]),
        out: anything,
    },
    Recipe {
        name: "everybody may connect to one app, although another policy says nobody",
        documents: &[
            policy!("default", "{podSelector: {}, ingress: []}"),
            policy!("all", "default", "{podSelector: {matchLabels: {app: backend}}, ingress: [{}]}"),
        ],
        into: |asked| !asked.goes_to("default") || asked.to == "default/backend",
        out: anything,
    },
    Recipe {
        name: "nobody may connect to anybody in a namespace",
        documents: &[policy!("default", "{podSelector: {}, policyTypes: [Ingress]}")],
        into: |asked| !asked.goes_to("default"),
        out: anything,
    },
    Recipe {
        name: "nobody from another namespace",
        documents: &[policy!("default", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")],
        into: |asked| !asked.goes_to("default") || asked.comes_from("default"),
        out: anything,
    },
    Recipe {
        name: "everybody of all namespaces, and nobody from outside",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{namespaceSelector: {}}]}]}"
        )],
        into: |asked| asked.if_to("default/backend", asked.from != OUTSIDE),
        out: anything,
    },
    Recipe {
        name: "everybody of a namespace with a label",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: \
             production}}}]}]}"
        )],
        into: |asked| backend_by(asked, &["production/web", "production/job"]),
        out: anything,
    },
    Recipe {
        name: "some of a namespace with a label",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: \
             production}}, podSelector: {matchLabels: {type: monitoring}}}]}]}"
        )],
        into: |asked| backend_by(asked, &["production/job"]),
        out: anything,
    },
    Recipe {
        name: "whoever is in either list",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{namespaceSelector: {matchLabels: {purpose: \
             production}}}, {podSelector: {matchLabels: {app: other}}}]}]}"
        )],
        into: |asked| backend_by(asked, &["production/web", "production/job", "default/other"]),
        out: anything,
    },
    Recipe {
        name: "the world outside may come to one app, with a namespace closed otherwise",
        documents: &[
            policy!("default", "{podSelector: {}, ingress: []}"),
            policy!("all", "default", "{podSelector: {matchLabels: {app: frontend}}, ingress: [{from: []}]}"),
        ],
        into: |asked| !asked.goes_to("default") || asked.to == "default/frontend",
        out: anything,
    },
    Recipe {
        name: "one port only",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{ports: [{port: 5432}], from: [{podSelector: {matchLabels: \
             {app: frontend}}}]}]}"
        )],
        into: |asked| asked.if_to("default/backend", asked.from == "default/frontend" && asked.port == 5432),
        out: anything,
    },
    Recipe {
        name: "several apps, each by a selector of its own",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}, \
             {podSelector: {matchExpressions: [{key: tier, operator: In, values: [other, nobody]}]}}]}]}"
        )],
        into: |asked| backend_by(asked, &["default/frontend", "default/other"]),
        out: anything,
    },
    Recipe {
        name: "an app may call nobody",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: backend}}, policyTypes: [Egress], egress: []}"
        )],
        into: anything,
        out: |asked| asked.from != "default/backend",
    },
    Recipe {
        name: "nobody of a namespace may call anybody",
        documents: &[policy!("default", "{podSelector: {}, policyTypes: [Egress]}")],
        into: anything,
        out: |asked| !asked.comes_from("default"),
    },
    Recipe {
        name: "nobody of a namespace may call the world outside",
        documents: &[policy!(
            "default",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}"
        )],
        into: anything,
        out: |asked| !asked.comes_from("default") || asked.to != OUTSIDE,
    },
    Recipe {
        name: "an app may call one other app and nobody else",
        documents: &[policy!(
            "default",
            "{podSelector: {matchLabels: {app: frontend}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: \
             {app: backend}}}], ports: [{port: 8080}]}]}"
        )],
        into: anything,
        out: |asked| asked.if_from("default/frontend", asked.to == "default/backend" && asked.port == 8080),
    },
];
