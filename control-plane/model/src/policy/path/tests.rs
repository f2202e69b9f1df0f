use super::*;
use crate::normalize::path::in_capitals;

#[test]
fn a_template_fits_by_segments() {
    let fits = |template: &str, path: &str| PathTemplate::new(template).unwrap().is_match(path);

    for (template, path) in [
        ("/path/template/{*}", "/path/template/a"),
        ("/{**}/path/template", "/a/b/path/template"),
        ("/{*}/x/{**}", "/a/x/"),
        ("/{*}/x/{**}", "/a/x/b/c"),
        ("/{**}", "/"),
    ] {
        assert!(fits(template, path), "{template} {path}");
    }
    for (template, path) in [
        ("/path/template/{*}", "/path/template/"),
        ("/path/template/{*}", "/path/template/a/b"),
        ("/path/template/{*}", "/path/template"),
        ("/{**}/path/template", "/path/template"),
        ("/{*}/x/{**}", "/a/x"),
        ("/{*}", "/a/"),
    ] {
        assert!(!fits(template, path), "{template} {path}");
    }
}

#[test]
fn what_is_no_template_is_refused() {
    for (text, error) in [
        ("a/{*}", TemplateError::NotAbsolute),
        ("/a{*}", TemplateError::Segment),
        ("/{name}/{*}", TemplateError::Segment),
        ("/{*}/*", TemplateError::Segment),
        ("/{**}/{*}", TemplateError::AfterRest),
        ("/{**}/a/{**}", TemplateError::AfterRest),
    ] {
        assert_eq!(PathTemplate::new(text), Err(error), "{text}");
    }
}

#[test]
fn a_loose_path_is_what_a_lenient_app_reads() {
    for path in [
        "/Admin",
        "//admin",
        "/admin/",
        "/admin;a=b",
        "/%61dmin",
        "/x%2F..%2Fadmin",
        "/x/..;/admin",
        "/%2561dmin",
    ] {
        assert_eq!(loosen(path).without_slash(), "/admin", "{path}");
    }
    assert!(matches!(loosen("/a/b.c").path, Cow::Borrowed("/a/b.c")));
    assert_eq!(loosen("/public/..%2FAdmin").elsewhere.as_deref(), Some("/Admin"));
    assert_eq!(loosen("/public/group%2Fname").elsewhere, None);
    assert_eq!(loosen("/").path, "/");
    assert_eq!(loosen("/").readings().collect::<Vec<_>>(), ["/"]);
}

#[test]
fn a_pattern_for_all_below_a_directory_is_for_the_directory_too_however_it_is_written() {
    let texts = ["/admin/*", "*/end/"].map(TextPattern::istio).into_iter().collect();
    let set = PathSet::new(&texts, vec![PathTemplate::new("/t/{**}").unwrap()]);

    for path in
        ["//admin/", "/ADMIN/", "/%2Fadmin/", "/admin;x/", "/admin/;x", "/admin%2F", "/x/END/", "//t/"]
    {
        assert!(set.contains_loosely(&loosen(path)), "{path}");
    }
    for path in ["/admin", "//admin", "/admin;x", "/end", "//t", "/"] {
        assert!(!set.contains_loosely(&loosen(path)), "{path}");
    }
}

fn set(patterns: &[&str]) -> PathSet {
    let (templates, texts): (Vec<&str>, Vec<&str>) = patterns.iter().partition(|text| is_template(text));
    let templates = templates.into_iter().map(|source| PathTemplate::new(source).unwrap());
    PathSet::new(&texts.into_iter().map(TextPattern::istio).collect(), templates.collect())
}

/// `path` as requests have it when they are compared.
fn normalized(path: &str) -> String {
    crate::normalize::path::normalize(path).unwrap().unwrap_or_else(|| path.to_owned())
}

#[test]
fn what_a_pattern_writes_encoded_is_found_however_a_request_writes_it() {
    for (pattern, paths) in [
        (
            "/caf%C3%A9/*",
            &["/caf%C3%A9/x", "/caf%c3%a9/x", "/caf%C3%a9/x", "/CAF%C3%A9/x", "/CAF%C3%89/x", "/café/x"][..],
        ),
        (
            "/my%20app/*",
            &["/my%20app/x", "/my%20APP/x", "/my%20app;a/x", "/my%2520app/x", "//my%20app/x", "/my app/x"],
        ),
        ("/my app/*", &["/my%20app/x"]),
        ("/a%2Bb/*", &["/a%2bb/x", "/a%2Bb/x", "/a+b/x"]),
        ("/%7Euser/*", &["/%7Euser/x", "/%7euser/x", "/~user/x", "/~USER/x"]),
        ("*%2Esecret", &["/x%2Esecret", "/x.secret", "/x%2esecret", "/X.SECRET"]),
        ("*/%70rivate", &["/a/private", "/a//private/", "/a%2Fprivate", "/a/private;x"]),
        ("/tpl/{*}/caf%C3%A9", &["/tpl/a/caf%c3%a9", "/tpl/a/caf%C3%A9", "/TPL/a/caf%C3%A9/"]),
        ("/files/{**}/sec%72et", &["/files/a/b/secret", "/files/a/sec%72et", "/files/a/SECRET"]),
        ("/a%2Fb/{*}", &["/a%2Fb/c", "/a%2fb/c", "/a/b/c"]),
        ("/a/../b/*", &["/b/x", "/a/../b/x"]),
        ("/a%2*", &["/a%2Fb", "/a%2fb", "/A%2fb"]),
        ("/a;b*", &["/a;bc", "/A;Bc"]),
        ("/caf%c3%a9", &["/caf%C3%A9", "/caf%c3%a9/"]),
    ] {
        let set = set(&[pattern]);
        for path in paths {
            let path = &normalized(path);
            let is_in = set.contains(&in_capitals(path)) || set.contains_loosely(&loosen(path));
            assert!(is_in, "{pattern} {path}");
        }
        assert!(!set.contains("/other") && !set.contains_loosely(&loosen("/other")), "{pattern}");
    }
}

