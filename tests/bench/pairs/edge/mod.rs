//! One proxy at the edge: TLS 1.3 from the client, HTTP/1.1 or HTTP/2 inside it, plaintext HTTP/1.1 to the app. Each is one
//! process with one thread for traffic.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context;

use super::{Pair, Site, envoy, selvedge, text};
use crate::load::generator::Target;
use crate::load::stream::ClientTls;
use crate::process::{Running, installed, spare_address};

mod configs;
mod documents;

/// Who is at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeProxy {
    Selvedge,
    Nginx,
    Haproxy,
    Envoy,
}

impl EdgeProxy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Selvedge => "edge-selvedge",
            Self::Nginx => "edge-nginx",
            Self::Haproxy => "edge-haproxy",
            Self::Envoy => "edge-envoy",
        }
    }
}

pub(super) fn start(proxy: EdgeProxy, site: &Site) -> anyhow::Result<Pair> {
    let listen = spare_address()?;
    let (half, beside) = match proxy {
        EdgeProxy::Selvedge => gateway(proxy.name(), listen, site)?,
        EdgeProxy::Nginx | EdgeProxy::Haproxy | EdgeProxy::Envoy => {
            (foreign(proxy, listen, site)?, Vec::new())
        }
    };
    let tls = Some(ClientTls::new(&site.certificates())?);
    Ok(Pair {
        target: Target { tls, ..Target::plain(listen, documents::HOST) },
        halves: vec![half],
        beside,
        another: None,
    })
}

/// The product: a control plane, and a proxy as its gateway.
fn gateway(name: &str, listen: SocketAddr, site: &Site) -> anyhow::Result<(Running, Vec<Running>)> {
    let (config, data) = (site.directory.join(name).join("config"), site.directory.join(name).join("data"));
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("edge.yaml"), documents::all(site.app, listen, &site.certificates())?)?;
    let (control_plane, grpc) = selvedge::control_plane(name, &config, &data, site)?;
    let mut command = Command::new(site.sidecar());
    command.args(["--gateway", "--workload", "bench/edge", "--control-plane", &grpc.to_string()]);
    command.args(["--workers", "1", "--admin", "127.0.0.1:0", "--exit-on-stdin-close"]);
    // As many as the others are told to take (a quarter of the places is for mesh peers), and all of them from one address.
    command.args(["--max-connections", "16000", "--max-connections-per-client", "0"]);
    command.env("SELVEDGE_TOKEN", selvedge::token("edge", &data, site)?);
    Ok((Running::start(name, command, &site.directory)?, vec![control_plane]))
}

fn foreign(proxy: EdgeProxy, listen: SocketAddr, site: &Site) -> anyhow::Result<Running> {
    let name = proxy.name();
    let prefix = site.directory.join(name);
    std::fs::create_dir_all(&prefix)?;
    let certificates = site.certificates();
    let sockets = (listen, site.app);
    let start = |program: Option<std::path::PathBuf>, args: &[&str]| {
        let program = program.with_context(|| format!("{name}: not installed"))?;
        Running::start_foreign(name, &program, args, &site.directory)
    };
    match proxy {
        EdgeProxy::Nginx => {
            let config =
                site.write(&format!("{name}.conf"), &configs::nginx(sockets, text(&certificates)?))?;
            start(installed("nginx"), &["-p", text(&prefix)?, "-e", "stderr", "-c", text(&config)?])
        }
        EdgeProxy::Haproxy => {
            let config =
                site.write(&format!("{name}.cfg"), &configs::haproxy(sockets, text(&certificates)?))?;
            start(installed("haproxy"), &["-db", "-f", text(&config)?])
        }
        EdgeProxy::Envoy => {
            let config =
                site.write(&format!("{name}.yaml"), &configs::envoy(sockets, text(&certificates)?))?;
            let args = ["--config-path", text(&config)?, "--concurrency", "1", "--disable-hot-restart"];
            start(envoy::program(), &[&args[..], &["--log-level", "error"]].concat())
        }
        EdgeProxy::Selvedge => anyhow::bail!("{name} is no other project's"),
    }
}
