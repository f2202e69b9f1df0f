//! Explains one connection: what both ends say of it, kind of policy by kind of policy.

mod question;
mod targets;
#[cfg(test)]
mod tests;
mod words;

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_control_plane::{compile::compile, problem::Severity, sources::Loaded};
use selvedge_model::{Mesh, SpiffeId, Workload};
use selvedge_proxy::settings::OutboundTrafficPolicy;
use serde::Serialize;

pub(super) use self::words::text;
use self::{
    question::{From, Question},
    targets::{Target, Targets},
};
use super::{
    arguments::ConnectionArgs,
    caller::{self, Caller},
    ends::{Client, Ends, Judgement, Outcome, Step},
    explanation::{self, RequestView, Sender},
    gateway::{self, Outside},
    meaning,
};

/// What would become of a connection.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// What both ends make of it, at all the places where it may go to.
    pub(super) outcome: Overall,
    /// How many errors there are in the documents; `selvedge check` names them.
    errors: usize,
    /// Who connects.
    from: Sender,
    /// Where to, as it was asked.
    to: String,
    /// What that means.
    name: String,
    /// The request that was asked for, in normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestView>,
    /// Where it may go.
    places: Vec<Place>,
}

/// What becomes of a connection that may go to several places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Overall {
    /// All places to which it may go let it in.
    Allowed,
    /// None does, or there is none.
    Denied,
    /// Only its requests say.
    DependsOnTheRequest,
    /// Some let it in, and some do not.
    DependsOnTheEndpoint,
}

/// One place where a connection may go.
#[derive(Debug, Serialize)]
struct Place {
    /// The app's address, and where it is dialled if that is elsewhere.
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    mutual_tls: bool,
    /// How it is called, and why so.
    how: String,
    /// Whether it is said that the connection carries opaque bytes, so that policies do not see requests.
    opaque: bool,
    /// What the client's sidecar says; `None`: it has no rules for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Judgement>,
    /// What the server's sidecar asks, each kind of policy by itself. Empty: it is not asked.
    destination: Vec<Step>,
    /// What both say together.
    #[serde(flatten)]
    judgement: Judgement,
}

impl Explanation {
    /// Whether it is let in, with the request that was asked for or with all.
    pub(super) fn is_allowed(&self) -> bool {
        self.outcome == Overall::Allowed
    }
}

/// What would become of the connection of a client outside of the mesh.
///
/// # Errors
/// As [`explain`].
pub(super) fn to_gateway(args: &ConnectionArgs) -> Result<explanation::Explanation, String> {
    let outside = Outside::connection(args)?;
    gateway::of(&*args.documents.load()?, &args.documents, &outside)
}

/// What would become of the connection that `args` ask for.
///
/// # Errors
/// What is wrong with the question, or why the documents cannot be read.
pub(super) fn explain(args: &ConnectionArgs) -> Result<Explanation, String> {
    let question = Question::new(args)?;
    let loaded = args.documents.load()?;
    of(&loaded, args, question)
}

/// What would become of it by the documents that are `loaded`.
///
/// # Errors
/// If there is no such client or server.
fn of(loaded: &Loaded, args: &ConnectionArgs, question: Question) -> Result<Explanation, String> {
    let settings = args.documents.settings();
    let (mesh, problems) = compile(&loaded.resources, &settings, &Mesh::default());
    let errors = loaded.problems.iter().chain(&problems);
    let errors = errors.filter(|problem| problem.severity == Severity::Error).count();
    let from = match question.from {
        From::Named(asked) => Connecting::Caller(Caller::find((&mesh, &loaded.resources), &settings, asked)?),
        From::Address(address) => Connecting::at(&mesh, address)?,
    };
    let said = || match &from {
        Connecting::Caller(caller) => meaning::outbound_policy(&loaded.resources, caller),
        Connecting::Address(_) => OutboundTrafficPolicy::AllowAny,
    };
    let policy = args.outbound_traffic_policy.unwrap_or_else(said);
    let Targets { name, refused, list } = Targets::find(&mesh, &from, &question.to, policy)?;
    let own = from.workload(&mesh);
    let client = from.client(own.as_ref());
    let request = question.request.as_ref();
    let places = list.iter().map(|target| place(&mesh, client, target, request)).collect();
    let places: Vec<Place> = places;
    Ok(Explanation {
        outcome: if refused { Overall::Denied } else { overall(&places) },
        errors,
        from: from.sender(),
        to: args.to.clone(),
        name,
        request: request.map(RequestView::of),
        places,
    })
}

