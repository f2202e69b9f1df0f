//! What an `Ingress` says alone.

use std::{path::Path, sync::Arc, time::Duration};

use selvedge_model::{
    HeaderField, StringMatch, facts,
    filter::{OriginMatch, OwnAnswer, PathRewrite},
    gateway::UserListForm,
};

use super::{super::*, nginx::BackendProtocol, *};
use crate::problem::Severity;

/// An `Ingress` with these annotations of nginx's, and these paths of the service `a`.
fn document(annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n".to_owned();
    if !annotations.is_empty() {
        text.push_str("  annotations:\n");
    }
    for (name, value) in annotations {
        text.push_str(&format!("    nginx.ingress.kubernetes.io/{name}: '{value}'\n"));
    }
    text.push_str("spec:\n  rules:\n    - host: a.example.com\n      http:\n        paths:\n");
    for (kind, path) in paths {
        text.push_str(&format!(
            "          - {{path: '{path}', pathType: {kind}, backend: {{service: {{name: a, port: {{number: 80}}}}}}}}\n"
        ));
    }
    text
}

fn decoded(text: &str) -> Decoded {
    decode(text, &Arc::from(Path::new("mesh.yaml")), "default").remove(0)
}

fn spec(text: &str) -> IngressSpec {
    let decoded = decoded(text);
    match decoded.outcome {
        DecodeOutcome::Understood(Resource::Ingress(document)) => document.spec.clone(),
        other => panic!("{other:?}: {:?}", decoded.problems),
    }
}

fn nginx(annotations: &[(&str, &str)]) -> Nginx {
    spec(&document(annotations, &[("Prefix", "/")])).nginx
}

