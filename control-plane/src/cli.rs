//! The control plane's settings: command-line flags, each also an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use selvedge_model::TrustDomain;
use selvedge_ops::LogArgs;

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

    /// The directory of YAML and JSON documents; changes are picked up while it runs. Needed with --source
    /// directory, and of no use with another.
    #[arg(
        long,
        env = "SELVEDGE_CONFIG_DIR",
        value_name = "DIR",
        required_unless_present = "source",
        required_if_eq("source", "directory")
    )]
    pub config_dir: Option<PathBuf>,

    /// With --source kubernetes, the kubeconfig that says where the API server is. Without it: that which
    /// KUBECONFIG or ~/.kube/config names, else the pod's own ServiceAccount.
    #[arg(long, env = "SELVEDGE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The control plane's own namespace, whose Revocations count for the whole mesh; with --source kubernetes
    /// also that of its own objects: its CA's Secret, its Lease, its Service.
    #[arg(long, env = "SELVEDGE_NAMESPACE", value_name = "NAMESPACE", default_value = "selvedge")]
    pub namespace: String,

    /// With --source kubernetes, what tells this replica from the others: the name of its pod. Without it
    /// the host's name, which is the same inside a pod.
    #[arg(long, env = "SELVEDGE_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// With --source kubernetes, who says whose a ServiceAccount token is.
    #[arg(long, env = "SELVEDGE_TOKEN_VERIFICATION", value_name = "HOW", default_value = "tokenreview")]
    pub token_verification: TokenVerification,

    /// Where the CA, the token key and last good documents are kept; made if it is missing. With --source
    /// kubernetes the CA is in a Secret, and a directory that lives as long as the pod will do.
    #[arg(long, env = "SELVEDGE_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// A directory in which every workload that has a sidecar finds a fresh join token: the file NAMESPACE/NAME; or
    /// NAMESPACE/NAME/token, where NAMESPACE/NAME is a directory, such as a volume that only its sidecar has besides.
    #[arg(long, env = "SELVEDGE_TOKEN_DIR", value_name = "DIR")]
    pub token_dir: Option<PathBuf>,

    /// Where proxies get certificates and configuration, as IP:PORT.
    #[arg(long, env = "SELVEDGE_LISTEN", default_value = "[::]:8086")]
    pub listen: SocketAddr,

    /// Where /live, /ready and /metrics are answered, as IP:PORT; everything else there only to loopback.
    #[arg(long, env = "SELVEDGE_ADMIN", default_value = "127.0.0.1:9990")]
    pub admin: SocketAddr,

    /// The first part of every identity. Cannot be changed once there is a CA.
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", default_value_t)]
    pub trust_domain: TrustDomain,

    /// The DNS suffix of services, as in reviews.default.svc.cluster.local.
    #[arg(long, env = "SELVEDGE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The namespace of documents that name none.
    #[arg(long, env = "SELVEDGE_DEFAULT_NAMESPACE", default_value = "default")]
    pub default_namespace: String,

    /// The namespace whose policies count for the whole mesh.
    #[arg(long, env = "SELVEDGE_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,

    /// Whose VirtualServices count for a host: those that are exported to the client, whatever namespace they are in,
    /// as in Istio (exported); or those of the host's own namespace and of --root-namespace, and in any other
    /// namespace only for its own clients (namespace).
    #[arg(long, env = "SELVEDGE_ROUTE_OWNERSHIP", value_name = "WHOSE", default_value = "exported")]
    pub route_ownership: RouteOwnership,

    /// The longest lifetime of a workload's certificate, whatever is asked for.
    #[arg(
        long,
        env = "SELVEDGE_MAX_CERTIFICATE_TTL",
        default_value = "24h",
        value_parser = humantime::parse_duration
    )]
    pub max_certificate_ttl: Duration,

    /// How long a workload that is in no document (any more) still gets certificates, and how long they last at most.
    /// Afterwards its certificate is not renewed. Long enough for a file that is being replaced, and for a control
    /// plane that has just started; 0s: only who is in a document gets one.
    #[arg(
        long,
        env = "SELVEDGE_MEMBERSHIP_GRACE",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = humantime::parse_duration
    )]
    pub membership_grace: Duration,

    /// Time between two looks at the directory; a changed file counts once two looks saw it the same.
    #[arg(long, env = "SELVEDGE_POLL_INTERVAL", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub poll_interval: Duration,

    /// How long changes must pause before they are acted on; ten times this is the longest wait.
    #[arg(long, env = "SELVEDGE_DEBOUNCE", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub debounce: Duration,

    /// With --source kubernetes, where the API server calls us.
    #[command(flatten)]
    pub webhook: WebhookArgs,

    /// With --source kubernetes, what pods are injected with.
    #[command(flatten)]
    pub inject: InjectArgs,

    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,

    /// Exit when standard input closes, so that a parent's death takes this process along.
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
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
