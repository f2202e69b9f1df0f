//! `selvedge revoke`: refuse a workload whose certificate is still valid.
//!
//! It only makes a document: a file beside the other documents, or for a cluster printed for `kubectl apply -f -`. A
//! document can be read, kept, and deleted to end the revocation.

use std::{
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use selvedge_certs::facts::Utc;
use selvedge_model::{Serial, SpiffeId, WorkloadName};
use serde_json::{Value, json};

use crate::install;

/// Refuse a workload whose certificate is still valid, and close its connections
///
/// This makes a Revocation, and every proxy learns of it. New connections from and to a revoked workload are refused. Its
/// open connections are closed within seconds. It gets no more certificates. Delete the document to end the revocation.
/// With --config-dir the document is written to a file there; otherwise it is printed, for `kubectl apply -f -`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("whom").required(true).multiple(true)
    .args(["identity", "service_account", "workload", "serial"])))]
pub struct Args {
    #[allow(rustdoc::invalid_html_tags)] // `--help` shows it as it is written.
    /// Every workload with this identity: spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>; repeatable
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: Vec<SpiffeId>,

    /// Every workload of this service account; repeatable
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service_account: Vec<WorkloadName>,

    /// Every holder of a certificate for this workload; repeatable
    ///
    /// If the workload's token is for its whole service account (created without --workload), the workload can come back
    /// under another name: revoke the identity then.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: Vec<WorkloadName>,

    /// Every holder of the certificate with this serial number, as `selvedge certs inspect` prints it; repeatable
    #[arg(long, value_name = "HEX")]
    serial: Vec<Serial>,

    /// How long the revocation holds, such as 24h. The lifetime of certificates is enough if the holder cannot get a new
    /// certificate; default: until the document is deleted
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,

    /// The reason; it appears in the logs of the proxies that refuse
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// The document's name; default: made from the identities, workloads and serial numbers
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The document's namespace; outside the control plane's and the root namespace, it affects only its own namespace
    #[arg(long, short, value_name = "NAMESPACE", default_value = install::NAMESPACE, value_parser = install::namespace)]
    namespace: String,

    /// Write the document into this directory instead of printing it; an existing file is never overwritten
    #[arg(long, env = "SELVEDGE_CONFIG_DIR", value_name = "DIR")]
    config_dir: Option<PathBuf>,
}

/// Writes or prints the document.
///
/// # Errors
/// If the name cannot be one, or the file exists already or cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    let name = name(&args)?;
    let text = serde_saphyr::to_string(&document(&args, &name, SystemTime::now())?)?;
    let mut out = io::stdout().lock();
    match &args.config_dir {
        None => out.write_all(text.as_bytes())?,
        Some(directory) => {
            let path = write(directory, &name, &text)?;
            writeln!(out, "wrote {}; delete the file to end the revocation", path.display())?;
        }
    }
    Ok(())
}

/// The longest name of an object in a cluster (RFC 1123, a subdomain).
const LONGEST_NAME: usize = 253;

/// The document's name: what was given, or words made of all whom it names. Nobody else has the same: one that replaced
/// another's (as `kubectl apply` does) would let that one in again.
fn name(args: &Args) -> anyhow::Result<String> {
    let name = args.name.clone().unwrap_or_else(|| named(args));
    if name.len() > LONGEST_NAME && args.name.is_none() {
        bail!(
            "a name made from everything that this document revokes is too long; choose a name (--name), or make several documents"
        );
    }
    WorkloadName::new(&args.namespace, &name).with_context(|| format!("--name {name}"))?;
    Ok(name)
}

fn named(args: &Args) -> String {
    let identities = args
        .identity
        .iter()
        .map(|id| format!("identity.{}.{}.{}", id.trust_domain(), id.namespace(), id.service_account()));
    let of = |kind, name: &WorkloadName| format!("{kind}.{}.{}", name.namespace(), name.name());
    let accounts = args.service_account.iter().map(|name| of("account", name));
    let workloads = args.workload.iter().map(|name| of("workload", name));
    let serials = args.serial.iter().map(|serial| format!("serial.{serial}"));
    let mut all: Vec<String> = identities.chain(accounts).chain(workloads).chain(serials).collect();
    all.sort_unstable();
    all.dedup();
    all.join(".and.")
}

