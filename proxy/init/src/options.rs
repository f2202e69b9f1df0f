//! The settings: what is redirected and what is left alone.

use std::{fmt, net::IpAddr, num::NonZeroU16, str::FromStr};

use ipnet::IpNet;

use crate::rules::Tool;

/// What to do, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What the rules are.
    #[command(flatten)]
    pub options: Options,

    /// What to do with them.
    #[command(flatten)]
    pub action: Action,

    /// The tool that sets the rules. Default: nft, or iptables if there is no nft.
    #[arg(long, env = "SELVEDGE_TOOL", value_enum)]
    pub tool: Option<Tool>,
}

/// What is redirected and what is not. Only TCP is redirected.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// The proxy's user, whose connections are not redirected. It cannot be 0, because then apps that run as root
    /// would bypass the mesh.
    #[arg(long, env = "SELVEDGE_PROXY_UID", default_value_t = 2102, value_parser = clap::value_parser!(u32).range(1..))]
    pub proxy_uid: u32,

    /// The proxy's group. With it, only connections with the user and the group are not redirected. An image or a
    /// setuid program may also have the user, but it would have to guess a group that is drawn for each pod. Default:
    /// the user is enough.
    #[arg(long, env = "SELVEDGE_PROXY_GID", value_parser = clap::value_parser!(u32).range(1..))]
    pub proxy_gid: Option<u32>,

    /// The proxy's port for outbound connections.
    #[arg(long, env = "SELVEDGE_OUTBOUND_PORT", default_value = "4140")]
    pub outbound_port: NonZeroU16,

    /// The proxy's port for inbound connections.
    #[arg(long, env = "SELVEDGE_INBOUND_PORT", default_value = "4143")]
    pub inbound_port: NonZeroU16,

    /// The proxy's admin port, which is never redirected.
    #[arg(long, env = "SELVEDGE_ADMIN_PORT", default_value = "4191")]
    pub admin_port: NonZeroU16,

    /// Destination ports whose outbound connections bypass the proxy, such as 25,8000-8010.
    #[arg(long, env = "SELVEDGE_SKIP_OUTBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub skip_outbound_ports: Vec<PortRange>,

    /// Destination networks whose outbound connections bypass the proxy, such as 10.0.0.0/8,fd00::/8.
    #[arg(long, env = "SELVEDGE_SKIP_OUTBOUND_NETWORKS", value_delimiter = ',', value_name = "CIDRS", value_parser = network)]
    pub skip_outbound_networks: Vec<IpNet>,

    /// Ports of the app whose inbound connections bypass the proxy, such as 22,8000-8010.
    #[arg(long, env = "SELVEDGE_SKIP_INBOUND_PORTS", value_delimiter = ',', value_name = "PORTS")]
    pub skip_inbound_ports: Vec<PortRange>,

    /// Set the rules even if another program's rules redirect connections here too.
    #[arg(long, env = "SELVEDGE_FORCE")]
    pub force: bool,
}

/// What to do instead of setting the rules and verifying them.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[group(multiple = false)]
pub struct Action {
    /// Print the rules and change nothing.
    #[arg(long)]
    pub print: bool,

    /// Remove the rules of selvedge-init, and no other rules.
    #[arg(long)]
    pub cleanup: bool,

    /// Make a connection to prove that the rules in force work. If nothing listens on the proxy's outbound port, this
    /// listens there for a moment.
    #[arg(long)]
    pub verify: bool,

    /// Set the rules, verify them, give up all capabilities, and hold the network namespace until SIGTERM.
    #[arg(long)]
    pub hold: bool,

    /// Health check for --hold: succeeds if a process holds this network namespace and has verified the rules.
    #[arg(long)]
    pub held: bool,
}

impl Default for Options {
    /// As the command line has them.
    fn default() -> Self {
        let port = |port| NonZeroU16::new(port).expect("written here");
        Self {
            proxy_uid: 2102,
            proxy_gid: None,
            outbound_port: port(4140),
            inbound_port: port(4143),
            admin_port: port(4191),
            skip_outbound_ports: Vec::new(),
            skip_outbound_networks: Vec::new(),
            skip_inbound_ports: Vec::new(),
            force: false,
        }
    }
}

/// One port, or all from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// The ports from `first` to `last`; none if `last` is the smaller.
    pub fn new(first: NonZeroU16, last: NonZeroU16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first.get()..=self.last.get()).contains(&port)
    }

    /// As nft (`-`) and iptables (`:`) write it.
    pub(crate) fn written(self, between: char) -> String {
        let Self { first, last } = self;
        if first == last { first.to_string() } else { format!("{first}{between}{last}") }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written('-'))
    }
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port =
            |text: &str| text.trim().parse().map_err(|_| "neither a port (8080) nor ports (8000-8010)");
        Self::new(port(first)?, port(last)?).ok_or("the first port is higher than the last")
    }
}

/// `10.0.0.0/8`; `10.0.0.1` means that address alone.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let text = text.trim();
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "neither a network (10.0.0.0/8, fd00::/8) nor an address")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(arguments: &[&str]) -> Result<Args, String> {
        let arguments = ["selvedge-init"].iter().chain(arguments);
        Program::try_parse_from(arguments).map(|program| program.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_code_are_those_of_the_command_line() {
        assert_eq!(parsed(&[]).unwrap().options, Options::default());
    }

    #[test]
    fn ports_and_networks_are_lists() {
        let arguments = ["--skip-outbound-ports=25,8000-8010", "--skip-outbound-networks=10.1.2.3,fd00::/8"];
        let options = parsed(&arguments).unwrap().options;

        let ports: Vec<String> = options.skip_outbound_ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["25", "8000-8010"]);
        let networks: Vec<String> = options.skip_outbound_networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.1.2.3/32", "fd00::/8"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (argument, reason) in [
            ("--skip-inbound-ports=0", "neither a port"),
            ("--skip-inbound-ports=70000", "neither a port"),
            ("--skip-inbound-ports=90-80", "higher than the last"),
            ("--skip-outbound-networks=10.0.0.0/33", "neither a network"),
            ("--proxy-uid=0", "0 is not in 1.."),
            ("--proxy-gid=0", "0 is not in 1.."),
        ] {
            let error = parsed(&[argument]).unwrap_err();
            assert!(error.contains(reason), "{argument}: {error}");
        }
        assert!(parsed(&["--hold", "--cleanup"]).unwrap_err().contains("cannot be used with"));
    }
}
