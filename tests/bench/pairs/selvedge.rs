//! Our pair: the product's binary as control plane, client's sidecar and server's sidecar, with routing,
//! retries and ejection configured as a mesh that is used has them.
//!
//! The control plane's CPU time is not charged; it does nothing while requests flow.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Pair, Site, Starting, documents, policies};
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
    /// A thousand policies over five thousand other workloads, of which a hundred rules are for the app.
    Policies,
    /// Ten endpoints, which all lead to the one server's sidecar, and an algorithm that picks one.
    Balance(Algorithm),
    /// A rate limit of each client identity, which lets in all of them.
    IdentityLimit,
    /// Requests of a hundred thousand tenants, which a header names.
    Tenants,
    /// The same, and a rate limit of each tenant, which lets in all of them.
    TenantLimit,
    /// Ten endpoints, of which one takes [`SLOW`] for each answer.
    Slow(Algorithm),
    /// Three connections: so many requests at once `--adaptive-concurrency` always lets in.
    FewConnections,
    /// The same, and `--adaptive-concurrency` at the server's sidecar.
    AdaptiveConcurrency,
    /// Istio's metrics beside the product's own, in both sidecars.
    MetricsCompat,
    /// No reports to the control plane, which ends once the pair answers.
    NoReports,
    /// An access log as JSON at both sidecars.
    AccessLog,
    /// So many percent of requests are traced by both sidecars.
    Traces(u8),
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    LeastRequest,
    RoundRobin,
    Random,
    PeakEwma,
    RingHash,
    Maglev,
}

impl Algorithm {
    /// What a `DestinationRule` says for it.
    pub(super) const fn words(self) -> &'static str {
        match self {
            // Of the second one, an annotation says it.
            Self::LeastRequest | Self::PeakEwma => "simple: LEAST_REQUEST",
            Self::RoundRobin => "simple: ROUND_ROBIN",
            Self::Random => "simple: RANDOM",
            Self::RingHash => "consistentHash: {httpHeaderName: x-tenant, ringHash: {minimumRingSize: 1024}}",
            Self::Maglev => "consistentHash: {httpHeaderName: x-tenant, maglev: {tableSize: 65537}}",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::LeastRequest => "balance-least-request",
            Self::RoundRobin => "balance-round-robin",
            Self::Random => "balance-random",
            Self::PeakEwma => "balance-peak-ewma",
            Self::RingHash => "balance-ring-hash",
            Self::Maglev => "balance-maglev",
        }
    }
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
            Self::Policies => "policies-1000",
            Self::Balance(algorithm) => algorithm.name(),
            Self::IdentityLimit => "identity-limit",
            Self::Tenants => "tenants-100000",
            Self::TenantLimit => "tenant-limit-100000",
            Self::Slow(Algorithm::PeakEwma) => "slow-peak-ewma",
            Self::Slow(_) => "slow-least-request",
            Self::FewConnections => "connections-3",
            Self::AdaptiveConcurrency => "adaptive-concurrency",
            Self::MetricsCompat => "metrics-compat",
            Self::NoReports => "no-reports",
            Self::AccessLog => "access-log-json",
            Self::Traces(100) => "traces-100",
            Self::Traces(_) => "traces-1",
        }
    }

    /// How many endpoints the service has.
    pub(super) const fn endpoints(self) -> usize {
        match self {
            Self::Endpoints => 10_000,
            Self::Balance(_) => 10,
            // And the slow one.
            Self::Slow(_) => 9,
            _ => 1,
        }
    }

    /// With how many connections it is loaded at most.
    const fn most_connections(self) -> usize {
        match self {
            Self::FewConnections | Self::AdaptiveConcurrency => 3,
            _ => usize::MAX,
        }
    }

    /// How many tenants requests name; 0: they name none.
    const fn tenants(self) -> u32 {
        match self {
            Self::Tenants | Self::TenantLimit => 100_000,
            Self::Balance(_) | Self::Endpoints => 1_000,
            _ => 0,
        }
    }
}

