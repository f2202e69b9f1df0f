//! Annotations that are not acted on, and what that means for those whom they would have kept out.

use super::{
    super::super::{document::Metadata, nearest::nearest},
    Notes, PREFIX, annotation, snippet,
};

/// Those that are acted on. What is not here cannot be [read](super::Annotations::text).
pub(super) const ACTED_ON: &[&str] = &[
    "affinity",
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-realm",
    "auth-secret",
    "auth-secret-type",
    "auth-type",
    "backend-protocol",
    "canary",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "canary-weight",
    "canary-weight-total",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "denylist-source-range",
    "enable-cors",
    "force-ssl-redirect",
    "limit-allowlist",
    "limit-burst-multiplier",
    "limit-rpm",
    "limit-rps",
    "limit-whitelist",
    "permanent-redirect",
    "permanent-redirect-code",
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "rewrite-target",
    "server-alias",
    "session-cookie-change-on-failure",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
    "ssl-passthrough",
    "ssl-redirect",
    "temporal-redirect",
    "temporal-redirect-code",
    "upstream-vhost",
    "use-regex",
    "whitelist-source-range",
    "x-forwarded-prefix",
];

/// Beginnings of those that keep somebody out.
const KEEP_OUT: &[&str] = &[
    "auth-",
    "enable-global-auth",
    "enable-modsecurity",
    "enable-owasp-core-rules",
    "modsecurity-",
    "satisfy",
];

/// Those that hold nginx's own language.
const SNIPPETS: &[&str] = &["configuration-snippet", "server-snippet", "auth-snippet", "stream-snippet"];

/// Beginnings of others that nginx's controller knows, and what to write instead. Of several that fit, the first counts.
/// They are never taken for misspelt ones.
const INSTEAD: &[(&str, &str)] = &[
    ("auth-tls-", "ask clients for certificates at a Gateway (tls.frontend) with an HTTPRoute"),
    (
        "auth-",
        "no other service is asked about requests: verify tokens with a RequestAuthentication and an AuthorizationPolicy, \
         or let what auth-url names stand before the app, as oauth2-proxy can (--upstream)",
    ),
    ("satisfy", "addresses and passwords are both asked for: keep the one that is to count"),
    ("enable-modsecurity", NO_FIREWALL),
    ("enable-owasp-core-rules", NO_FIREWALL),
    ("modsecurity-", NO_FIREWALL),
    ("configuration-snippet", NO_SNIPPETS),
    ("server-snippet", NO_SNIPPETS),
    ("stream-snippet", NO_SNIPPETS),
    ("ssl-ciphers", SAFE_CIPHERS),
    ("ssl-prefer-server-ciphers", SAFE_CIPHERS),
    ("proxy-buffer", NO_BUFFERS),
    ("proxy-busy-buffers-size", NO_BUFFERS),
    ("proxy-request-buffering", NO_BUFFERS),
    ("proxy-max-temp-file-size", NO_BUFFERS),
    ("client-body-buffer-size", NO_BUFFERS),
    ("proxy-send-timeout", "proxy-read-timeout is for both directions; remove it"),
    ("proxy-next-upstream", "retry with an HTTPRoute (retry) or a VirtualService (retries)"),
    ("proxy-ssl-", "say it with a BackendTLSPolicy or a DestinationRule (trafficPolicy.tls)"),
    (
        "proxy-http-version",
        "the app gets HTTP/2 if its port says so (appProtocol: kubernetes.io/h2c); remove it",
    ),
    ("proxy-cookie-", "cookies of the app are passed on as they are"),
    ("proxy-redirect-", "redirects of the app are passed on as they are"),
    ("upstream-hash-by", "say it with a DestinationRule (trafficPolicy.loadBalancer.consistentHash)"),
    ("load-balance", "say it with a DestinationRule (trafficPolicy.loadBalancer)"),
    ("service-upstream", "endpoints are called, as routes and balancing say; remove it"),
    ("mirror-", "copy requests with an HTTPRoute (RequestMirror)"),
    ("limit-connections", "limit them with --max-connections-per-client of the gateway"),
    ("limit-rate", "how fast an answer is sent is not limited"),
    ("from-to-www-redirect", "redirect the other host with an HTTPRoute (RequestRedirect)"),
    ("custom-http-errors", ANSWERS_AS_THEY_ARE),
    ("default-backend", ANSWERS_AS_THEY_ARE),
    ("custom-headers", "set headers with an HTTPRoute (ResponseHeaderModifier)"),
    ("connection-proxy-header", "connections to apps are kept open; remove it"),
    ("http2-push-preload", "browsers take no pushed answers any more; remove it"),
    (
        "enable-access-log",
        "the access log is for the whole gateway: config.selvedge.io/access-log on its workload, or a Telemetry",
    ),
    ("enable-rewrite-log", "what is logged is for the whole gateway (config.selvedge.io/log-level)"),
    ("preserve-trailing-slash", "a redirect goes to the path as it is written; remove it"),
    ("session-cookie-hash", "the cookie tells nothing of its endpoint; remove it"),
    (
        "session-cookie-conditional-samesite-none",
        "SameSite is as session-cookie-samesite says, for every browser; remove it",
    ),
    ("secure-backends", "nginx's controller knows it no longer; write backend-protocol: HTTPS"),
    ("grpc-backend", "nginx's controller knows it no longer; write backend-protocol: GRPC"),
    ("add-base-url", "nginx's controller knows it no longer; remove it"),
    ("use-port-in-redirects", "redirects name the port that is served; remove it"),
];

