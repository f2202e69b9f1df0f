//! Sessions that stay at their endpoint: `sessionPersistence` of the Gateway API, at an edge and at a sidecar, and nginx's
//! `affinity: cookie`.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header::SET_COOKIE};
use selvedge_demo::{
    call::{self, Answer, Call},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::net::TcpListener;

use super::{pod_of, specs};
use crate::{
    SELVEDGE,
    retries::server::{answer, serve},
};

const HOST: &str = "shop.example.com";

/// Three servers behind a gateway and behind sidecars, and a route for both with this `sessionPersistence`.
async fn mesh(persistence: &str) -> (Mesh, Gateway) {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    mesh.write("edge.yaml", &documents(persistence)).unwrap();
    let gateway = Gateway::start(&mesh, "default/edge", &[80]).await;
    (mesh, gateway)
}

fn documents(persistence: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{gatewayClassName: \
         selvedge, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}\n---\napiVersion: \
         gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews}}\nspec:\n  parentRefs: [{{name: edge}}, \
         {{kind: Service, group: '', name: reviews}}]\n  rules: [{{sessionPersistence: {persistence}, backendRefs: [{{name: \
         reviews, port: 9080}}]}}]\n"
    )
}

async fn through(gateway: &Gateway, call: Call) -> Answer {
    let answer = gateway.call(80, call).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
    answer
}

fn cookie_of(answer: &Answer) -> Option<String> {
    answer.headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
}

/// The first answer that begins a session, and what carries that.
async fn begun(
    ask: &impl AsyncFn() -> Result<Answer, String>,
    carried: impl Fn(&Answer) -> Option<String>,
) -> (Answer, String) {
    poll(SOON, "a session begins", async || {
        let answer = ask().await?;
        match carried(&answer) {
            Some(session) if answer.status == StatusCode::OK => Ok((answer, session)),
            _ => Err(answer.summary()),
        }
    })
    .await
}

