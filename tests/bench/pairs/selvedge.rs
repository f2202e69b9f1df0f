//! Our pair: the product's binary as control plane, client's sidecar and server's sidecar, with routing,
//! retries and ejection configured as a mesh that is used has them.
//!
//! The control plane's CPU time is not charged; it does nothing while requests flow.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::{Pair, Site, Starting, documents};
use crate::floor::Carrier;
use crate::load::generator::Target;
use crate::netspace::Redirects;
use crate::process::{Running, output, spare_address};

/// What is changed to see what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Plain,
    /// A thousand routes, of which requests take the last.
    Routes,
    /// Ten thousand endpoints, which all lead to the one server's sidecar.
    Endpoints,
    /// Two threads that carry traffic in each sidecar.
    Workers,
    WithoutRetries,
    /// A route that changes headers and rewrites path and authority.
    Filters,
}

impl Variant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "selvedge-h1",
            Self::Routes => "routes-1000",
            Self::Endpoints => "endpoints-10000",
            Self::Workers => "workers-2",
            Self::WithoutRetries => "no-retries",
            Self::Filters => "filters",
        }
    }
}

pub(super) fn start(name: &str, carrier: Carrier, variant: Variant, site: &Site) -> anyhow::Result<Pair> {
    // Opaque: who connects to this address is redirected to the client's half.
    let redirects = site.redirects.as_deref().filter(|_| carrier == Carrier::Tcp);
    let own = redirects.map(Redirects::claim);
    let services = match own {
        Some(address) => documents::opaque_services(site.app, address),
        None => documents::services(site.app, variant),
    };
    let mesh = Mesh { name, carrier, variant, site, directory: site.directory.join(name) };
    let config = mesh.config();
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("services.yaml"), services)?;
    std::fs::write(config.join("workloads.yaml"), documents::workloads(site.app, None, variant))?;
    let (control_plane, grpc) = mesh.control_plane()?;

    let server = Sidecar::new(&mesh, grpc, "app")?;
    let mut server = server.start(None)?;
    let inbound = server.address_of("inbound")?;
    std::fs::write(config.join("workloads.yaml"), documents::workloads(site.app, Some(inbound), variant))?;
    let sidecar = Sidecar::new(&mesh, grpc, "client")?;
    let mut client = sidecar.start(None)?;
    let outbound = client.address_of("outbound")?;
    let address = match own {
        Some(address) => Redirects::lead(address, outbound.port())?,
        None => outbound,
    };
    let another = move || {
        let admin = spare_address()?;
        let ready = Target { address: admin, authority: admin.to_string() };
        Ok(Starting { process: sidecar.start(Some(admin))?, ready, path: "/ready" })
    };
    Ok(Pair {
        target: Target { address, authority: documents::AUTHORITY.into() },
        halves: vec![client, server],
        beside: vec![control_plane],
        another: Some(Box::new(another)),
    })
}

/// What is started together.
struct Mesh<'a> {
    name: &'a str,
    carrier: Carrier,
    variant: Variant,
    site: &'a Site,
    directory: PathBuf,
}

impl Mesh<'_> {
    fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The control plane, ready, and where it is.
    fn control_plane(&self) -> anyhow::Result<(Running, SocketAddr)> {
        let mut command = Command::new(&self.site.selvedge);
        let listeners = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        command.arg("control-plane").args(listeners).arg("--exit-on-stdin-close");
        command.arg("--config-dir").arg(self.config()).arg("--data-dir").arg(self.data());
        let name = format!("{}-control-plane", self.name);
        let mut control_plane = Running::start(&name, command, &self.site.directory)?;
        let grpc = control_plane.address_of("grpc")?;
        Ok((control_plane, grpc))
    }
}

/// How one sidecar is started, as often as wanted.
struct Sidecar {
    name: String,
    args: Vec<String>,
    token: String,
    site: Site,
}

impl Sidecar {
    fn new(mesh: &Mesh<'_>, control_plane: SocketAddr, workload: &str) -> anyhow::Result<Self> {
        let mut token = Command::new(&mesh.site.selvedge);
        token.args(["token", "create", "--namespace", "bench", "--service-account", workload, "--ttl", "2h"]);
        token.arg("--data-dir").arg(mesh.data());
        let token = output(token)?.trim().to_owned();

        let workers = if mesh.variant == Variant::Workers { "2" } else { "1" };
        // All of the loopback network's addresses lead there, as so many endpoints.
        let inbound = if mesh.variant == Variant::Endpoints { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let args = [
            ["--workload", &format!("bench/{workload}")],
            ["--control-plane", &control_plane.to_string()],
            ["--outbound", "127.0.0.1:0"],
            ["--inbound", inbound],
            ["--workers", workers],
        ];
        let mut args: Vec<String> = args.as_flattened().iter().map(ToString::to_string).collect();
        let mut flags = |flags: &[&str]| args.extend(flags.iter().map(ToString::to_string));
        match (mesh.carrier, workload) {
            (Carrier::Tcp, "client") => flags(&["--redirected"]),
            (Carrier::Tcp, _) => flags(&["--app", &mesh.site.app.to_string()]),
            (carrier, _) => flags(&["--app", &mesh.site.app.to_string(), "--carrier", carrier.word()]),
        }
        Ok(Self { name: format!("{}-{workload}", mesh.name), args, token, site: mesh.site.clone() })
    }

    fn start(&self, admin: Option<SocketAddr>) -> anyhow::Result<Running> {
        let mut command = Command::new(self.site.sidecar());
        command.args(&self.args).arg("--exit-on-stdin-close");
        command.args(["--admin", &admin.map_or_else(|| "127.0.0.1:0".to_owned(), |admin| admin.to_string())]);
        command.env("SELVEDGE_TOKEN", &self.token);
        let name = if admin.is_some() { format!("{}-another", self.name) } else { self.name.clone() };
        Running::start(&name, command, &self.site.directory)
    }
}
