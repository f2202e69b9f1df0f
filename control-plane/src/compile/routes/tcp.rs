//! Which opaque connections to a service go where: `TCPRoute`s and `TLSRoute`s, or else the `tls` and `tcp` of
//! its `VirtualService`.

use std::collections::BTreeMap;

use selvedge_model::{Layer, Protocol, TcpMatch, TcpRule, TcpTable, WeightedBackend};

use super::{
    super::Problems,
    backends::{Backends, Share},
    may_be_opaque,
    parents::{Attached, Attachments, GatewayRoute, Rank},
    resolve::Reference,
};
use crate::resources::{
    Document, TcpRouteSpec,
    references::Parent,
    virtual_service::{Follower, TcpRoute, VirtualServiceSpec, asked},
};

type Route = Document<TcpRouteSpec>;

pub(super) type TcpRoutes<'a> = Attachments<'a, TcpRouteSpec>;

impl GatewayRoute for TcpRouteSpec {
    fn parents(&self) -> &[Parent] {
        &self.parents.services
    }

    fn rank(&self) -> Rank {
        match self.layer {
            Layer::Tls => Rank::Tls,
            Layer::Tcp => Rank::Tcp,
        }
    }

    fn suits(&self, protocol: Protocol) -> bool {
        may_be_opaque(protocol)
    }

    fn has_no_effect(&self, host: &str) -> String {
        format!("has no effect: {host} speaks HTTP there; name its port tcp, or use an HTTPRoute")
    }
}

/// What a route of a `VirtualService` is called.
pub(super) fn rule_name(document: &Document<VirtualServiceSpec>, route: &TcpRoute) -> String {
    format!("{} {}[{}]", document.name, route.list(), route.index)
}

