//! `RequestAuthentication` through real sidecars: whose tokens are accepted, what apps and policies are told of them.

use http::Version;
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{
    Mesh, SOON,
    issuer::{IssuerKey, key_set, now, unsigned},
    poll,
};
use serde_json::{Value, json};

use crate::{BOTH_VERSIONS, SELVEDGE};

const CLIENT: &str = "caller";
const SERVER: &str = "reviews-v1";
const ISSUER: &str = "https://issuer.example";

/// A mesh of a caller and a server.
async fn mesh() -> Mesh {
    Mesh::of(SELVEDGE, [Spec::client(CLIENT), Spec::reviews(SERVER, "v1")]).await
}

/// A document called `jwt` for the server, with one rule for the issuer that has `keys`, and `more` of the rule.
fn document(keys: &str, more: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: default}}\nspec:\n  \
         selector: {{matchLabels: {{app: reviews}}}}\n  jwtRules:\n  - issuer: {ISSUER}\n{more}    jwks: '{keys}'\n"
    )
}

/// A policy that allows what `rules` say.
fn policy(rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: allow, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: reviews}}}}, rules: [{rules}]}}\n"
    )
}

/// What the issuer says of Alice, good for an hour.
fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "alice", "aud": ["web", "api"], "exp": now() + 3600, "iat": now() })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn get(path: &str) -> Call {
    call::to("reviews:9080", path)
}

fn bearing(token: &str) -> Call {
    get("/").header("authorization", &format!("Bearer {token}"))
}

async fn asked(mesh: &Mesh, call: Call) -> Answer {
    call::send(mesh.workload(CLIENT).outbound, call).await.expect("an answer")
}

/// Why `call` is refused; `None`: it is not.
async fn refused(mesh: &Mesh, call: Call) -> Option<String> {
    let answer = asked(mesh, call).await;
    match answer.status.as_u16() {
        200 => None,
        status => Some(format!("{status} {}", answer.proxy_error().unwrap_or_default())),
    }
}

