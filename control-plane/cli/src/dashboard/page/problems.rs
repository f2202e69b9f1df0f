//! What is wrong with the configuration: which document, where, and what to change.

use maud::{Markup, html};

use crate::dashboard::{
    facts::Facts,
    html::{Health, cards},
    told::{Bad, Found},
};

pub(in crate::dashboard) fn content(facts: &Facts) -> Markup {
    let of = |severity| facts.problems.iter().filter(move |one| one.severity == severity).collect::<Vec<_>>();
    let parts = [
        (Bad::Error, Health::Failing, "Errors", "what they ask for does not happen"),
        (Bad::Warning, Health::Strained, "Warnings", "it works, but probably not as meant"),
        (Bad::NotActedOn, Health::Silent, "Not acted on", "this version reads over it"),
    ];
    html! {
        @if facts.problems.is_empty() {
            section.attention { h2.well { (Health::Well.mark()) " Nothing is wrong with the configuration" } }
        }
        @for (severity, health, title, what) in parts {
            @let all = of(severity);
            @if !all.is_empty() {
                section aria-label=(title) {
                    h2 { (health.mark()) " " (title) " " span.badge { (all.len()) } " " span.of { (what) } }
                    (list(title, health, &all))
                }
            }
        }
        @if facts.problems_left_out > 0 { p.note { "and " (facts.problems_left_out) " more: " code { "selvedge check" } " shows all" } }
    }
}

fn list(title: &str, health: Health, all: &[&Found]) -> Markup {
    let head = [("Document", false), ("Where", false), ("What", false)];
    let rows = html! {
        @for one in all {
            tr.{ (health.class()) } {
                th scope="row" { @match &one.document { Some(name) => { (name) }, None => "–" } }
                td { @match &one.path {
                    Some(path) => { code.path { (path) @if let Some(line) = one.line { ":" (line) } } },
                    None => { span.rest { "in the cluster" } },
                } }
                td.text { @if !one.field.is_empty() { code { (one.field) } " " } (one.message) }
            }
        }
    };
    cards(title, &head, &rows)
}
