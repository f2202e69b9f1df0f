//! What the injector puts into every pod, unless the pod or its namespace says otherwise.

use std::{collections::BTreeMap, str::FromStr};

use selvedge_kubernetes::Version;
use selvedge_model::TrustDomain;

use super::{
    INIT_CONTAINER, PROXY_CONTAINER, PROXY_UID,
    annotations::{self, PREFIX},
};

/// How sidecars are put into pods.
#[derive(Debug, Clone, clap::Args)]
pub struct InjectArgs {
    /// The registry of the images that are injected, as in registry.example/mesh. Default: image names without a registry.
    #[arg(long, env = "SELVEDGE_IMAGE_REGISTRY", value_name = "PREFIX")]
    pub image_registry: Option<String>,

    /// The tag of the images that are injected.
    #[arg(long, env = "SELVEDGE_IMAGE_TAG", value_name = "TAG", default_value = selvedge_ops::build::VERSION)]
    pub image_tag: String,

    /// The image of the sidecars that are injected. Default: selvedge-proxy, with the registry and the tag.
    #[arg(long, env = "SELVEDGE_PROXY_IMAGE", value_name = "IMAGE")]
    pub proxy_image: Option<String>,

    /// The image of `selvedge-init`, which redirects a pod's connections to its sidecar. Default: selvedge-init, with
    /// the registry and the tag.
    #[arg(long, env = "SELVEDGE_INIT_IMAGE", value_name = "IMAGE")]
    pub init_image: Option<String>,

    /// Names of Secrets for pulling the injected images, separated by commas. Each Secret must be in the pod's own
    /// namespace.
    #[arg(long, env = "SELVEDGE_IMAGE_PULL_SECRETS", value_name = "NAMES", value_parser = pull_secrets)]
    pub image_pull_secrets: Option<String>,

    /// When both images are pulled.
    #[arg(
        long,
        env = "SELVEDGE_IMAGE_PULL_POLICY",
        value_name = "POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub image_pull_policy: String,

    /// Whether sidecars are native: init containers that keep running. With native sidecars, jobs complete, and a pod's
    /// own init containers are in the mesh. Otherwise sidecars are ordinary containers.
    #[arg(long, env = "SELVEDGE_NATIVE_SIDECARS", value_name = "WHETHER", default_value = "auto")]
    pub native_sidecars: NativeSidecars,

    /// The control plane's address for injected sidecars, as HOST:PORT.
    /// Default: port 8086 of the Service selvedge-control-plane in the control plane's namespace.
    #[arg(long, env = "SELVEDGE_PROXY_CONTROL_PLANE", value_name = "HOST:PORT")]
    pub proxy_control_plane: Option<String>,

    /// A default for a setting of pods (an annotation `config.selvedge.io/NAME`), such as `log-level=warn`. A pod's or
    /// namespace's own annotation overrides it. Repeatable.
    #[arg(long, env = "SELVEDGE_INJECT_DEFAULTS", value_name = "NAME=VALUE", value_delimiter = ';', value_parser = preset)]
    pub inject_default: Vec<Preset>,
}

/// Whether sidecars are native, where neither the pod nor its namespace says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NativeSidecars {
    /// Native, unless the cluster is known to be older than Kubernetes 1.29.
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

impl NativeSidecars {
    fn on(self, cluster: Option<Version>) -> bool {
        match self {
            Self::Auto => cluster.is_none_or(|version| version >= Version::SIDECARS),
            Self::True => true,
            Self::False => false,
        }
    }
}

/// A setting and its value, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    name: &'static str,
    value: String,
}

/// What holds where neither the pod nor its namespace says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectionSettings {
    /// Where injected sidecars find the control plane.
    pub control_plane: String,
    /// The SHA-256 of each root that sidecars first trust it by, in hexadecimal.
    pub trust_roots: Vec<String>,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The group that a pod's proxy runs as, by which the rules tell its connections from the app's, besides its user.
    pub proxy_group: u32,
    /// The version that is written on injected pods.
    pub version: &'static str,
    /// The settings, by name.
    pub(super) defaults: BTreeMap<&'static str, String>,
}

impl InjectArgs {
    /// The settings, for a control plane in `namespace` whose roots have the SHA-256s `trust_roots`; for a
    /// cluster that nobody has asked for its version.
    pub fn settings(
        &self,
        trust_roots: Vec<String>,
        trust_domain: TrustDomain,
        namespace: &str,
    ) -> InjectionSettings {
        self.settings_on(None, trust_roots, trust_domain, namespace)
    }

