//! `selvedge certs`: certificates for local mTLS, usable with openssl and curl and no mesh. (Its `rotate-root`, which replaces
//! a mesh's root, is in [`rotate`].)
//!
//! They are the mesh's own kind: what is issued here differs from what a control plane issues only in who asked.

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use selvedge_certs::{
    CertificateDer, DnsName, ServerName,
    bundle::Bundle,
    ca::Authority,
    facts::{Facts, Utc, fingerprint},
    files,
    verify::{self, PeerError, Role},
};
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_ops::plain;

use crate::rotate;

/// Make and inspect certificates for local mutual TLS, without a mesh; replace a mesh's root
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ca(CaArgs),
    Issue(IssueArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
    RotateRoot(rotate::RotateArgs),
}

/// Make a certificate authority: give ca.pem to everybody, keep ca-key.pem secret
///
/// The directory also gets issuer.pem and issuer-key.pem, which sign the certificates of workloads. They are made again
/// when they are missing or about to expire. An existing CA is never overwritten.
#[derive(Debug, clap::Args)]
struct CaArgs {
    /// The directory to write to; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The trust domain whose identities this authority signs
    #[arg(long, value_name = "NAME", default_value_t)]
    trust_domain: TrustDomain,
}

/// Make a key and a certificate for one identity: cert.pem (the chain) and key.pem
///
/// The certificate is valid for servers and for clients. Run the command again to renew: it replaces both files.
#[derive(Debug, clap::Args)]
struct IssueArgs {
    /// The directory that `selvedge certs ca` wrote
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The identity: spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: SpiffeId,
    /// A DNS name to put into the certificate, for clients that check names, such as curl; repeatable
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    dns: Vec<DnsName<'static>>,
    /// An IP address to put into the certificate; repeatable
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// How long the certificate is valid, such as 90s, 24h or 30days; never longer than its issuer
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    ttl: humantime::Duration,
    /// The directory to write to; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Print what the certificates in a PEM file say
#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The PEM file
    file: PathBuf,
}

/// Check that a trusted CA signed a certificate and that it names one identity; exit status 1 if not
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The roots to trust, a PEM file such as ca.pem
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The chain to check, a PEM file such as cert.pem: the workload's certificate first
    file: PathBuf,
}

/// Runs `selvedge certs`.
///
/// # Errors
/// What failed, with which file, and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let mut out = io::stdout().lock();
    match args.command {
        Command::Ca(args) => make_authority(&args, &mut out),
        Command::Issue(args) => issue(&args, now, &mut out),
        Command::Inspect(args) => inspect(&args.file, now, &mut out),
        Command::Verify(args) => check(&args, now, &mut out),
        Command::RotateRoot(args) => {
            drop(out);
            rotate::run(&args)
        }
    }
}

fn make_authority(args: &CaArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let authority = Authority::create(&args.out, &args.trust_domain)?;
    let bundle = authority.bundle();
    writeln!(out, "made a CA for trust domain {} in {}", bundle.trust_domain, args.out.display())?;
    writeln!(out, "  ca.pem      give it to everybody; SHA-256 {}", fingerprint(&bundle.roots[0]))?;
    writeln!(out, "  ca-key.pem  keep it secret")?;
    Ok(())
}

fn issue(args: &IssueArgs, now: SystemTime, out: &mut impl Write) -> anyhow::Result<()> {
    let authority = Authority::load(&args.ca).with_context(|| {
        format!("no usable CA in {}; make one with selvedge certs ca --out DIR", args.ca.display())
    })?;
    let names: Vec<ServerName<'static>> = args
        .dns
        .iter()
        .cloned()
        .map(ServerName::DnsName)
        .chain(args.ip.iter().map(|ip| ServerName::IpAddress((*ip).into())))
        .collect();
    let leaf = authority
        .issue(&args.identity, &names, *args.ttl, now)
        .with_context(|| format!("no certificate from {}", args.ca.display()))?;

    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let (certificate, key) = (args.out.join("cert.pem"), args.out.join("key.pem"));
    files::write_secret(&key, files::key_to_pem(&leaf.key).as_bytes())?;
    files::write_public(&certificate, files::certificates_to_pem(&leaf.chain).as_bytes())?;

    writeln!(out, "issued {} until {}", leaf.identity, Utc(leaf.not_after))?;
    if leaf.not_after + Duration::from_secs(1) < now + *args.ttl {
        writeln!(out, "  shorter than requested, because it cannot outlive its issuer")?;
    }
    writeln!(out, "  certificate  {} (the chain: its own, then its issuer's)", certificate.display())?;
    writeln!(out, "  private key  {} (only you can read it)", key.display())?;
    Ok(())
}

