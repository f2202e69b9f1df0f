//! What is changed about a request on its way, and who gets a copy.

use selvedge_model::filter::{Fraction, PathRewrite, RegexRewrite, Rewrite};

use super::{super::*, forwarding, refused, routes, virtual_service};
use crate::resources::virtual_service::Headers;

#[test]
fn headers_are_changed_for_a_route_and_for_one_of_its_destinations() {
    let decoded = virtual_service(
        "  - headers:\n      request: {set: {x-a: '1 %PROTOCOL%', Host: b.example}, add: {x-b: '100%%'}, remove: [x-c]}\n      response: {set: {x-d: ''}}\n    route:\n    - destination: {host: a}\n      headers: {response: {add: {x-e: e}, remove: [Server]}}\n",
    );

    assert_eq!(told(&decoded), []);
    let route = &routes(&decoded)[0];
    let Headers { request, authority, response } = route.headers.as_ref().unwrap();
    let shown = |changes: &[selvedge_model::filter::HeaderChange]| {
        let shown = changes.iter().map(|change| format!("{}={}", change.name, change.value));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(authority.as_deref(), Some("b.example"));
    assert_eq!([shown(&request.set), shown(&request.add)], ["x-a=1 %PROTOCOL%", "x-b=100%%"]);
    assert_eq!(
        (&request.remove[..], shown(&response.set)),
        (&["x-c".parse().unwrap()][..], "x-d=".to_owned())
    );
    let of_share = &route.destinations[0].headers;
    assert_eq!(shown(&of_share.response.add), "x-e=e");
    assert_eq!(of_share.response.remove, ["server".parse::<http::HeaderName>().unwrap()]);
}

#[test]
fn a_header_with_an_unknown_command_is_left_out_and_reported() {
    let decoded = forwarding(
        "    headers:\n      request:\n        set:\n          x-a: '%UPSTREAM_HOST%'\n          x-b: b\n          host: '%REQ(x)%'\n          connection: close\n",
    );

    let headers = routes(&decoded)[0].headers.as_ref().unwrap();
    assert_eq!(headers.request.set.len(), 1);
    assert_eq!((&headers.request.set[0].name, &headers.authority), (&"x-b".parse().unwrap(), &None));
    let expected =
        ["x-a", "host", "connection"].map(|name| format!("spec.http[0].headers.request.set.{name}"));
    let told = told(&decoded);
    assert_eq!(told.iter().map(|(field, ..)| (*field).to_owned()).collect::<Vec<_>>(), expected);
    assert!(told.iter().all(|(.., severity)| *severity == Severity::NotActedOn), "{told:?}");
    assert_eq!(told.iter().map(|(_, line, _)| *line).collect::<Vec<_>>(), [11, 13, 14]);
}

#[test]
fn headers_that_http_does_not_allow_are_refused() {
    for (headers, at) in [
        ("request: {set: {'a b': c}}", "request.set.a b"),
        ("request: {set: {':path': /x}}", "request.set.:path"),
        ("request: {add: {x: '50%'}}", "request.add.x"),
        ("request: {add: {x: \"a\\nb\"}}", "request.add.x"),
        ("request: {remove: [host]}", "request.remove[0]"),
        ("request: {set: {host: a, ':authority': b}}", "request.set.host"),
        ("request: {set: {host: 'a b'}}", "request.set.host"),
        ("response: {set: {':status': '200'}}", "response.set.:status"),
        ("response: {remove: ['']}", "response.remove[0]"),
    ] {
        for (decoded, above) in [
            (forwarding(&format!("    headers: {{{headers}}}\n")), "spec.http[0].headers"),
            (
                virtual_service(&format!(
                    "  - route: [{{destination: {{host: a}}, headers: {{{headers}}}}}]\n"
                )),
                "spec.http[0].route[0].headers",
            ),
        ] {
            let (field, line, _) = refused(&decoded);
            assert_eq!(field, format!("{above}.{at}"), "{headers}");
            assert!(line >= 7, "{headers}: {line}");
        }
    }
}

#[test]
fn a_rewrite_is_of_the_path_the_authority_or_both() {
    let rewrite =
        |words: &str| routes(&forwarding(&format!("    rewrite: {words}\n")))[0].rewrite.clone().unwrap();

    let prefix = Some(PathRewrite::Prefix("/b".to_owned()));
    assert_eq!(rewrite("{uri: /b}"), Rewrite { path: prefix.clone(), ..Rewrite::default() });
    let authority = Some("b.example:81".to_owned());
    assert_eq!(
        rewrite("{uri: /b, authority: 'b.example:81'}"),
        Rewrite { path: prefix, authority, adds_query: false }
    );
    let regex = PathRewrite::Regex(RegexRewrite::new("^/a/(.*)$", r"/\1").unwrap());
    for name in ["uriRegexRewrite", "uri_regex_rewrite"] {
        let words = format!("{{{name}: {{match: '^/a/(.*)$', rewrite: '/\\1'}}}}");
        assert_eq!(rewrite(&words), Rewrite { path: Some(regex.clone()), ..Rewrite::default() });
    }
}

#[test]
fn rewrites_that_cannot_be_used_are_refused() {
    for (words, at) in [
        ("{}", ""),
        ("{uri: b}", ".uri"),
        ("{uri: '/b?c=d'}", ".uri"),
        ("{uri: '/a b'}", ".uri"),
        ("{authority: 'a b'}", ".authority"),
        ("{authority: 'user@a'}", ".authority"),
        ("{uri: /b, uriRegexRewrite: {match: a, rewrite: b}}", ""),
        ("{uriRegexRewrite: {match: a}}", ".uriRegexRewrite"),
        ("{uriRegexRewrite: {match: '(', rewrite: b}}", ".uriRegexRewrite.match"),
        ("{uriRegexRewrite: {match: a, rewrite: '\\1'}}", ".uriRegexRewrite.rewrite"),
    ] {
        let decoded = forwarding(&format!("    rewrite: {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].rewrite{at}"), 8), "{words}");
    }
    let twice = forwarding("    rewrite: {authority: b}\n    headers: {request: {set: {host: c}}}\n");
    assert_eq!(refused(&twice).0, "spec.http[0].headers.request");
}

