//! Policies of connections, alone.

use std::time::Duration;

use selvedge_model::{
    ConnectionPool, Credential, Http2Upgrade, MtlsMode, ProxyProtocol, RetryBudget, TcpKeepalive,
    TunnelMethod, filter::Fraction,
};

use super::{super::*, destination_rule, only, policy, told, understood};
use crate::problem::Severity;

#[test]
fn limits_on_connections_are_read_and_zero_is_none() {
    let decoded = destination_rule(
        "    connectionPool:\n      tcp: {maxConnections: 0, maxConnectionDuration: 10m}\n      http: {http2MaxRequests: 7, maxRequestsPerConnection: 1, maxConcurrentStreams: 9, maxRetries: 3, idleTimeout: 5s, h2UpgradePolicy: DO_NOT_UPGRADE}\n",
    );

    assert_eq!(told(&decoded), []);
    let expected = ConnectionPool {
        max_pending_requests: None,
        max_requests: Some(7),
        max_requests_per_connection: Some(1),
        max_concurrent_streams: Some(9),
        max_retries: Some(3),
        idle_timeout: Some(Duration::from_secs(5)),
        http2_upgrade: Http2Upgrade::Never,
    };
    let block = policy(&decoded).connection_pool.as_ref().unwrap();
    assert_eq!(block.pool, expected);
    assert_eq!(block.connections.max_connections, None);
    assert_eq!(block.connections.max_duration, Some(Duration::from_secs(600)));
}

#[test]
fn keep_alive_budgets_and_the_clients_protocol_are_read() {
    let decoded = destination_rule(
        "    retryBudget: {percent: 12.5, minRetryConcurrency: 0, budgetInterval: 1m}\n    connectionPool:\n      tcp: {tcpKeepalive: {probes: 3, time: 1.5s, interval: 0s}}\n      http: {useClientProtocol: true, h2UpgradePolicy: DO_NOT_UPGRADE}\n",
    );

    assert_eq!(told(&decoded), []);
    let share = Fraction::of_percent(12.5).unwrap();
    let budget =
        RetryBudget { share, at_once: 0, interval: Some(Duration::from_secs(60)), ..RetryBudget::default() };
    assert_eq!(policy(&decoded).retry_budget, Some(budget));
    let block = policy(&decoded).connection_pool.as_ref().unwrap();
    let time = Some(Duration::from_millis(1500));
    assert_eq!(block.connections.keepalive, Some(TcpKeepalive { probes: Some(3), time, interval: None }));
    assert_eq!(block.pool.http2_upgrade, Http2Upgrade::AsClient);

    let decoded = destination_rule("    retryBudget: {budgetInterval: 0s}\n");
    assert_eq!(policy(&decoded).retry_budget, Some(RetryBudget::default()), "as in Istio");
}

#[test]
fn what_a_tunnel_says_is_refused_if_it_cannot_be_kept() {
    let decoded =
        destination_rule("    tunnel: {protocol: CONNECT, targetHost: Db.example.com, targetPort: 5432}\n");
    assert_eq!(told(&decoded), []);
    let target = policy(&decoded).tunnel.as_ref().unwrap().target.to_string();
    assert_eq!((target.as_str(), policy(&decoded).proxy_protocol), ("db.example.com:5432", None));
    assert_eq!(policy(&destination_rule("    proxyProtocol: {}\n")).proxy_protocol, Some(ProxyProtocol::V1));

    let decoded = destination_rule("    tunnel: {protocol: POST, targetHost: a.b, targetPort: 1}\n");
    assert_eq!(policy(&decoded).tunnel.as_ref().unwrap().method, TunnelMethod::Post);
    for (block, field) in [
        ("{protocol: MASQUE, targetHost: a.b, targetPort: 1}", "tunnel.protocol"),
        ("{targetHost: 'a b', targetPort: 1}", "tunnel.targetHost"),
        ("{targetHost: a.b, targetPort: 0}", "tunnel.targetPort"),
    ] {
        let decoded = destination_rule(&format!("    tunnel: {block}\n"));
        let field = format!("spec.trafficPolicy.{field}");
        assert_eq!(told(&decoded), [(field.as_str(), 7, Severity::Error)], "{block}");
    }
}

