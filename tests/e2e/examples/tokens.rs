//! The example of tokens, with keys that the test has.

use std::sync::LazyLock;

use selvedge_demo::call;
use selvedge_tests::{
    Mesh,
    issuer::{IssuerKey, key_set, now},
};
use serde_json::{Value, json};

use super::{answer, that};

/// Who signs the tokens that an example asks for.
static ISSUER: LazyLock<IssuerKey> = LazyLock::new(|| IssuerKey::p256("example"));

/// `text` with the keys of [`ISSUER`] in the place of those that it names.
pub(super) fn with_own_keys(text: &str) -> String {
    let Some((before, after)) = text.split_once("jwks: '") else { return text.to_owned() };
    let after = after.split_once('\'').map_or("", |(_, after)| after);
    format!("{before}jwks: '{}'{after}", key_set(&[&ISSUER]))
}

/// Whether the example shows its effect.
pub(super) async fn show(mesh: &Mesh) -> Result<(), String> {
    let claims = |audience: &str, more: &str| {
        json!({
            "iss": "https://issuer.example", "sub": "alice", "aud": audience, "exp": now() + 3600, "groups": [more],
        })
    };
    let bearing = |claims: Value| format!("Bearer {}", ISSUER.sign(&claims));
    let (user, admin) = (bearing(claims("accounts", "users")), bearing(claims("accounts", "admins")));
    let other = bearing(claims("orders", "admins"));
    let mut statuses = Vec::new();
    for (path, token) in [
        ("/", None),
        ("/", Some(&user)),
        ("/admin", Some(&user)),
        ("/admin", Some(&admin)),
        ("/", Some(&other)),
    ] {
        let call = call::to("accounts:9080", path);
        let call = token.map_or(call.clone(), |token| call.header("authorization", token));
        statuses.push(answer(mesh, call).await?.status.as_u16());
    }
    that(statuses == [403, 200, 403, 200, 401], statuses)
}
