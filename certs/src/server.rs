//! Certificates that servers show to clients who are not of the mesh: PEM texts of a user's, checked before they are in use.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    crypto,
    facts::{Facts, NotACertificate, Utc},
};

/// Why texts are not a certificate that a server can show. No message repeats anything of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerCertificateError {
    /// The chain is no PEM, or empty.
    #[error("holds no certificate; it begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// An element of the chain is damaged.
    #[error("its certificate {place} is {source}")]
    Malformed {
        /// Its place in the chain, from 1.
        place: usize,
        /// What is wrong.
        source: NotACertificate,
    },
    /// The key is no PEM, or of a kind that is not known.
    #[error("holds no private key; it begins with -----BEGIN PRIVATE KEY----- (or RSA, or EC)")]
    NoKey,
    /// The key cannot be used.
    #[error("cannot be used ({0}); use RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519")]
    Unusable(String),
    /// The key belongs to another certificate.
    #[error("is not the key of the certificate in tls.crt; take both from one request")]
    OtherKey,
}

impl ServerCertificateError {
    /// Whether it is about the key, and not about the chain.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Unusable(_) | Self::OtherKey)
    }
}

/// A chain with its key, and what its first certificate says.
pub struct ServerPair {
    /// The server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first.
    pub key: PrivateKeyDer<'static>,
    /// What the first certificate says.
    pub facts: ServerFacts,
}

/// What a server's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The DNS names that it is for; if it has none, its common names.
    pub names: Vec<String>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl std::fmt::Debug for ServerPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerPair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl ServerPair {
    /// Reads a PEM chain and a PEM key, and checks that they belong together.
    ///
    /// # Errors
    /// If one of them cannot be read, or the key is another's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ServerCertificateError> {
        let chain = certificates_from_pem(chain)?;
        let facts = Facts::parse(&chain[0]).map_err(|source| malformed(0, source))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServerCertificateError::NoKey)?;
        let signing = crypto::provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|error| ServerCertificateError::Unusable(error.to_string()))?;
        CertifiedKey::new(chain.clone(), Arc::clone(&signing))
            .keys_match()
            .map_err(|_| ServerCertificateError::OtherKey)?;
        let Facts { dns, common_names, not_before, not_after, .. } = facts;
        let names = if dns.is_empty() { common_names } else { dns };
        Ok(Self { chain, key, facts: ServerFacts { names, not_before, not_after } })
    }
}

/// Of the life of a certificate, the last so many parts in which it should have been renewed.
const RENEWED_BEFORE: u32 = 10;
/// A certificate of a year or more should be renewed so long before its end.
const LONGEST_NOTICE: Duration = Duration::from_secs(30 * 86_400);

impl ServerFacts {
    /// Whether a client whose clock says `now` may believe it.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// What its owner should do about its dates at `now`; `None`: nothing.
    pub fn advice(&self, now: SystemTime) -> Option<String> {
        if now < self.not_before {
            let from = Utc(self.not_before);
            return Some(format!(
                "is valid from {from} only, so clients refuse it; wait, or correct this host's clock"
            ));
        }
        let Ok(left) = self.not_after.duration_since(now) else {
            return Some(format!("has expired at {}, so clients refuse it; renew it", Utc(self.not_after)));
        };
        (now >= self.should_be_renewed()).then(|| {
            let left = match left.as_secs() / 3600 {
                hours @ 0..48 => format!("{hours} hours"),
                hours => format!("{} days", hours / 24),
            };
            format!("expires in less than {left}, at {}; renew it", Utc(self.not_after))
        })
    }

    /// When it should have been renewed: a tenth of its life before its end, at most 30 days.
    fn should_be_renewed(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.checked_sub((life / RENEWED_BEFORE).min(LONGEST_NOTICE)).unwrap_or(self.not_before)
    }

    /// The next moment after `now` at which other advice is due, to the millisecond.
    pub fn next_advice(&self, now: SystemTime) -> Option<SystemTime> {
        // At `not_after` itself it is still valid (RFC 5280, 4.1.2.5).
        let moments = [self.not_before, self.should_be_renewed(), self.not_after + Duration::from_millis(1)];
        moments.into_iter().filter(|moment| *moment > now).min()
    }
}

