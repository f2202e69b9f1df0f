//! The YAML of an `AuthorizationPolicy` to what it means. What Istio refuses is refused here, too
//! (`ValidateAuthorizationPolicy` in its `pkg/config/validation`).

use std::collections::BTreeSet;

use selvedge_model::{
    HeaderField,
    policy::{
        AddressSet, Asks, Condition, LONGEST_TEXT, MOST_VALUES, PathSet, PathTemplate, Rule, TextPattern,
        TextSet, address, path,
    },
};

use super::{
    AuthorizationAction, AuthorizationPolicySpec, DRY_RUN, FromYaml, OperationYaml, RuleYaml, SourceYaml,
    ToYaml, WhenYaml, Yaml,
};
use crate::resources::{
    document::{Reading, wrong},
    nearest::nearest,
    targets,
    typed::FieldError,
};

/// What `when.key` may be, besides those that name something in brackets.
const KEYS: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];
/// Those that name something in brackets.
const KEYS_OF_NAMES: [&str; 3] = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];

pub(super) fn read(mut yaml: Yaml, reading: &mut Reading<'_>) -> Result<AuthorizationPolicySpec, FieldError> {
    let selector = std::mem::take(&mut yaml.selector).read(reading)?;
    check_action(&yaml, reading)?;
    let named = targets::named(yaml.target_ref.as_ref(), &yaml.target_refs, !selector.is_empty())?;
    let (services, gateways) = named.map(|named| (named.services, named.gateways)).unzip();
    let rules = yaml.rules.as_deref().unwrap_or_default().iter().enumerate();
    let rules = rules.map(|(number, rule)| {
        let field = format!("spec.rules[{number}]");
        let read = rule_of(rule, &field, reading)?;
        if yaml.action == AuthorizationAction::Deny {
            warn_of_plain_connections(&read, &field, reading);
        }
        Ok(read)
    });
    Ok(AuthorizationPolicySpec {
        rules: rules.collect::<Result<_, FieldError>>()?,
        selector,
        any_workload: false,
        services,
        gateways: gateways.unwrap_or_default(),
        action: yaml.action,
        dry_run: dry_run(reading),
    })
}

fn dry_run(reading: &mut Reading<'_>) -> bool {
    // As Go's ParseBool reads it.
    match reading.metadata.annotations.get(DRY_RUN).map(String::as_str) {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => true,
        None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => false,
        Some(other) => {
            let message = format!(
                "{other:?} is not true or false, so the policy is enforced; write \"true\" or \"false\""
            );
            reading.error(format!("metadata.annotations[{DRY_RUN}]"), message);
            false
        }
    }
}

fn check_action(yaml: &Yaml, reading: &mut Reading<'_>) -> Result<(), FieldError> {
    const EVERYTHING: &str = "add the rule {} if it is to match every request";
    let provider = yaml.provider.as_ref();
    match yaml.action {
        AuthorizationAction::Custom => {
            if yaml.rules.is_none() {
                return Err(wrong(
                    "spec.rules",
                    format!("a CUSTOM policy without rules never matches; {EVERYTHING}"),
                ));
            }
            if provider.is_none_or(|provider| provider.name.is_empty()) {
                return Err(wrong(
                    "spec.provider.name",
                    "is missing; a CUSTOM policy names its external authorizer",
                ));
            }
            let message = "CUSTOM is not enforced: this version can ask no external authorizer, so the workloads that it \
                           selects refuse everything; use ALLOW or DENY, or remove the policy";
            reading.error("spec.action", message);
        }
        action if provider.is_some() => {
            let action = format!("{action:?}").to_uppercase();
            let message = format!("only a CUSTOM policy has a provider, and this one is {action}; remove it");
            return Err(wrong("spec.provider", message));
        }
        AuthorizationAction::Deny if yaml.rules.as_ref().is_none_or(Vec::is_empty) => {
            return Err(wrong(
                "spec.rules",
                format!("a DENY policy without rules never matches; {EVERYTHING}"),
            ));
        }
        _ => {}
    }
    Ok(())
}

/// As Istio does: such a field is left out for a port without HTTP, and the rule denies all that is left.
fn warn_of_plain_connections(rule: &Rule, field: &str, reading: &mut Reading<'_>) {
    let only_http = |conditions: &Vec<Condition>| conditions.iter().all(Condition::is_about_requests);
    let from = !rule.from.is_empty() && rule.to.is_empty() && rule.from.iter().any(only_http);
    let to = !rule.to.is_empty() && rule.to.iter().any(only_http) && rule.from.iter().all(only_http);
    if (from || to) && rule.when.iter().all(Condition::is_about_requests) {
        let message = "asks only for what HTTP requests say, so on ports without HTTP it denies every connection; add \
                       operation.ports to limit it to ports with HTTP";
        reading.warning(field, message);
    }
}

