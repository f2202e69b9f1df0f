//! The frontend's page for people: which version of `reviews` answers, and how often.
//!
//! Rendered here and whole: no script, nothing to load from elsewhere.

use std::{collections::BTreeMap, fmt::Write as _};

use super::reviews;

/// What became of one request to `reviews`: its answer, or why there is none.
pub type Asked = Result<reviews::Answer, String>;

/// The page: what `asked` came to, for somebody who calls himself `user`.
pub fn render(pod: &str, user: Option<&str>, asked: &[Asked]) -> String {
    let mut page = String::from(HEAD);
    let who = user.map_or_else(|| "somebody".to_owned(), |user| format!("<b>{}</b>", escaped(user)));
    put(&mut page, format_args!("<h1>Who answers for <code>reviews</code>?</h1>\n"));
    put(
        &mut page,
        format_args!("<p>{} requests, made for {who} while this page was loading:</p>\n", asked.len()),
    );
    squares(&mut page, asked);
    table(&mut page, asked);
    page.push_str(LINKS);
    details(&mut page, pod, asked);
    page.push_str("</main>\n");
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a String grows");
}

/// One square for each request, in the order in which they were made.
fn squares(page: &mut String, asked: &[Asked]) {
    page.push_str("<p class=squares>");
    for asked in asked {
        put(page, format_args!("<i class={} title=\"{}\"></i>", colour(asked), escaped(words(asked))));
    }
    page.push_str("</p>\n");
}

fn table(page: &mut String, asked: &[Asked]) {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for asked in asked {
        *counts.entry((words(asked), colour(asked))).or_default() += 1;
    }
    page.push_str("<table>\n");
    for ((words, colour), count) in counts {
        let words = escaped(words);
        put(page, format_args!("<tr><td><i class={colour}></i> {words}</td><td>{count}</td></tr>\n"));
    }
    page.push_str("</table>\n");
}

fn details(page: &mut String, pod: &str, asked: &[Asked]) {
    let last = asked.iter().rev().find_map(|asked| asked.as_ref().ok());
    let Some(answer) = last else { return };
    let caller = match &answer.client_identity {
        Some(caller) => {
            format!("Its sidecar checked the caller's certificate: <code>{}</code>.", escaped(caller))
        }
        None => "No sidecar proved who called: the request came in plaintext.".to_owned(),
    };
    let (from, to) = (escaped(&answer.pod), escaped(pod));
    put(
        page,
        format_args!(
            "<p class=small><code>{from}</code> gave <code>{to}</code> the last answer. {caller}</p>\n"
        ),
    );
}

fn words(asked: &Asked) -> &str {
    match asked {
        Ok(answer) => &answer.version,
        Err(error) => error,
    }
}

/// The class of a square; versions that are not v1 look alike.
fn colour(asked: &Asked) -> &'static str {
    match asked {
        Ok(answer) if answer.version == "v1" => "one",
        Ok(_) => "other",
        Err(_) => "none",
    }
}

/// Text as it may stand in HTML, between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

const HEAD: &str = r#"<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width">
<title>A canary release</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
main { max-width: 40rem; margin: auto }
h1 { font-size: 1.4rem }
code { font-size: .9em }
i { display: inline-block; width: 1rem; height: 1rem; border-radius: 2px }
.squares { line-height: 0 } .squares i { margin: 0 4px 4px 0; width: 1.25rem; height: 1.25rem }
.one { background: #3b6ea5 } .other { background: #e8a33d } .none { background: #c0392b }
td { padding: .1rem 2rem .1rem 0 } td + td { text-align: right; font-variant-numeric: tabular-nums }
.small { font-size: .85rem; color: #555 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b } .small { color: #aaa } a { color: #8ab4f8 } }
</style>
<main>
"#;

const LINKS: &str = r#"<p><a href="/">Again</a>, or <a href="/?user=jason">as jason</a>, who gets v2 always. Change the weights in
<code>config/virtualservice.yaml</code>, and ask again.</p>
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: &str) -> Asked {
        Ok(reviews::Answer {
            app: "reviews".into(),
            version: version.into(),
            pod: format!("reviews-{version}"),
            method: "GET".into(),
            path: "/".into(),
            client_identity: Some("spiffe://cluster.local/ns/default/sa/frontend".into()),
            headers: BTreeMap::new(),
        })
    }

    #[test]
    fn every_version_is_counted_and_the_proven_caller_is_shown() {
        let page = render("frontend", None, &[answer("v1"), answer("v2"), answer("v1")]);

        assert!(page.contains("</i> v1</td><td>2</td>") && page.contains("</i> v2</td><td>1</td>"), "{page}");
        assert_eq!(page.matches("<i class=one title").count(), 2);
        assert!(page.contains("sa/frontend"), "{page}");
    }

    #[test]
    fn what_others_wrote_cannot_become_markup() {
        let page = render("frontend", Some("<script>"), &[Err("503 \"<b>\"".into()), answer("<i>")]);

        assert!(!page.contains("<script>") && !page.contains("<b>\"") && !page.contains("<i></i>"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("503 &quot;&lt;b&gt;&quot;"), "{page}");
    }
}
