//! The Helm chart of `deploy/helm/selvedge`, rendered without Helm.
//!
//! The templates are the very files that Helm reads, so that both ways to install make the same objects. They
//! keep to what Go's `text/template` has and the functions below; an end-to-end test compares the outcome with that
//! of Helm's own engine.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use gtmpl_ng::{Context, Func, FuncError, Template, Value};
use serde_json::Value as Json;

/// `Chart.yaml`.
const CHART: &str = include_str!("../../../../deploy/helm/selvedge/Chart.yaml");
/// What the templates define and include.
const HELPERS: &str = include_str!("../../../../deploy/helm/selvedge/templates/_helpers.tpl");

/// The templates in the order in which their objects are applied: whatever others need comes first, and
/// webhooks, which call what is before them, last.
const TEMPLATES: [(&str, &str); 6] = [
    ("namespace.yaml", include_str!("../../../../deploy/helm/selvedge/templates/namespace.yaml")),
    ("crds.yaml", include_str!("../../../../deploy/helm/selvedge/templates/crds.yaml")),
    ("rbac.yaml", include_str!("../../../../deploy/helm/selvedge/templates/rbac.yaml")),
    ("control-plane.yaml", include_str!("../../../../deploy/helm/selvedge/templates/control-plane.yaml")),
    ("networkpolicy.yaml", include_str!("../../../../deploy/helm/selvedge/templates/networkpolicy.yaml")),
    ("webhooks.yaml", include_str!("../../../../deploy/helm/selvedge/templates/webhooks.yaml")),
];

/// What Helm calls a release: one installation of the chart.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// Where it is installed.
    pub namespace: &'a str,
    /// Who installs it: `app.kubernetes.io/managed-by` of every object.
    pub service: &'a str,
}

/// All objects of a release, as one stream of YAML documents.
///
/// # Errors
/// If a value is of a type that the templates cannot use.
pub fn render(values: &Json, release: Release<'_>) -> anyhow::Result<String> {
    let chart: Json = serde_saphyr::from_str(CHART).context("the chart's own Chart.yaml")?;
    let context = serde_json::json!({
        "Values": values,
        "Release": {"Name": "selvedge", "Namespace": release.namespace, "Service": release.service},
        // As in Helm: the fields of `Chart` begin with a capital letter.
        "Chart": {"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
    });
    let context = Context::from(to_template(&context));
    let mut stream = String::new();
    for (name, text) in TEMPLATES {
        let mut template = new_template();
        template.add_template(name, text)?;
        name.clone_into(&mut template.name);
        let text = template.render(&context).with_context(|| format!("the chart's {name}"))?;
        if text.contains("<no value>") {
            bail!("the chart's {name} uses a value that is not there");
        }
        if !text.trim().is_empty() {
            stream += "---\n";
            stream += text.trim();
            stream += "\n";
        }
    }
    Ok(stream)
}

fn new_template() -> Template {
    let mut template = Template::default();
    let functions: [(&str, Func); 6] = [
        ("default", default),
        ("include", include),
        ("int", int),
        ("nindent", nindent),
        ("quote", quote),
        ("toYaml", to_yaml),
    ];
    template.add_funcs(&functions);
    template
}

/// `include NAME CONTEXT`: what the helper NAME renders to.
fn include(args: &[Value]) -> Result<Value, FuncError> {
    let [Value::String(name), context] = args else {
        return Err(FuncError::ExactlyXArgs("include".to_owned(), 2));
    };
    let failed = |error: &dyn std::fmt::Display| FuncError::Generic(format!("{name}: {error}"));
    let mut template = new_template();
    template.add_template("_helpers.tpl", HELPERS).map_err(|error| failed(&error))?;
    name.clone_into(&mut template.name);
    let text = template.render(&Context::from(context.clone())).map_err(|error| failed(&error))?;
    Ok(Value::String(text))
}

/// `default OTHERWISE VALUE`: VALUE, unless it is empty.
fn default(args: &[Value]) -> Result<Value, FuncError> {
    let [otherwise, value] = args else { return Err(FuncError::ExactlyXArgs("default".to_owned(), 2)) };
    let empty = match value {
        Value::NoValue | Value::Nil | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Map(map) | Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) | Value::Function(_) => false,
    };
    Ok(if empty { otherwise } else { value }.clone())
}

/// `int VALUE`: Helm reads every number as a floating-point one, which Go does not compare with 1.
fn int(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Number(number)] => number.as_i64().map(Value::from),
        _ => None,
    }
    .ok_or(FuncError::UnableToConvertFromValue)
}

/// `nindent WIDTH TEXT`: a line break, then TEXT with every line indented.
fn nindent(args: &[Value]) -> Result<Value, FuncError> {
    let [width, Value::String(text)] = args else {
        return Err(FuncError::ExactlyXArgs("nindent".to_owned(), 2));
    };
    let width: i64 = gtmpl_ng::from_value(width).ok_or(FuncError::UnableToConvertFromValue)?;
    let pad = " ".repeat(usize::try_from(width).map_err(|_| FuncError::UnableToConvertFromValue)?);
    let lines: Vec<String> = text.split('\n').map(|line| format!("{pad}{line}")).collect();
    Ok(Value::String(format!("\n{}", lines.join("\n"))))
}

/// `quote VALUE`: as a string in double quotes. JSON's strings are YAML's, too.
fn quote(args: &[Value]) -> Result<Value, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("quote".to_owned(), 1)) };
    Ok(Value::String(Json::String(value.to_string()).to_string()))
}

/// `toYaml VALUE`: without a line break at the end.
fn to_yaml(args: &[Value]) -> Result<Value, FuncError> {
    let [value] = args else { return Err(FuncError::ExactlyXArgs("toYaml".to_owned(), 1)) };
    let text = serde_saphyr::to_string(&from_template(value)?)
        .map_err(|error| FuncError::Generic(format!("toYaml: {error}")))?;
    Ok(Value::String(text.trim_end().to_owned()))
}

fn to_template(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(list) => Value::Array(list.iter().map(to_template).collect()),
        Json::Object(map) => {
            Value::Map(map.iter().map(|(name, value)| (name.clone(), to_template(value))).collect())
        }
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => number.as_f64().map_or(Value::Nil, Value::from),
        },
    }
}

fn from_template(value: &Value) -> Result<Json, FuncError> {
    Ok(match value {
        Value::NoValue | Value::Nil => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(list) => Json::Array(list.iter().map(from_template).collect::<Result<_, _>>()?),
        // In the order of their names, as Helm writes them: a `HashMap` has none.
        Value::Map(map) | Value::Object(map) => Json::Object(
            BTreeMap::from_iter(map)
                .into_iter()
                .map(|(name, value)| Ok((name.clone(), from_template(value)?)))
                .collect::<Result<_, FuncError>>()?,
        ),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Json::from(number),
            None => Json::from(number.as_f64().ok_or(FuncError::UnableToConvertFromValue)?),
        },
        Value::Function(_) => return Err(FuncError::UnableToConvertFromValue),
    })
}
