//! `AuthorizationPolicy` (of Linkerd) and `ServerAuthorization`: what each grants, and to which `Server`s.

use std::{collections::HashMap, sync::Arc};

use selvedge_model::policy::{Asks, Condition, Rule, ServerRoutes};

use super::{
    clients::{Identities, alternatives},
    routes::{RouteId, Routes},
};
use crate::{
    compile::{MeshSettings, Problems},
    problem::DocumentName,
    resources::{
        Document, MeshTlsSpec, NetworksSpec, Resources, ServerAuthorizationSpec, ServerPolicySpec,
        linkerd_policy::{
            Named,
            authorization::{Authentication, Target},
            networks::Network,
            server_authorization,
        },
    },
};

/// What one document grants at one server.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    name: Arc<str>,
    from: Vec<Vec<Condition>>,
    /// Only requests of this route; `None`: everything.
    route: Option<RouteId>,
}

impl Granted {
    /// As a rule of the server that has these routes.
    pub(super) fn rule(&self, routes: Option<&ServerRoutes>) -> Rule {
        let mut rule = Rule { from: self.from.clone(), ..Rule::everything(Arc::clone(&self.name)) };
        if let Some(route) = &self.route {
            let rules = routes.map(|routes| routes.table().rules()).unwrap_or_default().iter().enumerate();
            let places = rules.filter(|(_, rule)| route.is_of(&rule.name)).map(|(place, _)| place);
            rule.when.push(Condition { asks: Asks::Route(places.collect()), negated: false });
        }
        rule
    }
}

/// What is granted at each server.
pub(super) fn granted(
    resources: &Resources,
    settings: &MeshSettings,
    routes: &Routes<'_>,
    problems: &mut Problems,
) -> HashMap<DocumentName, Vec<Granted>> {
    let mut reader = Reader { resources, settings, routes, problems, granted: HashMap::new() };
    for document in &resources.server_policies {
        reader.policy(document);
    }
    for document in &resources.server_authorizations {
        reader.authorization(document);
    }
    reader.granted
}

struct Reader<'a, 'p> {
    resources: &'a Resources,
    settings: &'a MeshSettings,
    routes: &'a Routes<'a>,
    problems: &'p mut Problems,
    granted: HashMap<DocumentName, Vec<Granted>>,
}

impl Reader<'_, '_> {
    fn grant(&mut self, server: &DocumentName, granted: Granted) {
        self.granted.entry(server.clone()).or_default().push(granted);
    }

    fn policy(&mut self, document: &Document<ServerPolicySpec>) {
        let Some(from) = self.clients(document) else { return };
        let namespace = &*document.name.namespace;
        let (servers, route) = match &document.spec.target {
            Target::Namespace => (self.servers(|server| server.namespace == document.name.namespace), None),
            Target::Server(name) => {
                (self.servers(|server| &*server.namespace == namespace && &*server.name == name), None)
            }
            Target::Route { kind, name } => {
                let route = RouteId::new(kind, namespace, name);
                (self.routes.servers_of(&route), Some(route))
            }
        };
        if servers.is_empty() {
            let what = match &document.spec.target {
                Target::Namespace => format!("namespace {namespace} has no Server"),
                Target::Server(name) => format!("there is no Server {name} in namespace {namespace}"),
                Target::Route { kind, name } => {
                    format!("no {kind} {name} in namespace {namespace} has a Server of it as its parent")
                }
            };
            let message = format!("{what}, so this lets nobody in; correct it, or write what is missing");
            self.problems.error(document, "spec.targetRef", message);
        }
        let name: Arc<str> = document.name.to_string().into();
        for server in servers {
            self.grant(
                &server,
                Granted { name: Arc::clone(&name), from: from.clone(), route: route.clone() },
            );
        }
    }

    fn servers(&self, is_one: impl Fn(&DocumentName) -> bool) -> Vec<DocumentName> {
        let names = self.resources.servers.iter().map(|server| &server.name);
        names.filter(|name| is_one(name)).cloned().collect()
    }

