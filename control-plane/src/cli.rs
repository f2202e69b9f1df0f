//! The control plane's settings: command-line flags, each also an environment variable.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use selvedge_model::TrustDomain;
use selvedge_ops::{LogArgs, ResolverArgs};

use crate::{
    compile::RouteOwnership,
    inject::{InjectArgs, webhook::WebhookArgs},
    serve::attestation::service_account::TokenVerification,
};

/// Where documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceKind {
    /// Files below --config-dir.
    Directory,
    /// The API server of a Kubernetes cluster.
    Kubernetes,
}

/// The control plane: turns YAML into configuration, and issues certificates.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where documents come from: a directory of files, or the API server of a Kubernetes cluster.
    #[arg(long, env = "SELVEDGE_SOURCE", value_name = "SOURCE", default_value = "directory")]
    pub source: SourceKind,

    /// The directory of YAML and JSON documents. Changes take effect while the control plane runs. Required with
    /// --source directory, ignored with any other source.
    #[arg(
        long,
        env = "SELVEDGE_CONFIG_DIR",
        value_name = "DIR",
        required_unless_present = "source",
        required_if_eq("source", "directory")
    )]
    pub config_dir: Option<PathBuf>,

    /// With --source kubernetes, the kubeconfig that says where the API server is. Default: KUBECONFIG or
    /// ~/.kube/config; in a pod, the pod's ServiceAccount.
    #[arg(long, env = "SELVEDGE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The control plane's own namespace. A Revocation in this namespace is for the whole mesh. With --source
    /// kubernetes, the control plane's objects are there too: the Secret of the CA, the Lease, the Service.
    #[arg(long, env = "SELVEDGE_NAMESPACE", value_name = "NAMESPACE", default_value = "selvedge")]
    pub namespace: String,

    /// With --source kubernetes, the name of this replica's pod, which tells it from the other replicas. Default:
    /// the host's name, which inside a pod is the pod's name.
    #[arg(long, env = "SELVEDGE_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// With --source kubernetes, who checks the ServiceAccount tokens of pods.
    #[arg(long, env = "SELVEDGE_TOKEN_VERIFICATION", value_name = "HOW", default_value = "tokenreview")]
    pub token_verification: TokenVerification,

    /// The data directory: it keeps the CA, the key of join tokens and the last good version of each document. It is
    /// made if it is missing. With --source kubernetes the CA is in a Secret, and a directory that is deleted with
    /// the pod is enough.
    #[arg(long, env = "SELVEDGE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// A directory where the control plane keeps a fresh join token for every workload that has a sidecar: the file
    /// NAMESPACE/NAME. If NAMESPACE/NAME is a directory, such as a volume that only this sidecar can read, the file
    /// is NAMESPACE/NAME/token.
    #[arg(long, env = "SELVEDGE_TOKEN_DIR", value_name = "DIR")]
    pub token_dir: Option<PathBuf>,

    /// Where to listen for proxies, which get certificates and configuration there, as IP:PORT.
    #[arg(long, env = "SELVEDGE_LISTEN", default_value = "[::]:8086")]
    pub listen: SocketAddr,

    /// Where the admin port listens, as IP:PORT. It answers /live, /ready and /metrics to everybody, and all other
    /// paths on loopback only.
    #[arg(long, env = "SELVEDGE_ADMIN", default_value = "127.0.0.1:9990")]
    pub admin: SocketAddr,

    /// The trust domain: the first part of every identity. It cannot be changed once there is a CA.
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", default_value_t)]
    pub trust_domain: TrustDomain,

    /// A file of root certificates, in PEM form, of another CA that gives this mesh's workloads their identities: SPIRE's,
    /// for proxies with --workload-api. All proxies accept what leads to one of them, from each other. It is read again
    /// when it changes.
    #[arg(long, env = "SELVEDGE_WORKLOAD_ROOTS", value_name = "FILE")]
    pub workload_roots: Option<PathBuf>,

    /// The DNS suffix of services, as in reviews.default.svc.cluster.local.
    #[arg(long, env = "SELVEDGE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The namespace of documents that do not name a namespace.
    #[arg(long, env = "SELVEDGE_DEFAULT_NAMESPACE", default_value = "default")]
    pub default_namespace: String,

    /// The namespace whose policies are for the whole mesh.
    #[arg(long, env = "SELVEDGE_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,

    /// Which VirtualServices count for a host. exported: all that are exported to the client, from any namespace, as
    /// in Istio. namespace: those in the host's own namespace and in --root-namespace; one in any other namespace
    /// counts only for that namespace's own clients.
    #[arg(long, env = "SELVEDGE_ROUTE_OWNERSHIP", value_name = "WHOSE", default_value = "exported")]
    pub route_ownership: RouteOwnership,

    /// Accept policies of kinds that are not enforced (those of other meshes, and in files
    /// those of Cilium). Without this flag, each is an error, and the webhook refuses it.
    #[arg(long, env = "SELVEDGE_ALLOW_UNENFORCED")]
    pub allow_unenforced: bool,

    /// The longest lifetime of a workload's certificate, even if the workload asks for a longer one.
    #[arg(
        long,
        env = "SELVEDGE_MAX_CERTIFICATE_TTL",
        default_value = "24h",
        value_parser = humantime::parse_duration
    )]
    pub max_certificate_ttl: Duration,

    /// How many certificates one identity (service account) may get in a minute, all at once or one after another. One
    /// that asks for more is refused until a part of the minute has passed. Choose at least the number of pods that one
    /// service account starts at once.
    #[arg(long, env = "SELVEDGE_CERTIFICATES_PER_MINUTE", value_name = "NUMBER", default_value = "600")]
    pub certificates_per_minute: NonZeroU32,

    /// How long a workload still gets certificates after no document declares it any more, or before one does. These
    /// certificates last no longer than this time, and are not renewed after it. Choose it long enough for a file that
    /// is being replaced, and for a control plane that has just started. 0s: a workload gets a certificate only while
    /// a document declares it.
    #[arg(
        long,
        env = "SELVEDGE_MEMBERSHIP_GRACE",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = humantime::parse_duration
    )]
    pub membership_grace: Duration,

    /// How long the keys that a RequestAuthentication names by jwksUri or by its issuer are used before they are fetched
    /// again. After a failure they are fetched sooner: after 1s, then at ever longer intervals up to 1m.
    #[arg(
        long,
        env = "SELVEDGE_JWKS_REFRESH_INTERVAL",
        value_name = "DURATION",
        default_value = "20m",
        value_parser = interval
    )]
    pub jwks_refresh_interval: Duration,

    /// A file of certificate authorities, in PEM form, that the certificates of key servers may be of, instead of those of
    /// the operating system.
    #[arg(long, env = "SELVEDGE_JWKS_CA", value_name = "FILE")]
    pub jwks_ca: Option<PathBuf>,

    /// Where names are looked up.
    #[command(flatten)]
    pub resolver: ResolverArgs,

    /// How often the control plane reads the directory, where the kernel does not tell of changes (inotify); elsewhere it
    /// does so 20 times less often, besides reading what has changed. A changed file counts once two readings in a row are
    /// equal. One that is still being written or has gone counts when it has stayed so for this long.
    #[arg(long, env = "SELVEDGE_POLL_INTERVAL", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub poll_interval: Duration,

    /// How long there must be no further change before changes take effect. The longest wait is ten times this.
    #[arg(long, env = "SELVEDGE_DEBOUNCE", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub debounce: Duration,

    /// With --source kubernetes, where the API server calls the webhooks.
    #[command(flatten)]
    pub webhook: WebhookArgs,

    /// With --source kubernetes, what is injected into pods.
    #[command(flatten)]
    pub inject: InjectArgs,

    /// With --source kubernetes, whether the control plane makes a GatewayClass, and for each Gateway of its classes a
    /// Deployment, a Service, a ServiceAccount and a PodDisruptionBudget.
    #[arg(
        long,
        env = "SELVEDGE_GATEWAYS",
        value_name = "WHETHER",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub gateways: bool,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,

    /// Exit when standard input closes, so that this process ends with its parent.
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
}

