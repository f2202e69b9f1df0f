//! Identities as Linkerd writes them, and what they are as SPIFFE IDs.
//!
//! `ACCOUNT.NAMESPACE.serviceaccount.identity.linkerd.TRUST-DOMAIN` is `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
//! A name that begins with `*.` stands for every identity that ends so, and `*` for every identity.

use selvedge_model::policy::TextPattern;

const ACCOUNTS: &str = "serviceaccount.identity.";

/// What an identity stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// For what its SPIFFE ID, without `spiffe://`, matches. `cluster.local` stands for the mesh's own trust domain.
    Of(TextPattern),
    /// For every identity of the trust domains of which `serviceaccount.identity.linkerd.TRUST-DOMAIN` ends so.
    EndsWith(String),
    /// For nobody: it is not the name of an identity of a mesh.
    Nobody,
}

impl Identity {
    /// What `text` stands for.
    pub fn of(text: &str) -> Self {
        if text == "*" {
            return Self::Of(TextPattern::Present);
        }
        if let Some(id) = text.strip_prefix("spiffe://") {
            return Self::Of(TextPattern::Exact(id.into()));
        }
        match text.strip_prefix("*.") {
            Some(end) => Self::of_end(end),
            None => Self::of_name(text),
        }
    }

    fn of_name(text: &str) -> Self {
        let Some((account, namespace, domain)) = parts(text) else { return Self::Nobody };
        match account {
            Some(account) => {
                Self::Of(TextPattern::Exact(format!("{domain}/ns/{namespace}/sa/{account}").into()))
            }
            None => Self::Nobody,
        }
    }

    fn of_end(end: &str) -> Self {
        if let Some(domain) = end.strip_prefix(ACCOUNTS).and_then(domain) {
            return Self::Of(TextPattern::Prefix(format!("{domain}/").into()));
        }
        match parts(end) {
            Some((None, namespace, domain)) => {
                Self::Of(TextPattern::Prefix(format!("{domain}/ns/{namespace}/sa/").into()))
            }
            Some((Some(account), namespace, domain)) => {
                let start = format!("{domain}/ns/{namespace}/sa/").into();
                Self::Of(TextPattern::Glob(vec![start, format!(".{account}").into()]))
            }
            None => Self::EndsWith(end.to_owned()),
        }
    }
}

/// Account, namespace and trust domain of an identity's name; the account is missing in what names a namespace.
fn parts(text: &str) -> Option<(Option<&str>, &str, &str)> {
    let (whose, rest) = text.rsplit_once(&format!(".{ACCOUNTS}"))?;
    let (account, namespace) = match whose.rsplit_once('.') {
        Some((account, namespace)) => (Some(account), namespace),
        None => (None, whose),
    };
    let is_empty = namespace.is_empty() || account.is_some_and(str::is_empty);
    (!is_empty).then_some((account, namespace, domain(rest)?))
}

/// The trust domain of `linkerd.TRUST-DOMAIN`; the first word is the namespace of Linkerd's control plane.
fn domain(text: &str) -> Option<&str> {
    let (control_plane, domain) = text.split_once('.')?;
    (!control_plane.is_empty() && !domain.is_empty()).then_some(domain)
}
