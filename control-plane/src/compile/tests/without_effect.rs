//! What documents ask for that is not there, or has no effect where they ask for it.

use super::*;

/// The field and the words of each warning about the documents of this kind.
fn warned(kind: &str, text: &str) -> Vec<(String, String)> {
    let (_, problems) = compiled(text);
    assert_eq!(errors(&problems), [""; 0], "{text}");
    let of_kind =
        problems.into_iter().filter(|one| one.document.as_ref().is_some_and(|name| *name.kind == *kind));
    of_kind
        .map(|one| {
            assert!(one.severity == Severity::Warning && one.line.is_some(), "{one}");
            (one.field, one.message)
        })
        .collect()
}

/// The fields alone.
fn fields(kind: &str, text: &str) -> Vec<String> {
    warned(kind, text).into_iter().map(|(field, _)| field).collect()
}

fn rule(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{{spec}}}\n---\n"
    )
}

fn service(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{ports}]}}\n---\n"
    )
}

const BOTH_PORTS: &str = "{name: http, port: 80}, {name: tcp, port: 81}, {name: any, port: 82}";

#[test]
fn a_subset_is_told_that_selects_no_endpoint_of_a_host_that_has_some() {
    let subset = |labels: &str| {
        rule(&format!(
            "host: reviews, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: other, labels: {labels}}}]"
        ))
    };
    let none = ["spec.subsets[1].labels".to_owned()];
    for (labels, expected) in [
        ("{version: v3}", &none[..]),
        ("{version: v2, app: ratings}", &none),
        ("{version: v2, security.istio.io/tlsMode: istio}", &none),
        ("{version: v2}", &[]),
        ("{version: v2, app: reviews}", &[]),
        ("{}", &[]),
    ] {
        assert_eq!(fields("DestinationRule", &format!("{MESH}{}", subset(labels))), expected, "{labels}");
    }
    let [(_, message)] = &warned("DestinationRule", &format!("{MESH}{}", subset("{version: v3}")))[..] else {
        panic!()
    };
    assert!(message.contains("requests to other are answered 503"), "{message}");
    let without = format!("{}{}", service("reviews", BOTH_PORTS), subset("{version: v3}"));
    assert_eq!(fields("DestinationRule", &without), [""; 0], "it has no endpoints at all");
    let wide = subset("{version: v3}").replace("host: reviews", "host: '*.default.svc.cluster.local'");
    assert_eq!(fields("DestinationRule", &format!("{MESH}{wide}")), [""; 0], "another host may have some");
}

#[test]
fn a_match_is_told_that_asks_for_a_port_which_no_host_of_the_document_has() {
    let text = |spec: &str| format!("{}{}", service("a", BOTH_PORTS), virtual_service("r", spec));
    let route = "route: [{destination: {host: a, port: {number: 80}}}]";
    for (kind, port, words) in [
        ("http", 80, None),
        ("http", 82, None),
        ("tcp", 81, None),
        ("tcp", 82, None),
        (
            "http",
            8080,
            Some(
                "a.default.svc.cluster.local has no port 8080, so this match never holds; use one of 80, 81, 82",
            ),
        ),
        ("tcp", 8080, Some("has no port 8080")),
        ("http", 81, Some("does not speak HTTP at port 81")),
        ("tcp", 80, Some("speaks HTTP at port 80")),
    ] {
        let spec = format!("{{hosts: [a], {kind}: [{{match: [{{port: {port}}}], {route}}}]}}");
        let warned = warned("VirtualService", &text(&spec));
        let expected = words.map(|_| format!("spec.{kind}[0].match[0].port"));
        assert_eq!(
            warned.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>(),
            Vec::from_iter(expected),
            "{spec}"
        );
        assert!(
            warned.iter().all(|(_, message)| words.is_some_and(|words| message.contains(words))),
            "{warned:?}"
        );
    }
    let spec = format!("{{hosts: [a, b], http: [{{match: [{{port: 9090}}], {route}}}]}}");
    let both = format!("{}{}", service("b", "{name: http, port: 9090}"), text(&spec));
    assert_eq!(fields("VirtualService", &both), [""; 0], "one of the hosts has it");
    let spec =
        format!("{{hosts: ['*.default.svc.cluster.local'], http: [{{match: [{{port: 8080}}], {route}}}]}}");
    assert_eq!(
        fields("VirtualService", &text(&spec)),
        ["spec.http[0].match[0].port"],
        "of all below a wildcard"
    );
}

