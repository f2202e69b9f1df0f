//! One connection: opened to a target in the way that its endpoint expects.

use selvedge_api::wire;

use super::{settings::PoolSettings, terms::Opening, tls};
use crate::{arrival::Direction, bind::Target, error::Failure, telemetry::OpenConnection};

/// Opens a connection to `target`. A failure is counted.
pub(super) async fn open(
    target: &Target,
    settings: &PoolSettings,
    carrier: wire::Carrier,
    app: wire::AppProtocol,
    mut opening: Opening,
) -> Result<tls::Opened, Failure> {
    let preamble = wire::Preamble {
        carrier: carrier.into(),
        port: target.port.into(),
        source: settings.source.clone(),
        app: app.into(),
        naming: Some((&settings.metrics.own_naming()).into()),
    };
    if let Some(oldest) = settings.max_connection_age {
        opening.max_age = opening.max_age.min(oldest);
    }
    let opened = tls::open(target, &preamble, settings, opening).await;
    if let (Err(failure), false) = (&opened, target.is_app()) {
        settings.metrics.connection_refused(Direction::Outbound, target.identity.is_some(), failure.reason);
    }
    opened
}

/// Counts a connection as open until the result is dropped. Connections to our own app are not counted.
pub(super) fn counted(target: &Target, settings: &PoolSettings) -> Option<OpenConnection> {
    let counted = || settings.metrics.connection_opened(Direction::Outbound, target.identity.is_some());
    (!target.is_app()).then(counted)
}
