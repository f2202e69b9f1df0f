//! The chart's values: the defaults, and what is laid over them.
//!
//! Helm reports a wrong value in the words of the JSON schema. Here the message says which value is wrong, what it must
//! be, and which name was probably meant.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, bail};
use regex::Regex;
use serde_json::{Map, Value};

/// Every value with its default.
const DEFAULTS: &str = include_str!("../../../../deploy/helm/selvedge/values.yaml");
/// What `--ha` lays over them.
const HA: &str = include_str!("../../../../deploy/helm/selvedge/values-ha.yaml");
/// What each may be.
const SCHEMA: &str = include_str!("../../../../deploy/helm/selvedge/values.schema.json");

/// Values with layers on top of each other; later ones win.
#[derive(Debug, Clone)]
pub struct Values {
    values: Value,
    schema: Value,
}

impl Values {
    /// The chart's own.
    ///
    /// # Errors
    /// If the chart is broken.
    pub fn defaults() -> anyhow::Result<Self> {
        let values = serde_saphyr::from_str(DEFAULTS).context("the chart's own values.yaml")?;
        let schema = serde_json::from_str(SCHEMA).context("the chart's own values.schema.json")?;
        Ok(Self { values, schema })
    }

    /// Lays the values for several replicas on top.
    ///
    /// # Errors
    /// If the chart is broken.
    pub fn add_ha(&mut self) -> anyhow::Result<()> {
        self.add_yaml(HA).context("the chart's own values-ha.yaml")
    }

    /// Lays a file's values on top.
    ///
    /// # Errors
    /// If it is not YAML, or has values that the chart does not know or cannot use.
    pub fn add_yaml(&mut self, text: &str) -> anyhow::Result<()> {
        // As everywhere in Selvedge: a bare `no` is a word.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let layer: Value = serde_saphyr::from_str_with_options(text, options)?;
        match layer {
            Value::Null => Ok(()),
            Value::Object(_) => self.add(layer),
            _ => bail!("must be a mapping of values, as the chart's values.yaml is"),
        }
    }

    /// Lays one value on top: `PATH=VALUE`, with dots between the names of the path.
    ///
    /// # Errors
    /// If there is no such value, or it cannot be that.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        let Some((path, text)) = assignment.split_once('=') else {
            bail!("{assignment:?} must be PATH=VALUE, as in controlPlane.replicas=3");
        };
        let names = split(path, '.');
        let mut layer = typed(text, self.schema_at(&names));
        for name in names.into_iter().rev() {
            layer = Value::Object(Map::from_iter([(name, layer)]));
        }
        self.add(layer)
    }

    /// All values.
    pub fn get(&self) -> &Value {
        &self.values
    }

    fn add(&mut self, layer: Value) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        check(&layer, &self.schema, "", &mut wrong);
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        merge(&mut self.values, layer);
        Ok(())
    }

    fn schema_at(&self, names: &[String]) -> Option<&Value> {
        names.iter().try_fold(&self.schema, |schema, name| {
            schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))
        })
    }
}

/// Maps are laid over each other name by name, everything else whole. `null` takes a value away, as in Helm.
fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (name, above) in above {
                if above.is_null() {
                    below.remove(&name);
                } else {
                    merge(below.entry(name).or_insert(Value::Null), above);
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// What a command line's text stands for where `schema` says what is wanted.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    let kind = schema.and_then(|schema| schema["type"].as_str()).unwrap_or_default();
    if kind == "string" {
        return Value::String(text.to_owned());
    }
    if kind == "array"
        && let Some(items) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'))
    {
        return split(items, ',').into_iter().filter(|item| !item.is_empty()).map(Value::String).collect();
    }
    // Whatever JSON knows it by; any other word is a string.
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The parts between separators; a backslash takes the meaning from the one after it.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == separator {
            parts.push(String::new());
            continue;
        }
        let letter = if letter == '\\' { letters.next().unwrap_or(letter) } else { letter };
        parts.last_mut().expect("never empty").push(letter);
    }
    parts
}

/// Adds what is wrong with `value`. Knows the words of JSON Schema that the chart's schema uses.
fn check(value: &Value, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    // It is about to be taken away.
    if value.is_null() && !path.is_empty() {
        return;
    }
    let mut fail = |must: String| wrong.push(format!("{path}: must be {must}, not {value}"));
    if let Some(words) = schema["enum"].as_array() {
        if !words.contains(value) {
            fail(one_of(words));
        }
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(map)) => check_names(map, schema, path, wrong),
        (Some("array"), Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{index}]"), wrong);
            }
        }
        (Some("string"), Value::String(text)) => {
            if let Some(pattern) = schema["pattern"].as_str()
                && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
            {
                fail(format!("text like {pattern}"));
            }
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some("integer"), Value::Number(number)) => {
            let (least, most) = (bound(schema, "minimum"), bound(schema, "maximum"));
            let fits = number.as_i64().is_some_and(|number| (least..=most).contains(&number));
            if !fits {
                fail(whole_number(schema));
            }
        }
        (Some(kind), _) => fail(match kind {
            "object" => "a mapping".to_owned(),
            "array" => "a list, {A,B} on the command line".to_owned(),
            "boolean" => "true or false".to_owned(),
            "integer" => whole_number(schema),
            _ => "text".to_owned(),
        }),
    }
}

/// `a or b`, as one writes them.
fn one_of(words: &[Value]) -> String {
    let words = words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned));
    words.collect::<Vec<_>>().join(" or ")
}

fn check_names(map: &Map<String, Value>, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    let further = schema.get("additionalProperties");
    for (name, value) in map {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (schema["properties"].get(name), further) {
            (Some(schema), _) => check(value, schema, &path, wrong),
            (None, Some(Value::Bool(false))) => wrong.push(unknown(&path)),
            (None, Some(schema)) => check(value, schema, &path, wrong),
            (None, None) => {}
        }
    }
}

fn unknown(path: &str) -> String {
    let mut known = BTreeMap::new();
    if let Ok(schema) = serde_json::from_str(SCHEMA) {
        name_all(&schema, "", &mut known);
    }
    // The same last name elsewhere is more likely than a similar path.
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &&String| {
        let same_name = if last(candidate) == last(path) { 1.0 } else { 0.0 };
        strsim::jaro_winkler(candidate, path).max(same_name)
    };
    let nearest = known.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let mut message = format!("{path}: there is no such value");
    if let Some(nearest) = nearest.filter(|nearest| likeness(nearest) > 0.7) {
        write!(message, "; did you mean {nearest}?").expect("writing to a String cannot fail");
    }
    message
}

/// Every path of the schema.
fn name_all(schema: &Value, path: &str, names: &mut BTreeMap<String, ()>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        name_all(schema, &path, names);
        names.insert(path, ());
    }
}

fn bound(schema: &Value, word: &str) -> i64 {
    schema[word].as_i64().unwrap_or(if word == "minimum" { i64::MIN } else { i64::MAX })
}

fn whole_number(schema: &Value) -> String {
    format!("a whole number from {} to {}", bound(schema, "minimum"), bound(schema, "maximum"))
}

#[cfg(test)]
mod tests;
