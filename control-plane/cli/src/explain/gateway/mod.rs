//! A client outside of the mesh: which gateway and listener its request or connection comes to, what the gateway's own
//! policies say of it, and then the way onwards, as from a sidecar.
//!
//! The choices are those of the code that a gateway runs: the model chooses listener and virtual host, the proxy tells the app
//! about the client, and TLS is that of its listeners.

mod entry;
mod find;
mod outside;
mod policies;
mod stand_in;
mod view;

use selvedge_control_plane::{
    compile::{RuleLocations, compile, our_gateways, our_ingresses},
    resources::Resources,
    sources::Loaded,
};
use selvedge_model::{Mesh, Service, gateway::Gateway};
use selvedge_proxy::error::Failure;

use self::{
    entry::{Came, Entry},
    find::Known,
    outside::Asks,
    policies::Policies,
};
pub(super) use self::{outside::Outside, view::GatewayView};
use super::{
    caller::Caller,
    explanation::{Answer, Explanation, RequestView, Sender},
    request::{Counted, Way},
};
use crate::documents::DocumentArgs;

/// What would become of what a client `outside` asks for, by the documents that are `loaded`.
///
/// # Errors
/// If no gateway can be meant, or several can.
pub(super) fn of(
    loaded: &Loaded,
    documents: &DocumentArgs,
    outside: &Outside,
) -> Result<Explanation, String> {
    let settings = documents.settings();
    let Counted { mesh, errors } = Counted::of(loaded, &settings);
    let with_all = stand_in::with_all(&loaded.resources, &mesh, &settings)?;
    let mesh = match &with_all {
        Some(resources) => compile(resources, &settings, &Mesh::default()).0,
        None => mesh,
    };
    let known = Known::all(&mesh);
    let found = find::find(&known, &loaded.resources, outside)?;
    let mut explanation = Explanation::new(outside.sender(), errors, RequestView::of(&outside.request));
    let gateway = At { mesh: &mesh, loaded, found, outside };
    gateway.explain(&mut explanation);
    Ok(explanation.finished(outside.is_grpc))
}

/// A client at one gateway.
struct At<'a> {
    mesh: &'a Mesh,
    loaded: &'a Loaded,
    found: &'a Known<'a>,
    outside: &'a Outside,
}

impl At<'_> {
    fn explain(&self, explanation: &mut Explanation) {
        let mut view = GatewayView::new(self.found);
        let reads_secrets = reads_secrets(&self.loaded.resources);
        let entry = Entry { found: self.found, outside: self.outside, reads_secrets };
        let came = entry.enter(&mut view);
        match came {
            Err(refusal) => explanation.refused = Some(refusal),
            Ok(came) if came.is_opaque() => self.connection(&came, &mut view, explanation),
            Ok(_) if self.outside.asks == Asks::Anything => explanation.depends_on_the_request = true,
            Ok(came) => self.request(&came, &mut view, explanation),
        }
        explanation.gateway = Some(view);
    }

    /// A request that has come in.
    fn request(&self, came: &Came<'_>, view: &mut GatewayView, explanation: &mut Explanation) {
        let policies = Policies::new(self.mesh, self.found, came, self.outside);
        let mut request = self.outside.request.clone();
        let let_in = match self.outside.settle(&mut request, came.is_secure(), came.client_certificate()) {
            Ok(()) => policies.let_in(&mut request, view),
            Err(error) => Err(Answer::failure(error.failure.reason, error.failure.what)),
        };
        explanation.request = RequestView::of(&request);
        view.told(&explanation.request);
        let service = let_in.and_then(|()| service(&self.found.gateway, came).map_err(answer));
        match service {
            Err(answer) => explanation.answer = Some(answer),
            Ok(service) => self.onwards(request, came, |way| way.service(service, explanation)),
        }
    }

    /// A connection whose bytes are carried as they are.
    fn connection(&self, came: &Came<'_>, view: &mut GatewayView, explanation: &mut Explanation) {
        let policies = Policies::new(self.mesh, self.found, came, self.outside);
        let service = policies
            .let_connection_in(view)
            .and_then(|()| service(&self.found.gateway, came).map_err(|failure| failure.into()));
        match service {
            Err(refusal) => explanation.refused = Some(refusal),
            Ok(service) => {
                self.onwards(self.outside.request.clone(), came, |way| way.opaque(service, explanation));
            }
        }
    }

    /// The way of `request` from the gateway to the services behind it.
    fn onwards(&self, request: http::Request<()>, came: &Came<'_>, go: impl FnOnce(Way<'_>)) {
        let caller = Caller::gateway(self.mesh, self.found.workload, came.port.port, self.outside.address);
        let locations = RuleLocations::at_gateways(&self.loaded.resources);
        go(Way {
            mesh: self.mesh,
            caller: &caller,
            locations: &locations,
            is_grpc: self.outside.is_grpc,
            is_opaque: came.is_opaque(),
            seed: self.outside.seed,
            layer: came.layer(),
            server_name: came.server_name(),
            request,
        });
    }
}

/// The rules that what has come in follows.
fn service<'g>(gateway: &'g Gateway, came: &Came<'_>) -> Result<&'g Service, Failure> {
    let key = came.virtual_host()?;
    let service = gateway.virtual_hosts.get(key);
    service.map(|service| &**service).ok_or_else(entry::nothing)
}

/// Whether the certificates of listeners are known: those of documents in files are. Nobody reads Secrets of a cluster.
fn reads_secrets(resources: &Resources) -> bool {
    let istio = resources.istio_gateways.iter().map(|one| &one.location);
    let mut all = our_gateways(resources).map(|one| &one.location).chain(istio);
    all.any(|location| location.path.is_some())
        || our_ingresses(resources).any(|ingress| ingress.location.path.is_some())
}

fn answer(failure: Failure) -> Answer {
    Answer::failure(failure.reason, failure.what)
}

impl Outside {
    fn sender(&self) -> Sender {
        let (name, remark) = match self.address {
            Some(address) => (format!("a client outside of the mesh, at {address}"), None),
            None => {
                let remark = "its address is not given, so it matches no rule that names addresses; --from-address gives it";
                ("a client outside of the mesh".to_owned(), Some(remark.to_owned()))
            }
        };
        Sender { name, identity: None, remark }
    }
}
