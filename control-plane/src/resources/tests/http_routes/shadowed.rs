//! Routes and matches that others before them leave nothing for.

use super::*;

/// The fields that are told of a `VirtualService` with these routes, each given by its `match`, if it has one.
fn shadowed(routes: &[&str]) -> Vec<String> {
    let routes = routes.iter().map(|asked| match *asked {
        "" => "  - route: [{destination: {host: a}}]\n".to_owned(),
        asked => format!("  - match: [{asked}]\n    route: [{{destination: {{host: a}}}}]\n"),
    });
    let decoded = virtual_service(&routes.collect::<String>());
    let problems = decoded.problems.iter();
    problems
        .map(|problem| {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            assert!(problem.line.is_some() && problem.message.ends_with("remove it"), "{problem}");
            problem.field.clone()
        })
        .collect()
}

#[test]
fn what_stands_after_a_route_for_everything_is_never_reached() {
    for everything in [
        "",
        "{uri: {prefix: /}}",
        "{uri: {regex: '.*'}}",
        "{uri: {prefix: /}, ignoreUriCase: true}",
        "{name: all}",
    ] {
        let all = ["{uri: {exact: /a}}", everything, "{uri: {prefix: /b}}, {method: {exact: GET}}", ""];
        assert_eq!(shadowed(&all), ["spec.http[2]", "spec.http[3]"], "{everything}");
    }
    let decoded = virtual_service(
        "  - route: [{destination: {host: a}}]\n  - name: later\n    match: [{uri: {exact: /a}}]\n    redirect: {uri: /b}\n",
    );
    assert_eq!(told(&decoded), [("spec.http[1]", 8, Severity::Warning)]);
    let message = &decoded.problems[0].message;
    assert!(message.contains("http[0], which has no match, comes before it"), "{message}");
}

#[test]
fn a_match_is_never_reached_after_one_that_asks_for_the_same_or_for_less() {
    for (earlier, later) in [
        ("{uri: {exact: /a}, port: 80}", "{port: 80, name: x, uri: {exact: /a}}"),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a}}"),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /ab}}"),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a/b}, method: {exact: GET}, headers: {x: {exact: y}}}"),
        ("{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {exact: /ab}}"),
        ("{uri: {exact: /A}, ignoreUriCase: true}", "{uri: {exact: /a}}"),
        ("{uri: {prefix: /a}, headers: {x: {exact: y}}}", "{uri: {exact: /ab}, headers: {x: {exact: y}}}"),
        ("{uri: {regex: '/a.'}}", "{uri: {regex: '/a.'}}"),
        ("{method: {exact: GET}}", "{uri: {regex: '/a.'}, method: {exact: GET}}"),
        ("{port: 80}", "{port: 80, uri: {prefix: /a}, method: {exact: GET}}"),
        ("{headers: {x: {}}}", "{port: 80, headers: {x: {}}}"),
        ("{gateways: [mesh]}", "{gateways: [mesh], uri: {prefix: /a}}"),
        ("{sourceLabels: {app: x}}", "{sourceLabels: {app: x}, uri: {prefix: /a}}"),
    ] {
        assert_eq!(shadowed(&[earlier, later]), ["spec.http[1]"], "{earlier}, {later}");
        let with_another = format!("{{uri: {{exact: /other}}}}, {later}");
        assert_eq!(shadowed(&[earlier, &with_another, ""]), ["spec.http[1].match[1]"], "{earlier}, {later}");
        let in_one = format!("{earlier}, {later}");
        assert_eq!(shadowed(&[&in_one]), ["spec.http[0].match[1]"], "{earlier}, {later}");
    }
}

#[test]
fn a_match_that_leaves_something_hides_nothing() {
    for (earlier, later) in [
        ("{uri: {prefix: /ab}}", "{uri: {prefix: /a}}"),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}"),
        ("{uri: {prefix: /A}}", "{uri: {exact: /a}}"),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a}, ignoreUriCase: true}"),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}, ignoreUriCase: true}"),
        ("{uri: {prefix: /a}, method: {exact: GET}}", "{uri: {prefix: /a}}"),
        ("{uri: {prefix: /a}, method: {exact: GET}}", "{uri: {prefix: /a}, method: {exact: PUT}}"),
        ("{uri: {prefix: /}, port: 80}", "{uri: {prefix: /a}, port: 81}"),
        ("{uri: {prefix: /}, port: 80}", "{uri: {prefix: /a}}"),
        ("{uri: {prefix: /}, withoutHeaders: {x: {}}}", "{uri: {prefix: /a}}"),
        ("{uri: {regex: '/a.*'}}", "{uri: {exact: /ab}}"),
        ("{gateways: [edge]}", "{gateways: [edge, mesh]}"),
        ("{sourceNamespace: shop}", "{sourceNamespace: bank}"),
        ("{queryParams: {a: {exact: ''}}}", "{queryParams: {a: {exact: b}}}"),
    ] {
        assert_eq!(shadowed(&[earlier, later, ""]), [""; 0], "{earlier}, {later}");
    }
}

