//! The certificate that peers see, put into use without a pause.

use std::sync::Arc;

use selvedge_certs::{
    facts::Utc,
    tls::{Credentials, CredentialsError, Live},
};
use selvedge_ops::Condition;

use crate::telemetry::Metrics;

/// Where the certificate that peers see is put into use.
#[derive(Debug)]
pub struct Traffic {
    /// The TLS configurations of all workers.
    pub live: Live,
    /// Met while the certificate is valid.
    pub certificate: Condition,
    /// Its end is shown here.
    pub metrics: Arc<Metrics>,
}

impl Traffic {
    /// Uses `credentials` for every connection from now on.
    ///
    /// # Errors
    /// If they cannot be used; then those in use stay.
    pub fn put_into_use(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        let current = self.live.set(credentials)?;
        self.certificate.met();
        self.metrics.set_certificate_expiry(current.not_after);
        tracing::info!(
            identity = %current.identity, generation = current.generation,
            not_after = %Utc(current.not_after), "certificate in use"
        );
        Ok(())
    }
}
