//! How a port treats connections without a mesh certificate (`PeerAuthentication`).

use std::{fmt, sync::Arc};

use serde::Serialize;

/// How a port treats connections without a mesh certificate (`PeerAuthentication` `mtls.mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum MtlsMode {
    /// Only peers with a certificate of this mesh.
    Strict,
    /// Both; Istio's default.
    #[default]
    Permissive,
    /// Plaintext only.
    Disable,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        })
    }
}

/// A mode, and the document that set it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct MtlsRule {
    /// The mode.
    pub mode: MtlsMode,
    /// Such as `PeerAuthentication default/default`, or `mesh default`.
    pub name: Arc<str>,
}

impl Default for MtlsRule {
    fn default() -> Self {
        Self { mode: MtlsMode::default(), name: Arc::from("mesh default") }
    }
}
