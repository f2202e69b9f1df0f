use serde_json::{Value, json};

use super::*;

fn us() -> WorkloadName {
    "shop/reviews-1".parse().unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn claims() -> Value {
    json!({ "ns": "shop", "sa": "reviews", "exp": 2000, "jti": "x", "once": false,
            "root": "0a".repeat(32), "td": "cluster.local" })
}

fn token(claims: &Value) -> String {
    format!("head.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn a_token_says_who_its_bearer_is_and_which_root_to_trust() {
    let source = TokenSource::Given(format!("{}\n", token(&claims())));

    let token = source.read(&us(), &Trust::default(), at(1000)).unwrap();

    assert_eq!(token.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
    assert_eq!(token.root_sha256, [[10; 32]]);
    assert!(!token.text.ends_with('\n'));
}

fn read(claims: &Value, trust: &Trust, now: SystemTime) -> Result<Token, TokenError> {
    Token::read(&token(claims), &us(), trust, now)
}

fn roots(list: &[&str]) -> Trust {
    let roots = list.iter().map(|root| root.repeat(32).parse().unwrap()).collect();
    Trust { roots, trust_domain: TrustDomain::default() }
}

/// The claims that an API server puts into a projected token.
fn service_account_claims() -> Value {
    json!({ "aud": ["selvedge"], "exp": 2000, "iat": 0, "iss": "https://kubernetes.default.svc",
            "kubernetes.io": { "namespace": "shop", "pod": {"name": "reviews-1", "uid": "u"},
                               "serviceaccount": {"name": "reviews", "uid": "u"} },
            "nbf": 0, "sub": "system:serviceaccount:shop:reviews" })
}

#[test]
fn beside_a_service_accounts_token_the_settings_say_which_root_to_trust() {
    let token = read(&service_account_claims(), &roots(&["0a", "0b"]), at(1000)).unwrap();

    assert_eq!(token.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
    assert_eq!(token.root_sha256, [[10; 32], [11; 32]]);
    let error = read(&service_account_claims(), &Trust::default(), at(1000)).unwrap_err().to_string();
    assert!(error.contains("--trust-roots") && error.contains("selvedge-trust-roots"), "{error}");
}

#[test]
fn a_pods_token_is_only_for_that_pods_sidecar() {
    let mut claims = service_account_claims();
    claims["kubernetes.io"]["pod"]["name"] = json!("reviews-2");

    let error = read(&claims, &roots(&["0a"]), at(1000)).unwrap_err();
    assert!(matches!(error, TokenError::OtherWorkload { .. }), "{error}");
    let error = read(&service_account_claims(), &roots(&["0a"]), at(2000)).unwrap_err();
    assert!(matches!(error, TokenError::Expired { .. }), "{error}");
}

#[test]
fn settings_add_roots_to_that_of_a_join_token() {
    let token = read(&claims(), &roots(&["0b"]), at(1000)).unwrap();

    assert_eq!(token.root_sha256, [[10; 32], [11; 32]]);
}

#[test]
fn a_roots_sha256_may_be_written_with_colons() {
    let colons = ["0A"; 32].join(":");

    assert_eq!(colons.parse(), Ok(RootSha256([10; 32])));
    assert_eq!("0a".parse::<RootSha256>(), Err(NoSha256));
    assert_eq!("é".repeat(32).parse::<RootSha256>(), Err(NoSha256));
}

#[test]
fn an_expired_token_says_so_and_what_to_do() {
    let error = read(&claims(), &Trust::default(), at(2000)).unwrap_err().to_string();

    assert!(error.contains("expired at 1970-01-01T00:33:20Z"), "{error}");
    assert!(error.contains("selvedge token create"), "{error}");
}

#[test]
fn a_token_for_another_workload_is_refused_here_already() {
    let mut claims = claims();
    claims["workload"] = json!("shop/ratings-1");

    let error = read(&claims, &Trust::default(), at(1000)).unwrap_err();

    assert!(matches!(error, TokenError::OtherWorkload { .. }), "{error}");
}

#[test]
fn something_else_in_its_place_is_named_and_never_quoted() {
    let mut without_root = claims();
    without_root["root"] = json!("zz");
    for text in ["", "secret", "a.secret.c", "a.b.c.d", &token(&json!({"secret": 1})), &token(&without_root)]
    {
        let error = Token::read(text, &us(), &Trust::default(), at(1000)).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_file_that_others_may_have_written_is_not_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token(&claims())).unwrap();
    let source = TokenSource::File(file.path().to_owned());
    let with = |mode| {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        source.read(&us(), &Trust::default(), at(1000))
    };

    let error = with(0o666).unwrap_err().to_string();
    assert!(error.contains("can be changed by others") && error.contains("--token-file"), "{error}");
    // As the kubelet projects one.
    assert!(with(0o644).is_ok());
}

#[test]
fn a_missing_file_is_named() {
    let source = TokenSource::File("/nonexistent/token".into());

    let error = source.read(&us(), &Trust::default(), at(0)).unwrap_err().to_string();

    assert!(error.contains("/nonexistent/token") && error.contains("--token-file"), "{error}");
}
