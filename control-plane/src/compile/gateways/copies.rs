//! How much the documents of one namespace may come to at gateways.
//!
//! A route is sent to a gateway once for each listener and host name that it is at. So a few large documents at many
//! listeners would be a thousand times their size, for the control plane and for each pod of the gateway. What comes to
//! more than [`MOST`] is refused, whole documents at a time: of one namespace the oldest are served.

use std::collections::HashMap;

use crate::{problem::DocumentName, resources::Document};

/// How much more than itself the documents of a namespace may come to at gateways, in bytes, for each of: routes of the
/// Gateway API, `Ingress`es, `VirtualService`s.
const MOST: usize = 64 << 20;

/// What the documents of each namespace come to, so far.
#[derive(Debug, Default)]
pub(super) struct Copies<'a>(HashMap<&'a str, usize>);

impl<'a> Copies<'a> {
    /// Takes room for `document` at `times` host names of listeners.
    ///
    /// # Errors
    /// If its namespace has no room for them: why, and what to do.
    pub(super) fn take<T>(&mut self, document: &'a Document<T>, times: usize) -> Result<(), String> {
        self.take_more(&document.name, times.saturating_sub(1), document.size)
    }

    /// Takes room for `more` times `size`, in bytes, because the document `name` says so.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) fn take_more(
        &mut self,
        name: &'a DocumentName,
        more: usize,
        size: usize,
    ) -> Result<(), String> {
        let namespace: &'a str = &name.namespace;
        let used = self.0.entry(namespace).or_default();
        let needed = size.saturating_mul(more);
        if needed > MOST - *used {
            return Err(format!(
                "its {} copies, one for each host name of each listener, would take {} MiB, and the namespace {namespace} \
                 has {} of {} MiB left for copies; name fewer listeners or hosts, or split it",
                more.saturating_add(1),
                mebibytes(needed),
                (MOST - *used) >> 20,
                MOST >> 20,
            ));
        }
        *used += needed;
        Ok(())
    }
}

/// Rounded up.
fn mebibytes(bytes: usize) -> usize {
    bytes.div_ceil(1 << 20)
}
