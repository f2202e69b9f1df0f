//! Which join tokens were made, and which are revoked.
//!
//! The record of a token is no secret and proves nothing. In a data directory it is a file; in a cluster, where several
//! replicas check tokens, a part of the Secret with their key. Either is looked at for each token that is shown, so a
//! revocation counts at once, at every replica, and after a restart. A token without a record is good: it may have been
//! made before there were records.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_certs::files::{self, FileError};
use selvedge_kubernetes::{Client, Error, Kind, objects::Change};
use selvedge_model::{SpiffeId, WorkloadName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::seconds;

/// The Secret with the key of join tokens, `token-key`, and their records.
pub const SECRET: &str = "selvedge-join-token-key";
/// The directory in the data directory.
const DIRECTORY: &str = "join-tokens";
/// What the name of a record begins with in the Secret.
const PREFIX: &str = "join-token.";
/// How many characters an id has, all hexadecimal digits.
const ID_LENGTH: usize = 32;

/// What is known of one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What tells it from others.
    pub id: String,
    /// Who its holder becomes.
    pub identity: SpiffeId,
    /// The only workload that may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadName>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Whether it can be used only once.
    #[serde(default)]
    pub once: bool,
    /// The SHA-256 of the root by which its holder knows the control plane, in hexadecimal.
    pub root: String,
    /// When it was revoked, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
}

/// Why the records are not known.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory cannot be made or read.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A record is damaged.
    #[error(
        "{place} is not the record of a join token: {reason}; remove it, and the token is good until it expires"
    )]
    Malformed {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API server does not answer, or refuses.
    #[error("the Secret {namespace}/{SECRET}: {source}")]
    Secret {
        /// Where it is.
        namespace: String,
        /// What the API server says.
        source: Box<Error>,
    },
}

/// The records, wherever they are.
#[derive(Debug, Clone)]
pub enum TokenRecords {
    /// In a data directory.
    Directory(RecordFiles),
    /// In a cluster.
    Cluster(RecordSecret),
}

impl TokenRecords {
    /// The record of the token `id`, if there is one.
    ///
    /// # Errors
    /// If that is not known.
    pub async fn read(&self, id: &str) -> Result<Option<TokenRecord>, RecordError> {
        match self {
            Self::Directory(files) => files.read(id),
            Self::Cluster(secret) => Ok(secret.all().await?.into_iter().find(|record| record.id == id)),
        }
    }

    /// The records of all tokens that have not expired, the newest first.
    ///
    /// # Errors
    /// If they are not known.
    pub async fn all(&self, now: SystemTime) -> Result<Vec<TokenRecord>, RecordError> {
        let mut all = match self {
            Self::Directory(files) => files.all()?,
            Self::Cluster(secret) => secret.all().await?,
        };
        all.retain(|record| !record.is_over(now));
        all.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        Ok(all)
    }

    /// Writes a record, over the one that was there, and removes those of tokens that have expired.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn write(&self, record: &TokenRecord, now: SystemTime) -> Result<(), RecordError> {
        match self {
            Self::Directory(files) => {
                files.forget_expired(now)?;
                files.write(record)
            }
            Self::Cluster(secret) => secret.write(record, now).await,
        }
    }
}

impl TokenRecord {
    /// The moment when it ends.
    pub fn ends_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires)
    }

    fn is_over(&self, now: SystemTime) -> bool {
        seconds(now) >= self.expires
    }

    fn parse(bytes: &[u8], place: impl FnOnce() -> String) -> Result<Self, RecordError> {
        serde_json::from_slice(bytes)
            .map_err(|error| RecordError::Malformed { place: place(), reason: error.to_string() })
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers always have a JSON form")
    }
}

/// Records as files, one for each token.
#[derive(Debug, Clone)]
pub struct RecordFiles {
    directory: PathBuf,
}

impl RecordFiles {
    /// Those in the data directory `data`.
    pub fn of(data: &Path) -> Self {
        Self { directory: data.join(DIRECTORY) }
    }