#[test]
fn budgets_are_what_can_be_kept() {
    for (block, field) in [
        ("retryBudget: {percent: 101}", "retryBudget.percent"),
        ("retryBudget: {percent: -1}", "retryBudget.percent"),
        ("retryBudget: {budgetInterval: 2h}", "retryBudget.budgetInterval"),
    ] {
        let decoded = destination_rule(&format!("    {block}\n"));
        let field = format!("spec.trafficPolicy.{field}");
        assert_eq!(told(&decoded), [(field.as_str(), 7, Severity::Error)], "{block}");
    }
}

#[test]
fn what_istio_takes_and_the_kernel_does_not_is_the_nearest_keep_alive_and_reported() {
    for (asked, probes, time, interval, field) in [
        ("probes: 128", Some(127), None, None, "probes"),
        ("time: 10ms", None, Some(1), None, "time"),
        ("interval: 10h", None, None, Some(32_767), "interval"),
    ] {
        let decoded =
            destination_rule(&format!("    connectionPool: {{tcp: {{tcpKeepalive: {{{asked}}}}}}}\n"));
        let field = format!("spec.trafficPolicy.connectionPool.tcp.tcpKeepalive.{field}");
        assert_eq!(told(&decoded), [(field.as_str(), 7, Severity::Warning)], "{asked}");
        let [time, interval] = [time, interval].map(|time| time.map(Duration::from_secs));
        let block = policy(&decoded).connection_pool.as_ref().unwrap();
        assert_eq!(block.connections.keepalive, Some(TcpKeepalive { probes, time, interval }), "{asked}");
    }
}

