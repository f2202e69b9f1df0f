//! What counts of a directory, when, and what stays when something fails.

mod last_good;
mod named_files;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Loaded,
    directory::{Directory, Options, load},
    files::{FileState, Known, NotOnlyFiles, files_at},
};
use crate::problem::Severity;

/// A directory of documents, and where last good versions are kept.
struct Bench {
    root: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl Bench {
    fn new(files: &[(&str, String)]) -> Self {
        let bench = Self { root: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            bench.write(name, text);
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn saved(&self) -> PathBuf {
        self.data.path().join("last-good")
    }

    fn directory(&self) -> Directory {
        Directory::new(self.root.path(), Options { last_good: Some(self.saved()), ..Options::default() })
    }
}

/// Looks until a change counts; `None` if none of three looks brings one.
fn settle(directory: &mut Directory) -> Option<Arc<Loaded>> {
    (0..3).find_map(|_| directory.poll())
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

/// Name and first port of every service, in order.
fn services(loaded: &Loaded) -> Vec<(String, u16)> {
    let services = loaded.resources.services.iter();
    services.map(|document| (document.name.name.to_string(), document.spec.ports[0].port)).collect()
}

fn named(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

#[test]
fn every_configuration_file_below_counts_in_order() {
    let bench = Bench::new(&[
        ("b.yml", service("b", 1)),
        ("a/z.yaml", service("az", 1)),
        ("a/y.json", "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"ay\"},\"spec\":{\"ports\":[{\"port\":1}]}}".to_owned()),
        ("readme.md", "not: yaml: at all".to_owned()),
        (".hidden/c.yaml", service("hidden", 1)),
        (".c.yaml", service("hidden", 1)),
    ]);

    let loaded = bench.directory().poll().unwrap();

    assert_eq!(services(&loaded), named(&[("ay", 1), ("az", 1), ("b", 1)]));
    assert_eq!(loaded.problems, []);
}

#[test]
fn the_oldest_document_comes_first_and_those_without_a_time_last() {
    let dated = |name: &str, time: &str| {
        service(name, 1).replace("name:", &format!("creationTimestamp: '{time}', name:"))
    };
    let bench = Bench::new(&[
        ("a.yaml", service("undated", 1)),
        ("b.yaml", dated("young", "2026-02-01T00:00:00Z")),
        ("c.yaml", dated("old", "2026-01-01T00:00:00+01:00")),
    ]);

    let loaded = bench.directory().poll().unwrap();

    assert_eq!(services(&loaded), named(&[("old", 1), ("young", 1), ("undated", 1)]));
}

#[test]
fn a_change_counts_once_two_looks_saw_it() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    bench.write("a.yaml", &service("a", 2));
    bench.write("b.yaml", &service("b", 1));

    assert!(directory.poll().is_none(), "seen once");
    bench.write("b.yaml", &service("b", 2));
    assert_eq!(services(&directory.poll().unwrap()), named(&[("a", 2)]));
    assert_eq!(services(&directory.poll().unwrap()), named(&[("a", 2), ("b", 2)]));
    assert!(directory.poll().is_none());
}

#[test]
fn a_change_that_is_taken_back_at_once_never_counts() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    bench.write("a.yaml", "half: [written");
    assert!(directory.poll().is_none());
    bench.write("a.yaml", &service("a", 1));

    assert!(settle(&mut directory).is_none());
}

#[test]
fn an_unchanged_file_keeps_its_documents() {
    let bench = Bench::new(&[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    let mut directory = bench.directory();
    let before = directory.poll().unwrap();

    bench.write("b.yaml", &service("b", 2));
    let after = settle(&mut directory).unwrap();

    assert!(Arc::ptr_eq(&before.resources.services[0], &after.resources.services[0]));
    assert!(!Arc::ptr_eq(&before.resources.services[1], &after.resources.services[1]));
}

#[test]
fn a_deleted_file_is_deleted_documents() {
    let bench = Bench::new(&[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    fs::remove_file(bench.path("a.yaml")).unwrap();

    assert_eq!(services(&settle(&mut directory).unwrap()), named(&[("b", 1)]));
    assert!(!bench.saved().join("Service/default/a").exists());
}

#[test]
fn a_vanished_directory_deletes_nothing_and_is_reported() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    let away = bench.data.path().join("away");
    fs::rename(bench.root.path(), &away).unwrap();
    let without = settle(&mut directory).unwrap();

    assert_eq!(services(&without), named(&[("a", 1)]));
    assert!(errors(&without)[0].contains("cannot be read"), "{without:?}");
    assert!(settle(&mut directory).is_none(), "reported once");

    fs::rename(&away, bench.root.path()).unwrap();
    let back = settle(&mut directory).unwrap();
    assert_eq!((services(&back), errors(&back)), (named(&[("a", 1)]), vec![]));
}

#[test]
fn what_has_no_room_at_a_first_start_may_hold_a_policy_and_refuses_everything() {
    let bench = Bench::new(&[("z.yaml", service("z", 1))]);
    // Somebody else's, which come first and take all the room.
    for number in 0..3 {
        let file = fs::File::create(bench.path(&format!("a{number}.pem"))).unwrap();
        file.set_len(16 << 20).unwrap();
    }

    let loaded = bench.directory().poll().unwrap();

    let told = errors(&loaded);
    assert!(told.len() == 1 && told[0].contains("z.yaml") && told[0].contains("is left out"), "{told:?}");
    let denials = loaded.resources.authorization_policies.iter().filter(|policy| policy.unusable);
    assert_eq!((denials.count(), services(&loaded)), (1, vec![]));
}

#[test]
fn of_two_documents_of_one_name_the_first_counts() {
    let bench = Bench::new(&[("a.yaml", service("a", 1)), ("b.yaml", service("a", 2))]);
    let mut directory = bench.directory();

    let loaded = directory.poll().unwrap();
    assert_eq!(services(&loaded), named(&[("a", 1)]));
    let told = errors(&loaded);
    assert!(told[0].contains("b.yaml:2") && told[0].contains("a.yaml:2 comes first"), "{told:?}");

    bench.write("a.yaml", &service("a", 0));
    assert_eq!(services(&settle(&mut directory).unwrap()), named(&[("a", 1)]), "a failure keeps its name");
    fs::remove_file(bench.path("a.yaml")).unwrap();
    assert_eq!(services(&settle(&mut directory).unwrap()), named(&[("a", 2)]));
}

#[test]
fn a_mounted_config_map_is_followed() {
    let bench = Bench::new(&[("..v1/a.yaml", service("a", 1)), ("..v2/a.yaml", service("a", 2))]);
    let link = |target: &str, name: &str| {
        let staged = bench.path(".staged");
        std::os::unix::fs::symlink(target, &staged).unwrap();
        fs::rename(&staged, bench.path(name)).unwrap();
    };
    link("..v1", "..data");
    link("..data/a.yaml", "a.yaml");
    link(".", "loop");
    let mut directory = bench.directory();
    assert_eq!(services(&directory.poll().unwrap()), named(&[("a", 1)]));

    link("..v2", "..data");

    let loaded = settle(&mut directory).unwrap();
    assert_eq!((services(&loaded), errors(&loaded)), (named(&[("a", 2)]), vec![]));
}

#[test]
fn loading_once_fails_only_without_the_directory() {
    let bench = Bench::new(&[("a.yaml", "}{".to_owned())]);

    let loaded = load(bench.root.path(), Options::default()).unwrap();
    assert_eq!(errors(&loaded).len(), 1);
    let missing = load(&bench.path("missing"), Options::default()).unwrap_err();
    assert!(missing.to_string().contains("create it or name another"), "{missing}");
}

#[tokio::test]
async fn a_watcher_is_told_of_every_change() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let options = Options { poll_interval: Duration::from_millis(5), ..Options::default() };
    let (sender, mut receiver) = watch::channel(Arc::new(Loaded::default()));
    let watching = tokio::spawn(Directory::new(bench.root.path(), options).watch(sender));
    let limit = Duration::from_secs(10);

    let arrives = |port: u16| move |loaded: &Arc<Loaded>| services(loaded) == named(&[("a", port)]);
    tokio::time::timeout(limit, receiver.wait_for(arrives(1))).await.unwrap().unwrap();
    bench.write("a.yaml", &service("a", 2));
    tokio::time::timeout(limit, receiver.wait_for(arrives(2))).await.unwrap().unwrap();

    drop(receiver);
    tokio::time::timeout(limit, watching).await.unwrap().unwrap();
}

#[test]
fn a_file_is_gone_only_where_its_directory_is_there() {
    let bench = Bench::new(&[("below/a.yaml", service("a", 1))]);
    let seen = |name: &str| files_at(BTreeSet::from([bench.path(name)]), &mut Known::default());
    fs::remove_file(bench.path("below/a.yaml")).unwrap();
    let gone = seen("below/a.yaml").unwrap();
    assert_eq!(gone.into_values().collect::<Vec<_>>(), [FileState::Gone]);

    fs::rename(bench.path("below"), bench.path("elsewhere")).unwrap();

    assert_eq!(seen("below/a.yaml"), Err(NotOnlyFiles));
}
