//! What the URL of keys may be, whoever names it: a document, an issuer's configuration, or a redirect.

use http::Uri;

/// No URL is longer, in bytes.
const LONGEST: usize = 2048;

/// Why a text is not the URL of something that can be fetched. The words follow the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is too long.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// It is something else.
    #[error("is not a URL")]
    NotAUrl,
    /// It is of something that is not fetched by HTTP.
    #[error("has neither the scheme https nor http")]
    Scheme,
    /// It says not where.
    #[error("has no host")]
    NoHost,
    /// It has a part before `@`.
    #[error("has a user's name in it")]
    User,
    /// Its port is not a number that ports have.
    #[error("has a port that is not 1 to 65535")]
    Port,
}

/// `text` as the URL of something that can be fetched.
///
/// # Errors
/// If it is not one.
pub fn key_url(text: &str) -> Result<Uri, BadUrl> {
    if text.len() > LONGEST {
        return Err(BadUrl::TooLong);
    }
    let uri: Uri = text.parse().map_err(|_| BadUrl::NotAUrl)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(BadUrl::Scheme);
    }
    let Some(authority) = uri.authority() else { return Err(BadUrl::NoHost) };
    let after_host = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
    let has_bad_port = after_host.contains(':') && authority.port_u16().is_none_or(|port| port == 0);
    match () {
        () if authority.host().is_empty() => Err(BadUrl::NoHost),
        () if authority.as_str().contains('@') => Err(BadUrl::User),
        () if has_bad_port => Err(BadUrl::Port),
        () => Ok(uri),
    }
}
