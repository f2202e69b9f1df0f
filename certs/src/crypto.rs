//! The cryptography that everything here is done with. It is chosen here and nowhere else.

mod remembered;

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};

pub(crate) use self::remembered::algorithms;

/// The one crypto provider: aws-lc-rs, post-quantum hybrid first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        Arc::new(CryptoProvider {
            kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}

/// The same for a server that chooses by its own order, and prefers AES with keys of 128 bits, and with it SHA-256, which most
/// processors have instructions for and not for SHA-384. In TLS 1.3 that is the suite that everybody must have (RFC 8446, section
/// 9.1), and no attack on it is known that a longer key would stop: what a quantum computer threatens is the agreement on keys, which
/// is hybrid all the same.
pub(crate) fn preferring_aes_128() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = CryptoProvider::clone(&provider());
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}