fn rule_of(yaml: &RuleYaml, field: &str, reading: &mut Reading<'_>) -> Result<Rule, FieldError> {
    let mut rule = Rule::everything("");
    for (name, empty) in [
        ("from", yaml.from.as_ref().is_some_and(Vec::is_empty)),
        ("to", yaml.to.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if empty {
            let message = "is empty; remove it if the rule is for all, or list at least one item";
            return Err(wrong(format!("{field}.{name}"), message));
        }
    }
    for (number, FromYaml { source }) in yaml.from.iter().flatten().enumerate() {
        let field = format!("{field}.from[{number}].source");
        let source = source.as_ref().ok_or_else(|| wrong(&field, "is missing; say whose requests"))?;
        rule.from.push(source_of(source, &field, reading)?);
    }
    for (number, ToYaml { operation }) in yaml.to.iter().flatten().enumerate() {
        let field = format!("{field}.to[{number}].operation");
        let operation = operation.as_ref().ok_or_else(|| wrong(&field, "is missing; say which requests"))?;
        rule.to.push(operation_of(operation, &field)?);
        warn_of_paths(&operation.paths, &format!("{field}.paths"), reading);
        warn_of_paths(&operation.not_paths, &format!("{field}.notPaths"), reading);
    }
    for (number, when) in yaml.when.iter().enumerate() {
        rule.when.extend(when_of(when, &format!("{field}.when[{number}]"), reading)?);
    }
    Ok(rule)
}

/// Reads lists of values into conditions.
struct Conditions<'a> {
    field: &'a str,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    /// Adds what `name` and its negated form ask for.
    fn add(
        &mut self,
        [name, not]: [&str; 2],
        [values, not_values]: [&[String]; 2],
        read: impl Fn(&[String], &str) -> Result<Asks, FieldError>,
    ) -> Result<(), FieldError> {
        for (name, values, negated) in [(name, values, false), (not, not_values, true)] {
            if values.is_empty() {
                continue;
            }
            let field = format!("{}.{name}", self.field);
            check_values(values, &field)?;
            self.list.push(Condition { asks: read(values, &field)?, negated });
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Condition>, FieldError> {
        match self.list.is_empty() {
            true => Err(wrong(
                self.field,
                "is empty; remove it if the rule is for all, or set at least one field",
            )),
            false => Ok(self.list),
        }
    }
}

fn check_values(values: &[String], field: &str) -> Result<(), FieldError> {
    if values.len() > MOST_VALUES {
        return Err(wrong(field, format!("has {} values; {MOST_VALUES} are allowed", values.len())));
    }
    for (number, value) in values.iter().enumerate() {
        let at = format!("{field}[{number}]");
        if value.is_empty() {
            return Err(wrong(at, "is empty; write a value, or * for any that is not empty"));
        }
        if value.len() > LONGEST_TEXT {
            return Err(wrong(at, format!("is {} bytes long; {LONGEST_TEXT} are allowed", value.len())));
        }
    }
    Ok(())
}

fn source_of(
    yaml: &SourceYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Vec<Condition>, FieldError> {
    let by_account = [&yaml.service_accounts, &yaml.not_service_accounts];
    let by_identity = [&yaml.principals, &yaml.not_principals, &yaml.namespaces, &yaml.not_namespaces];
    if by_account.iter().any(|list| !list.is_empty()) && by_identity.iter().any(|list| !list.is_empty()) {
        let message = "serviceAccounts cannot be set together with principals or namespaces in one source; use one of \
                       them, or a second item of from";
        return Err(wrong(field, message));
    }
    let mut conditions = Conditions { field, list: Vec::new() };
    conditions.add(
        ["principals", "notPrincipals"],
        [&yaml.principals, &yaml.not_principals],
        |values, _| Ok(Asks::Principal(texts(values))),
    )?;
    let tokens = [&*yaml.request_principals, &yaml.not_request_principals];
    conditions.add(["requestPrincipals", "notRequestPrincipals"], tokens, |values, _| {
        Ok(Asks::RequestPrincipal(texts(values)))
    })?;
    conditions.add(
        ["namespaces", "notNamespaces"],
        [&yaml.namespaces, &yaml.not_namespaces],
        |values, _| Ok(Asks::Namespace(globs(values))),
    )?;
    let accounts = [&*yaml.service_accounts, &yaml.not_service_accounts];
    conditions.add(["serviceAccounts", "notServiceAccounts"], accounts, service_accounts)?;
    conditions.add(
        ["trustDomains", "notTrustDomains"],
        [&yaml.trust_domains, &yaml.not_trust_domains],
        |values, _| Ok(Asks::TrustDomain(texts(values))),
    )?;
    conditions.add(
        ["ipBlocks", "notIpBlocks"],
        [&yaml.ip_blocks, &yaml.not_ip_blocks],
        |values, field| Ok(Asks::Source(blocks(values, field)?)),
    )?;
    let remote = [&*yaml.remote_ip_blocks, &yaml.not_remote_ip_blocks];
    conditions.add(["remoteIpBlocks", "notRemoteIpBlocks"], remote, |values, field| {
        Ok(Asks::Remote(blocks(values, field)?))
    })?;
    warn_of_remote(remote.iter().any(|list| !list.is_empty()), &format!("{field}.remoteIpBlocks"), reading);
    conditions.finish()
}

fn warn_of_remote(asks: bool, field: &str, reading: &mut Reading<'_>) {
    if asks {
        let message = "is compared with the address that the connection comes from: x-forwarded-for is not trusted, \
                       because any client can write it; only a gateway with --trusted-hops reads it";
        reading.warning(field, message);
    }
}

/// Tells which of `paths` no request can have.
fn warn_of_paths(paths: &[String], field: &str, reading: &mut Reading<'_>) {
    for (number, written) in paths.iter().enumerate() {
        if let Err(why) = path::check(written) {
            let message = format!("{written:?} matches no request: {why}");
            reading.warning(format!("{field}[{number}]"), message);
        }
    }
}

fn operation_of(yaml: &OperationYaml, field: &str) -> Result<Vec<Condition>, FieldError> {
    let mut conditions = Conditions { field, list: Vec::new() };
    conditions.add(["hosts", "notHosts"], [&yaml.hosts, &yaml.not_hosts], |values, _| {
        Ok(Asks::Host(values.iter().map(|host| TextPattern::istio(&host.to_ascii_lowercase())).collect()))
    })?;
    conditions.add(["methods", "notMethods"], [&yaml.methods, &yaml.not_methods], |values, _| {
        Ok(Asks::Method(texts(values)))
    })?;
    conditions.add(["paths", "notPaths"], [&yaml.paths, &yaml.not_paths], paths)?;
    conditions.add(["ports", "notPorts"], [&yaml.ports, &yaml.not_ports], ports)?;
    conditions.finish()
}

fn when_of(yaml: &WhenYaml, field: &str, reading: &mut Reading<'_>) -> Result<Vec<Condition>, FieldError> {
    let key = yaml.key.as_str();
    if key.is_empty() {
        return Err(wrong(format!("{field}.key"), "is missing; it says what values are compared with"));
    }
    if yaml.values.is_empty() && yaml.not_values.is_empty() {
        return Err(wrong(
            field,
            format!("has neither values nor notValues for {key}; set at least one of them"),
        ));
    }
    let at_key = format!("{field}.key");
    warn_of_key(key, &at_key, reading);
    if key == "request.headers[:path]" {
        let paths = |values: &[String]| -> Vec<String> {
            values.iter().map(|value| value.split('?').next().unwrap_or_default().to_owned()).collect()
        };
        warn_of_paths(&paths(&yaml.values), &format!("{field}.values"), reading);
        warn_of_paths(&paths(&yaml.not_values), &format!("{field}.notValues"), reading);
    }
    let mut conditions = Conditions { field, list: Vec::new() };
    let read = |values: &[String], field: &str| asks_of_key(key, &at_key, values, field);
    conditions.add(["values", "notValues"], [&yaml.values, &yaml.not_values], read)?;
    conditions.finish()
}

fn warn_of_key(key: &str, field: &str, reading: &mut Reading<'_>) {
    warn_of_remote(key == "remote.ip", field, reading);
    if key == "connection.sni" {
        let message = "the name that a client asks for in TLS is known at a gateway that ends TLS or passes it on; elsewhere it \
                       is not, so a rule that denies matches there, and one that allows does not";
        reading.warning(field, message);
    }
    if key.starts_with("experimental.envoy.filters.") {
        let message = "there are no filters of Envoy here, so a rule that denies matches, and one that allows does not; \
                       remove the condition";
        reading.error(field, message);
    }
}

fn asks_of_key(key: &str, at_key: &str, values: &[String], field: &str) -> Result<Asks, FieldError> {
    let claim = |name: &str| Asks::Claim(vec![name.into()], texts(values));
    Ok(match key {
        "source.ip" => Asks::Source(blocks(values, field)?),
        "remote.ip" => Asks::Remote(blocks(values, field)?),
        "source.namespace" => Asks::Namespace(globs(values)),
        "source.principal" => Asks::Principal(texts(values)),
        "source.serviceAccount" => service_accounts(values, field)?,
        "source.trustDomain" => Asks::TrustDomain(texts(values)),
        "request.auth.principal" => Asks::RequestPrincipal(texts(values)),
        "request.auth.audiences" => claim("aud"),
        "request.auth.presenter" => claim("azp"),
        "destination.ip" => Asks::Destination(blocks(values, field)?),
        "destination.port" => ports(values, field)?,
        "connection.sni" => Asks::ServerName(
            values.iter().map(|name| TextPattern::istio(&name.to_ascii_lowercase())).collect(),
        ),
        _ => return asks_of_name(key, at_key, values),
    })
}

/// What a key with a name in brackets asks for.
fn asks_of_name(key: &str, at_key: &str, values: &[String]) -> Result<Asks, FieldError> {
    let names = |prefix: &str| {
        let inner = key.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?;
        let names: Vec<&str> = inner.split("][").collect();
        (!names.iter().any(|name| name.is_empty())).then_some(names)
    };
    if key.starts_with("request.headers") {
        let [name] = names("request.headers").unwrap_or_default()[..] else {
            return Err(wrong(at_key, format!("{key:?} names no header; write request.headers[NAME]")));
        };
        let Some(name) = name.parse().ok().filter(|name| !matches!(name, HeaderField::Claim(_))) else {
            return Err(wrong(at_key, format!("{name:?} is not the name of a header")));
        };
        return Ok(Asks::header(name, texts(values)));
    }
    if key.starts_with("request.auth.claims") {
        let Some(path) = names("request.auth.claims").filter(|path| path.len() <= 16) else {
            return Err(wrong(at_key, format!("{key:?} names no claim; write request.auth.claims[NAME]")));
        };
        return Ok(Asks::Claim(path.into_iter().map(Into::into).collect(), texts(values)));
    }
    if key.starts_with("experimental.envoy.filters.") {
        if !key.ends_with(']') || !key.contains('[') || key.ends_with("[]") {
            return Err(wrong(at_key, format!("{key:?} has no name in brackets; write it as a[b]")));
        }
        return Ok(Asks::Unknowable(key.into()));
    }
    Err(wrong(at_key, unknown_key(key)))
}

fn unknown_key(key: &str) -> String {
    let instead = match key {
        "destination.namespace" => "put the policy into that namespace".to_owned(),
        "destination.name" | "destination.user" => "select workloads with spec.selector".to_owned(),
        _ if key.starts_with("destination.labels") => "select workloads with spec.selector".to_owned(),
        _ => match nearest(key, KEYS.into_iter().chain(KEYS_OF_NAMES)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => {
                format!("use one of {}, request.headers[NAME], request.auth.claims[NAME]", KEYS.join(", "))
            }
        },
    };
    format!("{key:?} is not something that a policy can ask for; {instead}")
}

fn texts(values: &[String]) -> TextSet {
    values.iter().map(|text| TextPattern::istio(text)).collect()
}

fn globs(values: &[String]) -> TextSet {
    values.iter().map(|text| TextPattern::glob(text)).collect()
}

/// `NAMESPACE/NAME`, or `NAME` in the policy's own namespace.
fn service_accounts(values: &[String], field: &str) -> Result<Asks, FieldError> {
    let read = |(number, value): (usize, &String)| {
        let (namespace, name) = value.split_once('/').unwrap_or(("", value));
        if name.is_empty() || name.contains(['/', '*']) || namespace.contains('*') || value.starts_with('/') {
            let message =
                format!("{value:?} is not a service account; write NAMESPACE/NAME or NAME, without *");
            return Err(wrong(format!("{field}[{number}]"), message));
        }
        Ok(TextPattern::Exact(format!("{namespace}/sa/{name}").into()))
    };
    Ok(Asks::ServiceAccount(values.iter().enumerate().map(read).collect::<Result<_, _>>()?))
}

fn blocks(values: &[String], field: &str) -> Result<AddressSet, FieldError> {
    let read = |(number, value): (usize, &String)| {
        address::block(value).ok_or_else(|| {
            let message =
                format!("{value:?} is not an IP address or block; write it as 10.0.0.1 or 10.0.0.0/8");
            wrong(format!("{field}[{number}]"), message)
        })
    };
    Ok(AddressSet::new(values.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?))
}

fn ports(values: &[String], field: &str) -> Result<Asks, FieldError> {
    let read = |(number, value): (usize, &String)| {
        let port = value.parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| {
            wrong(format!("{field}[{number}]"), format!("{value:?} is not a port; use \"1\" to \"65535\""))
        })
    };
    Ok(Asks::Port(values.iter().enumerate().map(read).collect::<Result<BTreeSet<_>, _>>()?))
}

fn paths(values: &[String], field: &str) -> Result<Asks, FieldError> {
    let (mut plain, mut templates) = (Vec::new(), Vec::new());
    for (number, value) in values.iter().enumerate() {
        if path::is_template(value) {
            let template = PathTemplate::new(value);
            templates.push(template.map_err(|error| wrong(format!("{field}[{number}]"), error.to_string()))?);
        } else {
            plain.push(TextPattern::istio(value));
        }
    }
    Ok(Asks::Path(PathSet::new(&plain.into_iter().collect(), templates)))
}