/// The first error of a document with these annotations, and its line.
fn error(annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> (String, u64) {
    let decoded = decoded(&document(annotations, paths));
    let error = decoded.problems.iter().find(|problem| problem.severity == Severity::Error);
    error
        .map(|problem| (format!("{}: {}", problem.field, problem.message), problem.line.unwrap()))
        .unwrap_or_default()
}

/// What the path of `kind` asks for, and what becomes of `path` by it.
fn rewritten(annotations: &[(&str, &str)], (kind, asks): (&str, &str), path: &str) -> Option<String> {
    let spec = spec(&document(annotations, &[(kind, asks)]));
    let one = &spec.rules[0].paths[0];
    let apply = |rewrite: &PathRewrite| rewrite.apply(path, Some(&one.asks));
    one.asks.is_match(path).then(|| one.rewrite.as_ref().map_or_else(|| path.to_owned(), apply))
}

#[test]
fn the_lessons_ingress_is_read_whole() {
    let text = include_str!("lesson.yaml");

    let spec = spec(text);

    let host = |name: &str| Hostname::of_ingress(name).unwrap();
    assert_eq!(spec.rules.len(), 1);
    assert_eq!(spec.rules[0].host, host("example.com"));
    let paths: Vec<_> = spec.rules[0].paths.iter().map(|path| (&path.asks, &path.backend.to)).collect();
    let prefix = |path: &str| StringMatch::PathPrefix(path.to_owned());
    let service = |name: &str| BackendObject::Service(name.to_owned(), ServicePort::Number(80));
    assert_eq!(
        paths,
        [(&prefix("/app1"), &service("app1-service")), (&prefix("/app2"), &service("app2-service"))]
    );
    assert_eq!(spec.rules[0].paths[0].rewrite, Some(PathRewrite::Full("/".to_owned())));
    assert_eq!(spec.tls[0].hosts, [host("example.com")]);
    assert_eq!(spec.tls[0].secret.as_deref(), Some("tls-secret"));
    assert!(spec.nginx.ssl_redirect && spec.nginx.notes.iter().next().is_none());
}

#[test]
fn a_host_is_a_name_or_has_one_label_for_its_wildcard_or_is_every_host() {
    let host = |line: &str| {
        spec(&document(&[], &[("Prefix", "/")]).replace("host: a.example.com", line)).rules[0].host.clone()
    };

    assert!(host("host: '*.example.com'").contains("a.example.com"));
    assert!(!host("host: '*.example.com'").contains("a.b.example.com"));
    assert_eq!(host("host: ''"), Hostname::Any);
}

#[test]
fn a_path_means_what_it_means_in_a_request_and_one_that_none_can_have_is_told() {
    let found = |kind, asks, path| rewritten(&[], (kind, asks), path).is_some();
    assert!(found("Exact", "/%7Eenc", "/~enc") && found("Prefix", "/café", "/caf%C3%A9/x"));
    assert!(found("ImplementationSpecific", "/my app", "/my%20apple"));

    let spec = spec(&document(&[], &[("Prefix", "/100%"), ("Exact", "/a?b"), ("Prefix", "/a%20b")]));
    let told: Vec<_> = spec.nginx.notes.iter().map(|(severity, field, _)| (severity, field)).collect();
    let path = ["spec.rules[0].http.paths[0].path", "spec.rules[0].http.paths[1].path"];
    assert_eq!(told, path.map(|path| (Severity::Warning, path)));
}

#[test]
fn a_path_is_exact_a_prefix_of_segments_or_as_nginx_reads_it() {
    let found = |kind, asks, path| rewritten(&[], (kind, asks), path).is_some();
    assert!(found("Exact", "/a", "/a") && !found("Exact", "/a", "/a/"));
    assert!(found("Prefix", "/a/", "/a") && found("Prefix", "/a", "/a/b") && !found("Prefix", "/a", "/ab"));
    // As a location of nginx's: letter by letter.
    for (path, is_found) in [("/a", true), ("/a/b", true), ("/ab", true), ("/A", false), ("/b", false)] {
        assert_eq!(found("ImplementationSpecific", "/a", path), is_found, "{path}");
    }
    assert!(found("ImplementationSpecific", "/a/", "/a") && !found("ImplementationSpecific", "/a/", "/ab"));
    assert!(found("ImplementationSpecific", "", "/anything"));

    let regex = |kind, asks, path| rewritten(&[("use-regex", "true")], (kind, asks), path).is_some();
    assert!(regex("ImplementationSpecific", "/a[0-9]+", "/A12/b"));
    assert!(regex("Prefix", "/a/.*/c", "/a/b/c/d") && !regex("Prefix", "/a/.*/c", "/x/a/b/c"));
    assert!(!regex("Exact", "/a[0-9]", "/a1") && regex("Exact", "/a[0-9]", "/a[0-9]"));
}

#[test]
fn a_rewrite_replaces_the_whole_path_as_nginx_does() {
    let to =
        |target: &'static str, kind, asks, path| rewritten(&[("rewrite-target", target)], (kind, asks), path);

    assert_eq!(to("/", "Prefix", "/app1", "/app1/x/y").as_deref(), Some("/"));
    assert_eq!(to("/", "Prefix", "/app1", "/app12"), None);
    assert_eq!(to("/$2", "Prefix", "/s(/|$)(.*)", "/s/new/x").as_deref(), Some("/new/x"));
    assert_eq!(to("/$2", "ImplementationSpecific", "/s(/|$)(.*)", "/S").as_deref(), Some("/"));
    assert_eq!(to("/$2", "ImplementationSpecific", "/s(/|$)(.*)", "/stop"), None);
    assert_eq!(to("/api/$1", "Prefix", "/v[0-9]/(.*)", "/v2/a").as_deref(), Some("/api/a"));
    assert_eq!(
        to("/x/$1", "Exact", "/a", "/a").as_deref(),
        Some("/x/"),
        "a group that there is not is empty"
    );
}

#[test]
fn what_becomes_itself_is_not_rewritten_nor_is_what_is_below_it() {
    let to = |target, kind, asks, path| rewritten(&[("rewrite-target", target)], (kind, asks), path);

    assert_eq!(to("/", "Prefix", "/", "/a/b").as_deref(), Some("/a/b"));
    assert_eq!(to("/app", "Prefix", "/app", "/app/x").as_deref(), Some("/app/x"));
    assert_eq!(to("/", "Prefix", "/app", "/app/x").as_deref(), Some("/"));
}

#[test]
fn a_rewrite_may_have_a_query_of_its_own() {
    let read = |target: &str| {
        let text = document(&[("rewrite-target", target)], &[("ImplementationSpecific", "/a/(.*)")]);
        let spec = spec(&text);
        let path = &spec.rules[0].paths[0];
        (path.rewrite.as_ref().unwrap().apply("/a/x", Some(&path.asks)), spec.nginx.adds_query())
    };

    assert_eq!(read("/b?name=$1"), ("/b?name=x".to_owned(), true));
    assert_eq!(read("/b?name=$1?"), ("/b?name=x".to_owned(), false));
    assert_eq!(read("/b/$1?"), ("/b/x?".to_owned(), false));
    assert_eq!(read("/b/$1"), ("/b/x".to_owned(), false));
}

#[test]
fn a_redirect_may_be_put_together_from_variables_of_nginx_and_groups_of_the_path() {
    let location = |target: &str, asks: &str| {
        let text = document(&[("permanent-redirect", target), ("use-regex", "true")], &[("Prefix", asks)]);
        let spec = spec(&text);
        let path = &spec.rules[0].paths[0];
        let notes = spec.nginx.notes.iter().count();
        let Some(OwnAnswer::Redirect(redirect)) = spec.nginx.answer.unwrap().answer else {
            panic!("{target}")
        };
        let connection = facts::Connection::new(facts::Source::UNKNOWN, 80);
        let request = facts::Request {
            connection: &connection,
            method: &http::Method::GET,
            scheme: "http",
            authority: "a.example.com:8080",
            path: "/old/x",
            query: "q=1",
            headers: &http::HeaderMap::new(),
            token: None,
        };
        (redirect.location(&request, Some(&path.asks)), notes)
    };

    for (target, expected) in [
        ("https://$host/new", "https://a.example.com/new"),
        ("$scheme://$http_host/new", "http://a.example.com:8080/new"),
        ("https://b.example.com/new$request_uri", "https://b.example.com/new/old/x?q=1"),
        ("https://b.example.com/${1}s/$1$is_args$args", "https://b.example.com/xs/x?q=1"),
        ("/new/$1", "/new/x"),
        ("https://b.example.com$uri", "https://b.example.com/old/x"),
    ] {
        assert_eq!(location(target, "/old/(.*)"), (expected.to_owned(), 0), "{target}");
    }
    assert_eq!(location("/new/$1", "/old"), ("/new/".to_owned(), 1), "there is no such group, which is told");
}

#[test]
fn a_group_that_the_path_does_not_have_is_told_with_its_line() {
    let spec = spec(&document(&[("rewrite-target", "/$1")], &[("Prefix", "/a")]));

    let notes: Vec<_> = spec.nginx.notes.iter().collect();
    assert_eq!(notes[0].0, Severity::Warning);
    assert_eq!(notes[0].1, "spec.rules[0].http.paths[0].path");
    assert!(notes[0].2.contains("no group for $1"), "{notes:?}");
}

#[test]
fn an_annotation_that_cannot_be_used_is_an_error_at_its_line() {
    let prefix = &[("Prefix", "/a")][..];
    for (name, value, words) in [
        ("ssl-redirect", "yes", "neither true nor false"),
        ("use-regex", "on", "neither true nor false"),
        ("proxy-read-timeout", "60s", "not a number of seconds"),
        ("proxy-connect-timeout", "0", "write 1 to 2147483647"),
        ("proxy-body-size", "8mb", "not a number of bytes"),
        ("proxy-body-size", "m", "not a number of bytes"),
        ("proxy-body-size", "+1", "not a number of bytes"),
        ("proxy-body-size", "99999999999999g", "not a number of bytes"),
        ("backend-protocol", "FCGI", "write HTTP, HTTPS, GRPC or GRPCS"),
        ("rewrite-target", "x", "begin it with /"),
        ("rewrite-target", "/x#y", "has a #"),
        ("rewrite-target", "/$uri", "variable of nginx"),
        ("permanent-redirect", "example.com", "is not a URL"),
        ("permanent-redirect", "https://$remote_addr/", "is not a URL"),
        ("permanent-redirect", "$host/x", "is not a URL"),
        ("temporal-redirect", "https://a/${uri", "is not a URL"),
        ("permanent-redirect-code", "200", "not the status of a redirect"),
        ("app-root", "app", "is not a path below /"),
        ("upstream-vhost", "$host", "is not a host"),
        ("server-alias", "*", "is not a host"),
        ("whitelist-source-range", "10.0.0.0/40", "neither an address nor a block"),
        ("denylist-source-range", "a", "neither an address nor a block"),
    ] {
        let (told, line) = error(&[(name, value)], prefix);

        assert!(told.contains(words) && told.contains(name), "{name} {value}: {told}");
        assert_eq!(line, 6, "{told}");
    }
    for (more, words) in [
        (("canary-weight", "101"), "is not a weight"),
        (("canary-by-header", "a b"), "is not the name of a header"),
        (("canary-by-header-value", "x"), "needs canary-by-header"),
        (("canary-by-cookie", "a b"), "is not the name of a cookie"),
    ] {
        let (told, line) = error(&[("canary", "true"), more], prefix);
        assert!(told.contains(words), "{told}");
        assert_eq!(line, 7, "{told}");
    }
    let pattern = [("canary", "true"), ("canary-by-header", "x"), ("canary-by-header-pattern", "(")];
    assert!(error(&pattern, prefix).0.contains("RE2"));
    for (name, value) in
        [("cors-allow-origin", "example.com"), ("cors-allow-methods", "GET POST"), ("cors-max-age", "1d")]
    {
        let (told, line) = error(&[("enable-cors", "true"), (name, value)], prefix);
        assert!(told.contains(name), "{told}");
        assert_eq!(line, 7);
    }
    let (told, line) = error(&[("use-regex", "true")], &[("ImplementationSpecific", "/a(?=b)")]);
    assert!(told.contains("look-around") && told.contains("spec.rules[0].http.paths[0].path"), "{told}");
    assert_eq!(line, 12);
}

#[test]
fn the_annotations_of_an_object_in_a_cluster_are_judged_only_once_it_is_known_whose_it_is() {
    let object = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "maybe"}},
        "spec": {"defaultBackend": {"service": {"name": "a", "port": {"name": "http"}}}},
    });

    let decoded = decode_value(object, "default");

    let DecodeOutcome::Understood(Resource::Ingress(document)) = &decoded.outcome else {
        panic!("{decoded:?}")
    };
    assert!(document.spec.nginx.notes.first_error().is_some());
    let to = &document.spec.default_backend.as_ref().unwrap().to;
    assert_eq!(*to, BackendObject::Service("a".to_owned(), ServicePort::Name("http".to_owned())));
}

