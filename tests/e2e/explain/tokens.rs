//! What `explain` says of a request's token is what the server's sidecar makes of it.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{
    Mesh, SOON,
    issuer::{IssuerKey, key_set, now, unsigned},
    poll,
};
use serde_json::{Value, json};

use crate::SELVEDGE;

const ISSUER: &str = "https://issuer.example";

/// Tokens of the issuer with `keys`, and a policy that lets in Alice's requests and nobody else's.
fn documents(keys: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  jwtRules:
  - issuer: {ISSUER}
    audiences: [api]
    jwks: '{keys}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: alice}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  rules: [{{from: [{{source: {{requestPrincipals: ['{ISSUER}/alice']}}}}]}}]
"
    )
}

fn claims(subject: &str, audience: &str, expires: u64) -> Value {
    json!({ "iss": ISSUER, "sub": subject, "aud": audience, "exp": expires })
}

/// What `selvedge explain` says, with `token` on its stdin if there is one.
fn explain(mesh: &Mesh, what: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.arg("explain").args(what).args(["--from", "default/caller", "-o", "json", "--config-dir"]);
    command.arg(mesh.config_dir()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if token.is_some() {
        command.args(["--token", "-"]);
    }
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may have refused the question before it reads.
    let _ = stdin.write_all(token.unwrap_or_default().as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn explain_checks_a_token_as_the_sidecar_does() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    let [key, stray] = [IssuerKey::p256("ours"), IssuerKey::p256("stray")];
    mesh.write("jwt.yaml", &documents(&key_set(&[&key]))).expect("a writable directory");
    let later = now() + 3600;
    let tokens = [
        (
            Some(key.sign(&claims("alice", "api", later))),
            200,
            "as the principal https://issuer.example/alice",
        ),
        (Some(key.sign(&claims("bob", "api", later))), 403, "as the principal https://issuer.example/bob"),
        (Some(key.sign(&claims("alice", "web", later))), 401, "another audience"),
        (Some(key.sign(&claims("alice", "api", now() - 90))), 401, "expired"),
        (Some(stray.sign(&claims("alice", "api", later))), 401, "a key that its issuer does not have"),
        (Some(unsigned("none", &claims("alice", "api", later))), 401, "an accepted algorithm"),
        (Some("x".to_owned()), 401, "not a signed JWT"),
        (Some("a".repeat(20_000)), 401, "longer than"),
        (None, 403, "AuthorizationPolicy default/alice rule 1 asks for one"),
    ];
    poll(SOON, "the policies are in force", async || {
        let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await?;
        if answer.status == 403 { Ok(()) } else { anyhow::bail!("{}", answer.summary()) }
    })
    .await;

    for (token, status, words) in tokens {
        let mut call = call::to("reviews:9080", "/");
        if let Some(token) = &token {
            call = call.header("authorization", &format!("Bearer {token}"));
        }
        let done = mesh.workload("caller").call(call).await.expect("an answer");
        assert_eq!(done.status, status, "{words}: {}", done.summary());

        let output = explain(&mesh, &["request", "--to", "http://reviews:9080/"], token.as_deref());
        let said = json_of(&output);
        let endpoint = &said["backends"][0]["endpoints"][0];
        assert_eq!(output.status.code(), Some(i32::from(status != 200)), "{said:#}");
        assert_eq!(endpoint["refused"]["status"].as_u64().unwrap_or(200), u64::from(status), "{said:#}");
        assert!(endpoint["verdict"].as_str().is_some_and(|verdict| verdict.contains(words)), "{said:#}");

        let to = ["connection", "--to", "reviews:9080", "-X", "GET"];
        let output = explain(&mesh, &to, token.as_deref());
        let said = json_of(&output);
        assert_eq!(output.status.code(), Some(i32::from(status != 200)), "{said:#}");
        let steps = said["places"][0]["destination"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["asked"] == "RequestAuthentication").expect("it is asked");
        assert!(step.to_string().contains(words), "{said:#}");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(token.is_none_or(|token| token.len() < 10 || !shown.contains(&token)), "{shown}");
    }
}

#[tokio::test]
async fn a_token_is_given_once_and_can_be_read() {
    let mesh = Mesh::empty(SELVEDGE);
    for (more, named) in [
        (&["-H", "authorization: Bearer a"][..], "give one of them"),
        (&["--token", "/nowhere/at/all"], "/nowhere/at/all"),
    ] {
        let token = if more[0] == "-H" { Some("a") } else { None };
        let output = explain(&mesh, &[&["request", "--to", "http://a/"], more].concat(), token);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{output:?}");
    }
}
