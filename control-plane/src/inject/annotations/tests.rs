use super::*;

fn refusal(name: &str, value: &str) -> String {
    find(name).unwrap().check(value).unwrap_err()
}

#[test]
fn a_value_that_cannot_be_meant_is_refused_with_what_to_write() {
    for (name, value, reason) in [
        ("proxy-image", "", "not an image"),
        ("image-pull-policy", "always", "not one of Always, IfNotPresent, Never"),
        ("skip-inbound-ports", "70000", "neither a port nor a range"),
        ("skip-inbound-ports", "", "not a port"),
        ("skip-outbound-ports", "90-80", "neither a port nor a range"),
        ("skip-outbound-networks", "10.0.0.0/33", "not a list of networks"),
        ("detect-timeout", "5", "not a length of time"),
        ("workers", "0", "from 1 to 256"),
        ("workers", "many", "from 1 to 256"),
        ("proxy-memory-limit", "64 Mi", "not an amount"),
        ("log-level", "selvedge_proxy=loud", "not a log filter"),
        ("native-sidecar", "true", "not one of enabled, disabled"),
        ("default-opaque-ports", "1-2", "not a list of ports"),
    ] {
        let error = refusal(name, value);
        assert!(error.contains(reason), "{name}={value}: {error}");
    }
}

#[test]
fn an_unknown_setting_names_the_one_that_was_meant() {
    let mut wrong = Vec::new();
    let annotations = [("config.selvedge.io/skip-inbound-port", "1"), ("example.com/x", "y")];

    let set = read(annotations.into_iter(), "pod shop/a", &mut wrong);

    assert!(set.is_empty());
    assert_eq!(
        wrong,
        ["pod shop/a: annotation config.selvedge.io/skip-inbound-port: there is no such setting; \
                 config.selvedge.io/skip-inbound-ports is one"]
    );
    assert!(unknown("inbound").contains("no such setting of pods"));
}

#[test]
fn the_guide_has_the_list() {
    let guide = include_str!("../../../inject.md");

    assert!(
        guide.contains(&markdown()),
        "put this into control-plane/inject.md, InjectionSettings of pods:\n\n{}",
        markdown()
    );
}
