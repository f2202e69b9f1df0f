//! The YAML of a `RequestAuthentication` to what it means. What Istio refuses is refused here, too
//! (`ValidateRequestAuthentication` in its `pkg/config/validation`, and the rules of its CRD).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::HeaderName;
use selvedge_certs::token::KeySet;
use selvedge_model::{
    policy::LONGEST_TEXT,
    token::{ClaimHeader, HeaderPlace, MOST_LISTED, MOST_TOKEN_RULES, Places},
};

use super::{
    ClaimYaml, DRY_RUN, HeaderYaml, JwtRule, KeyAddress, KeySource, RequestAuthenticationSpec, RuleYaml,
    Yaml, key_url,
};
use crate::resources::{
    document::{Reading, wrong},
    targets,
    typed::FieldError,
    values::header_name,
};

/// How long an issuer may take to answer, if the rule does not say: as in Istio.
const TIMEOUT: Duration = Duration::from_secs(5);
/// No rule may have an issuer take longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<RequestAuthenticationSpec, FieldError> {
    let Yaml { selector, target_ref, target_refs, jwt_rules } = yaml;
    if reading.metadata.annotations.contains_key(DRY_RUN) {
        // As Istio does.
        let message = "only an AuthorizationPolicy can be tried without effect, so tokens are checked; remove the annotation";
        reading.error(format!("metadata.annotations[{DRY_RUN}]"), message);
    }
    let selector = selector.read(reading)?;
    let named = targets::named(target_ref.as_ref(), &target_refs, !selector.is_empty())?;
    let (services, gateways) = named.map(|named| (named.services, named.gateways)).unzip();
    let gateways = gateways.unwrap_or_default();
    at_most(jwt_rules.len(), MOST_TOKEN_RULES, "spec.jwtRules")?;
    if jwt_rules.is_empty() {
        reading.warning("spec.jwtRules", "has no rule, so no token is checked; add a rule with an issuer");
    }
    let numbered = jwt_rules.into_iter().enumerate();
    let rules = numbered.map(|(number, rule)| rule_of(rule, &format!("spec.jwtRules[{number}]"), reading));
    let rules: Vec<JwtRule> = rules.collect::<Result<_, _>>()?;
    warn_of_twins(&rules, reading);
    Ok(RequestAuthenticationSpec { selector, any_workload: false, services, gateways, rules })
}

/// Two rules for one issuer are allowed, and seldom meant.
fn warn_of_twins(rules: &[JwtRule], reading: &mut Reading<'_>) {
    let mut seen = BTreeSet::new();
    for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| !seen.insert(&rule.issuer)) {
        let message = format!(
            "{} has a rule above: a token is accepted if either rule accepts it; keep one rule",
            rule.issuer
        );
        reading.warning(format!("spec.jwtRules[{number}].issuer"), message);
    }
}

fn rule_of(yaml: RuleYaml, field: &str, reading: &mut Reading<'_>) -> Result<JwtRule, FieldError> {
    let keys = keys_of(&yaml, field, reading)?;
    if yaml.issuer.is_empty() {
        let message = "is missing; write the issuer as the claim iss of its tokens has it";
        return Err(wrong(format!("{field}.issuer"), message));
    }
    text(&yaml.issuer, &format!("{field}.issuer"))?;
    let payload_header = match yaml.output_payload_to_header.as_str() {
        "" => None,
        name => Some(output(name, &format!("{field}.outputPayloadToHeader"))?),
    };
    Ok(JwtRule {
        places: places_of(&yaml, field)?,
        audiences: texts(&yaml.audiences, &format!("{field}.audiences"), "an audience")?,
        claim_headers: claims_of(&yaml.output_claim_to_headers, &format!("{field}.outputClaimToHeaders"))?,
        lists: texts(&yaml.space_delimited_claims, &format!("{field}.spaceDelimitedClaims"), "a claim")?,
        forward: yaml.forward_original_token,
        issuer: yaml.issuer,
        payload_header,
        keys,
    })
}