#[test]
fn what_would_have_kept_somebody_out_and_is_not_acted_on_has_nobody_answered() {
    for (name, value) in [
        ("auth-tls-verify-client", "on"),
        ("auth-url", "https://auth.example.com"),
        ("auth-tls-secret", "default/ca"),
        ("enable-modsecurity", "true"),
        ("server-snippet", "location /admin { deny all; }"),
        ("server-snippet", "ssl_verify_client on;"),
        ("configuration-snippet", "modsecurity on;"),
        ("configuration-snippet", "internal;"),
        ("configuration-snippet", "if ($bad) { return 403; }"),
        ("configuration-snippet", "if ($out) { return 302 /login; }"),
        ("configuration-snippet", "access_by_lua_block { ngx.exit(403) }"),
        ("configuration-snippet", "set $a 1; satisfy any;"),
        ("configuration-snippet", "auth_basic \"x\";"),
        ("configuration-snippet", "''deny'' all;"),
        ("configuration-snippet", "return;"),
        ("configuration-snippet", "return 404;"),
        ("server-snippet", "location /admin { return 301 https://inner$request_uri; }"),
        ("server-snippet", "location /a { limit_except GET { allow all; } }"),
        (
            "configuration-snippet",
            "if ($cookie_session = \"\") { return 302 https://sso.example.com/login?rd=https://$host$request_uri; }",
        ),
        ("configuration-snippet", "if ($cookie_session = \"\") { return 302 https://sso$request_uri; }"),
        ("configuration-snippet", "if ($hosts = a) { return 302 https://sso$request_uri; }"),
        ("configuration-snippet", "if ($host = $cookie_a) { return 302 https://sso$request_uri; }"),
        ("configuration-snippet", "if ($host = \"${arg_a}\") { return 302 https://sso$request_uri; }"),
        ("configuration-snippet", "return 302 https://sso/login?rd=https://$host$request_uri;"),
        ("configuration-snippet", "return 302 https://sso?rd=$request_uri;"),
        ("configuration-snippet", "return 302 /login?rd=https://$host$request_uri;"),
        ("configuration-snippet", "return 403 https://new$request_uri;"),
        ("configuration-snippet", "if ($http_x_key != \"s\") { return 200 \"no\"; }"),
        ("server-snippet", "location /a { if ($http_x_key != s) { return 200 no; } }"),
        ("server-snippet", "if ($scheme = http) { set $a 1; } return 204;"),
        ("server-snippet", "if (-f /maintenance) { return 200 maintenance; }"),
        ("server-snippet", "return 200 \"maintenance\";"),
    ] {
        let nginx = nginx(&[(name, value)]);
        assert!(nginx.refuses.as_ref().is_some_and(|why| why.contains(name)), "{name}: {value}");
        assert!(
            nginx
                .notes
                .iter()
                .any(|(severity, field, _)| severity == Severity::Warning && field.contains(name))
        );
    }
    for (name, value) in [
        ("enable-modsecurity", "false"),
        ("configuration-snippet", "more_set_headers \"a: b\";"),
        ("configuration-snippet", "proxy_set_header X-Internal internal;"),
        ("configuration-snippet", "add_header Content-Security-Policy ''a; deny b; internal'';"),
        ("configuration-snippet", "if ($request_method = OPTIONS) { return 204; }"),
        ("configuration-snippet", "if ($host = old) { return 301 https://new$request_uri; }"),
        ("configuration-snippet", "if ($host ~ ^www[.](.+)$) { return 308 $scheme://$1$request_uri; }"),
        (
            "configuration-snippet",
            "if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }",
        ),
        ("server-snippet", "return 301 https://new:8443$request_uri;"),
        ("server-snippet", "location = /robots.txt { return 200 x; }"),
        ("configuration-snippet", "add_header Allow-By x; # deny all;"),
        ("configuration-snippet", "auth_basic off; modsecurity off;"),
        ("proxy-buffer-size", "8k"),
        ("affinity-canary-behavior", "sticky"),
    ] {
        let nginx = nginx(&[(name, value)]);
        assert_eq!(nginx.refuses, None, "{name}: {value}");
        let notes: Vec<_> =
            nginx.notes.iter().map(|(severity, field, _)| (severity, field.to_owned())).collect();
        assert_eq!(notes, [(Severity::NotActedOn, nginx::annotation(name))]);
    }
}

