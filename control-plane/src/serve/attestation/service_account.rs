//! ServiceAccount tokens: in a cluster, how a pod proves who it is.
//!
//! By default the API server checks each token (TokenReview), because only it knows whether the pod that a token is bound
//! to still exists. With the API server's keys no request is needed for each token, but a token is accepted until it
//! expires (one hour, as injected). Only tokens made for us (audience `selvedge`) count: another service that receives a
//! pod's token cannot use it to pass for that pod here.

use std::{net::IpAddr, time::SystemTime};

use selvedge_kubernetes::{Client, Reviewed};
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName};
use selvedge_ops::shares::{Shares, Turn};
use serde::Deserialize;

use super::{
    Proof, TokenError,
    jwks::{self, Keys},
    refuse_reserved, seconds,
};

/// The audience that tokens for us are made for.
pub const AUDIENCE: &str = "selvedge";
/// Where a review names the pod that a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// How a ServiceAccount is called as a user.
const USER: &str = "system:serviceaccount:";
/// Reviews at a time: strangers who show us garbage must not keep the API server busy.
const REVIEWS_AT_ONCE: usize = 16;
/// Of them those of one address, which may be a node's.
const REVIEWS_OF_ONE: usize = 4;
/// How many seconds a token may be over by our clock and still be worth a question.
const CLOCK_SKEW: u64 = 600;

/// Who checks ServiceAccount tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenVerification {
    /// The API server checks each token (TokenReview): a token ends when its pod ends.
    #[value(name = "tokenreview")]
    TokenReview,
    /// The control plane checks each token with the API server's keys: a token is valid until it expires, even if
    /// its pod is gone.
    Jwks,
}

/// Has ServiceAccount tokens checked.
#[derive(Debug)]
pub struct ServiceAccounts {
    judge: Judge,
    trust_domain: TrustDomain,
}

#[derive(Debug)]
enum Judge {
    Review { client: Client, turns: Shares },
    Keys(Keys),
}

/// What can be told of a token without asking anybody. It proves nothing.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: u64,
    #[serde(default)]
    aud: Vec<String>,
}

/// Whom a token names.
#[derive(Debug, Deserialize)]
struct Subject {
    sub: String,
}

impl ServiceAccounts {
    /// Tokens of the cluster behind `client`, for identities in `trust_domain`.
    pub fn new(client: Client, verification: TokenVerification, trust_domain: &TrustDomain) -> Self {
        let judge = match verification {
            TokenVerification::TokenReview => {
                Judge::Review { client, turns: Shares::new(REVIEWS_AT_ONCE, REVIEWS_OF_ONE) }
            }
            TokenVerification::Jwks => Judge::Keys(Keys::new(client)),
        };
        Self { judge, trust_domain: trust_domain.clone() }
    }

    /// Whom `token` names. It proves nothing.
    pub fn claimed(&self, token: &str) -> Option<SpiffeId> {
        let subject = jsonwebtoken::dangerous::insecure_decode::<Subject>(token).ok()?.claims.sub;
        let (namespace, account) = subject.strip_prefix(USER)?.split_once(':')?;
        SpiffeId::new(&self.trust_domain, namespace, account).ok()
    }

    /// A turn of who asks from `address`, to be held until a token is checked. `None`: checking them needs none.
    pub async fn turn(&self, address: IpAddr) -> Option<Turn> {
        match &self.judge {
            Judge::Review { turns, .. } => Some(turns.turn(address).await),
            Judge::Keys(_) => None,
        }
    }

    /// What `token` proves.
    ///
    /// # Errors
    /// If the API server does not accept it, or does not answer; or if none of its keys has signed it.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Proof, TokenError> {
        let client = match &self.judge {
            Judge::Keys(keys) => return signed(&keys.verify(token, now).await?, &self.trust_domain),
            Judge::Review { client, .. } => client,
        };
        let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(token)
            .map_err(|error| TokenError::Malformed(error.to_string()))?
            .claims;
        worth_a_review(&claims, now)?;
        let reviewed = client.review_token(token, &[AUDIENCE]).await?;
        proof(reviewed, &self.trust_domain)
    }
}

/// Refuses what the API server would refuse, so that it need not be asked. Its clock counts, and ours may be fast.
fn worth_a_review(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    if seconds(now) >= claims.exp.saturating_add(CLOCK_SKEW) {
        return Err(TokenError::ExpiredServiceAccount(claims.exp));
    }
    if !claims.aud.iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::Audience(claims.aud.join(", ")));
    }
    Ok(())
}

fn proof(reviewed: Reviewed, trust_domain: &TrustDomain) -> Result<Proof, TokenError> {
    let (username, audiences, extra) = match reviewed {
        Reviewed::Authenticated { username, audiences, extra } => (username, audiences, extra),
        Reviewed::Refused(reason) => return Err(TokenError::NotVouchedFor(reason)),
    };
    // An API server that knows no audiences would vouch for any token.
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::Audience(audiences.join(", ")));
    }
    let account = username.strip_prefix(USER).and_then(|account| account.split_once(':'));
    let Some((namespace, account)) = account else { return Err(TokenError::NoServiceAccount(username)) };
    let pod = extra.get(POD_NAME).and_then(|names| names.first());
    proof_of(namespace, account, pod.map(String::as_str), trust_domain)
}