fn keys_of(yaml: &RuleYaml, field: &str, reading: &mut Reading<'_>) -> Result<KeySource, FieldError> {
    let timeout = yaml.timeout.map_or(TIMEOUT, |timeout| timeout.0);
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        let message = format!("must be more than 0s and at most {}s", LONGEST_TIMEOUT.as_secs());
        return Err(wrong(format!("{field}.timeout"), message));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    match (given(&yaml.jwks), given(&yaml.jwks_uri)) {
        (Some(_), Some(_)) => Err(wrong(
            format!("{field}.jwksUri"),
            "only one of jwks and jwksUri may be set; remove one of them",
        )),
        (Some(set), None) => {
            let field = format!("{field}.jwks");
            let keys = KeySet::read(&set).map_err(|error| wrong(&field, error.to_string()))?;
            for unusable in keys.unusable() {
                reading.warning(&field, format!("{unusable}; it is not used"));
            }
            Ok(KeySource::Inline(Arc::from(set)))
        }
        (None, Some(url)) => {
            check_url(&url, &format!("{field}.jwksUri"))?;
            Ok(KeySource::Fetched { address: KeyAddress { url, is_issuer: false }, timeout })
        }
        (None, None) => {
            // As Istio does: the issuer says itself where its keys are.
            let has_url = check_url(&yaml.issuer, &format!("{field}.issuer"));
            if !yaml.issuer.is_empty() && has_url.is_err() {
                let message = "has neither jwks nor jwksUri, and its issuer is no URL that could say where its keys are; \
                               add jwks or jwksUri";
                return Err(wrong(field, message));
            }
            let url = yaml.issuer.clone();
            Ok(KeySource::Fetched { address: KeyAddress { url, is_issuer: true }, timeout })
        }
    }
}

/// Refuses what is not the URL of a document that can be fetched.
fn check_url(url: &str, field: &str) -> Result<(), FieldError> {
    let refused =
        |why| wrong(field, format!("{url:?} {why}; write it as https://HOST/PATH or http://HOST:PORT/PATH"));
    key_url(url).map(drop).map_err(refused)
}

fn places_of(yaml: &RuleYaml, field: &str) -> Result<Places, FieldError> {
    at_most(yaml.from_headers.len(), MOST_LISTED, &format!("{field}.fromHeaders"))?;
    let header = |(number, HeaderYaml { name, prefix }): (usize, &HeaderYaml)| {
        let field = format!("{field}.fromHeaders[{number}]");
        text(prefix, &format!("{field}.prefix"))?;
        let name = named(name, &format!("{field}.name"), "the header")?;
        Ok(HeaderPlace { name, prefix: prefix.as_str().into() })
    };
    let boxed = |list: Vec<String>| list.into_iter().map(String::into_boxed_str).collect();
    let places = Places {
        headers: yaml.from_headers.iter().enumerate().map(header).collect::<Result<_, FieldError>>()?,
        params: boxed(texts(&yaml.from_params, &format!("{field}.fromParams"), "a parameter's name")?),
        cookies: boxed(texts(&yaml.from_cookies, &format!("{field}.fromCookies"), "a cookie's name")?),
    };
    Ok(places.or_usual())
}

fn claims_of(list: &[ClaimYaml], field: &str) -> Result<Vec<ClaimHeader>, FieldError> {
    at_most(list.len(), MOST_LISTED, field)?;
    let claim = |(number, ClaimYaml { header, claim }): (usize, &ClaimYaml)| {
        let field = format!("{field}[{number}]");
        let name = output(header, &format!("{field}.header"))?;
        let field = format!("{field}.claim");
        text(claim, &field)?;
        let path: Vec<Box<str>> = claim.split('.').map(Box::from).collect();
        if path.iter().any(|part| part.is_empty()) {
            let message =
                "must name a claim; write its name, or names with dots between them for a claim in a claim";
            return Err(wrong(field, message));
        }
        Ok(ClaimHeader { name, claim: path })
    };
    list.iter().enumerate().map(claim).collect()
}

/// A header that is written for the app. It may not be one that the request itself needs, or that only sidecars write.
fn output(name: &str, field: &str) -> Result<HeaderName, FieldError> {
    const NEEDED: [&str; 10] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "x-forwarded-client-cert",
    ];
    let header = named(name, field, "the header")?;
    if NEEDED.contains(&header.as_str()) || header.as_str().starts_with("selvedge-") {
        let message = format!(
            "{name} is a header that proxies need themselves; write another name, such as x-jwt-payload"
        );
        return Err(wrong(field, message));
    }
    Ok(header)
}

fn named(name: &str, field: &str, what: &str) -> Result<HeaderName, FieldError> {
    match name {
        "" => Err(wrong(field, format!("is missing; name {what}"))),
        name => header_name(name, field),
    }
}

fn texts(list: &[String], field: &str, what: &str) -> Result<Vec<String>, FieldError> {
    at_most(list.len(), MOST_LISTED, field)?;
    for (number, value) in list.iter().enumerate() {
        let field = format!("{field}[{number}]");
        if value.is_empty() {
            return Err(wrong(field, format!("is empty; write {what}, or remove it")));
        }
        text(value, &field)?;
    }
    Ok(list.to_vec())
}

fn text(text: &str, field: &str) -> Result<(), FieldError> {
    match text.len() {
        0..=LONGEST_TEXT => Ok(()),
        length => Err(wrong(field, format!("is {length} bytes long; {LONGEST_TEXT} are allowed"))),
    }
}

fn at_most(count: usize, most: usize, field: &str) -> Result<(), FieldError> {
    match count <= most {
        true => Ok(()),
        false => Err(wrong(field, format!("has {count} items; {most} are allowed"))),
    }
}
