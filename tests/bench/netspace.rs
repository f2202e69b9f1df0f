//! A network namespace of the run's own, for opaque TCP.
//!
//! The product learns where an opaque connection was going from the kernel, so its client must be redirected. So
//! that this costs everybody the same, every pair is reached that way: by an address that leads nowhere else.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, ensure};

use crate::process::{installed, output};

/// Set in the environment of a run that is in its namespace.
const INSIDE: &str = "SELVEDGE_BENCH_INSIDE";

/// The port of every redirected address.
pub(crate) const PORT: u16 = 80;

/// Whoever connects to one of these addresses comes to the port that stands beside it.
const RULES: &str = "table ip bench {
    map to {
        type ipv4_addr : inet_service
    }
    chain out {
        type nat hook output priority -100
        meta l4proto tcp redirect to :ip daddr map @to
    }
}
";

/// Redirected addresses.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    given: AtomicU8,
}

impl Redirects {
    /// Enters a network namespace of this process's own, by starting its program again there, and lays the rules.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        if std::env::var_os(INSIDE).is_none() {
            let mut again = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                again.args(["--user", "--map-root-user"]);
            }
            again.args(["--net", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
            return Err(again.env(INSIDE, "1").exec()).context("cannot start unshare (package util-linux)");
        }
        for arguments in ["link set lo up", "address add 10.99.0.1/24 dev lo"] {
            let mut ip = Command::new("ip");
            ip.args(arguments.split(' '));
            output(ip).context("package iproute2")?;
        }
        // As on loopback addresses: else a minute's connections use up all ports of a client, and to find a free one
        // takes milliseconds.
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").context("cannot set tcp_tw_reuse")?;
        nft(RULES)?;
        Ok(Self::default())
    }

    /// An address that nobody has yet.
    pub(crate) fn claim(&self) -> IpAddr {
        Ipv4Addr::new(10, 99, 0, 2 + self.given.fetch_add(1, Ordering::Relaxed)).into()
    }

    /// Has connections to `address`, which was claimed, come to `port` on 127.0.0.1; where to connect.
    pub(crate) fn lead(address: IpAddr, port: u16) -> anyhow::Result<SocketAddr> {
        nft(&format!("add element ip bench to {{ {address} : {port} }}\n"))?;
        Ok(SocketAddr::new(address, PORT))
    }
}

fn nft(rules: &str) -> anyhow::Result<()> {
    let program = installed("nft").context("nft is not installed: apt-get install nftables")?;
    let mut nft = Command::new(program).args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().expect("it was asked for above").write_all(rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules that lead to the pairs");
    Ok(())
}
