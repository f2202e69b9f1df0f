//! The house rules of the workspace: who may import whom, and one version of everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Whom of ours each crate may import. Development dependencies are free: tests may use anything.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    ("selvedge-model", &[]),
    ("selvedge-kubernetes", &[]),
    ("selvedge-ops", &[]),
    ("selvedge-demo", &[]),
    ("selvedge-init", &[]),
    ("selvedge-api", &["selvedge-model"]),
    ("selvedge-certs", &["selvedge-model"]),
    ("selvedge-proxy", &["selvedge-api", "selvedge-certs", "selvedge-model", "selvedge-ops"]),
    (
        "selvedge-control-plane",
        &["selvedge-api", "selvedge-certs", "selvedge-kubernetes", "selvedge-model", "selvedge-ops"],
    ),
    (
        "selvedge-cli",
        &[
            "selvedge-api",
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
