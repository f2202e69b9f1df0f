//! Kubernetes' selector of labels: `matchLabels` and `matchExpressions`. An empty one selects everything.
//!
//! What the API server refuses is refused here, too (`ValidateLabelSelector` in its `apis/meta/v1/validation`).

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{document::wrong, nearest::nearest, typed::FieldError};

/// The longest name or value of a label, in bytes.
const LONGEST_NAME: usize = 63;
/// The longest prefix of a label's name.
const LONGEST_PREFIX: usize = 253;
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// What a selector asks of labels: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSelector {
    requirements: Vec<(String, Requirement)>,
}

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it selects what has `labels`.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selects_by(|name| labels.get(name).map(String::as_str))
    }

    /// Whether it selects what has these values of labels.
    pub fn selects_by<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements.iter().all(|(name, asked)| {
            let value = value(name);
            let is_among = |values: &[String], value: &str| values.iter().any(|one| one == value);
            match asked {
                Requirement::In(values) => value.is_some_and(|value| is_among(values, value)),
                Requirement::NotIn(values) => value.is_none_or(|value| !is_among(values, value)),
                Requirement::Exists => value.is_some(),
                Requirement::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it asks for the label `name`.
    pub fn asks_for(&self, name: &str) -> bool {
        self.requirements.iter().any(|(asked, _)| asked == name)
    }
}

impl fmt::Display for LabelSelector {
    /// The same text for selectors that ask for the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, asked)) in self.requirements.iter().enumerate() {
            let separator = if number > 0 { "," } else { "" };
            match asked {
                Requirement::In(values) => write!(f, "{separator}{name} in ({})", values.join(","))?,
                Requirement::NotIn(values) => write!(f, "{separator}{name} notin ({})", values.join(","))?,
                Requirement::Exists => write!(f, "{separator}{name}")?,
                Requirement::DoesNotExist => write!(f, "{separator}!{name}")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LabelSelectorYaml {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<ExpressionYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExpressionYaml {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl LabelSelectorYaml {
    /// The labels that it asks for, if it asks for no more than that each has one value.
    pub(super) fn equal_labels(&self) -> Option<BTreeMap<String, String>> {
        self.match_expressions.is_empty().then(|| self.match_labels.clone())
    }

    /// What it asks for; it stands at `field`.
    pub(super) fn read(self, field: &str) -> Result<LabelSelector, FieldError> {
        let mut requirements = Vec::new();
        for (name, value) in self.match_labels {
            check(&name, &value, &format!("{field}.matchLabels.{name}"))?;
            requirements.push((name, Requirement::In(vec![value])));
        }
        for (number, expression) in self.match_expressions.into_iter().enumerate() {
            requirements.push(expression.read(&format!("{field}.matchExpressions[{number}]"))?);
        }
        requirements.sort_unstable();
        requirements.dedup();
        Ok(LabelSelector { requirements })
    }
}

impl ExpressionYaml {
    fn read(self, field: &str) -> Result<(String, Requirement), FieldError> {
        let Self { key, operator, mut values } = self;
        check_name(&key, &format!("{field}.key"))?;
        values.sort_unstable();
        values.dedup();
        let requirement = match operator.as_str() {
            "In" => Requirement::In(values),
            "NotIn" => Requirement::NotIn(values),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                return Err(wrong(
                    format!("{field}.values"),
                    format!("{operator} has no values; remove them"),
                ));
            }
            "Exists" => Requirement::Exists,
            "DoesNotExist" => Requirement::DoesNotExist,
            other => {
                let advice = match nearest(other, OPERATORS) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("use {}", OPERATORS.join(", ")),
                };
                let message = format!("{other:?} is not an operator; {advice}");
                return Err(wrong(format!("{field}.operator"), message));
            }
        };
        if let Requirement::In(values) | Requirement::NotIn(values) = &requirement {
            if values.is_empty() {
                return Err(wrong(
                    format!("{field}.values"),
                    format!("is missing; {operator} needs a value"),
                ));
            }
            values.iter().try_for_each(|value| check_value(value, &format!("{field}.values")))?;
        }
        Ok((key, requirement))
    }
}

/// Refuses the label at `field` if nothing can have it.
pub(super) fn check(name: &str, value: &str, field: &str) -> Result<(), FieldError> {
    check_name(name, field)?;
    check_value(value, field)
}

/// Refuses what is not the name of a label: `[PREFIX/]NAME`.
fn check_name(text: &str, field: &str) -> Result<(), FieldError> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_domain = |prefix: &str| {
        let label = |label: &str| is_bounded_by_alphanumerics(label, |byte| byte == b'-');
        prefix.len() <= LONGEST_PREFIX && prefix.split('.').all(|part| label(part) && !has_upper_case(part))
    };
    if prefix.is_none_or(is_domain) && is_label(name) {
        return Ok(());
    }
    Err(wrong(field, format!("{text:?} is not the name of a label; write NAME or DOMAIN/NAME")))
}

fn check_value(text: &str, field: &str) -> Result<(), FieldError> {
    if text.is_empty() || is_label(text) {
        return Ok(());
    }
    let message = format!(
        "{text:?} is not a label's value; use at most {LONGEST_NAME} letters, digits, '-', '_' and '.', a letter or \
         digit first and last"
    );
    Err(wrong(field, message))
}

fn is_label(text: &str) -> bool {
    text.len() <= LONGEST_NAME && is_bounded_by_alphanumerics(text, |byte| b"-_.".contains(&byte))
}

pub(super) fn is_bounded_by_alphanumerics(text: &str, others: impl Fn(u8) -> bool) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others(byte))
}

fn has_upper_case(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{node::Node, typed};

    fn read(yaml: &str) -> Result<LabelSelector, FieldError> {
        let node = Node::parse(yaml).unwrap().unwrap();
        typed::decode::<LabelSelectorYaml>(&node)?.0.read("s")
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_requirements_must_hold() {
        let selector = "{matchLabels: {app: web}, matchExpressions: [{key: env, operator: In, values: [a, b]}, \
                        {key: tier, operator: NotIn, values: [x]}, {key: on, operator: Exists}, \
                        {key: off, operator: DoesNotExist}]}";
        let selector = read(selector).unwrap();
        let all = [("app", "web"), ("env", "b"), ("on", "")];

        assert!(selector.selects(&labels(&all)));
        for (name, value) in [("app", "db"), ("env", "c"), ("tier", "x"), ("off", "")] {
            let mut others = labels(&all);
            others.insert(name.to_owned(), value.to_owned());
            assert!(!selector.selects(&others), "{name}");
        }
        assert!(!selector.selects(&labels(&all[..2])));
        assert_eq!(
            selector.to_string(),
            "app in (web),env in (a,b),off notin ()".replace("off notin ()", "!off,on,tier notin (x)")
        );
        assert!(read("{}").unwrap().selects(&labels(&[])));
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        for (yaml, field) in [
            ("{matchExpressions: [{key: a, operator: in, values: [x]}]}", "s.matchExpressions[0].operator"),
            ("{matchExpressions: [{key: a, operator: In}]}", "s.matchExpressions[0].values"),
            ("{matchExpressions: [{key: a, operator: Exists, values: [x]}]}", "s.matchExpressions[0].values"),
            ("{matchExpressions: [{operator: Exists}]}", "s.matchExpressions[0].key"),
            (
                "{matchExpressions: [{key: a, operator: NotIn, values: ['-']}]}",
                "s.matchExpressions[0].values",
            ),
            ("{matchLabels: {a: b c}}", "s.matchLabels.a"),
            ("{matchLabels: {A.b/c/d: x}}", "s.matchLabels.A.b/c/d"),
            ("{matchLabels: {-a: x}}", "s.matchLabels.-a"),
        ] {
            assert_eq!(read(yaml).unwrap_err().field, field, "{yaml}");
        }
        let message = read("{matchExpressions: [{key: a, operator: exist}]}").unwrap_err().message;
        assert!(message.contains("did you mean Exists?"), "{message}");
        assert!(read("{matchLabels: {app.kubernetes.io/name: A_1.b, x: ''}}").is_ok());
    }
}