/// What a token's own words prove, once it is known who signed it.
fn signed(claims: &jwks::Claims, trust_domain: &TrustDomain) -> Result<Proof, TokenError> {
    let bound = &claims.kubernetes;
    let (namespace, account) = (&bound.namespace, &bound.serviceaccount.name);
    if claims.sub != format!("{USER}{namespace}:{account}") {
        return Err(TokenError::NoServiceAccount(claims.sub.clone()));
    }
    proof_of(namespace, account, bound.pod.as_ref().map(|pod| pod.name.as_str()), trust_domain)
}

fn proof_of(
    namespace: &str,
    account: &str,
    pod: Option<&str>,
    trust_domain: &TrustDomain,
) -> Result<Proof, TokenError> {
    let identity = SpiffeId::new(trust_domain, namespace, account)?;
    refuse_reserved(&identity)?;
    let workload = pod.map(|pod| WorkloadName::new(namespace, pod)).transpose()?;
    Ok(Proof { identity, workload, join_token: None })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;

    fn reviewed(username: &str, audience: &str, pod: Option<&str>) -> Reviewed {
        let extra = pod.map(|pod| (POD_NAME.to_owned(), vec![pod.to_owned()]));
        Reviewed::Authenticated {
            username: username.to_owned(),
            audiences: vec![audience.to_owned()],
            extra: extra.into_iter().collect::<BTreeMap<_, _>>(),
        }
    }

    fn proof(reviewed: Reviewed) -> Result<Proof, TokenError> {
        super::proof(reviewed, &TrustDomain::default())
    }

    #[test]
    fn a_pods_token_proves_its_service_account_and_that_pod() {
        let proof = proof(reviewed("system:serviceaccount:shop:reviews", AUDIENCE, Some("r-1"))).unwrap();

        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(proof.workload, Some(WorkloadName::new("shop", "r-1").unwrap()));
    }

    #[test]
    fn a_token_without_a_pod_proves_the_service_account_alone() {
        let proof = proof(reviewed("system:serviceaccount:shop:reviews", AUDIENCE, None)).unwrap();

        assert_eq!(proof.workload, None);
    }

    #[test]
    fn a_tokens_own_words_must_agree() {
        let claims = |sub: &str| -> jwks::Claims {
            serde_json::from_value(serde_json::json!({
                "iss": "a", "aud": ["b"], "exp": 1, "sub": sub,
                "kubernetes.io": {
                    "namespace": "shop", "serviceaccount": { "name": "reviews" }, "pod": { "name": "r-1" },
                },
            }))
            .unwrap()
        };

        let proof = signed(&claims("system:serviceaccount:shop:reviews"), &TrustDomain::default()).unwrap();
        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(proof.workload, Some(WorkloadName::new("shop", "r-1").unwrap()));
        let other = signed(&claims("system:serviceaccount:shop:payment"), &TrustDomain::default());
        assert!(matches!(other, Err(TokenError::NoServiceAccount(_))), "{other:?}");
    }

    #[test]
    fn what_is_not_for_us_or_no_service_accounts_proves_nothing() {
        let error = |reviewed| proof(reviewed).unwrap_err();

        let other = reviewed("system:serviceaccount:shop:reviews", "https://kubernetes.default.svc", None);
        assert!(matches!(error(other), TokenError::Audience(_)));
        let person = reviewed("alice", AUDIENCE, None);
        assert!(matches!(error(person), TokenError::NoServiceAccount(_)));
        let refused = Reviewed::Refused("token has been invalidated".to_owned());
        assert!(error(refused).to_string().contains("token has been invalidated"));
        let odd = reviewed("system:serviceaccount:shop:re views", AUDIENCE, None);
        assert!(matches!(error(odd), TokenError::Identity(_)));
    }

    #[test]
    fn the_api_server_is_not_asked_about_what_it_would_refuse() {
        let claims = |exp, audience: &str| Claims { exp, aud: vec![audience.to_owned()] };
        let now = UNIX_EPOCH + Duration::from_secs(1000);

        assert!(worth_a_review(&claims(1001, AUDIENCE), now).is_ok());
        let late = now + Duration::from_secs(1 + CLOCK_SKEW);
        assert!(worth_a_review(&claims(1001, AUDIENCE), late - Duration::from_secs(1)).is_ok());
        let late = worth_a_review(&claims(1001, AUDIENCE), late).unwrap_err();
        assert!(matches!(late, TokenError::ExpiredServiceAccount(1001)));
        let other = worth_a_review(&claims(1001, "vault"), now).unwrap_err();
        assert!(other.to_string().contains("vault"), "{other}");
    }
}