#[test]
fn what_nginx_knows_and_nobody_acts_on_is_told_with_what_to_write_instead() {
    for (name, value, says) in [
        (
            "auth-tls-secret",
            "default/ca",
            "answered 500 until it is removed; ask clients for certificates at a Gateway",
        ),
        ("auth-url", "https://auth.example.com", "no other service is asked about requests"),
        ("enable-owasp-core-rules", "true", "there is no web application firewall"),
        ("server-snippet", "deny all;", "nginx's own language is not run"),
        (
            "configuration-snippet",
            "more_set_headers \"a: b\";",
            "not acted on; nginx's own language is not run",
        ),
        ("proxy-send-timeout", "60", "not acted on; proxy-read-timeout is for both directions"),
        ("proxy-buffers-number", "4", "not acted on; bodies are passed on as they come"),
        ("proxy-ssl-verify", "on", "a BackendTLSPolicy or a DestinationRule"),
        ("limit-rate", "1", "not acted on; how fast an answer is sent"),
        ("limit-connections", "20", "--max-connections-per-client"),
        ("upstream-hash-by", "$remote_addr", "consistentHash"),
        ("session-cookie-hash", "sha1", "not acted on; the cookie tells nothing of its endpoint"),
        (
            "secure-backends",
            "true",
            "not acted on; nginx's controller knows it no longer; write backend-protocol: HTTPS",
        ),
        ("default-backend", "error-pages", "answers of the app are passed on as they are"),
    ] {
        let nginx = nginx(&[(name, value)]);
        let told: Vec<_> = nginx.notes.iter().map(|(.., message)| message.to_owned()).collect();
        assert!(told.len() == 1 && told[0].contains(says), "{name}: {told:?}");
        assert!(!told[0].contains("did you mean"), "{told:?}");
    }
}

