//! Which namespace has which addresses, kept across restarts: without it, after a restart the order of files would decide.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use selvedge_certs::files;
use selvedge_model::{
    Mesh,
    snapshot::{OwnedPorts, Owners},
};

/// Its name in the data directory.
const FILE: &str = "address-owners.json";

/// The file, where documents come from files.
#[derive(Debug)]
pub(super) struct KeptOwners(Option<PathBuf>);

impl KeptOwners {
    /// In the data directory `directory`; `None`: nothing is kept.
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self(directory.map(|directory| directory.join(FILE)))
    }

    /// The mesh before the first, of which only this is known.
    pub(super) fn mesh(&self) -> Mesh {
        Mesh { owners: Arc::new(self.read()), ..Mesh::default() }
    }

    fn read(&self) -> Owners {
        let Some(path) = &self.0 else { return Owners::default() };
        if !path.exists() {
            return Owners::default();
        }
        let read = files::read_trusted(path).map_err(|error| error.to_string());
        let kept = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
        let kept: BTreeMap<String, Vec<OwnedPorts>> = kept.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "{UNKNOWN}");
            BTreeMap::new()
        });
        Owners(kept.into_iter().filter_map(|(host, owned)| Some((host.parse().ok()?, owned))).collect())
    }

    /// Keeps those of `mesh`, if they are others than `before`.
    pub(super) fn keep(&self, mesh: &Mesh, before: &Mesh) {
        let Some(path) = self.0.as_ref().filter(|_| mesh.owners != before.owners) else { return };
        let owners: BTreeMap<String, &Vec<OwnedPorts>> =
            mesh.owners.0.iter().map(|(host, owned)| (host.to_string(), owned)).collect();
        let text = serde_json::to_vec(&owners).map_err(|error| error.to_string());
        let written =
            text.and_then(|text| files::write_secret(path, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "which namespace has which address cannot be kept; {UNKNOWN}");
        }
    }
}

const UNKNOWN: &str = "after a restart, of two namespaces that claim one address the first by file has it";
