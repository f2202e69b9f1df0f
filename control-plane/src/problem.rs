//! What is wrong with a document, where it stands, and what to change.
//!
//! Everything that reads configuration reports through this one type: `selvedge check`, the control
//! plane's log and its admin page say the same words.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    sync::Arc,
};

use selvedge_ops::{plain, plain_within};
use serde::Serialize;

/// How much of a document's kind, namespace or name is shown, in bytes: more than any API server takes.
pub(crate) const LONGEST_NAME: usize = 253;
/// How much of a field's name is kept, in bytes.
pub(crate) const LONGEST_FIELD: usize = 1_024;
/// How much of a message is kept, in bytes. What it repeats of a document may be as long as the document, and there may be as many
/// messages as it has fields.
const LONGEST_MESSAGE: usize = 4_096;

/// `text`, of which no more than `bytes` are kept.
fn within(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.shrink_to_fit();
        text.push('…');
    }
    text
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something that was asked for does not happen: a document, a rule or a reference is without effect.
    Error,
    /// It works, but probably not as meant.
    Warning,
    /// A kind, field or value that this version reads over.
    NotActedOn,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::NotActedOn => "not acted on",
        })
    }
}

/// Which document: its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DocumentName {
    /// Such as `VirtualService`; of the second of two kinds of one name with its group, such as
    /// `AuthorizationPolicy.policy.linkerd.io`.
    pub kind: Arc<str>,
    /// The namespace; the default one if the document names none, empty if its kind has none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for DocumentName {
    /// A document that is refused because of its name has that name, too: any text of any length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, namespace, name] = [&self.kind, &self.namespace, &self.name].map(|text| {
            if text.len() > LONGEST_NAME { plain_within(text, LONGEST_NAME).into() } else { plain(text) }
        });
        match &*namespace {
            "" => write!(f, "{kind} {name}"),
            namespace => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// Why a route's reference to a backend names nothing that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unresolved {
    /// There is nothing of that name.
    NoSuchHost,
    /// It has no such port, or its reference says none.
    NoSuchPort,
    /// No `DestinationRule` defines the subset.
    NoSuchSubset,
    /// Nothing may be sent to it, because its `DestinationRule` cannot be used.
    Refused,
    /// Nothing is sent to backends of that kind.
    UnsupportedKind,
    /// It is in another namespace, which does not permit it (no `ReferenceGrant` does). Routes of a mesh need no permit:
    /// <https://gateway-api.sigs.k8s.io/geps/gep-1294/#namespace-boundaries>.
    NotPermitted,
}

impl Unresolved {
    /// The reason of the Gateway API's condition `ResolvedRefs`
    /// (<https://gateway-api.sigs.k8s.io/reference/spec/#routeconditionreason>).
    pub fn gateway_reason(self) -> &'static str {
        match self {
            Self::NoSuchHost | Self::NoSuchPort | Self::NoSuchSubset | Self::Refused => "BackendNotFound",
            Self::UnsupportedKind => "InvalidKind",
            Self::NotPermitted => "RefNotPermitted",
        }
    }
}

/// What kind of fault a problem is. The conditions in a document's status are chosen by it, never by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing of the document can be used, whatever other documents there are.
    Unusable,
    /// The same, because two filters of a route exclude each other.
    IncompatibleFilters,
    /// A part of it cannot be used, whatever other documents there are.
    Part,
    /// Other documents have a part in it.
    Between,
    /// A parent of a route does not take the route, or that of a `ListenerSet` not the `ListenerSet`.
    Parent {
        /// The parent's place in `spec.parentRefs`; 0 in a `ListenerSet`.
        index: usize,
        /// Why.
        why: Detached,
    },
    /// A reference to a backend names nothing that can be used.
    Backend(Unresolved),
    /// A listener of a `Gateway` or `ListenerSet`, at or above the field, is not served as it is written.
    Listener(ListenerFault),
    /// The certificate that a `Gateway` is to show to backends cannot be shown.
    ToBackends {
        /// Whether it may be named (`ReferenceGrant`).
        is_permitted: bool,
    },
    /// Something that a policy names is not what it needs.
    Policy(PolicyFault),
    /// Another document decides instead of this one.
    Overruled,
    /// Another document has the same port of the same workload. The API server keeps no document that brings this about.
    SamePort,
    /// It is a policy of a kind that is not acted on: `--allow-unenforced` accepts that.
    Unenforced,
    /// A document before it has the same name, as can happen in files alone; what is used is that one.
    Namesake,
}

impl Fault {
    /// Whether it is so whatever other documents there are: the API server keeps no document that has such an error.
    pub fn is_alone(self) -> bool {
        let given_twice = matches!(self, Self::Parent { why: Detached::GivenTwice, .. });
        given_twice
            || matches!(self, Self::Unusable | Self::IncompatibleFilters | Self::Part | Self::Unenforced)
    }
}

