//! The result of one check: what was found, and what to do if the check failed.

use std::fmt::Write as _;

use selvedge_ops::plain;
use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// As it must be.
    Ok,
    /// It works, but somebody should look.
    Warning,
    /// It does not work, or will not for long.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What it belongs to.
    pub(super) section: &'static str,
    pub(super) verdict: Verdict,
    /// What is so.
    pub(super) what: String,
    /// What to do about it; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    section: &'static str,
    pub(super) list: Vec<Finding>,
}

impl Findings {
    /// What follows belongs to `section`.
    pub(super) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    pub(super) fn ok(&mut self, what: impl Into<String>) {
        self.add(Verdict::Ok, what, None);
    }

    pub(super) fn warning(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Warning, what, Some(remedy.into()));
    }

    pub(super) fn error(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Verdict::Error, what, Some(remedy.into()));
    }

    fn add(&mut self, verdict: Verdict, what: impl Into<String>, remedy: Option<String>) {
        // Much of it is what a cluster says, and in the cluster others.
        let (what, remedy) =
            (plain(&what.into()).into_owned(), remedy.map(|words| plain(&words).into_owned()));
        self.list.push(Finding { section: self.section, verdict, what, remedy });
    }

    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.list.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

/// For people: one line each, and a second one that says what to do.
pub(super) fn to_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut section = "";
    for finding in findings {
        if finding.section != section {
            section = finding.section;
            writeln!(text, "{section}").expect("writing to a String cannot fail");
        }
        let word = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "ERROR",
        };
        writeln!(text, "  {word:8}{}", finding.what).expect("writing to a String cannot fail");
        if let Some(remedy) = &finding.remedy {
            writeln!(text, "          {remedy}").expect("writing to a String cannot fail");
        }
    }
    text
}
