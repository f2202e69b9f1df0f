//! The conditions of matches, in words.

use selvedge_model::{
    ClientMatch, GrpcMatch, HeaderField, Match, Missed, StringMatch, facts::Request, route::query_value,
};

use super::caller::Caller;

/// Why `request`, which `caller` sends on, misses `one`: on the condition `missed`.
pub(super) fn words(one: &Match, missed: Missed, request: &Request<'_>, caller: &Caller) -> String {
    let field = |name: &HeaderField| match (name, request.token) {
        (HeaderField::Claim(_), None) => format!("the claim {name} ({})", caller.no_token()),
        (HeaderField::Claim(_), Some(_)) => format!("the claim {name} of its token"),
        _ => format!("the header {name}"),
    };
    match missed {
        Missed::Path => {
            let case = if one.ignore_path_case { ", in any case" } else { "" };
            format!("the path is {:?} and must {}{case}", request.path, asked(one.path.as_ref()))
        }
        Missed::Grpc => format!("the path {:?} is not a call of {}", request.path, call(one.grpc.as_ref())),
        Missed::Method => {
            format!("the method is {} and must {}", request.method, asked(one.method.as_ref()))
        }
        Missed::Authority => {
            format!("the authority is {:?} and must {}", request.authority, asked(one.authority.as_ref()))
        }
        Missed::Header(place) => match one.headers.get(place) {
            Some((name, wanted)) => {
                format!("{} {} and must {}", field(name), is(name.value(request)), asked(Some(wanted)))
            }
            None => "a header".to_owned(),
        },
        Missed::WithoutHeader(place) => match one.without_headers.get(place) {
            Some((name, unwanted)) => {
                format!("{} {} and must not {}", field(name), is(name.value(request)), asked(Some(unwanted)))
            }
            None => "a header".to_owned(),
        },
        Missed::Query(place) => match one.query.get(place) {
            Some((name, wanted)) => {
                let found = query_value(request.query, name);
                format!("the query parameter {name} {} and must {}", is(found), asked(Some(wanted)))
            }
            None => "a query parameter".to_owned(),
        },
    }
}

/// Why a match that is for `wanted` clients is not for `caller`.
pub(super) fn of_client(wanted: &ClientMatch, caller: &Caller) -> String {
    if let Some(namespace) = wanted.namespace.as_ref().filter(|namespace| **namespace != caller.namespace) {
        return format!("it is for clients in namespace {namespace}, and {} is not", caller.name);
    }
    let labels = wanted.labels.iter().filter(|(name, value)| caller.labels.get(*name) != Some(*value));
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    format!("it is for clients with the label {}, and {} has none such", labels.join(", "), caller.name)
}

fn is(found: Option<impl AsRef<str>>) -> String {
    match found {
        Some(text) => format!("is {:?}", text.as_ref()),
        None => "is missing".to_owned(),
    }
}

fn asked(wanted: Option<&StringMatch>) -> String {
    match wanted {
        Some(StringMatch::Exact(text)) => format!("be {text:?}"),
        Some(StringMatch::Prefix(text)) => format!("begin with {text:?}"),
        Some(StringMatch::PathPrefix(text)) => format!("be {text:?} or below"),
        Some(StringMatch::Regex(regex)) => format!("match {:?} as a whole", regex.source()),
        Some(StringMatch::Present) | None => "be there".to_owned(),
    }
}

fn call(wanted: Option<&GrpcMatch>) -> String {
    let part = |wanted: Option<&StringMatch>| match wanted {
        Some(StringMatch::Exact(text)) => text.clone(),
        Some(StringMatch::Regex(regex)) => format!("~{}", regex.source()),
        _ => "*".to_owned(),
    };
    let (service, method) = wanted.map_or((None, None), |one| (one.service.as_ref(), one.method.as_ref()));
    format!("{}/{}", part(service), part(method))
}
