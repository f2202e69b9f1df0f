//! One certificate authority and one certificate for all pairs that are not ours, made by our own crate.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use selvedge_certs::ca::Authority;
use selvedge_certs::files;
use selvedge_model::{SpiffeId, TrustDomain};
use tokio_rustls::rustls::pki_types::ServerName;

/// The name that the clients' halves expect of the servers' halves.
pub(crate) const SERVER_NAME: &str = "server.bench.test";

/// Writes ca.pem, cert.pem, key.pem, and pair.pem (certificate and key in one, for HAProxy).
pub(crate) fn write(directory: &Path) -> anyhow::Result<()> {
    let trust_domain: TrustDomain = "bench.test".parse().context("the benchmark's trust domain")?;
    let authority = Authority::load_or_create(&directory.join("authority"), &trust_domain)?;
    let identity = SpiffeId::new(&trust_domain, "bench", "proxy").context("the benchmark's identity")?;
    let name = ServerName::try_from(SERVER_NAME).context("the benchmark's server name")?;
    let day = Duration::from_secs(24 * 60 * 60);
    let leaf = authority.issue(&identity, &[name], day, SystemTime::now())?;

    let chain = files::certificates_to_pem(&leaf.chain);
    let key = files::key_to_pem(&leaf.key);
    let roots = files::certificates_to_pem(&authority.bundle().roots);
    files::write_public(&directory.join("ca.pem"), roots.as_bytes())?;
    files::write_public(&directory.join("cert.pem"), chain.as_bytes())?;
    files::write_secret(&directory.join("key.pem"), key.as_bytes())?;
    files::write_secret(&directory.join("pair.pem"), format!("{chain}{key}").as_bytes())?;
    Ok(())
}
