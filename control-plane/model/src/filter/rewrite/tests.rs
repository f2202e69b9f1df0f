use proptest::{collection::vec, prelude::*};

use super::*;

fn by_segments(path: &str, prefix: &str, new: &str) -> String {
    let matched = StringMatch::PathPrefix(prefix.to_owned());
    PathRewrite::PrefixBySegments(new.to_owned()).apply(path, Some(&matched))
}

fn by_letters(path: &str, prefix: &str, new: &str) -> String {
    let matched = StringMatch::Prefix(prefix.to_owned());
    PathRewrite::Prefix(new.to_owned()).apply(path, Some(&matched))
}

#[test]
fn a_prefix_of_segments_is_replaced_as_gateway_apis_table_has_it() {
    for (path, prefix, new, becomes) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/", "/foo/", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
    ] {
        assert_eq!(by_segments(path, prefix, new), becomes, "{path} {prefix} {new}");
    }
}

#[test]
fn a_prefix_of_letters_is_replaced_as_it_is() {
    assert_eq!(by_letters("/foobar/x", "/foo", "/xyz"), "/xyzbar/x");
    assert_eq!(by_letters("/foo/bar", "/foo", "/"), "/bar");
    assert_eq!(by_letters("/foo/bar", "/foo/", "/"), "/bar");
    assert_eq!(by_letters("/FOO/bar", "/foo", "/new"), "/new/bar");
    assert_eq!(by_letters("/foo", "/foo", ""), "/");
}

#[test]
fn what_asked_for_no_prefix_is_replaced_as_a_whole() {
    let new = PathRewrite::Prefix("/new".to_owned());
    for matched in [None, Some(StringMatch::Exact("/a/b".to_owned())), Some(StringMatch::Present)] {
        assert_eq!(new.apply("/a/b", matched.as_ref()), "/new");
    }
    assert_eq!(PathRewrite::Full("/new".to_owned()).apply("/a", None), "/new");
    let segments = PathRewrite::PrefixBySegments("/new".to_owned());
    assert_eq!(segments.apply("/a/b", None), "/new/a/b");
    assert_eq!(segments.apply("/a/b", Some(&StringMatch::Exact("/a/b".to_owned()))), "/new");
}

#[test]
fn what_is_no_path_and_what_was_rewritten_before_stay() {
    assert_eq!(PathRewrite::Full("/new".to_owned()).apply("*", None), "*");
    assert_eq!(by_segments("/f", "/foo", "/new"), "/f");
    assert_eq!(by_segments("/other", "/foo", "/new"), "/other");
    assert_eq!(by_letters("/f", "/foo", "/new"), "/f");
}

#[test]
fn the_query_stays_unless_there_is_a_new_one() {
    assert_eq!(with_query("/a".to_owned(), "b=c"), "/a?b=c");
    assert_eq!(with_query("/a".to_owned(), ""), "/a");
    assert_eq!(with_query("/a?d".to_owned(), "b=c"), "/a?d");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_after_the_prefix_stay_and_no_slash_is_doubled(
        prefix in vec("[a-c]{1,2}", 0..3),
        rest in vec("[a-c]{1,2}", 0..3),
        new in vec("[x-z]{1,2}", 0..3),
        ends in any::<[bool; 3]>(),
    ) {
        let path = |segments: &[String], slash: bool| {
            let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            if slash { path + "/" } else { path }
        };
        let whole = path(&[prefix.clone(), rest.clone()].concat(), ends[0]);
        let becomes = by_segments(&whole, &path(&prefix, ends[1]), &path(&new, ends[2]));

        prop_assert!(becomes.starts_with('/') && !becomes.contains("//"), "{}", becomes);
        let segments: Vec<_> = becomes.split('/').filter(|segment| !segment.is_empty()).collect();
        prop_assert_eq!(segments, [new, rest].concat());
    }

    #[test]
    fn whatever_is_rewritten_is_a_path(path in "/[ -~é]{0,8}", asked in "[/a-cé]{0,4}", new in "[ -~]{0,4}") {
        for matched in [
            None,
            Some(StringMatch::Prefix(asked.clone())),
            Some(StringMatch::PathPrefix(asked.clone())),
            Some(StringMatch::Exact(asked)),
        ] {
            for rewrite in
                [PathRewrite::Full, PathRewrite::Prefix, PathRewrite::PrefixBySegments].map(|kind| kind(new.clone()))
            {
                prop_assert!(rewrite.apply(&path, matched.as_ref()).starts_with('/'));
            }
        }
    }
}

#[test]
fn groups_are_named_by_number() {
    let rewrite = RegexRewrite::new("^/service/([^/]+)(/.*)$", r"\2/instance/\1").unwrap();

    assert_eq!(rewrite.replace("/service/foo/v1/api"), "/v1/api/instance/foo");
    assert_eq!(rewrite.replace("/other"), "/other");
}

#[test]
fn every_part_is_replaced_and_nothing_else_is_special() {
    let one = RegexRewrite::new("one", "two").unwrap();
    assert_eq!(one.replace("/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
    let dollar = RegexRewrite::new("a", r"$1\\\0").unwrap();
    assert_eq!(dollar.replace("/a"), r"/$1\a");
}

#[test]
fn what_cannot_be_used_is_refused() {
    assert!(matches!(RegexRewrite::new("(", ""), Err(RegexRewriteError::Pattern(_))));
    assert!(matches!(RegexRewrite::new("a", r"\1"), Err(RegexRewriteError::NoGroup(1))));
    assert!(matches!(RegexRewrite::new("a", r"\x"), Err(RegexRewriteError::Escape)));
    assert!(matches!(RegexRewrite::new("a", "\\"), Err(RegexRewriteError::Escape)));
}

#[test]
fn what_matches_in_another_spelling_is_replaced_and_the_rest_stays_as_it_came() {
    let rewrite = RegexRewrite::new("^/caf%C3%A9/(.*)/x", "/\\1").unwrap();
    assert_eq!(rewrite.replace("/caf%C3%a9/%e2/x/%e3"), "/%e2/%e3");
    assert_eq!(rewrite.replace("/caf%c4%a9/%e2/x"), "/caf%c4%a9/%e2/x");
    assert_eq!(by_segments("/caf%c3%a9/%e2", "/caf%C3%A9", "/new"), "/new/%e2");
}
