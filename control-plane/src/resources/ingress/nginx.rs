//! The annotations of nginx's controller (`nginx.ingress.kubernetes.io/…`), as far as they are acted on.
//!
//! They mean here what they mean there (<https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/>).
//! One that is not acted on is reported. If it would have kept somebody out, its `Ingress` answers nobody: what was
//! protected is not opened by being moved here.

mod affinity;
mod answers;
mod auth;
mod canary;
mod cors;
mod limits;
mod notes;
mod snippet;
mod sources;
mod unknown;

use std::{collections::BTreeMap, time::Duration};

use selvedge_model::{
    Filters,
    filter::{Cors, HeaderText, LocationPiece, OwnAnswer, Sources},
    gateway::{HostPattern, Hostname, HostnameError},
    limit::Limit,
};

pub(crate) use self::auth::{KIND as AUTH_TYPE, SECRET as AUTH_SECRET};
pub use self::{
    affinity::Affinity,
    auth::Passwords,
    canary::{Canary, CanaryHeader, Wanted},
    notes::Notes,
};
use super::super::document::Metadata;

/// What all of them begin with.
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

pub(super) const REWRITE_TARGET: &str = "rewrite-target";

/// Whether TLS goes on to backends as it is.
pub(crate) const SSL_PASSTHROUGH: &str = "ssl-passthrough";

/// What the annotations of an `Ingress` ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Nginx {
    /// What is to be said of them.
    pub notes: Notes,
    /// Why nobody is answered: an annotation that would have kept somebody out is not acted on.
    pub refuses: Option<String>,
    /// `rewrite-target`: what paths become.
    pub rewrite_target: Option<String>,
    /// `use-regex`: whether paths are regular expressions.
    pub use_regex: bool,
    /// `ssl-redirect`: whether plaintext is sent to TLS where there is a certificate. By default it is.
    pub ssl_redirect: bool,
    /// `force-ssl-redirect`: the same, without a certificate too.
    pub force_ssl_redirect: bool,
    /// `ssl-passthrough`: whether TLS of its hosts goes on to their backends as it is.
    pub ssl_passthrough: bool,
    /// `permanent-redirect` and `temporal-redirect`: what all requests are answered.
    pub answer: Option<Filters>,
    /// `app-root`: where requests for `/` are sent.
    pub app_root: Option<Filters>,
    /// `backend-protocol`: what the backends speak.
    pub protocol: BackendProtocol,
    /// `proxy-connect-timeout`.
    pub connect_timeout: Option<Duration>,
    /// `proxy-read-timeout`: how long nothing may come from a backend.
    pub read_timeout: Option<Duration>,
    /// `whitelist-source-range` and `denylist-source-range`: who may ask, by address. `None`: all.
    pub sources: Option<Sources>,
    /// `proxy-body-size`: the longest body of a request, in bytes. 0: no limit. `None`: what holds for the gateway.
    pub body_size: Option<u64>,
    /// `limit-rps`, `limit-rpm` and their options.
    pub limits: Vec<Limit>,
    /// `enable-cors` and its options.
    pub cors: Option<Cors>,
    /// `upstream-vhost`: the authority that backends are asked for.
    pub upstream_vhost: Option<String>,
    /// `x-forwarded-prefix`: what apps are told in the header of that name, of paths that are rewritten.
    pub forwarded_prefix: Option<HeaderText>,
    /// `server-alias`: other names of its hosts.
    pub aliases: Vec<Hostname>,
    /// `canary` and its options.
    pub canary: Option<Canary>,
    /// `auth-type: basic` and its options: who may ask, by name and password. `None`: all.
    pub passwords: Option<Passwords>,
    /// `affinity` and its options.
    pub affinity: Option<Affinity>,
}

/// What backends speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    /// What their Service says.
    #[default]
    AsDeclared,
    /// HTTP/2 in plaintext, as gRPC needs.
    Grpc,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 over TLS.
    Grpcs,
}

