//! `sessionPersistence` of a rule, as it is read and refused.

use std::time::Duration;

use selvedge_model::{SessionCarrier, SessionKey, SessionPersistence};

use super::*;

fn route(kind: &str, persistence: &str) -> Decoded {
    only(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n  parentRefs: [{{name: edge}}]\n  \
         rules:\n  - sessionPersistence: {persistence}\n    backendRefs: [{{name: a, port: 80}}]\n"
    ))
}

#[test]
fn what_a_session_says_is_read() {
    let cookie = |max_age| SessionCarrier::Cookie {
        path: "/".to_owned(),
        max_age,
        attributes: vec!["HttpOnly".to_owned(), "SameSite=Lax".to_owned()],
    };
    let hour = Some(Duration::from_secs(3_600));
    let usual = SessionPersistence {
        name: String::new(),
        carrier: cookie(None),
        absolute_timeout: None,
        idle_timeout: None,
        moves_on_failure: true,
        key: SessionKey([0; 32]),
    };
    for (yaml, expected) in [
        ("{}", usual.clone()),
        (
            "{sessionName: Cart, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}",
            SessionPersistence {
                name: "Cart".into(),
                carrier: cookie(hour),
                absolute_timeout: hour,
                ..usual.clone()
            },
        ),
        (
            "{type: Header, sessionName: X-Cart, idleTimeout: 10s}",
            SessionPersistence {
                name: "x-cart".into(),
                carrier: SessionCarrier::Header,
                idle_timeout: Some(Duration::from_secs(10)),
                ..usual.clone()
            },
        ),
    ] {
        for kind in ["HTTPRoute", "GRPCRoute"] {
            let decoded = route(kind, yaml);
            let Resource::HttpRoute(document) = understood(&decoded) else { panic!("{decoded:?}") };
            assert_eq!(document.spec.rules[0].session.as_deref(), Some(&expected), "{yaml}");
            assert_eq!(told(&decoded), [], "{yaml}");
        }
    }
    assert!(!format!("{usual:?}").contains("[0, 0"), "a key is never shown");
}

#[test]
fn what_a_session_cannot_be_is_refused() {
    for (yaml, field) in [
        ("{cookieConfig: {lifetimeType: Permanent}}", ".cookieConfig.lifetimeType"),
        ("{type: Header, cookieConfig: {}}", ".cookieConfig"),
        ("{type: Header, sessionName: 'a b'}", ".sessionName"),
        ("{sessionName: 'a;b'}", ".sessionName"),
        ("{idleTimeout: 10ms}", ".idleTimeout"),
        ("{absoluteTimeout: 0s}", ".absoluteTimeout"),
    ] {
        let decoded = route("HTTPRoute", yaml);

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{yaml}");
        let problem = &decoded.problems[0];
        assert_eq!(problem.field, format!("spec.rules[0].sessionPersistence{field}"));
        assert_eq!(problem.line, Some(7), "{problem}");
    }
}