impl Backends<'_> {
    /// The rules for opaque connections to this port. What no document speaks of goes to the whole service.
    pub(super) fn tcp_table(
        &mut self,
        attached: &[&Attached<'_, TcpRouteSpec>],
        document: Option<&Document<VirtualServiceSpec>>,
        problems: &mut Problems,
    ) -> TcpTable {
        let mut rules = Vec::new();
        for layer in [Layer::Tls, Layer::Tcp] {
            match attached.first().filter(|first| first.route.spec.layer == layer) {
                None => {
                    let routes = document.into_iter();
                    rules.extend(
                        routes.flat_map(|document| self.istio(document, layer, Follower::Sidecar, problems)),
                    );
                }
                Some(winner) => {
                    // A client's own route says nothing of what others follow.
                    let document = document.filter(|_| !winner.for_own_namespace);
                    self.report_passed_over(document, layer, winner.route, problems);
                    rules.extend(self.gateway(attached, layer, problems));
                }
            }
        }
        // As in Istio; but what is left out because it cannot be checked might be for the connection.
        let any_left_out =
            document.is_some_and(|document| document.spec.opaque(Layer::Tcp).any(|route| route.left_out));
        let of_tcp = || rules.iter().filter(|rule: &&TcpRule| rule.layer == Layer::Tcp);
        let needs_default =
            of_tcp().next().is_none() || !any_left_out && !of_tcp().any(TcpRule::is_for_every_connection);
        if let Some(backend) = needs_default.then(|| self.own()).flatten() {
            rules.push(TcpRule {
                name: TcpRule::DEFAULT.to_owned(),
                layer: Layer::Tcp,
                matches: Vec::new(),
                backends: vec![WeightedBackend::new(backend, 1)],
            });
        }
        self.leave_tls_as_it_is(&mut rules);
        TcpTable { rules }
    }

    /// An app that begins TLS itself means the server behind a `BackendTLSPolicy`, and not a second TLS around it.
    fn leave_tls_as_it_is(&mut self, rules: &mut Vec<TcpRule>) {
        let begins = |rule: &TcpRule| rule.backends.iter().any(|one| self.begins_tls_for_policy(one.backend));
        if rules.iter().any(|rule| rule.layer == Layer::Tls) || !rules.iter().any(begins) {
            return;
        }
        let of_tls = |rule: &TcpRule| {
            let backends = rule.backends.iter();
            let backends = backends
                .map(|one| WeightedBackend { backend: self.without_policys_tls(one.backend), ..one.clone() });
            TcpRule { layer: Layer::Tls, backends: backends.collect(), ..rule.clone() }
        };
        let of_tls: Vec<TcpRule> = rules.iter().map(of_tls).collect();
        rules.extend(of_tls);
    }

    /// The index of what is called instead of the backend at `index` by connections of this `layer`: those that are TLS
    /// already stay as they are.
    pub(in super::super) fn at_layer(&mut self, index: usize, layer: Layer) -> usize {
        match layer {
            Layer::Tls => self.without_policys_tls(index),
            Layer::Tcp => index,
        }
    }

    /// The rules of a `VirtualService`'s `tls` or `tcp` for this port.
    pub(super) fn istio(
        &mut self,
        document: &Document<VirtualServiceSpec>,
        layer: Layer,
        follower: Follower<'_>,
        problems: &mut Problems,
    ) -> Vec<TcpRule> {
        let mut rules = Vec::new();
        for route in document.spec.opaque(layer) {
            let Some(matches) = asked(route.matches.as_deref(), self.number, follower) else {
                continue;
            };
            let field = format!("{}.route", route.field());
            let backends = route.destinations.iter().map(|destination| {
                let reference = Reference::Destination(destination);
                let backend = self.backend(document, &field, reference, Share::Connections, problems);
                WeightedBackend::new(self.at_layer(backend, layer), destination.weight)
            });
            let backends = backends.collect();
            let name = rule_name(document, route);
            rules.push(TcpRule { name, layer, matches, backends });
        }
        rules
    }

    /// A `VirtualService`'s routes that a Gateway API route replaces.
    fn report_passed_over(
        &self,
        document: Option<&Document<VirtualServiceSpec>>,
        layer: Layer,
        winner: &Route,
        problems: &mut Problems,
    ) {
        let Some(document) = document else { return };
        if let Some(route) = document.spec.opaque(layer).next() {
            let message = format!(
                "has no effect on {}: {} ({}) decides there; remove one of them",
                self.called(),
                winner.name,
                winner.location
            );
            problems.overruled(document, &format!("spec.{}", route.list()), message);
        }
    }

    fn gateway(
        &mut self,
        routes: &[&Attached<'_, TcpRouteSpec>],
        layer: Layer,
        problems: &mut Problems,
    ) -> Vec<TcpRule> {
        let mut rules = Vec::new();
        let mut taken: BTreeMap<&str, &Route> = BTreeMap::new();
        for attached @ Attached { route, .. } in routes.iter().copied() {
            let names = match route.spec.hostnames.as_slice() {
                [] => vec![""],
                names => names.iter().map(String::as_str).collect(),
            };
            let mut matches = Vec::new();
            for name in names {
                if let Some(first) = taken.get(name) {
                    if std::ptr::eq(*first, *route) {
                        // By its port and as one of all; or it gives the name twice.
                        problems.decides(route, attached.parent.index);
                        continue;
                    }
                    let message = format!(
                        "{} already follows {} ({}), so this route has no effect there; merge them",
                        self.called(),
                        first.name,
                        first.location
                    );
                    problems.overruled_at(route, attached.parent.index, message);
                    continue;
                }
                taken.insert(name, route);
                let server_names = if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
                matches.push(TcpMatch { server_names, ..TcpMatch::default() });
            }
            if matches.is_empty() {
                continue;
            }
            problems.decides(route, attached.parent.index);
            let backends = self.gateway_shares(route, layer, problems);
            rules.push(TcpRule { name: route.name.to_string(), layer, matches, backends });
        }
        rules
    }

    /// The rule of `route` for every connection of a gateway's virtual host, which is chosen by the name that TLS asks for.
    /// `comes`: [`Layer::Tls`] if TLS goes on to the backend as it is.
    pub(in super::super) fn gateway_tcp_rule(
        &mut self,
        route: &Route,
        comes: Layer,
        problems: &mut Problems,
    ) -> TcpRule {
        let backends = self.gateway_shares(route, comes, problems);
        TcpRule { name: route.name.to_string(), layer: Layer::Tcp, matches: Vec::new(), backends }
    }

    fn gateway_shares(
        &mut self,
        route: &Route,
        layer: Layer,
        problems: &mut Problems,
    ) -> Vec<WeightedBackend> {
        let backends = route.spec.backends.iter().map(|backend| {
            let (list, reference) = ("spec.rules[0].backendRefs", Reference::Object(backend));
            let index = self.backend(route, list, reference, Share::Connections, problems);
            WeightedBackend::new(self.at_layer(index, layer), backend.weight)
        });
        backends.collect()
    }
}