impl Nginx {
    /// Whether a query of `rewrite-target` stands before the request's own: as in nginx, unless it ends in a question mark.
    pub fn adds_query(&self) -> bool {
        self.rewrite_target.as_ref().is_some_and(|target| target.contains('?') && !target.ends_with('?'))
    }

    /// The greatest group of the path that its redirect names.
    pub(super) fn redirect_group(&self) -> Option<u8> {
        let Some(OwnAnswer::Redirect(redirect)) = &self.answer.as_ref()?.answer else { return None };
        let groups = redirect.pieces.iter().filter_map(|piece| match piece {
            LocationPiece::Group(group) => Some(*group),
            _ => None,
        });
        groups.max()
    }

    /// Whether a path that is not `Exact` is a regular expression; one that `looks_like_one` is, if it is rewritten.
    pub(super) fn reads_as_regex(&self, looks_like_one: bool) -> bool {
        self.use_regex || looks_like_one && self.rewrite_target.is_some()
    }
}

/// The field of the annotation `name`.
pub(crate) fn annotation(name: &str) -> String {
    format!("metadata.annotations[{PREFIX}{name}]")
}

/// The annotations while they are read.
struct Annotations<'a> {
    all: &'a BTreeMap<String, String>,
    notes: &'a mut Notes,
}

/// What `metadata` asks for. What is wrong with it is noted.
pub(super) fn read(metadata: &Metadata, notes: &mut Notes) -> Nginx {
    let mut annotations = Annotations { all: &metadata.annotations, notes };
    let mut nginx = Nginx {
        use_regex: annotations.flag("use-regex", false),
        ssl_redirect: annotations.flag("ssl-redirect", true),
        force_ssl_redirect: annotations.flag("force-ssl-redirect", false),
        ssl_passthrough: annotations.flag(SSL_PASSTHROUGH, false),
        connect_timeout: annotations.seconds("proxy-connect-timeout"),
        read_timeout: annotations.seconds("proxy-read-timeout"),
        rewrite_target: annotations.rewrite_target(),
        body_size: annotations.size("proxy-body-size"),
        protocol: annotations.protocol(),
        upstream_vhost: annotations.authority("upstream-vhost"),
        forwarded_prefix: annotations.header("x-forwarded-prefix"),
        aliases: annotations.aliases(),
        ..Nginx::default()
    };
    nginx.answer = answers::redirect(&mut annotations);
    nginx.app_root = answers::app_root(&mut annotations);
    nginx.sources = sources::read(&mut annotations);
    nginx.limits = limits::read(&mut annotations);
    nginx.cors = cors::read(&mut annotations);
    nginx.canary = canary::read(&mut annotations);
    nginx.affinity = affinity::read(&mut annotations);
    nginx.passwords = auth::read(&mut annotations);
    nginx.refuses = unknown::report(metadata, annotations.notes);
    nginx
}

