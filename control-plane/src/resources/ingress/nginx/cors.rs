//! `enable-cors` and its options.

use std::time::Duration;

use http::{HeaderName, Method};
use selvedge_model::{
    FullRegex,
    filter::{Cors, OriginMatch, UnmatchedPreflights},
};

use super::Annotations;

/// What is said where the options say nothing.
const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const MAX_AGE: u32 = 1_728_000;

/// What pages of other origins may ask.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Option<Cors> {
    if !annotations.flag("enable-cors", false) {
        return None;
    }
    let allow_origins = origins(annotations);
    let credentials = annotations.flag("cors-allow-credentials", true);
    let is_said = annotations.text("cors-allow-credentials").is_some();
    // nginx says `*` then, for which no browser sends credentials. To name each origin would let all of them in.
    let is_for_any = allow_origins.contains(&OriginMatch::Any);
    if is_for_any && credentials && is_said {
        let message = "has no effect where any origin may call, as in every browser; write the origins in \
                       cors-allow-origin";
        annotations.notes.warning(super::annotation("cors-allow-credentials"), message);
    }
    Some(Cors {
        allow_origins,
        allow_methods: words(annotations, "cors-allow-methods", METHODS, "method", |word| {
            word.parse::<Method>().is_ok()
        }),
        allow_headers: words(annotations, "cors-allow-headers", HEADERS, "header", is_header),
        expose_headers: words(annotations, "cors-expose-headers", "", "header", is_header),
        max_age: Some(Duration::from_secs(
            annotations.number("cors-max-age", "a number of seconds", 0, u32::MAX).unwrap_or(MAX_AGE).into(),
        )),
        allow_credentials: credentials && !is_for_any,
        unmatched_preflights: UnmatchedPreflights::Forward,
    })
}

fn is_header(word: &str) -> bool {
    HeaderName::from_bytes(word.as_bytes()).is_ok()
}

/// The words of the list `name`.
fn words(
    annotations: &mut Annotations<'_>,
    name: &str,
    default: &str,
    what: &str,
    is_one: fn(&str) -> bool,
) -> Vec<String> {
    let text = annotations.text(name).unwrap_or(default);
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if let Some(word) = words.iter().find(|word| **word != "*" && !is_one(word)) {
        annotations.wrong(name, format!("{word:?} is not a {what}; separate them by commas"));
    }
    words.into_iter().map(str::to_owned).collect()
}

/// `*`, or origins in which `*.` stands for one label, as in nginx.
fn origins(annotations: &mut Annotations<'_>) -> Vec<OriginMatch> {
    const NAME: &str = "cors-allow-origin";
    let text = annotations.text(NAME).unwrap_or("*");
    let mut origins = Vec::new();
    for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
        match read_origin(origin) {
            Some(origin) => origins.push(origin),
            None => {
                let message = format!(
                    "{origin:?} is not an origin; write for example https://example.com, https://*.example.com or *"
                );
                annotations.wrong(NAME, message);
            }
        }
    }
    origins
}

fn read_origin(origin: &str) -> Option<OriginMatch> {
    if origin == "*" {
        return Some(OriginMatch::Any);
    }
    // What browsers call pages of files and of sandboxes.
    if origin == "null" {
        return Some(OriginMatch::Exact(origin.to_owned()));
    }
    let (scheme, host) = origin.split_once("://")?;
    if scheme.is_empty() || host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return None;
    }
    let Some(below) = host.strip_prefix("*.") else {
        return (!host.contains('*')).then(|| OriginMatch::Exact(origin.to_owned()));
    };
    if below.contains('*') {
        return None;
    }
    let pattern = format!("(?i){}://[a-z0-9-]+\\.{}", regex::escape(scheme), regex::escape(below));
    FullRegex::new(&pattern).ok().map(OriginMatch::Regex)
}