/// What a slow endpoint takes for an answer.
const SLOW: Duration = Duration::from_millis(20);

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
    if variant == Variant::Policies {
        std::fs::write(config.join("policies.yaml"), policies::documents())?;
    }
    std::fs::write(config.join("workloads.yaml"), documents::workloads(site.app, None, variant))?;
    let (control_plane, grpc) = mesh.control_plane()?;

    let server = Sidecar::new(&mesh, grpc, "app", site.app)?;
    let mut server = server.start(None)?;
    let inbound = server.address_of("inbound")?;
    let mut workloads = documents::workloads(site.app, Some(inbound), variant);
    let mut beside = vec![control_plane];
    if matches!(variant, Variant::Slow(_)) {
        let (entry, slow) = mesh.slow_endpoint(grpc, &workloads)?;
        workloads += &entry;
        beside.extend(slow);
    }
    std::fs::write(config.join("workloads.yaml"), workloads)?;
    let sidecar = Sidecar::new(&mesh, grpc, "client", site.app)?;
    let mut client = sidecar.start(None)?;
    let outbound = client.address_of("outbound")?;
    let address = match own {
        Some(address) => Redirects::lead(address, outbound.port())?,
        None => outbound,
    };
    let another = move || {
        let admin = spare_address()?;
        let ready = Target::plain(admin, &admin.to_string());
        Ok(Starting { process: sidecar.start(Some(admin))?, ready, path: "/ready" })
    };
    Ok(Pair {
        target: Target {
            tenants: variant.tenants(),
            most_connections: variant.most_connections(),
            ..Target::plain(address, documents::AUTHORITY)
        },
        halves: vec![client, server],
        beside,
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

    /// One more endpoint, beside those in `workloads`: an app that is slow, and its sidecar.
    fn slow_endpoint(
        &self,
        control_plane: SocketAddr,
        workloads: &str,
    ) -> anyhow::Result<(String, [Running; 2])> {
        let mut app = Command::new(std::env::current_exe()?);
        let delay = SLOW.as_millis().to_string();
        app.args(["app", "--exit-on-stdin-close", "--delay-ms", &delay]);
        let mut app = Running::start(&format!("{}-slow", self.name), app, &self.site.directory)?;
        let at = app.address_of("app")?;
        // It cannot join before there is an entry for it.
        let known = format!("{workloads}{}", documents::slow_workload(at, None));
        std::fs::write(self.config().join("workloads.yaml"), known)?;
        let mut sidecar = Sidecar::new(self, control_plane, "app-slow", at)?.start(None)?;
        let inbound = sidecar.address_of("inbound")?;
        Ok((documents::slow_workload(at, Some(inbound)), [app, sidecar]))
    }

    /// The control plane, ready, and where it is.
    fn control_plane(&self) -> anyhow::Result<(Running, SocketAddr)> {
        control_plane(self.name, &self.config(), &self.data(), self.site)
    }
}

/// A control plane for the pair `name`, ready, and where it is.
pub(super) fn control_plane(
    name: &str,
    config: &Path,
    data: &Path,
    site: &Site,
) -> anyhow::Result<(Running, SocketAddr)> {
    let mut command = Command::new(&site.selvedge);
    let listeners = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    command.arg("control-plane").args(listeners).arg("--exit-on-stdin-close");
    command.arg("--config-dir").arg(config).arg("--data-dir").arg(data);
    let mut control_plane = Running::start(&format!("{name}-control-plane"), command, &site.directory)?;
    let grpc = control_plane.address_of("grpc")?;
    Ok((control_plane, grpc))
}

/// What the proxy of `workload` joins with, in the namespace of the benchmark.
pub(super) fn token(workload: &str, data: &Path, site: &Site) -> anyhow::Result<String> {
    token_in("bench", workload, data, site)
}

/// The same in any namespace.
pub(super) fn token_in(namespace: &str, workload: &str, data: &Path, site: &Site) -> anyhow::Result<String> {
    let mut token = Command::new(&site.selvedge);
    token.args(["token", "create", "--namespace", namespace, "--service-account", workload, "--ttl", "2h"]);
    token.arg("--data-dir").arg(data);
    Ok(output(token)?.trim().to_owned())
}

/// How one sidecar is started, as often as wanted.
struct Sidecar {
    name: String,
    args: Vec<String>,
    token: String,
    site: Site,
}

impl Sidecar {
    fn new(
        mesh: &Mesh<'_>,
        control_plane: SocketAddr,
        workload: &str,
        app: SocketAddr,
    ) -> anyhow::Result<Self> {
        let token = token(workload, &mesh.data(), mesh.site)?;
        let workers = if mesh.variant == Variant::Workers { "2" } else { "1" };
        // All of the loopback network's addresses lead there, as so many endpoints.
        let inbound = if mesh.variant.endpoints() > 1 { "0.0.0.0:0" } else { "127.0.0.1:0" };
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
            (Carrier::Tcp, _) => flags(&["--app", &app.to_string()]),
            (carrier, _) => flags(&["--app", &app.to_string(), "--carrier", carrier.word()]),
        }
        if mesh.variant == Variant::AdaptiveConcurrency && workload == "app" {
            args.push("--adaptive-concurrency".to_owned());
        }
        if mesh.variant == Variant::MetricsCompat {
            args.extend(["--metrics-compat", "istio"].map(str::to_owned));
        }
        if let Variant::Traces(_) = mesh.variant {
            let collector = super::sink::address()?;
            args.extend(["--otlp-endpoint".to_owned(), format!("http://{collector}")]);
            args.extend(["--otlp-protocol", "http"].map(str::to_owned));
        }
        Ok(Self { name: format!("{}-{workload}", mesh.name), args, token, site: mesh.site.clone() })
    }

    fn start(&self, admin: Option<SocketAddr>) -> anyhow::Result<Running> {
        let mut command = self.site.proxy();
        command.args(&self.args).arg("--exit-on-stdin-close");
        command.args(["--admin", &admin.map_or_else(|| "127.0.0.1:0".to_owned(), |admin| admin.to_string())]);
        command.env("SELVEDGE_TOKEN", &self.token);
        let name = if admin.is_some() { format!("{}-another", self.name) } else { self.name.clone() };
        Running::start(&name, command, &self.site.directory)
    }
}
