//! TLS with clients from outside, at a gateway: one configuration for each listener, made when configuration changes.
//!
//! A new configuration has a new key for its session tickets, so no session of an older one is resumed. Where clients
//! must prove who they are there are no tickets at all, because rustls does not verify certificates on resumption.

use std::{fmt, sync::Arc};

use rustls::{
    CommonState, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs::Ticketer,
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use selvedge_model::gateway::{CertificateName, ClientValidation, Hostname, ServerCertificate, Termination};
use webpki::EndEntityCert;

use super::{ALPN_HTTP1, ALPN_HTTP2, provider, verifier::usable_itself};
use crate::facts::{Facts, Role, fingerprint};

/// How a listener ends TLS. It never shows its keys.
pub struct Edge {
    /// For the handshakes of its clients.
    pub config: Arc<ServerConfig>,
    /// The certificates that cannot be used, and why.
    pub unusable: Vec<(CertificateName, EdgeError)>,
    certificates: Arc<Certificates>,
    clients: Option<Arc<Clients>>,
}

/// Why a listener cannot end TLS, or why one of its certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The control plane knows of none that can be used, or none that it named can be.
    #[error("it has no certificate that can be used{}", .0.as_deref().unwrap_or_default())]
    NoCertificate(Option<String>),
    /// Neither PKCS #8, nor PKCS #1, nor SEC 1; or of a kind that is not supported.
    #[error("its key cannot be read")]
    Key,
    /// Somebody has mixed up two Secrets.
    #[error("its key does not belong to its certificate")]
    OtherKey,
    /// Not X.509, or something in it that is not supported.
    #[error("its certificate cannot be read: {0}")]
    Certificate(webpki::Error),
    /// Nobody could prove anything with it.
    #[error("no certificate of an authority for clients can be used")]
    NoRoot,
    /// rustls refuses what it was given.
    #[error("{0}")]
    Tls(#[from] Error),
}

impl Edge {
    /// As `settings` say, with those of `certificates` that it names.
    ///
    /// # Errors
    /// If no client could be served.
    pub fn new(settings: &Termination, certificates: &[Arc<ServerCertificate>]) -> Result<Self, EdgeError> {
        let (mut shown, mut unusable) = (Vec::new(), Vec::new());
        for certificate in certificates {
            match Shown::new(certificate) {
                Ok(one) => shown.push(one),
                Err(error) => unusable.push((certificate.name.clone(), error)),
            }
        }
        if shown.is_empty() {
            let why = unusable.first().map(|(name, error)| format!(": of Secret {name}, {error}"));
            return Err(EdgeError::NoCertificate(why));
        }
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(settings))?;
        let clients = settings.clients.as_ref().map(Clients::new).transpose()?.map(Arc::new);
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
        };
        let certificates = Arc::new(Certificates(shown));
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        if settings.http {
            config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match settings.clients {
            None => config.ticketer = Ticketer::new()?,
            Some(_) => config.send_tls13_tickets = 0,
        }
        Ok(Self { config: Arc::new(config), unusable, certificates, clients })
    }

    /// The certificate that a client is shown who asks for `server_name`, which is in lower case, and can check every
    /// signature; and whether it is for that name.
    pub fn shown(&self, server_name: Option<&str>) -> Option<(&CertificateName, bool)> {
        let found = self.certificates.find(server_name, |_| true)?;
        Some((&found.name, server_name.is_some_and(|name| found.is_for(name))))
    }

    /// What a client proves by the certificate `chain`, the leaf first, as [`client_cert`] tells it. An empty `chain` is of
    /// a client without a certificate. `None`: it proves nothing.
    ///
    /// # Errors
    /// If a handshake with it would fail.
    pub fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Option<String>, Error> {
        let Some(clients) = &self.clients else { return Ok(None) };
        match chain.split_first() {
            Some((leaf, rest)) => {
                clients.verify_client_cert(leaf, rest, now).map(|_| Some(client_cert_of(leaf)))
            }
            None if clients.client_auth_mandatory() => Err(Error::NoCertificatesPresented),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("unusable", &self.unusable).finish_non_exhaustive()
    }
}

fn versions(settings: &Termination) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    if settings.tls12 { &BOTH } else { &BOTH[..1] }
}

