//! What documents mean, and what is wrong with them.
//!
//! Documents are read and compiled as in the control plane, so what passes here is what the control plane will use.
//! There is one difference: a document that fails is not used here, because there is no last good version.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::SystemTime};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::{
    compile::{Attached, MeshSettings, compile},
    keys::left_to_fetch,
    problem::{Problem, Severity},
    sources::Loaded,
    status::{ObjectStatus, statuses},
};
use selvedge_model::{
    Mesh, Rule, Service, Workload,
    filter::OwnAnswer,
    gateway::GatewayPort,
    snapshot::{Clients, ServiceViews},
};
use serde::Serialize;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) passed: bool,
    errors: usize,
    warnings: usize,
    not_acted_on: usize,
    problems: Vec<Problem>,
    /// What only a control plane can find out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_open: Vec<String>,
    services: Vec<ServiceReport>,
    workloads: Vec<WorkloadReport>,
    /// What the control plane writes into the objects' status in a cluster.
    statuses: Vec<ObjectStatus>,
}

#[derive(Debug, Serialize)]
struct ServiceReport {
    host: String,
    port: u16,
    endpoints: usize,
    meshed_endpoints: usize,
    rules: Vec<RuleReport>,
    /// Namespaces whose clients follow rules of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RuleReport {
    name: String,
    /// What the sidecar answers itself, if nothing is sent to a backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    backends: Vec<BackendReport>,
    /// The status for the share of a broken backend.
    #[serde(skip)]
    unusable_status: u16,
}

#[derive(Debug, Serialize)]
struct BackendReport {
    name: String,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

#[derive(Debug, Serialize)]
struct WorkloadReport {
    name: String,
    identity: String,
    meshed: bool,
    mode: String,
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<GatewayReport>,
}

/// What a workload serves as a gateway.
#[derive(Debug, Serialize)]
struct GatewayReport {
    name: String,
    /// The host names with rules, by the port that clients call.
    hosts: BTreeMap<u16, Vec<String>>,
}

impl Report {
    /// What `loaded` comes to.
    pub(super) fn of(loaded: &Loaded, settings: &MeshSettings) -> Self {
        let (mesh, between) = compile(&loaded.resources, settings, &Mesh::default());
        let mut problems = [loaded.problems.as_slice(), &between].concat();
        if settings.allow_unenforced {
            problems = problems.into_iter().map(Problem::accepted).collect();
        }
        let now = Utc(SystemTime::now()).to_string();
        let statuses = statuses(&loaded.objects, &problems, &Attached::new(&loaded.resources), &now);
        problems.sort_by(|a, b| (a.severity, &a.path, a.line).cmp(&(b.severity, &b.path, b.line)));
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        let errors = count(Severity::Error);
        Self {
            passed: errors == 0,
            errors,
            warnings: count(Severity::Warning),
            not_acted_on: count(Severity::NotActedOn),
            services: mesh.services.values().map(|views| ServiceReport::new(&mesh, views)).collect(),
            workloads: mesh.workloads.values().map(|workload| WorkloadReport::new(&mesh, workload)).collect(),
            left_open: left_to_fetch(&loaded.resources),
            problems,
            statuses,
        }
    }

    /// All of it.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.problems_to_text();
        self.add_mesh(&mut text);
        text += &self.counts();
        text
    }

    /// What is wrong, by document, and how much it is.
    pub(super) fn problems_to_text(&self) -> String {
        let mut text = String::new();
        for (severity, title) in [
            (Severity::Error, "Errors"),
            (Severity::Warning, "Warnings"),
            (Severity::NotActedOn, "Not acted on"),
        ] {
            let mut here = self.problems.iter().filter(|problem| problem.severity == severity).peekable();
            if here.peek().is_some() {
                line(&mut text, 0, title);
            }
            for problem in here {
                line(&mut text, 1, &problem.to_string());
            }
        }
        if !self.left_open.is_empty() {
            line(&mut text, 0, "Not checked here");
        }
        for open in &self.left_open {
            line(&mut text, 1, open);
        }
        text
    }

