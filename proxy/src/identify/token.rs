//! The join token, as far as its bearer reads it.
//!
//! Its signature is the control plane's business. Where the control plane is concerned, the bearer has
//! nothing else to go by: the token says which root its certificate must lead to.

use std::{
    fmt, io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use selvedge_certs::facts::Utc;
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName, identity::IdentityError};
use serde::Deserialize;

/// A file that is larger holds something else.
const MAX_TOKEN_FILE: u64 = 64 << 10;

/// Why there is no token to join with.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is not there (yet), or not readable.
    #[error("the join token cannot be read from {}: {source}; check --token-file", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Something else was given in its place.
    #[error("the join token is not one ({reason}); make one with `selvedge token create`")]
    Malformed {
        /// What is wrong with it. Never its text.
        reason: String,
    },
    /// It was made too long ago.
    #[error("the join token expired at {}; make a new one with `selvedge token create`", Utc(*at))]
    Expired {
        /// When.
        at: SystemTime,
    },
    /// It was made for somebody else.
    #[error(
        "the join token is for the workload {token}, and this is the sidecar of {us}; \
         make one for {us} with `selvedge token create`"
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
pub struct JoinToken {
    /// The token itself.
    pub text: String,
    /// Who its bearer may become.
    pub identity: SpiffeId,
    /// Whose control plane made it.
    pub trust_domain: TrustDomain,
    /// What the control plane's chain must end in.
    pub root_sha256: [u8; 32],
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    ns: String,
    sa: String,
    workload: Option<String>,
    exp: u64,
    root: String,
    td: String,
}

impl TokenSource {
    /// The token as it is now, for the sidecar of `us`.
    ///
    /// # Errors
    /// If there is none, or if showing it would be of no use.
    pub fn read(&self, us: &WorkloadName, now: SystemTime) -> Result<JoinToken, TokenError> {
        match self {
            Self::Given(text) => JoinToken::read(text.trim(), us, now),
            Self::File(path) => {
                let failed = |source| TokenError::File { path: path.clone(), source };
                let size = std::fs::metadata(path).map_err(failed)?.len();
                if size > MAX_TOKEN_FILE {
                    return Err(malformed(format!("{} has {size} bytes", path.display())));
                }
                JoinToken::read(std::fs::read_to_string(path).map_err(failed)?.trim(), us, now)
            }
        }
    }
}

impl JoinToken {
    fn read(text: &str, us: &WorkloadName, now: SystemTime) -> Result<Self, TokenError> {
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it does not have three parts".to_owned()));
        };
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|error| malformed(error.to_string()))?;
        let claims: Claims = serde_json::from_slice(&claims)
            // The category and not the text: serde quotes what it read.
            .map_err(|error| {
                malformed(format!("its claims are not those of a join token: {:?}", error.classify()))
            })?;
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
        if let Some(at) = expires.filter(|at| *at <= now) {
            return Err(TokenError::Expired { at });
        }
        if let Some(workload) = claims.workload {
            let token: WorkloadName = workload.parse().map_err(|error| wrong_claim("workload", &error))?;
            if token != *us {
                return Err(TokenError::OtherWorkload { token, us: us.clone() });
            }
        }
        let trust_domain = claims.td.parse().map_err(|error| wrong_claim("td", &error))?;
        Ok(Self {
            text: text.to_owned(),
            identity: SpiffeId::new(&trust_domain, &claims.ns, &claims.sa)
                .map_err(|error| wrong_claim("ns or sa", &error))?,
            root_sha256: sha256(&claims.root)
                .ok_or_else(|| malformed("its claim root is no SHA-256 in hexadecimal".to_owned()))?,
            trust_domain,
        })
    }
}

fn malformed(reason: String) -> TokenError {
    TokenError::Malformed { reason }
}

fn wrong_claim(claim: &str, error: &IdentityError) -> TokenError {
    malformed(format!("its claim {claim}: {error}"))
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn us() -> WorkloadName {
        "shop/reviews-1".parse().unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims() -> Value {
        json!({ "ns": "shop", "sa": "reviews", "exp": 2000, "jti": "x", "once": false,
                "root": "0a".repeat(32), "td": "cluster.local" })
    }

    fn token(claims: &Value) -> String {
        format!("head.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_says_who_its_bearer_is_and_which_root_to_trust() {
        let source = TokenSource::Given(format!("{}\n", token(&claims())));

        let token = source.read(&us(), at(1000)).unwrap();

        assert_eq!(token.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(token.root_sha256, [10; 32]);
        assert!(!token.text.ends_with('\n'));
    }

    #[test]
    fn an_expired_token_says_so_and_what_to_do() {
        let error = JoinToken::read(&token(&claims()), &us(), at(2000)).unwrap_err().to_string();

        assert!(error.contains("expired at 1970-01-01T00:33:20Z"), "{error}");
        assert!(error.contains("selvedge token create"), "{error}");
    }

    #[test]
    fn a_token_for_another_workload_is_refused_here_already() {
        let mut claims = claims();
        claims["workload"] = json!("shop/ratings-1");

        let error = JoinToken::read(&token(&claims), &us(), at(1000)).unwrap_err();

        assert!(matches!(error, TokenError::OtherWorkload { .. }), "{error}");
    }

    #[test]
    fn something_else_in_its_place_is_named_and_never_quoted() {
        let mut without_root = claims();
        without_root["root"] = json!("zz");
        for text in
            ["", "secret", "a.secret.c", "a.b.c.d", &token(&json!({"secret": 1})), &token(&without_root)]
        {
            let error = JoinToken::read(text, &us(), at(1000)).unwrap_err();
            assert!(matches!(error, TokenError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let source = TokenSource::File("/nonexistent/token".into());

        let error = source.read(&us(), at(0)).unwrap_err().to_string();

        assert!(error.contains("/nonexistent/token") && error.contains("--token-file"), "{error}");
    }
}
