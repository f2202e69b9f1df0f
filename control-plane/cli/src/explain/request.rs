//! Explains one request: documents, then the mesh that they make, then the way of the request through it.

use selvedge_control_plane::{
    compile::{MeshSettings, RuleLocations, compile},
    problem::Severity,
    sources::Loaded,
};
use selvedge_model::{
    Backend, BackendName, Endpoint, Layer, Mesh, Rule, Service, ServiceKey, TrafficPolicy,
    facts::{Client, Connection},
};
use selvedge_proxy::{
    error::Reason,
    facts::{self, ClientAddress},
    settings::OutboundTrafficPolicy,
};

use super::{
    arguments::RequestArgs,
    backends::{self, Shares},
    caller::Caller,
    endpoints::Judge,
    explanation::{Answer, BackendView, Explanation, RequestView, RuleView, Sender},
    gateway::{self, Outside},
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
    let Some(from) = &args.from else {
        let outside = Outside::request(args)?;
        return gateway::of(&*args.documents.load()?, &args.documents, &outside);
    };
    let question = Question::new(args, from)?;
    let loaded = args.documents.load()?;
    of(&loaded, args, question)
}

/// The mesh that documents make, and how many errors are in them.
pub(super) struct Counted {
    pub(super) mesh: Mesh,
    pub(super) errors: usize,
}

impl Counted {
    /// Of the documents that are `loaded`.
    pub(super) fn of(loaded: &Loaded, settings: &MeshSettings) -> Self {
        let (mesh, problems) = compile(&loaded.resources, settings, &Mesh::default());
        let errors = loaded.problems.iter().chain(&problems);
        Self { mesh, errors: errors.filter(|problem| problem.severity == Severity::Error).count() }
    }
}

/// What would become of it by the documents that are `loaded`.
///
/// # Errors
/// If its sender cannot be one.
pub(super) fn of(loaded: &Loaded, args: &RequestArgs, question: Question) -> Result<Explanation, String> {
    let settings = args.documents.settings();
    let Counted { mesh, errors } = Counted::of(loaded, &settings);
    let Question { from, authority, request, is_grpc } = question;
    let caller = Caller::find((&mesh, &loaded.resources), &settings, from)?;
    let said = || meaning::outbound_policy(&loaded.resources, &caller);
    let policy: OutboundTrafficPolicy = args.outbound_traffic_policy.unwrap_or_else(said);
    let meaning = Meaning::of(&mesh, &caller, &authority, policy);
    let mut explanation = Explanation::new(sender(&caller), errors, RequestView::of(&request));
    explanation.name = Some(meaning.words(&mesh, &caller, &authority));
    let locations = RuleLocations::new(&loaded.resources);
    let is_opaque = matches!(&meaning, Meaning::Service(service) if meaning::is_opaque(service));
    let way = Way {
        mesh: &mesh,
        caller: &caller,
        locations: &locations,
        is_grpc,
        is_opaque,
        seed: args.seed,
        layer: Layer::Tcp,
        server_name: None,
        request,
    };
    match &meaning {
        Meaning::Service(service) if is_opaque => way.opaque(service, &mut explanation),
        Meaning::Service(service) => way.service(service, &mut explanation),
        Meaning::Endpoint(endpoint) => way.endpoint(endpoint, &mut explanation),
        Meaning::Nothing { answer, .. } => explanation.answer.clone_from(answer),
    }
    Ok(explanation.finished(is_grpc))
}

fn sender(caller: &Caller) -> Sender {
    let identity = Some(caller.identity.to_string());
    Sender { name: caller.name.clone(), identity, remark: caller.remark.clone() }
}

/// The way of a request to what its name means.
pub(super) struct Way<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) caller: &'a Caller,
    pub(super) locations: &'a RuleLocations<'a>,
    pub(super) is_grpc: bool,
    /// Whether it is carried as opaque bytes, by rules for connections.
    pub(super) is_opaque: bool,
    pub(super) seed: Option<u64>,
    /// What opaque bytes begin with.
    pub(super) layer: Layer,
    /// The name that their TLS asks for.
    pub(super) server_name: Option<&'a str>,
    pub(super) request: http::Request<()>,
}

impl Way<'_> {
    /// By the rules of a service.
    pub(super) fn service(self, service: &Service, explanation: &mut Explanation) {
        // Trusted proxies before a gateway have told it: the port of a redirect is theirs then.
        let told = self.request.extensions().get();
        let client = told.map_or(Client::Source, |ClientAddress(address)| Client::At(*address));
        let connection = Connection { client, ..self.caller.connection(service.key.port) };
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
    pub(super) fn opaque(self, service: &Service, explanation: &mut Explanation) {
        let (layer, server_name) = (self.layer, self.server_name);
        let connection = Connection { layer, server_name, ..self.caller.connection(service.key.port) };
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
