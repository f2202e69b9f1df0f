//! Each file of `examples/policies` shows its effect: all of them are in force in one mesh, and one request asks for each.

mod gateway;
mod tokens;

use std::{collections::BTreeSet, fs, path::Path};

use http::Method;
use selvedge_demo::{
    apps::{
        grpc::wire::{EchoRequest, echo_client::EchoClient},
        reviews,
    },
    call::{self, Answer, Call},
    cluster::entry_file,
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use tonic::transport::Channel;

use crate::SELVEDGE;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies");

/// The services that the examples speak of and do not bring along: each is both versions of `reviews`.
const SERVICES: [&str; 13] = [
    "api",
    "billing",
    "catalog",
    "details",
    "inventory",
    "my-app",
    "payments",
    "profile",
    "recommendations",
    "reviews",
    "search",
    "search-next",
    "storefront",
];

/// The services of which the examples say which workloads they are.
const SELECTED: [&str; 4] = ["checkout", "orders-stub", "shop", "stock"];

/// What the examples need and do not bring along.
const MORE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details}
spec:
  host: details
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
";

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80}}]}}\n---\n"
    )
}

/// Every file's name and text.
fn examples() -> Vec<(String, String)> {
    let files = fs::read_dir(DIRECTORY).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = files.map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect();
    files.sort();
    files
}

/// A mesh in which every example is in force, at addresses of its own where an example names some.
async fn mesh() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", &SERVICES.map(service).concat()).unwrap();
    mesh.write("more.yaml", MORE).unwrap();
    mesh.service("vault", 9080);
    mesh.service("voting", 8080);
    mesh.service("accounts", 9080);
    mesh.start_control_plane().await.unwrap();
    mesh.add([
        Spec::client("caller"),
        Spec::client("web"),
        Spec::client("leaderboard"),
        Spec::reviews("reviews-v1", "v1"),
        Spec::reviews("reviews-v2", "v2"),
        Spec::server("ratings-1", "ratings", 9080),
        Spec::server("ratings-2", "ratings", 9080),
        Spec::server("outside-1", "outside", 9080).without_sidecar(),
        Spec::server("outside-2", "outside", 9080).without_sidecar(),
        Spec::grpc("echo-1"),
        Spec::server("vault-1", "vault", 9080),
        Spec::server("voting-1", "voting", 8080),
        Spec::server("accounts-1", "accounts", 9080),
    ])
    .await
    .unwrap();
    for (name, text) in examples() {
        mesh.write(&name, &at_addresses(&mesh, text)).unwrap();
    }
    // Their example says where they are.
    for name in ["ratings-1", "ratings-2", "outside-1", "outside-2"] {
        mesh.remove(&entry_file(name)).unwrap();
    }
    mesh
}

fn at_addresses(mesh: &Mesh, mut text: String) -> String {
    for (example, name) in [("10.0.0.11", "ratings-1"), ("10.0.0.12", "ratings-2")] {
        let (app, inbound) = (mesh.workload(name).app, mesh.workload(name).inbound);
        text = text.replace(&format!("{example}:4143"), &inbound.to_string());
        text = text.replace(example, &app.ip().to_string());
    }
    for (example, name) in [("192.0.2.10", "outside-1"), ("192.0.2.11", "outside-2")] {
        text = text.replace(example, &mesh.workload(name).app.ip().to_string());
    }
    for name in SELECTED {
        text = text.replace(&format!("app: {name}\n"), "app: reviews\n");
    }
    // The one port that an app has here.
    text = text.replace("    9090:\n", "    9080:\n");
    text = tokens::with_own_keys(&text);
    // All workloads of these tests call their port http.
    text = text.replace("- name: grpc\n", "- name: http\n");
    text.replace("http: 8080", "http: 9080")
        .replace("Port: 8080", "Port: 9080")
        .replace("http: 8081", "http: 9080")
}

async fn answer(mesh: &Mesh, call: Call) -> Result<Answer, String> {
    mesh.workload("caller").call(call).await.map_err(|error| error.to_string())
}

/// What the app saw, and the answer.
async fn seen(mesh: &Mesh, call: Call) -> Result<(reviews::Answer, Answer), String> {
    let answer = answer(mesh, call).await?;
    match answer.json() {
        Ok(seen) => Ok((seen, answer)),
        Err(error) => Err(format!("{}: {error}", answer.summary())),
    }
}

async fn version(mesh: &Mesh, call: Call) -> Result<String, String> {
    Ok(seen(mesh, call).await?.0.version)
}

