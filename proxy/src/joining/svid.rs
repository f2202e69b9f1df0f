//! The SVID of a SPIFFE agent, as the certificate that peers see.
//!
//! Who we are is what the control plane has certified, for it has a proof of which workload we are, and it tells our peers
//! whom to expect. An SVID is used if it says the same. Whom to trust is decided by the control plane, too, for the whole
//! mesh in one place: an SVID that leads to a root that the mesh does not trust yet would be refused by every peer, so it
//! waits, and the last one stays in use.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_certs::{
    CertificateDer, PrivateKeyDer,
    leaf::{Leaf, LeafError},
    tls::Credentials,
    verify::{Anchors, BundleError, PeerError, Role},
};
use selvedge_model::SpiffeId;
use spiffe::X509Svid;
use tokio::sync::watch;

use super::{Complaint, Joined, own::LOOK_AT_CLOCK, traffic::Traffic, workload_api::Said};

/// What putting SVIDs into use needs from the rest of the control thread.
#[derive(Debug)]
pub struct Svids {
    /// What the agent says.
    pub said: watch::Receiver<Option<Said>>,
    /// Who we are, and whom the mesh trusts.
    pub joined: watch::Receiver<Option<Arc<Joined>>>,
    /// Where they are put into use.
    pub traffic: Traffic,
}

/// Why an SVID is not used.
#[derive(Debug, thiserror::Error)]
enum SvidError {
    #[error("the agent has no identity for this process ({0}); register it with the identity {1}")]
    Nobody(Arc<str>, SpiffeId),
    #[error(
        "the agent says that this process is {offered}, and the control plane that it is {expected}; register it with the identity {expected}"
    )]
    NotOurs { offered: String, expected: SpiffeId },
    #[error("it cannot be used: {0}")]
    Leaf(#[from] LeafError),
    #[error("its private key is of an unknown kind: {0}")]
    Key(&'static str),
    #[error("the mesh's roots cannot be used: {0}")]
    Bundle(#[from] BundleError),
    #[error(
        "peers would refuse it: {0}; the control plane says whom peers trust: give it the roots of the agent's CA, with --workload-roots"
    )]
    Refused(#[from] PeerError),
}

impl SvidError {
    /// Whether the agent has said that we are not, or no longer, who we are (SPIFFE Workload API, section 5.2.1: an SVID
    /// that the agent leaves out is not to be used any more).
    fn is_withdrawal(&self) -> bool {
        matches!(self, Self::Nobody(..) | Self::NotOurs { .. })
    }

    /// What tells one failure from another: without what the clock says.
    fn timeless(&self) -> String {
        match self {
            Self::Refused(error) => Self::Refused(error.timeless()).to_string(),
            other => other.to_string(),
        }
    }
}

/// Puts SVIDs into use, for as long as it is polled.
pub async fn run(svids: Svids) {
    let complaint = Complaint::new("the SVID of the agent is not used");
    let mut keeper = Keeper { svids, held: None, complaint };
    loop {
        let now = SystemTime::now();
        keeper.look(now);
        keeper.wait(now).await;
    }
}

struct Keeper {
    svids: Svids,
    /// In use, and what it is used with.
    held: Option<Credentials>,
    complaint: Complaint,
}

impl Keeper {
    /// Takes up what the agent and the control plane say now.
    fn look(&mut self, now: SystemTime) {
        let joined = self.svids.joined.borrow_and_update().clone();
        let said = self.svids.said.borrow_and_update().clone();
        let (Some(joined), Some(said)) = (joined, said) else { return };
        let leaf = match choose(&said, &joined, now) {
            Ok(leaf) => {
                self.complaint.settle();
                Some(leaf)
            }
            Err(error) => {
                self.refuse(&error);
                self.held.as_ref().map(|held| held.leaf.clone())
            }
        };
        if let Some(leaf) = leaf {
            self.put_into_use(Credentials { leaf, bundle: joined.bundle.clone() });
        }
        let valid = self.held.as_ref().is_some_and(|held| now <= held.leaf.not_after);
        self.svids.traffic.certificate.set(valid);
    }

    fn refuse(&mut self, error: &SvidError) {
        if self.complaint.raise_as(error.timeless(), error) {
            self.svids.traffic.metrics.control.certificate_failures.inc();
        }
        if error.is_withdrawal() && self.held.take().is_some() {
            self.svids.traffic.live.withdraw();
            tracing::warn!(
                "the SVID in use was taken back by the agent; no connection is made with it any more"
            );
        }
    }

    fn put_into_use(&mut self, credentials: Credentials) {
        let same_leaf = |held: &Credentials| held.leaf.chain == credentials.leaf.chain;
        if self.held.as_ref().is_some_and(|held| same_leaf(held) && held.bundle == credentials.bundle) {
            return;
        }
        if !self.held.as_ref().is_some_and(same_leaf) {
            self.svids.traffic.metrics.control.svids_used.inc();
        }
        match self.svids.traffic.put_into_use(credentials.clone()) {
            Ok(()) => self.held = Some(credentials),
            Err(error) => {
                tracing::warn!(%error, "the SVID cannot be put into use; the last one stays in use")
            }
        }
    }

    async fn wait(&mut self, now: SystemTime) {
        let not_after = self.held.as_ref().map(|held| held.leaf.not_after);
        let left = not_after.and_then(|not_after| not_after.duration_since(now).ok());
        // A moment later it has expired, by the clock of whole seconds.
        let left = left.map_or(LOOK_AT_CLOCK, |left| left + Duration::from_millis(100));
        let Svids { said, joined, .. } = &mut self.svids;
        tokio::select! {
            Ok(()) = said.changed() => {}
            Ok(()) = joined.changed() => {}
            () = tokio::time::sleep(left.min(LOOK_AT_CLOCK)) => {}
        }
    }
}

/// The first SVID that is for who we are, if peers will believe it.
fn choose(said: &Said, joined: &Joined, now: SystemTime) -> Result<Leaf, SvidError> {
    let context = match said {
        Said::Identities(context) => context,
        Said::Nobody(reason) => return Err(SvidError::Nobody(Arc::clone(reason), joined.identity.clone())),
    };
    let is_ours = |svid: &&Arc<X509Svid>| svid.spiffe_id().to_string() == joined.identity.as_str();
    let Some(svid) = context.svids().iter().find(is_ours) else {
        let offered: Vec<String> = context.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect();
        return Err(SvidError::NotOurs { offered: offered.join(" or "), expected: joined.identity.clone() });
    };
    let leaf = leaf(svid)?;
    let anchors = Anchors::among_workloads(&joined.bundle)?;
    for role in [Role::Client, Role::Server] {
        anchors.peer(&leaf.chain, now, role)?;
    }
    Ok(leaf)
}

fn leaf(svid: &X509Svid) -> Result<Leaf, SvidError> {
    let certificates = svid.cert_chain().iter();
    let chain = certificates.map(|der| CertificateDer::from(der.as_bytes().to_vec())).collect();
    let key = PrivateKeyDer::try_from(svid.private_key().as_bytes().to_vec()).map_err(SvidError::Key)?;
    Ok(Leaf::new(chain, key)?)
}
