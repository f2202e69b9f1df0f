//! `RequestAuthentication` to whose tokens each workload's sidecar accepts: the rules of all that select it, as in Istio.

use std::{cell::Cell, sync::Arc};

use selvedge_model::token::{Authentication, Keys, MOST_TOKEN_RULES, Places, TokenRule};

use super::{
    MeshSettings, Problems,
    sharing::{ByNamespace, MadeOnce},
    targets::{self, ByGateway, MAY_SELECT, Ports, Selected, Targets},
    there::There,
};
use crate::{
    keys::FetchedKeys,
    resources::{Document, JwtRule, KeySource, RequestAuthenticationSpec, Resources},
};

type Written = Document<RequestAuthenticationSpec>;

/// Every document, compiled once.
#[derive(Debug)]
pub(super) struct Authentications<'a> {
    all: Vec<Compiled<'a>>,
    /// By their places in `all`.
    by_namespace: ByNamespace<'a>,
    /// Likewise.
    by_gateway: ByGateway<'a>,
    /// What workloads share that are selected by the same documents.
    shared: MadeOnce<Chosen, Authentication>,
}

/// Documents by their places in [`Authentications::all`], and the ports that each is for.
type Chosen = Vec<(usize, Ports)>;

#[derive(Debug)]
struct Compiled<'a> {
    document: &'a Written,
    targets: Targets<'a>,
    rules: Vec<TokenRule>,
    selects_one: Cell<bool>,
}

impl<'a> Authentications<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        let mut all = Self {
            all: Vec::with_capacity(resources.request_authentications.len()),
            by_namespace: ByNamespace::default(),
            by_gateway: ByGateway::default(),
            shared: MadeOnce::default(),
        };
        let there = There::new(resources, settings);
        for document in &resources.request_authentications {
            let namespace = &*document.name.namespace;
            all.by_namespace.add(targets::only_namespace(namespace, settings), all.all.len());
            let spec = &document.spec;
            let targets = Targets::new(namespace, &spec.selector, spec.services.as_deref(), settings);
            let targets = targets.with_gateways(&spec.gateways).or_any(spec.any_workload);
            all.by_gateway.add(&targets, all.all.len());
            targets.report_missing(document, &there, problems);
            let rules = compiled(document, settings, problems);
            all.all.push(Compiled { document, targets, rules, selects_one: Cell::new(false) });
        }
        all
    }

    /// Whose tokens the sidecar of a workload accepts; as `previous` says, if that is the same.
    pub(super) fn find(
        &self,
        workload: Selected<'_>,
        previous: Option<&Arc<Authentication>>,
    ) -> Option<Arc<Authentication>> {
        let places = self.by_namespace.places(workload.namespace);
        if workload.labels.is_none()
            && let Some(one) = places.clone().map(|place| &self.all[place]).find(|one| one.targets.chooses())
        {
            let rules = vec![refusing(Arc::from(one.document.name.to_string()), MAY_SELECT)];
            return Some(super::keep(Authentication { rules }, previous));
        }
        let chosen = self.by_gateway.with(places, workload).filter_map(|place| {
            let one = &self.all[place];
            let ports = one.targets.ports(workload)?;
            one.selects_one.set(true);
            (!one.rules.is_empty()).then_some((place, ports))
        });
        let chosen: Chosen = chosen.collect();
        if chosen.is_empty() {
            return None;
        }
        Some(self.shared.get(chosen, previous, |chosen| self.made_of(chosen)))
    }

    fn made_of(&self, chosen: &[(usize, Ports)]) -> Authentication {
        let of_one = |(place, ports): &(usize, Ports)| {
            let ports = ports.clone();
            self.all[*place].rules.iter().map(move |rule| TokenRule { ports: ports.clone(), ..rule.clone() })
        };
        let mut rules: Vec<TokenRule> = chosen.iter().flat_map(of_one).collect();
        if rules.len() > MOST_TOKEN_RULES {
            let name = Arc::clone(&rules[0].name);
            let why = format!("its workload has more than {MOST_TOKEN_RULES} rules about tokens");
            rules = vec![refusing(name, &why)];
        }
        Authentication { rules }
    }

    /// Reports what selects nothing. Asked when each workload has its rules.
    pub(super) fn report_unused(&self, problems: &mut Problems) {
        for Compiled { document, selects_one, .. } in &self.all {
            let has_selector = !document.spec.selector.is_empty() && !document.unusable;
            if has_selector && !selects_one.get() {
                let message =
                    "selects no workload, so no token is checked by this document; compare the labels";
                problems.warning(document, "spec.selector.matchLabels", message);
            }
        }
    }
}