#[test]
fn mirrors_are_read_each_with_its_share() {
    let read = |words: &str| {
        let decoded = forwarding(&format!("    {words}\n"));
        assert!(told(&decoded).is_empty(), "{words}");
        routes(&decoded)[0].mirrors.clone()
    };
    let parts = |fraction: Option<Fraction>| fraction.map(Fraction::parts);
    for (words, percentage, percent) in [
        ("mirror: {host: B}", None, None),
        ("mirror: {host: b}\n    mirrorPercentage: {value: 0.5}", Some(5_000), None),
        ("mirror: {host: b}\n    mirror_percent: 10", None, Some(100_000)),
        ("mirror: {host: b}\n    mirrorPercent: 0", None, Some(0)),
    ] {
        let found = read(words);
        assert_eq!((parts(found.percentage), parts(found.percent)), (percentage, percent), "{words}");
        assert_eq!((found.single.map(|to| to.host).as_deref(), found.list.len()), (Some("b"), 0));
    }
    let found = read(
        "mirrors: [{destination: {host: b}}, {destination: {host: c, subset: v1}, percentage: {value: 7}}]",
    );
    let list: Vec<_> = found.list.iter().map(|one| (&*one.to.host, one.fraction.parts())).collect();
    assert_eq!((list, found.single), (vec![("b", 1_000_000), ("c", 70_000)], None));
}

#[test]
fn a_mirror_that_cannot_be_is_refused() {
    for (words, at) in [
        ("mirror: {host: ''}", "mirror.host"),
        ("mirror: {host: b, port: {number: 0}}", "mirror.port.number"),
        ("mirror: {host: b}\n    mirrorPercentage: {value: 101}", "mirrorPercentage.value"),
        ("mirror: {host: b}\n    mirrorPercent: 101", "mirrorPercent"),
        ("mirror: {host: b}\n    mirrors: [{destination: {host: b}}]", "mirror"),
        ("mirrors: [{percentage: {value: 1}}]", "mirrors[0]"),
        ("mirrors: [{destination: {host: b}, percentage: {value: -1}}]", "mirrors[0].percentage.value"),
    ] {
        let decoded = forwarding(&format!("    {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!(field, format!("spec.http[0].{at}"), "{words}");
        assert!(line >= 8, "{words}");
    }
}