    /// The same, for a cluster of this version.
    pub fn settings_on(
        &self,
        cluster: Option<Version>,
        trust_roots: Vec<String>,
        trust_domain: TrustDomain,
        namespace: &str,
    ) -> InjectionSettings {
        let native = if self.native_sidecars.on(cluster) { "enabled" } else { "disabled" };
        let mut defaults = BTreeMap::from([
            ("proxy-image", self.image(PROXY_CONTAINER, self.proxy_image.as_ref())),
            ("init-image", self.image(INIT_CONTAINER, self.init_image.as_ref())),
            ("image-pull-policy", self.image_pull_policy.clone()),
            ("native-sidecar", native.to_owned()),
            // Without a request of every container, a HorizontalPodAutoscaler by utilisation has nothing to
            // divide by, and stops.
            ("proxy-cpu-request", "10m".to_owned()),
            ("proxy-memory-request", "32Mi".to_owned()),
        ]);
        defaults.extend(self.image_pull_secrets.iter().map(|names| ("image-pull-secrets", names.clone())));
        defaults.extend(self.inject_default.iter().map(|Preset { name, value }| (*name, value.clone())));
        InjectionSettings {
            control_plane: match &self.proxy_control_plane {
                Some(address) => address.clone(),
                None => format!("{}:8086", service_name(namespace)),
            },
            trust_roots,
            trust_domain,
            proxy_group: PROXY_UID,
            version: selvedge_ops::build::VERSION,
            defaults,
        }
    }

    /// `given`, or the image `name` of the registry, with the tag.
    fn image(&self, name: &str, given: Option<&String>) -> String {
        match (given, self.image_registry.as_deref().map(|registry| registry.trim_end_matches('/'))) {
            (Some(given), _) => given.clone(),
            (None, None | Some("")) => format!("{name}:{}", self.image_tag),
            (None, Some(registry)) => format!("{registry}/{name}:{}", self.image_tag),
        }
    }
}

impl InjectionSettings {
    /// The same for one pod, whose proxy has a group of its own: no image is made for it, and no setuid program leads to
    /// it. Below 65536, since user namespaces may have no others.
    #[must_use]
    pub fn with_own_group(&self) -> Self {
        const FIRST: u32 = 10_000;
        Self { proxy_group: fastrand::u32(FIRST..=u32::from(u16::MAX) - 2), ..self.clone() }
    }

    /// Whether sidecars are native, where neither the pod nor its namespace says so.
    pub fn are_native(&self) -> bool {
        self.defaults.get("native-sidecar").is_some_and(|value| value == "enabled")
    }
}

/// The name of the control plane's Service, for everybody in the cluster.
pub fn service_name(namespace: &str) -> String {
    format!("selvedge-control-plane.{namespace}.svc")
}

fn pull_secrets(text: &str) -> Result<String, String> {
    let setting = annotations::find("image-pull-secrets").ok_or("there is no such setting")?;
    setting.check(text).map(|()| text.to_owned())
}

fn preset(text: &str) -> Result<Preset, String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, such as log-level=warn")?;
    let name = name.trim().strip_prefix(PREFIX).unwrap_or(name.trim());
    let setting = annotations::find(name).ok_or_else(|| annotations::unknown(name))?;
    if setting.acts == annotations::Acts::ControlPlane {
        return Err(format!("{name} is for one app; set it on pods or namespaces"));
    }
    if setting.acts == annotations::Acts::Live {
        let message =
            "is read from pods and namespaces; set it there, or write a Telemetry in the root namespace";
        return Err(format!("{name} {message}"));
    }
    setting.check(value).map_err(|reason| format!("{name}: {reason}"))?;
    Ok(Preset { name: setting.name, value: value.to_owned() })
}

/// An amount of CPU or memory, as Kubernetes writes it (`100m`, `64Mi`, `1e3`, `0.5`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// In billionths, the smallest that Kubernetes knows.
    nanos: u128,
}

impl FromStr for Quantity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "not an amount; write for example 100m of CPU or 64Mi of memory";
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > 18 || fraction.contains('.') {
            return Err(WHAT);
        }
        let digits: u128 = digits.parse().map_err(|_| WHAT)?;
        let unit = unit(suffix).ok_or(WHAT)?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| WHAT)?);
        let nanos = digits.checked_mul(unit).ok_or(WHAT)?.div_ceil(scale);
        Ok(Self { nanos })
    }
}

/// How many billionths a suffix stands for.
fn unit(suffix: &str) -> Option<u128> {
    const ONE: u128 = 1_000_000_000;
    let power = |of: &str| "KMGTPE".find(of).and_then(|place| u32::try_from(place + 1).ok());
    match suffix {
        "" => Some(ONE),
        "n" => Some(1),
        "u" => Some(1_000),
        "m" => Some(1_000_000),
        "k" => Some(ONE * 1_000),
        "M" | "G" | "T" | "P" | "E" => Some(ONE * 1_000_u128.pow(power(suffix)?)),
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => Some(ONE << (10 * power(&suffix[..1])?)),
        _ => {
            let exponent: i8 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => Some(ONE * 10_u128.pow(exponent.unsigned_abs().into())),
                -9..0 => Some(ONE / 10_u128.pow(exponent.unsigned_abs().into())),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
