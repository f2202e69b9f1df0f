//! `selvedge token`: join tokens, by which a workload outside Kubernetes gets its first certificate.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use selvedge_certs::ca::Authority;
use selvedge_control_plane::{
    cluster::Cluster,
    data_dir::DataDir,
    serve::attestation::{self, Grant, TokenKey},
};
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName};

/// Create join tokens, with which workloads get their first certificate
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(CreateArgs),
}

/// Create a token, and print only the token on standard output
///
/// This works before the control plane's first start: it makes the CA and the token key if they are missing.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The control plane's data directory
    #[arg(long, env = "SELVEDGE_DATA_DIR", value_name = "DIR", required_unless_present = "kubernetes")]
    data_dir: Option<PathBuf>,

    /// Use it if the control plane runs in a Kubernetes cluster: the key of join tokens is in a Secret there
    #[arg(long)]
    kubernetes: bool,

    /// The kubeconfig of that cluster; default: KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,

    /// The control plane's namespace in that cluster
    #[arg(long, value_name = "NAMESPACE", default_value = "selvedge")]
    control_plane_namespace: String,

    /// The workload's namespace
    #[arg(long)]
    namespace: String,

    /// The workload's service account
    #[arg(long)]
    service_account: String,

    /// The only workload that may use the token, as NAMESPACE/NAME; default: every workload of the service account
    #[arg(long)]
    workload: Option<WorkloadName>,

    /// How long the token can be used
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,

    /// The token can be used only once; not available in a cluster, where several replicas check tokens
    #[arg(long, conflicts_with = "kubernetes")]
    once: bool,

    /// The trust domain: the first part of every identity
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", default_value_t)]
    trust_domain: TrustDomain,
}

/// Runs `selvedge token`.
///
/// # Errors
/// If the data directory cannot be used, or no such token can be made.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create(args) => {
            let token = create(&args)?;
            writeln!(io::stdout(), "{token}")?;
            Ok(())
        }
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<String> {
    let identity = SpiffeId::new(&args.trust_domain, &args.namespace, &args.service_account)
        .context("--namespace and --service-account")?;
    let grant = Grant { identity, workload: args.workload.clone(), ttl: args.ttl, once: args.once };
    let (authority, key) = match &args.data_dir {
        Some(data_dir) if !args.kubernetes => open(data_dir, &args.trust_domain)?,
        _ => from_cluster(args)?,
    };
    Ok(attestation::create(&key, &grant, authority.root_sha256(), SystemTime::now())?)
}

fn open(data_dir: &Path, trust_domain: &TrustDomain) -> anyhow::Result<(Authority, TokenKey)> {
    let data = DataDir::open(data_dir)?;
    let authority = Authority::load_or_create(data.path(), trust_domain).context("the CA in --data-dir")?;
    Ok((authority, TokenKey::load_or_create(data.path())?))
}

/// The same out of a cluster's Secrets.
fn from_cluster(args: &CreateArgs) -> anyhow::Result<(Authority, TokenKey)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kubeconfig = args.kubeconfig.as_deref();
        let cluster = Cluster::open(kubeconfig, &args.control_plane_namespace, None).await?;
        Ok((cluster.authority(&args.trust_domain).await?, cluster.token_key().await?))
    })
}

#[cfg(test)]
mod tests {
    use selvedge_control_plane::serve::attestation::Attestor;

    use super::*;

    fn args(data_dir: &Path) -> CreateArgs {
        CreateArgs {
            data_dir: Some(data_dir.to_owned()),
            kubernetes: false,
            kubeconfig: None,
            control_plane_namespace: "selvedge".into(),
            namespace: "shop".into(),
            service_account: "reviews".into(),
            workload: None,
            ttl: Duration::from_secs(60),
            once: false,
            trust_domain: TrustDomain::default(),
        }
    }

    #[test]
    fn a_token_made_before_the_first_start_is_good_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("data");

        let token = create(&args(&data_dir)).unwrap();

        let started = Authority::load_or_create(&data_dir, &TrustDomain::default()).unwrap();
        let attestor = Attestor::open(&data_dir, started.trust_domain()).unwrap();
        let proof = attestor.verify(&token, SystemTime::now()).unwrap();
        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let parent = tempfile::tempdir().unwrap();

        let name = create(&CreateArgs { namespace: "Shop".into(), ..args(parent.path()) }).unwrap_err();
        assert!(name.to_string().contains("--namespace"), "{name}");

        create(&args(parent.path())).unwrap();
        let other = CreateArgs { trust_domain: "other.example".parse().unwrap(), ..args(parent.path()) };
        let other = format!("{:#}", create(&other).unwrap_err());
        assert!(other.contains("--trust-domain cluster.local"), "{other}");
    }
}