#[test]
fn a_policy_of_a_kind_that_is_not_enforced_is_an_error_that_can_be_accepted() {
    for (kind, version) in [
        ("AdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1"),
        ("StagedGlobalNetworkPolicy", "projectcalico.org/v3"),
        ("CiliumNetworkPolicy", "cilium.io/v2"),
        ("EgressNetwork", "policy.linkerd.io/v1alpha1"),
    ] {
        let decoded =
            only(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"));

        assert!(matches!(decoded.outcome, DecodeOutcome::NotActedOn), "{kind}");
        assert!(decoded.stand_in.is_none(), "{kind}");
        assert_eq!(told(&decoded), [("", 2, Severity::Error)], "{kind}");
        assert!(decoded.problems[0].message.contains("is not enforced"), "{:?}", decoded.problems);
        assert_eq!(decoded.problems[0].clone().accepted().severity, Severity::NotActedOn, "{kind}");
    }
}

#[test]
fn in_a_cluster_its_network_enforces_what_is_for_networks() {
    let severity = |version: &str, kind: &str| {
        let object =
            serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": {}});
        decode_value(object, "default").problems[0].severity
    };

    assert_eq!(severity("cilium.io/v2", "CiliumNetworkPolicy"), Severity::NotActedOn);
    assert_eq!(severity("projectcalico.org/v3", "StagedNetworkPolicy"), Severity::NotActedOn);
    assert_eq!(severity("policy.linkerd.io/v1beta3", "Server"), Severity::Error);
}

#[test]
fn a_destination_rule_says_how_tls_is_begun() {
    use selvedge_model::{ClientCertificate, TlsOrigination, Trusted, UpstreamTls};

    let rule = |tls: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a.example.com\n  trafficPolicy:\n    portLevelSettings:\n    - port: {{number: 443}}\n      tls: {tls}\n"
        ))
    };
    let read = |decoded: &Decoded| {
        let Resource::DestinationRule(document) = understood(decoded) else { panic!("{decoded:?}") };
        assert_eq!(document.spec.policy.tls, None, "only for its port");
        document.spec.policy.ports[&443].tls.clone().unwrap()
    };

    let mutual = rule(
        "{mode: MUTUAL, sni: x.example, subjectAltNames: [y.example], caCertificates: /ca.pem, clientCertificate: /c.pem, privateKey: /k.pem}",
    );
    assert_eq!(told(&mutual), []);
    let client = ClientCertificate { certificate: "/c.pem".into(), private_key: "/k.pem".into() };
    let expected = TlsOrigination {
        sni: Some("x.example".into()),
        subject_alt_names: vec!["y.example".into()],
        trusted: Trusted::File("/ca.pem".into()),
        client: Some(client),
        files_named_by: Some("default".into()),
        insecure_skip_verify: false,
        ..TlsOrigination::default()
    };
    assert_eq!(read(&mutual), UpstreamTls::Originate(expected));
    assert_eq!(read(&rule("{mode: DISABLE}")), UpstreamTls::Disable);
    assert_eq!(read(&rule("{mode: ISTIO_MUTUAL}")), UpstreamTls::IstioMutual);

    let expected = TlsOrigination {
        credential: Some(Credential { named_by: "default".into(), secret: "shop".into(), mutual: true }),
        ..TlsOrigination::default()
    };
    assert_eq!(read(&rule("{mode: MUTUAL, credentialName: shop}")), UpstreamTls::Originate(expected));
    let empty = rule("{mode: SIMPLE, sni: '', credentialName: '', caCertificates: ''}");
    assert_eq!(told(&empty), [], "templates write what is not there");
    assert_eq!(read(&empty), UpstreamTls::Originate(TlsOrigination::default()));

    for (tls, severity) in [
        ("{mode: MUTUAL}", Severity::Error),
        ("{mode: SIMPLE, credentialName: edge/secret}", Severity::Error),
        ("{mode: SIMPLE, sni: 'a b'}", Severity::Error),
        ("{mode: SIMPLE, credentialName: secret}", Severity::NotActedOn),
        ("{mode: SIMPLE, insecureSkipVerify: true}", Severity::Warning),
        ("{mode: ISTIO_MUTUAL, sni: x.example}", Severity::Warning),
        ("{mode: SIMPLE, caCrl: /crl.pem}", Severity::NotActedOn),
    ] {
        let decoded = rule(tls);
        let severities: Vec<_> = told(&decoded).iter().map(|(_, _, severity)| *severity).collect();
        assert_eq!(severities, [severity], "{tls}");
    }
}

#[test]
fn a_peer_authentication_reads_modes_by_port() {
    let decoded = only(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {app: a}}\n  mtls: {mode: STRICT}\n  portLevelMtls:\n    8080: {mode: DISABLE}\n    9090: {}\n",
    );

    let Resource::PeerAuthentication(document) = understood(&decoded) else { panic!("{decoded:?}") };
    assert_eq!(document.spec.mode, Some(MtlsMode::Strict));
    assert_eq!(document.spec.ports, [(8080, Some(MtlsMode::Disable)), (9090, None)].into());
    let empty = only("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n");
    assert!(
        matches!(understood(&empty), Resource::PeerAuthentication(document) if document.spec.mode.is_none())
    );
}

#[test]
fn a_selector_that_is_not_understood_fails_the_document() {
    let labels = "spec.selector.matchLabels";
    for (spec, field) in [
        ("selector: {matchExpressions: [{key: a}]}", "spec.selector.matchExpressions"),
        ("selector: {matchLabels: {'': v1}}", labels),
        ("selector: {matchLabels: {app: '*'}}", labels),
        ("selector: {matchLabels: {'a*': v1}}", labels),
        ("selector: {matchLabels: {app: a}}, portLevelMtls: {}", "spec.portLevelMtls"),
        ("selector: {matchLabels: {app: a}}, portLevelMtls: {0: {mode: STRICT}}", "spec.portLevelMtls.0"),
    ] {
        let decoded = only(&format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a}}\nspec: {{{spec}, mtls: {{mode: \
             DISABLE}}}}\n"
        ));

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{spec}");
        assert_eq!(decoded.problems[0].field, field, "{spec}");
        assert!(decoded.stand_in.is_some(), "{spec}: it is read as STRICT");
    }
}
