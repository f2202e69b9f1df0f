//! `selvedge inject`: the webhook's patch on manifests, for clusters without the webhook and for GitOps.

use selvedge_control_plane::inject::{Decision, InjectArgs, InjectionSettings, NamespaceFacts, decide};
use selvedge_model::TrustDomain;
use serde_json::Value;

use crate::manifests::{self, ChangeOutcome, Input};

/// Put sidecars into the pods of manifests, and print the manifests
///
/// This changes Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, ReplicationControllers, and
/// lists of them. Every other document is printed unchanged. Standard error says for each document what was done. The
/// annotations config.selvedge.io/NAME of pods have the same effect as with the webhook.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    inject: InjectArgs,
    /// The SHA-256 of the control plane's root certificate, in hexadecimal, from the ConfigMap selvedge-trust-roots
    #[arg(
        long,
        env = "SELVEDGE_TRUST_ROOTS",
        value_name = "SHA256",
        value_delimiter = ',',
        required = true,
        value_parser = sha256
    )]
    trust_roots: Vec<String>,
    /// The control plane's trust domain
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", value_name = "NAME", default_value_t)]
    trust_domain: TrustDomain,
    /// The namespace of the control plane
    #[arg(long, env = "SELVEDGE_NAMESPACE", value_name = "NAMESPACE", default_value = "selvedge")]
    namespace: String,
}

/// Injects.
///
/// # Errors
/// If something cannot be read, or a pod has a setting that cannot be meant; then nothing is printed.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.inject.settings(args.trust_roots.clone(), args.trust_domain.clone(), &args.namespace);
    manifests::change(&args.input, |pod, namespace| inject(pod, namespace, &settings))
}

fn inject(pod: &mut Value, namespace: &str, settings: &InjectionSettings) -> (ChangeOutcome, Vec<String>) {
    let namespace = NamespaceFacts { name: namespace.to_owned(), ..NamespaceFacts::default() };
    match decide(pod, &namespace, settings, true) {
        Err(refused) => (ChangeOutcome::Refused(refused.to_string()), Vec::new()),
        Ok(Decision::Skip { reason, .. }) => (ChangeOutcome::Kept(reason.to_string()), Vec::new()),
        Ok(Decision::Inject { patch, warnings }) => match apply(pod, &patch) {
            Ok(()) => (ChangeOutcome::Changed, warnings),
            Err(error) => (ChangeOutcome::Refused(format!("the patch does not fit: {error}")), Vec::new()),
        },
    }
}

fn apply(pod: &mut Value, patch: &[selvedge_control_plane::inject::Operation]) -> anyhow::Result<()> {
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch)?)?;
    Ok(json_patch::patch(pod, &patch)?)
}

fn sha256(text: &str) -> Result<String, &'static str> {
    let hex = text.trim().replace(':', "");
    match hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(hex),
        false => Err("a SHA-256 is 64 hexadecimal digits, as in the ConfigMap selvedge-trust-roots"),
    }
}
