//! Why a request for a certificate is refused, and what the proxy is told.

use selvedge_certs::ca::SignError;
use selvedge_model::{Revocation, SpiffeId, WorkloadName, identity::IdentityError};
use tonic::Status;

use super::super::{allowance::UsedUp, attestation::TokenError, audit::AuditError};

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Neither a token nor a client certificate.
    #[error("no proof of identity: send a join token, or connect with the current certificate")]
    NoProof,
    /// The connection outlived the certificate that it was made with.
    #[error("the client certificate has expired; connect with a newer one, or send a join token")]
    ExpiredCertificate,
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The control plane's own certificate is not renewed here.
    #[error("{0} is the control plane's own identity")]
    Reserved(SpiffeId),
    /// No namespace and name.
    #[error("workload: {0}")]
    WorkloadName(#[from] IdentityError),
    /// The proof is for one workload, and another one asked.
    #[error("the {proof} is for workload {allowed}, not for {asked}")]
    OtherWorkload {
        /// What was shown: a token or a certificate.
        proof: &'static str,
        /// Whom it names.
        allowed: WorkloadName,
        /// Who asked.
        asked: WorkloadName,
    },
    /// The proven identity is not the one that the documents give to this workload.
    #[error(
        "the proof is for {proven}, but {workload} is {expected} by its WorkloadEntry or Pod; \
         make a token for that namespace and service account, or change spec.serviceAccount"
    )]
    OtherIdentity {
        /// What was proven.
        proven: SpiffeId,
        /// Who asked.
        workload: WorkloadName,
        /// Whose identity it has.
        expected: SpiffeId,
    },
    /// The proven identity is of another namespace than the workload.
    #[error("the proof is for {proven}, which cannot be workload {workload}: the namespaces differ")]
    OtherNamespace {
        /// What was proven.
        proven: SpiffeId,
        /// Who asked.
        workload: WorkloadName,
    },
    /// A document says that it is not to be let in.
    #[error("{0}; ask the author of that document")]
    Revoked(Box<Revocation>),
    /// It was in a document, and is not any more.
    #[error(
        "no document declares workload {0} any more, so it is no longer a member of the mesh; to make it a member \
         again, add its WorkloadEntry (in a cluster: start its pod)"
    )]
    Removed(WorkloadName),
    /// It is in no document, and was not since this control plane started.
    #[error(
        "no document declares workload {0}; add a WorkloadEntry with that namespace and name, spec.serviceAccount and \
         spec.address"
    )]
    NoMember(WorkloadName),
    /// Nothing is known about any workload yet.
    #[error("the control plane is starting and has not read its configuration yet; try again")]
    Starting,
    /// The request asks for something else, or is garbage; or the authority cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Its identity has asked too often.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// The certificate cannot be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Refusal {
    /// The word in metrics and logs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoProof => "no-proof",
            Self::ExpiredCertificate => "certificate-expired",
            Self::Token(TokenError::Review(_) | TokenError::Keys(_)) => "token-review",
            Self::Token(TokenError::Expired(_) | TokenError::ExpiredServiceAccount(_)) => "token-expired",
            Self::Token(TokenError::Spent) => "token-spent",
            Self::Token(TokenError::Revoked { .. }) => "token-revoked",
            Self::Token(TokenError::Record(_)) => "token-record",
            Self::Token(_) => "token",
            Self::Reserved(_) => "reserved-identity",
            Self::WorkloadName(_) => "workload-name",
            Self::OtherWorkload { .. } => "other-workload",
            Self::OtherIdentity { .. } => "other-identity",
            Self::OtherNamespace { .. } => "other-namespace",
            Self::Revoked(_) => "revoked",
            Self::Removed(_) | Self::NoMember(_) => "no-member",
            Self::Starting => "starting",
            Self::UsedUp(_) => "rate-limited",
            Self::Audit(_) => "audit",
            Self::Sign(SignError::Request(_) | SignError::Lifetime { .. }) => "request",
            Self::Sign(_) => "authority",
        }
    }

    pub(super) fn status(&self) -> Status {
        let message = self.to_string();
        // What is wrong with our own files is for our own log.
        let internal = || Status::internal("the control plane cannot sign now; its log says why");
        match self {
            Self::NoProof | Self::ExpiredCertificate => Status::unauthenticated(message),
            Self::Token(
                TokenError::File(_)
                | TokenError::Random
                | TokenError::Key { .. }
                | TokenError::SpentList { .. },
            ) => internal(),
            Self::Token(TokenError::Record(_)) => Status::unavailable(
                "whether the join token is revoked cannot be known now; the control plane's log says why",
            ),
            Self::Token(TokenError::Review(_) | TokenError::Keys(_)) => Status::unavailable(message),
            Self::Token(_) => Status::unauthenticated(message),
            Self::WorkloadName(_) => Status::invalid_argument(message),
            Self::Sign(SignError::Request(_) | SignError::Lifetime { .. }) => {
                Status::invalid_argument(message)
            }
            Self::Sign(_) => internal(),
            Self::UsedUp(_) => Status::resource_exhausted(message),
            Self::Audit(_) => Status::unavailable(
                "the control plane cannot write its audit file, so it issues no certificates; its log says why",
            ),
            Self::Starting => Status::unavailable(message),
            Self::Reserved(_)
            | Self::Revoked(_)
            | Self::Removed(_)
            | Self::NoMember(_)
            | Self::OtherWorkload { .. }
            | Self::OtherIdentity { .. }
            | Self::OtherNamespace { .. } => Status::permission_denied(message),
        }
    }
}
