use super::*;
use crate::{problem::Severity, resources::document::Metadata};

fn metadata(annotations: &[(&str, &str)]) -> Metadata {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Metadata { annotations: annotations.collect(), ..Metadata::default() }
}

/// What `annotations` say, and what is remarked.
fn said(calls: Calls, annotations: &[(&str, &str)]) -> (Result<Annotated, FieldError>, Vec<Severity>) {
    let metadata = metadata(annotations);
    let mut unknown = Vec::new();
    let mut reading = Reading {
        namespace: "default",
        metadata: &metadata,
        unknown: &mut unknown,
        is_cut: false,
        remarks: Vec::new(),
    };
    let annotated = read(&mut reading, calls);
    (annotated, reading.remarks.into_iter().map(|(severity, ..)| severity).collect())
}

fn retry(calls: Calls, annotations: &[(&str, &str)]) -> RetryPolicy {
    said(calls, annotations).0.unwrap().retry.unwrap()
}

#[test]
fn durations_are_a_whole_number_and_a_unit() {
    for (text, millis) in
        [("250ms", 250), ("2s", 2_000), (" 3m ", 180_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0", 0)]
    {
        assert_eq!(parse_time(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1us", "1s1ms", "18446744073709551615d"] {
        assert_eq!(parse_time(text), None, "{text}");
    }
}

#[test]
fn each_annotation_has_its_effect() {
    let millis = Duration::from_millis;
    let timeouts = [(TIMEOUT_REQUEST, "2s"), (TIMEOUT_RESPONSE, "1s"), (TIMEOUT_IDLE, "0")];
    let (annotated, remarks) = said(Calls::Http, &timeouts);
    let annotated = annotated.unwrap();
    let stream = StreamTimeouts { response: Some(millis(1_000)), idle: None };
    assert_eq!(annotated.timeouts, Some(Timeouts { request: Some(millis(2_000)), stream }));
    assert_eq!((annotated.retry, remarks), (None, Vec::new()));

    let policy = retry(Calls::Http, &[(RETRY_HTTP, "503,429"), (RETRY_LIMIT, "3"), (RETRY_TIMEOUT, "400ms")]);
    assert_eq!((policy.attempts, policy.per_try_timeout), (3, Some(millis(400))));
    assert_eq!(policy.on.status_codes, [429, 503]);
    assert!(policy.on.per_try_timeout && !policy.on.reset && !policy.on.any_5xx && !policy.on.gateway_error);
    assert_eq!((policy.limit_of(2), policy.limit_of(3)), (Some(millis(400)), None));

    let policy = retry(Calls::Grpc, &[(RETRY_GRPC, "Unavailable, internal")]);
    assert_eq!((policy.attempts, policy.on.grpc_statuses), (1, vec![13, 14]));
    let both = retry(Calls::Any, &[(RETRY_GRPC, "cancelled"), (RETRY_HTTP, "5xx")]);
    assert!(both.on.any_5xx && both.on.reset && both.on.gateway_error);
    assert_eq!(both.on.grpc_statuses, [1]);
}

#[test]
fn what_a_connection_that_breaks_is_to_linkerd_is_tried_again_as_that_status() {
    for (list, [any_5xx, gateway_error, reset]) in [
        ("5xx", [true, true, true]),
        ("gateway-error", [false, true, true]),
        ("500-599", [true, true, true]),
        ("502-504", [false, true, true]),
        ("502", [false, false, true]),
        ("500,503", [false, false, false]),
    ] {
        let on = retry(Calls::Http, &[(RETRY_HTTP, list)]).on;
        assert_eq!([on.any_5xx, on.gateway_error, on.reset], [any_5xx, gateway_error, reset], "{list}");
    }
}

#[test]
fn what_is_not_understood_is_refused_at_its_annotation() {
    for (name, value) in [
        (RETRY_HTTP, "retriable"),
        (RETRY_HTTP, "600"),
        (RETRY_HTTP, "504-500"),
        (RETRY_HTTP, ""),
        (RETRY_GRPC, "14"),
        (RETRY_LIMIT, "-1"),
        (RETRY_LIMIT, "many"),
        (RETRY_TIMEOUT, "1"),
        (TIMEOUT_REQUEST, "soon"),
        (TIMEOUT_RESPONSE, "1.5s"),
        (TIMEOUT_IDLE, ""),
    ] {
        let error = said(Calls::Any, &[(name, value)]).0.unwrap_err();
        assert_eq!(error.field, format!("metadata.annotations[{name}]"), "{value}");
    }
}

#[test]
fn what_has_another_effect_than_it_seems_is_said() {
    let (annotated, remarks) = said(Calls::Http, &[(RETRY_LIMIT, "0")]);
    assert_eq!((annotated.unwrap().retry.unwrap().attempts, remarks), (1, vec![Severity::Warning]));
    let (annotated, remarks) = said(Calls::Http, &[(RETRY_GRPC, "internal")]);
    assert_eq!((annotated.unwrap().retry, remarks), (None, vec![Severity::NotActedOn]));
}
