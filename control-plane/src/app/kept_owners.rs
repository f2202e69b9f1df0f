//! Which namespace has which addresses and names, kept across restarts: without it, after a restart the order of files would decide.

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
use serde::{Serialize, de::DeserializeOwned};

/// What says in the data directory who has which addresses.
const ADDRESSES: &str = "address-owners.json";

/// What says there who has which hosts of `ServiceEntry`s.
const NAMES: &str = "name-owners.json";

/// The data directory with both, where documents come from files.
#[derive(Debug)]
pub(super) struct KeptOwners(Option<PathBuf>);

impl KeptOwners {
    /// In the data directory `directory`; `None`: nothing is kept.
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self(directory.map(Path::to_owned))
    }

    /// The mesh before the first, of which only this is known.
    pub(super) fn mesh(&self) -> Mesh {
        Mesh { owners: Arc::new(self.read()), ..Mesh::default() }
    }

    fn read(&self) -> Owners {
        let Some(directory) = &self.0 else { return Owners::default() };
        let addresses: BTreeMap<String, Vec<OwnedPorts>> = read(&directory.join(ADDRESSES), ADDRESS_UNKNOWN);
        let names: BTreeMap<String, String> = read(&directory.join(NAMES), NAME_UNKNOWN);
        let address = |(host, owned): (String, _)| Some((host.parse().ok()?, owned));
        let name = |(host, namespace): (String, String)| (Arc::from(host), Arc::from(namespace));
        Owners {
            addresses: addresses.into_iter().filter_map(address).collect(),
            names: names.into_iter().map(name).collect(),
        }
    }

    /// Keeps those of `mesh`, if they are others than `before`.
    pub(super) fn keep(&self, mesh: &Mesh, before: &Mesh) {
        let Some(directory) = &self.0 else { return };
        let (owners, before) = (&mesh.owners, &before.owners);
        if owners.addresses != before.addresses {
            let addresses: BTreeMap<String, &Vec<OwnedPorts>> =
                owners.addresses.iter().map(|(host, owned)| (host.to_string(), owned)).collect();
            write(&directory.join(ADDRESSES), &addresses, ADDRESS_UNKNOWN);
        }
        if owners.names != before.names {
            let names: BTreeMap<&str, &str> =
                owners.names.iter().map(|(host, namespace)| (&**host, &**namespace)).collect();
            write(&directory.join(NAMES), &names, NAME_UNKNOWN);
        }
    }
}

/// What `path` says; nothing if there is no such file. `unknown` is what it means if it cannot be read.
fn read<T: DeserializeOwned + Default>(path: &Path, unknown: &str) -> T {
    if !path.exists() {
        return T::default();
    }
    let read = files::read_trusted(path).map_err(|error| error.to_string());
    let kept = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    kept.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "{unknown}");
        T::default()
    })
}

fn write<T: Serialize>(path: &Path, kept: &T, unknown: &str) {
    let text = serde_json::to_vec(kept).map_err(|error| error.to_string());
    let written = text.and_then(|text| files::write_secret(path, &text).map_err(|error| error.to_string()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "who has what cannot be kept; {unknown}");
    }
}

const ADDRESS_UNKNOWN: &str =
    "after a restart, of two namespaces that claim one address the first by file has it";
const NAME_UNKNOWN: &str = "after a restart, of two namespaces that claim one name the first by file has it";
