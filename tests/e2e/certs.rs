//! `selvedge certs` as a person uses it: the real binary, openssl and curl.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use selvedge_tests::needs::Need;

const SELVEDGE: &str = env!("CARGO_BIN_EXE_selvedge");
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A directory with a CA in `ca` and a server's certificate in `web`.
fn issued() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    succeed(at, SELVEDGE, &["certs", "ca", "--out", "ca"]);
    let issue =
        ["certs", "issue", "--ca", "ca", "--identity", WEB, "--dns", "localhost", "--ip", "127.0.0.1"];
    succeed(at, SELVEDGE, &[&issue[..], &["--ttl", "2h", "--out", "web"]].concat());
    directory
}

fn run(directory: &Path, program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).current_dir(directory).output();
    output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

fn succeed(directory: &Path, program: &str, args: &[&str]) -> String {
    let output = run(directory, program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a command that must fail with status 1 says on stderr; it must say nothing on stdout.
fn fail(directory: &Path, args: &[&str]) -> String {
    let output = run(directory, SELVEDGE, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    String::from_utf8(output.stderr).expect("text")
}

fn names(directory: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory was written");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn openssl_verifies_what_selvedge_issues() {
    if !Need::Openssl.is_here() {
        return;
    }
    let directory = issued();
    let at = directory.path();

    for purpose in ["sslserver", "sslclient"] {
        let verify = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca/ca.pem"];
        let said =
            succeed(at, "openssl", &[&verify[..], &["-untrusted", "web/cert.pem", "web/cert.pem"]].concat());
        assert_eq!(said, "web/cert.pem: OK\n");
    }
    for (flag, name) in [("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1")] {
        let verify =
            ["verify", "-CAfile", "ca/ca.pem", "-untrusted", "web/cert.pem", flag, name, "web/cert.pem"];
        succeed(at, "openssl", &verify);
    }
    succeed(at, "openssl", &["x509", "-in", "web/cert.pem", "-noout", "-checkend", "7100"]);
    let expires = run(at, "openssl", &["x509", "-in", "web/cert.pem", "-noout", "-checkend", "7300"]);
    assert!(!expires.status.success(), "--ttl 2h means two hours");
    let text = succeed(at, "openssl", &["x509", "-in", "web/cert.pem", "-noout", "-text"]);
    for expected in
        [WEB, "DNS:localhost", "IP Address:127.0.0.1", "prime256v1", "CA:FALSE", "Digital Signature"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn the_key_belongs_to_the_certificate_and_to_its_owner_only() {
    if !Need::Openssl.is_here() {
        return;
    }
    let directory = issued();
    let at = directory.path();

    let of_key = succeed(at, "openssl", &["pkey", "-in", "web/key.pem", "-pubout"]);
    let of_certificate = succeed(at, "openssl", &["x509", "-in", "web/cert.pem", "-noout", "-pubkey"]);

    assert_eq!(of_key, of_certificate);
    for key in ["web/key.pem", "ca/ca-key.pem", "ca/issuer-key.pem"] {
        let mode = std::fs::metadata(at.join(key)).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(names(at.join("web")), ["cert.pem", "key.pem"]);
}

#[test]
fn inspect_and_verify_tell_who_and_how_long() {
    if !Need::Openssl.is_here() {
        return;
    }
    let directory = issued();
    let at = directory.path();

    let inspected = succeed(at, SELVEDGE, &["certs", "inspect", "web/cert.pem"]);
    let verified = succeed(at, SELVEDGE, &["certs", "verify", "--ca", "ca/ca.pem", "web/cert.pem"]);

    let fingerprint =
        succeed(at, "openssl", &["x509", "-in", "web/cert.pem", "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.rsplit('=').next().expect("a value").trim().replace(':', "").to_lowercase();
    for expected in
        [&fingerprint, WEB, "localhost", "127.0.0.1", "(1h 59m left)", "ECDSA P-256", "certificate 2 of 2"]
    {
        assert!(inspected.contains(expected), "{expected} in {inspected}");
    }
    assert!(verified.starts_with(&format!("ok: {WEB}, valid until ")), "{verified}");
}

#[test]
fn every_refusal_names_the_file_and_the_remedy() {
    if !Need::Openssl.is_here() {
        return;
    }
    let directory = issued();
    let at = directory.path();
    succeed(at, SELVEDGE, &["certs", "ca", "--out", "other"]);
    std::fs::write(at.join("garbage.pem"), "hello").expect("a file");
    let lone = succeed(at, "openssl", &["x509", "-in", "web/cert.pem"]);
    std::fs::write(at.join("lone.pem"), lone).expect("a file");
    let before = std::fs::read(at.join("ca/ca-key.pem")).expect("the key");

    let issue = |ca: &'static str, identity: &'static str| {
        ["certs", "issue", "--ca", ca, "--identity", identity, "--out", "x"]
    };
    for (args, expected) in [
        (&["certs", "ca", "--out", "ca"][..], "ca/ca-key.pem exists already and is never overwritten"),
        (&["certs", "verify", "--ca", "other/ca.pem", "web/cert.pem"], "web/cert.pem against other/ca.pem"),
        (
            &["certs", "verify", "--ca", "ca/ca.pem", "ca/issuer.pem"],
            "ca/issuer.pem: the first certificate is a CA's",
        ),
        (&["certs", "verify", "--ca", "none.pem", "web/cert.pem"], "cannot read none.pem: No such file"),
        (
            &["certs", "verify", "--ca", "ca/ca.pem", "lone.pem"],
            "the issuer's may be missing: give the whole chain",
        ),
        (&["certs", "inspect", "garbage.pem"], "garbage.pem has no PEM certificate: expected"),
        (&["certs", "inspect", "web/key.pem"], "web/key.pem has no PEM certificate: expected"),
        (&issue("none", WEB), "no usable CA in none; make one with selvedge certs ca --out DIR"),
        (&issue("ca", "spiffe://elsewhere/ns/shop/sa/web"), "not in trust domain cluster.local"),
    ] {
        let said = fail(at, args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read(at.join("ca/ca-key.pem")).expect("the key"), before);
    assert!(!at.join("x").exists());
}

#[test]
fn an_exposed_ca_key_is_not_used() {
    let directory = issued();
    let at = directory.path();
    let key = at.join("ca/issuer-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("ours to change");

    let said = fail(at, &["certs", "issue", "--ca", "ca", "--identity", WEB, "--out", "x"]);

    assert!(said.contains("issuer-key.pem can be read by others (mode 0644)"), "{said}");
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn a_certificate_of_openssls_own_ca_is_judged_by_the_same_rules() {
    if !Need::Openssl.is_here() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let root = ["req", "-x509", "-subj", "/CN=theirs", "-keyout", "ca.key", "-out", "ca.pem"];
    succeed(at, "openssl", &[&root[..], &new_key].concat());
    let leaf = |uri: &str, usage: &[&str], out: &str| {
        let names = format!("subjectAltName={uri}");
        let signed =
            ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "leaf.key", "-out", out, "-addext", &names];
        let leaf = ["req", "-x509", "-subj", "/CN=web", "-addext", "basicConstraints=critical,CA:FALSE"];
        succeed(at, "openssl", &[&leaf[..], &new_key, &signed, usage].concat());
    };
    let for_tls = ["-addext", "extendedKeyUsage=serverAuth,clientAuth"];
    leaf(&format!("URI:{WEB}"), &for_tls, "one.pem");
    leaf(&format!("URI:{WEB},URI:spiffe://cluster.local/ns/shop/sa/admin"), &for_tls, "two.pem");
    leaf("DNS:localhost", &for_tls, "none.pem");
    leaf(&format!("URI:{WEB}"), &[], "unused.pem");

    let one = succeed(at, SELVEDGE, &["certs", "verify", "--ca", "ca.pem", "one.pem"]);
    let two = fail(at, &["certs", "verify", "--ca", "ca.pem", "two.pem"]);
    let none = fail(at, &["certs", "verify", "--ca", "ca.pem", "none.pem"]);
    let unused = fail(at, &["certs", "verify", "--ca", "ca.pem", "unused.pem"]);

    assert!(one.starts_with(&format!("ok: {WEB}")), "{one}");
    assert!(two.contains("two.pem") && two.contains("it has 2 URI names"), "{two}");
    assert!(none.contains("none.pem") && none.contains("it has no URI name"), "{none}");
    assert!(unused.contains("unused.pem") && unused.contains("extended key usage"), "{unused}");
}

#[test]
fn the_mtls_example_holds() {
    if ![Need::Openssl, Need::Curl].into_iter().all(Need::is_here) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mtls/run");

    let output = Command::new("bash")
        .arg(&script)
        .env("SELVEDGE", SELVEDGE)
        .output()
        .unwrap_or_else(|error| panic!("cannot run bash {}: {error}", script.display()));

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("\nall as expected\n"), "{said}");
}
