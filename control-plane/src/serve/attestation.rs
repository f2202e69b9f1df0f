//! Tokens: how a workload proves who it is before it has a certificate.
//!
//! In a cluster that is its pod's ServiceAccount token, see [`service_account`]; elsewhere a join token. A
//! join token is a JWT that this control plane signs and later checks itself, so one symmetric key in the
//! data directory is enough. It carries the SHA-256 of our root, by which the workload first knows us.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{hmac, rand};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use selvedge_certs::{
    control_plane_identity,
    files::{self, FileError},
    tls::TicketSecret,
};
use selvedge_model::{SessionKey, SpiffeId, TrustDomain, WorkloadName};
use serde::{Deserialize, Serialize};

mod error;
mod jwks;
pub mod records;
pub mod service_account;

pub use self::{
    error::TokenError,
    records::{RecordFiles, RecordSecret, TokenRecord, TokenRecords},
};

/// The file in the data directory that join tokens are signed with.
pub const KEY: &str = "token-key";
const SPENT: &str = "spent-tokens.json";
/// HMAC-SHA-256 gains nothing from a longer key.
pub const KEY_LENGTH: usize = 32;
/// Far beyond any use, and far from where dates overflow.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The key that tokens are signed with.
pub struct TokenKey([u8; KEY_LENGTH]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// Reads the key from `directory`, or makes it there (0600).
    ///
    /// Two processes that start together end up with the same key.
    ///
    /// # Errors
    /// If the file is exposed to others, damaged, or cannot be written.
    pub fn load_or_create(directory: &Path) -> Result<Self, TokenError> {
        let path = directory.join(KEY);
        if !path.exists() {
            Self::create(&path)?;
        }
        let bytes = files::read_secret(&path)?;
        let key = bytes.as_slice().try_into();
        key.map(Self).map_err(|_| TokenError::Key { path, found: bytes.len() })
    }

    /// The key that these bytes are; `None` if they are too few or too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// What the keys of sessions are derived from: another key, from which this one cannot be found.
    pub fn session_key(&self) -> SessionKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let derived = hmac::sign(&key, b"selvedge sessionPersistence");
        SessionKey(std::array::from_fn(|place| derived.as_ref()[place]))
    }

    /// What the keys of session tickets are derived from; this key cannot be found from it either.
    pub fn ticket_secret(&self) -> TicketSecret {
        TicketSecret::of(&self.0)
    }

    /// Writes a draft beside it and links that to its name: the first of several stays.
    fn create(path: &Path) -> Result<(), TokenError> {
        let mut key = [0; KEY_LENGTH];
        rand::fill(&mut key).map_err(|_| TokenError::Random)?;
        let draft = path.with_extension(format!("draft-{}", unique()?));
        files::write_secret(&draft, &key)?;
        let linked = fs::hard_link(&draft, path);
        let removed = fs::remove_file(&draft);
        match linked {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(FileError::Write { path: path.to_owned(), source }.into())
            }
            _ => removed.map_err(|source| FileError::Write { path: draft, source }.into()),
        }
    }
}

/// What a token is to allow.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The identity that its certificates may have.
    pub identity: SpiffeId,
    /// The only workload that may use it; `None` = every workload of that service account.
    pub workload: Option<WorkloadName>,
    /// How long the token can be used.
    pub ttl: Duration,
    /// Whether it can be used only once.
    pub once: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    ns: String,
    sa: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    exp: u64,
    jti: String,
    #[serde(default)]
    once: bool,
    /// Hex SHA-256 of the root certificate's DER.
    root: String,
    td: String,
}

/// Makes a token, and what is to be known of it. `root_sha256` is how its holder will know this control plane.
///
/// # Errors
/// If the grant is for the control plane's own identity, for a workload of another namespace, or has an
/// impossible lifetime.
pub fn create(
    key: &TokenKey,
    grant: &Grant,
    root_sha256: [u8; 32],
    now: SystemTime,
) -> Result<(String, TokenRecord), TokenError> {
    if grant.ttl < Duration::from_secs(1) || grant.ttl > MAX_LIFE {
        return Err(TokenError::Life(grant.ttl));
    }
    if let Some(workload) = &grant.workload
        && workload.namespace() != grant.identity.namespace()
    {
        let namespace = grant.identity.namespace().to_owned();
        return Err(TokenError::OtherNamespace { workload: workload.clone(), namespace });
    }
    refuse_reserved(&grant.identity)?;
    let record = TokenRecord {
        id: unique()?,
        identity: grant.identity.clone(),
        workload: grant.workload.clone(),
        created: seconds(now),
        expires: seconds(now).saturating_add(grant.ttl.as_secs()),
        once: grant.once,
        root: hex(&root_sha256),
        revoked: None,
    };
    let claims = Claims {
        ns: grant.identity.namespace().to_owned(),
        sa: grant.identity.service_account().to_owned(),
        workload: grant.workload.as_ref().map(ToString::to_string),
        exp: record.expires,
        jti: record.id.clone(),
        once: record.once,
        root: record.root.clone(),
        td: grant.identity.trust_domain().to_owned(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&key.0))
        .map(|text| (text, record))
        .map_err(|error| TokenError::Malformed(error.to_string()))
}

/// What is to be known of a token that has no record. Its time is not checked.
///
/// # Errors
/// If it was not made with `key`.
pub fn record_of(key: &TokenKey, token: &str) -> Result<TokenRecord, TokenError> {
    let claims = claims(key, token)?;
    let trust_domain = claims.td.parse()?;
    Ok(TokenRecord {
        id: claims.jti,
        identity: SpiffeId::new(&trust_domain, &claims.ns, &claims.sa)?,
        workload: claims.workload.as_deref().map(str::parse).transpose()?,
        created: 0,
        expires: claims.exp,
        once: claims.once,
        root: claims.root,
        revoked: None,
    })
}

