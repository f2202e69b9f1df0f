//! That what `deploy/` looks at is what the programs say: every metric in alerts and dashboards is one of theirs, and the
//! guide lists them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use selvedge_model::traffic::{BROKEN_OFF, UNSERVED};
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

/// The dashboards, by the name of their file.
fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(deploy().join("grafana")).unwrap().map(|file| file.unwrap().path());
    let read = |path: PathBuf| {
        let document = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), document)
    };
    files.map(read).collect()
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_there_are() {
    let said = said();
    let read = |path: &str| {
        (path.to_owned(), serde_saphyr::from_str(&fs::read_to_string(deploy().join(path)).unwrap()).unwrap())
    };
    let rules = [read("prometheus/alerts.yaml"), read("prometheus/rules.yaml")];

    for (file, document) in rules.into_iter().chain(dashboards()) {
        let mut expressions = Vec::new();
        texts(&document, "expr", &mut expressions);
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
fn dashboards_ask_for_what_has_one_name_by_its_name_and_not_by_a_pattern() {
    let mut asked = 0;
    for (file, document) in dashboards() {
        let variables = document["templating"]["list"].as_array().into_iter().flatten();
        let of_one = variables.filter(|one| one["includeAll"] != true && one["multi"] != true);
        let names: Vec<&str> = of_one.filter_map(|one| one["name"].as_str()).collect();
        let mut expressions = Vec::new();
        texts(&document, "expr", &mut expressions);
        texts(&document, "query", &mut expressions);
        for (expression, name) in expressions.iter().flat_map(|one| names.iter().map(move |name| (one, name)))
        {
            assert!(!expression.contains(&format!("=~\"${name}\"")), "{file}: {expression}");
            asked += usize::from(expression.contains(&format!("=\"${name}\"")));
        }
    }
    assert!(asked > 5, "{asked}");
}

#[test]
fn dashboards_and_alerts_take_the_same_for_failures_as_commands_do() {
    let mut words: Vec<&str> = BROKEN_OFF.into_iter().chain(UNSERVED).chain(["canceled"]).collect();
    words.sort_unstable();
    let words = words.join("|");
    let rules = ["alerts.yaml", "rules.yaml"].map(|name| {
        let text = fs::read_to_string(deploy().join("prometheus").join(name)).unwrap();
        (name.to_owned(), serde_saphyr::from_str(&text).unwrap())
    });
    let mut asked = 0;
    for (file, document) in rules.into_iter().chain(dashboards()) {
        let mut expressions = Vec::new();
        texts(&document, "expr", &mut expressions);
        let excluded = expressions.iter().flat_map(|one| one.split("error_type!~\"").skip(1));
        let excluded = excluded.filter_map(|rest| rest.split('"').next());
        // Without a failure at all: what only its client has left is none.
        for excluded in excluded.filter(|excluded| *excluded != "(canceled)?") {
            assert_eq!(excluded, words, "{file}");
            asked += 1;
        }
    }
    assert!(asked > 5, "{asked}");
}

/// The families of one text, as rows of the guide: what each sample is called, its type, its labels, and what it says.
fn rows(text: &str) -> String {
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut kinds: Vec<(&str, &str, &str)> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').unwrap().1;
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' '))
        {
            kinds.push((family, kind, help));
        } else if !line.starts_with('#') {
            let family = kinds.last().unwrap().0;
            let sample = line.split(" # ").next().unwrap();
            let named = labels.entry(family).or_default();
            let (_, set) = sample.rsplit_once('}').map_or(("", ""), |(set, _)| set.split_once('{').unwrap());
            let names = set.split('"').step_by(2).map(|part| part.trim_matches([',', '=']));
            for name in names.filter(|name| !name.is_empty() && *name != "le") {
                if !named.contains(&name) {
                    named.push(name);
                }
            }
        }
    }
    kinds.sort_unstable();
    let row = |(family, kind, help): &(&str, &str, &str)| {
        let name = match *kind {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => (*family).to_owned(),
        };
        let labels: Vec<String> =
            labels.get(family).into_iter().flatten().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {} |\n", labels.join(" "), help.trim_end_matches('.'))
    };
    kinds.iter().map(row).collect()
}

#[test]
fn the_guide_lists_every_metric() {
    let (istio, ours): (Vec<&str>, Vec<&str>) = PROXY
        .split_inclusive("# HELP ")
        .map(|family| family.trim_end_matches("# HELP "))
        .filter(|family| !family.is_empty())
        .partition(|family| family.starts_with("istio_"));
    let whole = |families: Vec<&str>| -> String {
        families.into_iter().map(|family| format!("# HELP {family}")).collect()
    };
    let head = "| metric | type | labels | what it says |\n|---|---|---|---|\n";
    let table = |title: &str, text: &str| format!("## {title}\n\n{head}{}\n", rows(text));
    let generated = [
        table("Proxies", &whole(ours)),
        table("Proxies, with `--metrics-compat istio`", &whole(istio)),
        table("The control plane", CONTROL_PLANE),
        table("Both", &selvedge_ops::process::text()),
    ]
    .concat();

    let path = deploy().join("metrics.md");
    let guide = fs::read_to_string(&path).unwrap();
    let mark = "<!-- What follows is made from the code: INSTA_UPDATE=always cargo nextest run -E 'test(the_guide_lists_every_metric)' -->\n\n";
    let (head, written) = guide.split_once(mark).unwrap();
    if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, format!("{head}{mark}{generated}")).unwrap();
    } else {
        assert_eq!(written, generated, "{mark}");
    }
}

#[test]
fn panels_are_told_apart() {
    for (file, dashboard) in dashboards() {
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
        assert_eq!((ids.len(), places.len()), (panels.len(), panels.len()), "{file}");
    }
}
