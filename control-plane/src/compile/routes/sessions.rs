//! Sessions that a rule keeps at their endpoints: what their tokens are encrypted with, and what carries them.
//!
//! Each rule has a key of its own, which all its proxies get and nobody else: a sidecar of another namespace cannot read
//! or make its tokens. It is derived from one key of the whole mesh, so it is the same after a restart.

use aws_lc_rs::hmac;
use selvedge_model::{SessionKey, SessionPersistence};

use super::backends::Backends;

impl Backends<'_> {
    /// The `session` of what is called `rule`, with its key, and with a name if it has none.
    pub(in super::super) fn session(
        &self,
        session: &SessionPersistence,
        rule: &str,
    ) -> Box<SessionPersistence> {
        let derived = |what: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &self.routing.settings.session_key.0);
            let derived = hmac::sign(&key, format!("{what} {rule}").as_bytes());
            std::array::from_fn::<u8, 32, _>(|place| derived.as_ref()[place])
        };
        let mut session = Box::new(SessionPersistence { key: SessionKey(derived("key")), ..session.clone() });
        if session.name.is_empty() {
            let [a, b, c, d, ..] = derived("name");
            session.name = format!("selvedge-session-{:08x}", u32::from_be_bytes([a, b, c, d]));
        }
        session
    }
}
