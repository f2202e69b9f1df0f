//! What annotations ask for of ejection and of health checks, as it is read and refused.

use std::time::Duration;

use selvedge_model::{FailurePercentage, HealthCheck, HealthQuestion, OutlierDetection, SuccessRate};

use super::*;

/// A rule with these annotations, each without its common beginning, and this `trafficPolicy`.
fn rule(annotations: &[(&str, &str)], policy: &str) -> Decoded {
    let lines = annotations.iter().map(|(name, value)| format!("    config.selvedge.io/{name}: '{value}'\n"));
    let lines: String = lines.collect();
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: a\n  annotations:\n    other.test/x: y\n\
         {lines}spec:\n  host: a\n  trafficPolicy: {policy}\n"
    ))
}

/// What is said of the annotations of ours.
fn said(decoded: &Decoded) -> Vec<(&str, u64, Severity)> {
    told(decoded).into_iter().filter(|(field, ..)| field.contains("config.selvedge.io")).collect()
}

fn detection(annotations: &[(&str, &str)]) -> OutlierDetection {
    let decoded = rule(annotations, "{outlierDetection: {}}");
    assert_eq!(said(&decoded), []);
    policy(&decoded).outlier_detection.clone().unwrap()
}

#[test]
fn annotations_ask_for_ejections_with_envoys_names_and_defaults() {
    let usual = OutlierDetection::default();
    assert_eq!(detection(&[]), usual);
    let rate = SuccessRate { request_volume: 7, ..SuccessRate::default() };
    assert_eq!(
        detection(&[("success-rate-request-volume", "7")]),
        OutlierDetection { success_rate: Some(rate), ..usual.clone() }
    );
    let percentage = FailurePercentage { threshold: 60, ..FailurePercentage::default() };
    let asked = [
        ("failure-percentage-threshold", "60"),
        ("max-ejection-time", "10m"),
        ("max-ejection-time-jitter", "1s"),
    ];
    assert_eq!(
        detection(&asked),
        OutlierDetection {
            failure_percentage: Some(percentage),
            max_ejection_time: Duration::from_secs(600),
            max_ejection_time_jitter: Duration::from_secs(1),
            ..usual
        }
    );
}

#[test]
fn annotations_of_ejections_that_are_wrong_or_of_no_use_are_told() {
    for wrong in [
        ("failure-percentage-threshold", "101"),
        ("success-rate-minimum-hosts", "0"),
        ("max-ejection-time", "5"),
        ("max-ejection-time-jitter", "25h"),
    ] {
        let decoded = rule(&[wrong], "{outlierDetection: {}}");
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{wrong:?}");
        let field = format!("metadata.annotations[config.selvedge.io/{}]", wrong.0);
        assert_eq!(said(&decoded), [(field.as_str(), 7, Severity::Error)], "{wrong:?}");
    }
    let without = rule(&[("max-ejection-time", "5m")], "{}");
    assert_eq!(said(&without)[0].2, Severity::NotActedOn);
    let short = rule(&[("max-ejection-time", "5s")], "{outlierDetection: {baseEjectionTime: 20s}}");
    assert_eq!(said(&short)[0].2, Severity::Warning);
    let detection = policy(&short).outlier_detection.as_ref().unwrap();
    assert_eq!(detection.max_ejection_time, Duration::from_secs(20));
}

fn check(annotations: &[(&str, &str)]) -> Option<HealthCheck> {
    let decoded = rule(annotations, "{loadBalancer: {simple: RANDOM}}");
    assert_eq!(said(&decoded), []);
    match understood(&decoded) {
        Resource::DestinationRule(document) => document.spec.health_check.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn annotations_ask_for_health_checks() {
    assert_eq!(check(&[]), None);
    let http = |path: &str, host: Option<&str>, statuses: &[(u16, u16)]| HealthQuestion::Http {
        path: path.to_owned(),
        host: host.map(str::to_owned),
        statuses: statuses.to_vec(),
    };
    assert_eq!(check(&[("health-check", "HTTP")]), Some(HealthCheck::new(http("/", None, &[(200, 399)]))));
    let all = [
        ("health-check", "HTTP"),
        ("health-check-path", "/healthz?deep=1"),
        ("health-check-host", "check.test:8080"),
        ("health-check-expected-statuses", "200-204, 304"),
        ("health-check-port", "9090"),
        ("health-check-interval", "5s"),
        ("health-check-timeout", "250ms"),
        ("health-check-unhealthy-threshold", "3"),
        ("health-check-healthy-threshold", "4"),
    ];
    let question = http("/healthz?deep=1", Some("check.test:8080"), &[(200, 204), (304, 304)]);
    let expected = HealthCheck {
        question,
        port: Some(9090),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(250),
        unhealthy_threshold: 3,
        healthy_threshold: 4,
    };
    assert_eq!(check(&all), Some(expected));
    let grpc = HealthQuestion::Grpc { host: None, service: "shop.Cart".to_owned() };
    let asked = [("health-check", "GRPC"), ("health-check-grpc-service", "shop.Cart")];
    assert_eq!(check(&asked), Some(HealthCheck::new(grpc)));
    assert_eq!(check(&[("health-check", "TCP")]), Some(HealthCheck::new(HealthQuestion::Tcp)));
}

#[test]
fn annotations_of_health_checks_that_are_wrong_or_of_no_use_are_told() {
    for wrong in [
        ("health-check", "UDP"),
        ("health-check-path", "healthz"),
        ("health-check-host", "a b"),
        ("health-check-expected-statuses", "200-"),
        ("health-check-expected-statuses", "299-200"),
        ("health-check-port", "0"),
        ("health-check-port", "65536"),
        ("health-check-interval", "100ms"),
        ("health-check-timeout", "0s"),
        ("health-check-healthy-threshold", "0"),
    ] {
        let kind = ("health-check", "HTTP");
        let annotations = if wrong.0 == kind.0 { vec![wrong] } else { vec![kind, wrong] };
        let decoded = rule(&annotations, "{}");
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{wrong:?}");
        let field = format!("metadata.annotations[config.selvedge.io/{}]", wrong.0);
        let line = 6 + annotations.len() as u64;
        assert_eq!(said(&decoded), [(field.as_str(), line, Severity::Error)], "{wrong:?}");
    }
    for of_no_use in [
        vec![("health-check-path", "/healthz")],
        vec![("health-check", "TCP"), ("health-check-path", "/healthz")],
        vec![("health-check", "HTTP"), ("health-check-grpc-service", "x")],
    ] {
        let decoded = rule(&of_no_use, "{}");
        assert_eq!(said(&decoded).len(), 1, "{of_no_use:?}");
        assert_eq!(said(&decoded)[0].2, Severity::NotActedOn, "{of_no_use:?}");
    }
}
