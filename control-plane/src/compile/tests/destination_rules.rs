//! What of a `trafficPolicy` no setting for a port takes away.

use selvedge_model::{ProxyProtocol, RetryBudget};

use super::*;

/// The policies of the host and of its subset, where these are their `trafficPolicy`s.
fn policies(host: &str, subset: &str) -> [TrafficPolicy; 2] {
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy: {{{host}}}\n  subsets: [{{name: v1, labels: {{version: v1}}, \
         trafficPolicy: {{{subset}}}}}]\n{}",
        virtual_service(
            "r",
            "{hosts: [reviews], http: [{match: [{uri: {exact: /v1}}], route: [{destination: {host: reviews, subset: v1}}]}, {route: [{destination: {host: reviews}}]}]}"
        )
    );
    let (mesh, problems) = compiled(&text);
    assert_eq!(errors(&problems), [""; 0], "{text}");
    [None, Some("v1")].map(|name| {
        let backends = &reviews(&mesh).backends;
        backends.iter().find(|one| one.name.subset.as_deref() == name).unwrap().policy.clone()
    })
}

#[test]
fn a_subset_has_its_hosts_retry_budget_unless_it_has_its_own_whatever_is_set_for_the_port() {
    let budget = |at_once: u32| format!("retryBudget: {{minRetryConcurrency: {at_once}}}");
    let port = "portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]";
    for (host, subset, whole, part) in [
        (budget(7), String::new(), Some(7), Some(7)),
        (String::new(), budget(8), None, Some(8)),
        (budget(7), budget(8), Some(7), Some(8)),
        (format!("{}, {port}", budget(7)), String::new(), Some(7), Some(7)),
        (format!("{}, {port}", budget(7)), budget(8), Some(7), Some(8)),
        (budget(7), format!("{}, {port}", budget(8)), Some(7), Some(8)),
        (budget(7), port.to_owned(), Some(7), Some(7)),
        (port.to_owned(), port.to_owned(), None, None),
    ] {
        let expected = [whole, part]
            .map(|at_once| at_once.map(|at_once| RetryBudget { at_once, ..RetryBudget::default() }));
        assert_eq!(policies(&host, &subset).map(|policy| policy.retry_budget), expected, "{host}; {subset}");
    }
}

#[test]
fn what_is_said_on_the_way_is_a_hosts_or_its_subsets_whatever_is_set_for_the_port() {
    let said = |version: u8, target: &str| {
        format!("proxyProtocol: {{version: V{version}}}, tunnel: {{targetHost: {target}, targetPort: 1}}")
    };
    let port = "portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]";
    let one = Some((ProxyProtocol::V1, "a.b:1".to_owned()));
    let other = Some((ProxyProtocol::V2, "c.d:1".to_owned()));
    for (host, subset, whole, part) in [
        (said(1, "a.b"), String::new(), &one, &one),
        (said(1, "a.b"), said(2, "c.d"), &one, &other),
        (format!("{}, {port}", said(1, "a.b")), port.to_owned(), &one, &one),
        (String::new(), format!("{}, {port}", said(2, "c.d")), &None, &other),
    ] {
        let found = policies(&host, &subset).map(|policy| {
            let target = policy.tunnel.map(|tunnel| tunnel.target.to_string());
            policy.proxy_protocol.zip(target)
        });
        assert_eq!(found, [whole.clone(), part.clone()], "{host}; {subset}");
    }
}
