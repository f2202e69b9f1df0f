//! What stays in force when a document fails.

use std::{fs, os::unix::fs::PermissionsExt};

use selvedge_model::MtlsMode;

use super::{super::Loaded, Bench, errors, named, service, services, settle};
use crate::problem::Severity;

#[test]
fn a_document_that_fails_keeps_its_last_good_version_and_its_neighbours_change() {
    let bench = Bench::new(&[("a.yaml", service("a", 1) + &service("b", 1) + &service("c", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    bench.write("a.yaml", &(service("a", 2) + &service("b", 0) + &service("c", 2)));
    let loaded = settle(&mut directory).unwrap();

    assert_eq!(services(&loaded), named(&[("a", 2), ("b", 1), ("c", 2)]));
    let told = errors(&loaded);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("a.yaml:10: Service default/b: spec.ports[0].port"), "{told:?}");
    assert!(told[0].ends_with("its last good version stays in use"), "{told:?}");
}

#[test]
fn a_malformed_document_keeps_the_one_that_it_was() {
    let bench = Bench::new(&[("a.yaml", service("a", 1) + &service("b", 1) + &service("c", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    // What is left says that it is b; c is gone on purpose.
    let broken = "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: b\nspec: [\n";
    bench.write("a.yaml", &(service("a", 2) + broken));
    assert_eq!(services(&settle(&mut directory).unwrap()), named(&[("a", 2), ("b", 1)]));

    // Nobody can tell what this is: all that the file held stays.
    bench.write("a.yaml", "}{");
    let loaded = settle(&mut directory).unwrap();
    assert_eq!(services(&loaded), named(&[("a", 2), ("b", 1)]));
    assert!(
        errors(&loaded)[0].ends_with("Service default/a, Service default/b stays in use as it was"),
        "{loaded:?}"
    );
}

#[test]
fn a_document_that_was_never_good_is_not_in_use() {
    let bench = Bench::new(&[("a.yaml", service("a", 0)), ("b.yaml", service("b", 1))]);

    let loaded = bench.directory().poll().unwrap();

    assert_eq!(services(&loaded), named(&[("b", 1)]));
    assert!(errors(&loaded)[0].ends_with("nothing of it is in use"), "{loaded:?}");
}

#[test]
fn last_good_versions_survive_a_restart() {
    let bench = Bench::new(&[("a.yaml", service("a", 1) + &service("b", 1)), ("c.yaml", service("c", 1))]);
    bench.directory().poll().unwrap();
    let saved = bench.saved().join("Service/default/b");
    assert_eq!(fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);

    bench.write("a.yaml", &(service("a", 2) + &service("b", 0)));
    fs::remove_file(bench.path("c.yaml")).unwrap();
    let restarted = bench.directory().poll().unwrap();

    assert_eq!(services(&restarted), named(&[("a", 2), ("b", 1)]));
}

/// A list of services with this port.
fn list(names: &[&str], port: u16) -> String {
    let item = |name: &&str| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata: {{name: {name}}}\n  spec: {{ports: [{{port: {port}}}]}}\n"
        )
    };
    format!("apiVersion: v1\nkind: List\nitems:\n{}", names.iter().map(item).collect::<String>())
}

/// The shared texts that are saved.
fn texts(bench: &Bench) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(bench.saved().join(".texts")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn the_text_of_a_list_is_saved_once_for_all_of_its_documents() {
    let bench = Bench::new(&[("a.yaml", list(&["a", "b", "c"], 1)), ("d.yaml", service("d", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    let [text] = &texts(&bench)[..] else { panic!("{:?}", texts(&bench)) };
    assert_eq!(fs::read_to_string(text).unwrap(), list(&["a", "b", "c"], 1));
    assert_eq!(fs::metadata(text).unwrap().permissions().mode() & 0o777, 0o600);
    let saved = |name: &str| fs::read_to_string(bench.saved().join("Service/default").join(name)).unwrap();
    assert!(["a", "b", "c"].iter().all(|name| !saved(name).contains("items")));
    assert!(saved("d").contains("name: d"));

    // After a restart beside a broken file it is read again.
    bench.write("a.yaml", "}{");
    assert_eq!(
        services(&bench.directory().poll().unwrap()),
        named(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)])
    );
    bench.write("a.yaml", &list(&["a", "b"], 2));
    settle(&mut directory).unwrap();
    let [text] = &texts(&bench)[..] else { panic!("{:?}", texts(&bench)) };
    assert_eq!(fs::read_to_string(text).unwrap(), list(&["a", "b"], 2), "nobody needs the other any more");
    bench.write("a.yaml", &service("a", 2));
    settle(&mut directory).unwrap();
    assert_eq!(texts(&bench), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn one_document_of_a_list_that_fails_keeps_the_text_in_which_it_was_good() {
    let bench = Bench::new(&[("a.yaml", list(&["a", "b", "c"], 1))]);
    bench.directory().poll().unwrap();

    bench.write("a.yaml", &list(&["a", "b", "c"], 2).replacen("port: 2", "port: 0", 1));
    assert_eq!(services(&bench.directory().poll().unwrap()), named(&[("a", 1), ("b", 2), ("c", 2)]));

    assert_eq!(texts(&bench).len(), 2);
    assert_eq!(services(&bench.directory().poll().unwrap()), named(&[("a", 1), ("b", 2), ("c", 2)]));
    // What nobody names is not kept for ever.
    fs::write(bench.saved().join(".texts/0123"), "x").unwrap();
    bench.directory().poll().unwrap();
    assert_eq!(texts(&bench).len(), 2);
}

#[test]
fn a_shared_text_that_is_damaged_is_reported_and_written_anew() {
    let bench = Bench::new(&[("a.yaml", list(&["a", "b"], 1))]);
    bench.directory().poll().unwrap();
    fs::write(&texts(&bench)[0], "apiVersion: v1\n").unwrap();

    let loaded = bench.directory().poll().unwrap();

    assert_eq!(services(&loaded), named(&[("a", 1), ("b", 1)]));
    assert!(loaded.problems.iter().all(|problem| problem.to_string().contains("is damaged")), "{loaded:?}");
    assert_eq!(loaded.problems.len(), 2);
    assert_eq!(bench.directory().poll().unwrap().problems, []);
}

#[test]
fn a_restart_without_its_directory_uses_what_was_saved() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    bench.directory().poll().unwrap();
    let away = bench.data.path().join("away");
    fs::rename(bench.root.path(), &away).unwrap();

    let mut directory = bench.directory();
    assert_eq!(services(&directory.poll().unwrap()), named(&[("a", 1)]));

    fs::rename(&away, bench.root.path()).unwrap();
    let back = settle(&mut directory).unwrap();
    assert_eq!((services(&back), errors(&back)), (named(&[("a", 1)]), vec![]));
}

#[test]
fn a_saved_file_that_is_damaged_is_reported_and_passed_over() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    bench.directory().poll().unwrap();
    fs::write(bench.saved().join("Service/default/a"), "{").unwrap();

    let loaded = bench.directory().poll().unwrap();

    assert_eq!(services(&loaded), named(&[("a", 1)]));
    assert_eq!(loaded.problems[0].severity, Severity::Warning);
    assert_eq!(bench.directory().poll().unwrap().problems, [], "it was written anew");
}

#[test]
fn a_file_that_is_no_text_keeps_what_it_was() {
    let bench = Bench::new(&[("a.yaml", service("a", 1))]);
    let mut directory = bench.directory();
    directory.poll().unwrap();

    fs::write(bench.path("a.yaml"), [0xff, 0xfe]).unwrap();
    let loaded = settle(&mut directory).unwrap();

    assert_eq!(services(&loaded), named(&[("a", 1)]));
    assert!(errors(&loaded)[0].ends_with("a.yaml: is not UTF-8 text"), "{loaded:?}");
}

/// Name, mode and reach of every policy.
fn policies(loaded: &Loaded) -> Vec<(String, Option<MtlsMode>, bool)> {
    let policies = loaded.resources.peer_authentications.iter();
    policies.map(|policy| (policy.name.to_string(), policy.spec.mode, policy.spec.any_workload)).collect()
}

fn policy(mode: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

#[test]
fn a_policy_that_fails_is_strict_only_as_long_as_it_has_no_good_version() {
    let bench = Bench::new(&[("a.yaml", policy("SOON"))]);
    let mut directory = bench.directory();

    let fresh = directory.poll().unwrap();
    assert_eq!(
        policies(&fresh),
        [("PeerAuthentication default/a".to_owned(), Some(MtlsMode::Strict), false)]
    );
    assert!(errors(&fresh)[0].contains("every workload of namespace default accepts mutual TLS only"));

    bench.write("a.yaml", &policy("PERMISSIVE"));
    let good = settle(&mut directory).unwrap();
    assert_eq!(policies(&good)[0].1, Some(MtlsMode::Permissive));
    assert_eq!(errors(&good), [""; 0]);

    bench.write("a.yaml", &policy("SOON"));
    let kept = settle(&mut directory).unwrap();
    assert_eq!(policies(&kept)[0].1, Some(MtlsMode::Permissive), "and it has one now");
    assert_eq!(policies(&bench.directory().poll().unwrap()), policies(&kept), "also after a restart");
}

#[test]
fn a_stand_in_is_never_a_last_good_version() {
    let bench = Bench::new(&[("a.yaml", policy("SOON"))]);
    bench.directory().poll().unwrap();
    bench.write("a.yaml", &policy("[SOON]").replace("spec: {", "spec: {selector: 5, "));

    let again = bench.directory().poll().unwrap();

    assert_eq!(policies(&again), [("PeerAuthentication default/a".to_owned(), Some(MtlsMode::Strict), true)]);
}

#[test]
fn what_was_never_read_may_hold_a_policy() {
    let bench = Bench::new(&[("service.yaml", service("a", 1))]);
    fs::write(bench.path("b.yaml"), [0xff, 0xfe]).unwrap();
    let mut directory = bench.directory();

    let loaded = directory.poll().unwrap();

    assert_eq!(
        policies(&loaded),
        [("PeerAuthentication of unknown name".to_owned(), Some(MtlsMode::Strict), true)]
    );
    assert!(errors(&loaded)[0].contains("every workload of the mesh"), "{:?}", errors(&loaded));

    // Of a file that was read before it is known what it holds.
    bench.write("b.yaml", &policy("PERMISSIVE"));
    settle(&mut directory).unwrap();
    fs::write(bench.path("b.yaml"), [0xff, 0xfe]).unwrap();
    assert_eq!(policies(&settle(&mut directory).unwrap())[0].1, Some(MtlsMode::Permissive));
}

#[test]
fn what_stands_where_a_file_was_to_be_is_never_passed_over_in_silence() {
    let link = |to: &str, name: &str| {
        let bench = Bench::new(&[("service.yaml", service("a", 1))]);
        std::os::unix::fs::symlink(to, bench.path(name)).unwrap();
        bench.directory().poll().unwrap()
    };
    for (to, name) in [
        ("nowhere", "b.yaml"),
        ("nowhere", "policies"),
        ("b.yaml", "b.yaml"),
        ("/dev/null", "b.yaml"),
        ("/dev/null", "b.JSON"),
    ] {
        let loaded = link(to, name);
        assert_eq!(errors(&loaded).len(), 1, "{name} to {to}");
        assert_eq!(policies(&loaded)[0].1, Some(MtlsMode::Strict), "{name} to {to}");
        // It may have been a policy of any kind.
        let denials = loaded.resources.authorization_policies.iter().filter(|policy| policy.unusable).count();
        assert_eq!((denials, loaded.resources.network_policies.len()), (1, 1), "{name} to {to}");
        assert!(errors(&loaded)[0].contains("accepts nothing and calls nobody"), "{}", errors(&loaded)[0]);
    }
    assert_eq!(errors(&link("nowhere", "readme.md")), [""; 0]);

    let bench = Bench::new(&[("a.yaml", "# nothing\n".to_owned()), ("b.YAML", policy("STRICT"))]);
    let loaded = bench.directory().poll().unwrap();
    assert_eq!(policies(&loaded)[0].1, Some(MtlsMode::Strict), "whatever the case of its name's end");
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.problems[0].to_string().contains("has no document"), "{}", loaded.problems[0]);
}

#[test]
fn a_malformed_text_keeps_the_document_that_it_was_by_its_own_name() {
    let good = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  labels:\n    name: b\n    namespace: shop\n  name: a\n  namespace: bank\nspec:\n  mtls:\n    mode: STRICT\n";
    let bench = Bench::new(&[("a.yaml", good.to_owned())]);
    let mut directory = bench.directory();
    let before = policies(&directory.poll().unwrap());

    bench.write("a.yaml", &good.replace("    mode", "\tmode"));

    let loaded = settle(&mut directory).unwrap();
    assert_eq!(errors(&loaded).len(), 1);
    assert_eq!(policies(&loaded), before);
}

#[test]
fn a_second_policy_of_a_name_is_read_as_strict_if_it_says_something_else() {
    let same = Bench::new(&[("a.yaml", policy("PERMISSIVE")), ("b.yaml", policy("PERMISSIVE"))]);
    let other = Bench::new(&[("a.yaml", policy("PERMISSIVE")), ("b.yaml", policy("STRICT"))]);
    let broken = Bench::new(&[("a.yaml", policy("PERMISSIVE")), ("b.yaml", policy("SOON"))]);
    let modes = |bench: &Bench| -> Vec<_> {
        let loaded = bench.directory().poll().unwrap();
        assert_eq!(errors(&loaded).len(), 1);
        policies(&loaded).into_iter().map(|(_, mode, _)| mode.unwrap()).collect()
    };

    assert_eq!(modes(&same), [MtlsMode::Permissive]);
    assert_eq!(modes(&other), [MtlsMode::Permissive, MtlsMode::Strict]);
    assert_eq!(modes(&broken), [MtlsMode::Permissive, MtlsMode::Strict]);
}

#[test]
fn a_second_policy_of_a_name_that_names_services_or_gateways_denies_everything_there() {
    let written = |target: &str, action: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\n\
             spec: {{targetRefs: [{{{target}}}], action: {action}, rules: [{{}}]}}\n"
        )
    };
    for (target, services, gateways) in [
        ("kind: Service, name: web", vec!["web".to_owned()], Vec::new()),
        ("group: gateway.networking.k8s.io, kind: Gateway, name: edge", Vec::new(), vec!["edge".to_owned()]),
    ] {
        let bench = Bench::new(&[("a.yaml", written(target, "ALLOW")), ("b.yaml", written(target, "DENY"))]);
        let loaded = bench.directory().poll().unwrap();

        let [_, second] = &loaded.resources.authorization_policies[..] else { panic!("{loaded:?}") };
        assert!(second.unusable);
        assert_eq!((&second.spec.services, &second.spec.gateways), (&Some(services), &gateways));
        let told = errors(&loaded).concat();
        assert!(told.contains("what it names in namespace default accepts nothing"), "{told}");
    }
}
