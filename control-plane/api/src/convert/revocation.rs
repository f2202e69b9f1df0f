//! Who is refused although its certificate is still valid.

use std::sync::Arc;

use selvedge_model::{Revocation, Revocations, Revoked, revocation};

use super::{ConvertError, all, parse, required};
use crate::wire::{self, revocation::Revoked as Who};

impl From<&Revocations> for wire::Revocations {
    fn from(revocations: &Revocations) -> Self {
        Self { list: revocations.list().iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Revocations> for Revocations {
    type Error = ConvertError;

    fn try_from(revocations: wire::Revocations) -> Result<Self, ConvertError> {
        Ok(Self::new(all(revocations.list)?))
    }
}

impl From<&Revocation> for wire::Revocation {
    fn from(entry: &Revocation) -> Self {
        let who = match &entry.revoked {
            Revoked::Identity(identity) => Who::Identity(identity.to_string()),
            Revoked::Workload(workload) => Who::Workload(workload.to_string()),
            Revoked::Serial { serial, namespace } => Who::Serial(wire::SerialNumber {
                number: serial.to_string(),
                namespace: namespace.as_deref().map(str::to_owned),
            }),
        };
        Self {
            revoked: Some(who),
            document: entry.document.to_string(),
            reason: entry.reason.as_deref().map(str::to_owned),
            until: entry.until.map(revocation::seconds),
        }
    }
}

impl TryFrom<wire::Revocation> for Revocation {
    type Error = ConvertError;

    fn try_from(entry: wire::Revocation) -> Result<Self, ConvertError> {
        let revoked = match required("whom a revocation is about", entry.revoked)? {
            Who::Identity(identity) => Revoked::Identity(parse("revoked identity", &identity)?),
            Who::Workload(workload) => Revoked::Workload(parse("revoked workload", &workload)?),
            Who::Serial(serial) => Revoked::Serial {
                serial: parse("revoked serial number", &serial.number)?,
                namespace: serial.namespace.map(Arc::from),
            },
        };
        // An end that no clock can show is none.
        let until = entry.until.and_then(revocation::moment);
        Ok(Self { revoked, document: Arc::from(entry.document), reason: entry.reason.map(Arc::from), until })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn revoked() -> impl Strategy<Value = Revoked> {
        prop_oneof![
            "[a-z]{1,9}".prop_map(|account| Revoked::Identity(
                format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
            )),
            "[a-z]{1,9}/[a-z]{1,9}".prop_map(|workload| Revoked::Workload(workload.parse().unwrap())),
            ("[0-9a-f]{1,40}", proptest::option::of("[a-z]{1,9}")).prop_map(|(serial, namespace)| {
                Revoked::Serial { serial: serial.parse().unwrap(), namespace: namespace.map(Arc::from) }
            }),
        ]
    }

    fn entry() -> impl Strategy<Value = Revocation> {
        let until =
            proptest::option::of((0..u64::from(u32::MAX)).prop_map(|s| UNIX_EPOCH + Duration::from_secs(s)));
        (revoked(), "[A-Z][a-z/ ]{1,20}", proptest::option::of(".{1,20}"), until).prop_map(
            |(revoked, document, reason, until)| Revocation {
                revoked,
                document: Arc::from(document),
                reason: reason.map(Arc::from),
                until,
            },
        )
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(list in proptest::collection::vec(entry(), 0..8)) {
            let list = Revocations::new(list);

            prop_assert_eq!(Revocations::try_from(wire::Revocations::from(&list)).unwrap(), list);
        }
    }

    #[test]
    fn an_entry_about_nobody_that_this_version_knows_is_refused() {
        let odd = wire::Revocations { list: vec![wire::Revocation::default()] };

        assert!(matches!(Revocations::try_from(odd), Err(ConvertError::Missing { .. })));
    }
}
