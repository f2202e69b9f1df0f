//! The token that proves who we are, as far as its bearer reads it: a join token or, in a cluster, the pod's
//! ServiceAccount token.
//!
//! Only the control plane checks its signature. The bearer reads in it how to recognise the control plane: a join token
//! says which root its certificate must lead to. For a ServiceAccount token, the settings must say that.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use selvedge_certs::{
    facts::Utc,
    files::{self, FileError},
};
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName, identity::IdentityError};
use serde::Deserialize;

/// A file that is larger holds something else.
const MAX_TOKEN_FILE: usize = 64 << 10;

/// What the control plane is first known by, besides what a join token says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The SHA-256 of its root certificate; several while one root takes over from another.
    pub roots: Vec<RootSha256>,
    /// The trust domain where the token names none.
    pub trust_domain: TrustDomain,
}

/// The SHA-256 of a root certificate; as text, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootSha256(pub [u8; 32]);

/// A text is not a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 hexadecimal digits, as in the ConfigMap selvedge-trust-roots")]
pub struct NoSha256;

impl FromStr for RootSha256 {
    type Err = NoSha256;

    /// Colons between the bytes, as `openssl` prints them, are fine.
    fn from_str(text: &str) -> Result<Self, NoSha256> {
        let hex = text.replace(':', "");
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoSha256);
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).map_err(|_| NoSha256)?;
        }
        Ok(Self(bytes))
    }
}

/// Why there is no token to join with.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is not there (yet), not readable, or others may have put it there: a token says whom to trust.
    #[error("no join token: {0}; check --token-file")]
    File(#[from] FileError),
    /// Something else was given in its place.
    #[error(
        "this is not a join token ({reason}); create one with `selvedge token create`, or in a cluster \
         project a ServiceAccount token"
    )]
    Malformed {
        /// What is wrong with it. Never its text.
        reason: String,
    },
    /// A ServiceAccount token says nothing about the control plane.
    #[error(
        "this proxy does not know which control plane to trust: with a ServiceAccount token also give --trust-roots, the \
         SHA-256 of its root (ConfigMap selvedge-trust-roots, key root-sha256)"
    )]
    NoRoots,
    /// It was made too long ago.
    #[error(
        "the token expired at {}, and this host's clock says {}; create a new join token with `selvedge token create` \
         (a ServiceAccount token is renewed by the kubelet), or set the clock",
        Utc(*at), Utc(*now)
    )]
    Expired {
        /// When.
        at: SystemTime,
        /// What our clock says.
        now: SystemTime,
    },
    /// It was made for somebody else.
    #[error(
        "the token is for the workload {token}, but this is the sidecar of {us}; \
         make a join token for {us} with `selvedge token create`; in a pod, look at --workload"
    )]
    OtherWorkload {
        /// Whose it is.
        token: WorkloadName,
        /// Who we are.
        us: WorkloadName,
    },
}

