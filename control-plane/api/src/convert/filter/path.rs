//! Changes of paths and authorities: rewrites and redirects.

use std::str::FromStr;

use selvedge_model::filter::{LocationPiece, PathRewrite, Redirect, RedirectPort, RegexRewrite, Rewrite};

use super::{
    super::{ConvertError, all, invalid, parse, required},
    only_true, status,
};
use crate::wire::{self, location_piece, path_rewrite, redirect};

impl From<&Rewrite> for wire::Rewrite {
    fn from(rewrite: &Rewrite) -> Self {
        Self {
            path: rewrite.path.as_ref().map(Into::into),
            authority: rewrite.authority.clone(),
            adds_query: rewrite.adds_query,
        }
    }
}

impl TryFrom<wire::Rewrite> for Rewrite {
    type Error = ConvertError;

    fn try_from(rewrite: wire::Rewrite) -> Result<Self, ConvertError> {
        let authority = rewrite.authority.map(checked::<http::uri::Authority>("authority")).transpose()?;
        let path = rewrite.path.map(TryInto::try_into).transpose()?;
        Ok(Self { path, adds_query: rewrite.adds_query, authority })
    }
}

/// A text that reads as a `T`.
pub(super) fn checked<T: FromStr<Err: std::fmt::Display>>(
    field: &'static str,
) -> impl Fn(String) -> Result<String, ConvertError> {
    move |text| parse::<T>(field, &text).map(|_| text)
}

impl From<&PathRewrite> for wire::PathRewrite {
    fn from(rewrite: &PathRewrite) -> Self {
        use path_rewrite::Kind;
        let kind = match rewrite {
            PathRewrite::Full(path) => Kind::Full(path.clone()),
            PathRewrite::PrefixBySegments(prefix) => Kind::PrefixBySegments(prefix.clone()),
            PathRewrite::Prefix(prefix) => Kind::Prefix(prefix.clone()),
            PathRewrite::Regex(regex) => Kind::Regex(wire::RegexRewrite {
                pattern: regex.pattern().to_owned(),
                substitution: regex.substitution().to_owned(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::PathRewrite> for PathRewrite {
    type Error = ConvertError;

    fn try_from(rewrite: wire::PathRewrite) -> Result<Self, ConvertError> {
        use path_rewrite::Kind;
        Ok(match required("path rewrite", rewrite.kind)? {
            Kind::Full(path) => Self::Full(path),
            Kind::PrefixBySegments(prefix) => Self::PrefixBySegments(prefix),
            Kind::Prefix(prefix) => Self::Prefix(prefix),
            Kind::Regex(wire::RegexRewrite { pattern, substitution }) => {
                let regex = RegexRewrite::new(&pattern, &substitution).and_then(RegexRewrite::held);
                Self::Regex(regex.map_err(|error| invalid("regular expression", &pattern, &error))?)
            }
        })
    }
}

impl From<&Redirect> for wire::Redirect {
    fn from(redirect: &Redirect) -> Self {
        let port = match redirect.port {
            RedirectPort::Explicit(port) => redirect::Port::Explicit(port.into()),
            RedirectPort::OfScheme => redirect::Port::OfScheme(true),
            RedirectPort::OfAuthority => redirect::Port::OfAuthority(true),
            RedirectPort::OfRequest => redirect::Port::OfRequest(true),
            RedirectPort::Default => redirect::Port::Default(true),
        };
        Self {
            status: redirect.status.into(),
            scheme: redirect.scheme.clone(),
            host: redirect.host.clone(),
            port: redirect.pieces.is_empty().then_some(port),
            path: redirect.path.as_ref().map(Into::into),
            pieces: redirect.pieces.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Redirect> for Redirect {
    type Error = ConvertError;

    fn try_from(redirect: wire::Redirect) -> Result<Self, ConvertError> {
        use redirect::Port;
        if !redirect.pieces.is_empty() {
            let pieces = all(redirect.pieces)?;
            return Ok(Self::put_together(status(redirect.status)?, pieces));
        }
        let flag = |value, port| only_true("redirect port", value).map(|()| port);
        let port = match required("redirect port", redirect.port)? {
            Port::Explicit(port) => RedirectPort::Explicit(super::super::port("redirect port", port)?),
            Port::OfScheme(value) => flag(value, RedirectPort::OfScheme)?,
            Port::OfAuthority(value) => flag(value, RedirectPort::OfAuthority)?,
            Port::OfRequest(value) => flag(value, RedirectPort::OfRequest)?,
            Port::Default(value) => flag(value, RedirectPort::Default)?,
        };
        Ok(Self {
            status: status(redirect.status)?,
            scheme: redirect.scheme.map(checked::<http::uri::Scheme>("scheme")).transpose()?,
            host: redirect.host.map(checked::<http::uri::Authority>("host")).transpose()?,
            port,
            path: redirect.path.map(TryInto::try_into).transpose()?,
            pieces: Vec::new(),
        })
    }
}

impl From<&LocationPiece> for wire::LocationPiece {
    fn from(piece: &LocationPiece) -> Self {
        use location_piece::Kind;
        let kind = match piece {
            LocationPiece::Text(text) => Kind::Text(text.clone()),
            LocationPiece::Scheme => Kind::Scheme(true),
            LocationPiece::Host => Kind::Host(true),
            LocationPiece::Authority => Kind::Authority(true),
            LocationPiece::Path => Kind::Path(true),
            LocationPiece::Query => Kind::Query(true),
            LocationPiece::QuestionMark => Kind::QuestionMark(true),
            LocationPiece::Group(group) => Kind::Group((*group).into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::LocationPiece> for LocationPiece {
    type Error = ConvertError;

    fn try_from(piece: wire::LocationPiece) -> Result<Self, ConvertError> {
        use location_piece::Kind;
        let flag = |value, piece| only_true("piece of a Location", value).map(|()| piece);
        match required("piece of a Location", piece.kind)? {
            Kind::Text(text) => Ok(Self::Text(text)),
            Kind::Scheme(value) => flag(value, Self::Scheme),
            Kind::Host(value) => flag(value, Self::Host),
            Kind::Authority(value) => flag(value, Self::Authority),
            Kind::Path(value) => flag(value, Self::Path),
            Kind::Query(value) => flag(value, Self::Query),
            Kind::QuestionMark(value) => flag(value, Self::QuestionMark),
            Kind::Group(group) => u8::try_from(group)
                .map(Self::Group)
                .map_err(|error| invalid("group of a Location", &group.to_string(), &error)),
        }
    }
}