fn place(mesh: &Mesh, client: Client<'_>, target: &Target, request: Option<&http::Request<()>>) -> Place {
    let ends = Ends { mesh, client, server: target.server(), request };
    Place {
        address: target.address.clone(),
        workload: target.workload.as_ref().map(|workload| workload.name.to_string()),
        mutual_tls: ends.expected().is_some(),
        how: target.how(client),
        opaque: ends.server.is_opaque(),
        source: ends.let_out(),
        destination: ends.steps(),
        judgement: match &target.impossible {
            Some(why) => Judgement::denied("the client's sidecar", why),
            None => ends.judge(),
        },
    }
}

/// What becomes of a connection that may go to all `places`. Those that the client's sidecar may not call get none.
fn overall(places: &[Place]) -> Overall {
    let is_called = |place: &&Place| place.source.as_ref().is_none_or(|one| one.outcome == Outcome::Allowed);
    let mut outcomes = places.iter().filter(is_called).map(|place| place.judgement.outcome);
    let Some(first) = outcomes.next() else { return Overall::Denied };
    let rest: Vec<Outcome> = outcomes.collect();
    let of = |outcome| match outcome {
        Outcome::Allowed => Overall::Allowed,
        Outcome::Denied => Overall::Denied,
        Outcome::DependsOnTheRequest => Overall::DependsOnTheRequest,
    };
    if rest.iter().all(|other| *other == first) { of(first) } else { Overall::DependsOnTheEndpoint }
}

/// Who connects.
enum Connecting {
    /// A workload, or anybody who runs as a ServiceAccount.
    Caller(Caller),
    /// Somebody without a sidecar whom no document declares.
    Address(IpAddr),
}

impl Connecting {
    /// Whoever is at `address`.
    fn at(mesh: &Mesh, address: IpAddr) -> Result<Self, String> {
        let address = address.to_canonical();
        let addresses = caller::addresses(mesh);
        let mut names = addresses.iter().filter(|(_, known)| **known == address).map(|(name, _)| *name);
        let first = names.next();
        if let (Some(one), Some(other)) = (first, names.next()) {
            return Err(format!("--from {address} is {one} and {other}; name the one that connects"));
        }
        Ok(match first.and_then(|name| mesh.workloads.get(name)) {
            Some(workload) => Self::Caller(Caller::workload(mesh, workload, BTreeMap::new())),
            None => Self::Address(address),
        })
    }

    /// The workload, with the members of the sets that its policies name.
    fn workload(&self, mesh: &Mesh) -> Option<Workload> {
        let Self::Caller(caller) = self else { return None };
        let workload = caller.workload.as_ref()?;
        Some(workload.with_sets(|part| mesh.sets.get(part).cloned()))
    }

    fn client<'a>(&'a self, own: Option<&'a Workload>) -> Client<'a> {
        match (self, own) {
            (Self::Caller(caller), Some(own)) => Client::workload(own, caller.address),
            (Self::Caller(caller), None) => {
                let identity: Option<&SpiffeId> = Some(&caller.identity);
                Client { identity, workload: None, address: caller.address, egress: None }
            }
            (Self::Address(address), _) => {
                Client { identity: None, workload: None, address: Some(*address), egress: None }
            }
        }
    }

    fn sender(&self) -> Sender {
        match self {
            Self::Address(address) => Sender {
                name: address.to_string(),
                identity: None,
                remark: Some("no document declares a workload there; it calls in plaintext".to_owned()),
            },
            Self::Caller(caller) => {
                let plaintext =
                    "it has no sidecar: it calls in plaintext, and nobody asks policies of its own";
                let has_proxy = caller.workload.as_ref().is_none_or(|workload| workload.has_proxy());
                Sender {
                    name: caller.name.clone(),
                    identity: Some(caller.identity.to_string()),
                    remark: if has_proxy { caller.remark.clone() } else { Some(plaintext.to_owned()) },
                }
            }
        }
    }
}