const EDGE: &str = r#"---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {app: edge}
  servers: [{port: {number: 8443, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge, annotations: {config.selvedge.io/gateway: default/edge}}
spec: {address: 127.0.0.9, labels: {app: edge}}
---
"#;

#[test]
fn a_match_may_ask_for_the_port_of_a_gateway_that_follows_it() {
    let text = |gateways: &str, asked: &str| {
        let spec = format!(
            "{{hosts: [a], gateways: [{gateways}], http: [{{match: [{asked}], route: [{{destination: {{host: a, port: {{number: 80}}}}}}]}}]}}"
        );
        format!("{EDGE}{}{}", service("a", BOTH_PORTS), virtual_service("r", &spec))
    };
    for (gateways, asked) in [
        ("edge", "{port: 8443}"),
        ("edge, mesh", "{port: 8443}"),
        ("edge, mesh", "{port: 80}"),
        ("edge, mesh", "{port: 80, gateways: [mesh]}"),
        ("edge, mesh", "{port: 8443, gateways: [edge]}"),
    ] {
        assert_eq!(fields("VirtualService", &text(gateways, asked)), [""; 0], "{gateways} {asked}");
    }
    for (gateways, asked) in [
        ("edge", "{port: 80}"),
        ("edge, mesh", "{port: 9}"),
        ("edge, mesh", "{port: 8443, gateways: [mesh]}"),
        ("edge, mesh", "{port: 80, gateways: [edge]}"),
    ] {
        let warned = fields("VirtualService", &text(gateways, asked));
        assert_eq!(warned, ["spec.http[0].match[0].port"], "{gateways} {asked}");
    }
}

#[test]
fn a_match_is_told_that_names_a_gateway_which_is_unknown_or_does_not_follow_the_document() {
    let warned = |gateways: &str, asked: &str| {
        let spec = format!(
            "{{hosts: [a], {gateways} http: [{{match: [{{gateways: [{asked}]}}], route: [{{destination: {{host: a, port: {{number: 80}}}}}}]}}]}}"
        );
        warned(
            "VirtualService",
            &format!("{EDGE}{}{}", service("a", BOTH_PORTS), virtual_service("r", &spec)),
        )
    };
    for (gateways, asked) in
        [("gateways: [edge, mesh],", "edge, mesh"), ("gateways: [edge],", "default/edge"), ("", "mesh")]
    {
        assert_eq!(warned(gateways, asked), [], "{gateways} {asked}");
    }
    for (gateways, asked, field, words) in [
        ("gateways: [edge, mesh],", "mesh, egde", "gateways[1]", "there is no Gateway default/egde"),
        ("gateways: [edge, mesh],", "shop/edge", "gateways[0]", "there is no Gateway shop/edge"),
        ("", "edge", "gateways[0]", "spec.gateways does not name default/edge"),
        ("gateways: [edge],", "edge, mesh", "gateways", "names mesh, and spec.gateways does not"),
    ] {
        let [(told, message)] = &warned(gateways, asked)[..] else { panic!("{gateways} {asked}") };
        assert_eq!(*told, format!("spec.http[0].match[0].{field}"), "{gateways} {asked}");
        assert!(message.contains(words), "{message}");
    }
    let delegate = "{http: [{match: [{gateways: [egde]}, {gateways: [edge]}], route: [{destination: {host: a, port: {number: 80}}}]}]}";
    let root = "{hosts: [a], gateways: [edge], http: [{delegate: {name: d}}]}";
    let text = format!(
        "{EDGE}{}{}{}",
        service("a", BOTH_PORTS),
        virtual_service("d", delegate),
        virtual_service("r", root)
    );
    assert_eq!(fields("VirtualService", &text), ["spec.http[0].match[0].gateways[0]"]);
}

#[test]
fn a_setting_is_told_that_is_for_a_port_which_the_host_does_not_have() {
    let rule = |number: u16| {
        let ports = |number: u16| {
            format!(
                "portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: DISABLE}}}}, {{port: {{number: {number}}}, tls: {{mode: DISABLE}}}}]"
            )
        };
        rule(&format!(
            "host: a, trafficPolicy: {{{}}}, subsets: [{{name: v1, trafficPolicy: {{{}}}}}]",
            ports(number),
            ports(number)
        ))
    };
    let text = |number: u16| format!("{}{}", service("a", BOTH_PORTS), rule(number));
    assert_eq!(fields("DestinationRule", &text(82)), [""; 0]);
    let warned = warned("DestinationRule", &text(8080));
    let at = |field: &str| format!("{field}.portLevelSettings[1].port.number");
    let fields: Vec<_> = warned.iter().map(|(field, _)| field.clone()).collect();
    assert_eq!(fields, [at("spec.subsets[0].trafficPolicy"), at("spec.trafficPolicy")]);
    assert!(
        warned[0].1.contains("has no port 8080, so this has no effect; use one of 80, 81, 82"),
        "{warned:?}"
    );
}

#[test]
fn what_is_for_requests_is_told_where_no_http_is_spoken() {
    const POOL: &str = "connectionPool: {http: {http2MaxRequests: 5}}";
    const HASH: &str = "loadBalancer: {consistentHash: {httpHeaderName: x}}";
    let opaque = service("a", "{name: tcp-db, port: 81}");
    let mixed = service("a", BOTH_PORTS);
    let at_port =
        |number: u16, block: &str| format!("portLevelSettings: [{{port: {{number: {number}}}, {block}}}]");
    let told = |service: &str, policy: &str| {
        fields(
            "DestinationRule",
            &format!("{service}{}", rule(&format!("host: a, trafficPolicy: {{{policy}}}"))),
        )
    };
    for (policy, field) in [
        (POOL, "connectionPool.http"),
        (HASH, "loadBalancer.consistentHash.httpHeaderName"),
        ("loadBalancer: {consistentHash: {httpCookie: {name: x}}}", "loadBalancer.consistentHash.httpCookie"),
        (
            "loadBalancer: {consistentHash: {httpQueryParameterName: x}}",
            "loadBalancer.consistentHash.httpQueryParameterName",
        ),
    ] {
        assert_eq!(told(&opaque, policy), [format!("spec.trafficPolicy.{field}")]);
        assert_eq!(told(&mixed, policy), [""; 0], "{policy}: one port may speak HTTP");
        let at = format!("spec.trafficPolicy.portLevelSettings[0].{field}");
        assert_eq!(told(&mixed, &at_port(81, policy)), [at]);
        assert_eq!(told(&mixed, &at_port(82, policy)), [""; 0], "{policy}: it is not said what is spoken");
    }
    for policy in [
        "connectionPool: {tcp: {maxConnections: 5}}",
        "loadBalancer: {consistentHash: {useSourceIp: true}}",
        "tls: {mode: SIMPLE}, connectionPool: {http: {http2MaxRequests: 5}}",
    ] {
        assert_eq!(told(&opaque, policy), [""; 0], "{policy}");
    }
}

#[test]
fn a_match_is_told_that_asks_for_labels_which_no_client_has() {
    let text = |fields: &str, asked: &str| {
        let route = "route: [{destination: {host: reviews}}]";
        let spec =
            format!("{{hosts: [reviews], {fields} http: [{{match: [{{{asked}}}], {route}}}, {{{route}}}]}}");
        format!("{MESH}{}", virtual_service("r", &spec))
    };
    for (fields_given, asked) in [
        ("", "sourceLabels: {app: reviews}"),
        ("", "sourceLabels: {app: reviews, version: v2}"),
        ("exportTo: ['.'],", "sourceLabels: {version: v2}"),
        ("exportTo: [shop, default],", "sourceLabels: {version: v2}"),
        ("", "sourceNamespace: default, sourceLabels: {version: v2}"),
        // Nobody at all is there, or that is not known.
        ("exportTo: [default],", "sourceNamespace: shop, sourceLabels: {version: v2}"),
    ] {
        let told = fields("VirtualService", &text(fields_given, asked));
        assert!(
            !told.contains(&"spec.http[0].match[0].sourceLabels".to_owned()),
            "{fields_given} {asked}: {told:?}"
        );
    }
    for (fields_given, asked) in [
        ("", "sourceLabels: {app: review}"),
        ("", "sourceLabels: {app: reviews, version: v3}"),
        ("exportTo: ['.'],", "sourceLabels: {version: v3}"),
        ("", "sourceNamespace: default, sourceLabels: {version: v3}"),
    ] {
        let told = fields("VirtualService", &text(fields_given, asked));
        assert_eq!(told, ["spec.http[0].match[0].sourceLabels"], "{fields_given} {asked}");
    }
    let spec = "{hosts: [a], tcp: [{match: [{sourceLabels: {app: x}}], route: [{destination: {host: a, port: {number: 80}}}]}]}";
    let alone = format!("{}{}", service("a", "{name: tcp, port: 80}"), virtual_service("r", spec));
    assert_eq!(fields("VirtualService", &alone), [""; 0], "nobody is there");
    assert_eq!(fields("VirtualService", &format!("{MESH}{alone}")), ["spec.tcp[0].match[0].sourceLabels"]);
}

#[test]
fn a_document_is_told_that_it_is_exported_to_a_namespace_which_is_not_there() {
    let documents = [
        (
            "VirtualService",
            "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}], exportTo: [default, TO]}",
        ),
        ("DestinationRule", "{host: reviews, exportTo: [default, TO]}"),
        (
            "ServiceEntry",
            "{hosts: [a.test], resolution: DNS, ports: [{number: 80, name: http}], exportTo: [default, TO]}",
        ),
    ];
    let elsewhere = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: c, namespace: shop}\nspec: {address: 127.0.0.8}\n---\n";
    let declared = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n---\n";
    for (kind, spec) in documents {
        let document = |to: &str| {
            let spec = spec.replace("TO", to);
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n---\n"
            )
        };
        let told = |to: &str| fields(kind, &format!("{MESH}{elsewhere}{declared}{}", document(to)));
        for there in ["shop", "empty", "istio-system", "selvedge"] {
            assert_eq!(told(there), [""; 0], "{kind} {there}");
        }
        assert_eq!(told("shpo"), ["spec.exportTo"], "{kind}");
        let unknown = format!("{}{}{}", service("reviews", BOTH_PORTS), declared, document("shpo"));
        assert_eq!(
            fields(kind, &unknown),
            [""; 0],
            "{kind}: without workloads it is not known where these are"
        );
    }
}
