//! Whom our workload may call, by network policies. Asked when a target is bound, and by every connection to it when the
//! policies change; never by a request.

use std::{future::pending, net::SocketAddr, sync::Arc};

use selvedge_model::{
    SpiffeId,
    policy::network::{NetworkRules, NetworkVerdict, Party},
};
use tokio::sync::watch;

use crate::error::{Failure, Reason};

/// The rules by which it is decided; `None`: everybody may be called.
pub type Rules = Option<Arc<NetworkRules>>;

/// Whom our workload may call, now and later.
#[derive(Debug, Clone)]
pub struct Egress(watch::Receiver<InForce>);

/// The rules in force. While a table is bound by new ones, workers go on with the table before it: what either permits may be
/// called then, so that no call fails because it was chosen by the one and is judged by the other.
#[derive(Debug, Default)]
struct InForce {
    now: Rules,
    before: Option<Rules>,
}

/// For who says whom our workload may call.
#[derive(Debug)]
pub struct Ruling(watch::Sender<InForce>);

impl Ruling {
    /// Begins with these rules.
    pub fn new(now: Rules) -> Self {
        Self(watch::Sender::new(InForce { now, before: None }))
    }

    /// What it says, now and later.
    pub fn egress(&self) -> Egress {
        Egress(self.0.subscribe())
    }

    /// The newest rules.
    pub fn rules(&self) -> Rules {
        self.0.borrow().now.clone()
    }

    /// Permits what `rules` permit, beside what was permitted before. Returns whether the rules are not those from before.
    pub fn widen(&self, rules: Rules) -> bool {
        let mut is_other = false;
        // Nothing ends by it, so nobody is woken.
        self.0.send_if_modified(|in_force| {
            is_other = in_force.now != rules;
            if is_other {
                let before = std::mem::replace(&mut in_force.now, rules);
                in_force.before.get_or_insert(before);
            }
            false
        });
        is_other
    }

    /// Permits what the newest rules permit and nothing else: connections that they forbid end.
    pub fn narrow(&self) {
        self.0.send_if_modified(|in_force| in_force.before.take().is_some());
    }
}

impl Egress {
    /// What it says of an endpoint at `address`, which is dialled at `dial` and must prove to be `identity` (`None`: it is
    /// called in plaintext).
    pub fn permit(&self, address: SocketAddr, dial: SocketAddr, identity: Option<SpiffeId>) -> Arc<Permit> {
        Arc::new(Permit { address, dial, identity, egress: self.clone() })
    }
}

impl Default for Egress {
    /// Everybody, for good.
    fn default() -> Self {
        Ruling::new(None).egress()
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
        let in_force = self.egress.0.borrow();
        let denied = self.denied_by(&in_force.now)?;
        match &in_force.before {
            Some(before) => self.denied_by(before).and(Some(denied)),
            None => Some(denied),
        }
    }

    /// Why it may not be called by these rules.
    pub fn denied_by(&self, rules: &Rules) -> Option<Denied> {
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
    fn rules(block: &str) -> Rules {
        let within = AddressSet::new([block.parse().unwrap()]);
        let peers = vec![Peers::Block { within, except: AddressSet::default() }];
        let conditions = vec![NetworkCondition::new(NetworkAsks::Peer(peers))];
        let rule = NetworkRule { name: "rule".into(), action: NetworkAction::Allow, conditions };
        Some(Arc::new(NetworkRules::one_tier(vec![rule], vec!["policy".into()])))
    }

    #[tokio::test]
    async fn a_call_is_permitted_until_the_rules_change() {
        let ruling = Ruling::new(rules("10.0.0.0/8"));
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let permit = ruling.egress().permit(address, address, None);
        let mut withdrawn = std::pin::pin!(permit.withdrawn());

        assert!(permit.refusal().is_none());
        assert!(futures_util::poll!(&mut withdrawn).is_pending());
        assert!(ruling.widen(rules("11.0.0.0/8")));
        ruling.narrow();

        let failure = withdrawn.await;
        assert_eq!(failure.reason, Reason::Policy);
        assert!(failure.to_string().contains("policy: 10.0.0.1:80"), "{failure}");
    }

    #[tokio::test]
    async fn what_is_permitted_before_or_after_goes_on_until_only_the_new_rules_are_in_force() {
        let ruling = Ruling::new(rules("10.0.0.0/8"));
        let [old, new, other] = ["10.0.0.1:80", "11.0.0.1:80", "12.0.0.1:80"].map(|address| {
            let address = address.parse().unwrap();
            ruling.egress().permit(address, address, None)
        });
        let mut withdrawn = std::pin::pin!(old.withdrawn());
        assert!(futures_util::poll!(&mut withdrawn).is_pending());
        let permitted = || [&old, &new, &other].map(|permit| permit.denied().is_none());

        assert!(ruling.widen(rules("11.0.0.0/8")));
        assert!(!ruling.widen(rules("11.0.0.0/8")), "they are not other than before");

        assert_eq!(permitted(), [true, true, false]);
        assert!(futures_util::poll!(&mut withdrawn).is_pending());
        assert!(old.denied_by(&ruling.rules()).is_some());
        ruling.narrow();
        assert_eq!(permitted(), [false, true, false]);
        assert!(futures_util::poll!(&mut withdrawn).is_ready());
    }

    #[test]
    fn what_is_dialled_elsewhere_in_plaintext_is_judged_by_both_addresses() {
        let ruling = Ruling::new(rules("10.0.0.0/8"));
        let egress = ruling.egress();
        let (address, dial) = ("10.0.0.1:80".parse().unwrap(), "169.254.169.254:80".parse().unwrap());

        assert!(egress.permit(address, dial, None).refusal().is_some());
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        assert!(egress.permit(address, dial, Some(identity)).refusal().is_none());
        assert!(egress.permit(dial, address, None).refusal().is_some());
        assert!(Egress::default().permit(dial, dial, None).refusal().is_none());
    }
}
