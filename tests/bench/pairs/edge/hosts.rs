//! Many hosts at the edge, each with a certificate of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::Signal;

use super::super::{Site, envoy, selvedge, text};
use super::{EdgeProxy, configs, documents};
use crate::certificates::{Issuer, Shown};
use crate::process::{Running, installed, spare_address};

/// One proxy that ends TLS for so many hosts.
pub(crate) struct Hosting<'a> {
    proxy: EdgeProxy,
    site: &'a Site,
    directory: PathBuf,
    issuer: Issuer,
    pub(crate) listen: SocketAddr,
    pub(crate) names: Vec<String>,
    /// Of the product: its control plane, where that is, and what its gateway joins with.
    control_plane: Option<(Running, SocketAddr, String)>,
}

impl<'a> Hosting<'a> {
    /// Certificates and configuration for so many hosts. The product's control plane runs already: it is not the proxy's start.
    pub(crate) fn prepare(proxy: EdgeProxy, count: usize, site: &'a Site) -> anyhow::Result<Self> {
        let directory = site.directory.join(format!("{}-hosts", proxy.name()));
        let hosts = directory.join("hosts");
        fs::create_dir_all(&hosts)?;
        let names = (0..count).map(|number| format!("host-{number:04}.bench.test")).collect();
        let issuer = Issuer::of(&site.certificates())?;
        let listen = spare_address()?;
        let mut hosting = Self { proxy, site, directory, issuer, listen, names, control_plane: None };
        for name in &hosting.names {
            hosting.write(name, &hosting.issuer.issue(name)?)?;
        }
        hosting.configure()?;
        Ok(hosting)
    }

    /// Starts it.
    pub(crate) fn start(&self) -> anyhow::Result<Running> {
        let name = format!("{}-hosts", self.proxy.name());
        let config = self.config();
        let foreign = |program: Option<PathBuf>, args: &[&str]| {
            let program = program.with_context(|| format!("{name}: not installed"))?;
            Running::start_foreign(&name, &program, args, &self.site.directory)
        };
        match self.proxy {
            EdgeProxy::Selvedge => {
                let (_, grpc, token) = self.control_plane.as_ref().context("no control plane")?;
                let mut command = self.site.proxy();
                command.args([
                    "--gateway",
                    "--workload",
                    "selvedge/edge",
                    "--control-plane",
                    &grpc.to_string(),
                ]);
                command.args(["--workers", "1", "--admin", "127.0.0.1:0", "--exit-on-stdin-close"]);
                command.env("SELVEDGE_TOKEN", token);
                Running::start(&name, command, &self.site.directory)
            }
            EdgeProxy::Nginx => {
                let prefix = text(&self.directory)?;
                foreign(installed("nginx"), &["-p", prefix, "-e", "stderr", "-c", text(&config)?])
            }
            // With a master, which is what is told to read its files again.
            EdgeProxy::Haproxy => foreign(installed("haproxy"), &["-W", "-db", "-f", text(&config)?]),
            EdgeProxy::Envoy => {
                let args = ["--config-path", text(&config)?, "--concurrency", "1", "--disable-hot-restart"];
                foreign(envoy::program(), &[&args[..], &["--log-level", "error"]].concat())
            }
        }
    }

    /// Puts a new certificate in the place of that of `name`, and has `running` told as its users would do it.
    pub(crate) fn renew(&self, name: &str, running: &Running) -> anyhow::Result<Shown> {
        let shown = self.issuer.issue(name)?;
        self.write(name, &shown)?;
        match self.proxy {
            EdgeProxy::Selvedge | EdgeProxy::Envoy => {}
            EdgeProxy::Nginx => running.signal(Signal::HUP),
            EdgeProxy::Haproxy => running.signal(Signal::USR2),
        }
        Ok(shown)
    }

    /// The control plane's process, of the product.
    pub(crate) fn control_plane(&self) -> Option<u32> {
        self.control_plane.as_ref().map(|(process, ..)| process.id())
    }

    fn config(&self) -> PathBuf {
        // Envoy goes by the name.
        self.directory.join("config.yaml")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The certificate of one host, where the proxy looks for it. A file is replaced at once, as tools do it.
    fn write(&self, name: &str, Shown { chain, key, .. }: &Shown) -> anyhow::Result<()> {
        let place = |extension: &str| self.directory.join("hosts").join(format!("{name}.{extension}"));
        match self.proxy {
            EdgeProxy::Selvedge => replace(&place("yaml"), &documents::host(name, chain, key)),
            EdgeProxy::Haproxy => replace(&place("pem"), &format!("{chain}{key}")),
            EdgeProxy::Nginx => {
                replace(&place("key"), key)?;
                replace(&place("crt"), chain)
            }
            EdgeProxy::Envoy => replace(&place("yaml"), &configs::envoy_secret(name, chain, key)),
        }
    }

    fn configure(&mut self) -> anyhow::Result<()> {
        let (sockets, hosts) = ((self.listen, self.site.app), self.directory.join("hosts"));
        let config = match self.proxy {
            EdgeProxy::Selvedge => {
                fs::write(hosts.join("all.yaml"), documents::for_hosts(self.site.app, self.listen))?;
                let name = format!("{}-hosts", self.proxy.name());
                let (process, grpc) = selvedge::control_plane(&name, &hosts, &self.data(), self.site)?;
                let token = selvedge::token_in("selvedge", "edge", &self.data(), self.site)?;
                self.control_plane = Some((process, grpc, token));
                return Ok(());
            }
            EdgeProxy::Nginx => configs::nginx_hosts(sockets, text(&hosts)?, &self.names),
            EdgeProxy::Haproxy => configs::haproxy_hosts(sockets, text(&hosts)?),
            EdgeProxy::Envoy => configs::envoy_hosts(sockets, text(&hosts)?, &self.names),
        };
        fs::write(self.config(), config)?;
        Ok(())
    }
}

/// A file that is complete at every moment.
fn replace(file: &Path, content: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, file).with_context(|| format!("cannot replace {}", file.display()))
}