    fn add_mesh(&self, text: &mut String) {
        if !self.services.is_empty() {
            line(text, 0, "Services");
        }
        for service in &self.services {
            service.add_to(text);
        }
        if !self.workloads.is_empty() {
            line(text, 0, "Workloads");
        }
        for workload in &self.workloads {
            workload.add_to(text);
        }
    }

    /// How much is wrong, in one line.
    pub(super) fn counts(&self) -> String {
        let counts = [
            counted(self.errors, "error", "errors"),
            counted(self.warnings, "warning", "warnings"),
            counted(self.not_acted_on, "field or document not acted on", "fields or documents not acted on"),
        ];
        counts.join(", ") + "\n"
    }
}

impl WorkloadReport {
    fn new(mesh: &Mesh, workload: &Workload) -> Self {
        let hosts = |served: &GatewayPort| {
            served.virtual_hosts().map(|host| host.hostname.to_string()).collect::<Vec<_>>()
        };
        let gateway = workload.gateway.as_ref().map(|role| {
            let ports = mesh.gateways.get(&workload.name).into_iter().flat_map(|gateway| &gateway.ports);
            let hosts = ports.map(|(port, served)| (*port, hosts(served))).collect();
            GatewayReport { name: role.name.to_string(), hosts }
        });
        Self {
            name: workload.name.to_string(),
            identity: workload.identity.to_string(),
            meshed: workload.meshed,
            mode: workload.policy.default.mode.to_string(),
            rule: workload.policy.default.name.to_string(),
            gateway,
        }
    }

    fn add_to(&self, text: &mut String) {
        let Self { name, identity, meshed, mode, rule, gateway } = self;
        let how = match gateway {
            Some(GatewayReport { name, .. }) => format!("the gateway {name}"),
            None if *meshed => format!("{mode} by {rule}"),
            None => "no sidecar".to_owned(),
        };
        line(text, 1, &format!("{name}  {identity}  {how}"));
        for (port, hosts) in gateway.iter().flat_map(|gateway| &gateway.hosts) {
            line(text, 2, &format!("port {port}: {}", hosts.join(", ")));
        }
    }
}

impl ServiceReport {
    fn new(mesh: &Mesh, views: &ServiceViews) -> Self {
        let service = &views.default;
        // One by name counts as one: how many addresses it has, only the sidecars' DNS knows.
        let endpoints = mesh.endpoints.get(&service.key).into_iter();
        let fixed = endpoints.clone().flat_map(|endpoints| &endpoints.list).map(|one| &one.identity);
        let named = endpoints.flat_map(|endpoints| &endpoints.named).map(|one| &one.identity);
        let identities: Vec<_> = fixed.chain(named).collect();
        Self {
            host: service.key.host.to_string(),
            port: service.key.port,
            endpoints: identities.len(),
            meshed_endpoints: identities.iter().filter(|identity| identity.is_some()).count(),
            rules: rules(service),
            namespaces: clients(views),
        }
    }

    fn add_to(&self, text: &mut String) {
        let endpoints = counted(self.endpoints, "endpoint", "endpoints");
        let meshed = self.meshed_endpoints;
        line(text, 1, &format!("{}:{}  {endpoints}, {meshed} with mutual TLS", self.host, self.port));
        for rule in &self.rules {
            line(text, 2, &format!("{} -> {}", rule.name, rule.outcome()));
        }
        if self.rules.is_empty() {
            line(text, 2, "no rule: 404");
        }
        if !self.namespaces.is_empty() {
            line(text, 2, &format!("other rules for clients in {}", self.namespaces.join(", ")));
        }
    }
}

/// The namespaces whose clients see something else, with their labels if those alone do that have these.
fn clients(views: &ServiceViews) -> Vec<String> {
    let selected = views.each_selected().map(|(namespace, labels, _)| {
        Clients { namespace: Arc::clone(namespace), selected: Some(Arc::clone(labels)) }.to_string()
    });
    views.by_namespace.keys().map(ToString::to_string).chain(selected).collect()
}

