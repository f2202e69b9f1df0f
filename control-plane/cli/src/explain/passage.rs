//! A request on its way through filters: the proxy's own, run one after the other in the proxy's order.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use http::{Request, header::AUTHORIZATION};
use selvedge_model::{
    Backend, Filters, Rule,
    facts::Connection,
    filter::{Commands, Crossing, HeaderChanges, Mirror, ReadyAnswer, ReadyChanges, ReadyFilters},
    limit::Asker,
};
use selvedge_proxy::{
    credentials::Presented,
    error::Reason,
    facts::{self, ClientAddress},
};

use super::{
    caller::Caller,
    explanation::{Answer, FilterStep, RequestView},
    filters,
};

/// What no filter changes.
pub(super) struct Ground<'a> {
    pub(super) caller: &'a Caller,
    pub(super) connection: Connection<'a>,
    pub(super) rule: &'a Rule,
    /// The place of the rule's match that holds.
    pub(super) place: Option<usize>,
    pub(super) backends: &'a [Backend],
    pub(super) is_grpc: bool,
    /// Whether it is carried as opaque bytes.
    pub(super) is_opaque: bool,
}

/// A request, and what has been done to it.
pub(super) struct Passage<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) request: Request<()>,
    pub(super) steps: Vec<FilterStep>,
    /// What draws; `None`: nothing is drawn.
    pub(super) rng: Option<fastrand::Rng>,
}

