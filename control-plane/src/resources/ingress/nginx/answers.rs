//! Redirects: `permanent-redirect`, `temporal-redirect`, `app-root`.

use http::{Uri, header::LOCATION};
use selvedge_model::{
    Filters,
    filter::{DirectResponse, HeaderChange, HeaderChanges, HeaderText, OwnAnswer, Redirect, RedirectPort},
};

use super::Annotations;

/// What nginx puts the path and the query of the request in the place of.
const REQUEST_URI: &str = "$request_uri";

/// What all requests are answered, if it is a redirect. As in nginx, a temporal one goes before a permanent one.
pub(super) fn redirect(annotations: &mut Annotations<'_>) -> Option<Filters> {
    let temporal = of(annotations, "temporal-redirect", 302);
    let permanent = of(annotations, "permanent-redirect", 301);
    temporal.or(permanent)
}

fn of(annotations: &mut Annotations<'_>, name: &str, default: u16) -> Option<Filters> {
    let of_code = format!("{name}-code");
    let code = annotations.number(&of_code, "the status of a redirect", 300, 308);
    let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(default);
    let url = annotations.text(name)?;
    let read = match url.strip_suffix(REQUEST_URI) {
        Some(start) => to_same_path(start, code),
        None => to_fixed(url, code),
    };
    if read.is_none() {
        let message = format!(
            "{url:?} is not a URL; write for example https://shop.example.com/new, or https://shop.example.com{REQUEST_URI}"
        );
        annotations.wrong(name, message);
    }
    read
}

/// A redirect to the same path and query of another server.
fn to_same_path(start: &str, status: u16) -> Option<Filters> {
    let uri: Uri = start.parse().ok().filter(|_| !start.contains('$'))?;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) || !uri.path().trim_matches('/').is_empty() {
        return None;
    }
    let redirect = Redirect {
        status,
        scheme: Some(uri.scheme_str()?.to_owned()),
        host: Some(uri.authority()?.to_string()),
        port: RedirectPort::OfAuthority,
        path: None,
    };
    Some(Filters { answer: Some(OwnAnswer::Redirect(redirect)), ..Filters::default() })
}

/// A redirect to `url` as it is written: nothing of the request goes into it.
fn to_fixed(url: &str, status: u16) -> Option<Filters> {
    let uri: Uri = url.parse().ok().filter(|_| !url.contains('$'))?;
    let is_somewhere = uri.scheme().is_some() || url.starts_with('/');
    let value = HeaderText::literal(url).ok().filter(|_| is_somewhere)?;
    Some(Filters {
        answer: Some(OwnAnswer::Direct(DirectResponse { status, body: Default::default() })),
        response_headers: HeaderChanges {
            set: vec![HeaderChange { name: LOCATION, value }],
            ..HeaderChanges::default()
        },
        ..Filters::default()
    })
}

/// Where requests for `/` are sent.
pub(super) fn app_root(annotations: &mut Annotations<'_>) -> Option<Filters> {
    let path = annotations.text("app-root")?;
    let read =
        Some(path).filter(|path| path.starts_with('/') && *path != "/").and_then(|path| to_fixed(path, 302));
    if read.is_none() {
        annotations.wrong("app-root", format!("{path:?} is not a path below /; write for example /app"));
    }
    read
}
