//! Redirects: `permanent-redirect`, `temporal-redirect`, `app-root`.

use http::{Uri, header::LOCATION};
use selvedge_model::{
    Filters,
    filter::{
        DirectResponse, HeaderChange, HeaderChanges, HeaderText, LocationPiece, OwnAnswer, Redirect,
        RedirectPort,
    },
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
    let same_path = url.strip_suffix(REQUEST_URI).and_then(|start| to_same_path(start, code));
    let read = same_path.or_else(|| match url.contains('$') {
        true => put_together(url, code),
        false => to_fixed(url, code),
    });
    if read.is_none() {
        let message = format!(
            "{url:?} is not a URL; write for example https://shop.example.com/new, or https://shop.example.com{REQUEST_URI}. Of \
             nginx's variables there are {}, and $1 to $9 for groups of the path; the status is then 301, 302, 303, 307 or 308",
            VARIABLES.map(|(name, _)| format!("${name}")).join(", ")
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
        pieces: Vec::new(),
    };
    Some(Filters { answer: Some(OwnAnswer::Redirect(redirect)), ..Filters::default() })
}

/// The variables of nginx that have a value here, and what they are put together from.
const VARIABLES: [(&str, &[LocationPiece]); 11] = [
    ("scheme", &[LocationPiece::Scheme]),
    ("pass_access_scheme", &[LocationPiece::Scheme]),
    ("host", &[LocationPiece::Host]),
    ("server_name", &[LocationPiece::Host]),
    ("http_host", &[LocationPiece::Authority]),
    ("best_http_host", &[LocationPiece::Authority]),
    ("request_uri", &[LocationPiece::Path, LocationPiece::QuestionMark, LocationPiece::Query]),
    ("uri", &[LocationPiece::Path]),
    ("args", &[LocationPiece::Query]),
    ("query_string", &[LocationPiece::Query]),
    ("is_args", &[LocationPiece::QuestionMark]),
];

/// A redirect to `url`, in which variables of nginx stand.
fn put_together(url: &str, status: u16) -> Option<Filters> {
    let pieces = pieces(url)?;
    let example = |piece: &LocationPiece| match piece {
        LocationPiece::Text(text) => text.clone(),
        LocationPiece::Scheme => "https".to_owned(),
        LocationPiece::Path => "/a".to_owned(),
        LocationPiece::QuestionMark => "?".to_owned(),
        LocationPiece::Host | LocationPiece::Authority | LocationPiece::Query | LocationPiece::Group(_) => {
            "a".to_owned()
        }
    };
    let example: String = pieces.iter().map(example).collect();
    let uri: Uri = example.parse().ok()?;
    let is_somewhere = uri.scheme().is_some() || example.starts_with('/');
    if !is_somewhere || !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let redirect = Redirect::put_together(status, pieces);
    Some(Filters { answer: Some(OwnAnswer::Redirect(redirect)), ..Filters::default() })
}

/// What `url` is put together from; `None`: of something that there is not.
fn pieces(url: &str) -> Option<Vec<LocationPiece>> {
    let mut pieces = Vec::new();
    let mut rest = url;
    while let Some((text, after)) = rest.split_once('$') {
        pieces.push(LocationPiece::Text(text.to_owned()));
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None if after.starts_with(|first: char| first.is_ascii_digit()) => after.split_at(1),
            None => {
                let is_other = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
                after.split_at(after.find(is_other).unwrap_or(after.len()))
            }
        };
        match name.parse().ok().filter(|group| (1..=9).contains(group)) {
            Some(group) => pieces.push(LocationPiece::Group(group)),
            None => {
                let (_, known) = VARIABLES.iter().find(|(known, _)| *known == name)?;
                pieces.extend_from_slice(known);
            }
        }
        rest = after;
    }
    pieces.push(LocationPiece::Text(rest.to_owned()));
    pieces.retain(|piece| *piece != LocationPiece::Text(String::new()));
    Some(pieces)
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
