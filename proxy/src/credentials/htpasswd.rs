//! Verifies a password by a hash as `htpasswd` writes it. All comparisons take the same time wherever two hashes differ.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest as _, Md5};
use selvedge_model::gateway::{PasswordHash, Scheme};
use sha_crypt::{PasswordVerifier, ShaCrypt};

/// How long a hash of SHA-1 is.
const SHA1: usize = 20;

/// Whether `password` is the one that `hash` is of. What cannot be read is of none.
pub(super) fn verify(hash: &PasswordHash, password: &[u8]) -> bool {
    let text = hash.reveal();
    match hash.scheme() {
        Scheme::Bcrypt => bcrypt::verify(password, text).unwrap_or(false),
        Scheme::ShaCrypt => ShaCrypt::default().verify_password(password, text).is_ok(),
        Scheme::Md5 => md5(text, password),
        Scheme::Sha1 => text.strip_prefix("{SHA}").is_some_and(|hash| sha1(hash, password)),
        Scheme::SaltedSha1 => text.strip_prefix("{SSHA}").is_some_and(|hash| sha1(hash, password)),
        Scheme::Plain => {
            text.strip_prefix("{PLAIN}").is_some_and(|plain| is_same(plain.as_bytes(), password))
        }
    }
}

/// Whether two texts are the same, in a time that says nothing of either but its length.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let [one, other] = [one, other].map(|text| digest::digest(&SHA256, text));
    verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

/// SHA-1 of the password and of the salt, if there is one behind it.
fn sha1(hash: &str, password: &[u8]) -> bool {
    let Ok(bytes) = BASE64_STANDARD.decode(hash) else { return false };
    let Some((expected, salt)) = bytes.split_at_checked(SHA1) else { return false };
    let mut context = digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(password);
    context.update(salt);
    let found: Digest = context.finish();
    verify_slices_are_equal(found.as_ref(), expected).is_ok()
}

/// The hash of FreeBSD's crypt (`$1$`) and of Apache (`$apr1$`).
fn md5(text: &str, password: &[u8]) -> bool {
    let Some(end_of_salt) = text.rfind('$') else { return false };
    let (start, expected) = (&text[..end_of_salt], &text[end_of_salt + 1..]);
    let Some(end_of_magic) = start.rfind('$') else { return false };
    let (magic, salt) = start.split_at(end_of_magic + 1);
    let found = letters(&rounds(magic.as_bytes(), salt.as_bytes(), password));
    verify_slices_are_equal(&found, expected.as_bytes()).is_ok()
}

/// A thousand rounds of MD5.
fn rounds(magic: &[u8], salt: &[u8], password: &[u8]) -> [u8; 16] {
    let mut inner = Md5::new();
    [password, salt, password].iter().for_each(|part| inner.update(part));
    let inner = inner.finalize();
    let mut first = Md5::new();
    [password, magic, salt].iter().for_each(|part| first.update(part));
    for chunk in password.chunks(inner.len()) {
        first.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut last: [u8; 16] = first.finalize().into();
    for round in 0..1000 {
        let mut next = Md5::new();
        let (before, after) = if round & 1 == 1 { (password, &last[..]) } else { (&last[..], password) };
        next.update(before);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(after);
        last = next.finalize().into();
    }
    last
}

/// `hash` as crypt writes it: three bytes become four letters, the lowest bits first.
fn letters(hash: &[u8; 16]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::with_capacity(22);
    let mut add = |mut bits: u32, count: usize| {
        for _ in 0..count {
            text.push(LETTERS[(bits & 63) as usize]);
            bits >>= 6;
        }
    };
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let [high, middle, low] = [high, middle, low].map(|place: usize| u32::from(hash[place]));
        add((high << 16) | (middle << 8) | low, 4);
    }
    add(u32::from(hash[11]), 2);
    text
}
