//! The fields of filters, as documents write them.

use std::fmt;

use serde::Deserialize;

use super::super::{references::MirrorBackendYaml, typed::Present};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct FilterYaml {
    #[serde(rename = "type")]
    pub(super) kind: FilterType,
    pub(super) request_header_modifier: Option<ModifierYaml>,
    pub(super) response_header_modifier: Option<ModifierYaml>,
    pub(super) request_redirect: Option<RedirectYaml>,
    pub(super) url_rewrite: Option<RewriteYaml>,
    pub(super) request_mirror: Option<MirrorYaml>,
    pub(super) cors: Option<CorsYaml>,
    pub(super) external_auth: Option<Present>,
    pub(super) extension_ref: Option<ExtensionYaml>,
}

/// The `type` of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
}

impl FilterType {
    /// The field that says more about it.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "requestHeaderModifier",
            Self::ResponseHeaderModifier => "responseHeaderModifier",
            Self::RequestRedirect => "requestRedirect",
            Self::UrlRewrite => "urlRewrite",
            Self::RequestMirror => "requestMirror",
            Self::Cors => "cors",
            Self::ExternalAuth => "externalAuth",
            Self::ExtensionRef => "extensionRef",
        }
    }

    /// Whether a `GRPCRoute` may have it too.
    pub(super) fn is_for_grpc(self) -> bool {
        matches!(
            self,
            Self::RequestHeaderModifier
                | Self::ResponseHeaderModifier
                | Self::RequestMirror
                | Self::ExtensionRef
        )
    }

    /// Whether a rule may have several.
    pub(super) fn is_repeatable(self) -> bool {
        matches!(self, Self::RequestMirror | Self::ExternalAuth | Self::ExtensionRef)
    }
}

impl fmt::Display for FilterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UrlRewrite => f.write_str("URLRewrite"),
            Self::Cors => f.write_str("CORS"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ModifierYaml {
    #[serde(default)]
    pub(super) set: Vec<HeaderYaml>,
    #[serde(default)]
    pub(super) add: Vec<HeaderYaml>,
    #[serde(default)]
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct HeaderYaml {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedirectYaml {
    pub(super) scheme: Option<Scheme>,
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathYaml>,
    pub(super) port: Option<u32>,
    pub(super) status_code: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Deserialize)]
pub(super) struct RewriteYaml {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathYaml {
    #[serde(rename = "type")]
    pub(super) kind: PathType,
    pub(super) replace_full_path: Option<String>,
    pub(super) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum PathType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MirrorYaml {
    pub(super) backend_ref: MirrorBackendYaml,
    pub(super) percent: Option<u32>,
    pub(super) fraction: Option<FractionYaml>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FractionYaml {
    pub(super) numerator: u32,
    pub(super) denominator: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CorsYaml {
    #[serde(default)]
    pub(super) allow_origins: Vec<String>,
    #[serde(default)]
    pub(super) allow_credentials: bool,
    #[serde(default)]
    pub(super) allow_methods: Vec<String>,
    #[serde(default)]
    pub(super) allow_headers: Vec<String>,
    #[serde(default)]
    pub(super) expose_headers: Vec<String>,
    pub(super) max_age: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ExtensionYaml {
    pub(super) group: Option<String>,
    pub(super) kind: String,
    pub(super) name: String,
}

impl FilterYaml {
    /// The types of which a field is given.
    pub(super) fn given(&self) -> impl Iterator<Item = FilterType> + use<> {
        use FilterType as T;
        let given = [
            (T::RequestHeaderModifier, self.request_header_modifier.is_some()),
            (T::ResponseHeaderModifier, self.response_header_modifier.is_some()),
            (T::RequestRedirect, self.request_redirect.is_some()),
            (T::UrlRewrite, self.url_rewrite.is_some()),
            (T::RequestMirror, self.request_mirror.is_some()),
            (T::Cors, self.cors.is_some()),
            (T::ExternalAuth, self.external_auth.is_some()),
            (T::ExtensionRef, self.extension_ref.is_some()),
        ];
        given.into_iter().filter_map(|(kind, given)| given.then_some(kind))
    }
}
