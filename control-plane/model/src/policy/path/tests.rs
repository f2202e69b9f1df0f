use super::*;

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
    let set = PathSet::new(texts, vec![PathTemplate::new("/t/{**}").unwrap()]);

    for path in
        ["//admin/", "/ADMIN/", "/%2Fadmin/", "/admin;x/", "/admin/;x", "/admin%2F", "/x/END/", "//t/"]
    {
        assert!(set.contains_loosely(&loosen(path)), "{path}");
    }
    for path in ["/admin", "//admin", "/admin;x", "/end", "//t", "/"] {
        assert!(!set.contains_loosely(&loosen(path)), "{path}");
    }
}
