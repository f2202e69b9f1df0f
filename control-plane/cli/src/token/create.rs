//! `selvedge token create`.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use selvedge_control_plane::serve::attestation::{self, Grant};
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName};

use super::place::PlaceArgs;
use crate::cluster;

/// Create a token, and print only the token on standard output
///
/// This works before the control plane's first start: it makes the CA and the token key if they are missing.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    place: PlaceArgs,

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

pub(super) fn run(args: &CreateArgs) -> anyhow::Result<()> {
    let token = cluster::runtime()?.block_on(crate::patience::patiently(create(args)))?;
    writeln!(io::stdout(), "{token}")?;
    Ok(())
}

async fn create(args: &CreateArgs) -> anyhow::Result<String> {
    let identity = SpiffeId::new(&args.trust_domain, &args.namespace, &args.service_account)
        .context("--namespace and --service-account")?;
    let grant = Grant { identity, workload: args.workload.clone(), ttl: args.ttl, once: args.once };
    let (place, now) = (args.place.open().await?, SystemTime::now());
    let root = place.authority(&args.trust_domain).await?.root_sha256();
    let (token, record) = attestation::create(&place.key().await?, &grant, root, now)?;
    // First, so that no token is in use that cannot be listed.
    place.records().write(&record, now).await.context("the record of the token")?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use selvedge_certs::ca::Authority;
    use selvedge_control_plane::serve::attestation::Attestor;

    use super::*;

    fn args(data_dir: &Path) -> CreateArgs {
        CreateArgs {
            place: PlaceArgs {
                data_dir: Some(data_dir.to_owned()),
                kubernetes: false,
                kubeconfig: None,
                control_plane_namespace: "selvedge".into(),
            },
            namespace: "shop".into(),
            service_account: "reviews".into(),
            workload: None,
            ttl: Duration::from_secs(60),
            once: false,
            trust_domain: TrustDomain::default(),
        }
    }

    #[tokio::test]
    async fn a_token_made_before_the_first_start_is_good_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("data");

        let token = create(&args(&data_dir)).await.unwrap();

        let started = Authority::load_or_create(&data_dir, &TrustDomain::default()).unwrap();
        let attestor = Attestor::open(&data_dir, started.trust_domain()).unwrap();
        let proof = attestor.verify(&token, SystemTime::now()).unwrap();
        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        attestor.check_revoked(&proof).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_is_named() {
        let parent = tempfile::tempdir().unwrap();

        let name = create(&CreateArgs { namespace: "Shop".into(), ..args(parent.path()) }).await.unwrap_err();
        assert!(name.to_string().contains("--namespace"), "{name}");

        create(&args(parent.path())).await.unwrap();
        let other = CreateArgs { trust_domain: "other.example".parse().unwrap(), ..args(parent.path()) };
        let other = format!("{:#}", create(&other).await.unwrap_err());
        assert!(other.contains("--trust-domain cluster.local"), "{other}");
    }
}
