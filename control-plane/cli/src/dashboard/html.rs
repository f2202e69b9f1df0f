//! Pieces that several pages have. All text is escaped by the macro that takes it in.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use selvedge_model::SpiffeId;

use crate::seeing::{
    endpoints::State,
    numbers::{Connections, ILL, Requests, WELL, shown_percent},
};

/// How something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    Failing,
    Strained,
    Well,
    /// Nothing is known, or nothing has to be done.
    Silent,
}

impl Health {
    pub(super) fn of_percent(percent: f64) -> Self {
        match percent {
            percent if percent < ILL => Self::Failing,
            percent if percent < WELL => Self::Strained,
            _ => Self::Well,
        }
    }

    /// Of both, the worse.
    pub(super) fn of(requests: Option<&Requests>, connections: Option<&Connections>) -> Self {
        let requests = requests.map(|one| Self::of_percent(one.success_percent));
        let connections = connections.map(|one| Self::of_percent(of_connections(one)));
        requests.into_iter().chain(connections).min().unwrap_or(Self::Silent)
    }

    /// How an endpoint does.
    pub(super) fn of_endpoint(state: State) -> Self {
        match state {
            State::Failing | State::NotConnected => Self::Failing,
            State::Out | State::SomeFailures | State::Slow => Self::Strained,
            State::Healthy => Self::Well,
            State::Idle | State::Unknown | State::Awaited => Self::Silent,
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn is_ill(self) -> bool {
        self < Self::Well
    }

    /// The class of style sheets.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Failing => "bad",
            Self::Strained => "warn",
            Self::Well => "good",
            Self::Silent => "none",
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Strained => "some failures",
            Self::Well => "well",
            Self::Silent => "for information",
        }
    }

    /// A sign that tells it without its colour.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Failing => "✕",
            Self::Strained => "▲",
            Self::Well => "✓",
            Self::Silent => "–",
        }
    }

    /// The sign, with the word for those who hear the page.
    pub(super) fn mark(self) -> Markup {
        html! { span class={"mark " (self.class())} title=(self.word()) { span aria-hidden="true" { (self.sign()) } span.hide { (self.word()) } } }
    }
}

/// How many percent of connections did not fail.
pub(super) fn of_connections(one: &Connections) -> f64 {
    one.success_percent().unwrap_or(100.0)
}

/// A share of success, as it is shown everywhere.
pub(super) fn success(percent: f64) -> Markup {
    let health = Health::of_percent(percent);
    html! { span class={"rate " (health.class())} { @if health != Health::Well { (health.mark()) " " } (shown_percent(percent)) } }
}

/// `reviews:9080 in default`, of what Kubernetes calls so; other hosts as they are.
pub(super) fn service_words(host: &str, port: u16) -> String {
    match kubernetes(host) {
        Some((name, namespace)) => format!("{name}.{namespace}:{port}"),
        None => with_port(host, port),
    }
}

pub(super) fn with_port(host: &str, port: u16) -> String {
    if port == 0 { host.to_owned() } else { format!("{host}:{port}") }
}

/// The name and the namespace of a Service of Kubernetes.
pub(super) fn kubernetes(host: &str) -> Option<(&str, &str)> {
    let mut parts = host.splitn(4, '.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc"), Some(_)) => Some((name, namespace)),
        _ => None,
    }
}

pub(super) fn service_url(host: &str, port: u16) -> String {
    format!("/dashboard/service/{}:{port}", encoded(host))
}

/// As a part of a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => {
                use std::fmt::Write as _;
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// A link to the page of a service's port, for the same time.
pub(super) fn service_link(host: &str, port: u16, since: u64) -> Markup {
    let url = with_window(&service_url(host, port), since);
    let (name, rest) = match kubernetes(host) {
        Some((name, namespace)) => (name.to_owned(), format!(".{namespace}:{port}")),
        None => (host.to_owned(), if port == 0 { String::new() } else { format!(":{port}") }),
    };
    html! { a.service href=(url) title=(with_port(host, port)) { (name) span.rest { (rest) } } }
}

/// The same of `host:port`.
pub(super) fn named_service_link(name: &str, since: u64) -> Markup {
    let (host, port) = name.rsplit_once(':').unwrap_or((name, "0"));
    service_link(host, port.parse().unwrap_or_default(), since)
}

pub(super) fn with_window(url: &str, since: u64) -> String {
    let window = super::page::WINDOWS.iter().find(|(seconds, ..)| *seconds == since);
    match window {
        Some((seconds, word, _)) if *seconds != super::page::WINDOWS[0].0 => {
            let mark = if url.contains('?') { '&' } else { '?' };
            format!("{url}{mark}since={word}")
        }
        _ => url.to_owned(),
    }
}

/// The namespace and the ServiceAccount; the whole identity is beside it.
pub(super) fn identity(identity: &SpiffeId) -> Markup {
    html! {
        span.id title=(identity.as_str()) { (identity.namespace()) "/" (identity.service_account()) }
    }
}

/// A table that scrolls by itself where the page is narrow.
pub(super) fn table(caption: &str, head: &[(&str, bool)], rows: &Markup) -> Markup {
    table_of("", caption, head, rows)
}

/// One whose cells stand below each other where the page is narrow. What they are must be plain without the head, or said by
/// their `data-label`.
pub(super) fn cards(caption: &str, head: &[(&str, bool)], rows: &Markup) -> Markup {
    table_of("cards", caption, head, rows)
}

fn table_of(class: &str, caption: &str, head: &[(&str, bool)], rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table.(class) {
                caption { (caption) }
                thead { tr { @for (title, is_number) in head { th scope="col" class=[is_number.then_some("num")] { (title) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// How long it is, in its largest two units.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) if minutes < 10 => format!("{minutes} min {} s", seconds % 60),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) if days < 10 => format!("{days} d {hours} h"),
        (days, ..) => format!("{days} d"),
    }
}

/// How long ago `then` was at `now`.
pub(super) fn ago(then: SystemTime, now: SystemTime) -> String {
    length(now.duration_since(then).unwrap_or_default())
}

/// A number as people read it, of some thousands or more.
pub(super) fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{:.1} k", number as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

/// How many there are of something in one second.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate => format!("{:.1} k", rate / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_kubernetes_is_called_by_its_name_and_any_other_host_as_it_is() {
        assert_eq!(service_words("reviews.shop.svc.cluster.local", 80), "reviews.shop:80");
        assert_eq!(service_words("api.example.com", 443), "api.example.com:443");
        assert_eq!(service_words("unknown", 0), "unknown");
        assert_eq!(service_url("<a b>/?", 1), "/dashboard/service/%3Ca%20b%3E%2F%3F:1");
    }

    #[test]
    fn times_have_two_units_at_most() {
        let shown =
            [5, 65, 700, 7_260, 90_000, 5_000_000].map(|seconds| length(Duration::from_secs(seconds)));
        assert_eq!(shown, ["5 s", "1 min 5 s", "11 min", "2 h 1 min", "1 d 1 h", "57 d"]);
        assert_eq!([9_999, 12_345, 12_345_678].map(count), ["9999", "12.3 k", "12.3 M"]);
    }
}
