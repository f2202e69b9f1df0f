//! The last keys of each address, on disk: after a restart without its issuer, a control plane goes on with them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use selvedge_certs::{
    files::{read_secret, write_secret},
    token::KeySet,
};
use serde::{Deserialize, Serialize};

use crate::resources::KeyAddress;

/// A directory of key sets.
#[derive(Debug)]
pub(super) struct Saved {
    directory: PathBuf,
    /// What it has.
    known: BTreeMap<KeyAddress, Arc<str>>,
}

/// A key set as it is written to disk.
#[derive(Debug, Serialize, Deserialize)]
struct SavedKeys {
    url: String,
    is_issuer: bool,
    keys: Arc<str>,
}

impl Saved {
    /// What `directory` has. It need not be there. A file that cannot be used is left out and reported.
    pub(super) fn load(directory: PathBuf) -> Self {
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match read(&path) {
                Ok((address, keys)) => {
                    known.insert(address, keys);
                }
                Err(why) => {
                    tracing::warn!(path = %path.display(), why, "not a saved key set; remove the file")
                }
            }
        }
        Self { directory, known }
    }

    /// The last keys of `address`.
    pub(super) fn find(&self, address: &KeyAddress) -> Option<&Arc<str>> {
        self.known.get(address)
    }

    /// Keeps `keys` as the last ones of `address`.
    pub(super) fn put(&mut self, address: &KeyAddress, keys: &Arc<str>) {
        if self.known.get(address) == Some(keys) {
            return;
        }
        if let Err(error) = self.write(address, keys) {
            tracing::warn!(
                url = address.url, %error,
                "fetched keys cannot be saved; a restart while their server is away would lose them"
            );
        }
        self.known.insert(address.clone(), Arc::clone(keys));
    }

    fn write(&self, address: &KeyAddress, keys: &Arc<str>) -> Result<(), String> {
        let KeyAddress { url, is_issuer } = address.clone();
        let saved = SavedKeys { url, is_issuer, keys: Arc::clone(keys) };
        let text = serde_json::to_vec(&saved).map_err(|error| error.to_string())?;
        // Only its own part: the rest is there.
        match fs::create_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.to_string()),
            _ => {}
        }
        write_secret(&self.path(address), &text).map_err(|error| error.to_string())
    }

    /// Forgets all but what is `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&KeyAddress) -> bool) {
        let gone: Vec<_> = self.known.keys().filter(|address| !wanted(address)).cloned().collect();
        for address in gone {
            self.known.remove(&address);
            let _ = fs::remove_file(self.path(&address));
        }
    }

    /// Named by a digest: a URL may be longer than a file's name.
    fn path(&self, address: &KeyAddress) -> PathBuf {
        let kind = if address.is_issuer { "issuer" } else { "keys" };
        let mut name = String::new();
        for byte in digest(&SHA256, format!("{kind} {}", address.url).as_bytes()).as_ref() {
            write!(name, "{byte:02x}").expect("writing to a String cannot fail");
        }
        self.directory.join(name)
    }
}

fn read(path: &Path) -> Result<(KeyAddress, Arc<str>), String> {
    let bytes = read_secret(path).map_err(|error| error.to_string())?;
    let SavedKeys { url, is_issuer, keys } =
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    KeySet::read(&keys).map_err(|error| error.to_string())?;
    Ok((KeyAddress { url, is_issuer }, keys))
}