/// Why a listener of a `Gateway` or `ListenerSet` is not served as it is written
/// (<https://gateway-api.sigs.k8s.io/reference/spec/#listenerconditionreason>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerFault {
    /// Another listener has the same port, protocol and host names.
    SameHostname,
    /// Another listener of its port has a protocol that cannot be served beside its own.
    OtherProtocol,
    /// Its protocol is not served.
    UnsupportedProtocol,
    /// A certificate that it names cannot be shown.
    Certificate,
    /// No `ReferenceGrant` lets it name an object of another namespace.
    NotPermitted,
    /// What it names as an object with certificates of authorities is of another kind.
    AuthorityKind,
    /// An object with certificates of authorities cannot be used.
    Authority,
    /// It asks clients for a certificate, and no authority for them can be used.
    NoAuthority,
}

/// Why a policy that is attached to something cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyFault {
    /// What it is to be attached to is not there, or nothing that it can be attached to.
    NoTarget,
    /// One of the objects with certificates of authorities cannot be used.
    Authority {
        /// Whether because it is of a kind that has none.
        is_kind: bool,
    },
    /// None of them can be used.
    NoAuthority,
}

/// Why a parent of a route does not take the route, or that of a `ListenerSet` not the `ListenerSet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detached {
    /// There is no such Service or Gateway, it has no such port or listener, or it cannot be a parent.
    NoSuchParent,
    /// What the Service speaks there is nothing for routes of this kind.
    OtherProtocol,
    /// No listener of the Gateway takes routes of this kind, or of this namespace.
    NotAllowed,
    /// No listener of the Gateway has a host name in common with the route.
    NoMatchingHostname,
    /// The same parent stands further up in the list.
    GivenTwice,
    /// Its copies at all listeners would take more room than its namespace has.
    TooLarge,
    /// Another route decides on every port.
    Overruled,
    /// Another route decides on some ports; on others, this one.
    OverruledInPart,
}

impl Detached {
    /// The reason of the Gateway API's condition `Accepted` (<https://gateway-api.sigs.k8s.io/reference/spec/#routeconditionreason>;
    /// `Conflicted` is of <https://gateway-api.sigs.k8s.io/geps/gep-1294/#route-types>). `None`: the route is accepted.
    pub fn gateway_reason(self) -> Option<&'static str> {
        match self {
            Self::NoSuchParent | Self::OtherProtocol => Some("NoMatchingParent"),
            Self::NotAllowed => Some("NotAllowedByListeners"),
            Self::NoMatchingHostname => Some("NoMatchingListenerHostname"),
            Self::GivenTwice | Self::TooLarge => Some("UnsupportedValue"),
            Self::Overruled => Some("Conflicted"),
            Self::OverruledInPart => None,
        }
    }
}

/// One thing that is wrong, for the person who wrote the document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Which document, if its name could be read.
    pub document: Option<DocumentName>,
    /// The file or directory; `None` for what is in a cluster, where the document's name says all.
    pub path: Option<Arc<Path>>,
    /// The line in that file, counted from 1.
    pub line: Option<u64>,
    /// Which field, such as `spec.http[0].timeout`; empty = the document as a whole.
    pub field: String,
    /// What is wrong and what to change.
    pub message: String,
    /// What kind of fault it is.
    #[serde(skip)]
    pub fault: Fault,
}

impl Problem {
    /// A problem with a file or directory as a whole.
    pub fn with_path(severity: Severity, path: &Path, message: impl Into<String>) -> Self {
        Self {
            severity,
            document: None,
            path: Some(Arc::from(path)),
            line: None,
            field: String::new(),
            message: message.into(),
            fault: Fault::Part,
        }
    }

    /// The same, of whose words no more is kept than anybody reads.
    #[must_use]
    pub(crate) fn short(mut self) -> Self {
        self.field = within(self.field, LONGEST_FIELD);
        self.message = within(self.message, LONGEST_MESSAGE);
        self
    }

    /// The same problem where whoever runs this accepts that policies are not enforced (`--allow-unenforced`).
    #[must_use]
    pub fn accepted(mut self) -> Self {
        if self.fault == Fault::Unenforced {
            self.severity = Severity::NotActedOn;
        }
        self
    }
}

/// How many problems of one kind and severity are told of one document, and how many of all kinds.
const MOST_OF_KIND: usize = 50;
const MOST_OF_DOCUMENT: usize = 500;

