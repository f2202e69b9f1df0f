//! `DestinationRule`: how clients treat a host, and which subsets its endpoints form.

use std::{collections::BTreeMap, time::Duration};

use selvedge_model::{ClientCertificate, Host, LoadBalancer, OutlierDetection, TlsOrigination, UpstreamTls};
use serde::Deserialize;

use super::{
    connection_pool::{PoolBlock, PoolYaml},
    document::{Reading, wrong},
    export_to::{self, ExportTo},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    typed::{FieldError, Present},
    values::{GoDuration, port_number},
};

/// Ejections never last longer than this, or than the base ejection time if that is longer (Envoy's rule).
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("DestinationRule", ISTIO_NETWORKING, "destinationrules", Feedback::Conditions)
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `DestinationRule` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRuleSpec {
    /// Whose clients it is for.
    pub export_to: ExportTo,
    /// The host as it is written, lower case: a name, a short name, or `*.suffix`.
    pub host: String,
    /// How its endpoints are treated.
    pub policy: PolicyBlocks,
    /// Its subsets.
    pub subsets: Vec<Subset>,
}

/// The endpoints of a host that carry some labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// What it sets for itself.
    pub policy: PolicyBlocks,
}

/// A `trafficPolicy`, block by block: a subset's block replaces its host's whole block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyBlocks {
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancer>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `connectionPool`.
    pub connection_pool: Option<PoolBlock>,
    /// `tls`. Its server name is still as it is written: `None` = the host's.
    pub tls: Option<UpstreamTls>,
    /// `portLevelSettings`, by the service's port: each replaces all blocks above, also those that it does
    /// not give.
    pub ports: BTreeMap<u16, Self>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    host: String,
    #[serde(default)]
    traffic_policy: PolicyYaml,
    #[serde(default)]
    subsets: Vec<SubsetYaml>,
    export_to: Option<Vec<String>>,
    workload_selector: Option<Present>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubsetYaml {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    traffic_policy: PolicyYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyYaml {
    load_balancer: Option<LoadBalancerYaml>,
    outlier_detection: Option<OutlierYaml>,
    connection_pool: Option<PoolYaml>,
    tls: Option<TlsYaml>,
    port_level_settings: Vec<PortPolicyYaml>,
}

/// [`PolicyYaml`] for one port. It repeats the fields, because a flattened struct would lose their lines.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortPolicyYaml {
    port: PortYaml,
    load_balancer: Option<LoadBalancerYaml>,
    outlier_detection: Option<OutlierYaml>,
    connection_pool: Option<PoolYaml>,
    tls: Option<TlsYaml>,
}

