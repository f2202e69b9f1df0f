//! `XBackendTrafficPolicy`: which Services it is for, and what it counts before.

use std::time::Duration;

use selvedge_model::{RetryBudget, Rule, SessionCarrier, filter::Fraction};

use super::*;
use crate::problem::{Fault, PolicyFault, Severity};

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.9.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 10.9.0.2, ports: [{name: http, port: 80}]}
";

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  targetRefs: [{{group: '', kind: Service, name: {target}}}]\n  {spec}\n"
    )
}

fn shop(mesh: &Mesh) -> &Service {
    service(mesh, "shop.default.svc.cluster.local", 80, "default")
}

fn budget(mesh: &Mesh) -> Option<RetryBudget> {
    shop(mesh).backends[0].policy.retry_budget
}

fn said(problems: &[Problem]) -> Vec<(Severity, String)> {
    problems
        .iter()
        .map(|problem| (problem.severity, format!("{}: {}", problem.field, problem.message)))
        .collect()
}

#[test]
fn a_constraint_is_a_budget_with_the_defaults_of_the_gateway_api() {
    for (constraint, percent, interval, at_least) in [
        ("{}", 20.0, 10, 100),
        ("{budget: {}, minRetryRate: {}}", 20.0, 10, 100),
        ("{budget: {percent: 0}, minRetryRate: {count: 3}}", 0.0, 10, 30),
        ("{budget: {percent: 100, interval: 1m}, minRetryRate: {count: 1, interval: 2m}}", 100.0, 60, 1),
    ] {
        let text = SERVICES.to_owned() + &policy("p", "shop", &format!("retryConstraint: {constraint}"));
        let (mesh, problems) = compiled(&text);

        assert_eq!(problems, [], "{constraint}");
        let expected = RetryBudget {
            share: Fraction::of_percent(percent).unwrap(),
            at_once: 0,
            interval: Some(Duration::from_secs(interval)),
            at_least,
            refuses: true,
        };
        assert_eq!(budget(&mesh), Some(expected), "{constraint}");
        assert!(shop(&mesh).routes.rules().iter().all(|rule| rule.session.is_none()));
    }
}

#[test]
fn what_an_api_server_would_not_take_is_refused() {
    for (spec, field) in [
        ("retryConstraint: {budget: {percent: 101}}", "spec.retryConstraint.budget.percent"),
        ("retryConstraint: {budget: {interval: 999ms}}", "spec.retryConstraint.budget.interval"),
        ("retryConstraint: {budget: {interval: 61m}}", "spec.retryConstraint.budget.interval"),
        ("retryConstraint: {minRetryRate: {count: 0}}", "spec.retryConstraint.minRetryRate.count"),
        ("retryConstraint: {minRetryRate: {count: 1000001}}", "spec.retryConstraint.minRetryRate.count"),
        ("retryConstraint: {minRetryRate: {interval: 0s}}", "spec.retryConstraint.minRetryRate.interval"),
        ("sessionPersistence: {idleTimeout: 1ms}", "spec.sessionPersistence.idleTimeout"),
    ] {
        let (mesh, problems) = compiled(&(SERVICES.to_owned() + &policy("p", "shop", spec)));

        let [problem] = problems.as_slice() else { panic!("{spec}: {problems:?}") };
        assert_eq!((problem.severity, problem.field.as_str()), (Severity::Error, field), "{spec}");
        assert_eq!(budget(&mesh), None, "{spec}");
    }
}

#[test]
fn of_two_for_a_service_the_first_counts_and_both_before_a_destination_rule() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop}\nspec:\n  host: shop\n  \
                trafficPolicy: {retryBudget: {percent: 1}}\n";
    let text = [
        SERVICES,
        &policy("first", "shop", "retryConstraint: {budget: {percent: 30}}"),
        &policy("late", "shop", "retryConstraint: {budget: {percent: 40}}"),
        &policy("nobody", "gone", "retryConstraint: {}"),
        rule,
    ]
    .concat();
    let (mesh, problems) = compiled(&text);

    assert_eq!(budget(&mesh).unwrap().share, Fraction::of_percent(30.0).unwrap());
    let faults: Vec<_> = problems.iter().map(|problem| problem.fault).collect();
    assert!(faults.contains(&Fault::Overruled) && faults.contains(&Fault::Policy(PolicyFault::NoTarget)));
    let said: Vec<String> = said(&problems).into_iter().map(|(_, words)| words).collect();
    for words in [
        "spec.targetRefs[0]: has no effect: XBackendTrafficPolicy default/first",
        "spec.targetRefs[0]: there is no Service default/gone",
        "spec.trafficPolicy.retryBudget: has no effect on shop.default.svc.cluster.local: XBackendTrafficPolicy default/first",
    ] {
        assert!(said.iter().any(|one| one.starts_with(words)), "{words}: {said:#?}");
    }
    assert_eq!(said.len(), 3, "{said:#?}");
}

/// The session of the only rule of the routes to `shop`, with this `VirtualService`.
fn session(routes: &str, policies: &str) -> (Vec<Arc<Rule>>, Vec<(Severity, String)>) {
    let routes = match routes {
        "" => String::new(),
        routes => format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v}}\nspec: {{hosts: [shop], \
             http: [{routes}]}}\n"
        ),
    };
    let (mesh, problems) = compiled(&[SERVICES, policies, &routes].concat());
    (shop(&mesh).routes.rules().to_vec(), said(&problems))
}

#[test]
fn every_rule_that_sends_to_one_service_has_the_session_of_its_policy() {
    let sticky = policy("sticky", "shop", "sessionPersistence: {type: Header, sessionName: X-Cart}");
    let (rules, problems) = session("", &sticky);
    assert_eq!(problems, []);
    let default = rules[0].session.clone().unwrap();
    assert_eq!((default.name.as_str(), &default.carrier), ("x-cart", &SessionCarrier::Header));

    // All rules share its key, so a session is the same whichever of them a request follows.
    let routes = "{match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}, {route: [{destination: {host: shop}}]}";
    let (rules, problems) = session(routes, &sticky);
    assert_eq!(problems, []);
    assert_eq!(rules.len(), 2);
    assert!(rules.iter().all(|rule| rule.session.as_ref() == Some(&default)));

    let (rules, _) = session("{route: [{destination: {host: other}}]}", &sticky);
    assert_eq!(rules[0].session, None);
}

#[test]
fn a_rule_that_splits_between_services_has_no_session_of_theirs_and_this_is_reported() {
    let split = "{route: [{destination: {host: shop}, weight: 1}, {destination: {host: other}, weight: 1}]}";
    let (rules, problems) = session(split, &policy("sticky", "shop", "sessionPersistence: {}"));

    assert_eq!(rules[0].session, None);
    let [(Severity::Warning, words)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(words.starts_with("spec.sessionPersistence: has no effect on"), "{words}");

    let unused = "{route: [{destination: {host: shop}, weight: 1}, {destination: {host: other}, weight: 0}]}";
    let (rules, problems) = session(unused, &policy("sticky", "shop", "sessionPersistence: {}"));
    assert_eq!((rules[0].session.is_some(), problems), (true, vec![]));
}
