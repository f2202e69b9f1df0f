//! The cluster's own keys, by which a ServiceAccount token is checked without asking about it.
//!
//! They are fetched from the API server (`/openid/v1/jwks`), kept, and fetched again when a token names one that is
//! not among them, when they are old, and not more often than [`PAUSE`]: whoever shows us tokens with made-up
//! names of keys does not keep the API server busy. While it is away the keys that are known stay good.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use selvedge_kubernetes::Client;
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::{TokenError, seconds, service_account::AUDIENCE};

/// Where the API server publishes its keys, and who it is as an issuer.
const JWKS: &str = "/openid/v1/jwks";
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Between two questions for keys.
const PAUSE: Duration = Duration::from_secs(10);
/// Keys that are older are asked for again: one that was withdrawn must not be valid for ever.
const OLD: Duration = Duration::from_secs(600);
/// How much later the API server's clock may be than ours, as it allows others itself.
const CLOCK_SKEW: u64 = 60;
/// Never HMAC: its key would be no secret.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a ServiceAccount token says that was made for a pod, or by TokenRequest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: Vec<String>,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    pub(super) sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: Bound,
}

/// What it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Bound {
    pub(super) namespace: String,
    pub(super) serviceaccount: ObjectName,
    pub(super) pod: Option<ObjectName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ObjectName {
    pub(super) name: String,
}

/// The keys, fetched when they are needed.
pub(super) struct Keys {
    client: Client,
    known: ArcSwapOption<FetchedKeys>,
    /// When they were last asked for.
    asked: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// Those of one moment.
struct FetchedKeys {
    issuer: String,
    keys: Vec<Key>,
    fetched: Instant,
}

/// One of them.
struct Key {
    name: Option<String>,
    /// The only algorithm that it is for; `None` = any that its kind allows.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Those of the cluster behind `client`, none of which is known yet.
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: ArcSwapOption::empty(), asked: Mutex::default() }
    }

    /// What `token` says, if one of the keys has signed it and it is for us, now.
    ///
    /// # Errors
    /// If it is not, or the keys are not known and cannot be had.
    pub(super) async fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| TokenError::Malformed(error.to_string()))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(TokenError::Signature(format!(
                "{:?} is not a supported signature algorithm",
                header.alg
            )));
        }
        let known = self.with_key(header.kid.as_deref()).await?;
        let claims = known.signed(token, header.kid.as_deref(), header.alg)?;
        known.check(&claims, now)?;
        Ok(claims)
    }

    /// Keys among which that of the name is, if the API server has one.
    async fn with_key(&self, name: Option<&str>) -> Result<Arc<FetchedKeys>, TokenError> {
        let fitting =
            |known: &Arc<FetchedKeys>| known.fetched.elapsed() < OLD && known.find(name).next().is_some();
        if let Some(known) = self.known.load_full().filter(fitting) {
            return Ok(known);
        }
        // One asks, the others wait for what it learns.
        let mut asked = self.asked.lock().await;
        let known = self.known.load_full();
        if let Some(known) = known.clone().filter(fitting) {
            return Ok(known);
        }
        if let Some(known) = &known
            && asked.is_some_and(|asked| asked.elapsed() < PAUSE)
        {
            return Ok(Arc::clone(known));
        }
        *asked = Some(Instant::now());
        match self.fetch().await {
            Ok(newest) => {
                let newest = Arc::new(newest);
                self.known.store(Some(Arc::clone(&newest)));
                tracing::info!(keys = newest.keys.len(), issuer = newest.issuer, "the cluster's token keys");
                Ok(newest)
            }
            Err(reason) => {
                tracing::warn!(reason, "the cluster's token keys cannot be fetched");
                known.ok_or(TokenError::Keys(reason))
            }
        }
    }

    async fn fetch(&self) -> Result<FetchedKeys, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
        }
        let get = async |path: &str| self.client.text(path).await.map_err(|error| error.to_string());
        let unreadable = |path: &str, error: &dyn std::fmt::Display| format!("{path}: {error}");
        let discovery: Discovery =
            serde_json::from_str(&get(DISCOVERY).await?).map_err(|error| unreadable(DISCOVERY, &error))?;
        let set: JwkSet =
            serde_json::from_str(&get(JWKS).await?).map_err(|error| unreadable(JWKS, &error))?;
        let signing = set.keys.iter().filter(|key| is_for_signatures(key));
        let keys = signing.map(Key::read).collect::<Result<_, jsonwebtoken::errors::Error>>();
        let keys = keys.map_err(|error| unreadable(JWKS, &error))?;
        Ok(FetchedKeys { issuer: discovery.issuer, keys, fetched: Instant::now() })
    }
}

/// Whether a key is published for others to verify signatures with (RFC 7517, sections 4.2 to 4.4): one for encryption
/// is often kept in another place, and by others.
fn is_for_signatures(key: &Jwk) -> bool {
    let common = &key.common;
    let by_use = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let by_operations =
        common.key_operations.as_ref().is_none_or(|allowed| allowed.contains(&KeyOperations::Verify));
    let by_algorithm = common.key_algorithm.is_none() || algorithm(key).is_some();
    let is_secret = matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
    by_use && by_operations && by_algorithm && !is_secret
}

/// The algorithm that a key is for, if it says one that signs.
fn algorithm(key: &Jwk) -> Option<Algorithm> {
    let said = key.common.key_algorithm?.to_string();
    ALGORITHMS.into_iter().find(|known| format!("{known:?}") == said)
}

impl Key {
    fn read(jwk: &Jwk) -> Result<Self, jsonwebtoken::errors::Error> {
        let (name, key) = (jwk.common.key_id.clone(), DecodingKey::from_jwk(jwk)?);
        Ok(Self { name, algorithm: algorithm(jwk), key })
    }
}

impl FetchedKeys {
    /// The keys that may have signed what names this one; any, if it names none.
    fn find(&self, name: Option<&str>) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| name.is_none() || key.name.as_deref() == name)
    }

    fn signed(&self, token: &str, name: Option<&str>, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(algorithm);
        // Checked by `check`, against the `now` that it is given.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let mut why = match name {
            Some(name) => format!("it names the key {name:?}, which the cluster does not have"),
            None => "the cluster has no keys".to_owned(),
        };
        for key in self.find(name) {
            if let Some(only) = key.algorithm.filter(|only| *only != algorithm) {
                why = format!(
                    "the key {:?} is for {only:?}, and the token is signed with {algorithm:?}",
                    key.name
                );
                continue;
            }
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::Json(_) | ErrorKind::Base64(_) => {
                        return Err(TokenError::Malformed(format!(
                            "{error}; use a token that TokenRequest or a projected volume has made"
                        )));
                    }
                    _ => why = error.to_string(),
                },
            }
        }
        Err(TokenError::Signature(why))
    }

    fn check(&self, claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer { found: claims.iss.clone(), own: self.issuer.clone() });
        }
        if !claims.aud.iter().any(|audience| audience == AUDIENCE) {
            return Err(TokenError::Audience(claims.aud.join(", ")));
        }
        if seconds(now) >= claims.exp {
            return Err(TokenError::ExpiredServiceAccount(claims.exp));
        }
        if seconds(now).saturating_add(CLOCK_SKEW) < claims.nbf {
            return Err(TokenError::NotYet(claims.nbf));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
