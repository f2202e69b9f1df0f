use super::*;
use crate::{FullRegex, filter::RegexRewrite};

#[test]
fn equal_expressions_are_one_and_nothing_is_left_of_what_nobody_uses() {
    let of = |source: &str| Expression::new(source).unwrap();
    let (first, second) = (of("/one/[a-f]"), of("/one/[a-f]"));
    assert!(Arc::ptr_eq(&first.0, &second.0));
    assert_eq!(cost([&first, &second]), first.cost());

    drop((first, second));
    assert!(!locked(&KNOWN).contains_key("/one/[a-f]"));
}

#[test]
fn what_is_only_read_is_not_kept_compiled() {
    let regex = Expression::new("/read/[a-f]").unwrap();
    assert!(regex.0.compiled.get().is_none());
    regex.hold().unwrap();
    assert!(regex.0.compiled.get().is_some());

    let (_, read) = metered(NAMESPACE_LIMIT, || {
        (FullRegex::new("/read/[a-e]").unwrap(), RegexRewrite::new("/(read)/[a-d]", "\\1").unwrap())
    });
    assert!(read.iter().all(|one| one.0.compiled.get().is_none()));
    assert_eq!(read.len(), 2, "{read:?}");
}

#[test]
fn what_one_document_may_ask_for_is_bounded_and_equal_ones_count_once() {
    let many =
        || (0..1000).map(|at| FullRegex::new(&format!("/{at}/\\pL{{1,5}}"))).filter(Result::is_err).count();
    let (refused, read) = metered(NAMESPACE_LIMIT, many);
    assert!(refused > 900, "{refused}");
    assert!(cost(&read) <= NAMESPACE_LIMIT);

    let equal = || (0..1000).all(|_| FullRegex::new("/equal/\\pL{1,5}").is_ok());
    let (all, read) = metered(NAMESPACE_LIMIT, equal);
    assert!(all && read.len() == 1);
}

#[test]
fn ordinary_expressions_cost_little_and_large_ones_are_refused() {
    for ordinary in [
        "/api/v[0-9]+/users/[^/]+",
        "(.*?;)?(user=jason)(;.*)?",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "Mozilla/.*(Android|iPhone|iPad).*Mobile.*",
    ] {
        let cost = Expression::new(ordinary).unwrap().cost();
        assert!(cost < 16 << 10, "{ordinary}: {cost}");
    }
    assert!(Expression::new(r"[\w.-]+@[\w-]+\.[\w.-]+").is_ok());
    assert_eq!(Expression::new(r"\pL{1,12}").unwrap_err(), RegexError::TooLarge);
}

/// The only test that holds so much: they share one process in `cargo test`.
#[test]
fn what_a_process_holds_is_bounded_and_is_given_back() {
    let large = |at: usize| Expression::new(&format!("/held/{at}/\\pL{{1,5}}")).unwrap();
    let mut held = Vec::new();
    let refused = (0..1000).map(large).find_map(|one| match one.hold() {
        Ok(()) => {
            held.push(one);
            None
        }
        Err(error) => Some((one, error)),
    });
    let (one, error) = refused.expect("a thousand large ones are too many");
    assert_eq!(error, RegexError::Full);
    assert!(cost(&held) <= PROCESS_LIMIT);
    assert!(held[0].hold().is_ok(), "what is held costs nothing more");

    held.clear();
    one.hold().unwrap();
}

#[test]
fn every_part_that_matches_is_replaced_with_its_groups() {
    let replaced =
        |pattern: &str, new: &str, path: &str| RegexRewrite::new(pattern, new).unwrap().replace(path);
    assert_eq!(replaced("a(.)", "<\\1>", "/a1/ä/a2b"), "/<1>/ä/<2>b");
    assert_eq!(replaced("x*", "-", "/ab"), "-/-a-b-");
    assert_eq!(replaced("^/(\\w+)/(\\w+)", "/\\2/$\\1\\\\", "/b/c/d"), "/c/$b\\/d");
}
