//! `PeerAuthentication`: whether workloads take mutual TLS only, plaintext too, or plaintext only.

use std::collections::BTreeMap;

use selvedge_model::MtlsMode;
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{Feedback, ISTIO_SECURITY, ResourceKind},
    selector::SelectorYaml,
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("PeerAuthentication", ISTIO_SECURITY, "peerauthentications", Feedback::Conditions)
        .policy()
        .read_as_spec::<Yaml>(|document| document.with_spec_or_default(read));

/// What a `PeerAuthentication` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerAuthenticationSpec {
    /// The labels of the workloads that it is for; empty = all of its namespace (or of the mesh).
    pub selector: BTreeMap<String, String>,
    /// Of one that cannot be used: whether its selector cannot be read, so that it may be for each workload.
    pub any_workload: bool,
    /// The mode; `None` = as the next wider document says.
    pub mode: Option<MtlsMode>,
    /// Modes by workload port; `None` = `mode`.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    selector: SelectorYaml,
    mtls: MtlsYaml,
    port_level_mtls: Option<BTreeMap<String, MtlsYaml>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MtlsYaml {
    mode: ModeWord,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ModeWord {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl ModeWord {
    fn read(self) -> Option<MtlsMode> {
        match self {
            Self::Unset => None,
            Self::Disable => Some(MtlsMode::Disable),
            Self::Permissive => Some(MtlsMode::Permissive),
            Self::Strict => Some(MtlsMode::Strict),
        }
    }
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<PeerAuthenticationSpec, FieldError> {
    let selector = yaml.selector.read(reading)?;
    let mut ports = BTreeMap::new();
    if yaml.port_level_mtls.as_ref().is_some_and(BTreeMap::is_empty) {
        return Err(wrong(
            "spec.portLevelMtls",
            "is empty; remove it, or name a port, such as 8080: {mode: STRICT}",
        ));
    }
    for (port, mtls) in yaml.port_level_mtls.unwrap_or_default() {
        let field = format!("spec.portLevelMtls.{port}");
        let number = port.parse().ok().filter(|number| *number != 0);
        let number =
            number.ok_or_else(|| wrong(&field, format!("{port:?} is not a port; use 1 to 65535")))?;
        ports.insert(number, mtls.mode.read());
    }
    if selector.is_empty() && !ports.is_empty() {
        // As in Istio. Left out, it would open the ports that it was to close.
        return Err(wrong("spec.portLevelMtls", "needs a selector; add selector.matchLabels"));
    }
    Ok(PeerAuthenticationSpec { selector, any_workload: false, mode: yaml.mtls.mode.read(), ports })
}
