//! What a gateway serves, bound: its ports, the listeners on each, and the rules of their virtual hosts.

use std::{net::SocketAddr, sync::Arc};

use selvedge_certs::tls::Edge;
use selvedge_model::gateway::{GatewayPort, ServerCertificate, Termination};
use tokio::sync::watch;

use super::Destination;

/// One port of a gateway.
#[derive(Debug)]
pub struct BoundPort {
    /// What configuration says of it, and how a name finds its listener.
    pub served: Arc<GatewayPort>,
    /// Where it listens.
    pub listens: SocketAddr,
    /// How long connections to it are served. Another one as soon as its clients must begin with something else.
    pub life: Life,
    /// In the order of `served`.
    pub listeners: Vec<BoundListener>,
}

/// One listener of a port.
#[derive(Debug)]
pub struct BoundListener {
    /// How long connections that it chose are served. Another one as soon as its clients must prove something else.
    pub life: Life,
    /// What happens to TLS. `None`: there is none.
    pub tls: Option<Arc<BoundTls>>,
    /// In the order of the listener's virtual hosts. `None`: DNS has not answered yet where its backends are.
    pub hosts: Vec<Option<Arc<Destination>>>,
}

/// What a listener does with TLS.
#[derive(Debug)]
pub enum BoundTls {
    /// It ends here.
    Terminate {
        /// What is made of `settings` and `certificates`. `None`: no client can be served.
        edge: Option<Edge>,
        /// How it ends.
        settings: Termination,
        /// The certificates that the settings name.
        certificates: Vec<Arc<ServerCertificate>>,
    },
    /// It goes on to the backend as it is.
    Passthrough,
}

/// How long something is served to which connections were made. Cheap to clone; all clones end together.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<watch::Sender<bool>>);

impl Life {
    /// Ends it.
    pub fn end(&self) {
        self.0.send_replace(true);
    }

    /// Completes when it has ended. Cancel-safe.
    pub async fn ended(&self) {
        let mut ended = self.0.subscribe();
        // `self` keeps the sender.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether the two are one.
    pub fn is(&self, other: &Self) -> bool {
        self.id() == other.id()
    }

    /// What it is known by as long as it is held.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}
