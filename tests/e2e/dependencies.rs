//! The house rules of the workspace: which crate, and which module of a crate, may import which; and one version of
//! everything.

mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use self::rooms::Rooms;

/// Whom of ours each crate may import. Development dependencies are free: tests may use anything.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("selvedge-blocks", &[]),
    ("selvedge-model", &[]),
    ("selvedge-kubernetes", &[]),
    ("selvedge-ops", &[]),
    ("selvedge-demo", &[]),
    ("selvedge-init", &[]),
    ("selvedge-api", &["selvedge-model"]),
    ("selvedge-certs", &["selvedge-model"]),
    (
        "selvedge-proxy",
        &["selvedge-api", "selvedge-blocks", "selvedge-certs", "selvedge-model", "selvedge-ops"],
    ),
    (
        "selvedge-control-plane",
        &["selvedge-api", "selvedge-certs", "selvedge-kubernetes", "selvedge-model", "selvedge-ops"],
    ),
    (
        "selvedge-cli",
        &[
            "selvedge-api",
            "selvedge-blocks",
            "selvedge-certs",
            "selvedge-control-plane",
            "selvedge-demo",
            "selvedge-init",
            "selvedge-kubernetes",
            "selvedge-model",
            "selvedge-ops",
            "selvedge-proxy",
        ],
    ),
    (
        "selvedge-tests",
        &[
            "selvedge-api",
            "selvedge-certs",
            "selvedge-control-plane",
            "selvedge-demo",
            "selvedge-kubernetes",
            "selvedge-model",
            "selvedge-ops",
            "selvedge-proxy",
        ],
    ),
];

/// Of this platform: crates for others need not have been downloaded.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc, which built this").stdout;
    let version = String::from_utf8(version).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc's own platform");
    let options = ["--offline", "--locked", "--filter-platform", host];
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(options.map(str::to_owned))
        .exec()
        .unwrap()
}

#[test]
fn crates_import_only_in_the_direction_of_the_design() {
    let may_import = BTreeMap::from(MAY_IMPORT);
    let metadata = metadata();

    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let allowed = may_import.get(name).unwrap_or_else(|| panic!("say here whom {name} may import"));
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("selvedge-");
            if ours && dependency.kind != DependencyKind::Development {
                assert!(allowed.contains(&dependency.name.as_str()), "{name} imports {}", dependency.name);
            }
        }
    }
    assert_eq!(metadata.workspace_packages().len(), may_import.len());
}

#[test]
fn every_direct_dependency_has_one_version() {
    let metadata = metadata();
    let name = |id: &PackageId| {
        let package = &metadata[id];
        (package.name.to_string(), package.version.to_string())
    };

    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    let resolved = metadata.resolve.as_ref().expect("asked for with dependencies");
    for node in resolved.nodes.iter().filter(|node| metadata.workspace_members.contains(&node.id)) {
        for dependency in &node.dependencies {
            let (name, version) = name(dependency);
            versions.entry(name).or_default().insert(version);
        }
    }

    assert!(versions.contains_key("tokio"));
    for (name, versions) in versions {
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
}

/// The text of a `lib.rs` that lists the rooms of its crate in their order.
fn library(source: &str) -> String {
    fs::read_to_string(rooms::workspace().join(source).join("lib.rs")).unwrap()
}

/// The rooms of a crate: its top modules, in the order in which its `lib.rs` lists them.
fn rooms_of(library: &str) -> Vec<&str> {
    let declared = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.collect()
}

#[test]
fn a_room_of_the_proxy_imports_only_rooms_below_it() {
    let library = library("proxy/src");
    let mut order = rooms_of(&library);
    order.reverse();
    let rooms = Rooms { source: "proxy/src", inside: &[], order: &order };

    let imports = rooms.check();

    assert!(
        imports > 100,
        "only {imports} imports were found: is this test still looking in the right place?"
    );
}

/// The rooms whose steps a path consists of: of each `.layer(` and `.service(` of its one list the first name.
fn steps(path: &str) -> Vec<&str> {
    let (_, list) = path.split_once("ServiceBuilder::new()").expect("a path is one list of steps");
    let (list, _) = list.split_once("\n}").expect("the list ends with its function");
    let lines = list.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix(".layer(").or_else(|| line.strip_prefix(".service("))
    });
    let name = |step: &str| step.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(step.len());
    lines.map(|step| &step[..name(step)]).collect()
}

