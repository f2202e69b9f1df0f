use super::*;

#[test]
fn durations_are_written_as_in_go() {
    for (text, millis) in [
        ("30s", 30_000),
        ("0.5s", 500),
        ("1h2m3s", 3_723_000),
        ("1m0.25s", 60_250),
        ("250ms", 250),
        ("0", 0),
        ("0s", 0),
        ("+1s", 1000),
        (".5s", 500),
    ] {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in
        ["", "5", "s", "1", "-1s", "1 s", "1d", "1.2.3s", "1s2", ".", ".s", "9999999999999999h", "1e3s"]
    {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn durations_of_the_gateway_api_are_whole_numbers() {
    for (text, millis) in
        [("0s", 0), ("10s", 10_000), ("1h2m3s4ms", 3_723_004), ("99999ms", 99_999), ("1s1s", 2_000)]
    {
        assert_eq!(parse_gateway_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "0", "1", "s", "1.5s", "100000s", "1h1h1h1h1h", "-1s", "1d", "1 s", "+1s", "1ſ"] {
        assert_eq!(parse_gateway_duration(text), None, "{text}");
    }
}

#[test]
fn a_text_match_asks_for_one_thing() {
    let yaml = |exact: Option<&str>, regex: Option<&str>| StringMatchYaml {
        exact: exact.map(str::to_owned),
        prefix: None,
        regex: regex.map(str::to_owned),
    };

    assert_eq!(yaml(Some("a"), None).read("f"), Ok(StringMatch::Exact("a".to_owned())));
    assert_eq!(yaml(None, Some("*")).read_header("f"), Ok(StringMatch::Present));
    assert_eq!(yaml(None, None).read("f"), Ok(StringMatch::Present));
    assert!(yaml(Some("a"), Some("b")).read("f").is_err());
    assert!(yaml(None, Some("(")).read("f").unwrap_err().message.contains("RE2"));
    assert!(yaml(None, None).read_given("f").is_err());
}
