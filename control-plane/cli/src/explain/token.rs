//! What a workload's sidecar makes of a request's token (`RequestAuthentication`): by the code that it runs itself.

use http::{Request, header};
use selvedge_model::{
    ConnectionVerdict, InboundPolicy, Verdict,
    facts::Connection,
    token::{Keys, Refused, Token},
};
use selvedge_proxy::{authenticate, tokens::Tokens};

/// A token that is not accepted.
pub(super) struct Refusal {
    /// The rule that says so.
    pub(super) rule: String,
    /// Why.
    pub(super) why: String,
}

/// What a sidecar with `policy` makes of the token of `request`, which comes in on `connection`: in words, if there is something
/// to say. An accepted token goes on with the request.
///
/// # Errors
/// If the token is not accepted.
pub(super) fn check(
    policy: &InboundPolicy,
    connection: &Connection<'_>,
    request: &mut Request<()>,
) -> Result<Option<String>, Refusal> {
    let port = connection.port;
    let rules = policy.authentication.as_ref().filter(|rules| rules.is_for(port));
    let Some(rules) = rules else { return Ok(unchecked(policy, port, request)) };
    if let ConnectionVerdict::Final(Verdict::Deny { .. }) = policy.authorize(connection) {
        // Whoever may not come in at all is told that, whatever token it has.
        return Ok(None);
    }
    match authenticate::apply(&Tokens::default(), rules, port, request, authenticate::now()) {
        Ok(Some(rule)) => Ok(Some(format!("its token is accepted by {}{}", rule.name, holder(request)))),
        Ok(None) => Ok(Some(absent(policy, port))),
        Err(refused) => Err(refusal(&refused)),
    }
}

/// Whose token it is.
fn holder(request: &Request<()>) -> String {
    let token = request.extensions().get::<std::sync::Arc<Token>>();
    let principal = token.and_then(|token| token.principal());
    principal.map(|principal| format!(", as the principal {principal}")).unwrap_or_default()
}

/// That no rule checks it.
fn unchecked(policy: &InboundPolicy, port: u16, request: &Request<()>) -> Option<String> {
    let asking = asking(policy, port);
    match (asking.is_empty(), request.headers().contains_key(header::AUTHORIZATION)) {
        (false, _) => Some(format!(
            "no RequestAuthentication checks tokens here, so that no request has one for {}",
            asking.join(", ")
        )),
        (true, true) => Some("no RequestAuthentication checks tokens here".to_owned()),
        (true, false) => None,
    }
}

fn absent(policy: &InboundPolicy, port: u16) -> String {
    let asking = asking(policy, port);
    match asking.is_empty() {
        true => "it has no token, and no policy asks for one".to_owned(),
        false => format!("it has no token; {} asks for one", asking.join(", ")),
    }
}

/// The rules of policies that ask for something of a token.
fn asking(policy: &InboundPolicy, port: u16) -> Vec<&str> {
    let authorization = policy.authorization.as_deref();
    authorization.into_iter().flat_map(|one| one.about_tokens(port)).map(|rule| &*rule.name).collect()
}

fn refusal(refused: &Refused<'_>) -> Refusal {
    let (words, told) = authenticate::words(refused);
    let (rule, why) = words.split_at(words.len() - told);
    let rule = rule.trim_end_matches(": ").to_owned();
    let unfetched = match refused.rule.keys {
        Keys::Missing(_) => "; this command knows only keys that are written into jwks",
        Keys::Known(_) => "",
    };
    Refusal { rule, why: format!("{why}{unfetched}") }
}
