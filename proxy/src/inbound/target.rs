//! The address of the app that an inbound connection is for. Pure.
//!
//! A connection goes where it was going, or where its preamble says if it was dialled to our own listener;
//! and only to our own workload. Nothing is relayed: there is no way to name another host, or one of the
//! proxy's own ports.

use std::net::SocketAddr;

use selvedge_model::Workload;

use crate::{
    arrival::OriginalDestination,
    error::{Failure, Reason},
    settings::{Settings, not_ours},
};

/// Where the app is reached for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppTarget {
    /// Where to connect.
    pub(super) address: SocketAddr,
    /// The workload's port: what policies go by.
    pub(super) port: u16,
    /// Whether the port is one that the workload is known to serve.
    pub(super) is_known: bool,
}

impl AppTarget {
    /// The port as metrics have it: 0 for those that are not known, since clients can dial any of them.
    pub(super) fn counted(&self) -> u16 {
        if self.is_known { self.port } else { 0 }
    }
}

/// Where a connection goes that has the `original` destination (`None`: nobody redirects) and whose
/// preamble has the port `asked` (`None`: there is no preamble, it is not a mesh peer's).
///
/// # Errors
/// [`Reason::Policy`] if it is not meant for this workload, [`Reason::Loop`] if it would come back to us,
/// [`Reason::AppUnreachable`] if nobody has said where the app listens for its port.
pub(super) fn app_target(
    settings: &Settings,
    own: &Workload,
    original: Option<OriginalDestination>,
    asked: Option<u16>,
) -> Result<AppTarget, Failure> {
    let is_known = |port: u16| own.ports.contains(&port);
    let refused = |what: String| Failure::new(Reason::Policy, what);
    match (&settings.app, original) {
        (Some(listens), _) => {
            let (port, address) = match asked {
                Some(port) => (port, listens.find(port, &own.ports)?),
                None => listens.only(&own.ports)?,
            };
            Ok(AppTarget { address, port, is_known: true })
        }
        (None, Some(original)) if !original.is_ours => match asked {
            Some(port) if port != original.address.port() => {
                Err(refused(format!("the peer asks for port {port} on a connection to {}", original.address)))
            }
            _ => redirected(settings, original.address, is_known(original.address.port())),
        },
        (None, original) => match (original, asked) {
            (Some(original), Some(port)) if is_known(port) => {
                redirected(settings, SocketAddr::new(original.address.ip(), port), true)
            }
            (_, Some(port)) => Err(not_ours(port)),
            (_, None) => Err(refused("the inbound port itself serves mesh peers only".to_owned())),
        },
    }
}