fn claims(key: &TokenKey, token: &str) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(Algorithm::HS256);
    // Checked by `verify`, against the `now` that it is given.
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(&key.0);
    let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation);
    decoded.map(|data| data.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Altered,
        _ => TokenError::Malformed(error.to_string()),
    })
}

fn refuse_reserved(identity: &SpiffeId) -> Result<(), TokenError> {
    let trust_domain = identity.trust_domain().parse()?;
    if *identity == control_plane_identity(&trust_domain) {
        return Err(TokenError::Reserved(identity.clone()));
    }
    Ok(())
}

/// What a valid token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who its holder is.
    pub identity: SpiffeId,
    /// The only workload that may use it.
    pub workload: Option<WorkloadName>,
    /// The join token that proves it. `None`: it was a ServiceAccount token.
    pub join_token: Option<JoinToken>,
}

/// A join token, as far as it may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What tells it from others; whoever knows it has no token by that.
    pub id: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Whether it can be used only once.
    pub once: bool,
}

/// Checks tokens, and remembers which `--once` tokens were used.
#[derive(Debug)]
pub struct Attestor {
    key: TokenKey,
    trust_domain: TrustDomain,
    spent_path: PathBuf,
    /// Which tokens are revoked.
    records: TokenRecords,
    /// Used `--once` tokens by name, with their end: after that they need not be remembered.
    spent: Mutex<BTreeMap<String, u64>>,
}

impl Attestor {
    /// Checks the tokens that were made with the key in `directory` (which is made if it is missing).
    ///
    /// # Errors
    /// If the key or the list of used tokens cannot be read.
    pub fn open(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, TokenError> {
        let spent_path = directory.join(SPENT);
        let spent = spent_tokens(directory)?;
        Ok(Self {
            key: TokenKey::load_or_create(directory)?,
            trust_domain: trust_domain.clone(),
            spent_path,
            records: TokenRecords::Directory(RecordFiles::of(directory)),
            spent: Mutex::new(spent),
        })
    }

    /// The same, where other replicas check tokens too, and share what is known of them: then no token is for one use.
    #[must_use]
    pub fn shared(self, records: RecordSecret) -> Self {
        Self { records: TokenRecords::Cluster(records), ..self }
    }

    /// What `token` proves at `now`.
    ///
    /// # Errors
    /// If it is not one of our tokens, is expired, or was for one use and has been used.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Proof, TokenError> {
        let claims = claims(&self.key, token)?;
        if seconds(now) >= claims.exp {
            return Err(TokenError::Expired(claims.exp));
        }
        if claims.td != self.trust_domain.as_str() {
            return Err(TokenError::OtherTrustDomain { found: claims.td, own: self.trust_domain.clone() });
        }
        let identity = SpiffeId::new(&self.trust_domain, &claims.ns, &claims.sa)?;
        refuse_reserved(&identity)?;
        let workload = claims.workload.as_deref().map(str::parse).transpose()?;
        if claims.once && matches!(self.records, TokenRecords::Cluster(_)) {
            return Err(TokenError::Once);
        }
        let token = JoinToken { id: claims.jti, expires: claims.exp, once: claims.once };
        if token.once && self.spent.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&token.id) {
            return Err(TokenError::Spent);
        }
        Ok(Proof { identity, workload, join_token: Some(token) })
    }

    /// Whether the join token behind `proof` is not revoked.
    ///
    /// # Errors
    /// If it is, or if that cannot be known now.
    pub async fn check_revoked(&self, proof: &Proof) -> Result<(), TokenError> {
        let Some(token) = &proof.join_token else { return Ok(()) };
        match self.records.read(&token.id).await?.and_then(|record| record.revoked) {
            Some(at) => Err(TokenError::Revoked { id: token.id.clone(), at }),
            None => Ok(()),
        }
    }

    /// Does what a proof allows; with a token for one use, this once and never again.
    ///
    /// The use is on disk before `work`'s result is given away. A token whose `work` failed is not used up.
    ///
    /// # Errors
    /// What `work` says; or if the token has been used meanwhile, or its use cannot be written down.
    pub fn redeem<T, E: From<TokenError>>(
        &self,
        proof: &Proof,
        now: SystemTime,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(token) = proof.join_token.as_ref().filter(|token| token.once) else {
            return work();
        };
        // Held meanwhile: two uses at once must not both find it unused.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.contains_key(&token.id) {
            return Err(TokenError::Spent.into());
        }
        let result = work()?;
        let mut next = spent.clone();
        next.retain(|_, expires| *expires > seconds(now));
        next.insert(token.id.clone(), token.expires);
        let bytes = serde_json::to_vec(&next).expect("names and numbers always have a JSON form");
        files::write_secret(&self.spent_path, &bytes).map_err(TokenError::from)?;
        *spent = next;
        Ok(result)
    }
}

/// The ids of the tokens for one use that were used, with their ends.
///
/// # Errors
/// If the list cannot be read.
pub fn spent_tokens(directory: &Path) -> Result<BTreeMap<String, u64>, TokenError> {
    let path = directory.join(SPENT);
    let spent = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    };
    spent.map_err(|reason| TokenError::SpentList { path, reason })
}

/// Whether `token` is one of ours, as far as it says so itself.
pub fn is_join_token(token: &str) -> bool {
    jsonwebtoken::decode_header(token).is_ok_and(|header| header.alg == Algorithm::HS256)
}

/// Since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Only for moments that have passed.
fn time(seconds: u64) -> impl fmt::Display {
    selvedge_certs::facts::Utc(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn unique() -> Result<String, TokenError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
