//! `exportTo`: the namespaces whose clients a document of Istio's is for.

use std::collections::BTreeSet;

use super::{document::wrong, typed::FieldError, values::is_dns_label};

/// Whose clients a document is for. Default: everybody's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExportTo {
    everywhere: bool,
    own: bool,
    namespaces: BTreeSet<String>,
}

/// How closely a document is for a client. Of two documents for one host the closer counts, as in Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// It names its own namespace (`.`), which is the client's.
    Own,
    /// It names the client's namespace.
    Named,
    /// It is for everybody.
    Everybody,
}

impl Default for ExportTo {
    fn default() -> Self {
        Self { everywhere: true, own: false, namespaces: BTreeSet::new() }
    }
}

impl ExportTo {
    /// Whether a document in the namespace `own` is for the clients of `client`; `None`: of a namespace that no
    /// document names.
    pub fn includes(&self, own: &str, client: Option<&str>) -> bool {
        let named = |client| (self.own && client == own) || self.namespaces.contains(client);
        self.everywhere || client.is_some_and(named)
    }

    /// The namespaces that it is for, if it is in `own` and not for all.
    pub fn namespaces<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'a str> {
        let own = (self.own && !self.everywhere).then_some(own);
        let listed = self.namespaces.iter().map(String::as_str).filter(|_| !self.everywhere);
        own.into_iter().chain(listed)
    }

    /// How many namespaces it names.
    pub fn named(&self) -> usize {
        self.namespaces.len()
    }

    /// Whether a document in `own` and one in `other_own` with `other` are both for somebody.
    pub fn meets(&self, own: &str, other: &Self, other_own: &str) -> bool {
        match (self.everywhere, other.everywhere) {
            (true, true) => true,
            (true, false) => other.namespaces(other_own).next().is_some(),
            (false, true) => self.namespaces(own).next().is_some(),
            (false, false) => self.namespaces(own).any(|client| other.includes(other_own, Some(client))),
        }
    }

    /// How closely a document in `own` is for the clients of `client`; `None`: it is not for them.
    pub fn closeness(&self, own: &str, client: Option<&str>) -> Option<Closeness> {
        match client {
            _ if self.everywhere => Some(Closeness::Everybody),
            Some(client) if self.own && client == own => Some(Closeness::Own),
            Some(client) if self.namespaces.contains(client) => Some(Closeness::Named),
            _ => None,
        }
    }

    /// The same, but for clients of the document's own namespace alone; it is in `own`.
    #[must_use]
    pub fn own_alone(&self, own: &str) -> Self {
        Self { everywhere: false, own: self.includes(own, Some(own)), namespaces: BTreeSet::new() }
    }

    /// For the clients of the document's own namespace.
    pub(super) fn own() -> Self {
        Self { everywhere: false, own: true, namespaces: BTreeSet::new() }
    }

    /// Whether it is for the clients of `own`, where its document is, and for no others.
    pub(super) fn is_own_alone(&self, own: &str) -> bool {
        self.includes(own, Some(own)) && !self.leaves(own)
    }

    /// Whether a document in `own` is for somebody in another namespace.
    pub fn leaves(&self, own: &str) -> bool {
        self.everywhere || self.namespaces.iter().any(|namespace| namespace != own)
    }

    /// Whether it is for everybody.
    pub fn is_everywhere(&self) -> bool {
        self.everywhere
    }
}

/// Reads `spec.exportTo`: `*` is everybody, `.` the document's own namespace, `~` nobody, anything else a namespace.
pub(super) fn read(words: Option<Vec<String>>, own: &str) -> Result<ExportTo, FieldError> {
    let words = words.unwrap_or_default();
    if words.is_empty() {
        return Ok(ExportTo::default());
    }
    let mut read = ExportTo { everywhere: false, own: false, namespaces: BTreeSet::new() };
    let several = words.len() > 1;
    if let Some(index) = given_twice(&words, own) {
        let message = format!("{:?} is given twice; keep one of them", words[index]);
        return Err(wrong(format!("spec.exportTo[{index}]"), message));
    }
    for (index, word) in words.into_iter().enumerate() {
        match word.as_str() {
            "*" if several => {
                let message = "* exports to all, so the other namespaces say nothing; remove them, or it";
                return Err(wrong(format!("spec.exportTo[{index}]"), message));
            }
            "*" => read.everywhere = true,
            "." => read.own = true,
            "~" if several => {
                let message = "~ exports to nobody, but the list also has namespaces; remove one of them";
                return Err(wrong(format!("spec.exportTo[{index}]"), message));
            }
            "~" => {}
            name if is_namespace(name) => drop(read.namespaces.insert(word)),
            name => {
                let message = format!(
                    "{name:?} is not a namespace; write one, or \".\" (its own), \"*\" (all) or \"~\" (none)"
                );
                return Err(wrong(format!("spec.exportTo[{index}]"), message));
            }
        }
    }
    Ok(read)
}

/// The place of the first of `words` that another one before it says already.
fn given_twice(words: &[String], own: &str) -> Option<usize> {
    let mut given = BTreeSet::new();
    words.iter().position(|word| !given.insert(if word == "." { own } else { word }))
}

/// The same for what somebody must know of, which only a service need not be.
pub(super) fn read_known(words: Option<Vec<String>>, own: &str) -> Result<ExportTo, FieldError> {
    if let Some(index) = words.iter().flatten().position(|word| word == "~") {
        let message =
            "~ is for nobody, which only a ServiceEntry can be; write \".\", or remove the document";
        return Err(wrong(format!("spec.exportTo[{index}]"), message));
    }
    read(words, own)
}

/// RFC 1123 labels, as Kubernetes names namespaces.
fn is_namespace(name: &str) -> bool {
    is_dns_label(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(words: &[&str]) -> ExportTo {
        read(Some(words.iter().map(ToString::to_string).collect()), "own").unwrap()
    }

    #[test]
    fn a_document_is_for_whom_it_names() {
        for (words, for_a, for_b, for_others) in [
            (&["*"][..], true, true, true),
            (&["."], true, false, false),
            (&["b"], false, true, false),
            (&[".", "b"], true, true, false),
            (&["~"], false, false, false),
            (&[], true, true, true),
        ] {
            let to = to(words);
            let seen = [Some("a"), Some("b"), None].map(|client| to.includes("a", client));
            assert_eq!(seen, [for_a, for_b, for_others], "{words:?}");
        }
    }

    #[test]
    fn two_documents_meet_where_somebody_sees_both() {
        assert!(to(&["*"]).meets("a", &to(&["."]), "b"));
        assert!(!to(&["."]).meets("a", &to(&["."]), "b"));
        assert!(to(&["."]).meets("a", &to(&["a"]), "b"));
        assert!(!to(&["~"]).meets("a", &to(&["*"]), "b"));
    }

    #[test]
    fn nobody_together_with_somebody_and_what_is_no_namespace_are_refused() {
        for words in [["~", "a"], ["A", "b"], ["a", "b c"], [".", "own"], ["a", "a"]] {
            assert!(read(Some(words.iter().map(ToString::to_string).collect()), "own").is_err(), "{words:?}");
        }
        assert!(read_known(Some(vec!["~".to_owned()]), "own").is_err());
    }
}
