//! The apps that the demo puts into its mesh; each is a hidden subcommand of `selvedge`.
//!
//! They know nothing of the mesh: plain HTTP in and out, which is the point of a sidecar.

use std::{io::Read, net::SocketAddr, pin::pin, time::Duration};

use anyhow::Context;
use clap::Subcommand;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

pub mod frontend;
pub mod grpc;
pub mod identity;
pub mod janitor;
pub mod page;
pub mod reviews;
pub mod wiretap;

/// Which app to run.
#[derive(Debug, Clone, Subcommand)]
pub enum App {
    /// An HTTP server that answers what it saw of each request.
    Reviews(reviews::Args),
    /// An HTTP server that asks `reviews`; a page for browsers.
    Frontend(frontend::Args),
    /// A gRPC server with every kind of call.
    Grpc(grpc::Args),
    /// Not an app: looks for plaintext on the wire.
    Wiretap(wiretap::Args),
    /// Not an app: clears up after a mesh whose owner was killed.
    Janitor(janitor::Args),
}

/// What every app is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// What this instance calls itself in its answers.
    #[arg(long)]
    pub name: String,
    /// Where to listen; port 0 = any, printed on stdout.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Exit when stdin closes, so that no app outlives whoever started it.
    #[arg(long)]
    pub exit_on_stdin_close: bool,
}

/// Runs one app until it is told to end, or killed.
///
/// # Errors
/// If its address cannot be listened on.
pub fn run(app: App) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match app {
            App::Reviews(args) => reviews::run(args).await,
            App::Frontend(args) => frontend::run(args).await,
            App::Grpc(args) => grpc::run(args).await,
            App::Wiretap(args) => wiretap::run(args).await,
            App::Janitor(args) => janitor::run(args).await,
        }
    })
}

/// Listens where the app was told, and prints the address as the mesh's own daemons do.
async fn listen(common: &Common) -> anyhow::Result<TcpListener> {
    if common.exit_on_stdin_close {
        exit_on_stdin_close();
    }
    let listener = TcpListener::bind(common.listen)
        .await
        .with_context(|| format!("{} cannot listen on {}", common.name, common.listen))?;
    println!("{}", serde_json::json!({ "listener": "app", "address": listener.local_addr()? }));
    Ok(listener)
}

/// A thread of its own, because a blocked read of stdin cannot be cancelled.
fn exit_on_stdin_close() {
    std::thread::spawn(|| {
        read_stdin_to_its_end();
        std::process::exit(0);
    });
}

fn read_stdin_to_its_end() {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 64];
    while matches!(stdin.read(&mut buffer), Ok(1..)) {}
}

/// Serves connections until SIGTERM, then closes the port and finishes what is in progress, as servers do.
async fn serve<C>(listener: TcpListener, connection: impl Fn(TcpStream) -> C)
where
    C: GracefulConnection + Send + 'static,
    C::Error: Send,
{
    let graceful = GracefulShutdown::new();
    let mut terminated = pin!(terminated());
    loop {
        tokio::select! {
            stream = accept(&listener) => {
                let served = graceful.watch(connection(stream));
                tokio::spawn(async move {
                    // A caller that goes away in the middle is its own affair.
                    let _ = served.await;
                });
            }
            () = &mut terminated => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Waits for SIGTERM. Process 1 of a container would not even die of it if nobody did.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(error) => {
            eprintln!("SIGTERM cannot be waited for: {error}");
            std::future::pending().await
        }
    }
}

/// The next connection; a failure to accept one (too many open files, say) is not the end of an app.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true); // only latency is lost without it
                return stream;
            }
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
