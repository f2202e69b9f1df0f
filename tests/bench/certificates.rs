//! One certificate authority and one certificate for all pairs that are not ours, made by our own crate.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use selvedge_certs::ca::Authority;
use selvedge_certs::files;
use selvedge_model::{SpiffeId, TrustDomain};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// The name that the clients' halves expect of the servers' halves.
pub(crate) const SERVER_NAME: &str = "server.bench.test";

/// Writes ca.pem, cert.pem, key.pem, and pair.pem (certificate and key in one, for HAProxy).
pub(crate) fn write(directory: &Path) -> anyhow::Result<()> {
    let issuer = Issuer::of(directory)?;
    let Shown { chain, key, .. } = issuer.issue(SERVER_NAME)?;
    let roots = files::certificates_to_pem(&issuer.authority.bundle().roots);
    files::write_public(&directory.join("ca.pem"), roots.as_bytes())?;
    files::write_public(&directory.join("cert.pem"), chain.as_bytes())?;
    files::write_secret(&directory.join("key.pem"), key.as_bytes())?;
    files::write_secret(&directory.join("pair.pem"), format!("{chain}{key}").as_bytes())?;
    Ok(())
}

/// The authority of all certificates of a run.
pub(crate) struct Issuer {
    authority: Authority,
    identity: SpiffeId,
}

/// A certificate that clients are shown, and its key; PEM.
pub(crate) struct Shown {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) leaf: CertificateDer<'static>,
}

impl Issuer {
    /// The one whose files are in `directory`, made if there is none.
    pub(crate) fn of(directory: &Path) -> anyhow::Result<Self> {
        let trust_domain: TrustDomain = "bench.test".parse().context("the benchmark's trust domain")?;
        let authority = Authority::load_or_create(&directory.join("authority"), &trust_domain)?;
        let identity = SpiffeId::new(&trust_domain, "bench", "proxy").context("the benchmark's identity")?;
        Ok(Self { authority, identity })
    }

    /// A new certificate for `host`.
    pub(crate) fn issue(&self, host: &str) -> anyhow::Result<Shown> {
        let name = ServerName::try_from(host).with_context(|| format!("{host} is no server name"))?;
        let day = Duration::from_secs(24 * 60 * 60);
        let leaf = self.authority.issue(&self.identity, &[name], day, SystemTime::now())?;
        Ok(Shown {
            chain: files::certificates_to_pem(&leaf.chain),
            key: files::key_to_pem(&leaf.key),
            leaf: leaf.chain.first().context("a leaf without a certificate")?.clone(),
        })
    }
}
