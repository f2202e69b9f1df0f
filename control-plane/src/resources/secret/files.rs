//! Certificates and keys in files beside a document, which an annotation of a `Secret` or `ConfigMap` names:
//! `config.selvedge.io/files: tls.crt=shop.crt,tls.key=shop.key`. Only a directory of documents has such files.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        Resource,
        annotated::{place, text},
        document::Reading,
    },
    AUTHORITIES, CERTIFICATE, PRIVATE_KEY, Part, Unreadable, certificate, read_authorities,
};

/// The annotation.
const FILES: &str = "config.selvedge.io/files";

/// The file of each key, as a path from the directory of the document.
pub(super) type NamedFiles = BTreeMap<&'static str, String>;

/// The files that the annotation of a document names, which may be those of the keys that are `known`. `has`: whether the
/// document itself has something at a key. What cannot be used is reported.
pub(super) fn named_files(
    known: &[&'static str],
    has: impl Fn(&str) -> bool,
    is_in_files: bool,
    reading: &mut Reading<'_>,
) -> NamedFiles {
    let mut files = NamedFiles::new();
    let Some(value) = text(reading, FILES) else { return files };
    if !is_in_files {
        let message = "has no effect here: only documents in a directory have files beside them; write the certificate \
                       and its key into data";
        reading.error(place(FILES), message);
        return files;
    }
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let split = item.split_once('=').map(|(key, file)| (key.trim(), file.trim()));
        let named = split.and_then(|(key, file)| {
            let key = known.iter().copied().find(|one| *one == key)?;
            (!file.is_empty()).then_some((key, file))
        });
        let wrong = match named {
            None => format!(
                "{item:?} names no file of {}; write for example {}=shop.crt",
                known.join(", "),
                known[0]
            ),
            Some((key, _)) if has(key) => {
                format!("{key} is there already, so the file is not read; remove one of the two")
            }
            Some((key, _)) if files.contains_key(key) => format!("{key} has two files; remove one"),
            Some((key, file)) => {
                files.insert(key, file.to_owned());
                continue;
            }
        };
        reading.error(place(FILES), wrong);
    }
    files
}

/// The files that `resource` names.
pub(crate) fn files_of(resource: &Resource) -> impl Iterator<Item = &str> {
    let files = match resource {
        Resource::Secret(this) => Some(&this.spec.files),
        Resource::ConfigMap(this) => Some(&this.spec.files),
        _ => None,
    };
    files.into_iter().flatten().map(|(_, file)| file.as_str())
}

/// `resource` with what its files hold. `read` gives the text of a file, or says what is wrong with it.
pub(crate) fn with_files(resource: Resource, read: impl Fn(&str) -> Result<Arc<str>, String>) -> Resource {
    let part = |files: &NamedFiles, key: &str| -> Option<Part> {
        let file = files.get(key)?;
        let field = format!("{}.{key}", place(FILES));
        let wrong = |why| Unreadable { field: field.clone(), why: format!("the file {file} {why}") };
        let bytes = read(file).map(|text| text.as_bytes().to_vec()).map_err(wrong);
        Some((field, bytes))
    };
    match resource {
        Resource::Secret(mut this) if !this.spec.files.is_empty() => {
            let files = &this.spec.files;
            let pair = certificate(part(files, CERTIFICATE), part(files, PRIVATE_KEY), &this.name);
            let authorities = part(files, AUTHORITIES).map(read_authorities);
            let spec = &mut Arc::make_mut(&mut this).spec;
            spec.certificate = pair.or_else(|| spec.certificate.take());
            spec.authorities = authorities.or_else(|| spec.authorities.take());
            Resource::Secret(this)
        }
        Resource::ConfigMap(mut this) if !this.spec.files.is_empty() => {
            let authorities = part(&this.spec.files, AUTHORITIES).map(read_authorities);
            Arc::make_mut(&mut this).spec.authorities = authorities;
            Resource::ConfigMap(this)
        }
        other => other,
    }
}