#[test]
fn an_alias_that_is_no_regular_expression_of_ours_is_left_out_and_the_rest_is_in_use() {
    let nginx = nginx(&[("server-alias", "~^www\\d+\\.example\\.com$, b.example.com, ~^(?!www).*$")]);

    let found = nginx.aliases.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found, ["~^www\\d+\\.example\\.com$", "b.example.com"]);
    assert!(nginx.aliases[0].contains("www12.example.com") && !nginx.aliases[0].contains("www.example.com"));
    let told: Vec<_> =
        nginx.notes.iter().map(|(severity, _, message)| (severity, message.to_owned())).collect();
    assert!(
        told[0].0 == Severity::Warning && told[0].1.contains("is not an RE2 regular expression"),
        "{told:?}"
    );
}

#[test]
fn a_misspelt_annotation_is_told_which_one_was_meant_and_those_of_other_tools_are_not_ours() {
    let misspelt = nginx(&[("rewrite-targt", "/")]);
    let told: Vec<_> = misspelt.notes.iter().map(|(.., message)| message.to_owned()).collect();
    assert!(told[0].contains("did you mean nginx.ingress.kubernetes.io/rewrite-target?"), "{told:?}");

    let text = document(&[("use-regex", "false")], &[("Prefix", "/")]);
    let text = text
        .replace("  annotations:\n", "  annotations:\n    cert-manager.io/issuer: a\n    haproxy.org/x: b\n");
    let spec = spec(&text);
    let told: Vec<_> = spec.nginx.notes.iter().map(|(_, field, _)| field.to_owned()).collect();
    assert_eq!(told, ["metadata.annotations[haproxy.org/x]"]);
}

