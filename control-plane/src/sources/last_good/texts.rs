//! The texts of lists, each of which several saved documents stand in: it is written once for all of them.
//!
//! A text is called by its hash, so that what is written under a name never changes, and what is damaged is known. One that no
//! saved document names any more is removed.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::write_private;

/// Below the directory of saved documents. No kind is called so.
const DIRECTORY: &str = ".texts";

/// By how many saved documents each text is named.
#[derive(Debug, Default)]
pub(super) struct SharedTexts {
    named: HashMap<Arc<str>, usize>,
    /// Those that no document names any more since they were looked for last.
    unused: HashSet<Arc<str>>,
}

/// What `text` is called.
pub(super) fn name_of(text: &str) -> Arc<str> {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(DIRECTORY).join(name)
}

/// The text that is called `name`.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read(directory: &Path, name: &str) -> Result<Arc<str>, String> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_name {
        return Err("the text that it stands in has no such name".to_owned());
    }
    let path = path_of(directory, name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if *name_of(&text) != *name {
        return Err(format!("{} is damaged", path.display()));
    }
    Ok(text.into())
}

impl SharedTexts {
    /// One more saved document names it.
    pub(super) fn name(&mut self, name: &Arc<str>) {
        *self.named.entry(Arc::clone(name)).or_default() += 1;
        self.unused.remove(name);
    }

    /// A saved document names it no more.
    pub(super) fn unname(&mut self, name: &Arc<str>) {
        let Some(count) = self.named.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.named.remove(name);
            self.unused.insert(Arc::clone(name));
        }
    }

    /// Writes `text`, which is called `name`, unless a saved document names it already. If none comes to name it, because there is no
    /// room for that, it is removed like any other that is not used.
    pub(super) fn write(&mut self, directory: &Path, name: &Arc<str>, text: &str) -> io::Result<()> {
        if self.named.contains_key(name) {
            return Ok(());
        }
        write_private(directory, &path_of(directory, name), text.as_bytes())?;
        self.unused.insert(Arc::clone(name));
        Ok(())
    }

    /// Removes what no saved document names any more. What cannot be removed is at the next start.
    pub(super) fn remove_unused(&mut self, directory: &Path) {
        for name in self.unused.drain() {
            let _ = fs::remove_file(path_of(directory, &name));
        }
    }

    /// The same of what an earlier run has left.
    pub(super) fn remove_unknown(&self, directory: &Path) {
        for entry in fs::read_dir(directory.join(DIRECTORY)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| self.named.contains_key(name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
