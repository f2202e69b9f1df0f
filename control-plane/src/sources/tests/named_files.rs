//! Files with certificates and keys that documents name.

use std::os::unix::fs::symlink;

use super::*;
use crate::resources::secret::{Broken, KnownCertificate};

fn secret(files: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: shop\n  annotations:\n    config.selvedge.io/files: {files}\n"
    )
}

/// A certificate for `name`, and its key.
fn pair(name: &str) -> (String, String) {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

/// The names of the certificate in use, and what is wrong with its newest version.
fn certificate(loaded: &Loaded) -> (Vec<String>, Option<String>) {
    let names = |known: &KnownCertificate| known.facts.names.clone();
    match loaded.resources.secrets[0].spec.certificate.as_ref() {
        None => (Vec::new(), None),
        Some(Ok(known)) => (names(known), None),
        Some(Err(Broken { why, last_good })) => {
            let names = last_good.as_ref().map(names).unwrap_or_default();
            (names, Some(format!("{}: {}", why.field, why.why)))
        }
    }
}

fn of(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_secret_has_what_its_files_hold_and_follows_them() {
    let (one, two) = (pair("one.test"), pair("two.test"));
    let bench = Bench::new(&[
        ("edge/shop.yaml", secret("tls.crt=../tls/shop.crt,tls.key=shop.key")),
        ("tls/shop.crt", one.0),
        ("edge/shop.key", one.1),
    ]);
    let mut directory = bench.directory();
    let loaded = settle(&mut directory).unwrap();
    assert_eq!((certificate(&loaded), errors(&loaded)), ((of(&["one.test"]), None), Vec::new()));

    bench.write("tls/shop.crt", &two.0);
    let (names, why) = certificate(&settle(&mut directory).unwrap());
    assert_eq!(names, ["one.test"], "the last good pair stays");
    assert!(why.unwrap().starts_with("metadata.annotations[config.selvedge.io/files].tls."));

    bench.write("edge/shop.key", &two.1);
    assert_eq!(certificate(&settle(&mut directory).unwrap()), (of(&["two.test"]), None));
    fs::remove_file(bench.path("edge/shop.key")).unwrap();
    let (names, why) = certificate(&settle(&mut directory).unwrap());
    assert_eq!(names, ["two.test"]);
    assert!(why.unwrap().ends_with(
        "the file shop.key is not there; correct its path, which begins at the document's directory"
    ));
}

#[test]
fn a_path_that_leads_out_of_the_directory_is_not_followed() {
    let one = pair("one.test");
    let outside = Bench::new(&[("shop.crt", one.0.clone()), ("shop.key", one.1.clone())]);
    let bench = Bench::new(&[("edge/shop.crt", one.0), ("shop.txt", one.1)]);
    symlink(outside.path("shop.key"), bench.path("edge/link.key")).unwrap();
    let outside_name = outside.root.path().file_name().unwrap().to_str().unwrap();
    for (key, says) in [
        (outside.path("shop.key").to_str().unwrap(), "is not below the configuration directory"),
        (&format!("../../{outside_name}/shop.key"), "is not below the configuration directory"),
        ("link.key", "leads out of the configuration directory"),
        ("../shop.txt", "they end in .pem, .crt, .cer or .key"),
        ("../other.key", "is not there"),
    ] {
        bench.write("edge/shop.yaml", &secret(&format!("tls.crt=shop.crt,tls.key={key}")));
        let loaded = load(bench.root.path(), Options::default()).unwrap();
        let (names, why) = certificate(&loaded);
        let why = why.unwrap();
        assert!(names.is_empty() && why.contains(says), "{key}: {why}");
    }
}

#[test]
fn what_the_annotation_cannot_mean_is_reported_at_its_line() {
    let one = pair("one.test");
    let bench = Bench::new(&[("shop.crt", one.0), ("shop.key", one.1)]);
    for (text, says) in [
        (
            secret("shop.crt"),
            "\"shop.crt\" names no file of tls.crt, tls.key, ca.crt; write for example tls.crt=shop.crt",
        ),
        (secret("tls.crt="), "names no file"),
        (secret("ca.crt=shop.crt,ca.crt=shop.crt"), "ca.crt has two files; remove one"),
        (secret("tls.crt=shop.crt") + "stringData: {tls.crt: a}\n", "tls.crt is there already"),
    ] {
        bench.write("shop.yaml", &text);
        let errors = errors(&load(bench.root.path(), Options::default()).unwrap());
        assert!(
            errors.len() == 1 && errors[0].contains(says) && errors[0].contains("shop.yaml:6"),
            "{errors:?}"
        );
    }
}

#[test]
fn files_that_nobody_names_are_nobodys_business() {
    let bench = Bench::new(&[("a.yaml", service("a", 1)), ("ca.key", "no key at all".to_owned())]);
    symlink("nowhere", bench.path("gone.pem")).unwrap();

    let loaded = load(bench.root.path(), Options::default()).unwrap();

    assert_eq!((services(&loaded), loaded.problems.len()), (named(&[("a", 1)]), 0));
}

#[test]
fn what_files_hold_is_read_again_only_where_they_or_their_document_have_changed() {
    let (one, two) = (pair("one.test"), pair("two.test"));
    let bench = Bench::new(&[
        ("shop.yaml", secret("tls.crt=shop.crt,tls.key=shop.key")),
        ("shop.crt", one.0),
        ("shop.key", one.1),
        ("other.yaml", service("a", 1)),
    ]);
    let mut directory = bench.directory();
    let held = |loaded: &Loaded| Arc::clone(&loaded.resources.secrets[0]);
    let first = held(&settle(&mut directory).unwrap());

    bench.write("other.yaml", &service("a", 2));
    let loaded = settle(&mut directory).unwrap();
    assert_eq!(services(&loaded), named(&[("a", 2)]));
    assert!(Arc::ptr_eq(&first, &held(&loaded)), "nothing of it has changed");

    bench.write("shop.crt", &two.0);
    bench.write("shop.key", &two.1);
    assert_eq!(certificate(&settle(&mut directory).unwrap()), (of(&["two.test"]), None));
    bench.write("shop.yaml", &secret("tls.crt=shop.crt"));
    assert!(certificate(&settle(&mut directory).unwrap()).1.is_some_and(|why| why.contains("stands alone")));
}
