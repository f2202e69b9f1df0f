//! From which addresses requests are answered (nginx's `whitelist-source-range` and `denylist-source-range` of an
//! `Ingress`).

use std::net::IpAddr;

use serde::Serialize;

use crate::policy::AddressSet;

/// Which clients are answered, by their addresses. Others are answered 403.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sources {
    /// Those that are answered; `None`: all.
    pub allowed: Option<AddressSet>,
    /// Those that are not, also if they are among the others.
    pub denied: AddressSet,
}

impl Sources {
    /// Whether a client at `address` is answered.
    pub fn may_ask(&self, address: IpAddr) -> bool {
        !self.denied.contains(address)
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::address::block;

    fn set(blocks: &[&str]) -> AddressSet {
        AddressSet::new(blocks.iter().map(|text| block(text).unwrap()))
    }

    #[test]
    fn a_denied_address_is_not_answered_whatever_is_allowed() {
        let sources = Sources { allowed: Some(set(&["10.0.0.0/8", "::1"])), denied: set(&["10.1.0.0/16"]) };
        for (address, may) in [
            ("10.2.0.1", true),
            ("::ffff:10.2.0.1", true),
            ("::1", true),
            ("10.1.0.1", false),
            ("::ffff:10.1.0.1", false),
            ("192.0.2.1", false),
            ("::2", false),
        ] {
            assert_eq!(sources.may_ask(address.parse().unwrap()), may, "{address}");
        }
        assert!(
            !Sources { allowed: Some(set(&[])), ..Sources::default() }.may_ask("10.0.0.1".parse().unwrap())
        );
        assert!(Sources::default().may_ask("10.0.0.1".parse().unwrap()));
    }
}