impl Passage<'_> {
    /// Takes the request through `filters`; `before` are those of the rule, where these are a backend's.
    ///
    /// # Errors
    /// The answer, if the request comes no further.
    pub(super) fn through(
        &mut self,
        filters: &Filters,
        before: Option<&ReadyFilters>,
    ) -> Result<Option<ReadyFilters>, Answer> {
        let paths = self.ground.rule.matches.iter().map(|one| one.path.clone());
        let hostname = || Arc::from(self.ground.caller.name.rsplit('/').next().unwrap_or_default());
        let Some(ready) = ReadyFilters::new(filters, paths, hostname) else { return Ok(None) };
        self.admit(filters, &ready)?;
        self.limit(filters);
        self.cross(&ready)?;
        self.ask_for_password(filters)?;
        self.limit_body(&ready)?;
        self.fault(&ready)?;
        if let Some(answer) = &ready.answer {
            let answer = self.own_answer(&ready, answer);
            return Err(self.with_headers(&ready, answer));
        }
        self.change_headers(&ready.request_headers);
        self.rewrite(&ready, before)?;
        for mirror in &filters.mirrors {
            self.mirror(mirror);
        }
        let answers = said(&ready.response_headers, &self.request, self.ground.caller);
        if !answers.is_empty() {
            self.step("response headers", format!("its answer: {}", filters::changes(&answers)), false);
        }
        Ok(Some(ready))
    }

    fn step(&mut self, filter: &'static str, does: String, changes: bool) {
        let request = changes.then(|| RequestView::of(&self.request));
        self.steps.push(FilterStep { filter, does, request });
    }

    fn admit(&mut self, filters: &Filters, ready: &ReadyFilters) -> Result<(), Answer> {
        if filters.sources.is_none() {
            return Ok(());
        }
        let told = self.request.extensions().get::<ClientAddress>().map(|ClientAddress(address)| *address);
        let Some(address) = told.or(self.ground.caller.client_address()) else {
            let why = format!(
                "{} answers only some addresses, and that of the client is not given",
                self.ground.rule.name
            );
            self.step(
                "sources",
                "answers only some addresses; --from-address gives the client's".to_owned(),
                false,
            );
            return Err(Answer::failure(Reason::Policy, why));
        };
        if ready.may_ask(address) {
            self.step("sources", format!("lets {address} ask"), false);
            return Ok(());
        }
        self.step("sources", format!("does not answer {address}"), false);
        Err(Answer::failure(Reason::Policy, format!("{} does not answer {address}", self.ground.rule.name)))
    }

    /// Says which rate limits the request must be within. How full their buckets are, only the proxy knows.
    fn limit(&mut self, filters: &Filters) {
        let told = self.request.extensions().get::<ClientAddress>().map(|ClientAddress(address)| *address);
        let address = told.or(self.ground.caller.client_address());
        let route = Some(&*self.ground.rule.name);
        let asker = Asker { address, identity: None, headers: self.request.headers(), route };
        let words: Vec<String> = filters.limits.iter().flat_map(|limit| limit.for_request(asker)).collect();
        for words in words {
            self.step("rate limit", format!("is within {words}, or is answered 429"), false);
        }
    }

    fn cross(&mut self, ready: &ReadyFilters) -> Result<(), Answer> {
        if ready.cors.is_none() {
            return Ok(());
        }
        match ready.crossing(self.request.method(), self.request.headers()) {
            Crossing::Preflight(_) => {
                self.step("cors", "answers this preflight".to_owned(), false);
                Err(Answer::own(http::StatusCode::OK, "a preflight of CORS"))
            }
            Crossing::Goes(origin) => {
                let does = match origin {
                    Some(origin) => {
                        format!(
                            "lets pages of {} read the answer",
                            String::from_utf8_lossy(origin.as_bytes())
                        )
                    }
                    None => "is not about this request: it has no Origin that may call".to_owned(),
                };
                self.step("cors", does, false);
                Ok(())
            }
        }
    }

    /// Whether a password is the right one, only the proxy says.
    fn ask_for_password(&mut self, filters: &Filters) -> Result<(), Answer> {
        let Some(basic) = &filters.basic else { return Ok(()) };
        let secret = basic.users.secret();
        if Presented::of(self.request.headers()).is_none() {
            let does =
                format!("asks for a name and a password of the Secret {secret}, and the request has none");
            self.step("password", does, false);
            let why = format!("Secret {secret}: the request has no name and password");
            return Err(Answer::failure(Reason::Credentials, why));
        }
        self.request.headers_mut().remove(AUTHORIZATION);
        let does = format!(
            "lets in whom the Secret {secret} has with this password, without it; others are answered 401"
        );
        self.step("password", does, true);
        Ok(())
    }

    /// What is known of the body is what the request's `content-length` says.
    fn limit_body(&mut self, ready: &ReadyFilters) -> Result<(), Answer> {
        let Some(most) = ready.max_body else { return Ok(()) };
        if most == 0 {
            self.step("body", "may be of any length".to_owned(), false);
            return Ok(());
        }
        let declared = self.request.headers().get(http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.step("body", format!("may have {most} bytes"), false);
        match declared {
            Some(length) if length > most => {
                let what = format!(
                    "the request's body is longer than the {most} bytes that {} allows",
                    self.ground.rule.name
                );
                Err(Answer::failure(Reason::BodyTooLarge, what))
            }
            _ => Ok(()),
        }
    }

    fn fault(&mut self, ready: &ReadyFilters) -> Result<(), Answer> {
        if let Some(delay) = &ready.delay {
            let time = humantime::format_duration(delay.time);
            let drawn = self.rng.as_mut().map(|rng| ready.drawn_delay(rng).is_some());
            self.step("fault", filters::chance(delay.fraction, &format!("wait {time} first"), drawn), false);
        }
        let Some(abort) = &ready.abort else { return Ok(()) };
        let drawn = match &mut self.rng {
            Some(rng) => Some(ready.drawn_abort(rng).is_some()),
            None => filters::certain(abort.fraction),
        };
        let does = format!("are answered {} on purpose", abort.status.as_u16());
        self.step("fault", filters::chance(abort.fraction, &does, drawn), false);
        if drawn != Some(true) {
            return Ok(());
        }
        let why = format!("{} makes this request fail on purpose", self.ground.rule.name);
        let answer = Answer::failure(Reason::Fault, why).with_status(abort.status.as_u16());
        Err(Answer { grpc_status: Some(abort.grpc), ..answer })
    }

    fn own_answer(&mut self, ready: &ReadyFilters, answer: &ReadyAnswer) -> Answer {
        let rule = &self.ground.rule.name;
        match answer {
            ReadyAnswer::Redirect(status, redirect) => {
                let Ok(facts) = facts::request(&self.request, &self.ground.connection) else {
                    return self.unusable("the request names no host");
                };
                match ready.location(redirect, &facts, self.ground.place) {
                    Ok(location) => {
                        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
                        self.step("redirect", format!("answers {} to {location}", status.as_u16()), false);
                        let answer = Answer::own(*status, format!("a redirect of {}", self.ground.rule.name));
                        Answer { location: Some(location), ..answer }
                    }
                    Err(why) => self.unusable(why),
                }
            }
            ReadyAnswer::Direct(status, body) => {
                let why = format!("a fixed answer of {rule}");
                self.step("direct response", filters::direct(*status, body), false);
                let grpc_status = Some(selvedge_model::filter::grpc_of(*status));
                Answer { grpc_status, ..Answer::own(*status, why) }
            }
            ReadyAnswer::Unusable(why) => self.unusable(why),
        }
    }

    /// `answer` with what the filters set of its headers, of which `Location` is told.
    fn with_headers(&self, ready: &ReadyFilters, answer: Answer) -> Answer {
        if answer.error.is_some() {
            return answer;
        }
        let headers = said(&ready.response_headers, &self.request, self.ground.caller);
        let set = headers.set.iter().find(|change| change.name == http::header::LOCATION);
        let location = set.and_then(filters::plain_value).or(answer.location.clone());
        Answer { location, ..answer }
    }

    fn change_headers(&mut self, ready: &ReadyChanges) {
        if ready.changes.is_empty() {
            return;
        }
        let changes = said(ready, &self.request, self.ground.caller).into_owned();
        changes.apply(self.request.headers_mut());
        self.step("request headers", filters::changes(&changes), true);
    }

    fn rewrite(&mut self, ready: &ReadyFilters, before: Option<&ReadyFilters>) -> Result<(), Answer> {
        if ready.path.is_none() && ready.authority.is_none() {
            return Ok(());
        }
        match ready.rewrite(&mut self.request, self.ground.place, before) {
            Ok(()) => {
                let RequestView { authority, path, .. } = RequestView::of(&self.request);
                let path = ready.path.as_ref().map(|_| format!("the path to {path}"));
                let authority = ready.authority.as_ref().map(|_| format!("the authority to {authority}"));
                let does: Vec<String> = path.into_iter().chain(authority).collect();
                self.step("rewrite", format!("changes {}", does.join(" and ")), true);
                Ok(())
            }
            Err(why) => Err(self.unusable(why)),
        }
    }

    fn mirror(&mut self, mirror: &Mirror) {
        let drawn = self.rng.as_mut().map(|rng| mirror.fraction.draw(rng));
        let Some(backend) = self.ground.backends.get(mirror.backend) else { return };
        let does = match &backend.broken {
            Some(broken) => format!("are not copied to {}, which cannot be used: {broken}", backend.name),
            None => format!("are copied to {}", backend.name),
        };
        self.step("mirror", filters::chance(mirror.fraction, &does, drawn), false);
    }

    fn unusable(&mut self, why: &str) -> Answer {
        let why = format!("{}: {why}", self.ground.rule.name);
        self.step("unusable", why.clone(), false);
        Answer::failure(Reason::Filter, why)
    }
}

/// What `ready` comes to for `request`.
fn said<'a>(ready: &'a ReadyChanges, request: &Request<()>, caller: &Caller) -> Cow<'a, HeaderChanges> {
    ready.said(|hostname| Commands {
        headers: request.headers(),
        remote_address: caller.app_address(),
        protocol: "HTTP/1.1",
        start_time: SystemTime::now(),
        hostname,
    })
}
