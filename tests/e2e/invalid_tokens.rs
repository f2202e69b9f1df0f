//! Every invalid `RequestAuthentication` is refused by `selvedge check`, with its path, the line and what to do, and by the
//! validating webhook, which runs the same code. Istio's validation and its CRD's rules say what is invalid.

use crate::invalid::all_are_refused;

/// What stands below `spec`, and words of the message: what is wrong, and what to do.
type Row = (&'static str, [&'static str; 2]);

/// `RULE` is a rule that is right.
const ROWS: &[Row] = &[
    ("jwtRules:\n- jwksUri: https://a.example/k # <-", ["issuer: is missing", "write the issuer"]),
    ("jwtRules:\n- issuer: '' # <-\n  jwksUri: https://a.example/k", ["is missing", "write the issuer"]),
    ("jwtRules:\n- issuer: someone@example.com # <-", ["neither jwks nor jwksUri", "add jwks or jwksUri"]),
    (
        "jwtRules:\n- RULE\n  jwks: '{}'\n  jwksUri: https://a/k # <-",
        ["only one of jwks and jwksUri", "remove one"],
    ),
    ("jwtRules:\n- RULE\n  jwks: '{' # <-", ["is not a JSON Web Key Set", "write {"]),
    ("jwtRules:\n- RULE\n  jwks: '{\"keys\": 1}' # <-", ["is not a JSON Web Key Set", "write {"]),
    ("jwtRules:\n- RULE\n  jwks: '{\"keys\": []}' # <-", ["has no key", "use public RSA keys"]),
    (
        "jwtRules:\n- RULE\n  jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}' # <-",
        ["is a secret (oct)", "use public RSA keys"],
    ),
    (
        "jwtRules:\n- RULE\n  jwksUri: ftp://a.example/k # <-",
        ["neither the scheme https nor http", "write it as"],
    ),
    ("jwtRules:\n- RULE\n  jwksUri: a.example/k # <-", ["is not a URL", "write it as"]),
    (
        "jwtRules:\n- RULE\n  jwksUri: https://a:0/k # <-",
        ["has a port that is not 1 to 65535", "write it as"],
    ),
    ("jwtRules:\n- RULE\n  jwksUri: https://me@a/k # <-", ["has a user's name in it", "write it as"]),
    ("jwtRules:\n- RULE\n  timeout: 0s # <-", ["must be more than 0s", "at most 60s"]),
    ("jwtRules:\n- RULE\n  timeout: 5 # <-", ["has no unit", "write 5s"]),
    ("jwtRules:\n- RULE\n  audiences:\n  - '' # <-", ["is empty", "write an audience"]),
    ("jwtRules:\n- RULE\n  fromHeaders:\n  - prefix: a # <-", ["name: is missing", "name the header"]),
    ("jwtRules:\n- RULE\n  fromHeaders:\n  - name: 'a b' # <-", ["a b", "header"]),
    ("jwtRules:\n- RULE\n  fromParams:\n  - '' # <-", ["is empty", "write a parameter's name"]),
    ("jwtRules:\n- RULE\n  fromCookies:\n  - '' # <-", ["is empty", "write a cookie's name"]),
    ("jwtRules:\n- RULE\n  spaceDelimitedClaims:\n  - '' # <-", ["is empty", "write a claim"]),
    ("jwtRules:\n- RULE\n  outputPayloadToHeader: 'a b' # <-", ["a b", "header"]),
    (
        "jwtRules:\n- RULE\n  outputPayloadToHeader: Host # <-",
        ["proxies need themselves", "write another name"],
    ),
    (
        "jwtRules:\n- RULE\n  outputClaimToHeaders:\n  - header: x-a\n    claim: '' # <-",
        ["must name a claim", "write its name"],
    ),
    (
        "jwtRules:\n- RULE\n  outputClaimToHeaders:\n  - claim: a # <-",
        ["header: is missing", "name the header"],
    ),
    (
        "jwtRules:\n- RULE\n  outputClaimToHeaders:\n  - header: x-forwarded-client-cert # <-\n    claim: a",
        ["proxies need themselves", "write another name"],
    ),
    ("selector:\n  matchExpressions: [] # <-\njwtRules:\n- RULE", ["is not understood", "matchLabels"]),
    (
        "selector:\n  matchLabels:\n    a: b\ntargetRef: # <-\n  kind: Service\n  name: a\njwtRules:\n- RULE",
        ["only one of selector, targetRef and targetRefs", "remove the others"],
    ),
    (
        "targetRefs:\n- kind: Service\n  name: a\n  namespace: b # <-\njwtRules:\n- RULE",
        ["in its own namespace", "move the policy"],
    ),
];

fn document((spec, _): &Row) -> String {
    let spec = spec.replace("RULE", "issuer: https://a.example").replace('\n', "\n  ");
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a}}\nspec:\n  {spec}\n"
    )
}

#[test]
fn every_invalid_document_about_tokens_is_refused_with_its_line_and_what_to_do_by_check_and_by_the_webhook() {
    all_are_refused(ROWS.iter().map(|row| (document(row), row.1)));
}
