//! The matrix against what redirected connections come to: random policies of all kinds, and every pair of workloads
//! tried at every port, with HTTP and with opaque bytes.

pub(crate) mod tried;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use selvedge_tests::{
    SOON,
    policies::drawn::{Draw, Party},
    poll,
};
use serde_json::Value;

use self::tried::{Done, Kind, Tried, serve, tried};
use crate::{
    mesh::{APP_PORT, Mesh, Mode, OTHER_PORT, Spec, client},
    network,
    rights::netns,
};

/// How long new policies are drawn; a run draws [`LEAST`] times at least.
const TIME: Duration = Duration::from_secs(20);
const LEAST: usize = 4;

/// Names the seed of what is drawn, so that a failure can be had again.
const SEED_VARIABLE: &str = "SELVEDGE_TEST_MATRIX_SEED";

/// A port that sidecars take for opaque.
const OPAQUE_PORT: u16 = 5432;

/// All ports, with what a Service calls them. Of the second nobody says what is spoken there.
const PORTS: [(u16, &str); 3] = [(APP_PORT, "http"), (OTHER_PORT, "other"), (OPAQUE_PORT, "tcp")];

/// How many cells of a round `selvedge explain connection` is asked about that only a request decides, and how many others.
const EXPLAINED: (usize, usize) = (8, 4);

/// Three accounts for six workloads. One that has no sidecar shares its account with two that have one.
fn workloads() -> Vec<Spec> {
    let of = |name: &str, account: &str| Spec { app: account.to_owned(), ..client(name) };
    vec![
        of("one", "single"),
        of("two", "shared"),
        of("three", "shared"),
        of("four", "other"),
        of("five", "shared").mode(Mode::NoSidecar),
        of("six", "bare").mode(Mode::NoSidecar),
    ]
}

async fn mesh() -> Mesh {
    let mut mesh = Mesh::on(network::Kind::Bridge).await;
    mesh.write("peerauthentication.yaml", "# everybody may come in\n");
    mesh.add(workloads()).await;
    for Spec { name, .. } in workloads() {
        mesh.write(&format!("service-{name}.yaml"), &service(&name));
        mesh.edit(&format!("workload-{name}.yaml"), |text| {
            text.replace("  ports:\n", &format!("  ports:\n    tcp: {OPAQUE_PORT}\n"))
        });
        for (port, _) in PORTS {
            serve(mesh.workload(&name).namespace(), port);
        }
    }
    mesh
}

/// The service of one workload, without an address of its own.
fn service(name: &str) -> String {
    let ports = PORTS.map(|(port, name)| format!("{{name: {name}, port: {port}}}")).join(", ");
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{name: {name}}}, ports: [{ports}]}}\n"
    )
}

fn parties(mesh: &Mesh) -> Vec<Party> {
    let party = |Spec { name, app, .. }: Spec| Party {
        address: Some(mesh.workload(&name).place.address),
        own: format!("name: {name}"),
        shared: format!("app: {app}"),
        account: app,
    };
    workloads().into_iter().map(party).collect()
}