/// Reads all certificates of a PEM text, in their order: at least one.
///
/// # Errors
/// If there is none, or one is damaged.
pub fn certificates_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ServerCertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = read.map_err(|_| ServerCertificateError::NoCertificate)?;
    if certificates.is_empty() {
        return Err(ServerCertificateError::NoCertificate);
    }
    for (place, certificate) in certificates.iter().enumerate() {
        Facts::parse(certificate).map_err(|source| malformed(place, source))?;
    }
    Ok(certificates)
}

fn malformed(place: usize, source: NotACertificate) -> ServerCertificateError {
    ServerCertificateError::Malformed { place: place + 1, source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_chain_with_its_key_says_its_names_and_dates() {
        let (chain, key) = pair(&["shop.example.com", "*.example.com"], |_| ());

        let pair = ServerPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();

        assert_eq!(pair.facts.names, ["shop.example.com", "*.example.com"]);
        assert!(pair.facts.is_valid(SystemTime::now()));
        assert_eq!(pair.facts.advice(SystemTime::now()), None);
    }

    #[test]
    fn what_is_said_of_the_dates_changes_at_moments_that_are_known_before() {
        const DAY: Duration = Duration::from_secs(86_400);
        for (life, notice) in [(90 * DAY, 9 * DAY), (DAY, DAY / 10), (730 * DAY, 30 * DAY)] {
            let not_before = SystemTime::UNIX_EPOCH + 20_000 * DAY;
            let facts = ServerFacts { names: Vec::new(), not_before, not_after: not_before + life };
            let (mut now, mut told) = (not_before - DAY, Vec::new());
            loop {
                told.push(facts.advice(now).unwrap_or_default());
                assert_eq!(facts.is_valid(now), told.len() == 2 || told.len() == 3);
                let Some(next) = facts.next_advice(now) else { break };
                assert_eq!(
                    facts.advice(next - Duration::from_millis(1)).unwrap_or_default().get(..7),
                    told[told.len() - 1].get(..7)
                );
                if told.len() == 2 {
                    assert_eq!(next, not_before + life - notice);
                }
                now = next;
            }

            let begins: Vec<_> = told.iter().map(|told| told.split(' ').next().unwrap_or_default()).collect();
            assert_eq!(begins, ["is", "", "expires", "has"], "{told:?}");
        }
    }

    #[test]
    fn without_dns_names_the_common_name_counts() {
        let (chain, key) = pair(&[], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "shop.example.com");
        });

        let pair = ServerPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();

        assert!(pair.facts.names.contains(&"shop.example.com".to_owned()), "{:?}", pair.facts.names);
    }

    #[test]
    fn what_does_not_belong_together_is_refused_without_a_word_of_the_key() {
        let (chain, key) = pair(&["a.example"], |_| ());
        let (_, other) = pair(&["a.example"], |_| ());
        let cut = &key[..key.len() / 2];
        let refused = |chain: &str, key: &str| {
            let error = ServerPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
            let said = error.to_string();
            let base64 = key.lines().filter(|line| line.len() > 16 && !line.starts_with('-'));
            assert!(base64.into_iter().all(|line| !said.contains(&line[..16])), "{said}");
            error
        };

        assert_eq!(refused(&chain, &other), ServerCertificateError::OtherKey);
        assert_eq!(refused(&chain, ""), ServerCertificateError::NoKey);
        assert_eq!(refused(&chain, cut), ServerCertificateError::NoKey);
        assert_eq!(refused(&chain, &chain), ServerCertificateError::NoKey);
        assert_eq!(refused("", &key), ServerCertificateError::NoCertificate);
        assert_eq!(refused(&key, &key), ServerCertificateError::NoCertificate);
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refused(damaged, &key), ServerCertificateError::Malformed { place: 1, .. }));
        let second = format!("{chain}{damaged}");
        assert!(matches!(refused(&second, &key), ServerCertificateError::Malformed { place: 2, .. }));
    }
}