const NO_FIREWALL: &str =
    "there is no web application firewall: let one stand behind the gateway, or write an AuthorizationPolicy";
const NO_SNIPPETS: &str =
    "nginx's own language is not run: write other annotations, or filters of an HTTPRoute";
const SAFE_CIPHERS: &str = "TLS 1.3, and 1.2 with ciphers that are safe, is spoken; remove it";
const NO_BUFFERS: &str = "bodies are passed on as they come and never stored; remove it";
const ANSWERS_AS_THEY_ARE: &str = "answers of the app are passed on as they are";

/// What to write instead of the annotation `name`, if nginx's controller knows it.
fn instead(name: &str) -> Option<&'static str> {
    INSTEAD.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, instead)| *instead)
}

/// Annotations of tools that make certificates and names for an `Ingress`, and act on it themselves.
const OTHERS: &[&str] = &[
    "acme.cert-manager.io/",
    "cert-manager.io/",
    "external-dns.alpha.kubernetes.io/",
    "field.cattle.io/",
    "kubernetes.io/tls-acme",
];

/// How an `Ingress` names its class.
const CLASS: &[&str] = &[super::super::CLASS_ANNOTATION];

/// Notes those of `metadata` that are not acted on. Says why nobody can be answered, if so.
pub(super) fn report(metadata: &Metadata, notes: &mut Notes) -> Option<String> {
    let mut refuses = None;
    for key in metadata.annotations_not_acted_on(&[CLASS]) {
        let Some(name) = key.strip_prefix(PREFIX) else {
            if !OTHERS.iter().any(|other| key.starts_with(other)) {
                notes.not_acted_on(format!("metadata.annotations[{key}]"), "not acted on");
            }
            continue;
        };
        if ACTED_ON.contains(&name) {
            continue;
        }
        let text = metadata.annotations.get(key).map(String::as_str).unwrap_or_default();
        if keeps_out(name, text) {
            let instead =
                instead(name).unwrap_or("write an AuthorizationPolicy or RequestAuthentication for it");
            let message = format!(
                "is not acted on, and would have kept somebody out, so all requests to this Ingress are answered 500 \
                 until it is removed; {instead}"
            );
            notes.warning(annotation(name), message);
            refuses.get_or_insert_with(|| format!("{PREFIX}{name} is not acted on"));
            continue;
        }
        let misspelt = || {
            let meant = nearest(name, ACTED_ON.iter().copied())?;
            Some(format!("did you mean {PREFIX}{meant}?"))
        };
        let message = match instead(name).map(str::to_owned).or_else(misspelt) {
            Some(remedy) => format!("not acted on; {remedy}"),
            None => "not acted on".to_owned(),
        };
        notes.not_acted_on(annotation(name), message);
    }
    refuses
}

/// Whether the annotation `name`, which says `text`, may keep somebody out.
fn keeps_out(name: &str, text: &str) -> bool {
    if SNIPPETS.contains(&name) {
        return snippet::keeps_out(text);
    }
    let is_on = !matches!(text.trim(), "" | "false" | "off");
    is_on && KEEP_OUT.iter().any(|beginning| name.starts_with(beginning))
}
