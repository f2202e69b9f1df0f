//! That what `deploy/` looks at is what the programs say: every metric in alerts and dashboards is one of theirs.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

/// What each program says, as its own tests hold it to.
const PROXY: &str = include_str!("../../proxy/src/telemetry/metrics/expected.txt");
const CONTROL_PLANE: &str = include_str!("../../control-plane/src/metrics/expected.txt");

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// Every series, without its labels; also those of metrics that had nothing to count.
fn said() -> BTreeSet<String> {
    let lines = || PROXY.lines().chain(CONTROL_PLANE.lines());
    let series =
        lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    let kinds = lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names =
        kinds.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
    series.map(str::to_owned).chain(names).collect()
}

/// The names of ours in an expression.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("selvedge_"))
}

fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_there_are() {
    let said = said();
    let read = |path: &str| fs::read_to_string(deploy().join(path)).unwrap();
    let alerts: Value = serde_saphyr::from_str(&read("prometheus/alerts.yaml")).unwrap();
    let dashboard: Value = serde_json::from_str(&read("grafana/selvedge.json")).unwrap();

    for (file, document) in [("alerts", &alerts), ("dashboard", &dashboard)] {
        let mut expressions = Vec::new();
        texts(document, "expr", &mut expressions);
        assert!(expressions.len() > 5, "{file}: {expressions:?}");
        for expression in expressions {
            assert!(named(expression).next().is_some(), "{file}: {expression}");
            for name in named(expression) {
                assert!(said.contains(name), "{file}: nothing is called {name}: {expression}");
            }
        }
    }
}

#[test]
fn panels_are_told_apart() {
    let dashboard = fs::read_to_string(deploy().join("grafana/selvedge.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();

    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();

    assert_eq!((ids.len(), places.len()), (panels.len(), panels.len()));
}
