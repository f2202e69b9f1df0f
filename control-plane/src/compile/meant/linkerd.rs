//! Linkerd's policies.

use std::collections::BTreeSet;

use selvedge_model::policy::TextPattern;

use super::{super::Problems, Asked, Chosen, Facing, nobody_has, report_unenforced};
use crate::resources::{
    Document, Resources, ServerSpec,
    linkerd_policy::{
        Named, authorization::Authentication, identity::Identity, server::ServerPort, server_authorization,
    },
};

impl<'m, 'w> Asked<'m, 'w> {
    pub(super) fn linkerd(&self, resources: &Resources, problems: &mut Problems) {
        for server in &resources.servers {
            let chosen = self.behind(server);
            report_unenforced(server, "spec.podSelector", &chosen, problems);
        }
        for policy in resources.server_policies.iter().filter(|policy| policy.location.path.is_some()) {
            for (number, required) in policy.spec.required.iter().enumerate() {
                let Authentication::Account(account) = required else { continue };
                let field = format!("spec.requiredAuthenticationRefs[{number}]");
                self.account(policy, &field, account, problems);
            }
        }
        let of_files = resources.mesh_tls_authentications.iter();
        for document in of_files.filter(|document| document.location.path.is_some()) {
            for account in &document.spec.accounts {
                self.account(document, "spec.identityRefs", account, problems);
            }
            self.identities(document, "spec.identities", &document.spec.identities, problems);
        }
        let of_files = resources.server_authorizations.iter();
        for document in of_files.filter(|document| document.location.path.is_some()) {
            let Some(server_authorization::Identities { identities, accounts }) = &document.spec.identities
            else {
                continue;
            };
            for account in accounts {
                self.account(document, "spec.client.meshTLS.serviceAccounts", account, problems);
            }
            self.identities(document, "spec.client.meshTLS.identities", identities, problems);
        }
    }

    /// The workloads of which a server is a port, and the port.
    fn behind(&self, server: &Document<ServerSpec>) -> Vec<Chosen<'m, 'w>> {
        let Some(selector) = &server.spec.workloads else { return Vec::new() };
        let here = self.meant.by_namespace.get(&*server.name.namespace).into_iter().flatten();
        let is_one =
            |one: &&'m Facing<'w>| one.selected.labels.is_some_and(|labels| selector.selects(labels));
        let port = match &server.spec.port {
            ServerPort::Number(port) => Some(BTreeSet::from([*port])),
            // It is another one at each workload.
            ServerPort::Named(_) => None,
        };
        here.filter(is_one).map(|one| (one, port.clone())).collect()
    }

    fn account<T>(&self, document: &Document<T>, field: &str, account: &Named, problems: &mut Problems) {
        let namespace = account.namespace.as_deref().unwrap_or(&document.name.namespace);
        if !self.is_account(namespace, &account.name) {
            problems.warning(document, field, nobody_has((namespace, &account.name)));
        }
    }

    fn identities<T>(
        &self,
        document: &Document<T>,
        field: &str,
        identities: &[Identity],
        problems: &mut Problems,
    ) {
        for (number, identity) in identities.iter().enumerate() {
            let Identity::Of(TextPattern::Exact(text)) = identity else { continue };
            if let Some(missing) = self.missing_account(text) {
                problems.warning(document, &format!("{field}[{number}]"), nobody_has(missing));
            }
        }
    }
}