/// Where the token comes from.
#[derive(Clone)]
pub enum TokenSource {
    /// From the command line or the environment.
    Given(String),
    /// From a file, read again for each attempt: it may be replaced.
    File(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A token that is worth showing.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub text: String,
    /// Who its bearer may become.
    pub identity: SpiffeId,
    /// The control plane's trust domain.
    pub trust_domain: TrustDomain,
    /// What the control plane's chain must end in: one of these.
    pub root_sha256: Vec<[u8; 32]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct JoinClaims {
    ns: String,
    sa: String,
    workload: Option<String>,
    exp: u64,
    root: String,
    td: String,
}

#[derive(Deserialize)]
struct ServiceAccountClaims {
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl TokenSource {
    /// The token as it is now, for the sidecar of `us`.
    ///
    /// # Errors
    /// If there is none, or if showing it would be of no use.
    pub fn read(&self, us: &WorkloadName, trust: &Trust, now: SystemTime) -> Result<Token, TokenError> {
        match self {
            Self::Given(text) => Token::read(text.trim(), us, trust, now),
            Self::File(path) => {
                let bytes = files::read_trusted(path)?;
                if bytes.len() > MAX_TOKEN_FILE {
                    return Err(malformed(format!("{} has {} bytes", path.display(), bytes.len())));
                }
                let text = std::str::from_utf8(&bytes);
                let text = text.map_err(|_| malformed(format!("{} is not text", path.display())))?;
                Token::read(text.trim(), us, trust, now)
            }
        }
    }
}

impl Token {
    fn read(text: &str, us: &WorkloadName, trust: &Trust, now: SystemTime) -> Result<Self, TokenError> {
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it does not have three parts".to_owned()));
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|error| malformed(error.to_string()))?;
        if let Ok(claims) = serde_json::from_slice::<ServiceAccountClaims>(&bytes) {
            return Self::of_service_account(text, claims, us, trust, now);
        }
        let claims: JoinClaims = serde_json::from_slice(&bytes)
            // The category and not the text: serde quotes what it read.
            .map_err(|error| {
                malformed(format!("its claims are not those of a join token: {:?}", error.classify()))
            })?;
        Self::of_join(text, claims, us, trust, now)
    }

    fn of_join(
        text: &str,
        claims: JoinClaims,
        us: &WorkloadName,
        trust: &Trust,
        now: SystemTime,
    ) -> Result<Self, TokenError> {
        check_end(claims.exp, now)?;
        if let Some(workload) = claims.workload {
            check_workload(workload.parse().map_err(|error| wrong_claim("workload", &error))?, us)?;
        }
        let trust_domain = claims.td.parse().map_err(|error| wrong_claim("td", &error))?;
        let root: RootSha256 = claims
            .root
            .parse()
            .map_err(|_| malformed("its claim root is not a SHA-256 in hexadecimal".to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            identity: SpiffeId::new(&trust_domain, &claims.ns, &claims.sa)
                .map_err(|error| wrong_claim("ns or sa", &error))?,
            root_sha256: [root].iter().chain(&trust.roots).map(|root| root.0).collect(),
            trust_domain,
        })
    }

    fn of_service_account(
        text: &str,
        claims: ServiceAccountClaims,
        us: &WorkloadName,
        trust: &Trust,
        now: SystemTime,
    ) -> Result<Self, TokenError> {
        let KubernetesClaims { namespace, serviceaccount, pod } = claims.kubernetes;
        check_end(claims.exp, now)?;
        if let Some(pod) = pod {
            let workload = WorkloadName::new(&namespace, &pod.name);
            check_workload(workload.map_err(|error| wrong_claim("kubernetes.io", &error))?, us)?;
        }
        if trust.roots.is_empty() {
            return Err(TokenError::NoRoots);
        }
        Ok(Self {
            text: text.to_owned(),
            identity: SpiffeId::new(&trust.trust_domain, &namespace, &serviceaccount.name)
                .map_err(|error| wrong_claim("kubernetes.io", &error))?,
            trust_domain: trust.trust_domain.clone(),
            root_sha256: trust.roots.iter().map(|root| root.0).collect(),
        })
    }
}

fn check_end(exp: u64, now: SystemTime) -> Result<(), TokenError> {
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(exp));
    match expires.filter(|at| *at <= now) {
        Some(at) => Err(TokenError::Expired { at, now }),
        None => Ok(()),
    }
}

fn check_workload(token: WorkloadName, us: &WorkloadName) -> Result<(), TokenError> {
    if token == *us { Ok(()) } else { Err(TokenError::OtherWorkload { token, us: us.clone() }) }
}

fn malformed(reason: String) -> TokenError {
    TokenError::Malformed { reason }
}

fn wrong_claim(claim: &str, error: &IdentityError) -> TokenError {
    malformed(format!("its claim {claim}: {error}"))
}

#[cfg(test)]
mod tests;
