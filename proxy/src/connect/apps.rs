//! The app beside us, as something to connect to.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use crate::{
    balance::Flight,
    bind::{ClientTls, Others, Slot, Target},
};

/// The place that all ports share which are not known to be the app's.
const UNKNOWN_PORTS: usize = 0;

/// Where a worker reaches the app: at each address and port that was dialled.
#[derive(Debug, Default)]
pub struct Apps(RefCell<Vec<Arc<Target>>>);

impl Apps {
    /// The app at `address`. Connections are kept for ports that are `known` to be the app's; of others
    /// there may be any number.
    pub fn at(&self, address: SocketAddr, known: bool) -> Arc<Target> {
        let mut apps = self.0.borrow_mut();
        if let Some(app) = apps.iter().find(|app| app.dial == address) {
            return Arc::clone(app);
        }
        let slot = if known { UNKNOWN_PORTS + 1 + apps.len() } else { UNKNOWN_PORTS };
        let (dial, port) = (address, address.port());
        let app = Arc::new(Target {
            slot: Slot::App(slot),
            dial,
            port,
            identity: None,
            workload: None,
            permit: None,
            tls: ClientTls::ByIdentity,
            proxy_protocol: None,
            flight: Flight::default(),
            others: Others::default(),
        });
        if known {
            apps.push(Arc::clone(&app));
        }
        app
    }
}
