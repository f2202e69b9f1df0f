//! What is patched is what would be put together anew.

use std::fs;

use tokio::time::Instant;

use super::*;
use crate::sources::{
    directory::{LARGE, MAKES_WAY, Options, Patience},
    files::{Known, scan},
};

struct Bench {
    root: tempfile::TempDir,
    data: tempfile::TempDir,
    directory: Directory,
}

impl Bench {
    fn new(files: &[(&str, String)]) -> Self {
        let (root, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        let options = Options { last_good: Some(data.path().join("last-good")), ..Options::default() };
        let mut directory = Directory::new(root.path(), options);
        directory.poll().unwrap();
        Self { root, data, directory }
    }

    /// Writes a file (`None`: removes it), and looks until that counts. Gives whether what is in use was patched.
    fn change(&mut self, name: &str, text: Option<&str>) -> bool {
        let path = self.root.path().join(name);
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        // Seen once, and then it counts.
        assert!(self.directory.poll().is_none());
        let scan = scan(self.root.path(), &mut Known::default()).unwrap();
        let mut changes = Changes::default();
        self.directory.count(scan, Instant::now(), Patience::NONE, &mut changes);
        let is_patched = changes.any() && self.directory.patch(&changes);
        if !is_patched {
            self.directory.assemble();
        }
        self.is_what_it_would_be_anew();
        is_patched
    }

    /// Puts all together anew, which changes nothing in use, in what is told, or on disk.
    fn is_what_it_would_be_anew(&mut self) {
        let (patched, saved) = (Arc::clone(&self.directory.loaded), self.saved());
        self.directory.assemble();
        let anew = &self.directory.loaded;
        assert_eq!(patched.resources, anew.resources);
        assert_eq!(patched.problems, anew.problems);
        assert_eq!(patched.objects, anew.objects);
        assert_eq!(saved, self.saved());
        let kept = self.directory.last_good.all().map(|(name, _)| name.to_string());
        let in_files: Vec<String> = saved.into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept.map(|name| name.replace(' ', "/")).collect::<Vec<_>>(), in_files);
    }

    /// Name and text of every saved file.
    fn saved(&self) -> Vec<(String, String)> {
        let root = self.data.path().join("last-good");
        let mut files = Vec::new();
        let below = |path: &std::path::Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        for file in below(&root).iter().flat_map(|kind| below(kind)).flat_map(|namespace| below(&namespace)) {
            let name = file.strip_prefix(&root).unwrap().display().to_string();
            files.push((name, fs::read_to_string(&file).unwrap()));
        }
        files.sort();
        files
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn entry(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
         spec: {{address: 10.0.0.1{rest}}}\n"
    )
}

fn policy(name: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {{rules: [{rule}]}}\n"
    )
}

#[test]
fn what_stands_alone_is_patched_and_nothing_else_is() {
    let two = service("a", 1) + &entry("w", "");
    let others = [("0.yaml", service("first", 1)), ("z.yaml", service("last", 1) + &entry("x", ""))];
    for (after, is_patched) in [
        (service("a", 2) + &entry("w", ""), true),
        (format!("# a word\n{two}"), true),
        (service("a", 1) + &entry("w", "") + &entry("v", ""), true),
        (entry("w", "") + &service("a", 1), true),
        (service("b", 1), true),
        (service("a", 1) + &entry("w", ", wait: 5"), true),
        (service("a", 0) + &entry("w", ""), true),
        (service("a", 0) + &entry("w", ", wait: 5"), true),
        (service("c", 0) + &entry("w", ""), true),
        (entry("w", "") + &service("a", 0), false),
        (service("a", 2) + "---\nkind: Service\nmetadata: [\n" + &entry("w", ""), true),
        (service("a", 2) + "---\nkind: Service\nmetadata: [\n", false),
        (policy("p", "{from: 5}") + &two, true),
        (policy("p", "{from: [}") + &two, true),
        (service("a", 1) + &entry("x", ""), false),
        (service("a", 1) + &service("a", 1), false),
        (
            service("a", 1)
                + &entry("w", "").replace("name:", "creationTimestamp: '2026-01-01T00:00:00Z', name:"),
            false,
        ),
        ("# nothing\n".to_owned(), false),
        ("}{".to_owned(), false),
    ] {
        let mut bench = Bench::new(&others);
        assert!(!bench.change("m.yaml", Some(&two)), "a new file");
        assert_eq!(bench.change("m.yaml", Some(&after)), is_patched, "{after}");
        bench.change("m.yaml", Some(&two));
        assert!(bench.change("m.yaml", Some(&(service("a", 7) + &entry("w", "")))), "after {after}");
        assert!(!bench.change("m.yaml", None), "a file that is gone");
    }
}