fn redirected(settings: &Settings, address: SocketAddr, is_known: bool) -> Result<AppTarget, Failure> {
    let port = address.port();
    settings.own.refuse_own_port(port)?;
    Ok(AppTarget { address, port, is_known })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use proptest::prelude::*;
    use selvedge_model::{InboundPolicy, SpiffeId, TrustDomain};

    use super::*;
    use crate::{
        io::Liveness,
        settings::{
            Carrier, HeadLimits, Listens, OutboundTrafficPolicy, PaceLimits, PathSlashes, RequestLimits,
            StreamLimits, listeners,
        },
    };

    fn settings(app: Option<&str>) -> Settings {
        Settings {
            workload: "shop/reviews-1".parse().unwrap(),
            app: app.and_then(|app| Listens::new(&[app.parse().unwrap()]).unwrap()),
            upstreams: Vec::new(),
            own: Arc::new(listeners()),
            carrier: Carrier::Http2,
            ingress: false,
            trusted_hops: 0,
            proxied_from: Box::default(),
            outbound_traffic_policy: OutboundTrafficPolicy::AllowAny,
            drain_timeout: Duration::from_secs(1),
            limits: RequestLimits { head: HeadLimits { bytes: 1024, count: 10 }, streams: 1 },
            header_timeout: Duration::from_secs(1),
            pace: PaceLimits { patience: Duration::from_secs(1), rate: 1 },
            read: PaceLimits { patience: Duration::ZERO, rate: 0 },
            max_body: 0,
            idle_timeout: Duration::from_secs(1),
            preserve_header_case: false,
            path_slashes: PathSlashes::Kept,
            detect_timeout: Duration::from_secs(1),
            opaque_ports: Vec::new(),
            tcp: StreamLimits::new(Duration::ZERO, Duration::ZERO),
            websocket: StreamLimits::new(Duration::ZERO, Duration::ZERO),
            liveness: Liveness::OFF,
            max_connection_age: None,
        }
    }

    fn own() -> Workload {
        Workload {
            name: "shop/reviews-1".parse().unwrap(),
            identity: SpiffeId::new(&TrustDomain::default(), "shop", "reviews").unwrap(),
            meshed: true,
            inbound: None,
            ports: vec![9080],
            policy: InboundPolicy::default(),
            protocols: BTreeMap::new(),
            app_connections: BTreeMap::new(),
            egress: None,
            gateway: None,
            telemetry: None,
            place: None,
            services: BTreeMap::new(),
            labels: std::sync::Arc::default(),
        }
    }

    fn to(address: &str, is_ours: bool) -> Option<OriginalDestination> {
        let address: SocketAddr = address.parse().unwrap();
        Some(OriginalDestination { address, local: address.ip(), is_ours })
    }

    /// The app's address, or why not.
    fn redirected(original: Option<OriginalDestination>, asked: Option<u16>) -> Result<String, Reason> {
        let target = app_target(&settings(None), &own(), original, asked);
        target.map(|target| target.address.to_string()).map_err(|failure| failure.reason)
    }

    #[test]
    fn a_redirected_connection_goes_where_it_was_going() {
        assert_eq!(redirected(to("10.0.0.5:9080", false), None), Ok("10.0.0.5:9080".to_owned()));
        assert_eq!(redirected(to("10.0.0.5:9080", false), Some(9080)), Ok("10.0.0.5:9080".to_owned()));
        assert_eq!(redirected(to("[fd00::5]:8000", false), Some(8000)), Ok("[fd00::5]:8000".to_owned()));
        assert_eq!(redirected(to("10.0.0.5:9080", false), Some(8000)), Err(Reason::Policy));
    }

    #[test]
    fn our_own_listener_serves_mesh_peers_and_ports_of_this_workload() {
        assert_eq!(redirected(to("10.0.0.5:4143", true), Some(9080)), Ok("10.0.0.5:9080".to_owned()));
        assert_eq!(redirected(to("10.0.0.5:4143", true), Some(9081)), Err(Reason::Policy));
        assert_eq!(redirected(to("10.0.0.5:4143", true), Some(4143)), Err(Reason::Policy));
        assert_eq!(redirected(to("10.0.0.5:4143", true), None), Err(Reason::Policy));
    }

    #[test]
    fn our_own_ports_are_no_app() {
        assert_eq!(redirected(to("10.0.0.5:4140", false), None), Err(Reason::Loop));
        assert_eq!(redirected(to("10.0.0.5:4143", false), Some(4143)), Err(Reason::Loop));
        assert_eq!(redirected(to("10.0.0.5:4191", false), None), Err(Reason::Policy));
    }

    #[test]
    fn without_redirection_there_is_one_app() {
        let of = |asked| app_target(&settings(Some("127.0.0.1:8080")), &own(), None, asked);

        assert_eq!(of(None).unwrap().port, 9080);
        assert_eq!(
            of(Some(9080)).unwrap(),
            AppTarget { address: "127.0.0.1:8080".parse().unwrap(), port: 9080, is_known: true }
        );
        assert_eq!(of(Some(9081)).unwrap_err().reason, Reason::Policy);
        assert_eq!(of(Some(8080)).unwrap_err().reason, Reason::Policy, "policies go by the workload's port");
    }

    proptest! {
        #[test]
        fn no_client_reaches_another_address_than_the_one_it_dialled(
            ip: [u8; 4], port: u16, asked: Option<u16>, is_ours: bool
        ) {
            let address = SocketAddr::from((ip, port));
            let original = OriginalDestination { address, local: address.ip(), is_ours };

            if let Ok(target) = app_target(&settings(None), &own(), Some(original), asked) {
                prop_assert_eq!(target.address.ip(), original.address.ip());
                prop_assert_eq!(target.port, target.address.port());
                prop_assert!(target.port == port || (is_ours && own().ports.contains(&target.port)));
                prop_assert!(![4140, 4143, 4191].contains(&target.port));
            }
        }
    }
}
