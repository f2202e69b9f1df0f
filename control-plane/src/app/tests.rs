//! The whole control plane in this process: a directory on one side, its ports on the other.

use std::{fs, path::Path};

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::data_dir::DataDirError;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

struct Running {
    drain: Drain,
    admin: SocketAddr,
    root: [u8; 32],
    ended: JoinHandle<Result<(), AppError>>,
    // Keeps the log level's handle alive.
    _level: Box<dyn std::any::Any + Send>,
}

fn args(directory: &Path) -> Args {
    let (config, data) = (directory.join("config"), directory.join("data"));
    let command = ["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let fast = ["--poll-interval", "5ms", "--debounce", "1ms", "--config-dir"];
    let mut command: Vec<std::ffi::OsString> = command.iter().chain(&fast).map(Into::into).collect();
    command.extend([config.into(), "--data-dir".into(), data.into()]);
    Program::parse_from(command).args
}

/// The directory of documents.
fn config(args: &Args) -> &Path {
    args.config_dir.as_deref().unwrap()
}

async fn start(args: &Args) -> Running {
    let drain = Drain::default();
    let control_plane = ControlPlane::prepare(args, drain.clone()).await.unwrap();
    let (layer, level) = logging::filter("info").unwrap();
    let (admin, root) = (control_plane.admin_address(), control_plane.authority.root_sha256());
    let ended = tokio::spawn(control_plane.run(level, |_| axum::Router::new()));
    Running { drain, admin, root, ended, _level: Box::new(layer) }
}

impl Running {
    async fn get(&self, path: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        timeout(LIMIT, exchange).await.expect("in time").unwrap()
    }

    /// Asks until the answer contains `wanted`.
    async fn shows(&self, path: &str, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.get(path).await;
            if answer.contains(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} does not show {wanted:?} but:\n{answer}");
        }
    }

    async fn stop(self) {
        self.drain.begin(Reason::Signal);
        timeout(LIMIT, self.ended).await.expect("in time").unwrap().unwrap();
    }
}

fn workload_entry(name: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: {name}\n\
         spec:\n  address: 127.0.0.1\n  serviceAccount: {name}\n"
    )
}

#[tokio::test]
async fn a_document_is_served_and_a_bad_one_beside_it_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path());
    fs::create_dir(config(&args)).unwrap();
    fs::write(config(&args).join("good.yaml"), workload_entry("reviews")).unwrap();
    let running = start(&args).await;
    running.shows("/ready", "HTTP/1.1 200").await;

    fs::write(config(&args).join("bad.yaml"), "kind: [").unwrap();
    running.shows("/problems", "bad.yaml").await;
    running.shows("/status", r#""problems":{"errors":1,"warnings":0,"not_acted_on":0}"#).await;
    running.shows("/metrics", r#"problems{severity="error"} 1"#).await;
    running.shows("/ready", "HTTP/1.1 200").await;

    fs::remove_file(config(&args).join("bad.yaml")).unwrap();
    running.shows("/problems", "\r\n\r\n[]").await;
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_ca() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path());
    fs::create_dir(config(&args)).unwrap();

    let first = start(&args).await;
    let second = ControlPlane::prepare(&args, Drain::default()).await;
    assert!(matches!(second, Err(AppError::DataDir(DataDirError::InUse { .. }))), "{second:?}");
    let root = first.root;
    first.stop().await;

    let restarted = start(&args).await;
    assert_eq!(restarted.root, root);
    restarted.stop().await;
}

#[tokio::test]
async fn a_directory_that_was_never_there_is_no_empty_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path());
    let running = start(&args).await;

    running.shows("/problems", "cannot be read").await;
    running.shows("/ready", "still missing: configuration").await;
    running.shows("/config", r#""configuration_version":null"#).await;

    fs::create_dir(config(&args)).unwrap();
    running.shows("/ready", "HTTP/1.1 200").await;
    running.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_one_error_that_names_its_flag() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let args = Args { listen: taken.local_addr().unwrap(), ..args(directory.path()) };

    let error = ControlPlane::prepare(&args, Drain::default()).await.unwrap_err().to_string();

    assert!(error.contains("--listen") && error.contains("already in use"), "{error}");
}
