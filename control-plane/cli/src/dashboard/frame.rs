//! What all pages have around their content.

use maud::{DOCTYPE, Markup, html};
use selvedge_certs::facts::Utc;

use super::{
    assets,
    facts::Facts,
    html::{self, length},
    page::{Asked, Page, WINDOWS},
    told::Bad,
};
use crate::seeing::known::near;

/// A whole page.
pub(super) fn whole(page: &Page, asked: &Asked, facts: &Facts) -> Markup {
    let problems = facts.problems.iter().filter(|problem| problem.severity == Bad::Error).count();
    document(
        &page.title(),
        &html! {
            nav aria-label="Pages" {
                ul {
                    @for one in Page::MENU {
                        @let is_here = one == *page;
                        @let url = if one.has_window() { html::with_window(&one.url(), asked.since) } else { one.url() };
                        li { a href=(url) aria-current=[is_here.then_some("page")] {
                            (one.title())
                            @if one == Page::Problems && problems > 0 { " " span.badge { (problems) span.hide { " errors" } } }
                        } }
                    }
                }
            }
        },
        &html! {
            @let (content, as_of) = content(page, asked, facts);
            main #content tabindex="-1" { (content) (as_of) }
        },
    )
}

/// What is on a page, and changes; and its footer, which always does.
pub(super) fn content(page: &Page, asked: &Asked, facts: &Facts) -> (Markup, Markup) {
    let content = html! {
        div.head {
            h1 { @if let Page::Service { .. } = page { span.kind { "Service " } } (page.title()) }
            @if page.has_window() { (windows(page, asked)) }
        }
        (not_as_asked(page, asked, facts))
        (page.content(asked, facts))
        (missing(facts))
    };
    let as_of = html! {
        footer {
            p {
                "As of " time datetime=(Utc(facts.at).to_string()) { (Utc(facts.at).to_string().replace('T', " ").replace('Z', " UTC")) }
                ", told by "
                @for (place, replica) in facts.replicas.iter().enumerate() {
                    @if place > 0 { ", " }
                    (replica.name) " (" (replica.version) ")"
                }
                ". Sidecars tell what is new every 15 seconds."
            }
        }
    };
    (content, as_of)
}

/// What the URL asks for and the page cannot show: nobody shall take an empty page for an answer.
fn not_as_asked(page: &Page, asked: &Asked, facts: &Facts) -> Markup {
    let known = facts.namespaces();
    let namespace = asked.namespace.as_deref();
    let unknown = namespace.filter(|namespace| page.has_namespace() && !known.contains(namespace));
    let focus = asked.focus.as_deref().filter(|focus| *page == Page::Topology && !facts.knows_host(focus));
    html! {
        @if let Some(namespace) = unknown {
            @let near = near(namespace, known.iter().copied());
            p.note.warn { "No namespace " b { (namespace) } " is known." @if !near.is_empty() { " Near: " (near.join(", ")) "." } }
        }
        @if let Some(namespace) = namespace.filter(|_| !page.has_namespace()) {
            p.note.warn { "This page is of all namespaces, and not of " b { (namespace) } " alone." }
        }
        @if let Some(focus) = focus {
            p.note.warn { "No document declares a service " b { (focus) } ", and nobody has called it in the last hour." }
        }
        @if let Some(time) = asked.other_time.as_ref().filter(|_| page.has_window()) {
            p.note.warn { "Figures are not of " b { (time) } ": the times that can be chosen are "
                (WINDOWS.map(|(_, word, _)| word).join(", ")) "." }
        }
    }
}

fn windows(page: &Page, asked: &Asked) -> Markup {
    let mut query = Vec::new();
    if let Some(namespace) = &asked.namespace {
        query.push(format!("ns={}", html::encoded(namespace)));
    }
    if let Some(focus) = &asked.focus {
        query.push(format!("focus={}", html::encoded(focus)));
    }
    let url = if query.is_empty() { page.url() } else { format!("{}?{}", page.url(), query.join("&")) };
    html! {
        ul.windows aria-label="Of how long" {
            @for (seconds, _, words) in WINDOWS {
                li { a href=(html::with_window(&url, seconds)) aria-current=[(seconds == asked.since).then_some("true")] { (words) } }
            }
        }
    }
}

/// So many sidecars are named that tell of too many services.
const MOST_FOLDED: usize = 3;

/// What is not on the page, and why.
fn missing(facts: &Facts) -> Markup {
    let missing = &facts.traffic.missing;
    let kept = facts.traffic.seconds;
    html! {
        @if facts.is_partial {
            p.note { "This is what one replica of the control plane knows: of the sidecars that are connected to it. "
                code { "selvedge dashboard" } " asks all replicas." }
        }
        @if facts.history.left_out > 0 {
            p.note.warn { "Plots leave out " (facts.history.left_out) " pairs of a service and where a route leads: there are too many." }
        }
        @for (workload, services) in facts.folded.iter().take(MOST_FOLDED) {
            p.note.warn { "The sidecar of " code { (workload.to_string()) } " names " (services)
                " services more that no document declares: they are shown as one, " code { "unknown" } "." }
        }
        @if facts.folded.len() > MOST_FOLDED {
            p.note.warn { "So do " (facts.folded.len() - MOST_FOLDED) " more sidecars." }
        }
        @if !facts.left_out.is_empty() {
            p.note.warn { "So much is known that a replica leaves a part of it out of its answer: "
                (facts.left_out.iter().map(String::as_str).collect::<Vec<_>>().join(", ")) "." }
        }
        @for line in missing.to_text().lines() { p.note.warn { (line) } }
        @if kept > 0 && kept < facts.wanted.since {
            p.note.warn { "Of so much traffic only " (length(std::time::Duration::from_secs(kept))) " are kept." }
        }
    }
}

/// A page that says one thing.
pub(super) fn plain(title: &str, why: &str) -> Markup {
    document(
        title,
        &html! {},
        &html! { main #content tabindex="-1" {
            div.head { h1 { (title) } }
            p { (why) }
            p { a href="/dashboard/overview" { "To the overview" } }
        } },
    )
}

fn document(title: &str, nav: &Markup, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) " · Selvedge" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                link rel="icon" href=(assets::url("icon.svg")) type="image/svg+xml";
                link rel="stylesheet" href=(assets::url("style.css"));
                script src=(assets::url("live.js")) defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    a.brand href="/dashboard/overview" { "Selvedge" }
                    (nav)
                    div.live {
                        span #state role="status" {}
                        button #pause type="button" hidden { "Pause" }
                    }
                }
                (main)
                p #stale role="status" hidden {}
            }
        }
    }
}