/// `Ok` if `so`.
fn that(so: bool, found: impl std::fmt::Debug) -> Result<(), String> {
    if so { Ok(()) } else { Err(format!("{found:?}")) }
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// How many of 100 requests v2 answers.
async fn of_100(mesh: &Mesh, host: &str) -> Result<usize, String> {
    let mut second = 0;
    for _ in 0..100 {
        second += usize::from(version(mesh, call::to(host, "/")).await? == "v2");
    }
    Ok(second)
}

/// Whether `file` shows its effect.
async fn shows(mesh: &Mesh, file: &str) -> Result<(), String> {
    match file {
        "allow-by-service-account.yaml" => {
            let web = async |path| mesh.workload("web").call(call::to("vault:9080", path)).await;
            let [let_in, admin] =
                [web("/").await, web("/admin").await].map(|found| found.map_err(|error| error.to_string()));
            let other = answer(mesh, call::to("vault:9080", "/")).await?;
            let why = [admin?, other].map(|found| found.proxy_error().unwrap_or_default().to_owned());
            let rules = ["vault-deny-admin rule 1", "vault-allow-web"];
            let are_named = why.iter().zip(rules).all(|(why, rule)| why.contains(rule));
            that(let_in?.status == 200 && are_named, why)
        }
        "calico-deny-metadata.yaml" => {
            let why = answer(mesh, call::to("169.254.169.254", "/")).await?;
            let why = why.proxy_error().unwrap_or_default().to_owned();
            that(why.contains("deny-egress-to-metadata-server"), why)
        }
        "linkerd-server.yaml" => {
            let asked = async |who: &str, path| mesh.workload(who).call(call::to("voting:8080", path)).await;
            let mut statuses = Vec::new();
            for (who, path) in [
                ("web", "/votes/1"),
                ("web", "/votes/results"),
                ("leaderboard", "/votes/results"),
                ("web", "/x"),
            ] {
                statuses.push(asked(who, path).await.map_err(|error| error.to_string())?.status.as_u16());
            }
            that(statuses == [200, 403, 200, 404], statuses)
        }
        "canary-90-10.yaml" => {
            of_100(mesh, "my-app").await.and_then(|found| that((1..40).contains(&found), found))
        }
        "canary-by-http-route.yaml" => {
            let tester = version(mesh, call::to("checkout", "/").header("x-tester", "yes")).await?;
            that(tester == "v2", tester)?;
            of_100(mesh, "checkout").await.and_then(|found| that((1..40).contains(&found), found))
        }
        "canary-with-header.yaml" => {
            let found = version(mesh, call::to("reviews", "/").header("end-user", "jason")).await?;
            that(found == "v2", found)
        }
        "circuit-breaking.yaml" => shows_circuit_breaking(mesh).await,
        "consumer-route.yaml" => {
            let (app, _) = seen(mesh, call::to("orders.backend", "/")).await?;
            that(app.pod.starts_with("reviews-"), app)
        }
        "cors.yaml" => {
            let asks = call::to("api", "/").method(Method::OPTIONS).header("origin", "https://shop.example");
            let found = answer(mesh, asks.header("access-control-request-method", "PUT")).await?;
            let allowed = header(&found, "access-control-allow-origin");
            that(found.status == 200 && allowed == "https://shop.example", found.headers)
        }
        "delegate.yaml" => {
            let (_, found) = seen(mesh, call::to("storefront", "/cart/items")).await?;
            that(header(&found, "x-team") == "cart", found.headers)
        }
        "direct-response.yaml" => {
            let found = answer(mesh, call::to("billing", "/")).await?;
            let said = (found.status.as_u16(), header(&found, "retry-after"), found.text());
            that(said == (503, "3600", "billing is being repaired, come back at noon".to_owned()), said)
        }
        "fault-injection.yaml" => {
            let served = version(mesh, call::to("recommendations", "/")).await?;
            let found = answer(mesh, call::to("recommendations", "/").header("x-fault", "abort")).await?;
            that(!served.is_empty() && found.status == 503, found.summary())
        }
        "grpc-route.yaml" => shows_grpc_route(mesh).await,
        "headers.yaml" => {
            let (app, found) = seen(mesh, call::to("profile", "/").header("x-debug", "1")).await?;
            let rule = app.headers.get("x-rule").map(String::as_str);
            let gone = !app.headers.contains_key("x-debug");
            that(rule == Some("profile") && gone && header(&found, "x-served-by") == "mesh", app)
        }
        "least-request-and-ejection.yaml" => shows_ejection(mesh, "reviews", 5).await,
        "mirror.yaml" => {
            seen(mesh, call::to("search", "/")).await?;
            let copies = "selvedge_outbound_mirrored_requests_total";
            let metrics =
                mesh.workload("caller").admin("/metrics").await.map_err(|error| error.to_string())?;
            let counted =
                metrics.text().lines().any(|line| line.starts_with(copies) && line.contains("search-next"));
            that(counted, "no copy is counted")
        }
        "outlier-ejection.yaml" => shows_ejection(mesh, "payments", 4).await,
        "path-method-and-query.yaml" => {
            let found = version(mesh, call::to("details", "/details/12")).await?;
            let none = answer(mesh, call::to("details", "/details/twelve")).await?;
            that(found == "v1" && none.status == 404, none.summary())
        }
        "redirect.yaml" => {
            let found = answer(mesh, call::to("shop", "/old/cart")).await?;
            let said = (found.status.as_u16(), header(&found, "location").to_owned());
            that(said.0 == 308 && said.1.ends_with("//shop/new/cart"), said)
        }
        "require-token.yaml" => tokens::show(mesh).await,
        "retries-by-annotation.yaml" => {
            let found = answer(mesh, call::to("stock", "/?delay=5s")).await?;
            that(found.status == 504 && found.proxy_error().is_some(), found.summary())
        }
        "retries-and-timeout.yaml" => {
            let found = answer(mesh, call::to("ratings", "/?delay=5s")).await?;
            that(found.status == 504, found.summary())
        }
        "rewrite.yaml" => {
            let (app, _) = seen(mesh, call::to("catalog", "/api/v1/items/7")).await?;
            that(app.path == "/items/7", app.path)
        }
        "service-of-two-hosts.yaml" => {
            let (app, _) = seen(mesh, call::to("ratings", "/")).await?;
            that(app.pod.starts_with("ratings-") && app.client_identity.is_some(), app)
        }
        "service-outside-the-mesh.yaml" => {
            let (app, _) = seen(mesh, call::to("catalogue.example.com", "/")).await?;
            that(app.pod.starts_with("outside-") && app.client_identity.is_none(), app)
        }
        "strict-except-one-port.yaml" => {
            let why = plain(mesh, "reviews-v1").await?;
            that(why.is_empty(), why)
        }
        "strict-mtls.yaml" => {
            plain(mesh, "ratings-1").await.and_then(|why| that(why.starts_with("policy"), why))
        }
        _ => Err("there is no test of it here".to_owned()),
    }
}

/// What a sidecar says to somebody who calls its app without TLS; nothing if the app answers.
async fn plain(mesh: &Mesh, workload: &str) -> Result<String, String> {
    let to = call::to(&format!("{workload}:9080"), "/");
    let found = call::send(mesh.workload(workload).inbound, to).await.map_err(|error| error.to_string())?;
    Ok(found.proxy_error().unwrap_or_default().to_owned())
}

async fn shows_circuit_breaking(mesh: &Mesh) -> Result<(), String> {
    let slow = || answer(mesh, call::to("inventory", "/?delay=1s"));
    let (one, other) = tokio::join!(slow(), slow());
    let said = [one?, other?].map(|answer| answer.proxy_error().unwrap_or_default().to_owned());
    let refused = said.iter().filter(|why| why.starts_with("overflow")).count();
    let served = said.iter().filter(|why| why.is_empty()).count();
    that((refused, served) == (1, 1), said)
}

/// After this many failures, an endpoint of `host` is out.
async fn shows_ejection(mesh: &Mesh, host: &str, failures: usize) -> Result<(), String> {
    for _ in 0..failures {
        answer(mesh, call::to(host, "/?status=500").header("end-user", "jason")).await?;
    }
    let found = mesh.workload("caller").admin("/endpoints").await.map_err(|error| error.to_string())?;
    let all: serde_json::Value = found.json().map_err(|error| error.to_string())?;
    let of_host = all
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one.to_string().contains(&format!("\"{host}.default")));
    that(of_host.clone().any(|one| one.to_string().contains("\"ejected\":true")), all.to_string())
}

async fn shows_grpc_route(mesh: &Mesh) -> Result<(), String> {
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await;
    let mut client = EchoClient::new(channel.map_err(|error| error.to_string())?);
    let asked = || EchoRequest { text: "hello".to_owned(), ..EchoRequest::default() };
    let unary = client.unary(asked()).await.map_err(|status| status.to_string())?;
    let marked = unary.metadata().get("x-route").is_some_and(|value| value == "unary");
    let other = client.server_stream(asked()).await.map(|_| ()).map_err(|status| status.code());
    that(marked && other == Err(tonic::Code::Unimplemented), other)
}

#[tokio::test]
async fn every_example_shows_its_effect() {
    let mesh = mesh().await;
    for (name, _) in examples() {
        poll(SOON, &format!("{name} shows its effect"), async || shows(&mesh, &name).await).await;
    }
}

#[test]
fn the_table_of_examples_names_every_file_and_no_other() {
    let guide = fs::read_to_string(format!("{DIRECTORY}/README.md")).unwrap();
    let cells = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let named: BTreeSet<String> = cells.map(str::to_owned).collect();

    assert_eq!(named, examples().into_iter().map(|(name, _)| name).collect());
}