#[test]
fn every_annotation_that_is_acted_on_is_read() {
    let read = nginx(&[
        ("ssl-redirect", "false"),
        ("force-ssl-redirect", "true"),
        ("backend-protocol", "grpc"),
        ("proxy-connect-timeout", "5"),
        ("proxy-read-timeout", "60"),
        ("proxy-body-size", "8m"),
        ("upstream-vhost", "inner.example.com:8080"),
        ("server-alias", "b.example.com, *.c.example.com"),
        ("app-root", "/app"),
    ]);

    assert!(!read.ssl_redirect && read.force_ssl_redirect);
    assert_eq!(read.protocol, BackendProtocol::Grpc);
    assert_eq!(read.connect_timeout, Some(Duration::from_secs(5)));
    assert_eq!(read.read_timeout, Some(Duration::from_secs(60)));
    assert_eq!(read.body_size, Some(8 << 20));
    for (seconds, counts) in [("86401", 86_401), ("604800", 604_800), ("2147483647", 31_536_000)] {
        let read = nginx(&[("proxy-read-timeout", seconds)]).read_timeout;
        assert_eq!(read, Some(Duration::from_secs(counts)), "{seconds}");
    }
    for (size, bytes) in [("0", 0), ("100", 100), ("64K", 64 << 10), ("1g", 1 << 30)] {
        assert_eq!(nginx(&[("proxy-body-size", size)]).body_size, Some(bytes), "{size}");
    }
    assert_eq!(read.upstream_vhost.as_deref(), Some("inner.example.com:8080"));
    assert_eq!(read.aliases.len(), 2);
    assert!(matches!(read.app_root.unwrap().answer, Some(OwnAnswer::Direct(answer)) if answer.status == 302));
    assert!(nginx(&[]).ssl_redirect);
}

#[test]
fn a_mode_of_affinity_that_drains_is_the_nearest_that_there_is_and_told() {
    let of = |mode| nginx(&[("affinity", "cookie"), ("affinity-mode", mode)]);
    let drains = of("persistent-drainable");
    assert!(matches!(drains.affinity, Some(nginx::Affinity::Persistent(_))));
    let told: Vec<_> = drains.notes.iter().map(|(severity, field, _)| (severity, field.to_owned())).collect();
    assert_eq!(told, [(Severity::NotActedOn, nginx::annotation("affinity-mode"))]);
    assert!(of("persistent").notes.iter().next().is_none());
    assert!(
        error(&[("affinity", "cookie"), ("affinity-mode", "sticky")], &[("Prefix", "/")])
            .0
            .contains("not a mode")
    );
}

