//! Annotations that are not acted on, and what that means for those whom they would have kept out.

use super::{
    super::super::{document::Metadata, nearest::nearest},
    Notes, PREFIX, annotation,
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
    "ssl-redirect",
    "temporal-redirect",
    "temporal-redirect-code",
    "upstream-vhost",
    "use-regex",
    "whitelist-source-range",
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

/// Beginnings of those that hold nginx's own language, and words of that by which somebody is kept out.
const SNIPPETS: &[&str] = &["configuration-snippet", "server-snippet", "auth-snippet", "stream-snippet"];
const WORDS_OF_SNIPPETS: &[&str] =
    &["deny", "auth_", "satisfy", "limit_except", "return", "valid_referers", "lua"];

/// Annotations of tools that make certificates and names for an `Ingress`, and act on it themselves.
const OTHERS: &[&str] =
    &["acme.cert-manager.io/", "cert-manager.io/", "external-dns.alpha.kubernetes.io/", "field.cattle.io/"];

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
            let message = "is not acted on, and would have kept somebody out, so all requests to this Ingress are \
                           answered 500; write an AuthorizationPolicy or RequestAuthentication for it, and remove it";
            notes.warning(annotation(name), message);
            refuses.get_or_insert_with(|| format!("{PREFIX}{name} is not acted on"));
            continue;
        }
        let message = match nearest(name, ACTED_ON.iter().copied()) {
            Some(meant) => format!("not acted on; did you mean {PREFIX}{meant}?"),
            None => "not acted on".to_owned(),
        };
        notes.not_acted_on(annotation(name), message);
    }
    refuses
}

/// Whether the annotation `name`, which says `text`, may keep somebody out.
fn keeps_out(name: &str, text: &str) -> bool {
    if SNIPPETS.contains(&name) {
        return WORDS_OF_SNIPPETS.iter().any(|word| text.contains(word));
    }
    let is_on = !matches!(text.trim(), "" | "false" | "off");
    is_on && KEEP_OUT.iter().any(|beginning| name.starts_with(beginning))
}