/// An interval that does not keep a server busy: 100 ms or more.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match interval < Duration::from_millis(100) {
        true => Err("must be at least 100ms".to_owned()),
        false => Ok(interval),
    }
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

    #[test]
    fn two_directories_are_enough() {
        let args = Program::parse_from(["control-plane", "--config-dir", "c", "--data-dir", "d"]).args;

        assert_eq!(
            (args.listen.to_string(), args.admin.to_string()),
            ("[::]:8086".into(), "127.0.0.1:9990".into())
        );
        assert_eq!(args.max_certificate_ttl, Duration::from_secs(86_400));
        assert_eq!(args.trust_domain, TrustDomain::default());
    }

    #[test]
    fn a_directory_is_asked_for_unless_documents_come_from_elsewhere() {
        let parse = |given: &[&str]| {
            let program = ["control-plane", "--data-dir", "d"];
            Program::try_parse_from(program.iter().chain(given)).map(|program| program.args)
        };

        assert!(parse(&[]).unwrap_err().to_string().contains("--config-dir"));
        assert!(parse(&["--source", "directory"]).unwrap_err().to_string().contains("--config-dir"));
        let args = parse(&["--source", "kubernetes"]).unwrap();
        assert_eq!((args.source, args.config_dir), (SourceKind::Kubernetes, None));
        assert_eq!(args.namespace, "selvedge");
    }

    #[test]
    fn a_trust_domain_is_checked_where_it_is_typed() {
        let wrong = ["control-plane", "--config-dir", "c", "--data-dir", "d", "--trust-domain", "Not/One"];

        let error = Program::try_parse_from(wrong).unwrap_err().to_string();

        assert!(error.contains("is not a trust domain"), "{error}");
    }
}