#[test]
fn who_may_ask_by_name_and_password_is_in_a_secret() {
    let read = |more: &[(&str, &str)]| {
        let mut all = vec![("auth-type", "basic"), ("auth-secret", "users")];
        all.extend(more);
        nginx(&all)
    };
    let file = read(&[("auth-realm", "the \"inner\" shop")]).passwords.unwrap();
    assert_eq!((file.namespace, file.secret.as_str()), (None, "users"));
    assert_eq!((file.form, file.realm.as_str()), (UserListForm::File, "the \"inner\" shop"));
    let map = nginx(&[("auth-type", "basic"), ("auth-secret", "a/b"), ("auth-secret-type", "auth-map")]);
    let map = map.passwords.unwrap();
    assert_eq!(
        (map.namespace.as_deref(), map.secret.as_str(), map.form),
        (Some("a"), "b", UserListForm::Map)
    );
    assert_eq!(nginx(&[]).passwords, None);

    for (annotations, field) in [
        (&[("auth-type", "digest"), ("auth-secret", "users")][..], "auth-type"),
        (&[("auth-type", "basic")], "auth-type"),
        (&[("auth-secret", "users")], "auth-secret"),
        (&[("auth-type", "basic"), ("auth-secret", "a/b/c")], "auth-secret"),
        (&[("auth-type", "basic"), ("auth-secret", "a/")], "auth-secret"),
        (&[("auth-type", "basic"), ("auth-secret", "a"), ("auth-secret-type", "x")], "auth-secret-type"),
        (&[("auth-type", "basic"), ("auth-secret", "a"), ("auth-realm", "for $host")], "auth-realm"),
        (&[("auth-type", "basic"), ("auth-secret", "a"), ("auth-realm", "Läden")], "auth-realm"),
    ] {
        let (told, _) = error(annotations, &[("Prefix", "/")]);
        assert!(told.starts_with(&nginx::annotation(field)), "{annotations:?}: {told}");
    }
    // What keeps nobody out by itself refuses nothing.
    let alone = nginx(&[("auth-realm", "x")]);
    let told: Vec<_> = alone.notes.iter().map(|(severity, ..)| severity).collect();
    assert_eq!((told, alone.passwords), (vec![Severity::Warning], None));
}

#[test]
fn who_may_ask_is_said_by_address() {
    let sources =
        nginx(&[("whitelist-source-range", "10.0.0.0/8, ::1"), ("denylist-source-range", "10.1.0.0/16")]);
    let sources = sources.sources.unwrap();
    for (address, may) in [("10.2.0.1", true), ("10.1.0.1", false), ("192.0.2.1", false), ("::1", true)] {
        assert_eq!(sources.may_ask(address.parse().unwrap()), may, "{address}");
    }
    assert_eq!(nginx(&[]).sources, None);
}

