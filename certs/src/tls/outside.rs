//! TLS to servers outside the mesh (`DestinationRule` `trafficPolicy.tls` SIMPLE and MUTUAL).
//!
//! Nothing of the mesh is in it: the server is trusted by certificate authorities of the operating
//! system's or of a file, and by its name; TLS 1.2 is allowed, since such servers still exist. A certificate in a file is trusted
//! itself, too, whoever signed it: so a server may show the very one that is named as its authority, as in Envoy (which sets
//! `X509_V_FLAG_PARTIAL_CHAIN`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use selvedge_model::{Shown, TlsOrigination, Trusted, gateway::CertificateName};
use webpki::EndEntityCert;

use super::{
    REMEMBERED_SERVERS, provider,
    verifier::{outside_signatures, usable_itself},
};
use crate::{
    facts::Role,
    files::{FileError, read_bundle, read_mounted},
};

/// HTTP/1.1 (RFC 7301, section 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// HTTP/2 over TLS (RFC 9113, section 3.1).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// Why TLS to a server outside the mesh cannot be set up. Nothing is sent then.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// A private key that is not there, or that others may have put there.
    #[error("{field}: {source}")]
    Key {
        /// Which field of `tls` names it.
        field: &'static str,
        /// What is wrong with the file.
        source: FileError,
    },
    /// A file that the configuration names is not there, or not ours to read.
    #[error("{field}: cannot read {}: {source}", path.display())]
    Read {
        /// Which field of `tls` names it.
        field: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without what should be in it.
    #[error("{field}: {} has no {what} in PEM form", path.display())]
    Empty {
        /// Which field of `tls` names it.
        field: &'static str,
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate and the key do not fit together, or are damaged.
    #[error("clientCertificate and privateKey cannot be used: {0}")]
    Client(#[source] rustls::Error),
    /// The certificate of a gateway cannot be shown, although the control plane could read it.
    #[error("{name}, which tls.backend of the Gateway names, cannot be shown: {source}")]
    Shown {
        /// The Secret.
        name: CertificateName,
        /// Why.
        source: rustls::Error,
    },
    /// A container made from nothing has no certificate authorities.
    #[error(
        "this system has no certificate authorities of its own{reason}; set tls.caCertificates, or mount \
         them and set SSL_CERT_FILE"
    )]
    NoSystemRoots {
        /// What went wrong in looking for them.
        reason: String,
    },
    /// None of the authorities that came with the configuration can be used.
    #[error("no certificate of an authority that its BackendTLSPolicy names can be used")]
    NoGivenRoots,
    /// The name that the server is to prove is not a name.
    #[error("{name:?} is not a name that a server can prove; set tls.sni to one")]
    Name {
        /// The name.
        name: String,
    },
}

/// What connections to one kind of servers outside the mesh are made with.
#[derive(Debug)]
pub struct Outside {
    /// For HTTP/1.1.
    pub http1: Arc<ClientConfig>,
    /// For HTTP/2.
    pub http2: Arc<ClientConfig>,
    /// For whatever the client speaks.
    pub opaque: Arc<ClientConfig>,
    /// What is sent as SNI, and what the server must prove to be if nothing else is named.
    pub server_name: ServerName<'static>,
}

impl Outside {
    /// Reads the files that `settings` name. `host`: what the server is called if `settings.sni` says nothing.
    ///
    /// # Errors
    /// If a file cannot be used, or there is nobody to trust.
    pub fn load(settings: &TlsOrigination, host: &str) -> Result<Self, OutsideError> {
        let name = settings.sni.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| OutsideError::Name { name: name.to_owned() })?;
        let skip = settings.insecure_skip_verify;
        let authorities = if skip { Authorities::default() } else { authorities(settings)? };
        let verifier = Verifier { authorities, names: settings.subject_alt_names.clone(), skip };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites of both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match (&settings.shown, &settings.client) {
            (None, None) => builder.with_no_client_auth(),
            (Some(Shown(shown)), _) => {
                let chain = shown.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let key = PrivateKeyDer::try_from(shown.key.reveal().to_vec());
                let key = key.map_err(|why| rustls::Error::General(why.to_owned()));
                let config = key.and_then(|key| builder.with_client_auth_cert(chain, key));
                config.map_err(|source| OutsideError::Shown { name: shown.name.clone(), source })?
            }
            (None, Some(client)) => {
                let path = Path::new(&client.certificate);
                let chain = certificates("clientCertificate", path)?;
                let key = key(Path::new(&client.private_key))?;
                builder.with_client_auth_cert(chain, key).map_err(OutsideError::Client)?
            }
        };
        let with_alpn = |alpn: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
            // A session store of its own: what was agreed on for one protocol is not resumed for another.
            config.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS);
            Arc::new(config)
        };
        Ok(Self {
            http1: with_alpn(&[ALPN_HTTP1]),
            http2: with_alpn(&[ALPN_HTTP2]),
            opaque: with_alpn(&[]),
            server_name,
        })
    }
}

