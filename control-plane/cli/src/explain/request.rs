//! Explains one request: documents, then the mesh that they make, then the way of the request through it.

use selvedge_control_plane::{
    compile::{RuleLocations, compile},
    problem::Severity,
    sources::Loaded,
};
use selvedge_model::{
    Backend, BackendName, Endpoint, Mesh, Rule, Service, ServiceKey, TrafficPolicy, facts::Connection,
};
use selvedge_proxy::{error::Reason, facts, settings::OutboundTrafficPolicy};

use super::{
    arguments::RequestArgs,
    backends::{self, Shares},
    caller::Caller,
    endpoints::Judge,
    explanation::{Answer, BackendView, Explanation, RequestView, RuleView, Sender},
    limits,
    meaning::{self, Meaning},
    passage::{Ground, Passage},
    question::Question,
    rule::Finder,
};

/// What would become of the request that `args` ask for.
///
/// # Errors
/// What is wrong with the question, or why the documents cannot be read.
pub(super) fn explain(args: &RequestArgs) -> Result<Explanation, String> {
    let question = Question::new(args)?;
    let loaded = args.documents.load()?;
    of(&loaded, args, question)
}

/// What would become of it by the documents that are `loaded`.
///
/// # Errors
/// If its sender cannot be one.
pub(super) fn of(loaded: &Loaded, args: &RequestArgs, question: Question) -> Result<Explanation, String> {
    let settings = args.documents.settings();
    let (mesh, problems) = compile(&loaded.resources, &settings, &Mesh::default());
    let errors = loaded.problems.iter().chain(&problems);
    let errors = errors.filter(|problem| problem.severity == Severity::Error).count();
    let Question { from, authority, request, is_grpc } = question;
    let caller = Caller::find(&mesh, &settings, from)?;
    let said = || meaning::outbound_policy(&loaded.resources, &caller);
    let policy: OutboundTrafficPolicy = args.outbound_traffic_policy.unwrap_or_else(said);
    let meaning = Meaning::of(&mesh, &caller, &authority, policy);
    let mut explanation = Explanation {
        sent: true,
        answer: None,
        errors,
        from: sender(&caller),
        request: RequestView::of(&request),
        name: meaning.words(&mesh, &caller, &authority),
        rule: None,
        missed: Vec::new(),
        filters: Vec::new(),
        limits: Vec::new(),
        backends: Vec::new(),
    };
    let locations = RuleLocations::new(&loaded.resources);
    let is_opaque = matches!(&meaning, Meaning::Service(service) if meaning::is_opaque(service));
    let way = Way {
        mesh: &mesh,
        caller: &caller,
        locations: &locations,
        is_grpc,
        is_opaque,
        seed: args.seed,
        request,
    };
    match &meaning {
        Meaning::Service(service) if is_opaque => way.opaque(service, &mut explanation),
        Meaning::Service(service) => way.service(service, &mut explanation),
        Meaning::Endpoint(endpoint) => way.endpoint(endpoint, &mut explanation),
        Meaning::Nothing { answer, .. } => explanation.answer.clone_from(answer),
    }
    explanation.answer = explanation.answer.take().map(|answer| answer.for_caller(is_grpc));
    explanation.sent = explanation.answer.is_none();
    Ok(explanation)
}

fn sender(caller: &Caller) -> Sender {
    Sender { name: caller.name.clone(), identity: caller.identity.to_string(), remark: caller.remark.clone() }
}

/// The way of a request to what its name means.
struct Way<'a> {
    mesh: &'a Mesh,
    caller: &'a Caller,
    locations: &'a RuleLocations<'a>,
    is_grpc: bool,
    /// Whether it is carried as opaque bytes, by rules for connections.
    is_opaque: bool,
    seed: Option<u64>,
    request: http::Request<()>,
}

impl Way<'_> {
    /// By the rules of a service.
    fn service(self, service: &Service, explanation: &mut Explanation) {
        let connection = self.caller.connection(service.key.port);
        let facts = match facts::request(&self.request, &connection) {
            Ok(facts) => facts,
            Err(error) => {
                let what = error.failure.to_string();
                explanation.answer = Some(Answer::failure(error.failure.reason, what));
                return;
            }
        };
        let finder = Finder { service, caller: self.caller, locations: self.locations };
        let mut ruling = finder.find(&facts);
        explanation.missed = std::mem::take(&mut ruling.missed);
        explanation.rule = ruling.view.take();
        let Some((rule, place)) = &ruling.followed else {
            explanation.answer = Some(Answer::failure(Reason::NoRoute, ruling.no_route()));
            return;
        };
        self.follow(rule, *place, connection, &service.backends, explanation);
    }

    /// By one rule: its filters, then its backends.
    fn follow(
        self,
        rule: &Rule,
        place: Option<usize>,
        connection: Connection<'_>,
        backends: &[Backend],
        explanation: &mut Explanation,
    ) {
        let ground = Ground {
            caller: self.caller,
            connection,
            rule,
            place,
            backends,
            is_grpc: self.is_grpc,
            is_opaque: self.is_opaque,
        };
        let rng = self.seed.map(fastrand::Rng::with_seed);
        let mut passage = Passage { ground: &ground, request: self.request, steps: Vec::new(), rng };
        let passed = passage.through(&rule.filters, None);
        explanation.filters = std::mem::take(&mut passage.steps);
        match passed {
            Err(answer) => explanation.answer = Some(answer),
            Ok(before) => {
                explanation.limits = limits::of_rule(rule);
                let Shares { views, answer } = backends::shares(self.mesh, passage, before.as_ref());
                (explanation.backends, explanation.answer) = (views, answer);
            }
        }
    }

    /// To an address, which has one rule of its own.
    fn endpoint(self, endpoint: &Endpoint, explanation: &mut Explanation) {
        let service = ServiceKey::new(&endpoint.address.ip().to_string(), endpoint.address.port());
        let policy = TrafficPolicy::default();
        let name = BackendName { service, subset: None };
        let backend = Backend { name, labels: Default::default(), policy, broken: None };
        let judge = Judge { mesh: self.mesh, caller: self.caller, request: &self.request, is_opaque: false };
        let view = judge.one(&backend, endpoint);
        explanation.limits = limits::of_rule(&Rule::default());
        explanation.answer.clone_from(&view.refused);
        explanation.backends.push(BackendView {
            name: endpoint.address.to_string(),
            weight: 1,
            percent: 100.0,
            drawn: self.seed.map(|_| true),
            filters: Vec::new(),
            request: view.refused.is_none().then(|| RequestView::of(&self.request)),
            answer: view.refused.clone().map(|answer| answer.for_caller(self.is_grpc)),
            policy: limits::of_backend(&backend.policy),
            endpoints: vec![view],
        });
    }

    /// As opaque bytes, by the rules for connections.
    fn opaque(self, service: &Service, explanation: &mut Explanation) {
        let connection = self.caller.connection(service.key.port);
        let Some(found) = service.tcp.find(&connection) else {
            let why = format!("{} has routes for connections, and none matches this one", service.key);
            explanation.answer = Some(Answer::failure(Reason::NoRoute, why));
            return;
        };
        let found = &service.tcp.rules[found];
        explanation.rule = Some(RuleView {
            written: self.locations.rule(&found.name),
            name: found.name.clone(),
            matched: None,
            remark: Some("it is a rule for connections, whatever they carry"),
        });
        let rule = Rule { name: found.name.clone(), backends: found.backends.clone(), ..Rule::default() };
        self.follow(&rule, None, connection, &service.backends, explanation);
        explanation.limits.clear();
    }
}
