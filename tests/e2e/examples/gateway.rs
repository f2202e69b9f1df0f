//! `examples/gateway` as it stands, with a real gateway in front of real apps; and the commands of the guides that name a
//! directory of examples.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use http::StatusCode;
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, needs::Need, poll};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::SELVEDGE;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const HOST: &str = "shop.example.com";

/// The guides whose commands are run.
const GUIDES: [&str; 4] = [
    "examples/gateway/README.md",
    "control-plane/gateways.md",
    "control-plane/explain.md",
    "control-plane/README.md",
];

/// A copy of the directory `examples`, with the certificate of the gateway.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = Path::new(ROOT).join("examples");
    let status = Command::new("cp").arg("-R").arg(from).arg(copy.path()).status().unwrap();
    assert!(status.success());
    run(copy.path(), "examples/gateway/certificate");
    copy
}

/// Runs one line of a shell in `directory`, where `selvedge` is this build's.
fn run(directory: &Path, line: &str) -> Output {
    let own = Path::new(SELVEDGE).parent().unwrap().display().to_string();
    let path = format!("{own}:{}", env::var("PATH").unwrap_or_default());
    let output = Command::new("bash").args(["-c", line]).current_dir(directory).env("PATH", path).output();
    output.unwrap()
}

/// The commands in the blocks of shell of `guide`, one for each line.
fn commands(guide: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(guide)).unwrap().replace("\\\n", " ");
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn commands_of_guides_that_name_an_example_answer() {
    if !Need::Openssl.is_here() {
        return;
    }
    let copy = copy();
    let is_run = |line: &String| line.starts_with("selvedge ") && line.contains("--config-dir examples/");
    let mut count = 0;
    for guide in GUIDES {
        for line in commands(guide).into_iter().filter(is_run) {
            let output = run(copy.path(), &line);
            let answered = matches!(output.status.code(), Some(0 | 1)) && !output.stdout.is_empty();
            assert!(answered, "{guide}: {line}: {output:?}");
            count += 1;
        }
    }
    assert!(count >= 10, "{count} commands");
}

#[test]
fn what_the_example_says_of_its_requests_is_so() {
    if !Need::Openssl.is_here() {
        return;
    }
    let copy = copy();
    let lines = commands(GUIDES[0]);
    let asked = |place: usize| run(copy.path(), &lines[place]);
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();

    let (redirected, sent, refused) = (asked(2), asked(3), asked(4));

    let location = "301, Location: https://shop.example.com/api/items";
    assert!(said(&redirected).contains(location), "{redirected:?}");
    assert!(
        sent.status.success() && said(&sent).contains("now GET https://shop.example.com/items"),
        "{sent:?}"
    );
    assert!(said(&sent).contains("with the certificate of Secret default/shop-tls"), "{sent:?}");
    assert!(said(&refused).contains("403, selvedge-error: policy"), "{refused:?}");
    assert!(said(&refused).contains("AuthorizationPolicy default/admin-from-the-office"), "{refused:?}");
}

/// The example's documents at the addresses of `mesh`, whose apps they name.
fn at_addresses(mesh: &Mesh, directory: &Path) -> String {
    let mut text = String::new();
    for file in ["apps", "gateway", "policies", "routes", "secret"] {
        text += &fs::read_to_string(directory.join(format!("{file}.yaml"))).unwrap();
        text += "\n---\n";
    }
    // The workload of the gateway is the test's own.
    let (first, rest) = text.split_once("# The workload that is the gateway").unwrap();
    let rest = rest.split_once("---\n").unwrap().1;
    let mut text = format!("{first}{rest}");
    for (example, name) in [("10.0.0.21", "reviews-v1"), ("10.0.0.22", "reviews-v2")] {
        let workload = mesh.workload(name);
        text = text.replace(&format!("{example}:4143"), &workload.inbound.to_string());
        text = text.replace(example, &workload.app.ip().to_string());
    }
    text.replace("name: catalog-1", "name: reviews-v1").replace("name: pages-1", "name: reviews-v2")
}

#[tokio::test]
async fn the_example_of_a_gateway_does_what_it_says() {
    if !Need::Openssl.is_here() {
        return;
    }
    let copy = copy();
    let directory: PathBuf = copy.path().join("examples/gateway/config");
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2"), Spec::client("caller")])
        .await
        .unwrap();
    for name in ["reviews-v1", "reviews-v2"] {
        mesh.remove(&selvedge_demo::cluster::entry_file(name)).unwrap();
    }
    let documents =
        at_addresses(&mesh, &directory).replace("serviceAccount: catalog", "serviceAccount: reviews");
    mesh.write("example.yaml", &documents.replace("serviceAccount: pages", "serviceAccount: reviews"))
        .unwrap();
    let labels = "gateway.networking.k8s.io/gateway-name: edge";
    let gateway = Gateway::start_with_labels(&mesh, "default/edge", &[80, 443], labels).await;
    let pem = documents.split("tls.crt: |\n").nth(1).unwrap().split("tls.key").next().unwrap();
    let pem: String = pem.lines().map(|line| format!("{}\n", line.trim())).collect();
    let roots = [CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let asked = async |path: &str| gateway.call_tls(443, HOST, &roots, call::to(HOST, path)).await;
    let seen = |answer: Answer| answer.json::<reviews::Answer>().map_err(|error| error.to_string());

    poll(SOON, "each app is served", async || {
        let api = seen(asked("/api/items").await?)?;
        let pages = seen(asked("/items").await?)?;
        let found = [(&*api.version, &*api.path), (&*pages.version, &*pages.path)];
        if found == [("v1", "/items"), ("v2", "/items")] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let plain = gateway.call(80, call::to(HOST, "/a?b")).await.unwrap();
    assert_eq!(plain.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(plain.headers["location"], "https://shop.example.com/a?b");
    let admin = asked("/admin/users").await.unwrap();
    assert_eq!(admin.status, StatusCode::FORBIDDEN, "{}", admin.summary());
    // The apps let in the gateway alone.
    let other = mesh.workload("caller").call(call::to("pages:9080", "/")).await.unwrap();
    assert_eq!(other.status, StatusCode::FORBIDDEN, "{}", other.summary());
}
