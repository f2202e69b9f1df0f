//! Fields in which proxies tell servers and apps of clients: their addresses, what they asked for, and who they are. Whoever
//! comes to a gateway from outside could write them, so none of them passes it; some a gateway writes itself.
//!
//! A name counts in every spelling that an app may take for it, as in [`super::reserved`].

use http::HeaderName;

use super::{remove_all, reserved::reads_as};

/// Where a client's address is told, by whom it is usually.
const ADDRESSES: [&str; 21] = [
    "cf-connecting-ip",          // Cloudflare
    "cf-connecting-ipv6",        // Cloudflare
    "client-ip",                 // PHP reads it as HTTP_CLIENT_IP
    "do-connecting-ip",          // DigitalOcean
    "fastly-client-ip",          // Fastly
    "fly-client-ip",             // Fly.io
    "forwarded",                 // RFC 7239
    "proxy-client-ip",           // WebLogic
    "remote-addr",               // CGI's own variable, under servers that turn fields into variables
    "true-client-ip",            // Akamai, Cloudflare
    "wl-proxy-client-ip",        // WebLogic
    "x-appengine-user-ip",       // Google App Engine
    "x-azure-clientip",          // Azure Front Door
    "x-azure-socketip",          // Azure Front Door
    "x-client-ip",               // Apache's mod_remoteip and others
    "x-cluster-client-ip",       // Rackspace, Riverbed
    "x-nf-client-connection-ip", // Netlify
    "x-originating-ip",          // mail gateways
    "x-real-ip",                 // nginx
    "x-remote-addr",             // various
    "x-remote-ip",               // various
];

/// Where it is told what a client asked for before somebody changed it. Apps that believe it can be led past rules for paths
/// and hosts. `proxy` becomes the variable HTTP_PROXY under CGI, which decides where an app's own requests go.
const TARGETS: [&str; 13] = [
    "front-end-https",
    "https",
    "proxy",
    "script-name",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
];

/// Where it is told who a client is, by its certificate or otherwise, and a request's id.
const IDENTITIES: [&str; 13] = [
    "auth-user",
    "client-cert",       // RFC 9440
    "client-cert-chain", // RFC 9440
    "remote-user",
    "x-arr-clientcert", // Azure App Service
    "x-client-cert",
    "x-goog-authenticated-user-email",
    "x-goog-authenticated-user-id",
    "x-goog-iap-jwt-assertion",
    "x-real-user",
    "x-remote-user",
    "x-request-id",
    "x-webauth-user", // Grafana
];

/// What says where a body ends. In another spelling than its own (`transfer_encoding`) it means nothing
/// here, and may mean that to an app, which would then read another request.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// How more of them begin.
const BEGINNINGS: [&str; 9] = [
    "ssl-client-", // nginx's Ingress controller
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authenticated-",
    "x-envoy-",
    "x-forwarded",
    "x-ms-client-principal",
    "x-original-forwarded-",
    "x-ssl-",
];

/// All that are compared whole.
const WHOLE: [&str; ADDRESSES.len() + TARGETS.len() + IDENTITIES.len()] = {
    let mut all = [""; ADDRESSES.len() + TARGETS.len() + IDENTITIES.len()];
    let mut place = 0;
    while place < all.len() {
        let (targets, identities) = (ADDRESSES.len(), ADDRESSES.len() + TARGETS.len());
        all[place] = if place < targets {
            ADDRESSES[place]
        } else if place < identities {
            TARGETS[place - targets]
        } else {
            IDENTITIES[place - identities]
        };
        place += 1;
    }
    all
};

/// Which of [`WHOLE`] have a name of this length, a bit for each: a usual field is compared with one or two of them.
const OF_LENGTH: [u64; 32] = {
    assert!(WHOLE.len() <= u64::BITS as usize);
    let mut all = [0; 32];
    let mut place = 0;
    while place < WHOLE.len() {
        all[WHOLE[place].len()] |= 1 << place;
        place += 1;
    }
    all
};

/// Whether `name` may be taken for one that is compared whole.
fn is_whole_claim(name: &[u8]) -> bool {
    let mut those = OF_LENGTH.get(name.len()).copied().unwrap_or_default();
    while those != 0 {
        if reads_as(name, WHOLE[those.trailing_zeros() as usize].as_bytes()) {
            return true;
        }
        those &= those - 1;
    }
    false
}

/// Whether an app may take a field of this name for one that proxies write.
pub fn is_claim(name: &str) -> bool {
    let name = name.as_bytes();
    // Few fields of a usual request begin so.
    if !matches!(
        name.first(),
        Some(b'a' | b'c' | b'd' | b'f' | b'h' | b'p' | b'r' | b's' | b't' | b'w' | b'x')
    ) {
        return false;
    }
    let is = |ours: &&str| name.len() == ours.len() && reads_as(name, ours.as_bytes());
    let begins = |ours: &&str| name.get(..ours.len()).is_some_and(|start| reads_as(start, ours.as_bytes()));
    is_whole_claim(name)
        || matches!(name.first(), Some(b's' | b'x')) && BEGINNINGS.iter().any(begins)
        || FRAMING.iter().any(|ours| is(ours) && name != ours.as_bytes())
}

/// Removes them from a request's trailers: some servers read those as they read headers.
pub fn strip_trailers(trailers: &mut http::HeaderMap) {
    remove_all(trailers, |name: &&HeaderName| is_claim(name.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_lists_is_a_claim_and_so_is_what_begins_as_one() {
        for name in ADDRESSES.iter().chain(&TARGETS).chain(&IDENTITIES) {
            assert!(is_claim(name) && is_claim(&name.replace('-', "_")), "{name}");
            assert!(!is_claim(&format!("q{name}")) && !is_claim(&format!("{name}q")), "{name}");
        }
        for begin in BEGINNINGS {
            assert!(is_claim(&format!("{begin}anything")), "{begin}");
        }
    }

    #[test]
    fn a_claim_is_one_in_every_spelling() {
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_proto",
            "x-forwarded",
            "x.real.ip",
            "true_client_ip",
            "cf-connecting-ip",
            "client_ip",
            "x-original-url",
            "x_rewrite_url",
            "x-original-forwarded-for",
            "x-envoy-external-address",
            "x-auth-request-user",
            "remote_user",
            "proxy",
            "auth-user",
            "client-cert",
            "client_cert_chain",
            "do-connecting-ip",
            "https",
            "ssl-client-verify",
            "ssl_client_subject_dn",
            "wl-proxy-client-ip",
            "x-ssl-cert",
            "x-amzn-oidc-identity",
            "x-ms-client-principal-name",
            "content_length",
            "transfer_encoding",
            "transfer.encoding",
        ] {
            assert!(is_claim(name), "{name}");
        }
        for name in [
            "accept",
            "authorization",
            "dnt",
            "host",
            "sec-fetch-site",
            "want-digest",
            "cookie",
            "content-type",
            "content-length",
            "transfer-encoding",
            "cache-control",
            "referer",
            "te",
            "traceparent",
            "x-other",
            "x-real",
            "proxy-authorization",
            "x-requested-with",
            "x-csrf-token",
            "x-api-key",
            "forwarded-by",
            "client-ips",
            "x-b3-traceid",
            "range",
            "priority",
            "pragma",
            "trailer",
        ] {
            assert!(!is_claim(name), "{name}");
        }
    }
}