/// A certificate that can be shown, and the names that it is for.
struct Shown {
    name: CertificateName,
    key: Arc<CertifiedKey>,
    names: Vec<Hostname>,
}

impl Shown {
    fn new(certificate: &ServerCertificate) -> Result<Self, EdgeError> {
        let chain: Vec<_> = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let leaf = chain.first().ok_or(EdgeError::Certificate(webpki::Error::BadDer))?;
        let names = EndEntityCert::try_from(leaf).map_err(EdgeError::Certificate)?;
        let names = names.valid_dns_names().filter_map(|name| Hostname::of_ingress(name).ok()).collect();
        let key = PrivateKeyDer::try_from(certificate.key.reveal().to_vec()).map_err(|_| EdgeError::Key)?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| EdgeError::Key)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // Of a key that does not tell its public half, the first handshake tells whether it fits.
            Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(EdgeError::OtherKey),
        }
        Ok(Self { name: certificate.name.clone(), key: Arc::new(key), names })
    }

    fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.contains(name))
    }
}

/// The certificates of one listener.
struct Certificates(Vec<Shown>);

impl Certificates {
    /// Of those that are for the name and that the client can check, the first; if none is for the name, the first of all
    /// that the client can check.
    fn find(&self, name: Option<&str>, can_check: impl Fn(&Shown) -> bool) -> Option<&Shown> {
        let named = |shown: &&Shown| name.is_some_and(|name| shown.is_for(name));
        let mut checked = self.0.iter().filter(|shown| can_check(shown));
        checked.clone().find(named).or_else(|| checked.next())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let schemes = hello.signature_schemes();
        let found = self.find(name.as_deref(), |shown| shown.key.key.choose_scheme(schemes).is_some());
        // With one that it cannot check the handshake fails for that very reason, and with the alert that says so.
        let found = found.or_else(|| self.find(name.as_deref(), |_| true));
        found.map(|shown| Arc::clone(&shown.key))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.0.len()).finish()
    }
}

/// Accepts who has a certificate of one of the authorities, for one of the names if there are some. As in Envoy (which sets
/// `X509_V_FLAG_PARTIAL_CHAIN`), the certificates that are given as authorities are trusted themselves, too, whoever signed them.
#[derive(Debug)]
struct Clients {
    by_root: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    names: Vec<String>,
}