fn inspect(file: &Path, now: SystemTime, out: &mut impl Write) -> anyhow::Result<()> {
    let certificates = files::read_certificates(file)?;
    for (index, der) in certificates.iter().enumerate() {
        let position = index + 1;
        let facts =
            Facts::parse(der).with_context(|| format!("{}, certificate {position}", file.display()))?;
        writeln!(out, "certificate {position} of {}", certificates.len())?;
        for (label, value) in described(&facts, now) {
            writeln!(out, "  {label:<13} {}", plain(&value))?;
        }
        writeln!(out, "  {:<13} {}", "SHA-256", fingerprint(der))?;
    }
    Ok(())
}

fn described(facts: &Facts, now: SystemTime) -> Vec<(&'static str, String)> {
    let none_if_empty = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
    let identity = match (facts.authority_trust_domain(), facts.identity()) {
        (Some(trust_domain), _) => ("trust domain", trust_domain.to_string()),
        (None, Ok(identity)) => ("SPIFFE ID", identity.to_string()),
        (None, Err(reason)) => ("SPIFFE ID", format!("(none: {reason})")),
    };
    let mut lines = vec![
        ("subject", none_if_empty(&facts.subject)),
        ("issuer", none_if_empty(&facts.issuer)),
        identity,
        ("URI names", facts.uris.join(", ")),
        ("DNS names", facts.dns.join(", ")),
        ("IP addresses", joined(&facts.ips)),
        ("other names", facts.other_names.join(", ")),
        ("workload", facts.workload.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("serial number", facts.serial.to_string()),
    ];
    // The one URI of a workload or a CA is the line above already.
    let said_already = facts.uris.len() == 1 && !lines[2].1.starts_with('(');
    lines.retain(|(label, value)| !(value.is_empty() || *label == "URI names" && said_already));
    lines.extend([
        ("valid from", validity_start(facts, now)),
        ("valid until", validity_end(facts, now)),
        ("key", facts.key.clone()),
        ("may sign", if facts.is_authority { "yes, it is a CA's".to_owned() } else { "no".to_owned() }),
    ]);
    lines
}

fn validity_start(facts: &Facts, now: SystemTime) -> String {
    match facts.not_before.duration_since(now) {
        Ok(wait) if !wait.is_zero() => {
            format!("{} (not valid yet: in {})", Utc(facts.not_before), rough(wait))
        }
        _ => Utc(facts.not_before).to_string(),
    }
}

fn validity_end(facts: &Facts, now: SystemTime) -> String {
    match facts.not_after.duration_since(now) {
        Ok(left) => format!("{} ({} left)", Utc(facts.not_after), rough(left)),
        Err(past) => format!("{} (expired {} ago)", Utc(facts.not_after), rough(past.duration())),
    }
}

fn check(args: &VerifyArgs, now: SystemTime, out: &mut impl Write) -> anyhow::Result<()> {
    let roots = files::read_certificates(&args.ca)?;
    let chain = files::read_certificates(&args.file)?;
    let file = args.file.display();
    let leaf = Facts::parse(&chain[0]).with_context(|| args.file.display().to_string())?;
    if leaf.is_authority {
        bail!(
            "{file}: the first certificate is a CA's; put the workload's certificate first, then its issuer's"
        );
    }
    let bundle = Bundle::new(trust_domain(&roots, &leaf), roots);
    let peer = verify::peer(&chain, &bundle, now, Role::Server)
        .or_else(|error| match error {
            PeerError::Unfit { .. } => verify::peer(&chain, &bundle, now, Role::Client),
            error => Err(error),
        })
        .map_err(|error| anyhow!("{file} against {}: {error}{}", args.ca.display(), hint(&error, &chain)))?;
    let left = peer.not_after.duration_since(now).unwrap_or_default();
    writeln!(out, "ok: {}, valid until {} ({} left)", peer.identity, Utc(peer.not_after), rough(left))?;
    Ok(())
}

/// A lone certificate is often a chain of which somebody copied only the first.
fn hint(error: &PeerError, chain: &[CertificateDer<'_>]) -> &'static str {
    match error {
        PeerError::Untrusted { .. } if chain.len() == 1 => {
            "; the file has one certificate, so the issuer's may be missing: give the whole chain"
        }
        _ => "",
    }
}

/// The trust domain that the roots name; a foreign root names none, then the leaf's own.
fn trust_domain(roots: &[CertificateDer<'_>], leaf: &Facts) -> TrustDomain {
    let named = roots.iter().find_map(|root| Facts::parse(root).ok()?.authority_trust_domain());
    let leafs = || leaf.identity().ok()?.trust_domain().parse().ok();
    named.or_else(leafs).unwrap_or_default()
}

fn dns_name(text: &str) -> Result<DnsName<'static>, String> {
    DnsName::try_from(text.to_owned()).map_err(|_| {
        format!("{text:?} is not a DNS name; use letters, digits, '-' and '.', without wildcards")
    })
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A duration's two largest units; nobody needs the seconds of a decade.
fn rough(duration: Duration) -> String {
    let exact = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    exact.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        CommandLine::try_parse_from(["certs"].iter().chain(line)).map(|line| line.args)
    }

    #[test]
    fn names_are_checked_before_anything_is_made() {
        let issue = ["issue", "--ca", "a", "--out", "b", "--identity"];
        let good = "spiffe://cluster.local/ns/a/sa/b";

        assert!(parse(&[&issue[..], &[good, "--dns", "localhost", "--ip", "::1"]].concat()).is_ok());
        for wrong in [
            &["spiffe://cluster.local/a"][..],
            &[good, "--dns", "*.example.com"],
            &[good, "--ip", "localhost"],
            &[good, "--ttl", "soon"],
        ] {
            assert!(parse(&[&issue[..], wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_issued_can_be_inspected_and_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let now = SystemTime::now();
        let mut said = Vec::new();
        let ca = CaArgs { out: path("ca"), trust_domain: TrustDomain::default() };
        let leaf = IssueArgs {
            ca: path("ca"),
            identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
            dns: vec![dns_name("localhost").unwrap()],
            ip: vec![[127, 0, 0, 1].into()],
            ttl: Duration::from_secs(7200).into(),
            out: path("web"),
        };

        make_authority(&ca, &mut said).unwrap();
        issue(&leaf, now, &mut said).unwrap();
        inspect(&path("web/cert.pem"), now, &mut said).unwrap();
        check(&VerifyArgs { ca: path("ca/ca.pem"), file: path("web/cert.pem") }, now, &mut said).unwrap();

        let said = String::from_utf8(said).unwrap();
        for expected in [
            "made a CA for trust domain cluster.local",
            "issued spiffe://cluster.local/ns/shop/sa/web until",
            "certificate 2 of 2",
            "DNS names     localhost",
            "IP addresses  127.0.0.1",
            "(1h 59m left)",
            "key           ECDSA P-256",
            "ok: spiffe://cluster.local/ns/shop/sa/web, valid until",
        ] {
            assert!(said.contains(expected), "{expected:?} in:\n{said}");
        }
    }

    #[test]
    fn a_cas_own_certificate_is_not_a_workloads() {
        let directory = tempfile::tempdir().unwrap();
        Authority::create(directory.path(), &TrustDomain::default()).unwrap();
        let args =
            VerifyArgs { ca: directory.path().join("ca.pem"), file: directory.path().join("issuer.pem") };

        let error = check(&args, SystemTime::now(), &mut Vec::new()).unwrap_err().to_string();

        assert!(error.contains("issuer.pem: the first certificate is a CA's;"), "{error}");
    }

    #[test]
    fn a_duration_is_told_in_two_units() {
        assert_eq!(rough(Duration::from_secs(86_399)), "23h 59m");
        assert_eq!(rough(Duration::from_millis(1999)), "1s");
        assert_eq!(rough(Duration::ZERO), "0s");
    }
}