#[derive(Debug, Deserialize)]
struct PortYaml {
    number: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerYaml {
    simple: Option<SimpleWord>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SimpleWord {
    Unspecified,
    LeastRequest,
    LeastConn,
    RoundRobin,
    Random,
    Passthrough,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OutlierYaml {
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    consecutive_errors: Option<u32>,
    interval: Option<GoDuration>,
    base_ejection_time: Option<GoDuration>,
    max_ejection_percent: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TlsYaml {
    mode: TlsMode,
    sni: Option<String>,
    subject_alt_names: Vec<String>,
    ca_certificates: Option<String>,
    client_certificate: Option<String>,
    private_key: Option<String>,
    credential_name: Option<String>,
    insecure_skip_verify: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum TlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<DestinationRuleSpec, FieldError> {
    if yaml.host.is_empty() {
        return Err(wrong("spec.host", "is empty; name a host"));
    }
    if yaml.workload_selector.is_some() {
        // Read over, the rule would reach clients that it is not meant for.
        let message =
            "is not acted on, so the document has no effect; rules per client workload do not exist yet";
        return Err(wrong("spec.workloadSelector", message));
    }
    let export_to = export_to::read(yaml.export_to)?;
    let policy = read_policy(yaml.traffic_policy, "spec.trafficPolicy", reading)?;
    let mut subsets: Vec<Subset> = Vec::new();
    for (index, subset) in yaml.subsets.into_iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        if subset.name.is_empty() {
            return Err(wrong(format!("{field}.name"), "is empty; name the subset"));
        }
        if subsets.iter().any(|other| other.name == subset.name) {
            let message = format!("{:?} is defined twice; the first is used", subset.name);
            reading.error(format!("{field}.name"), message);
            continue;
        }
        let policy = read_policy(subset.traffic_policy, &format!("{field}.trafficPolicy"), reading)?;
        subsets.push(Subset { name: subset.name, labels: subset.labels, policy });
    }
    let host = yaml.host.to_ascii_lowercase();
    Ok(DestinationRuleSpec { export_to, host, policy, subsets })
}

fn read_policy(yaml: PolicyYaml, field: &str, reading: &mut Reading<'_>) -> Result<PolicyBlocks, FieldError> {
    let mut ports = BTreeMap::new();
    for (index, yaml) in yaml.port_level_settings.into_iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let port = port_number(yaml.port.number, &format!("{field}.port.number"))?;
        let yaml = PolicyYaml {
            load_balancer: yaml.load_balancer,
            outlier_detection: yaml.outlier_detection,
            connection_pool: yaml.connection_pool,
            tls: yaml.tls,
            port_level_settings: Vec::new(),
        };
        if ports.insert(port, read_policy(yaml, &field, reading)?).is_some() {
            return Err(wrong(field, format!("port {port} is given twice; keep one of them")));
        }
    }
    let tls = yaml.tls.map(|tls| read_tls(tls, &format!("{field}.tls"), reading)).transpose()?;
    let load_balancer = yaml.load_balancer.map(|yaml| match yaml.simple {
        None | Some(SimpleWord::Unspecified | SimpleWord::LeastRequest | SimpleWord::LeastConn) => {
            LoadBalancer::LeastRequest
        }
        Some(SimpleWord::RoundRobin) => LoadBalancer::RoundRobin,
        Some(SimpleWord::Random) => LoadBalancer::Random,
        Some(SimpleWord::Passthrough) => {
            let message = "PASSTHROUGH is not acted on; LEAST_REQUEST is used";
            reading.not_acted_on(format!("{field}.loadBalancer.simple"), message);
            LoadBalancer::LeastRequest
        }
    });
    let outlier = yaml.outlier_detection;
    let outlier_detection =
        outlier.map(|yaml| read_outlier(&yaml, &format!("{field}.outlierDetection"), reading)).transpose()?;
    let connection_pool = match yaml.connection_pool {
        None => None,
        Some(yaml) => Some(yaml.read(&format!("{field}.connectionPool"))?),
    };
    Ok(PolicyBlocks { load_balancer, outlier_detection, connection_pool, tls, ports })
}

/// What of `tls` is only for SIMPLE and MUTUAL, as far as it is given.
fn for_servers_outside(yaml: &TlsYaml) -> Option<&'static str> {
    let given = [
        (yaml.sni.is_some(), "sni"),
        (!yaml.subject_alt_names.is_empty(), "subjectAltNames"),
        (yaml.ca_certificates.is_some(), "caCertificates"),
        (yaml.client_certificate.is_some(), "clientCertificate"),
        (yaml.private_key.is_some(), "privateKey"),
        (yaml.credential_name.is_some(), "credentialName"),
        (yaml.insecure_skip_verify, "insecureSkipVerify"),
    ];
    given.into_iter().find_map(|(given, name)| given.then_some(name))
}

fn read_tls(yaml: TlsYaml, field: &str, reading: &mut Reading<'_>) -> Result<UpstreamTls, FieldError> {
    let plain = match yaml.mode {
        TlsMode::Disable => Some(UpstreamTls::Disable),
        TlsMode::IstioMutual => Some(UpstreamTls::IstioMutual),
        TlsMode::Simple | TlsMode::Mutual => None,
    };
    if let Some(plain) = plain {
        if let Some(name) = for_servers_outside(&yaml) {
            let message = "has no effect with this mode; it is for SIMPLE and MUTUAL";
            reading.warning(format!("{field}.{name}"), message);
        }
        return Ok(plain);
    }
    if let Some(sni) = &yaml.sni
        && !matches!(sni.parse(), Ok(Host::Name(_)))
    {
        return Err(wrong(format!("{field}.sni"), format!("{sni:?} is not a DNS name")));
    }
    if yaml.credential_name.is_some() {
        let message = "is not acted on outside of a gateway; name files on the sidecar's host: caCertificates, \
                       and for MUTUAL clientCertificate and privateKey";
        reading.not_acted_on(format!("{field}.credentialName"), message);
    }
    if yaml.insecure_skip_verify {
        let message = "the server's certificate is not verified: anybody on the network path can read and change \
                       what is sent; set caCertificates instead";
        reading.warning(format!("{field}.insecureSkipVerify"), message);
    }
    let client = match (yaml.mode, yaml.client_certificate, yaml.private_key) {
        (TlsMode::Mutual, Some(certificate), Some(private_key)) => {
            Some(ClientCertificate { certificate, private_key })
        }
        (TlsMode::Mutual, ..) => {
            let message = "MUTUAL needs clientCertificate and privateKey, paths in the sidecar's file system";
            return Err(wrong(field, message));
        }
        (_, None, None) => None,
        _ => {
            let message = "has no effect with SIMPLE; write MUTUAL to show a client certificate";
            reading.warning(format!("{field}.clientCertificate"), message);
            None
        }
    };
    Ok(UpstreamTls::Originate(TlsOrigination {
        sni: yaml.sni,
        subject_alt_names: yaml.subject_alt_names,
        // Istio's word for what is the default here.
        ca_certificates: yaml.ca_certificates.filter(|path| path != "system"),
        client,
        insecure_skip_verify: yaml.insecure_skip_verify,
    }))
}

fn read_outlier(
    yaml: &OutlierYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<OutlierDetection, FieldError> {
    let default = OutlierDetection::default();
    let time = |yaml: Option<GoDuration>, name: &str, default: Duration| match yaml {
        Some(GoDuration(time)) if time < Duration::from_millis(1) => {
            Err(wrong(format!("{field}.{name}"), "is shorter than 1ms; write for example 10s"))
        }
        Some(GoDuration(time)) => Ok(time),
        None => Ok(default),
    };
    let interval = time(yaml.interval, "interval", default.interval)?;
    let base_ejection_time = time(yaml.base_ejection_time, "baseEjectionTime", default.base_ejection_time)?;
    let max_ejection_percent = match yaml.max_ejection_percent {
        None | Some(0) => default.max_ejection_percent,
        Some(percent) => u8::try_from(percent).ok().filter(|percent| *percent <= 100).ok_or_else(|| {
            wrong(
                format!("{field}.maxEjectionPercent"),
                format!("{percent} is not a percentage; use 1 to 100"),
            )
        })?,
    };
    let mut gateway_errors = yaml.consecutive_gateway_errors;
    if let Some(count) = yaml.consecutive_errors {
        let old = format!("{field}.consecutiveErrors");
        if gateway_errors.is_some() {
            reading.warning(
                old,
                "is an old name of consecutiveGatewayErrors, which is also given; that one is used",
            );
        } else {
            reading.warning(
                old,
                "is an old name of consecutiveGatewayErrors and is used as that; write the new name",
            );
            gateway_errors = Some(count);
        }
    }
    let consecutive_5xx = match yaml.consecutive_5xx_errors {
        None => default.consecutive_5xx,
        Some(count) => Some(count).filter(|count| *count > 0),
    };
    Ok(OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_errors: gateway_errors.filter(|count| *count > 0),
        interval,
        base_ejection_time,
        max_ejection_time: MAX_EJECTION_TIME.max(base_ejection_time),
        max_ejection_percent,
    })
}