/// A rule that refuses every token where it usually is.
fn refusing(name: Arc<str>, why: &str) -> TokenRule {
    TokenRule {
        name,
        issuer: None,
        audiences: Vec::new(),
        keys: Keys::Missing(Arc::from(why)),
        keys_from: None,
        places: Places::usual(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        lists: Vec::new(),
        ports: None,
    }
}

fn compiled(document: &Written, settings: &MeshSettings, problems: &mut Problems) -> Vec<TokenRule> {
    let name = document.name.to_string();
    if document.unusable {
        let name = Arc::from(format!("{name} ({}), which cannot be used", document.location));
        let why = "no token is accepted by it until it is repaired";
        let readable = document.spec.rules.iter();
        let same_places = readable.map(|rule| TokenRule {
            places: rule.places.clone(),
            payload_header: rule.payload_header.clone(),
            claim_headers: rule.claim_headers.clone(),
            ..refusing(Arc::clone(&name), why)
        });
        return std::iter::once(refusing(Arc::clone(&name), why)).chain(same_places).collect();
    }
    let numbered = document.spec.rules.iter().enumerate();
    let rule = |(number, rule): (usize, &JwtRule)| {
        let JwtRule { issuer, audiences, places, forward, payload_header, claim_headers, lists, .. } = rule;
        TokenRule {
            name: format!("{name} rule {}", number + 1).into(),
            issuer: Some(issuer.as_str().into()),
            audiences: audiences.iter().map(|audience| audience.as_str().into()).collect(),
            keys: keys_of(document, number, rule, settings, problems),
            keys_from: match &rule.keys {
                KeySource::Inline(_) => None,
                KeySource::Fetched { address, .. } => Some(address.url.as_str().into()),
            },
            places: places.clone(),
            forward: *forward,
            payload_header: payload_header.clone(),
            claim_headers: claim_headers.clone(),
            lists: TokenRule::lists_with(lists.iter().cloned()),
            ports: None,
        }
    };
    numbered.map(rule).collect()
}

/// The keys of a rule, as far as they are known.
fn keys_of(
    document: &Written,
    number: usize,
    rule: &JwtRule,
    settings: &MeshSettings,
    problems: &mut Problems,
) -> Keys {
    let address = match &rule.keys {
        KeySource::Inline(set) => return Keys::Known(Arc::clone(set)),
        KeySource::Fetched { address, .. } => address,
    };
    let FetchedKeys::Here(fetched) = &settings.keys else {
        return Keys::Missing(Arc::from("only the control plane fetches keys"));
    };
    let field = format!("spec.jwtRules[{number}].{}", address.field());
    let Some(state) = fetched.get(address) else {
        let message =
            format!("the keys of {} are not fetched yet; until then its tokens are refused", address.url);
        problems.warning(document, &field, message);
        return Keys::Missing(Arc::from("its keys are not fetched yet"));
    };
    match (&state.keys, &state.trouble) {
        (Some(keys), None) => Keys::Known(Arc::clone(keys)),
        (Some(keys), Some(trouble)) => {
            let message = format!("{trouble}; the keys from before stay in use. {}", trouble.remedy);
            problems.warning(document, &field, message);
            Keys::Known(Arc::clone(keys))
        }
        (None, Some(trouble)) => {
            let message =
                format!("{trouble}, so the tokens of {} are refused. {}", rule.issuer, trouble.remedy);
            problems.error(document, &field, message);
            Keys::Missing(Arc::clone(&trouble.why))
        }
        (None, None) => Keys::Missing(Arc::from("its keys are not fetched yet")),
    }
}
