//! A CA below a root that is kept elsewhere, as cert-manager puts it into a Secret.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

/// A root certificate and its key.
pub(crate) struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    /// A new one.
    pub(crate) fn new() -> Self {
        let root = params("root", Duration::from_secs(365 * 86_400));
        Self(CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap())
    }

    /// The Secret with the CA number `number` below it; later ones end later. `beside` is believed too.
    pub(crate) fn secret(&self, number: u32, beside: Option<&Self>) -> Value {
        let key = KeyPair::generate().unwrap();
        let params = params(&format!("ca {number}"), Duration::from_secs(90 * 86_400) * number);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "selvedge-ca"},
            // As text, which the API server encodes.
            "stringData": {
                "tls.crt": certificate.pem(),
                "tls.key": key.serialize_pem(),
                "ca.crt": self.0.pem() + &beside.map(|other| other.0.pem()).unwrap_or_default(),
            },
        })
    }
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + life).into();
    params
}