/// Writes `documents`, and waits until `call` is refused, or not.
async fn in_force(mesh: &Mesh, documents: &str, call: &Call, is_refused: bool) {
    mesh.write("jwt.yaml", documents).expect("a writable directory");
    poll(SOON, &format!("refused: {is_refused}"), async || {
        let refused = refused(mesh, call.clone()).await;
        if refused.is_some() == is_refused { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
}

/// What the app saw of a request that came to it.
async fn seen(mesh: &Mesh, call: Call) -> reviews::Answer {
    let answer = asked(mesh, call).await;
    assert_eq!(answer.status, 200, "{}", answer.summary());
    answer.json().expect("the app's answer")
}

#[tokio::test]
async fn a_token_is_accepted_or_answered_401_with_the_reason() {
    let mesh = mesh().await;
    let [ec, ed, rsa, other] =
        [IssuerKey::p256("ec"), IssuerKey::ed25519("ed"), IssuerKey::rsa("rsa"), IssuerKey::p256("ec")];
    let stray = IssuerKey::p256("stray");
    let keys = key_set(&[&ec, &ed, &rsa]);
    in_force(&mesh, &document(&keys, "    audiences: [api]\n"), &bearing("x"), true).await;

    let signed = ec.sign(&claims());
    let (header, rest) = signed.split_once('.').expect("three parts");
    let signature = rest.split_once('.').expect("three parts").1;
    let payload = ec.sign(&with("sub", json!("admin")));
    let retargeted = format!("{header}.{}.{signature}", payload.split('.').nth(1).expect("three parts"));
    let public = rsa.jwk["n"].as_str().expect("a text");
    let bad = [
        ("x".to_owned(), "not a signed JWT"),
        (ec.sign(&with("iss", json!("https://other.example"))), "an issuer that is not accepted"),
        (ec.sign(&with("aud", json!("other"))), "another audience"),
        (ec.sign(&with("exp", json!(now() - 61))), "expired"),
        (ec.sign(&with("nbf", json!(now() + 120))), "not valid yet"),
        (ec.sign(&with("exp", json!("soon"))), "not a signed JWT"),
        (other.sign(&claims()), "signature is wrong"),
        (stray.sign(&claims()), "a key that its issuer does not have"),
        (retargeted, "signature is wrong"),
        (unsigned("none", &claims()), "an accepted algorithm"),
        (unsigned("None", &claims()), "an accepted algorithm"),
        (rsa.sign_with_secret(&claims(), public.as_bytes()), "an accepted algorithm"),
        (rsa.sign_with_secret(&claims(), rsa.jwk.to_string().as_bytes()), "an accepted algorithm"),
        ("a".repeat(20_000), "longer than"),
    ];
    for version in BOTH_VERSIONS {
        for key in [&ec, &ed, &rsa] {
            for token in [key.sign(&claims()), key.sign(&with("exp", json!(now() - 30)))] {
                assert_eq!(refused(&mesh, bearing(&token).version(version)).await, None);
                let as_param = get(&format!("/?access_token={token}")).version(version);
                assert_eq!(refused(&mesh, as_param).await, None);
            }
        }
        assert_eq!(refused(&mesh, get("/").version(version)).await, None, "without a token");
        assert_eq!(
            refused(&mesh, get("/").header("authorization", "Basic YTpi").version(version)).await,
            None
        );
        for (token, why) in &bad {
            let answer = asked(&mesh, bearing(token).version(version)).await;
            let told = answer.proxy_error().unwrap_or_default();
            assert_eq!(answer.status, 401, "{why}: {}", answer.summary());
            assert!(
                told.starts_with("token: RequestAuthentication default/jwt rule 1: ") && told.contains(why),
                "{why}: {told}"
            );
            assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
        }
    }
    let grpc = bearing("x").version(Version::HTTP_2).header("content-type", "application/grpc").body("");
    let answer = asked(&mesh, grpc).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["grpc-status"]),
        (200, &"16".parse().expect("a value"))
    );

    let stranger = call::send(mesh.workload(SERVER).inbound, bearing("x")).await.expect("an answer");
    assert_eq!(stranger.status, 401);
    assert!(
        stranger.proxy_error().is_some_and(|told| told.starts_with("token: the token is not")),
        "{}",
        stranger.summary()
    );
    assert!(!stranger.text().contains("default/jwt"), "{}", stranger.summary());
}

#[tokio::test]
async fn policies_ask_what_a_token_says() {
    let mesh = mesh().await;
    let key = IssuerKey::p256("a");
    let jwt = document(&key_set(&[&key]), "");
    let alice = bearing(&key.sign(&claims()));
    let claim = |field: &str, value: Value| bearing(&key.sign(&with(field, value)));

    let principals = format!("{{from: [{{source: {{requestPrincipals: [{ISSUER}/alice]}}}}]}}");
    in_force(&mesh, &(jwt.clone() + &policy(&principals)), &get("/"), true).await;
    assert_eq!(refused(&mesh, alice.clone()).await, None);
    let bob = refused(&mesh, claim("sub", json!("bob"))).await;
    assert!(bob.as_ref().is_some_and(|told| told.starts_with("403 policy: ")), "{bob:?}");
    let bad = refused(&mesh, bearing("x")).await;
    assert!(bad.as_ref().is_some_and(|told| told.starts_with("401 token: ")), "{bad:?}");

    for (name, value, yes, no) in [
        ("request.auth.principal", format!("{ISSUER}/*"), claims(), json!({ "iss": ISSUER })),
        ("request.auth.audiences", "api".to_owned(), claims(), with("aud", json!("other"))),
        ("request.auth.presenter", "app".to_owned(), with("azp", json!("app")), claims()),
        (
            "request.auth.claims[groups]",
            "admins".to_owned(),
            with("groups", json!(["x", "admins"])),
            with("groups", json!(["x"])),
        ),
        (
            "request.auth.claims[realm][roles]",
            "admin".to_owned(),
            with("realm", json!({ "roles": ["admin"] })),
            with("realm", json!("admin")),
        ),
        (
            "request.auth.claims[scope]",
            "write".to_owned(),
            with("scope", json!("read write")),
            with("scope", json!("read")),
        ),
    ] {
        let rule = format!("{{when: [{{key: '{name}', values: ['{value}']}}]}}");
        let (own, documents) = with_own_key(&rule);
        let (yes, no) = (own.sign(&yes), own.sign(&no));
        in_force(&mesh, &documents, &bearing(&yes), false).await;
        assert!(refused(&mesh, bearing(&no)).await.is_some_and(|told| told.starts_with("403 ")), "{name}");
        assert!(refused(&mesh, get("/")).await.is_some_and(|told| told.starts_with("403 ")), "{name}");
    }

    let deny =
        policy("{from: [{source: {notRequestPrincipals: ['*']}}]}").replace("rules:", "action: DENY, rules:");
    in_force(&mesh, &(jwt + &deny), &alice, false).await;
    assert!(refused(&mesh, get("/")).await.is_some_and(|told| told.starts_with("403 ")));
}

/// A key of its own, and a document with it and with a policy of `rule`: what was in force before accepts none of its
/// tokens.
fn with_own_key(rule: &str) -> (IssuerKey, String) {
    let key = IssuerKey::p256("own");
    let documents = document(&key_set(&[&key]), "") + &policy(rule);
    (key, documents)
}

#[tokio::test]
async fn an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge() {
    let mesh = mesh().await;
    let key = IssuerKey::p256("a");
    let more = "    outputPayloadToHeader: x-jwt-payload\n    outputClaimToHeaders:\n    - {header: x-jwt-sub, claim: sub}\n    \
                - {header: x-jwt-level, claim: level.number}\n    fromHeaders: [{name: x-token, prefix: 'v1 '}]\n    \
                fromParams: [t]\n    fromCookies: [session]\n";
    let bad = get("/").header("x-token", "v1 x");
    in_force(&mesh, &document(&key_set(&[&key]), more), &bad, true).await;
    let token = key.sign(&with("level", json!({ "number": 7 })));
    let forged = |call: Call| {
        call.header("x-jwt-sub", "admin").header("x_jwt_sub", "admin").header("x-jwt-payload", "e30")
    };

    for version in BOTH_VERSIONS {
        for (place, call) in [
            ("header", get("/a?b=c").header("x-token", &format!("v1 {token}"))),
            ("parameter", get(&format!("/a?t={token}&b=c"))),
            ("cookie", get("/a?b=c").header("cookie", &format!("x=1; session={token}"))),
        ] {
            let seen = seen(&mesh, forged(call.version(version))).await;
            let header = |name: &str| seen.headers.get(name).map(String::as_str);
            assert_eq!(header("x-jwt-sub"), Some("alice"), "{place}");
            assert_eq!(header("x-jwt-level"), Some("7"), "{place}");
            assert_eq!(header("x-jwt-payload"), token.split('.').nth(1), "{place}");
            assert_eq!(header("x_jwt_sub"), None, "{place}");
            assert_eq!(header("x-token"), None, "{place}");
            assert_eq!(header("cookie"), (place == "cookie").then_some("x=1"), "{place}");
            assert_eq!(seen.path, "/a?b=c", "{place}");
        }
        let without = seen(&mesh, forged(get("/").version(version))).await;
        for name in ["x-jwt-sub", "x_jwt_sub", "x-jwt-payload"] {
            assert_eq!(without.headers.get(name), None, "{name} without a token");
        }
        // Here tokens are in other places, and what is in the usual ones is the app's.
        assert_eq!(refused(&mesh, bearing("x").version(version)).await, None);
        for call in [get("/?t=x"), get("/?%74=x"), get("/").header("cookie", "session=x")] {
            assert!(refused(&mesh, call.version(version)).await.is_some_and(|told| told.starts_with("401 ")));
        }
    }

    let key = IssuerKey::p256("b");
    let token = key.sign(&claims());
    in_force(
        &mesh,
        &document(&key_set(&[&key]), "    forwardOriginalToken: true\n"),
        &bearing(&token),
        false,
    )
    .await;
    assert_eq!(seen(&mesh, bearing(&token)).await.headers["authorization"], format!("Bearer {token}"));
}

#[tokio::test]
async fn a_key_that_is_gone_is_refused_at_the_next_request_and_an_unreadable_document_changes_nothing() {
    let mesh = mesh().await;
    let [old, new] = [IssuerKey::p256("old"), IssuerKey::p256("new")];
    let [with_old, with_new] = [&old, &new].map(|key| bearing(&key.sign(&claims())));

    in_force(&mesh, &document(&key_set(&[&old]), ""), &with_new, true).await;
    assert_eq!(refused(&mesh, with_old.clone()).await, None);
    in_force(&mesh, &document(&key_set(&[&old, &new]), ""), &with_new, false).await;
    assert_eq!(refused(&mesh, with_old.clone()).await, None);
    in_force(&mesh, &document(&key_set(&[&new]), ""), &with_old, true).await;
    assert_eq!(refused(&mesh, with_new.clone()).await, None);

    // The last good version stays.
    let broken = document("{", "") + &policy("{to: [{operation: {paths: [/open]}}]}");
    in_force(&mesh, &broken, &with_new, true).await;
    assert_eq!(refused(&mesh, with_new).await.map(|told| told.starts_with("403 policy")), Some(true));
    assert_eq!(refused(&mesh, with_old).await.map(|told| told.starts_with("401 token")), Some(true));
}

#[tokio::test]
async fn without_a_good_version_no_token_is_accepted_and_requests_without_one_pass() {
    let mesh = mesh().await;
    let key = IssuerKey::p256("a");

    in_force(&mesh, &document("{", ""), &bearing(&key.sign(&claims())), true).await;

    assert_eq!(refused(&mesh, get("/")).await, None);
    let told = refused(&mesh, bearing(&key.sign(&claims()))).await;
    assert!(told.as_ref().is_some_and(|told| told.contains("until it is repaired")), "{told:?}");
}
