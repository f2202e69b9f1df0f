//! The house rules of the workspace: which crate, and which room of the proxy, may import which; and one version of
//! everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
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

/// The rooms of the proxy, the top modules of `proxy/src`, in the order in which `lib.rs` lists them.
fn rooms(library: &str) -> Vec<&str> {
    let declared = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.collect()
}

/// What of a source file is not for tests alone; and which modules of its are.
fn without_tests(source: &str) -> (String, Vec<&str>) {
    let (mut kept, mut of_tests) = (String::new(), Vec::new());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let code = line.split("//").next().unwrap_or_default();
        if code.trim() != "#[cfg(test)]" {
            kept.push_str(code);
            kept.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        // rustfmt ends an item at the indent at which it began.
        for line in lines.by_ref() {
            let at_end = line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '));
            if let Some((_, name)) = line.split_once("mod ") {
                of_tests.extend(name.strip_suffix(';'));
            }
            if at_end && line.ends_with([';', '}']) {
                break;
            }
        }
    }
    (kept, of_tests)
}

/// The first names in a list of use trees, `a::b, c::{d, e}`, up to the brace that ends it.
fn first_names(trees: &str) -> Vec<&str> {
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, true);
    let mut rest = trees;
    while let Some(next) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if name > 0 {
            if begins && depth == 0 {
                names.push(&rest[..name]);
            }
            begins = false;
            rest = &rest[name..];
            continue;
        }
        match next {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' => begins = true,
            _ => {}
        }
        rest = &rest[next.len_utf8()..];
    }
    names
}

/// Which names of the crate's root `code` mentions, whose module is `depth` below the root.
fn mentions(code: &str, depth: usize) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(trees) => found.extend(first_names(trees)),
                None => found.extend(first_names(rest).first()),
            }
        }
    }
    found
}

/// Every source file below `directory` that is not for tests alone: what it says, its room, and how deep it is.
fn sources(directory: &Path, depth: usize, room: Option<&str>) -> Vec<(PathBuf, String, String, usize)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A module's own file before the directory of its modules.
    paths.sort_by_key(|path| (path.is_dir(), path.clone()));
    let (mut read, mut of_tests) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let room = room.unwrap_or(&name).to_owned();
        if of_tests.contains(&path.with_extension("")) {
            continue;
        }
        if path.is_dir() {
            let below = sources(&path, depth + 1, Some(&room));
            read.extend(below.into_iter().filter(|(file, ..)| {
                let mut modules = file.ancestors().map(|module| module.with_extension(""));
                !modules.any(|module| of_tests.contains(&module))
            }));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let (code, tests) = without_tests(&source);
            let is_root = matches!(name.as_str(), "mod" | "lib");
            let modules = if is_root { directory.to_owned() } else { path.with_extension("") };
            of_tests.extend(tests.into_iter().map(|module| modules.join(module)));
            read.push((path, room, code, if is_root { depth } else { depth + 1 }));
        }
    }
    read.retain(|(file, ..)| !of_tests.contains(&file.with_extension("")));
    read
}

#[test]
fn a_room_of_the_proxy_imports_only_rooms_below_it() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proxy/src"));
    let library = fs::read_to_string(root.join("lib.rs")).unwrap();
    let rooms = rooms(&library);
    let place = |name: &str| rooms.iter().position(|room| *room == name);
    let (mut imports, mut upward) = (0, Vec::new());

    for (file, room, code, depth) in sources(root, 0, None) {
        let Some(own) = place(&room) else {
            assert_eq!(room, "lib", "{} is in no room that lib.rs lists", file.display());
            continue;
        };
        for other in mentions(&code, depth).into_iter().filter_map(place) {
            imports += usize::from(other != own);
            if other < own {
                let file = file.strip_prefix(root).unwrap().display();
                upward.push(format!("{file} imports {}, which stands above {room}", rooms[other]));
            }
        }
    }

    assert!(
        imports > 100,
        "only {imports} imports were found: is this test still looking in the right place?"
    );
    assert!(upward.is_empty(), "{}\n(the order is that of proxy/src/lib.rs)", upward.join("\n"));
}

#[test]
fn the_readme_tells_the_story_of_a_request_in_the_order_of_the_rooms() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let library = fs::read_to_string(root.join("proxy/src/lib.rs")).unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();

    let (_, story) = readme.split_once("| rooms of `proxy/src`").expect("the table of the proxy's rooms");
    let rows = story.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: Vec<&str> = rows
        .flat_map(|row| {
            row.trim_start_matches('|').split('|').next().unwrap_or_default().split('`').skip(1).step_by(2)
        })
        .collect();

    assert_eq!(told, rooms(&library));
}
