//! What is in the files that documents name. It is made of them once: their certificates and keys are read again only where
//! the document or one of its files has changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{
    super::files::{FileState, is_certificate},
    File,
};
use crate::{
    problem::DocumentName,
    resources::{Resource, secret},
};

/// The text of a file that a document names, or what is wrong with it.
type Text = Result<Arc<str>, String>;

/// The documents that name files, with what these hold.
#[derive(Debug, Default)]
pub(super) struct Filled(HashMap<DocumentName, FilledOne>);

#[derive(Debug)]
struct FilledOne {
    /// As it is written.
    written: Resource,
    texts: Vec<Text>,
    filled: Resource,
}

impl FilledOne {
    /// Whether it is what comes of `written` and `texts`.
    fn is_of(&self, written: &Resource, texts: &[Text]) -> bool {
        let same_text = |(one, other): (&Text, &Text)| match (one, other) {
            (Ok(one), Ok(other)) => Arc::ptr_eq(one, other) || one == other,
            (one, other) => one == other,
        };
        let same_document = is_same(written, &self.written) || is_same(written, &self.filled);
        same_document && self.texts.len() == texts.len() && self.texts.iter().zip(texts).all(same_text)
    }
}

/// Whether they are one document in memory.
fn is_same(one: &Resource, other: &Resource) -> bool {
    match (one, other) {
        (Resource::Secret(one), Resource::Secret(other)) => Arc::ptr_eq(one, other),
        (Resource::ConfigMap(one), Resource::ConfigMap(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// The files that documents may name.
#[derive(Debug)]
pub(super) struct NamedFiles<'a> {
    pub(super) root: &'a Path,
    pub(super) files: &'a BTreeMap<PathBuf, File>,
    /// What was made of documents when all was put together before.
    pub(super) before: &'a Filled,
    /// The same of this time.
    pub(super) now: &'a RefCell<Filled>,
}

impl NamedFiles<'_> {
    /// `resource` with what its files hold.
    pub(super) fn filled(&self, resource: Resource) -> Resource {
        let Some(document) = resource.location().path.clone() else { return resource };
        let texts: Vec<Text> = secret::files_of(&resource).map(|named| self.text(&document, named)).collect();
        if texts.is_empty() {
            return resource;
        }
        let name = resource.name().clone();
        let before = self.before.0.get(&name).filter(|before| before.is_of(&resource, &texts));
        let filled = match before {
            Some(before) => before.filled.clone(),
            None => secret::with_files(resource.clone(), |named| self.text(&document, named)),
        };
        let one = FilledOne { written: resource, texts, filled: filled.clone() };
        self.now.borrow_mut().0.insert(name, one);
        filled
    }

    /// The text of the file that the document in the file `from` names.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    fn text(&self, from: &Path, named: &str) -> Result<Arc<str>, String> {
        let mut path = from.parent().unwrap_or(self.root).to_owned();
        for step in Path::new(named).components() {
            match step {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir if path != self.root && path.pop() => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(
                        "is not below the configuration directory; put it beside the document, and write its path from there"
                            .to_owned(),
                    );
                }
            }
        }
        if !is_certificate(&path) {
            return Err(
                "has another name than those that are read: they end in .pem, .crt, .cer or .key".to_owned()
            );
        }
        match self.files.get(&path).map(|file| &file.counted) {
            Some(FileState::Text(text)) => Ok(Arc::clone(text)),
            Some(FileState::Unreadable(why)) => Err(why.clone()),
            Some(FileState::Gone) | None => {
                Err("is not there; correct its path, which begins at the document's directory".to_owned())
            }
        }
    }
}
