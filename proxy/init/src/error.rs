//! Why the rules cannot be set, or do not do what they should: each with what to change.

use std::{io, net::SocketAddr};

use crate::rules::Tool;

/// Why `selvedge-init` ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capability is not there at all.
    #[error(
        "the capability NET_ADMIN is missing; give it to this container only: `docker run --cap-add \
         NET_ADMIN`, in a compose file `cap_add: [NET_ADMIN]`, in Kubernetes `securityContext: {{capabilities: \
         {{add: [NET_ADMIN]}}}}`, and run it as root, because other users lose added capabilities"
    )]
    NoCapability,
    /// The capability is there, but the network namespace belongs to another user namespace.
    #[error(
        "{tool} was not permitted to change this network namespace, although the capability NET_ADMIN is there: \
         the namespace belongs to another user namespace, or a security profile (seccomp, SELinux, AppArmor) \
         forbids it; {tool} said: {said}"
    )]
    NotPermitted {
        /// Who was refused.
        tool: &'static str,
        /// In its own words.
        said: String,
    },
    /// No tool at all.
    #[error(
        "neither nft nor iptables-restore is in PATH: install the package nftables, or use the image of \
         selvedge-init, which has nft in it"
    )]
    NoTool,
    /// A tool that was asked for, or that a part of the work needs.
    #[error("{program} is not in PATH: install it, or leave --tool out to use any tool that is there")]
    NoProgram {
        /// Which.
        program: &'static str,
    },
    /// A tool that could not be started or spoken to.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel cannot do it.
    #[error(
        "this kernel does not redirect connections for {tool} ({said}); load its modules on the host (`modprobe -a \
         nft_chain_nat nft_redir nft_fib_inet nft_ct nft_reject_inet` for nft, `modprobe -a iptable_nat ip6table_nat \
         iptable_filter ip6table_filter xt_REDIRECT xt_owner xt_addrtype xt_conntrack ipt_REJECT ip6t_REJECT` for \
         iptables), or try the other one with --tool"
    )]
    NoNat {
        /// Which tool was told so.
        tool: &'static str,
        /// In its own words.
        said: String,
    },
    /// The tool refused the rules for a reason that we do not know.
    #[error("{tool} refused: {said}")]
    Refused {
        /// Which.
        tool: &'static str,
        /// In its own words.
        said: String,
    },
    /// Two meshes in one namespace would fight for every connection.
    #[error(
        "another program's rules redirect connections here already ({rule}): remove the other mesh's sidecar or init \
         container, or remove its rules; or add --force if the two do not redirect the same connections"
    )]
    Foreign {
        /// One of them, and where it stands.
        rule: String,
    },
    /// An earlier run used the other tool.
    #[error("selvedge-init has already set rules here with {0}: remove them first with --cleanup --tool {0}")]
    OtherTool(Tool),
    /// The rules are in force and do nothing.
    #[error(
        "a connection to {target} was not redirected to port {port}: {seen}; either no rules are in force (run \
         selvedge-init without --verify), or another program's rules come first (`nft list ruleset`)"
    )]
    NotRedirected {
        /// Where it was sent.
        target: SocketAddr,
        /// Where it should have arrived.
        port: u16,
        /// What happened to it.
        seen: String,
    },
    /// They redirect what is not addressed to this host, as ours once did.
    #[error(
        "the rules in force, set by {0}, also redirect connections that are not addressed to this host: an older \
         selvedge-init has set them; run this one without --verify"
    )]
    Outdated(Tool),
    /// The proxy's own connections would come back to it for ever.
    #[error(
        "a connection of the proxy's user {uid} to {target} was redirected to the proxy itself: run the \
         proxy as the user that --proxy-uid names, and check whether another program's rules redirect it (`nft list \
         ruleset`)"
    )]
    ProxyRedirected {
        /// The proxy's user.
        uid: u32,
        /// Where it was sent.
        target: SocketAddr,
    },
    /// `--verify` was asked for, and there is no connection that could be redirected.
    #[error(
        "nothing was verified: this network namespace has no route to other hosts, or every destination is skipped; \
         connect the namespace to its network first"
    )]
    NoRoute,
    /// The connections of the proof could not be made.
    #[error("cannot verify the redirection: {what}: {source}")]
    Verify {
        /// Doing what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The port that connections are redirected to is on `lo`.
    #[error(
        "nothing arrives at {0}, where connections are redirected to: the interface lo is down (`ip link set lo up`), \
         IPv6 is switched off on lo only (`sysctl net.ipv6.conf.lo.disable_ipv6=0`), or a filter drops connections to \
         it (`nft list ruleset`)"
    )]
    NoLoopback(SocketAddr),
    /// The capabilities could not be given up.
    #[error("cannot give up the capabilities: {0}")]
    Drop(io::Error),
    /// No signals.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The mark by which a held namespace is known.
    #[error("another selvedge-init holds this network namespace already: one is enough")]
    HeldAlready,
    /// The same mark could not be set for another reason.
    #[error("cannot mark this network namespace as held: {0}")]
    Mark(io::Error),
    /// The answer to `--held`.
    #[error("no selvedge-init holds this network namespace: see the log of the container that runs --hold")]
    NotHeld,
}
