//! Whom our workload may call, by network policies. Asked when a target is bound, and by every connection to it when the
//! policies change; never by a request.

use std::{future::pending, net::SocketAddr, sync::Arc};

use selvedge_model::{
    SpiffeId,
    policy::network::{NetworkRules, NetworkVerdict, Party},
};
use tokio::sync::watch;

use crate::error::{Failure, Reason};

/// Whom our workload may call, now and later.
#[derive(Debug, Clone)]
pub struct Egress(watch::Receiver<Option<Arc<NetworkRules>>>);

impl Egress {
    /// As the rules that are sent say; `None`: everybody.
    pub fn new(rules: watch::Receiver<Option<Arc<NetworkRules>>>) -> Self {
        Self(rules)
    }

    /// What it says of an endpoint at `address`, which is dialled at `dial` and must prove to be `identity` (`None`: it is
    /// called in plaintext).
    pub fn permit(&self, address: SocketAddr, dial: SocketAddr, identity: Option<SpiffeId>) -> Arc<Permit> {
        Arc::new(Permit { address, dial, identity, egress: self.clone() })
    }
}

impl Default for Egress {
    /// Everybody, for good.
    fn default() -> Self {
        Self(watch::Sender::new(None).subscribe())
    }
}

/// What refuses a call.
#[derive(Debug)]
pub struct Refused<'r> {
    /// The address that is refused: the endpoint's, or the one that is dialled.
    pub address: SocketAddr,
    /// The rule or document that refuses it.
    pub rule: &'r Arc<str>,
    /// Why.
    pub why: &'static str,
}

/// A call that network policies do not let us make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The address that is refused.
    pub address: SocketAddr,
    /// The rule or document that refuses it.
    pub rule: Arc<str>,
    /// Why.
    pub why: &'static str,
}

impl Denied {
    /// What the client is told.
    pub fn failure(&self) -> Failure {
        let Self { address, rule, why } = self;
        Failure::new(Reason::Policy, format!("{rule}: {address}: {why}"))
    }
}

/// What `rules` say of a call to an endpoint at `address`, which is dialled at `dial` and must prove to be `identity` (`None`:
/// it is called in plaintext): the rule that allows it, if one does so by its name. `log` is called with each rule that only
/// logs.
///
/// # Errors
/// What refuses it.
pub fn judged<'r>(
    rules: &'r NetworkRules,
    address: SocketAddr,
    dial: SocketAddr,
    identity: Option<&SpiffeId>,
    log: impl Fn(SocketAddr, &Arc<str>),
) -> Result<Option<&'r Arc<str>>, Refused<'r>> {
    let judged = |address| match rules.judge(&Party::endpoint(address, identity), |rule| log(address, rule)) {
        NetworkVerdict::Allow(rule) => Ok(rule),
        NetworkVerdict::Deny(rule, why) => Err(Refused { address, rule, why }),
    };
    let rule = judged(address)?;
    // Without an identity to prove, whoever is at the address that is dialled gets what is sent.
    if identity.is_none() && dial.ip() != address.ip() {
        judged(SocketAddr::new(dial.ip(), address.port()))?;
    }
    Ok(rule)
}

/// Whether our workload may call one endpoint.
#[derive(Debug)]
pub struct Permit {
    address: SocketAddr,
    dial: SocketAddr,
    identity: Option<SpiffeId>,
    egress: Egress,
}

impl Permit {
    /// The endpoint's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why it may not be called now; `None`: it may.
    pub fn refusal(&self) -> Option<Failure> {
        self.denied().map(|denied| denied.failure())
    }

    /// The same, for who counts it.
    pub fn denied(&self) -> Option<Denied> {
        let rules = self.egress.0.borrow();
        let rules = rules.as_ref()?;
        let log = |address: SocketAddr, rule: &Arc<str>| {
            tracing::info!(%address, %rule, decision = "log", "noted by policy");
        };
        let judged = judged(rules, self.address, self.dial, self.identity.as_ref(), log);
        let Refused { address, rule, why } = judged.err()?;
        Some(Denied { address, rule: Arc::clone(rule), why })
    }

    /// Completes when it may not be called any more, and says why.
    pub async fn withdrawn(&self) -> Failure {
        let mut changed = self.egress.0.clone();
        loop {
            changed.mark_unchanged();
            if let Some(failure) = self.refusal() {
                return failure;
            }
            if changed.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}

/// The same for a connection to what no policy is asked about: then never.
pub async fn withdrawn(permit: Option<&Permit>) -> Failure {
    match permit {
        Some(permit) => permit.withdrawn().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::policy::{
        AddressSet,
        network::{NetworkAction, NetworkAsks, NetworkCondition, NetworkRule, Peers},
    };

    use super::*;

    /// Rules that allow what is in `block`.
    fn rules(block: &str) -> Option<Arc<NetworkRules>> {
        let within = AddressSet::new([block.parse().unwrap()]);
        let peers = vec![Peers::Block { within, except: AddressSet::default() }];
        let conditions = vec![NetworkCondition::new(NetworkAsks::Peer(peers))];
        let rule = NetworkRule { name: "rule".into(), action: NetworkAction::Allow, conditions };
        Some(Arc::new(NetworkRules::one_tier(vec![rule], vec!["policy".into()])))
    }

    #[tokio::test]
    async fn a_call_is_permitted_until_the_rules_change() {
        let sender = watch::Sender::new(rules("10.0.0.0/8"));
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let permit = Egress::new(sender.subscribe()).permit(address, address, None);
        let mut withdrawn = std::pin::pin!(permit.withdrawn());

        assert!(permit.refusal().is_none());
        assert!(futures_util::poll!(&mut withdrawn).is_pending());
        sender.send_replace(rules("11.0.0.0/8"));

        let failure = withdrawn.await;
        assert_eq!(failure.reason, Reason::Policy);
        assert!(failure.to_string().contains("policy: 10.0.0.1:80"), "{failure}");
    }

    #[test]
    fn what_is_dialled_elsewhere_in_plaintext_is_judged_by_both_addresses() {
        let sender = watch::Sender::new(rules("10.0.0.0/8"));
        let egress = Egress::new(sender.subscribe());
        let (address, dial) = ("10.0.0.1:80".parse().unwrap(), "169.254.169.254:80".parse().unwrap());

        assert!(egress.permit(address, dial, None).refusal().is_some());
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        assert!(egress.permit(address, dial, Some(identity)).refusal().is_none());
        assert!(egress.permit(dial, address, None).refusal().is_some());
        assert!(Egress::default().permit(dial, dial, None).refusal().is_none());
    }
}