    /// Whom a policy lets in; `None`: it asks for what there is not, so nobody.
    fn clients(&mut self, document: &Document<ServerPolicySpec>) -> Option<Vec<Vec<Condition>>> {
        let (mut identities, mut networks) = (None, Vec::new());
        for (number, required) in document.spec.required.iter().enumerate() {
            let found = match required {
                Authentication::Account(account) => {
                    let mut one = Identities::default();
                    one.add_account(account, &document.name.namespace, self.settings);
                    identities = Some(one);
                    true
                }
                Authentication::MeshTls(named) => {
                    identities = self.mesh_tls(document, named);
                    identities.is_some()
                }
                Authentication::Network(named) => {
                    let found = self.networks(document, named);
                    networks = found.unwrap_or_default().to_vec();
                    found.is_some()
                }
            };
            if !found {
                let message = "names what does not exist, so this policy lets nobody in; correct the name, or write \
                               the document";
                let field = format!("spec.requiredAuthenticationRefs[{number}]");
                self.problems.error(document, &field, message);
                return None;
            }
        }
        Some(alternatives(identities.as_ref(), &networks))
    }

    fn mesh_tls(&self, document: &Document<ServerPolicySpec>, named: &Named) -> Option<Identities> {
        let found: &Document<MeshTlsSpec> =
            find(&self.resources.mesh_tls_authentications, &document.name.namespace, named)?;
        let mut identities = Identities::default();
        found.spec.identities.iter().for_each(|identity| identities.add(identity, self.settings));
        let here = &found.name.namespace;
        found.spec.accounts.iter().for_each(|account| identities.add_account(account, here, self.settings));
        found.spec.namespaces.iter().for_each(|name| identities.add_namespace(name, self.settings));
        Some(identities)
    }

    fn networks(&self, document: &Document<ServerPolicySpec>, named: &Named) -> Option<&[Network]> {
        let found: &Document<NetworksSpec> =
            find(&self.resources.network_authentications, &document.name.namespace, named)?;
        Some(&found.spec.networks)
    }

    fn authorization(&mut self, document: &Document<ServerAuthorizationSpec>) {
        let ServerAuthorizationSpec { servers, networks, identities } = &document.spec;
        let wanted = |server: &Document<crate::resources::ServerSpec>| {
            server.name.namespace == document.name.namespace
                && match servers {
                    server_authorization::Servers::Named(name) => *name == *server.name.name,
                    server_authorization::Servers::Labelled(labels) => {
                        labels.selects(&server.metadata.labels)
                    }
                }
        };
        let chosen = self.resources.servers.iter().filter(|server| wanted(server));
        let chosen: Vec<DocumentName> = chosen.map(|server| server.name.clone()).collect();
        if chosen.is_empty() {
            let message =
                "selects no Server of its namespace, so this lets nobody in; compare names and labels";
            self.problems.error(document, "spec.server", message);
        }
        let identities = identities.as_ref().map(|any| {
            let mut all = Identities::default();
            any.identities.iter().for_each(|identity| all.add(identity, self.settings));
            let here = &document.name.namespace;
            any.accounts.iter().for_each(|account| all.add_account(account, here, self.settings));
            all
        });
        let (name, from) =
            (Arc::from(document.name.to_string()), alternatives(identities.as_ref(), networks));
        for server in chosen {
            self.grant(&server, Granted { name: Arc::clone(&name), from: from.clone(), route: None });
        }
    }
}

fn find<'a, T>(list: &'a [Arc<Document<T>>], here: &str, named: &Named) -> Option<&'a Document<T>> {
    let namespace = named.namespace.as_deref().unwrap_or(here);
    let is_it = |one: &&Arc<Document<T>>| *one.name.namespace == *namespace && *one.name.name == *named.name;
    list.iter().find(is_it).map(|found| &**found)
}
