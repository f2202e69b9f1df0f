//! Signatures of certificates that were valid before.
//!
//! Each workload shows its own certificate and that of its issuer, which a root has signed: in every full handshake of the mesh the
//! latter is the same. Whether a signature is valid depends on the key, what is signed and the signature, and on nothing else. So
//! one that was valid is valid, and only dates, names and purposes are looked at again, which is webpki's. What is not valid is
//! never remembered.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{AlgorithmIdentifier, FipsStatus, InvalidSignature, SignatureVerificationAlgorithm};

use super::provider;

/// How many are remembered: an issuer's is asked for after each of its workloads', so that few others come between.
const MOST: usize = 64;

/// The algorithms of [`provider`], which remember what they have verified.
pub(crate) fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    static ALL: LazyLock<Vec<Remembering>> = LazyLock::new(|| {
        let all = provider().signature_verification_algorithms.all;
        all.iter().map(|one| Remembering { algorithm: *one, valid: Mutex::default() }).collect()
    });
    static SHARED: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> =
        LazyLock::new(|| ALL.iter().map(|one| one as &dyn SignatureVerificationAlgorithm).collect());
    &SHARED
}

/// What stands for a key, what is signed with it, and the signature.
type Fingerprint = [u8; 32];

#[derive(Debug)]
struct Remembering {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    /// Those that were valid, what was asked for last at the end.
    valid: Mutex<Vec<Fingerprint>>,
}

impl Remembering {
    /// Whether it was valid before.
    fn knows(&self, one: &Fingerprint) -> bool {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = valid.iter().rposition(|known| known == one) else { return false };
        valid[place..].rotate_left(1);
        true
    }

    fn remember(&self, one: Fingerprint) {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        if valid.len() >= MOST {
            valid.remove(0);
        }
        valid.push(one);
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let one = fingerprint([public_key, message, signature]);
        if !self.knows(&one) {
            self.algorithm.verify_signature(public_key, message, signature)?;
            self.remember(one);
        }
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips_status(&self) -> FipsStatus {
        self.algorithm.fips_status()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

/// The SHA-256 of `parts`, each with its length, so that none can be taken for a part of its neighbour.
fn fingerprint(parts: [&[u8]; 3]) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Takes a signature for valid that is the message, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            _: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if message == signature { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    fn remembering() -> (&'static Counting, Remembering) {
        let counting: &'static Counting = Box::leak(Box::default());
        (counting, Remembering { algorithm: counting, valid: Mutex::default() })
    }

    #[test]
    fn what_was_valid_is_not_verified_again_and_what_is_not_always_is() {
        let (counting, remembering) = remembering();
        let ask = |key: &[u8], message: &[u8], signature: &[u8]| {
            let before = counting.0.load(Ordering::Relaxed);
            let is_valid = remembering.verify_signature(key, message, signature).is_ok();
            (is_valid, counting.0.load(Ordering::Relaxed) > before)
        };

        assert_eq!(ask(b"key", b"a", b"a"), (true, true));
        assert_eq!(ask(b"key", b"a", b"a"), (true, false));
        assert_eq!(ask(b"other", b"a", b"a"), (true, true), "the key is another one");
        assert_eq!(ask(b"ke", b"ya", b"a"), (false, true), "it is divided elsewhere");
        for _ in 0..2 {
            assert_eq!(ask(b"key", b"a", b"b"), (false, true));
        }
    }

    #[test]
    fn one_that_is_asked_for_again_and_again_stays_and_others_go() {
        let (counting, remembering) = remembering();
        for number in 0..10 * MOST {
            let leaf = number.to_be_bytes();
            remembering.verify_signature(b"issuer", &leaf, &leaf).unwrap();
            remembering.verify_signature(b"root", b"issuer", b"issuer").unwrap();
        }

        assert_eq!(counting.0.load(Ordering::Relaxed), 10 * MOST + 1);
        assert_eq!(remembering.valid.lock().unwrap().len(), MOST);
    }

    #[test]
    fn they_are_the_algorithms_of_the_provider() {
        let ids = |all: &[&dyn SignatureVerificationAlgorithm]| -> Vec<_> {
            all.iter().map(|one| (one.public_key_alg_id(), one.signature_alg_id(), one.fips())).collect()
        };

        assert_eq!(ids(algorithms()), ids(provider().signature_verification_algorithms.all));
    }
}