#[test]
fn what_permits_a_path_is_its_normal_form() {
    for (pattern, path, is_in) in [
        ("/%7Euser/*", "/~user/x", true),
        ("/%7Euser/*", "/~USER/x", false),
        ("/my app", "/my%20app", true),
        ("/caf%c3%a9/*", "/caf%C3%A9/x", true),
        ("/sec%72et/{*}", "/secret/x", true),
        ("*%2Esecret", "/x.secret", true),
        ("/a%2Fb", "/a/b", false),
        ("/a?b", "/a%3Fb", false),
        ("/100%/*", "/100%25/x", false),
    ] {
        assert_eq!(set(&[pattern]).contains(path), is_in, "{pattern} {path}");
    }
}

#[test]
fn hex_digits_are_in_capitals_and_nothing_else_is() {
    for (path, expected) in
        [("/a%2fc%c3%a9d", "/a%2Fc%C3%A9d"), ("/a%C3fe", "/a%C3fe"), ("/é%", "/é%"), ("/%c", "/%C")]
    {
        assert_eq!(in_capitals(path), expected);
    }
    assert!(matches!(in_capitals("/a%2Fc"), Cow::Borrowed(_)));
}

#[test]
fn a_target_is_a_path_and_its_query() {
    let targets = |pattern: &str| PathSet::with_queries(&[TextPattern::istio(pattern)].into_iter().collect());
    for (pattern, path, query) in [
        ("/%7Ea?b=%7E", "/~a", "b=%7E"),
        ("/caf%C3%A9/x?b*", "/CAF%c3%a9/x/", "bc"),
        ("*%2Ejs?v=1", "/a/b.js", "v=1"),
        ("*%7E", "/a", "b=%7E"),
        ("/my%20app/*", "//my%20app/x", "y"),
    ] {
        assert!(targets(pattern).contains_target_loosely(&loosen(path), query), "{pattern} {path} {query}");
    }
    assert!(targets("/%7Ea?b=%7E").contains("/~a?b=%7E"));
    assert!(!targets("/a?b").contains_target_loosely(&loosen("/a"), "c"));
}

#[test]
fn what_no_request_can_have_is_told() {
    for pattern in ["admin", "/a?b", "/100%/*", "/a%00", "*/../b", "/{*}/..", "/%zz/{*}"] {
        assert!(check(pattern).is_err(), "{pattern}");
    }
    for pattern in ["*", "/a", "/%7Ea*", "*%2E", "/a/{*}/caf%C3%A9", "/{**}/b", "/a%2*"] {
        assert_eq!(check(pattern), Ok(()), "{pattern}");
    }
}

/// `path`, with those letters encoded that `encoded` says.
fn encode(path: &str, encoded: &[bool], lower: bool) -> String {
    let letters = path.bytes().zip(encoded.iter().chain(std::iter::repeat(&false)));
    let written = letters.map(|(byte, encoded)| match (byte, encoded, lower) {
        (b'/', ..) => "/".to_owned(),
        (_, true, true) => format!("%{byte:02x}"),
        (_, true, false) => format!("%{byte:02X}"),
        (byte, false, _) if byte.is_ascii_graphic() => char::from(byte).to_string(),
        (byte, ..) => format!("%{byte:02X}"),
    });
    written.collect()
}

proptest::proptest! {
    #[test]
    fn no_way_to_encode_a_path_leads_past_what_refuses_it(
        name in "[a-zé~ +]{1,8}",
        of_policy in proptest::collection::vec(proptest::bool::ANY, 12),
        of_request in proptest::collection::vec(proptest::bool::ANY, 12),
        lower in proptest::bool::ANY,
    ) {
        let written = encode(&name, &of_policy, !lower);
        let asked = normalized(&format!("/{}/x", encode(&name, &of_request, lower)));
        for pattern in [
            format!("/{written}/x"),
            format!("/{written}/*"),
            format!("/{written}*"),
            format!("*{written}/x"),
            format!("/{written}/{{*}}"),
        ] {
            let set = set(&[&pattern]);
            proptest::prop_assert!(
                set.contains(&in_capitals(&asked)) || set.contains_loosely(&loosen(&asked)),
                "{} {}", pattern, asked
            );
        }
    }
}
