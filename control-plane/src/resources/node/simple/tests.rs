use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::{prelude::*, sample::select};

use super::{super::Node, parse};
use crate::resources::chunks;

/// Whether it is read; if so, it must be read as all of YAML is.
#[track_caller]
fn is_read(text: &str) -> bool {
    let Some(node) = parse(text) else { return false };
    let expected = Node::parse_any(text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert_eq!(Some(node), expected, "{text}");
    true
}

#[test]
fn what_nearly_all_documents_are_written_in_is_read() {
    for text in [
        "a: b",
        "---\na: b\n",
        "# first\n---\n\n# second\na: b # third\n  # fourth\nc: d\n",
        "a:\n  b: 1\n  c: 0\n  d: true\n  e: false\nf: {}\ng: []\n",
        "a:\n- b\n- c: d\n  e: f\n-   g: h\n    i:\n    - j\n    - k\n    l: m\np: o\n",
        "a:\n  - b: {c: d, e: [f, 1, {g: h}], i: \"j: k\"}\n    l: 'm # n'   # o\n  - p\n",
        "a: 10.0.0.1\nb: 10s\nc: 80/tcp\nd: /e/f?g=h,i\nj: k: l\n".replace("k: l", "k:l").as_str(),
        "metadata: {name: w1, namespace: team0}\nspec:\n  address: 10.0.0.2\n  weight: 1\n",
        "a: x, [y] {z} & w * v ! u | t > s % r @ q ` p \" o ' n\n",
        "a: [ ]\nb: { }\nc: {d: 10.0.0.1, e: f:g, h: '', i: \"\"}\n",
        "a:\n  # b\n\n  c: d\n   \n",
    ] {
        assert!(is_read(text), "{text}");
    }
}

#[test]
fn everything_else_is_left_to_those_who_know_all_of_yaml() {
    for text in [
        "",
        "# nothing",
        "a",
        "- a",
        "[a]",
        "{\"a\": 1}",
        "a:",
        "a: ~",
        "a: null",
        "a: Null",
        "a: yes",
        "a: True",
        "a: &b c",
        "a: *b",
        "a: !b c",
        "a: |\n  b\n",
        "a: b\n  c\n",
        "a: b\n c\n",
        "a: \"\\n\"",
        "a: 'b''c'",
        "a: \"b\nc\"",
        "a: -1",
        "a: 1.5",
        "a: 1e3",
        "a: 0x1f",
        "a: 010",
        "a: 1_000",
        "a: 2026-11-30",
        "a: .5",
        "a: 1234567890123456789012",
        "a: b: c",
        "a: b:",
        "a: b\na: c",
        "a: {b: c, b: d}",
        "a: {b: c,}",
        "a: {b}",
        "a: {b: }",
        "a: {b: c",
        "a: [b: c]",
        "a: [b,\n  c]",
        "a: [b c]",
        "a: {b: c} d",
        "a: {b: c}#d",
        "a: 'b'c",
        "a: b\n  c: d",
        "a:\n    b: c\n  d: e",
        "a:\n- - b",
        "a:\n-\n  b: c",
        "a:\n- b\n  c",
        "a:\n- b\n c: d",
        "a:\n  b\n",
        "a : b",
        "a:\tb",
        "a: \u{e4}",
        "a: b\r\n",
        "a: b\n---\nc: d",
        "a: b\n...\n",
        " ---\na: b",
        "%YAML 1.2\n---\na: b",
        "? a\n: b",
        "\"a\": b",
        "<<: {a: b}",
        "1: a",
        "true: a",
        "a: b #c\n  d",
    ] {
        assert!(parse(text).is_none(), "{text}");
    }
    let deep: String = (0..70).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(parse(&deep).is_none());
    assert!(parse(&format!("a: {}1{}", "[".repeat(40), "]".repeat(40))).is_none());
    let wide: String = (0..100).map(|field| format!("a{field}: b\n")).collect();
    assert!(parse(&wide).is_none());
}

fn yaml_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            yaml_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

#[test]
fn every_example_is_read_as_before_and_most_in_one_pass() {
    let mut files = Vec::new();
    yaml_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")), &mut files);
    let (mut read, mut all) = (0, 0);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (_, chunk) in chunks(&text) {
            all += 1;
            read += usize::from(is_read(chunk));
        }
    }
    assert!(all > 50 && read > all / 2, "{read} of {all}");
}

const KEYS: [&str; 12] =
    ["a", "kind", "metadata", "b", "on", "null", "app.kubernetes.io/name", "b-c_d", "1", "\"q\"", "<<", "-"];
