//! `http[].match`: which requests a route is for.

use std::collections::BTreeMap;

use selvedge_model::{ClientMatch, HeaderField, Match};
use serde::Deserialize;

use super::{PortMatch, gateways, read_port};
use crate::resources::{
    document::{Reading, wrong},
    label_selector,
    typed::{FieldError, Present},
    values::{StringMatchYaml, header_field, normalize_path},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "statPrefix")]
    _stat_prefix: Option<Present>,
    uri: Option<StringMatchYaml>,
    #[serde(default)]
    ignore_uri_case: bool,
    scheme: Option<StringMatchYaml>,
    method: Option<StringMatchYaml>,
    authority: Option<StringMatchYaml>,
    #[serde(default)]
    headers: BTreeMap<String, StringMatchYaml>,
    #[serde(default)]
    without_headers: BTreeMap<String, StringMatchYaml>,
    #[serde(default)]
    query_params: BTreeMap<String, StringMatchYaml>,
    port: Option<u32>,
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
    gateways: Option<Vec<String>>,
}

impl Yaml {
    /// Refuses regular expressions, where the match is put together with another one (`delegate`). As in Istio.
    pub(super) fn refuse_regexes(&self, field: &str) -> Result<(), FieldError> {
        let of_request = [
            ("uri", &self.uri),
            ("scheme", &self.scheme),
            ("method", &self.method),
            ("authority", &self.authority),
        ];
        let of_request =
            of_request.into_iter().filter_map(|(name, asked)| Some((name.to_owned(), asked.as_ref()?)));
        let maps = [
            ("headers", &self.headers),
            ("withoutHeaders", &self.without_headers),
            ("queryParams", &self.query_params),
        ];
        let of_maps = maps
            .into_iter()
            .flat_map(|(name, map)| map.iter().map(move |(key, asked)| (format!("{name}.{key}"), asked)));
        match of_request.chain(of_maps).find(|(_, asked)| asked.is_regex()) {
            None => Ok(()),
            Some((name, _)) => {
                let message = "cannot be put together with what the other document of a delegation asks; use exact or prefix";
                Err(wrong(format!("{field}.{name}.regex"), message))
            }
        }
    }
}

/// What one entry of `match` asks.
pub(super) enum Asked {
    /// Something that can be checked.
    Checkable(Box<PortMatch<Match>>),
    /// Something that cannot.
    Uncheckable,
}

/// The entry of `match` at `index`, in the route at `route`.
pub(super) fn read(
    yaml: Yaml,
    index: usize,
    route: &str,
    reading: &mut Reading<'_>,
) -> Result<Asked, FieldError> {
    let field = &*format!("{route}.match[{index}]");
    let followed_by =
        gateways::read(yaml.gateways.as_deref(), &format!("{field}.gateways"), reading.namespace)?;
    let unchecked =
        reading.take_unknown_below(field).into_iter().map(|unknown| unknown.field).collect::<Vec<_>>();
    let port = read_port(yaml.port, field)?;
    let mut condition = read_condition(yaml, field)?;
    if let Some(path) = &mut condition.path
        && let Err(why) = normalize_path(path)
    {
        reading.warning(format!("{field}.uri"), format!("matches no request: {why}"));
    }
    if unchecked.is_empty() {
        return Ok(Asked::Checkable(Box::new(PortMatch { index, port, followed_by, condition })));
    }
    for unchecked in unchecked {
        let message =
            "is a condition that is not acted on, so the whole match is left out; remove it or the match";
        reading.error(unchecked, message);
    }
    Ok(Asked::Uncheckable)
}

/// What `yaml` asks of a request.
fn read_condition(yaml: Yaml, field: &str) -> Result<Match, FieldError> {
    let given = |yaml: Option<StringMatchYaml>, name: &str| {
        yaml.map(|yaml| yaml.read_given(&format!("{field}.{name}"))).transpose()
    };
    let mut headers = read_headers(yaml.headers, &format!("{field}.headers"))?;
    let without_headers = read_headers(yaml.without_headers, &format!("{field}.withoutHeaders"))?;
    let mut query = Vec::new();
    for (name, yaml) in yaml.query_params {
        let asked = yaml.read_header(&format!("{field}.queryParams.{name}"))?;
        query.push((name, asked));
    }
    headers.extend(given(yaml.scheme, "scheme")?.map(|scheme| (HeaderField::Scheme, scheme)));
    let namespace = yaml.source_namespace.filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace.as_deref().filter(|name| !is_namespace(name)) {
        let message = format!("{namespace:?} is not a namespace; write the name of one");
        return Err(wrong(format!("{field}.sourceNamespace"), message));
    }
    for (name, value) in &yaml.source_labels {
        label_selector::check(name, value, &format!("{field}.sourceLabels.{name}"))?;
    }
    Ok(Match {
        path: given(yaml.uri, "uri")?,
        ignore_path_case: yaml.ignore_uri_case,
        method: given(yaml.method, "method")?,
        authority: given(yaml.authority, "authority")?,
        headers,
        without_headers,
        query,
        client: ClientMatch { labels: yaml.source_labels, namespace },
        ..Match::default()
    })
}

type HeaderMatches = Vec<(HeaderField, selvedge_model::StringMatch)>;

fn read_headers(yaml: BTreeMap<String, StringMatchYaml>, field: &str) -> Result<HeaderMatches, FieldError> {
    let mut list = Vec::new();
    for (header, yaml) in yaml {
        let field = format!("{field}.{header}");
        list.push((header_field(&header, &field)?, yaml.read_header(&field)?));
    }
    Ok(list)
}

fn is_namespace(text: &str) -> bool {
    selvedge_model::WorkloadName::new(text, "a").is_ok()
}
