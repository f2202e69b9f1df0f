//! Who has called a workload lately.

use std::{net::IpAddr, sync::Arc};

use selvedge_model::{
    policy::LONGEST_TEXT,
    seen::{Called, Caller, MOST_PORTS, MOST_REFUSED, RefusedCall, Report, Svid},
};

use super::{ConvertError, authorization::at_most, parse, port, traffic};
use crate::wire::{self, caller::Caller as Who};

impl From<&Report> for wire::Report {
    fn from(report: &Report) -> Self {
        let ports = |ports: &[Called]| {
            let port =
                |one: &Called| wire::CalledPort { port: one.port.into(), seconds_ago: one.seconds_ago };
            ports.iter().map(port).collect()
        };
        let caller = |(caller, called): &(Caller, Vec<Called>)| wire::Caller {
            caller: Some(match caller {
                Caller::Identity(identity) => Who::Identity(identity.to_string()),
                Caller::Address(address) => Who::Address(address.to_string()),
            }),
            ports: ports(called),
        };
        let mut message = Self {
            watched_seconds: report.watched,
            callers: report.callers.iter().map(caller).collect(),
            refused: report.refused.iter().map(Into::into).collect(),
            svid: report.svid.map(|svid| wire::Svid { expires_at: svid.expires_at }),
            left_out: report.left_out,
            memory_bytes: report.memory,
            ..Self::default()
        };
        traffic::put(&report.traffic, &mut message);
        message
    }
}

impl From<&RefusedCall> for wire::RefusedCall {
    fn from(refused: &RefusedCall) -> Self {
        let RefusedCall { target, policy, seconds_ago } = refused;
        Self { target: target.to_string(), policy: policy.to_string(), seconds_ago: *seconds_ago }
    }
}

impl TryFrom<wire::RefusedCall> for RefusedCall {
    type Error = ConvertError;

    fn try_from(refused: wire::RefusedCall) -> Result<Self, ConvertError> {
        at_most("length of a policy's name", refused.policy.len(), LONGEST_TEXT)?;
        Ok(Self {
            target: parse("target of a refused call", &refused.target)?,
            policy: Arc::from(refused.policy),
            seconds_ago: refused.seconds_ago,
        })
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = ConvertError;

    /// A caller of a kind that this version does not know counts as left out.
    fn try_from(mut report: wire::Report) -> Result<Self, ConvertError> {
        let traffic = traffic::take(&mut report)?;
        let mut callers = Vec::with_capacity(report.callers.len());
        let mut left_out = report.left_out;
        for wire::Caller { caller, ports } in report.callers {
            let caller = match caller {
                Some(Who::Identity(identity)) => Caller::Identity(parse("a caller's identity", &identity)?),
                Some(Who::Address(address)) => {
                    Caller::Address(parse::<IpAddr>("a caller's address", &address)?.to_canonical())
                }
                None => {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
            };
            left_out = left_out.saturating_add(ports.len().saturating_sub(MOST_PORTS) as u64);
            let called = |one: wire::CalledPort| {
                Ok(Called { port: port("a called port", one.port)?, seconds_ago: one.seconds_ago })
            };
            let ports: Result<_, ConvertError> = ports.into_iter().take(MOST_PORTS).map(called).collect();
            callers.push((caller, ports?));
        }
        let refused = report.refused.into_iter().take(MOST_REFUSED).map(RefusedCall::try_from);
        Ok(Self {
            callers,
            refused: refused.collect::<Result<_, _>>()?,
            svid: report.svid.map(|svid| Svid { expires_at: svid.expires_at }),
            left_out,
            watched: report.watched_seconds,
            traffic,
            memory: report.memory_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use selvedge_model::traffic::Told;

    use super::*;

    fn caller() -> impl Strategy<Value = Caller> {
        prop_oneof![
            "[a-z]{1,9}".prop_map(|account| Caller::Identity(
                format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
            )),
            any::<[u8; 4]>().prop_map(|address| Caller::Address(IpAddr::from(address))),
            any::<[u8; 16]>().prop_map(|address| Caller::Address(IpAddr::from(address).to_canonical())),
        ]
    }

    fn called() -> impl Strategy<Value = Called> {
        (1_u16.., any::<u64>()).prop_map(|(port, seconds_ago)| Called { port, seconds_ago })
    }

    fn refused() -> impl Strategy<Value = RefusedCall> {
        let target = (any::<IpAddr>(), 1_u16..).prop_map(|(ip, port)| std::net::SocketAddr::new(ip, port));
        (target, "[a-z ]{1,9}", any::<u64>()).prop_map(|(target, policy, seconds_ago)| RefusedCall {
            target,
            policy: policy.into(),
            seconds_ago,
        })
    }

    proptest! {
        #[test]
        fn a_report_is_read_as_it_was_written(
            callers in vec((caller(), vec(called(), 0..MOST_PORTS)), 0..8),
            refused in vec(refused(), 0..8),
            svid in proptest::option::of(proptest::option::of(any::<u64>())),
            left_out in any::<u64>(),
            watched in any::<u64>(),
        ) {
            let svid = svid.map(|expires_at| Svid { expires_at });
            let traffic = Told::default();
            let report = Report { callers, refused, svid, left_out, watched, traffic, memory: left_out };

            prop_assert_eq!(Report::try_from(wire::Report::from(&report)).unwrap(), report);
        }
    }

    #[test]
    fn what_nobody_can_be_called_by_is_refused_and_what_a_newer_proxy_says_is_left_out() {
        let of = |caller, port| wire::Report {
            callers: vec![wire::Caller { caller, ports: vec![wire::CalledPort { port, seconds_ago: 0 }] }],
            ..Default::default()
        };
        let address = |text: &str| Some(Who::Address(text.to_owned()));

        assert!(Report::try_from(of(address("10.0.0.1"), 80)).is_ok());
        assert!(Report::try_from(of(address("10.0.0.1"), 0)).is_err());
        assert!(Report::try_from(of(address("nowhere"), 80)).is_err());
        assert!(Report::try_from(of(Some(Who::Identity("me".to_owned())), 80)).is_err());
        let newer = Report::try_from(of(None, 80)).unwrap();
        assert_eq!((newer.callers.len(), newer.left_out), (0, 1));
    }
}
