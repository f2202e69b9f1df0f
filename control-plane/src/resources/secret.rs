//! `Secret` and `ConfigMap` (v1): certificates with their keys, certificates of authorities, and users with the hashes of
//! their passwords, for gateways.
//!
//! Only those parts are read; a secret that nobody names is nobody's business. A key goes nowhere but into a
//! [`ServerCertificate`], which shows it to nobody, and no message repeats what a secret holds. In a cluster neither kind is
//! followed: a secret is fetched by its name if a gateway names it.

mod files;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_certs::server::{ServerFacts, ServerPair, certificates_from_pem};
use selvedge_model::gateway::{CertificateName, PrivateKey, ServerCertificate};
use serde::Deserialize;

use self::files::{NamedFiles, named_files};
pub(crate) use self::{
    files::{files_of, with_files},
    users::{Users, users},
};
use super::{
    Resource,
    document::Reading,
    kinds::{CORE, Feedback, ResourceKind},
};
use crate::problem::DocumentName;

/// Its line in the [list of kinds](super::kinds).
pub(super) const SECRET: ResourceKind = ResourceKind::new("Secret", CORE, "secrets", Feedback::Nowhere)
    .with_any_annotations()
    .secret()
    .read_as_whole::<SecretYaml>(|document| {
        let is_in_files = document.location.path.is_some();
        document.whole(|yaml: SecretYaml, reading| Ok(read_secret(yaml, document.name, is_in_files, reading)))
    });

/// Its line in the [list of kinds](super::kinds).
pub(super) const CONFIG_MAP: ResourceKind =
    ResourceKind::new("ConfigMap", CORE, "configmaps", Feedback::Nowhere)
        .with_any_annotations()
        .secret()
        .read_as_whole::<ConfigMapYaml>(|document| {
        let is_in_files = document.location.path.is_some();
        document.whole(|yaml: ConfigMapYaml, reading| Ok(read_config_map(&yaml, is_in_files, reading)))
    });

/// The key of a certificate with its chain.
const CERTIFICATE: &str = "tls.crt";
/// The key of its private key.
const PRIVATE_KEY: &str = "tls.key";
/// The key of certificates of authorities.
const AUTHORITIES: &str = "ca.crt";

/// What a `Secret` holds for a gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecretSpec {
    /// Its `tls.crt` and `tls.key`. `None`: it has neither.
    pub certificate: Option<Result<KnownCertificate, Broken<KnownCertificate>>>,
    /// Its `ca.crt`.
    pub authorities: Option<Result<Authorities, Broken<Authorities>>>,
    /// What else it holds, which is read only where it is asked for users.
    pub rest: Rest,
    /// The files that hold what it does not hold itself.
    pub files: NamedFiles,
}

/// Parts of a `Secret`, as they are written. They are never shown.
#[derive(Clone, Default, PartialEq)]
pub struct Rest {
    data: BTreeMap<String, String>,
    string_data: BTreeMap<String, String>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rest(..)")
    }
}

/// What a `ConfigMap` holds for a gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigMapSpec {
    /// Its `ca.crt`.
    pub authorities: Option<Result<Authorities, Broken<Authorities>>>,
    /// The files that hold what it does not hold itself.
    pub files: NamedFiles,
}

/// A part that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken<T> {
    /// Why.
    pub why: Unreadable,
    /// What stays in use: the last version that could be used, if there was one.
    pub last_good: Option<T>,
}

/// `resource`, which knows the parts of `before`, its version before, that stay in use because its own cannot be used. Whether
/// there are any.
pub(crate) fn with_last_good(resource: Resource, before: Option<&Resource>) -> (Resource, bool) {
    match (resource, before) {
        (Resource::Secret(mut this), Some(Resource::Secret(before))) => {
            let (now, before) = (&this.spec, &before.spec);
            let certificate = inherited(now.certificate.as_ref(), before.certificate.as_ref());
            let authorities = inherited(now.authorities.as_ref(), before.authorities.as_ref());
            let any = certificate.is_some() || authorities.is_some();
            if any {
                let spec = &mut Arc::make_mut(&mut this).spec;
                spec.certificate = certificate.map(Err).or_else(|| spec.certificate.take());
                spec.authorities = authorities.map(Err).or_else(|| spec.authorities.take());
            }
            (Resource::Secret(this), any)
        }
        (Resource::ConfigMap(mut this), Some(Resource::ConfigMap(before))) => {
            let authorities = inherited(this.spec.authorities.as_ref(), before.spec.authorities.as_ref());
            let any = authorities.is_some();
            if any {
                Arc::make_mut(&mut this).spec.authorities = authorities.map(Err);
            }
            (Resource::ConfigMap(this), any)
        }
        (resource, _) => (resource, false),
    }
}

/// A part, with what stays in use of it; `None` if it can be used, is not there, or nothing of it was ever good.
fn inherited<T: Clone>(
    now: Option<&Result<T, Broken<T>>>,
    before: Option<&Result<T, Broken<T>>>,
) -> Option<Broken<T>> {
    let Some(Err(Broken { why, last_good: None })) = now else { return None };
    let last_good = match before? {
        Ok(good) => good.clone(),
        Err(broken) => broken.last_good.clone()?,
    };
    Some(Broken { why: why.clone(), last_good: Some(last_good) })
}