#[test]
fn a_redirect_says_its_url_as_it_is_or_with_the_requests_path() {
    let fixed =
        nginx(&[("permanent-redirect", "https://a.example/x?y=z"), ("permanent-redirect-code", "308")]);
    let fixed = fixed.answer.unwrap();
    assert!(matches!(&fixed.answer, Some(OwnAnswer::Direct(answer)) if answer.status == 308));
    assert_eq!(fixed.response_headers.set[0].value.to_string(), "https://a.example/x?y=z");

    let same =
        nginx(&[("temporal-redirect", "https://a.example:8443$request_uri"), ("permanent-redirect", "/x")]);
    match same.answer.unwrap().answer {
        Some(OwnAnswer::Redirect(redirect)) => {
            assert_eq!((redirect.status, redirect.path), (302, None));
            assert_eq!(redirect.host.as_deref(), Some("a.example:8443"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_of_any_origin_never_gets_what_needs_credentials() {
    let any = nginx(&[("enable-cors", "true")]).cors.unwrap();
    assert_eq!(any.allow_origins, [OriginMatch::Any]);
    assert!(!any.allow_credentials);
    assert!(
        any.allow_methods.contains(&"PATCH".to_owned())
            && any.max_age == Some(Duration::from_secs(1_728_000))
    );

    let some = [("enable-cors", "true"), ("cors-allow-origin", "https://*.a.example, https://b.example")];
    let some = nginx(&some).cors.unwrap();
    assert!(some.allow_credentials);
    let OriginMatch::Regex(regex) = &some.allow_origins[0] else { panic!("{some:?}") };
    assert!(regex.is_match("https://x.a.example") && !regex.is_match("https://x.a.example.evil"));
    assert!(!regex.is_match("https://a.example") && !regex.is_match("https://xa.example"));
    assert!(!regex.is_match("https://y.x.a.example"), "a wildcard is one label");
    let null = nginx(&[("enable-cors", "true"), ("cors-allow-origin", "null")]).cors.unwrap();
    assert_eq!(null.allow_origins, [OriginMatch::Exact("null".to_owned())]);
    assert_eq!(nginx(&[("cors-allow-origin", "*")]).cors, None);
}

#[test]
fn a_canary_asks_its_header_its_cookie_and_then_chance() {
    let canary = nginx(&[("canary", "true"), ("canary-by-header", "X-Canary"), ("canary-weight", "20")]);
    let canary = canary.canary.unwrap();
    assert_eq!((canary.weight, canary.total), (20, 100));
    let header = canary.header.unwrap();
    assert_eq!(header.name, "x-canary".parse::<HeaderField>().unwrap());
    assert!(header.wanted.always.is_match("always") && header.wanted.never.unwrap().is_match("never"));

    let of = |more: &[(&str, &str)]| {
        let all = [&[("canary", "true"), ("canary-by-header", "x")], more].concat();
        nginx(&all).canary.unwrap().header.unwrap().wanted
    };
    let by_value = of(&[("canary-by-header-value", "de"), ("canary-by-header-pattern", "fr")]);
    assert!(by_value.always.is_match("de") && by_value.never.is_none() && !by_value.always.is_match("fr"));
    assert!(of(&[("canary-by-header-pattern", "^fr|it")]).always.is_match("made in italy"));

    let cookie = nginx(&[("canary", "true"), ("canary-by-cookie", "blue")]).canary.unwrap().cookie.unwrap();
    for (crumbs, is_always) in [
        ("blue=always", true),
        ("a=b; blue=always; c=d", true),
        ("a=b;Blue=always", true),
        ("blue=alwaysx", false),
        ("notblue=always", false),
        ("a=blue=always", false),
    ] {
        assert_eq!(cookie.wanted.always.is_match(crumbs), is_always, "{crumbs}");
    }
    assert!(cookie.wanted.never.unwrap().is_match("blue=never; x=y"));
}

#[test]
fn a_class_is_named_by_the_field_or_by_the_old_annotation() {
    let base = document(&[], &[("Prefix", "/")]);
    let field = spec(&base.replace("spec:\n", "spec:\n  ingressClassName: web\n")).class;
    assert_eq!(field, Some(("web".to_owned(), "spec.ingressClassName")));
    let old = base.replace("name: web\n", "name: web\n  annotations: {kubernetes.io/ingress.class: nginx}\n");
    assert_eq!(spec(&old).class.unwrap().0, "nginx");
    assert_eq!(spec(&base).class, None);
}

#[test]
fn a_class_is_ours_by_its_controller() {
    let class = |controller: &str, default: &str| {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata:\n  name: web\n  annotations:\n    \
             ingressclass.kubernetes.io/is-default-class: '{default}'\nspec: {{controller: {controller}, parameters: {{kind: A}}}}"
        );
        let decoded = decoded(&text);
        match &decoded.outcome {
            DecodeOutcome::Understood(Resource::IngressClass(class)) => {
                (class.spec.clone(), decoded.problems.len())
            }
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(
        class("selvedge.io/ingress", "true"),
        (IngressClassSpec { is_ours: true, is_default: true }, 1)
    );
    assert_eq!(
        class("k8s.io/ingress-nginx", "false"),
        (IngressClassSpec { is_ours: false, is_default: false }, 0)
    );
}
