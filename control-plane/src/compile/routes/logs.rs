//! What a route's annotations say of the access log, and where they count.

use selvedge_model::AccessLog;

use super::{
    super::{Problems, telemetry},
    VirtualService,
    backends::Backends,
    delegates::delegate_field,
};
use crate::{problem::Severity, resources::Document};

impl Backends<'_> {
    /// Where lines about the requests of `document` go; `None`: as its clients' proxies do. What a gateway writes down is said by
    /// its own namespace and by the root namespace: nobody else takes lines about strangers from who runs it.
    /// `left_by`: as in [`Effective`](super::delegates::Effective).
    pub(super) fn access_log<T>(
        &self,
        document: &Document<T>,
        left_by: Option<(&VirtualService, usize)>,
        problems: &mut Problems,
    ) -> Option<AccessLog> {
        let said = telemetry::of_route(document)?;
        let (own, root) = (&*document.name.namespace, &*self.routing.settings.root_namespace);
        let Some(gateway) = self.gateway else { return Some(said) };
        if [Some(gateway), self.client.namespace, Some(root)].contains(&Some(own)) {
            return Some(said);
        }
        let message = format!(
            "the annotations for the access log are not acted on at gateways of the namespace {gateway}: only documents there \
             and in {root} say what those write down; have one of them say it, or write a Telemetry there"
        );
        let problem = match left_by {
            Some((root, index)) => {
                let message = format!("of {}: {message}", document.name);
                root.problem(Severity::NotActedOn, &delegate_field(index), message)
            }
            None => document.problem(Severity::NotActedOn, "metadata.annotations", message),
        };
        problems.add_between(problem);
        None
    }
}
