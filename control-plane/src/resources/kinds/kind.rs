//! What there is to say of one kind of objects.

use serde_json::Value;

use super::super::{
    document::wrong,
    fields::{self, KnownField},
    trim,
    unread::{Envelope, Read, Unread},
};

/// One kind of objects.
#[derive(Debug, Clone, Copy)]
pub struct ResourceKind {
    /// Such as `VirtualService`.
    pub kind: &'static str,
    /// What its documents are called here: `kind`, and where another kind has that name the group, too.
    pub called: &'static str,
    /// The versions that mean the same, best first: each with its group, such as `networking.istio.io/v1`.
    pub api_versions: &'static [&'static str],
    /// Its name in paths, such as `virtualservices`.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Where those who write its objects are told what became of them.
    pub feedback: Feedback,
    /// The annotations of an object that are acted on: all others are reported. `None` = annotations are others' business.
    pub(in super::super) annotations: Option<&'static [&'static [&'static str]]>,
    /// Whether it says who may do what. One that cannot be used, or has a field that nobody understands, is read as
    /// [strictly as it may be meant](super::super::unusable).
    pub(in super::super) is_policy: bool,
    /// Whether it holds what nobody may be told, so that no message repeats any of it. In a cluster it is not followed.
    pub(in super::super) is_secret: bool,
    /// Whether everything else goes on if the API server does not let us watch it.
    pub(crate) is_dispensable: bool,
    /// Whether its metadata says all that is read of it, so that in a cluster nothing else is asked for.
    pub(crate) is_metadata: bool,
    /// Drops of an object what no mesh reads.
    trim: fn(&mut Value),
    /// Reads a document.
    pub(in super::super) read: fn(&Unread<'_>) -> Read,
    /// The fields that `read` knows.
    fields: fn() -> Vec<KnownField>,
}

/// Where those who write the objects of a kind are told what became of them, in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// Nowhere: controllers make these objects by the thousand.
    Nowhere,
    /// In Events.
    Events,
    /// In `status.parents`, which has a place for every controller, and in Events: the routes of the Gateway API.
    Parents,
    /// In `status.ancestors`, which has a place for every controller, and in Events: the policies of the Gateway API.
    Ancestors,
    /// In `status.conditions`, and in Events: Istio's kinds.
    Conditions,
}

impl ResourceKind {
    /// A kind in namespaces that nothing acts on.
    pub(in super::super) const fn new(
        kind: &'static str,
        api_versions: &'static [&'static str],
        plural: &'static str,
        feedback: Feedback,
    ) -> Self {
        Self {
            kind,
            called: kind,
            api_versions,
            plural,
            namespaced: true,
            feedback,
            annotations: Some(&[]),
            is_policy: false,
            is_secret: false,
            is_dispensable: false,
            is_metadata: false,
            trim: trim::status,
            read: |unread| Err(wrong("kind", format!("{} is not acted on", unread.kind.kind))),
            fields: Vec::new,
        }
    }

    /// Another group has a kind of that name.
    pub(in super::super) const fn called(self, called: &'static str) -> Self {
        Self { called, ..self }
    }

    /// It lives in no namespace.
    pub(in super::super) const fn cluster_wide(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// `trim` drops of an object what no mesh reads, instead of its status alone.
    pub(in super::super) const fn trimmed(self, trim: fn(&mut Value)) -> Self {
        Self { trim, ..self }
    }

    /// It is acted on: `read` reads one whose `spec` has the fields of `Y`.
    pub(in super::super) const fn read_as_spec<Y: for<'de> serde::Deserialize<'de>>(
        self,
        read: fn(&Unread<'_>) -> Read,
    ) -> Self {
        Self { read, fields: fields::of::<Envelope<Y>>, ..self }
    }

    /// It is acted on: `read` reads one which as a whole has the fields of `Y`.
    pub(in super::super) const fn read_as_whole<Y: for<'de> serde::Deserialize<'de>>(
        self,
        read: fn(&Unread<'_>) -> Read,
    ) -> Self {
        Self { read, fields: fields::of::<Y>, ..self }
    }

    /// The annotations that are acted on, in groups.
    pub(in super::super) const fn with_annotations(self, groups: &'static [&'static [&'static str]]) -> Self {
        Self { annotations: Some(groups), ..self }
    }

    /// Whoever runs such objects has many annotations of his own there: none is reported.
    pub(in super::super) const fn with_any_annotations(self) -> Self {
        Self { annotations: None, ..self }
    }

    /// It says who may do what.
    pub(in super::super) const fn policy(self) -> Self {
        Self { is_policy: true, ..self }
    }

    /// Everything else goes on if the API server does not let us watch it.
    pub(in super::super) const fn dispensable(self) -> Self {
        Self { is_dispensable: true, ..self }
    }

    /// Nothing but its metadata is read.
    pub(in super::super) const fn metadata_only(self) -> Self {
        Self { is_metadata: true, ..self }
    }

    /// It holds secrets.
    pub(in super::super) const fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    /// Such as `networking.istio.io`; empty for Kubernetes' first kinds.
    pub fn group(&self) -> &'static str {
        self.api_versions[0].rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Drops of `object`, which is of this kind, what no mesh reads.
    pub(crate) fn trim(&self, object: &mut Value) {
        trim::metadata(object);
        (self.trim)(object);
    }

    /// Every field that its decoder knows, but for what all kinds have in common.
    pub fn known_fields(&self) -> Vec<KnownField> {
        let mut fields = (self.fields)();
        fields.retain(|field| !["apiVersion", "kind", "metadata", "status"].contains(&field.path.as_str()));
        fields
    }
}
