//! Sessions that a rule keeps at their endpoints: what their tokens are encrypted with, and what carries them; and what the
//! cookies are signed with that requests are kept together by.
//!
//! Each rule has a key of its own, which all its proxies get and nobody else: a sidecar of another namespace cannot read
//! or make its tokens. Rules that follow the policy of a Service have one for that Service. Keys are derived from one key of
//! the whole mesh, so they are the same after a restart.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use selvedge_model::{
    ConsistentHash, HashKey, LoadBalancer, SessionKey, SessionPersistence, TrafficPolicy, WeightedBackend,
};

use super::{super::Problems, backends::Backends};
use crate::resources::Document;

impl Backends<'_> {
    /// The session of a `rule` that says nothing of sessions itself: what the policy of the one Service that it sends to says.
    /// If it sends to several, their policies are told, or, if they are of other namespaces, the document `written` of the rule
    /// at its field: whoever wrote a policy has not asked for that rule.
    pub(in super::super) fn session_of_service<T>(
        &self,
        backends: &[WeightedBackend],
        rule: &str,
        written: Option<(&Document<T>, &str)>,
        problems: &mut Problems,
    ) -> Option<Box<SessionPersistence>> {
        let (traffic, catalog) = (&self.routing.backend_traffic, self.routing.catalog);
        let used = backends.iter().filter(|share| share.weight > 0);
        let hosts: BTreeSet<_> = used.map(|share| &self.list[share.backend].name.service.host).collect();
        let mut policies = hosts.iter().filter_map(|host| {
            let policy = traffic.find(catalog.find(host)?)?;
            Some((host, policy, policy.spec.session.as_deref()?))
        });
        if hosts.len() == 1 {
            let (host, policy, session) = policies.next()?;
            return Some(self.session(session, &format!("{} {host}", policy.name)));
        }
        for (_, policy, _) in policies {
            let elsewhere = written.filter(|(route, _)| route.name.namespace != policy.name.namespace);
            if let Some((route, field)) = elsewhere {
                let message = format!(
                    "sends to several Services, so the session of {} has no effect: say sessionPersistence in the route itself",
                    policy.name
                );
                problems.warning(route, field, message);
                continue;
            }
            let message = format!(
                "has no effect on {rule}, which sends to several Services: say sessionPersistence in the route itself"
            );
            problems.warning(policy, "spec.sessionPersistence", message);
        }
        None
    }

    /// The `session` of what is called `rule`, with its key, and with a name if it has none.
    pub(in super::super) fn session(
        &self,
        session: &SessionPersistence,
        rule: &str,
    ) -> Box<SessionPersistence> {
        let derived = |what: &str| self.derived(what, rule);
        let mut session = Box::new(SessionPersistence { key: SessionKey(derived("key")), ..session.clone() });
        if session.name.is_empty() {
            let [a, b, c, d, ..] = derived("name");
            session.name = format!("selvedge-session-{:08x}", u32::from_be_bytes([a, b, c, d]));
        }
        session
    }

    /// If `policy` keeps requests together by a cookie that proxies give, gives it the key that they sign it with.
    ///
    /// All cookies of one name have one key: at a gateway, services of several namespaces may have a cookie of the same name
    /// for the same domain, and each would take that of the other for forged, and replace it, with each request.
    pub(super) fn sign_cookies(&self, policy: &mut TrafficPolicy) {
        if let LoadBalancer::ConsistentHash(ConsistentHash { key: HashKey::Cookie(cookie), .. }) =
            &mut policy.load_balancer
            && cookie.ttl.is_some()
        {
            cookie.key = Some(SessionKey(self.derived("cookie", &cookie.name)));
        }
    }

    /// Bytes that only `what` is derived of `name`.
    fn derived(&self, what: &str, name: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.routing.settings.session_key.0);
        let derived = hmac::sign(&key, format!("{what} {name}").as_bytes());
        std::array::from_fn(|place| derived.as_ref()[place])
    }
}