#[test]
fn a_request_meets_the_rooms_in_their_order_on_every_path() {
    let root = rooms::workspace().join("proxy/src");
    let library = library("proxy/src");
    let rooms = rooms_of(&library);

    for path in ["outbound.rs", "inbound.rs", "gateway.rs"] {
        let source = fs::read_to_string(root.join(path)).unwrap();
        let steps = steps(&source);
        let places: Vec<usize> = steps
            .iter()
            .map(|step| {
                rooms
                    .iter()
                    .position(|room| room == step)
                    .unwrap_or_else(|| panic!("{path}: {step} is not a room"))
            })
            .collect();
        assert!(places.len() > 5, "{path}: are these all its steps? {steps:?}");
        assert!(places.is_sorted(), "{path}: {steps:?}, which is not the order of proxy/src/lib.rs");
    }
}

#[test]
fn the_readme_lists_the_rooms_of_the_proxy_in_their_order() {
    let readme = fs::read_to_string(rooms::workspace().join("README.md")).unwrap();
    let (_, table) = readme.split_once("| rooms of `proxy/src`").expect("the table of its rooms");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let first_cells = rows.map(|row| row.trim_start_matches('|').split('|').next().unwrap_or_default());
    let told: Vec<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();

    assert_eq!(told, rooms_of(&library("proxy/src")));
}

#[test]
fn a_room_of_the_control_plane_imports_only_rooms_above_it() {
    let library = library("control-plane/src");
    let rooms = Rooms { source: "control-plane/src", inside: &[], order: &rooms_of(&library) };

    let imports = rooms.check();

    assert!(
        imports > 50,
        "only {imports} imports were found: is this test still looking in the right place?"
    );
}

/// Documents become a mesh in this order.
const COMPILE: Rooms<'static> = Rooms {
    source: "control-plane/src",
    inside: &["compile"],
    order: &[
        "hosts",
        "grants",
        "sharing",
        "room",
        "claims",
        "inbound",
        "there",
        "targets",
        "meant",
        "authentication",
        "authorization",
        "network",
        "servers",
        "rate_limits",
        "telemetry",
        "services",
        "places",
        "clients",
        "addressees",
        "destination_rules",
        "certificates",
        "policy_targets",
        "backend_tls",
        "backend_traffic",
        "workloads",
        "asked",
        "candidates",
        "reserved",
        "owners",
        "endpoints",
        "dialled",
        "rule_names",
        "routes",
        "gateways",
        "naming",
        "revocations",
        "selected",
        "incremental",
    ],
};

const CERTS: Rooms<'static> = Rooms {
    source: "certs/src",
    inside: &[],
    order: &[
        "files", "crypto", "csr", "holder", "renewal", "facts", "bundle", "leaf", "server", "verify", "tls",
        "token", "ca",
    ],
};

#[test]
fn modules_import_only_in_the_order_of_their_list() {
    for rooms in [COMPILE, CERTS] {
        rooms.check();
    }
}

#[test]
fn the_guide_lists_the_control_planes_rooms_in_their_order() {
    let guide = fs::read_to_string(rooms::workspace().join("control-plane/README.md")).unwrap();
    let table = guide.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let told: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();

    let library = library("control-plane/src");
    let is_told = |name: &&str| !["problem", "metrics", "data_dir", "cli", "app"].contains(name);
    let listed: Vec<&str> = rooms_of(&library).into_iter().filter(is_told).collect();
    assert_eq!(told, listed);
}