/// Those of `problems`, which are in order, that are told: of each document so many, and how many others there are in the place of
/// the first of these. A small document may have as many as it has fields, times as many as it speaks of; all are logged, and
/// shown to whoever asks.
#[must_use]
pub(crate) fn some_of_each(problems: Vec<Problem>) -> Vec<Problem> {
    /// What problems are of: a document, where it is, and a kind. `None`: all kinds.
    type Kind = (Option<DocumentName>, Option<Arc<Path>>, Option<(Severity, Fault)>);
    let of = |problem: &Problem, kind| -> Kind { (problem.document.clone(), problem.path.clone(), kind) };
    let mut known: HashMap<Kind, usize> = HashMap::new();
    for problem in &problems {
        *known.entry(of(problem, None)).or_default() += 1;
    }
    known.retain(|_, count| *count > MOST_OF_KIND);
    if known.is_empty() {
        return problems;
    }
    let crowded: HashSet<Kind> = known.into_keys().collect();
    let mut counts: HashMap<Kind, usize> = HashMap::new();
    // What stands for others, by its place among those that are told, and for how many.
    let mut others: HashMap<Kind, (usize, usize)> = HashMap::new();
    let mut told: Vec<Problem> = Vec::new();
    for problem in problems {
        let of_document = of(&problem, None);
        if !crowded.contains(&of_document) {
            told.push(problem);
            continue;
        }
        let kind = of(&problem, Some((problem.severity, problem.fault)));
        let [all, same] = [&of_document, &kind].map(|of| counts.get(of).copied().unwrap_or_default());
        if all < MOST_OF_DOCUMENT && same < MOST_OF_KIND {
            *counts.entry(of_document).or_default() += 1;
            *counts.entry(kind).or_default() += 1;
            told.push(problem);
            continue;
        }
        let of = if same < MOST_OF_KIND { of_document } else { kind };
        let (place, count) = others.entry(of).or_insert((told.len(), 0));
        *count += 1;
        let severity = problem.severity;
        if *place == told.len() {
            told.push(problem);
        }
        told[*place].severity = told[*place].severity.min(severity);
    }
    for ((.., kind), (place, count)) in others {
        let of_kind = if kind.is_some() { " of this kind" } else { "" };
        let [field, message] =
            [String::new(), format!("and {count} more problems{of_kind}; mend those first that are told")];
        told[place] = Problem { field, message, ..told[place].clone() };
    }
    told
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            f.write_str(&plain(&path.display().to_string()))?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(document) = &self.document {
            write!(f, "{document}: ")?;
        }
        // In a cluster anybody may write documents, and this comes to the terminals of others.
        if !self.field.is_empty() {
            write!(f, "{}: ", plain(&self.field))?;
        }
        f.write_str(&plain(&self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_is_called_controls_no_terminal_and_fills_none() {
        let name = DocumentName {
            kind: "Service".into(),
            namespace: "a\u{1b}[31m".into(),
            name: "b\n".repeat(1_000_000).into(),
        };
        let of_file =
            Problem::with_path(Severity::Error, Path::new("a\u{1b}[2J.yaml"), "ä".repeat(1_000_000));
        let problem = Problem { document: Some(name), field: "f".repeat(1_000_000), ..of_file }.short();

        let shown = problem.to_string();
        assert!(shown.starts_with("a\\u{1b}[2J.yaml: Service a\\u{1b}[31m/b\\nb"), "{shown:.200}");
        assert!(!shown.contains(char::is_control) && shown.ends_with("ä…") && shown.len() < 6_000);
    }

    #[test]
    fn of_very_many_problems_of_a_document_some_are_told_and_how_many_others_there_are() {
        let problem = |name: &str, severity, fault, index: usize| Problem {
            severity,
            document: Some(DocumentName { kind: "Service".into(), namespace: "a".into(), name: name.into() }),
            path: None,
            line: None,
            field: format!("spec.ports[{index}]"),
            message: "is wrong".to_owned(),
            fault,
        };
        let mut all = Vec::new();
        all.extend((0..1000).map(|index| problem("many", Severity::Warning, Fault::Between, index)));
        all.extend((0..3).map(|index| problem("many", Severity::Error, Fault::Between, index)));
        all.extend((0..50).map(|index| problem("few", Severity::Error, Fault::Part, index)));
        all.extend((0..600).map(|index| {
            let fault = Fault::Parent { index, why: Detached::NoSuchParent };
            problem("kinds", Severity::Error, fault, index)
        }));

        let told = some_of_each(all.clone());
        let of = |name: &str| -> Vec<&Problem> {
            told.iter().filter(|one| one.document.as_ref().is_some_and(|one| &*one.name == name)).collect()
        };
        let many = of("many");
        assert_eq!(many.len(), 51 + 3);
        assert_eq!(
            many[50].to_string(),
            "Service a/many: and 950 more problems of this kind; mend those first that are told"
        );
        assert_eq!(many[51..].iter().filter(|one| one.severity == Severity::Error).count(), 3);
        assert_eq!(of("few").len(), 50);
        assert_eq!(of("kinds").len(), 501);
        assert!(of("kinds")[500].message.starts_with("and 100 more problems;"));
        assert_eq!(told, some_of_each(all), "the same each time");
    }

    #[test]
    fn a_problem_reads_place_document_field_and_remedy() {
        let problem = Problem {
            severity: Severity::Error,
            document: Some(DocumentName {
                kind: "Service".into(),
                namespace: "default".into(),
                name: "a".into(),
            }),
            path: Some(Arc::from(Path::new("a.yaml"))),
            line: Some(3),
            field: "spec.ports".to_owned(),
            message: "is empty; name at least one port".to_owned(),
            fault: Fault::Part,
        };

        assert_eq!(
            problem.to_string(),
            "a.yaml:3: Service default/a: spec.ports: is empty; name at least one port"
        );
        assert_eq!(
            Problem::with_path(Severity::Error, Path::new("/etc/mesh"), "cannot be read").to_string(),
            "/etc/mesh: cannot be read"
        );
    }
}
