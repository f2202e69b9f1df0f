//! Why a token proves nothing: messages for its holder and for operators.

use std::{path::PathBuf, time::Duration};

use selvedge_certs::files::FileError;
use selvedge_model::{SpiffeId, TrustDomain, WorkloadName, identity::IdentityError};

use super::{KEY, KEY_LENGTH, records::RecordError, service_account, time};

/// Why there is no token, or why one proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its time is over.
    #[error("the join token expired at {}; create another with `selvedge token create`", time(*.0))]
    Expired(u64),
    /// It was changed, or made with another key.
    #[error(
        "the join token was changed, or it comes from another control plane (one with another --data-dir)"
    )]
    Altered,
    /// It is not a token of this kind.
    #[error("this is not a join token: {0}; create one with `selvedge token create`")]
    Malformed(String),
    /// A `--once` token that was used before.
    #[error("the join token was for one use and has been used; create another with `selvedge token create`")]
    Spent,
    /// Somebody has revoked it.
    #[error(
        "the join token {id} was revoked at {}; create another with `selvedge token create`",
        time(*at)
    )]
    Revoked {
        /// Which.
        id: String,
        /// When, in seconds since 1970.
        at: u64,
    },
    /// Whether it is revoked cannot be known.
    #[error("whether the join token is revoked cannot be known now: {0}")]
    Record(#[from] RecordError),
    /// A `--once` token where several replicas check tokens: none knows what the others have seen.
    #[error(
        "the join token is for one use, and several replicas of a control plane cannot count uses; create one \
         without --once"
    )]
    Once,
    /// A ServiceAccount token that has expired; the kubelet replaces the file before that.
    #[error("the ServiceAccount token expired at {}; its file has a newer one", time(*.0))]
    ExpiredServiceAccount(u64),
    /// A ServiceAccount token that was made for another audience.
    #[error(
        "the ServiceAccount token is for the audience {0:?}; project one with `audience: {audience}`",
        audience = service_account::AUDIENCE
    )]
    Audience(String),
    /// A ServiceAccount token that is not good yet: a clock is wrong.
    #[error("the ServiceAccount token is valid only from {}; check the clocks of the API server and of this host", time(*.0))]
    NotYet(u64),
    /// A ServiceAccount token of another cluster.
    #[error("the ServiceAccount token was issued by {found:?}, and this cluster's issuer is {own:?}")]
    Issuer {
        /// Who says to have issued it.
        found: String,
        /// Who issues tokens here.
        own: String,
    },
    /// A ServiceAccount token that none of the cluster's keys has signed.
    #[error("none of the cluster's keys has signed the ServiceAccount token: {0}")]
    Signature(String),
    /// The API server does not know the token (any more): its pod may be gone.
    #[error("the API server does not accept the ServiceAccount token: {0}")]
    NotVouchedFor(String),
    /// A person's token, or another program's.
    #[error("the token is {0:?}'s, which is not a ServiceAccount")]
    NoServiceAccount(String),
    /// A ServiceAccount token at a control plane without a cluster.
    #[error(
        "this is not a join token; ServiceAccount tokens are checked by a control plane with --source kubernetes"
    )]
    NoCluster,
    /// The API server cannot be asked.
    #[error("the ServiceAccount token cannot be checked now: {0}")]
    Review(#[from] selvedge_kubernetes::Error),
    /// The API server's keys cannot be had.
    #[error(
        "the ServiceAccount token cannot be checked now: the cluster's keys are not known: {0}; the control plane \
         needs to get /openid/v1/jwks and /.well-known/openid-configuration (ClusterRole \
         system:service-account-issuer-discovery), or --token-verification tokenreview"
    )]
    Keys(String),
    /// Made for a mesh that this control plane does not serve.
    #[error("the join token is for trust domain {found}, and this control plane serves {own}")]
    OtherTrustDomain {
        /// Whose the token is.
        found: String,
        /// Whose we are.
        own: TrustDomain,
    },
    /// The names cannot be an identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No workload may be what every workload trusts.
    #[error("{0} is the control plane's own identity, which no workload may have")]
    Reserved(SpiffeId),
    /// A workload of another namespace cannot have the service account.
    #[error("workload {workload} is not in namespace {namespace}, where the service account is")]
    OtherNamespace {
        /// Which workload.
        workload: WorkloadName,
        /// Where the service account is.
        namespace: String,
    },
    /// No time at all, or more than anybody means.
    #[error("a token cannot last for {0:?}; choose between 1s and 10 years")]
    Life(Duration),
    /// The key or the list of used tokens cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key file holds something else.
    #[error("{}: expected {KEY_LENGTH} bytes, found {found}; remove it, and create every token again", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        found: usize,
    },
    /// The list of used tokens cannot be read.
    #[error("{}: {reason}; without it tokens could be used twice: restore it, or remove it and {KEY}", path.display())]
    SpentList {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}
