//! One proxy at the edge: TLS 1.3 from the client, HTTP/1.1 or HTTP/2 inside it, and to the app plaintext HTTP/1.1, or mutual
//! TLS to its sidecar. Each is one process with one thread for traffic.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::{Pair, Site, envoy, haproxy, nginx, selvedge, text};
use crate::floor::{Carrier, Half};
use crate::load::generator::Target;
use crate::load::stream::ClientTls;
use crate::process::{Running, installed, spare_address};

mod configs;
mod documents;
mod hosts;

pub(crate) use self::hosts::Hosting;

/// Who is at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeProxy {
    Selvedge,
    Nginx,
    Haproxy,
    Envoy,
}

impl EdgeProxy {
    pub(crate) const ALL: [Self; 4] = [Self::Selvedge, Self::Nginx, Self::Haproxy, Self::Envoy];

    /// With the app itself behind it.
    pub(crate) const fn name(self) -> &'static str {
        self.name_before(Behind::App)
    }

    pub(crate) const fn name_before(self, behind: Behind) -> &'static str {
        match (self, behind) {
            (Self::Selvedge, Behind::App) => "edge-selvedge",
            (Self::Nginx, Behind::App) => "edge-nginx",
            (Self::Haproxy, Behind::App) => "edge-haproxy",
            (Self::Envoy, Behind::App) => "edge-envoy",
            (Self::Selvedge, Behind::Mesh) => "mesh-selvedge",
            (Self::Nginx, Behind::Mesh) => "mesh-nginx",
            (Self::Haproxy, Behind::Mesh) => "mesh-haproxy",
            (Self::Envoy, Behind::Mesh) => "mesh-envoy",
        }
    }
}

/// What is behind the edge. What it uses is not charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// The app, in plaintext and HTTP/1.1.
    App,
    /// The app's sidecar, by mutual TLS: ours for the product, for the others another of the same kind. HTTP/2 inside;
    /// nginx speaks only HTTP/1.1.
    Mesh,
}

pub(super) fn start(proxy: EdgeProxy, behind: Behind, site: &Site) -> anyhow::Result<Pair> {
    let listen = spare_address()?;
    let (half, beside) = match proxy {
        EdgeProxy::Selvedge => gateway(proxy.name_before(behind), behind, listen, site)?,
        EdgeProxy::Nginx | EdgeProxy::Haproxy | EdgeProxy::Envoy => foreign(proxy, behind, listen, site)?,
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
fn gateway(
    name: &str,
    behind: Behind,
    listen: SocketAddr,
    site: &Site,
) -> anyhow::Result<(Running, Vec<Running>)> {
    let (config, data) = (site.directory.join(name).join("config"), site.directory.join(name).join("data"));
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("edge.yaml"), documents::all(listen, &site.certificates())?)?;
    let app = |inbound| documents::app(site.app, behind, inbound);
    std::fs::write(config.join("app.yaml"), app(None))?;
    let (control_plane, grpc) = selvedge::control_plane(name, &config, &data, site)?;
    let mut beside = vec![control_plane];
    if behind == Behind::Mesh {
        let mut command = site.proxy();
        command.args(["--workload", "bench/app", "--app", &site.app.to_string()]);
        command.args(["--outbound", "127.0.0.1:0", "--inbound", "127.0.0.1:0"]);
        let mut sidecar = join(command, &format!("{name}-app"), ("app", grpc), &data, site)?;
        std::fs::write(config.join("app.yaml"), app(Some(sidecar.address_of("inbound")?)))?;
        beside.push(sidecar);
    }
    let mut command = site.proxy();
    command.args(["--gateway", "--workload", "bench/edge"]);
    // As many as the others are told to take (a quarter of the places is for mesh peers), and all of them from one address.
    command.args(["--max-connections", "16000", "--max-connections-per-client", "0"]);
    Ok((join(command, name, ("edge", grpc), &data, site)?, beside))
}

/// Starts a proxy of the product, with one worker.
fn join(
    mut command: Command,
    name: &str,
    (account, control_plane): (&str, SocketAddr),
    data: &Path,
    site: &Site,
) -> anyhow::Result<Running> {
    command.args(["--control-plane", &control_plane.to_string()]);
    command.args(["--workers", "1", "--admin", "127.0.0.1:0", "--exit-on-stdin-close"]);
    command.env("SELVEDGE_TOKEN", selvedge::token(account, data, site)?);
    Running::start(name, command, &site.directory)
}

/// Another proxy, and what is behind it if that is not the app.
fn foreign(
    proxy: EdgeProxy,
    behind: Behind,
    listen: SocketAddr,
    site: &Site,
) -> anyhow::Result<(Running, Vec<Running>)> {
    let name = proxy.name_before(behind);
    let prefix = site.directory.join(name);
    std::fs::create_dir_all(&prefix)?;
    let certificates = site.certificates();
    let certificates = text(&certificates)?;
    let start = |program: Option<std::path::PathBuf>, args: &[&str]| {
        let program = program.with_context(|| format!("{name}: not installed"))?;
        Running::start_foreign(name, &program, args, &site.directory)
    };
    let (mut next, mut beside) = (site.app, Vec::new());
    if behind == Behind::Mesh {
        next = spare_address()?;
        let (name, app) = (format!("{name}-app"), site.app);
        beside.push(match proxy {
            EdgeProxy::Nginx => nginx::half(&name, Half::Server, next, app, site)?,
            EdgeProxy::Haproxy => haproxy::half(&name, Half::Server, Carrier::Http2, next, app, site)?,
            EdgeProxy::Envoy => envoy::half(&name, Half::Server, Carrier::Http2, next, app, site)?,
            EdgeProxy::Selvedge => anyhow::bail!("{name} is no other project's"),
        });
    }
    let sockets = (listen, next);
    let edge = match proxy {
        EdgeProxy::Nginx => {
            let config = configs::nginx(sockets, certificates, behind);
            let config = site.write(&format!("{name}.conf"), &config)?;
            start(installed("nginx"), &["-p", text(&prefix)?, "-e", "stderr", "-c", text(&config)?])
        }
        EdgeProxy::Haproxy => {
            let config = configs::haproxy(sockets, certificates, behind);
            let config = site.write(&format!("{name}.cfg"), &config)?;
            start(installed("haproxy"), &["-db", "-f", text(&config)?])
        }
        EdgeProxy::Envoy => {
            let config = configs::envoy(sockets, certificates, behind);
            let config = site.write(&format!("{name}.yaml"), &config)?;
            let args = ["--config-path", text(&config)?, "--concurrency", "1", "--disable-hot-restart"];
            start(envoy::program(), &[&args[..], &["--log-level", "error"]].concat())
        }
        EdgeProxy::Selvedge => anyhow::bail!("{name} is no other project's"),
    };
    Ok((edge?, beside))
}