/// The files that `settings` name, so that their change can be seen.
pub fn files(settings: &TlsOrigination) -> impl Iterator<Item = &Path> {
    let client = settings.client.iter().flat_map(|client| [&client.certificate, &client.private_key]);
    let trusted = match &settings.trusted {
        Trusted::File(file) => Some(file),
        Trusted::System | Trusted::Given(_) => None,
    };
    trusted.into_iter().chain(client).map(Path::new)
}

/// Whom a server may be believed by.
#[derive(Debug)]
struct Authorities {
    roots: RootCertStore,
    /// Those of them that are named one by one: a server may show one of them, too.
    named: Vec<CertificateDer<'static>>,
}

impl Default for Authorities {
    /// Nobody.
    fn default() -> Self {
        Self { roots: RootCertStore::empty(), named: Vec::new() }
    }
}

fn authorities(settings: &TlsOrigination) -> Result<Authorities, OutsideError> {
    let (mut store, mut named) = (RootCertStore::empty(), Vec::new());
    match &settings.trusted {
        Trusted::File(path) => {
            let path = Path::new(path);
            named = certificates("caCertificates", path)?;
            let (added, _) = store.add_parsable_certificates(named.iter().cloned());
            if added == 0 {
                let what = "usable certificate";
                return Err(OutsideError::Empty { field: "caCertificates", path: path.to_owned(), what });
            }
        }
        Trusted::Given(given) => {
            named = given.certificates().iter().map(|der| CertificateDer::from(der.clone())).collect();
            if store.add_parsable_certificates(named.iter().cloned()).0 == 0 {
                return Err(OutsideError::NoGivenRoots);
            }
        }
        Trusted::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(OutsideError::NoSystemRoots { reason });
            }
        }
    }
    Ok(Authorities { roots: store, named })
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, OutsideError> {
    read_bundle(path).map_err(|source| OutsideError::Read { field, path: path.to_owned(), source })
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OutsideError> {
    let text = read(field, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    if found.is_empty() {
        return Err(OutsideError::Empty { field, path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, OutsideError> {
    let (field, what) = ("privateKey", "private key");
    let pem = read_mounted(path).map_err(|source| OutsideError::Key { field, source })?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| OutsideError::Empty {
        field,
        path: path.to_owned(),
        what,
    })
}

/// Trusts who has a certificate of one of the roots for one of the names.
#[derive(Debug)]
struct Verifier {
    authorities: Authorities,
    /// Empty: the server's name.
    names: Vec<String>,
    skip: bool,
}

impl Verifier {
    fn is_named(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if self.names.is_empty() {
            return verify_server_name(&parsed, server_name);
        }
        let proves = |name: &String| match ServerName::try_from(name.as_str()) {
            Ok(name) => verify_server_name(&parsed, &name).is_ok(),
            // Such as a SPIFFE ID, which is a URI; or a wildcard, which must be in the certificate as it is.
            Err(_) => EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
                certificate.valid_uri_names().any(|uri| uri == name)
                    || certificate.valid_dns_names().any(|dns| dns.eq_ignore_ascii_case(name))
            }),
        };
        match self.names.iter().any(proves) {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        let Authorities { roots, named } = &self.authorities;
        if named.contains(leaf) {
            usable_itself(leaf, now, Role::Server)?;
        } else {
            let parsed = ParsedCertificate::try_from(leaf)?;
            let algorithms = provider().signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        }
        self.is_named(leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    outside_signatures!();
}

/// Why a handshake with a server outside the mesh failed, and what of `settings` to look at.
pub fn explain_outside(error: &io::Error, settings: &TlsOrigination, outside: &Outside) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        // A bad signature: of another authority with the same name.
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => {
            let trusted = match &settings.trusted {
                Trusted::System => "the operating system's",
                Trusted::File(file) => file,
                Trusted::Given(_) => "those of caCertificateRefs",
            };
            format!("its certificate is not from a certificate authority that is trusted here ({trusted})")
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            let names = match settings.subject_alt_names.is_empty() {
                true => outside.server_name.to_str().into_owned(),
                false => settings.subject_alt_names.join(" or "),
            };
            format!("its certificate is not for {names}")
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!(
                "it ended the handshake with the alert {alert:?}; it may want a client certificate (MUTUAL)"
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;
    use crate::forge::Forger;

    fn settings(ca: Option<&Path>) -> TlsOrigination {
        TlsOrigination {
            trusted: ca.map_or(Trusted::System, |path| Trusted::File(path.display().to_string())),
            ..TlsOrigination::default()
        }
    }

    fn pem(certificate: &CertificateDer<'_>) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_field() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.pem");
        let error = Outside::load(&settings(Some(&missing)), "a.example").unwrap_err().to_string();
        assert!(error.starts_with("caCertificates: cannot read") && error.contains("missing.pem"), "{error}");

        let empty = directory.path().join("empty.pem");
        fs::write(&empty, "nothing").unwrap();
        let error = Outside::load(&settings(Some(&empty)), "a.example").unwrap_err().to_string();
        assert!(error.contains("has no certificate"), "{error}");

        // Neither may keep a proxy waiting, or fill its memory.
        for endless in ["/dev/zero", "/dev/null"] {
            let error =
                Outside::load(&settings(Some(Path::new(endless))), "a.example").unwrap_err().to_string();
            assert!(error.contains("is not a file"), "{error}");
        }
        let pipe = directory.path().join("pipe.pem");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let error = Outside::load(&settings(Some(&pipe)), "a.example").unwrap_err().to_string();
        assert!(error.contains("is not a file"), "{error}");

        let error = Outside::load(&settings(Some(&empty)), "a b").unwrap_err().to_string();
        assert!(error.contains("tls.sni"), "{error}");
    }

    #[test]
    fn a_server_is_believed_by_authority_and_name() {
        let (good, other) = (Forger::new(), Forger::new());
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        fs::write(&ca, pem(&good.root)).unwrap();
        let identity = crate::forge::identity("api");
        let leaf = |forger: &Forger| {
            let leaf = forger.leaf_with(&identity, |params| {
                let name = rcgen::SanType::DnsName("*.example.com".try_into().unwrap());
                params.subject_alt_names.push(name);
            });
            leaf.chain[0].clone()
        };
        let verdict = |forger: &Forger, names: &[&str], host: &str| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let authorities = authorities(&settings(Some(&ca))).unwrap();
            let verifier = Verifier { authorities, names, skip: false };
            let host = ServerName::try_from(host.to_owned()).unwrap();
            verifier.verify_server_cert(&leaf(forger), &[], &host, &[], UnixTime::now()).is_ok()
        };

        assert!(verdict(&good, &[], "api.example.com"));
        assert!(!verdict(&good, &[], "api.example.org"), "another name");
        assert!(!verdict(&other, &[], "api.example.com"), "another authority");
        assert!(verdict(&good, &["x.example", identity.as_str()], "api.example.org"), "a URI that is named");
        assert!(verdict(&good, &["*.example.com"], "api.example.org"), "a wildcard that is named");
        assert!(!verdict(&good, &["*.example.org"], "api.example.com"), "another wildcard");
        assert!(
            !verdict(&good, &["x.example"], "api.example.com"),
            "names that are given replace the host's"
        );
    }

    #[test]
    fn a_server_may_show_the_very_certificate_that_is_named_if_it_is_for_its_name_and_for_now() {
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        // As `openssl req -x509` makes it: an authority that nobody else has signed.
        let made = |name: &str, (from, to): (SystemTime, SystemTime), usage: &[ExtendedKeyUsagePurpose]| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params.not_before, params.not_after) = (from.into(), to.into());
            params.extended_key_usages = usage.to_vec();
            CertificateDer::from(params.self_signed(&KeyPair::generate().unwrap()).unwrap())
        };
        let verdict = |named: &CertificateDer<'_>, shown: &CertificateDer<'_>| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("own.pem");
            fs::write(&file, pem(named)).unwrap();
            let authorities = authorities(&settings(Some(&file))).unwrap();
            let verifier = Verifier { authorities, names: Vec::new(), skip: false };
            let host = ServerName::try_from("db.example.com").unwrap();
            verifier.verify_server_cert(shown, &[], &host, &[], UnixTime::now()).map(drop)
        };
        let today = (now - hour, now + hour);
        let good = made("db.example.com", today, &[]);
        assert_eq!(verdict(&good, &good), Ok(()));
        let web = made("db.example.com", today, &[ExtendedKeyUsagePurpose::ServerAuth]);
        assert_eq!(verdict(&web, &web), Ok(()));
        assert!(verdict(&good, &web).is_err(), "another one of the same name");

        let refused = |one: &CertificateDer<'_>| match verdict(one, one) {
            Err(rustls::Error::InvalidCertificate(why)) => why,
            other => panic!("{other:?}"),
        };
        let other = refused(&made("web.example.com", today, &[]));
        assert!(matches!(other, CertificateError::NotValidForNameContext { .. }), "{other:?}");
        let gone = made("db.example.com", (now - 2 * hour, now - hour), &[]);
        assert_eq!(refused(&gone), CertificateError::Expired);
        let early = made("db.example.com", (now + hour, now + 2 * hour), &[]);
        assert_eq!(refused(&early), CertificateError::NotValidYet);
        let client = made("db.example.com", today, &[ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(refused(&client), CertificateError::InvalidPurpose);

        let (forger, identity) = (Forger::new(), crate::forge::identity("api"));
        let signed = forger.leaf_with(&identity, |params| {
            params.subject_alt_names.push(rcgen::SanType::DnsName("db.example.com".try_into().unwrap()));
        });
        assert_eq!(verdict(&signed.chain[0], &signed.chain[0]), Ok(()), "whoever signed it");
    }
}