#[test]
fn what_does_not_touch_a_broken_document_is_patched_and_what_may_is_not() {
    let mut bench = Bench::new(&[("a.yaml", service("a", 0)), ("b.yaml", service("b", 1))]);

    assert!(bench.change("b.yaml", Some(&service("b", 2))));
    assert!(!bench.change("b.yaml", Some(&(service("b", 2) + &service("a", 2)))), "it has its name");
    assert!(!bench.change("b.yaml", Some(&(service("b", 3) + &service("a", 3)))));
}

#[test]
fn what_cannot_be_saved_is_told_of_until_it_can_be() {
    let mut bench = Bench::new(&[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    let saved = bench.data.path().join("last-good/Service/default");
    fs::remove_dir_all(&saved).unwrap();
    fs::write(&saved, "in its way").unwrap();
    let change = |bench: &mut Bench, name: &str, port| {
        fs::write(bench.root.path().join(format!("{name}.yaml")), service(name, port)).unwrap();
        (0..3).find_map(|_| bench.directory.poll()).unwrap()
    };

    let told = change(&mut bench, "a", 2);
    assert_eq!(told.resources.services[0].spec.ports[0].port, 2);
    assert_eq!(told.problems.len(), 1);
    assert!(told.problems[0].message.contains("cannot be saved"), "{:?}", told.problems);
    assert_eq!(change(&mut bench, "b", 2).problems.len(), 1);

    fs::remove_file(&saved).unwrap();
    assert_eq!(change(&mut bench, "b", 3).problems, []);
    let text = |name: &str| fs::read_to_string(saved.join(name)).unwrap();
    assert!(text("a").contains("port: 2") && text("b").contains("port: 3"));
}

#[test]
fn a_document_that_breaks_again_and_again_is_patched_each_time() {
    let others = [("a.yaml", service("a", 1)), ("z.yaml", service("z", 1) + &policy("z", "{from: 5}"))];
    let mut bench = Bench::new(&others);
    let good = policy("p", "");
    let of_five = policy("p", "{to: 5}");
    let broken = ["kind: Service\nmetadata: [\n", "kind: AuthorizationPolicy\nspec: {\n", of_five.as_str()];
    for _ in 0..2 {
        assert!(!bench.change("m.yaml", Some(broken[0])), "a new file");
        for text in broken {
            bench.change("m.yaml", Some(&format!("# a word\n{text}")));
            assert!(bench.change("m.yaml", Some(&format!("{text}# a word\n"))), "{text}");
        }
        for text in [&good, &service("m", 0), &good, &of_five, &service("m", 1)] {
            assert!(bench.change("m.yaml", Some(text)), "{text}");
        }
        assert!(!bench.change("m.yaml", Some(broken[0])), "it may be what was there");
        bench.change("m.yaml", None);
    }
    assert!(bench.change("a.yaml", Some(&(service("a", 2) + &service("b", 1)))));
}

#[tokio::test(start_paused = true)]
async fn a_large_file_makes_way_once_for_a_small_one_that_comes_at_the_same_time() {
    let entry = |name: &str, weight: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\nspec: {{address: 10.0.0.1, weight: {weight}}}\n"
        )
    };
    let large =
        |weight: u16| (0..2_000).map(|number| entry(&format!("l{number}"), weight)).collect::<String>();
    assert!(large(1).len() >= LARGE);
    let mut bench =
        Bench::new(&[("a.yaml", large(1)), ("b.yaml", service("b", 1)), ("c.yaml", service("c", 1))]);
    let write =
        |bench: &Bench, name: &str, text: &str| fs::write(bench.root.path().join(name), text).unwrap();
    let ports = |loaded: &Loaded| -> Vec<u16> {
        let entries = loaded.resources.workload_entries.iter();
        let large = entries.filter(|entry| &*entry.name.name == "l0").map(|entry| entry.spec.weight);
        let services = loaded.resources.services.iter();
        let services = services.filter(|service| ["b", "c"].contains(&&*service.name.name));
        let services = services.map(|service| service.spec.ports[0].port);
        large.map(|weight| weight as u16).chain(services).collect()
    };

    write(&bench, "a.yaml", &large(2));
    write(&bench, "b.yaml", &service("b", 2));
    assert!(bench.directory.poll().is_none());
    assert_eq!(ports(&bench.directory.poll().unwrap()), [1, 2, 1], "it waits");
    assert_eq!(bench.directory.due(), Some(Instant::now() + MAKES_WAY));
    tokio::time::advance(MAKES_WAY / 2).await;
    write(&bench, "c.yaml", &service("c", 2));
    assert!(bench.directory.poll().is_none());
    tokio::time::advance(MAKES_WAY / 2).await;
    assert_eq!(ports(&bench.directory.poll().unwrap()), [2, 2, 2], "whatever else there is");

    // What may have moved from one to the other is one change.
    write(&bench, "a.yaml", &(large(3) + &service("x", 1)));
    write(&bench, "b.yaml", &(service("b", 3) + &service("e", 1)));
    assert!(bench.directory.poll().is_none());
    assert_eq!(ports(&bench.directory.poll().unwrap()), [3, 3, 2]);
    assert_eq!(bench.directory.due(), None);
}