impl<'a> Annotations<'a> {
    /// What the annotation `name` says, if it is there and says anything.
    fn text(&self, name: &str) -> Option<&'a str> {
        debug_assert!(unknown::ACTED_ON.contains(&name), "{name} is read, and reported as not acted on");
        let text = self.all.get(&format!("{PREFIX}{name}"))?.trim();
        Some(text).filter(|text| !text.is_empty())
    }

    fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.notes.error(annotation(name), message);
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.text(name) {
            None => default,
            Some("true" | "True" | "TRUE" | "t" | "T" | "1") => true,
            Some("false" | "False" | "FALSE" | "f" | "F" | "0") => false,
            Some(text) => {
                self.wrong(name, format!("{text:?} is neither true nor false"));
                default
            }
        }
    }

    /// A number of `least` to `most`.
    fn number(&mut self, name: &str, what: &str, least: u32, most: u32) -> Option<u32> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(name, format!("{text:?} is not {what}; write {least} to {most}"));
        }
        number
    }

    /// Many who want no limit write the largest number that there is: what is longer than a year counts as one.
    fn seconds(&mut self, name: &str) -> Option<Duration> {
        const YEAR: u32 = 365 * 86_400;
        const LARGEST: u32 = i32::MAX.unsigned_abs();
        let seconds = self.number(name, "a number of seconds", 1, LARGEST)?;
        Some(Duration::from_secs(seconds.min(YEAR).into()))
    }

    /// A number of bytes, as nginx writes it: with `k`, `m` or `g` behind it, those of 1024 (its guide, "Configuration file
    /// measurement units").
    fn size(&mut self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
            Some(b'k') => (&text[..text.len() - 1], 10),
            Some(b'm') => (&text[..text.len() - 1], 20),
            Some(b'g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let number = digits.parse::<u64>().ok().filter(|_| is_number);
        let bytes = number.and_then(|number| number.checked_mul(1 << shift));
        if bytes.is_none() {
            self.wrong(
                name,
                format!("{text:?} is not a number of bytes; write for example 8m, 512k, or 0 for no limit"),
            );
        }
        bytes
    }

    fn rewrite_target(&mut self) -> Option<String> {
        let target = self.text(REWRITE_TARGET)?;
        if !target.starts_with('/') && !target.starts_with('$') {
            self.wrong(REWRITE_TARGET, format!("{target:?} is not a path; begin it with /"));
            return None;
        }
        if target.contains('#') {
            self.wrong(REWRITE_TARGET, format!("{target:?} has a #, which no request has; remove it"));
            return None;
        }
        Some(target.to_owned())
    }

    fn protocol(&mut self) -> BackendProtocol {
        const NAME: &str = "backend-protocol";
        match self.text(NAME).map(str::to_ascii_uppercase).as_deref() {
            None | Some("HTTP" | "AUTO_HTTP") => BackendProtocol::AsDeclared,
            Some("GRPC") => BackendProtocol::Grpc,
            Some("HTTPS") => BackendProtocol::Https,
            Some("GRPCS") => BackendProtocol::Grpcs,
            Some(other) => {
                self.wrong(NAME, format!("{other} is not acted on; write HTTP, HTTPS, GRPC or GRPCS"));
                BackendProtocol::AsDeclared
            }
        }
    }

    /// A host, with or without a port.
    fn authority(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let is_one = text.parse::<http::uri::Authority>().is_ok() && !text.contains(['@', '$']);
        if !is_one {
            self.wrong(name, format!("{text:?} is not a host; write for example shop.example.com"));
        }
        is_one.then(|| text.to_owned())
    }

    /// A value of a header, in which nothing of the request stands.
    fn header(&mut self, name: &str) -> Option<HeaderText> {
        let text = self.text(name)?;
        let read = HeaderText::literal(text).ok().filter(|_| !text.contains('$'));
        if read.is_none() {
            let message =
                format!("{text:?} is not acted on; write letters that a header may hold, without variables");
            self.notes.warning(annotation(name), message);
        }
        read
    }

    fn aliases(&mut self) -> Vec<Hostname> {
        const NAME: &str = "server-alias";
        let mut aliases = Vec::new();
        for alias in self.text(NAME).unwrap_or_default().split(',').map(str::trim) {
            if alias.is_empty() {
                continue;
            }
            if let Some(pattern) = alias.strip_prefix('~') {
                match HostPattern::new(pattern) {
                    Ok(pattern) => aliases.push(Hostname::Like(pattern)),
                    Err(error) => {
                        let message = format!(
                            "{alias:?} is not an RE2 regular expression that can be used ({error}), so the hosts that it means \
                             have no routes here; write another, each name, or a wildcard such as *.example.com. All else is \
                             in use"
                        );
                        self.notes.warning(annotation(NAME), message);
                    }
                }
                continue;
            }
            match Hostname::of_ingress(alias).and_then(|read| match read {
                Hostname::Any => Err(HostnameError),
                read => Ok(read),
            }) {
                Ok(alias) => aliases.push(alias),
                Err(HostnameError) => {
                    let message = format!("{alias:?} is not a host; write DNS names separated by commas");
                    self.wrong(NAME, message);
                }
            }
        }
        aliases
    }
}