    /// The record of the token `id`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, id: &str) -> Result<Option<TokenRecord>, RecordError> {
        // It is the name of a file, so it must be no path.
        if !is_id(id) {
            return Ok(None);
        }
        self.read_file(&self.directory.join(id))
    }

    /// Removes the records of tokens that have expired.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub fn forget_expired(&self, now: SystemTime) -> Result<(), RecordError> {
        for old in self.all()?.iter().filter(|old| old.is_over(now)) {
            // Another process may have been faster.
            let _ = fs::remove_file(self.directory.join(&old.id));
        }
        Ok(())
    }

    /// Writes a record, over the one that was there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, record: &TokenRecord) -> Result<(), RecordError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(self.failed())?;
        files::check_directory(&self.directory)?;
        Ok(files::write_secret(&self.directory.join(&record.id), &record.bytes())?)
    }

    fn all(&self) -> Result<Vec<TokenRecord>, RecordError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed()(source)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(self.failed())?.path();
            // Others are drafts.
            if path.file_name().and_then(|name| name.to_str()).is_some_and(is_id) {
                records.extend(self.read_file(&path)?);
            }
        }
        Ok(records)
    }

    fn read_file(&self, path: &Path) -> Result<Option<TokenRecord>, RecordError> {
        match fs::exists(path) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(source) => return Err(self.failed()(source)),
        }
        let bytes = files::read_secret(path)?;
        TokenRecord::parse(&bytes, || path.display().to_string()).map(Some)
    }

    fn failed(&self) -> impl Fn(io::Error) -> RecordError + use<> {
        let path = self.directory.clone();
        move |source| RecordError::Directory { path: path.clone(), source }
    }
}

/// Records in the Secret with the key of join tokens.
#[derive(Debug, Clone)]
pub struct RecordSecret {
    client: Client,
    namespace: String,
}

impl RecordSecret {
    /// Those in the namespace of the control plane.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    async fn all(&self) -> Result<Vec<TokenRecord>, RecordError> {
        let secret = self.client.secret(&self.namespace, SECRET).await.map_err(self.failed())?;
        let data = secret.map(|secret| secret.data).unwrap_or_default();
        let of_tokens = data.iter().filter(|(name, _)| name.starts_with(PREFIX));
        of_tokens
            .map(|(name, bytes)| {
                TokenRecord::parse(bytes, || format!("{name} of the Secret {}/{SECRET}", self.namespace))
            })
            .collect()
    }

    async fn write(&self, record: &TokenRecord, now: SystemTime) -> Result<(), RecordError> {
        let name = |record: &TokenRecord| format!("{PREFIX}{}", record.id);
        let old = self.all().await?.into_iter().filter(|old| old.is_over(now));
        let mut data: Map<String, Value> = old.map(|old| (name(&old), Value::Null)).collect();
        data.insert(name(record), BASE64_STANDARD.encode(record.bytes()).into());
        let secrets = Kind::namespaced("v1", "Secret", "secrets");
        let changed = json!({ "data": data });
        let change = Change::Merge(&changed);
        self.client
            .change(&secrets, Some(&self.namespace), SECRET, change)
            .await
            .map(drop)
            .map_err(self.failed())
    }

    fn failed(&self) -> impl Fn(Error) -> RecordError + use<> {
        let namespace = self.namespace.clone();
        move |source| RecordError::Secret { namespace: namespace.clone(), source: Box::new(source) }
    }
}

/// Whether `text` can be the id of a token.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn record(digit: char, lasts: u64) -> TokenRecord {
        TokenRecord {
            id: digit.to_string().repeat(ID_LENGTH),
            identity: identity("shop", "reviews"),
            workload: None,
            created: seconds(now()),
            expires: seconds(now()) + lasts,
            once: false,
            root: "07".repeat(32),
            revoked: None,
        }
    }

    #[test]
    fn a_record_is_kept_until_its_token_expires() {
        let data = tempfile::tempdir().unwrap();
        let files = RecordFiles::of(data.path());
        let (short, long) = (record('a', 60), record('b', 3600));
        files.write(&short).unwrap();
        files.write(&long).unwrap();
        assert_eq!(files.read(&short.id).unwrap().as_ref(), Some(&short));

        let later = now() + Duration::from_secs(60);
        files.write(&TokenRecord { revoked: Some(1), ..long.clone() }).unwrap();
        files.forget_expired(later).unwrap();

        assert_eq!(files.read(&short.id).unwrap(), None);
        assert_eq!(files.read(&long.id).unwrap().and_then(|record| record.revoked), Some(1));
    }

    #[test]
    fn what_is_no_id_is_no_path_either() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("token-key"), "{}").unwrap();
        let files = RecordFiles::of(data.path());
        fs::create_dir(data.path().join(DIRECTORY)).unwrap();

        assert_eq!(files.read("../token-key").unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_no_record_of_a_good_token() {
        let data = tempfile::tempdir().unwrap();
        let files = RecordFiles::of(data.path());
        let record = record('a', 60);
        files.write(&record).unwrap();
        fs::write(data.path().join(DIRECTORY).join(&record.id), "{").unwrap();

        let error = files.read(&record.id).unwrap_err().to_string();

        assert!(error.contains(&record.id) && error.contains("remove it"), "{error}");
    }
}