#[test]
fn while_the_disk_is_full_changes_are_patched_all_the_same() {
    let mut bench = Bench::new(&[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    let full = bench.data.path().join("last-good/.writing");
    // Whatever is written to it has no room.
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();

    for port in 2..5 {
        for name in ["a", "b"] {
            assert!(bench.change(&format!("{name}.yaml"), Some(&service(name, port))), "{name} {port}");
            let [problem] = &bench.directory.loaded.problems[..] else { panic!("it is told once") };
            assert!(problem.message.contains("cannot be saved"), "{problem}");
        }
    }

    fs::remove_file(&full).unwrap();
    assert!(bench.change("a.yaml", Some(&service("a", 7))));
    assert_eq!(bench.directory.loaded.problems, []);
    let saved = bench.saved();
    assert!(saved[0].1.contains("port: 7") && saved[1].1.contains("port: 4"), "{saved:?}");
}

#[test]
fn very_many_are_put_together_anew() {
    let all = |count: u16, port: u16| (0..count).map(|n| service(&format!("a{n}"), port)).collect::<String>();
    let mut bench = Bench::new(&[("a.yaml", all(1_001, 1))]);

    assert!(!bench.change("a.yaml", Some(&all(1_001, 2))));
    let one = all(1_001, 2).replacen("port: 2", "port: 3", 1);
    assert!(bench.change("a.yaml", Some(&one)), "of many one");
    assert!(!bench.change("a.yaml", Some(&all(1_000, 2))));
    assert!(bench.change("a.yaml", Some(&all(1_000, 3))));
}

#[test]
fn a_file_that_was_away_for_a_moment_has_its_documents_again() {
    let mut bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let path = bench.root.path().join("a.yaml");
    fs::write(bench.root.path().join("b.yaml"), service("a", 2)).unwrap();
    assert!(bench.directory.poll().is_none());
    fs::remove_file(&path).unwrap();
    let moved = bench.directory.poll().unwrap();
    assert_eq!((moved.resources.services[0].spec.ports[0].port, moved.problems.len()), (2, 0));

    fs::write(&path, service("a", 1)).unwrap();

    let back = bench.directory.poll().unwrap();
    assert_eq!(back.resources.services[0].spec.ports[0].port, 1);
    assert!(back.problems[0].message.contains("is defined twice"), "{:?}", back.problems);
}

#[test]
fn random_changes_come_to_what_would_be_put_together_anew() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bench = Bench::new(&[("0.yaml", service("a", 1) + &service("b", 1) + &entry("c", ""))]);
    let mut patched = 0;
    for _ in 0..400 {
        let name = ["0.yaml", "1.yaml", "2.yaml"][random.usize(0..3)];
        let count = random.usize(0..4);
        let text: String = (0..count)
            .map(|_| {
                let name = ["a", "b", "c", "d", "e", "f"][random.usize(0..6)];
                match random.u8(0..12) {
                    0 => service(name, 0),
                    1 => entry(name, ", unknown: 1"),
                    2 => "---\nkind: Service\nmetadata: [\n".to_owned(),
                    3 => "---\napiVersion: a/v1\nkind: Unknown\nmetadata: {name: a}\n".to_owned(),
                    4..8 => service(name, random.u16(1..4)),
                    _ => entry(name, ""),
                }
            })
            .collect();
        let path = bench.root.path().join(name);
        match fs::read_to_string(&path) {
            Ok(before) if random.u8(0..3) > 0 => {
                let after = before.replace("port: 1", "port: 5").replace("port: 2", "port: 1");
                patched += usize::from(bench.change(name, Some(&after)));
            }
            Ok(_) if random.u8(0..8) == 0 => {
                bench.change(name, None);
            }
            _ => patched += usize::from(bench.change(name, Some(&text))),
        }
    }
    assert!(patched > 20, "{patched}");
}