#[tokio::test]
async fn a_session_of_a_cookie_is_kept_by_edge_and_sidecars_alike() {
    let (mut mesh, gateway) =
        mesh("{sessionName: cart, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}").await;
    let ask = async || gateway.call(80, call::to(HOST, "/")).await.map_err(|error| error.to_string());
    let (first, cookie) = begun(&ask, cookie_of).await;
    let (token, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Max-Age=3600; Path=/; HttpOnly; SameSite=Lax");
    assert!(token.starts_with("cart=") && !cookie.contains("127."), "{cookie}");
    let with = |authority: &str, token: &str| call::to(authority, "/").header("cookie", token);

    for _ in 0..20 {
        let answer = through(&gateway, with(HOST, token)).await;
        assert_eq!((pod_of(&answer), cookie_of(&answer)), (pod_of(&first), None));
    }
    poll(SOON, "a sidecar knows the session of the edge", async || {
        for _ in 0..10 {
            let answer = mesh.workload("caller").call(with("reviews:9080", token)).await.unwrap();
            if (pod_of(&answer), cookie_of(&answer)) != (pod_of(&first), None) {
                return Err(answer.summary());
            }
        }
        Ok(())
    })
    .await;

    // A token that somebody made up names nothing: the request is balanced, and a session begins.
    let made_up = format!("cart={}", "A".repeat(token.len() - 5));
    let mut servers = BTreeSet::new();
    for _ in 0..40 {
        let answer = through(&gateway, with(HOST, &made_up)).await;
        assert!(cookie_of(&answer).is_some(), "{}", answer.summary());
        servers.insert(pod_of(&answer));
    }
    assert!(servers.len() > 1, "{servers:?}");

    // With its key the control plane keeps it over a restart, and what a sidecar forgets it is told again.
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.restart_sidecar("caller", &[]).await.unwrap();
    mesh.sidecar_ready("caller").await.unwrap();
    for _ in 0..10 {
        let answer = mesh.workload("caller").call(with("reviews:9080", token)).await.unwrap();
        assert_eq!((pod_of(&answer), cookie_of(&answer)), (pod_of(&first), None), "{}", answer.summary());
    }

    // Its endpoint is gone: it goes on elsewhere.
    let gone = pod_of(&first);
    mesh.remove(&selvedge_demo::cluster::entry_file(&gone)).unwrap();
    poll(SOON, "the session moves", async || {
        let answer = through(&gateway, with(HOST, token)).await;
        if pod_of(&answer) == gone {
            return Err(answer.summary());
        }
        cookie_of(&answer).map(drop).ok_or_else(|| answer.summary())
    })
    .await;
}

#[tokio::test]
async fn a_session_of_a_header_ends_when_it_is_idle_for_too_long() {
    let (_mesh, gateway) = mesh("{type: Header, sessionName: X-Cart, idleTimeout: 3s}").await;
    let header =
        |answer: &Answer| answer.headers.get("x-cart").map(|value| value.to_str().unwrap().to_owned());
    let ask = async || gateway.call(80, call::to(HOST, "/")).await.map_err(|error| error.to_string());
    let (first, token) = begun(&ask, header).await;

    let with = |token: &str| call::to(HOST, "/").header("x-cart", token);
    for _ in 0..10 {
        assert_eq!(pod_of(&through(&gateway, with(&token)).await), pod_of(&first));
    }
    // In use it goes on, with newer tokens, for longer than it may be idle.
    let (start, mut newest) = (std::time::Instant::now(), token.clone());
    while start.elapsed() < Duration::from_secs(5) {
        let answer = through(&gateway, with(&newest)).await;
        assert_eq!(pod_of(&answer), pod_of(&first));
        newest = header(&answer).unwrap_or(newest);
    }
    assert_ne!(newest, token);

    // The old one was last used before.
    let mut servers = BTreeSet::new();
    for _ in 0..40 {
        servers.insert(pod_of(&through(&gateway, with(&token)).await));
    }
    assert!(servers.len() > 1, "{servers:?}");
}

#[tokio::test]
async fn what_an_app_sets_itself_is_not_replaced_by_a_session() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.start_control_plane().await.unwrap();
    let server = Spec { app: AppKind::None, ..Spec::server("reviews-1", "reviews", 9080) };
    mesh.add([server]).await.unwrap();
    let listener = TcpListener::bind(mesh.workload("reviews-1").app).await.unwrap();
    // As apps do that keep a session: who has none is given one, and who asks for /plain is given nothing.
    serve(listener, |_, request| {
        let mut answer = answer(200, "here".to_owned());
        if request.uri().path() != "/plain" {
            answer.headers_mut().insert(SET_COOKIE, HeaderValue::from_static("cart=of-the-app; Path=/"));
            let name = HeaderName::from_static("x-cart");
            answer.headers_mut().insert(name, HeaderValue::from_static("of-the-app"));
        }
        async move { answer }
    });
    mesh.write("edge.yaml", &documents("{sessionName: cart}")).unwrap();
    let gateway = Gateway::start(&mesh, "default/edge", &[80]).await;
    let set = |answer: &Answer| -> Vec<String> {
        let all = answer.headers.get_all(SET_COOKIE).iter().chain(answer.headers.get_all("x-cart"));
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    for (persistence, carried, (name, value)) in [
        ("{sessionName: cart}", "set-cookie", ("cookie", "cart=of-the-app")),
        ("{type: Header, sessionName: X-Cart}", "x-cart", ("x-cart", "of-the-app")),
    ] {
        mesh.write("edge.yaml", &documents(persistence)).unwrap();
        let plain =
            async || gateway.call(80, call::to(HOST, "/plain")).await.map_err(|error| error.to_string());
        begun(&plain, |answer| Some(answer.headers.get(carried)?.to_str().unwrap().to_owned())).await;

        for _ in 0..4 {
            let answer = through(&gateway, call::to(HOST, "/")).await;
            assert_eq!(set(&answer), ["cart=of-the-app; Path=/", "of-the-app"], "{persistence}");
            let answer = through(&gateway, call::to(HOST, "/plain").header(name, value)).await;
            assert!(set(&answer).is_empty(), "{persistence}: {}", answer.summary());
        }
    }
}

#[tokio::test]
async fn nginxs_affinity_keeps_a_client_at_one_endpoint_in_either_mode() {
    let ingress = |mode: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: shop\n  annotations:\n    \
             nginx.ingress.kubernetes.io/affinity: cookie\n    nginx.ingress.kubernetes.io/affinity-mode: {mode}\n    \
             nginx.ingress.kubernetes.io/session-cookie-name: route\n    \
             nginx.ingress.kubernetes.io/session-cookie-max-age: '600'\n    \
             nginx.ingress.kubernetes.io/session-cookie-samesite: Strict\n    \
             nginx.ingress.kubernetes.io/session-cookie-path: /\nspec: {{rules: [{{host: {HOST}, http: {{paths: [{{path: /, \
             pathType: Prefix, backend: {{service: {{name: reviews, port: {{name: http}}}}}}}}]}}}}]}}\n"
        )
    };
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    mesh.write("ingress.yaml", &ingress("balanced")).unwrap();
    let gateway = Gateway::start(&mesh, "selvedge/ingress", &[80]).await;
    for (mode, length) in [("balanced", "route=".len() + 43), ("persistent", "route=".len() + 95)] {
        mesh.write("ingress.yaml", &ingress(mode)).unwrap();
        let ask = async || gateway.call(80, call::to(HOST, "/")).await.map_err(|error| error.to_string());
        let of_mode = |answer: &Answer| {
            cookie_of(answer)
                .filter(|cookie| cookie.split_once("; ").is_some_and(|(token, _)| token.len() == length))
        };
        let mut servers = BTreeSet::new();
        for _ in 0..12 {
            let (first, cookie) = begun(&ask, of_mode).await;
            let (token, attributes) = cookie.split_once("; ").unwrap();
            assert_eq!(attributes, "Max-Age=600; Path=/; HttpOnly; SameSite=Strict", "{mode}");
            for _ in 0..5 {
                let answer = through(&gateway, call::to(HOST, "/").header("cookie", token)).await;
                assert_eq!((pod_of(&answer), cookie_of(&answer)), (pod_of(&first), None), "{mode}");
            }
            servers.insert(pod_of(&first));
        }
        assert!(servers.len() > 1, "{mode}: {servers:?}");
    }
}