/// What the command says as JSON; `statuses` are those that are an answer.
fn said(mesh: &Mesh, words: &[&str], statuses: &[i32]) -> Value {
    let output = mesh.selvedge(words);
    assert!(output.status.code().is_some_and(|status| statuses.contains(&status)), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// One pair of workloads, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    from: String,
    to: String,
    port: u16,
}

/// What `selvedge authz matrix` says of each cell.
fn matrix(mesh: &Mesh) -> BTreeMap<Cell, String> {
    let said = said(mesh, &["authz", "matrix", "-o", "json"], &[0]);
    let name = |value: &Value| value.as_str().and_then(|text| text.rsplit('/').next()).unwrap().to_owned();
    let cell = |pair: &Value| {
        let port = u16::try_from(pair["port"].as_u64().unwrap()).unwrap();
        let cell = Cell { from: name(&pair["from"]), to: name(&pair["to"]), port };
        (cell, pair["outcome"].as_str().unwrap().to_owned())
    };
    said["pairs"].as_array().unwrap().iter().map(cell).collect()
}

/// What `selvedge explain connection` says of a cell, and of a request with this method.
fn explained(mesh: &Mesh, cell: &Cell, method: Option<&str>) -> String {
    let (from, to) = (format!("default/{}", cell.from), format!("default/{}:{}", cell.to, cell.port));
    let mut words = vec!["explain", "connection", "-o", "json", "--from", &from, "--to", &to];
    words.extend(method.into_iter().flat_map(|method| ["-X", method]));
    said(mesh, &words, &[0, 1])["outcome"].as_str().unwrap().to_owned()
}

/// Whether `done` is what a cell with this outcome must come to.
fn is_so(outcome: &str, cell: &Cell, kind: Kind, done: Done) -> bool {
    let is_http = kind != Kind::Opaque && cell.port != OPAQUE_PORT;
    match outcome {
        "allowed" => done == Done::Served,
        // What has routes of its own refuses a request that matches none of them by 404.
        "denied" if is_http => matches!(done, Done::Status(403 | 404)),
        "denied" => done == Done::Ended,
        // One of the two: a request alone says which.
        _ if is_http => matches!(done, Done::Served | Done::Status(403 | 404)),
        _ => matches!(done, Done::Served | Done::Ended),
    }
}

/// What is tried, and what it must come to.
type Expected = BTreeMap<(Cell, Kind), String>;

/// What each connection must come to: by the matrix, and where only a request decides, by what is said of that request.
fn expected(mesh: &Mesh, cells: &BTreeMap<Cell, String>, rng: &mut Rng) -> Expected {
    let mut all: Vec<_> = cells.iter().collect();
    rng.shuffle(&mut all);
    let (mut requests, mut others) = EXPLAINED;
    let mut expected = Expected::new();
    for (cell, outcome) in all {
        let depends = outcome == "depends-on-the-request";
        let asked = if depends { &mut requests } else { &mut others };
        let is_asked = *asked > 0;
        *asked = asked.saturating_sub(1);
        if is_asked && !depends {
            assert_eq!(explained(mesh, cell, None), *outcome, "the matrix and explain disagree: {cell:?}");
        }
        for kind in [Kind::Get, Kind::Delete, Kind::Opaque] {
            // At a port that speaks HTTP, bytes that are none are refused whatever policies say.
            if cell.port == APP_PORT && kind == Kind::Opaque {
                continue;
            }
            let method = kind.method().filter(|_| depends && is_asked);
            let outcome =
                method.map_or_else(|| outcome.clone(), |method| explained(mesh, cell, Some(method)));
            expected.insert((cell.clone(), kind), outcome);
        }
    }
    expected
}

/// Waits until every connection comes to what is expected of it.
async fn agree(mesh: &Mesh, expected: &Expected, what: &str) {
    let mut by_client = BTreeMap::<&str, Vec<(&Cell, Tried)>>::new();
    for (cell, kind) in expected.keys() {
        let to = SocketAddr::new(mesh.workload(&cell.to).place.address, cell.port);
        // By the name of the service or by the address, which is the same.
        let tried = match kind {
            Kind::Get => Tried::to(*kind, to).for_host(&format!("{}:{}", cell.to, cell.port)),
            Kind::Delete | Kind::Opaque => Tried::to(*kind, to),
        };
        by_client.entry(&cell.from).or_default().push((cell, tried));
    }
    poll(SOON, what, async || {
        let mut wrong = String::new();
        for (client, all) in &by_client {
            let (cells, trying): (Vec<&Cell>, Vec<Tried>) = all.iter().cloned().unzip();
            let done = tried(mesh.workload(client).namespace(), &trying).await;
            for (cell, (tried, done)) in cells.into_iter().zip(done) {
                let outcome = &expected[&(cell.clone(), tried.kind)];
                if !is_so(outcome, cell, tried.kind, done) {
                    wrong += &format!("{cell:?} {:?}: {done:?} instead of {outcome}\n", tried.kind);
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
}

async fn every_cell() {
    let seed =
        env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let mesh = mesh().await;
    let parties = parties(&mesh);
    let open: Expected = matrix(&mesh)
        .into_keys()
        .flat_map(|cell| [Kind::Get, Kind::Delete].map(|kind| ((cell.clone(), kind), "allowed".to_owned())))
        .collect();
    assert_eq!(open.len(), 2 * 28 * PORTS.len(), "all pairs but those of which nobody has a sidecar");
    agree(&mesh, &open, "without policies everybody is let in").await;

    let (began, mut round, mut outcomes) = (Instant::now(), 0, BTreeSet::new());
    while round < LEAST || began.elapsed() < TIME {
        let below = &mut |below| rng.usize(..below);
        let policies = Draw { parties: &parties, ports: &PORTS, below }.all();
        mesh.write("policies.yaml", &policies);
        let cells = matrix(&mesh);
        let what = format!("{SEED_VARIABLE}={seed}, round {round}\n{policies}");
        let expected = expected(&mesh, &cells, &mut rng);
        agree(&mesh, &expected, &what).await;
        outcomes.extend(cells.into_values());
        round += 1;
    }
    assert!(outcomes.len() == 3, "not everything was drawn: {outcomes:?}; {SEED_VARIABLE}={seed}");
}

#[test]
fn every_cell_of_the_matrix_is_what_redirected_connections_come_to() {
    netns(every_cell);
}
