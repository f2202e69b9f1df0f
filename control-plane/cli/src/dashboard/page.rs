//! The pages: what each is about, and what it needs to know.

pub(super) mod certificates;
pub(super) mod overview;
pub(super) mod policies;
pub(super) mod problems;
pub(super) mod proxies;
pub(super) mod service;
pub(super) mod topology;

use maud::Markup;

use super::{facts::Facts, html, told::Wanted};

/// The windows of time that can be chosen, in seconds, and what they are called.
pub(super) const WINDOWS: [(u64, &str, &str); 4] =
    [(60, "1m", "1 min"), (300, "5m", "5 min"), (900, "15m", "15 min"), (3600, "1h", "1 h")];

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    Overview,
    Topology,
    Policies,
    Certificates,
    Problems,
    Proxies,
    Service { host: String, port: u16 },
}

/// What is asked of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of how many seconds traffic is shown.
    pub(super) since: u64,
    /// Only of this namespace.
    pub(super) namespace: Option<String>,
    /// Only what is beside this.
    pub(super) focus: Option<String>,
    /// A time that the URL names and that cannot be chosen.
    pub(super) other_time: Option<String>,
}

/// Of how many seconds traffic is shown where a URL says `text`: of a minute unless it says one of the others.
pub(super) fn window(text: Option<&str>) -> u64 {
    let window = WINDOWS.iter().find(|(_, word, _)| text == Some(word));
    window.map_or(WINDOWS[0].0, |(seconds, ..)| *seconds)
}

/// Whether a URL may say `text` of the time.
pub(super) fn is_window(text: &str) -> bool {
    WINDOWS.iter().any(|(_, word, _)| text == *word)
}

/// The page of the service whose name a URL has.
pub(super) fn service_named(name: &str) -> Option<Page> {
    let (host, port) = name.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| Page::Service { host: host.to_owned(), port })
}

impl Page {
    /// Those that every page leads to.
    pub(super) const MENU: [Self; 6] =
        [Self::Overview, Self::Topology, Self::Policies, Self::Certificates, Self::Problems, Self::Proxies];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::MENU.into_iter().find(|page| page.word() == name)
    }

    /// What it is called in its URL.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Topology => "topology",
            Self::Policies => "policies",
            Self::Certificates => "certificates",
            Self::Problems => "problems",
            Self::Proxies => "proxies",
            Self::Service { .. } => "service",
        }
    }

    pub(super) fn title(&self) -> String {
        match self {
            Self::Overview => "Overview".to_owned(),
            Self::Topology => "Topology".to_owned(),
            Self::Policies => "Policies".to_owned(),
            Self::Certificates => "Certificates".to_owned(),
            Self::Problems => "Problems".to_owned(),
            Self::Proxies => "Proxies".to_owned(),
            Self::Service { host, port } => html::service_words(host, *port),
        }
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Service { host, port } => html::service_url(host, *port),
            page => format!("/dashboard/{}", page.word()),
        }
    }

    /// Whether a window of time can be chosen.
    pub(super) fn has_window(&self) -> bool {
        matches!(self, Self::Overview | Self::Topology | Self::Policies | Self::Service { .. })
    }

    /// Whether one namespace can be chosen.
    pub(super) fn has_namespace(&self) -> bool {
        matches!(self, Self::Topology | Self::Policies)
    }

    /// What it needs to know.
    pub(super) fn wants(&self, asked: &Asked, often: bool) -> Wanted {
        Wanted { since: asked.since, matrix: *self == Self::Policies, often }
    }

    /// Whether there is what it is about.
    pub(super) fn is_there(&self, facts: &Facts) -> bool {
        match self {
            Self::Service { host, port } => service::is_there(facts, host, *port),
            _ => true,
        }
    }

    /// What it says.
    pub(super) fn content(&self, asked: &Asked, facts: &Facts) -> Markup {
        match self {
            Self::Overview => overview::content(asked, facts),
            Self::Topology => topology::content(asked, facts),
            Self::Policies => policies::content(asked, facts),
            Self::Certificates => certificates::content(facts),
            Self::Problems => problems::content(facts),
            Self::Proxies => proxies::content(facts),
            Self::Service { host, port } => service::content(asked, facts, host, *port),
        }
    }
}