fn document(args: &Args, name: &str, now: SystemTime) -> anyhow::Result<Value> {
    let by_id = args.identity.iter().map(|identity| json!({ "spiffeId": identity }));
    let by_account = args
        .service_account
        .iter()
        .map(|account| json!({ "namespace": account.namespace(), "serviceAccount": account.name() }));
    let mut spec = json!({});
    let identities: Vec<Value> = by_id.chain(by_account).collect();
    if !identities.is_empty() {
        spec["identities"] = json!(identities);
    }
    if !args.workload.is_empty() {
        spec["workloads"] = json!(args.workload);
    }
    if !args.serial.is_empty() {
        // As text also where all digits are decimal ones.
        spec["serials"] = json!(args.serial.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    if let Some(lasts) = args.lasts {
        let until = now.checked_add(lasts).context("--for: is too long")?;
        spec["until"] = json!(Utc(until).to_string());
    }
    if let Some(reason) = &args.reason {
        spec["reason"] = json!(reason);
    }
    Ok(json!({
        "apiVersion": "selvedge.io/v1alpha1",
        "kind": "Revocation",
        "metadata": { "name": name, "namespace": args.namespace },
        "spec": spec,
    }))
}

/// Beside it first, under a name that is not read, then under its own: it is never read half.
fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(format!("revocation-{name}.yaml"));
    let failed = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(".revocation-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists already; delete it first, or choose another --name", path.display())
        }
        Err(error) => Err(error.error).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use selvedge_control_plane::resources::{DecodeOutcome, Resource, decode};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn args(given: &[&str]) -> Args {
        Program::try_parse_from(["revoke"].iter().chain(given)).unwrap().args
    }

    #[test]
    fn what_is_written_is_what_the_control_plane_reads() {
        let args = args(&[
            "--identity=spiffe://cluster.local/ns/shop/sa/a",
            "--service-account=shop/b",
            "--workload=shop/c-1",
            "--serial=0123",
            "--for=24h",
            "--reason=a: \"key\" # leaked",
        ]);
        let directory = tempfile::tempdir().unwrap();
        let name = name(&args).unwrap();
        assert_eq!(
            name,
            "account.shop.b.and.identity.cluster.local.shop.a.and.serial.123.and.workload.shop.c-1"
        );
        let text = serde_saphyr::to_string(&document(&args, &name, SystemTime::now()).unwrap()).unwrap();

        let path = write(directory.path(), &name, &text).unwrap();

        assert_eq!(path.file_name().unwrap(), format!("revocation-{name}.yaml").as_str());
        let decoded = decode(&text, &Arc::from(path.as_path()), "default");
        assert_eq!(decoded[0].problems, [], "{text}");
        let DecodeOutcome::Understood(Resource::Revocation(read)) = &decoded[0].outcome else {
            panic!("{decoded:?}")
        };
        assert_eq!((read.spec.identities.len(), read.spec.workloads.len()), (2, 1));
        assert_eq!(read.spec.serials, ["123".parse().unwrap()]);
        assert_eq!(read.spec.reason.as_deref(), Some("a: \"key\" # leaked"));
        assert!(read.spec.until.unwrap() > SystemTime::now() + Duration::from_secs(86_000));

        let again = write(directory.path(), &name, &text).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
    }

    /// In a cluster the second document would take the first one's place, and let in whom that had shut out.
    #[test]
    fn no_document_takes_the_place_of_one_about_somebody_else() {
        let whom: [&[&str]; 9] = [
            &["--service-account=shop/a"],
            &["--workload=shop/a"],
            &["--identity=spiffe://cluster.local/ns/shop/sa/a"],
            &["--identity=spiffe://elsewhere/ns/shop/sa/a"],
            &["--service-account=shop-a/b"],
            &["--service-account=shop/a-b"],
            &["--service-account=shop/a", "--workload=shop/b"],
            &["--service-account=shop/a", "--service-account=shop/b"],
            &["--serial=4fa0"],
        ];
        let names: std::collections::BTreeSet<_> =
            whom.iter().map(|whom| name(&args(whom)).unwrap()).collect();
        assert_eq!(names.len(), whom.len(), "{names:?}");

        let again = args(&["--workload=shop/b", "--service-account=shop/a", "--for=1h", "--reason=other"]);
        assert!(names.contains(&name(&again).unwrap()), "but of one about the same");
        let many: Vec<String> = (0..20).map(|number| format!("--workload=shop/reviews-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(name(&args(&many)).unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn somebody_must_be_named_and_the_name_must_be_one() {
        assert!(Program::try_parse_from(["revoke"]).is_err());
        assert!(name(&args(&["--serial=4fa0", "--name=Not/One"])).is_err());
    }
}