#[test]
fn of_several_that_take_a_path_the_first_is_told() {
    let routes = ["/a/b/c", "/a/b", "/a", "/a/b/c/d"].map(|path| format!("{{uri: {{prefix: {path}}}}}"));
    let routes: String = routes
        .iter()
        .map(|asked| format!("  - match: [{asked}]\n    route: [{{destination: {{host: a}}}}]\n"))
        .collect();
    let decoded = virtual_service(&routes);
    assert_eq!(told(&decoded), [("spec.http[3]", 13, Severity::Warning)]);
    assert!(decoded.problems[0].message.contains("http[0].match[0] comes before"), "{:?}", decoded.problems);
}

#[test]
fn a_route_that_is_left_to_another_document_hides_nothing() {
    let decoded = virtual_service(
        "  - delegate: {name: b}\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: a}}]\n",
    );
    assert_eq!(decoded.problems, []);
}

#[test]
fn of_a_document_to_which_others_delegate_only_a_route_without_a_match_takes_something() {
    for (first, fields) in [("match: [{uri: {prefix: /}}]", &[][..]), ("name: all", &["spec.http[1]"][..])] {
        let decoded = only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  http:\n  - {first}\n    \
             route: [{{destination: {{host: a}}}}]\n  - match: [{{uri: {{prefix: /a/b}}}}]\n    route: [{{destination: {{host: a}}}}]\n"
        ));
        let told: Vec<&str> = told(&decoded).into_iter().map(|(field, ..)| field).collect();
        assert_eq!(told, fields, "the root may exclude {first}");
    }
}

#[test]
fn opaque_routes_that_ask_for_the_very_same_are_told() {
    let decoded = only(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  tcp:\n  \
         - match: [{port: 1}]\n    route: [{destination: {host: a}}]\n  \
         - match: [{port: 2}, {port: 1}]\n    route: [{destination: {host: a}}]\n  \
         - route: [{destination: {host: a}}]\n  - route: [{destination: {host: a}}]\n  tls:\n  \
         - match: [{sniHosts: [a]}]\n    route: [{destination: {host: a}}]\n  \
         - match: [{sniHosts: [A]}]\n    route: [{destination: {host: a}}]\n",
    );
    let (warning, mut told) = (Severity::Warning, told(&decoded));
    told.sort_unstable_by_key(|(_, line, _)| *line);
    assert_eq!(
        told,
        [("spec.tcp[1].match[1]", 9, warning), ("spec.tcp[3]", 12, warning), ("spec.tls[1]", 16, warning)]
    );
}

#[test]
fn very_many_matches_are_not_compared_each_with_each() {
    let deep: Vec<String> =
        (0..500).rev().map(|depth| format!("{{uri: {{prefix: '/{}'}}}}", "a".repeat(depth + 1))).collect();
    let many: Vec<String> = (0..20_000).map(|index| format!("{{uri: {{prefix: /b{index}.}}}}")).collect();
    let routes = [deep.join(", "), many.join(", "), "{uri: {prefix: /b7.x}}".to_owned()];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    assert_eq!(shadowed(&routes), ["spec.http[2]"]);
}

/// The fields that are told of a `VirtualService` with these `tcp` routes, each given by its `match`, if it has one.
fn shadowed_tcp(routes: &[&str]) -> Vec<String> {
    let routes = routes.iter().map(|asked| match *asked {
        "" => "  - route: [{destination: {host: a}}]\n".to_owned(),
        asked => format!("  - match: [{asked}]\n    route: [{{destination: {{host: a}}}}]\n"),
    });
    let decoded = only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  tcp:\n{}",
        routes.collect::<String>()
    ));
    told(&decoded).into_iter().map(|(field, ..)| field.to_owned()).collect()
}

#[test]
fn of_tcp_what_stands_after_a_match_for_more_is_never_reached() {
    for (earlier, later) in [
        ("", "{port: 1}"),
        ("{port: 1}", "{port: 1, destinationSubnets: [10.0.0.1]}"),
        ("{destinationSubnets: [10.0.0.0/8]}", "{destinationSubnets: [10.1.0.0/16, 10.2.3.4]}"),
        ("{destinationSubnets: ['fd00::/8']}", "{port: 1, destinationSubnets: ['fd00:1::/32']}"),
        ("{sourceLabels: {app: x}}", "{sourceLabels: {app: x}, destinationSubnets: [0.0.0.0/0]}"),
    ] {
        assert_eq!(shadowed_tcp(&[earlier, later]), ["spec.tcp[1]"], "{earlier}, {later}");
    }
    for (earlier, later) in [
        ("{destinationSubnets: [10.1.0.0/16]}", "{destinationSubnets: [10.0.0.0/8]}"),
        ("{destinationSubnets: [10.0.0.0/8]}", "{destinationSubnets: [10.1.0.0/16, 11.0.0.0/8]}"),
        ("{destinationSubnets: [0.0.0.0/0]}", "{destinationSubnets: ['::/0']}"),
        ("{destinationSubnets: [0.0.0.0/0]}", ""),
        ("{port: 1, destinationSubnets: [10.0.0.0/8]}", "{port: 2, destinationSubnets: [10.1.0.0/16]}"),
    ] {
        assert_eq!(shadowed_tcp(&[earlier, later]), [""; 0], "{earlier}, {later}");
    }
}