impl Clients {
    fn new(settings: &ClientValidation) -> Result<Self, EdgeError> {
        let mut roots = RootCertStore::empty();
        let trusted: Vec<_> = settings.roots.iter().map(|der| CertificateDer::from(der.clone())).collect();
        if roots.add_parsable_certificates(trusted.iter().cloned()).0 == 0 {
            return Err(EdgeError::NoRoot);
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if settings.optional { builder.allow_unauthenticated() } else { builder };
        let by_root = builder.build().map_err(|_| EdgeError::NoRoot)?;
        Ok(Self { by_root, trusted, names: settings.subject_alt_names.clone() })
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.by_root.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.by_root.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_root.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.trusted.contains(leaf) {
            usable_itself(leaf, now, Role::Client)?;
        } else {
            self.by_root.verify_client_cert(leaf, intermediates, now)?;
        }
        if !self.names.is_empty() {
            let facts = Facts::parse(leaf).map_err(|_| rustls::CertificateError::BadEncoding)?;
            if !self.names.iter().any(|wanted| has_name(&facts, wanted)) {
                return Err(rustls::CertificateError::NotValidForName.into());
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_root.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_root.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_root.supported_verify_schemes()
    }
}

fn has_name(facts: &Facts, wanted: &String) -> bool {
    facts.dns.contains(wanted)
        || facts.uris.contains(wanted)
        || wanted.parse().is_ok_and(|ip| facts.ips.contains(&ip))
}

/// What the client of an established connection has proven, as Envoy writes `x-forwarded-client-cert`:
/// `Hash=…;Subject="…";URI=…;DNS=…`. `None`: nothing.
pub fn client_cert(connection: &CommonState) -> Option<String> {
    connection.peer_certificates()?.first().map(client_cert_of)
}

/// What a client has proven who has shown `leaf`.
fn client_cert_of(leaf: &CertificateDer<'_>) -> String {
    let mut text = format!("Hash={}", fingerprint(leaf));
    let Ok(names) = Facts::parse(leaf) else { return text };
    text = text + ";Subject=\"" + &quotable(&names.subject) + "\"";
    let one_of = |kind: &str, all: &[String]| -> String {
        all.iter().filter(|name| is_plain(name)).map(|name| format!(";{kind}={name}")).collect()
    };
    text.push_str(&one_of("URI", &names.uris));
    text.push_str(&one_of("DNS", &names.dns));
    text
}

/// What stands between quotes: nothing in it ends them, and it is text that a header may have.
fn quotable(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).collect()
}

/// Whether a name can stand in the field as it is: one that has a separator in it would be two.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b',' | b'"' | b'=' | b'\\'))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    };
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_client_may_show_the_very_certificate_that_is_given_as_authority_if_it_is_for_clients_and_for_now() {
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        let today = (now - hour, now + hour);
        // As `openssl req -x509` makes it: an authority that nobody else has signed.
        let made = |(from, to): (SystemTime, SystemTime),
                    extended: &[ExtendedKeyUsagePurpose],
                    usages: &[KeyUsagePurpose]| {
            let mut params = CertificateParams::new(vec!["alice.test".to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params.not_before, params.not_after) = (from.into(), to.into());
            params.extended_key_usages = extended.to_vec();
            params.key_usages = usages.to_vec();
            CertificateDer::from(params.self_signed(&KeyPair::generate().unwrap()).unwrap())
        };
        let verdict = |given: &CertificateDer<'_>, shown: &CertificateDer<'_>, names: &[&str]| {
            let subject_alt_names = names.iter().map(|name| (*name).to_owned()).collect();
            let settings =
                ClientValidation { roots: vec![given.to_vec()], optional: false, subject_alt_names };
            let clients = Clients::new(&settings).unwrap();
            match clients.verify_client_cert(shown, &[], UnixTime::now()) {
                Ok(_) => Ok(()),
                Err(Error::InvalidCertificate(why)) => Err(why),
                Err(other) => panic!("{other:?}"),
            }
        };

        let good = made(today, &[], &[]);
        assert_eq!(verdict(&good, &good, &[]), Ok(()));
        assert_eq!(verdict(&good, &good, &["alice.test"]), Ok(()));
        assert_eq!(verdict(&good, &good, &["bob.test"]), Err(CertificateError::NotValidForName));
        let told = made(
            today,
            &[ExtendedKeyUsagePurpose::ClientAuth],
            &[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        );
        assert_eq!(verdict(&told, &told, &[]), Ok(()));
        assert!(verdict(&good, &told, &[]).is_err(), "another one of the same name");

        for (one, why) in [
            (made((now - 2 * hour, now - hour), &[], &[]), CertificateError::Expired),
            (made((now + hour, now + 2 * hour), &[], &[]), CertificateError::NotValidYet),
            (made(today, &[ExtendedKeyUsagePurpose::ServerAuth], &[]), CertificateError::InvalidPurpose),
            (made(today, &[], &[KeyUsagePurpose::KeyCertSign]), CertificateError::InvalidPurpose),
        ] {
            assert_eq!(verdict(&one, &one, &[]), Err(why));
        }
    }
}