const VALUES: [&str; 40] = [
    "",
    "b",
    "a b",
    "1",
    "0",
    "01",
    "1.5",
    "1.2.3",
    "10.0.0.1",
    "1e3",
    "0x1f",
    "0o7",
    "1_0",
    "5s",
    "-1",
    "+1",
    "true",
    "False",
    "null",
    "~",
    "yes",
    "y",
    "inf",
    ".inf",
    "nan",
    "2026-11-30",
    "a:b",
    "a: b",
    "a:",
    "a #b",
    "a#b",
    "'c'",
    "'c''d'",
    "\"e\"",
    "\"\\n\"",
    "\"e # f\"",
    "*",
    "&x y",
    "!t u",
    "|",
];

fn key() -> impl Strategy<Value = &'static str> {
    // Mostly the harmless ones.
    prop_oneof![8 => select(&KEYS[..4]), 1 => select(&KEYS[..])]
}

fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![6 => select(&VALUES[1..9]), 2 => select(&VALUES[..])].prop_map(str::to_owned);
    scalar.prop_recursive(3, 12, 3, |inner| {
        let fields = prop::collection::vec((key(), inner.clone()), 0..4);
        let map = fields.prop_map(|fields| {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", fields.join(", "))
        });
        let list = prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![map, list]
    })
}

/// One line: how far in, whether with a dash, a key, a value, and what is behind it.
fn line() -> impl Strategy<Value = String> {
    let indent = prop_oneof![8 => select(&[0, 2, 4][..]), 1 => 0..7_usize];
    let dash = prop_oneof![6 => Just(""), 3 => Just("- "), 1 => select(&["-", "-  ", "- - ", "-\t"][..])];
    let key = prop_oneof![
        8 => key().prop_map(|key| format!("{key}: ")),
        4 => key().prop_map(|key| format!("{key}:\n")),
        2 => Just(String::new()),
    ];
    let end =
        prop_oneof![8 => Just(""), 1 => select(&[" # c", "#c", "  ", "\n\n", "\n# c", "\n   # c", "\r"][..])];
    (indent, dash, key, value(), end).prop_map(|(indent, dash, key, value, end)| {
        match key.strip_suffix('\n') {
            Some(key) => format!("{}{dash}{key}{end}\n", " ".repeat(indent)),
            None => format!("{}{dash}{key}{value}{end}\n", " ".repeat(indent)),
        }
    })
}

/// Maps and lists as people write them.
fn written() -> impl Strategy<Value = String> {
    let leaf = select(&VALUES[1..9]).prop_map(|value| format!(" {value}\n"));
    let block = leaf.prop_recursive(4, 24, 4, |inner| {
        let indented = |block: &str| block.replace("\n", "\n  ").trim_end_matches(' ').to_owned();
        let below = move |block: &String| match block.strip_prefix('\n') {
            Some(block) => indented(&format!("\n{block}")),
            None => block.clone(),
        };
        let map = prop::collection::vec(inner.clone(), 1..4).prop_map(move |values| {
            let fields: String = values
                .iter()
                .zip(["a", "b", "c"])
                .map(|(value, key)| format!("{key}:{}", below(value)))
                .collect();
            format!("\n{fields}")
        });
        let list = prop::collection::vec(inner, 1..4).prop_map(move |values| {
            let items: String = values.iter().map(|value| format!("-{}", item(value))).collect();
            format!("\n{items}")
        });
        prop_oneof![2 => map, 1 => list]
    });
    prop::collection::vec(block, 1..4).prop_map(|values| {
        let below = |block: &String| block.replace("\n", "\n  ").trim_end_matches(' ').to_owned();
        values
            .iter()
            .zip(["kind", "metadata", "spec"])
            .map(|(value, key)| format!("{key}:{}", below(value)))
            .collect()
    })
}

/// The first field of a map is beside the dash.
fn item(block: &str) -> String {
    match block.strip_prefix('\n') {
        Some(block) => format!(" {}", block.replace("\n", "\n  ").trim_end_matches(' ')),
        None => block.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_read_as_before(lines in prop::collection::vec(line(), 1..7)) {
        is_read(&lines.concat());
    }

    #[test]
    fn any_document_is_read_as_before_also_where_a_letter_is_wrong(
        text in written(),
        at in any::<prop::sample::Index>(),
        wrong in prop::option::of(select(&[" ", "\n", ":", "-", "#", "'", "\"", "{", "]", ",", "x", "0", ""][..])),
    ) {
        let mut text = text;
        if let Some(wrong) = wrong {
            let at = at.index(text.len());
            text.replace_range(at..=at, wrong);
        }
        is_read(&text);
    }
}