/// Certificates of authorities, in DER.
pub type Authorities = Arc<Vec<Vec<u8>>>;

/// A certificate with its key, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownCertificate {
    /// As it is sent to gateways.
    pub server: Arc<ServerCertificate>,
    /// Its names and dates.
    pub facts: ServerFacts,
}

/// Why a part of a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The field, such as `data[tls.key]`.
    pub field: String,
    /// What is wrong, and the remedy; nothing of what the field holds.
    pub why: String,
}

impl<T> Broken<T> {
    fn new(why: Unreadable) -> Self {
        Self { why, last_good: None }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct SecretYaml {
    #[serde(rename = "type")]
    _kind: Option<String>,
    data: BTreeMap<String, String>,
    string_data: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConfigMapYaml {
    data: BTreeMap<String, String>,
}

/// A part of a secret: its field, and its bytes.
type Part = (String, Result<Vec<u8>, Unreadable>);

fn read_secret(
    yaml: SecretYaml,
    name: &DocumentName,
    is_in_files: bool,
    reading: &mut Reading<'_>,
) -> SecretSpec {
    reading.unknown.clear();
    let mut rest = Rest { data: yaml.data, string_data: yaml.string_data };
    let part = |key: &str| rest.part(key);
    let known: &[&str] = &[CERTIFICATE, PRIVATE_KEY, AUTHORITIES];
    let files = named_files(known, |key| part(key).is_some(), is_in_files, reading);
    let certificate = certificate(part(CERTIFICATE), part(PRIVATE_KEY), name);
    let authorities = part(AUTHORITIES).map(read_authorities);
    // A key is kept in one place alone.
    for key in [CERTIFICATE, PRIVATE_KEY, AUTHORITIES] {
        rest.data.remove(key);
        rest.string_data.remove(key);
    }
    SecretSpec { certificate, authorities, rest, files }
}

/// The certificate of the Secret `name` by its two parts, if it has one of them.
fn certificate(
    chain: Option<Part>,
    key: Option<Part>,
    name: &DocumentName,
) -> Option<Result<KnownCertificate, Broken<KnownCertificate>>> {
    let read = match (chain, key) {
        (None, None) => return None,
        (Some((field, _)), None) => Err(missing(&field, PRIVATE_KEY)),
        (None, Some((field, _))) => Err(missing(&field, CERTIFICATE)),
        (Some(chain), Some(key)) => read_pair(chain, key, name),
    };
    Some(read.map_err(Broken::new))
}

impl Rest {
    fn part(&self, key: &str) -> Option<Part> {
        // As an API server does, which writes the one into the other.
        if let Some(text) = self.string_data.get(key) {
            return Some((format!("stringData[{key}]"), Ok(text.clone().into_bytes())));
        }
        let field = format!("data[{key}]");
        let bytes = decoded(self.data.get(key)?, &field);
        Some((field, bytes))
    }

    fn keys(&self) -> BTreeSet<&str> {
        self.data.keys().chain(self.string_data.keys()).map(String::as_str).collect()
    }
}

fn read_config_map(yaml: &ConfigMapYaml, is_in_files: bool, reading: &mut Reading<'_>) -> ConfigMapSpec {
    reading.unknown.clear();
    let part = yaml.data.get(AUTHORITIES);
    let part = part.map(|text| (format!("data[{AUTHORITIES}]"), Ok(text.clone().into_bytes())));
    let files = named_files(&[AUTHORITIES], |_| part.is_some(), is_in_files, reading);
    ConfigMapSpec { authorities: part.map(read_authorities), files }
}

fn decoded(text: &str, field: &str) -> Result<Vec<u8>, Unreadable> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).map_err(|_| Unreadable {
        field: field.to_owned(),
        why: "is not base64; encode it, or write the text itself below stringData".to_owned(),
    })
}

fn missing(beside: &str, key: &str) -> Unreadable {
    Unreadable { field: beside.to_owned(), why: format!("stands alone; add {key}") }
}

fn read_pair(chain: Part, key: Part, name: &DocumentName) -> Result<KnownCertificate, Unreadable> {
    let ((chain_field, chain), (key_field, key)) = (chain, key);
    let pair = ServerPair::from_pem(&chain?, &key?).map_err(|error| {
        let field = if error.is_of_key() { key_field } else { chain_field };
        Unreadable { field, why: error.to_string() }
    })?;
    let server = ServerCertificate {
        name: CertificateName::new(&name.namespace, &name.name),
        chain: pair.chain.iter().map(|one| one.to_vec()).collect(),
        key: PrivateKey::new(pair.key.secret_der().to_vec()),
    };
    Ok(KnownCertificate { server: Arc::new(server), facts: pair.facts })
}

fn read_authorities((field, bytes): Part) -> Result<Authorities, Broken<Authorities>> {
    let read = certificates_from_pem(&bytes.map_err(Broken::new)?);
    let read = read.map_err(|error| Broken::new(Unreadable { field, why: error.to_string() }))?;
    Ok(Arc::new(read.iter().map(|one| one.to_vec()).collect()))
}