impl RuleReport {
    /// What becomes of requests that the rule is for.
    fn outcome(&self) -> String {
        if let Some(answer) = &self.answer {
            return answer.clone();
        }
        let share = |backend: &BackendReport| {
            let name = format!("{} {}", backend.weight, backend.name);
            match &backend.broken {
                Some(_) => format!("{name} (broken: {})", self.unusable_status),
                None => name,
            }
        };
        let shares: Vec<_> = self.backends.iter().map(share).collect();
        shares.join(", ")
    }
}

/// What the sidecar answers itself to requests that `rule` is for; `None`: they go to a backend.
fn own_answer(rule: &Rule) -> Option<String> {
    match &rule.filters.answer {
        Some(OwnAnswer::Redirect(redirect)) => Some(format!("redirect: {}", redirect.status)),
        Some(OwnAnswer::Direct(direct)) => Some(format!("direct response: {}", direct.status)),
        Some(OwnAnswer::Unusable(_)) => Some("filter that cannot be used: 500".to_owned()),
        None if rule.backends.is_empty() => Some(format!("nowhere: {}", rule.unusable_status)),
        None => None,
    }
}

fn rules(service: &Service) -> Vec<RuleReport> {
    let backend = |index: usize, weight| {
        let backend = &service.backends[index];
        BackendReport { name: backend.name.to_string(), weight, broken: backend.broken.clone() }
    };
    let rule = |rule: &Rule| RuleReport {
        name: rule.name.clone(),
        answer: own_answer(rule),
        unusable_status: rule.unusable_status,
        backends: rule.backends.iter().map(|one| backend(one.backend, one.weight)).collect(),
    };
    service.routes.rules().iter().map(|one| rule(one)).collect()
}

fn line(text: &mut String, indent: usize, words: &str) {
    writeln!(text, "{:width$}{words}", "", width = indent * 2).expect("writing to a String cannot fail");
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use selvedge_control_plane::sources::directory::{self, Options};

    use super::*;

    fn check(files: &[(&str, &str)]) -> Report {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let loaded = directory::load(directory.path(), Options::default()).unwrap();
        let report = Report::of(&loaded, &MeshSettings::default());
        crate::documented::is_documented("check", &report);
        report
    }

    const CANARY: [(&str, &str); 2] = [
        ("routes.yaml", include_str!("../../../../examples/canary/config/virtualservice.yaml")),
        ("service.yaml", include_str!("../../../../examples/canary/config/service.yaml")),
    ];

    #[test]
    fn a_report_names_errors_first_and_then_what_is_configured() {
        let report = check(&CANARY);

        let text = report.to_text();
        assert!(!report.passed);
        assert!(text.starts_with("Errors\n  "), "{text}");
        assert!(
            text.contains("routes.yaml:17: VirtualService default/reviews: spec.http[0].route[0]"),
            "{text}"
        );
        assert!(text.contains("reviews.default.svc.cluster.local:9080  0 endpoints"), "{text}");
        assert!(
            text.contains(
                "VirtualService default/reviews http[1] -> 90 reviews.default.svc.cluster.local:9080/v1"
            ),
            "{text}"
        );
        assert!(text.ends_with("3 errors, 0 warnings, 0 fields or documents not acted on\n"), "{text}");
    }

    #[test]
    fn warnings_pass() {
        let rule = include_str!("../../../../examples/policies/least-request-and-ejection.yaml");
        let tcp = "\n      tcp:\n";
        let rule = rule.replacen(tcp, &format!("{tcp}        fastOpen: {{ time: 60s }}\n"), 1);
        let report = check(&[CANARY[0], CANARY[1], ("rule.yaml", &rule)]);

        assert!(report.passed, "{}", report.to_text());
        assert_eq!((report.warnings, report.not_acted_on), (1, 1));
    }

    #[test]
    fn a_report_is_one_json_object() {
        let json = serde_json::to_value(check(&CANARY)).unwrap();

        assert_eq!(json["passed"], false);
        assert_eq!(json["problems"][0]["severity"], "error");
        assert_eq!(json["services"][0]["rules"][1]["backends"][1]["weight"], 10);
    }
}
