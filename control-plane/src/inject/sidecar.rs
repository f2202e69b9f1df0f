//! The two containers and the volume that a pod gets.
//!
//! Only `selvedge-init` has more capabilities than an ordinary process, and it ends before anything else starts. The proxy
//! needs no volume for its key: the key never leaves the process.

use std::collections::BTreeMap;

use selvedge_model::TrustDomain;
use serde_json::{Map, Value, json};

use super::{
    ADMIN_PORT, INIT_CONTAINER, InjectionSettings, OTLP_CA_VOLUME, PROXY_CONTAINER, PROXY_UID,
    TOKEN_AUDIENCE, TOKEN_DIRECTORY, TOKEN_VOLUME, WORKLOAD_API_VOLUME,
    annotations::{self, Acts},
    settings::Quantity,
};

/// How long a token is good for. The kubelet renews it in time; who steals one has an hour.
const TOKEN_SECONDS: u32 = 3600;
/// Where the volume of SPIRE's CSI driver is; its agent's socket there is called `spire-agent.sock`.
const WORKLOAD_API_DIRECTORY: &str = "/spiffe-workload-api";
/// Where the authorities of a collector are mounted, and which key of their ConfigMap has them.
const OTLP_CA_DIRECTORY: &str = "/var/run/configmaps/selvedge.io/otlp-ca";
const OTLP_CA_KEY: &str = "ca.crt";
/// How long a sidecar may take to be ready, in seconds, before it is started again.
const START_SECONDS: u32 = 120;

/// What is injected into one pod: every setting, whoever made it.
#[derive(Debug)]
pub(super) struct Sidecar<'a> {
    pub(super) settings: &'a InjectionSettings,
    /// By name; those of the pod before its namespace's before the defaults.
    pub(super) set: BTreeMap<&'static str, String>,
    /// `SELVEDGE_APP_PROBES`.
    pub(super) probes: Map<String, Value>,
    /// `SELVEDGE_APP_METRICS`.
    pub(super) metrics: Option<Value>,
}

impl Sidecar<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// Whether it is an init container that stays.
    pub(super) fn is_native(&self) -> bool {
        self.get("native-sidecar") == Some("enabled")
    }

    /// The container that redirects the pod's connections.
    pub(super) fn init(&self) -> Value {
        let mut container = self.container(INIT_CONTAINER, "init-image");
        let mut env = vec![variable("SELVEDGE_PROXY_GID", &self.settings.proxy_group.to_string())];
        env.extend(self.env_of(|acts| if let Acts::Init(variable) = acts { Some(variable) } else { None }));
        container.insert("env".to_owned(), env.into());
        container.insert("resources".to_owned(), json!({ "requests": { "cpu": "10m", "memory": "10Mi" } }));
        container.insert(
            "securityContext".to_owned(),
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "runAsUser": 0,
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
        );
        container.insert("terminationMessagePolicy".to_owned(), "FallbackToLogsOnError".into());
        container.into()
    }

    /// The container that carries the traffic.
    pub(super) fn proxy(&self) -> Value {
        let mut env = self.proxy_env();
        env.extend(self.sidecar_env());
        env.extend(self.settings_env());
        self.proxy_container(env, &[], !self.is_native())
    }

    /// The container of a gateway, which also has these ports, by name.
    pub(super) fn gateway(&self, ports: &[(String, u16)]) -> Value {
        let mut env = self.proxy_env();
        env.push(variable("SELVEDGE_GATEWAY", "true"));
        env.extend(self.settings_env());
        self.proxy_container(env, ports, false)
    }

    /// A proxy. `first`: the kubelet starts the next container when it is ready.
    fn proxy_container(&self, env: Vec<Value>, more_ports: &[(String, u16)], first: bool) -> Value {
        let mut container = self.container(PROXY_CONTAINER, "proxy-image");
        if self.is_native() {
            container.insert("restartPolicy".to_owned(), "Always".into());
        }
        container.insert("env".to_owned(), env.into());
        let resources = self.resources();
        let port = |name: &str, port: u16| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
        let more_ports = more_ports.iter().map(|(name, number)| port(name, *number));
        let ports: Vec<Value> = [port("selvedge-admin", ADMIN_PORT)].into_iter().chain(more_ports).collect();
        container.extend([
            ("ports".to_owned(), ports.into()),
            ("resources".to_owned(), resources),
            (
                "startupProbe".to_owned(),
                probe("/ready", &[("periodSeconds", 1), ("failureThreshold", START_SECONDS)]),
            ),
            ("readinessProbe".to_owned(), probe("/ready", &[("periodSeconds", 5), ("timeoutSeconds", 2)])),
            ("livenessProbe".to_owned(), probe("/live", &[("periodSeconds", 10), ("timeoutSeconds", 2)])),
        ]);
        if first {
            // The kubelet starts the next container when this has ended.
            let wait = json!(["/selvedge-proxy", "wait", "--timeout", format!("{START_SECONDS}s")]);
            container.insert("lifecycle".to_owned(), json!({ "postStart": { "exec": { "command": wait } } }));
        }
        container.insert(
            "securityContext".to_owned(),
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsGroup": self.settings.proxy_group,
                "runAsNonRoot": true,
                "runAsUser": PROXY_UID,
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
        );
        container.insert("terminationMessagePolicy".to_owned(), "FallbackToLogsOnError".into());
        let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
        let mut mounts = vec![mount(TOKEN_VOLUME, TOKEN_DIRECTORY)];
        if self.has_workload_api() {
            mounts.push(mount(WORKLOAD_API_VOLUME, WORKLOAD_API_DIRECTORY));
        }
        if self.otlp_ca().is_some() {
            mounts.push(mount(OTLP_CA_VOLUME, OTLP_CA_DIRECTORY));
        }
        container.insert("volumeMounts".to_owned(), mounts.into());
        container.into()
    }

    /// Whether its identity is a SPIFFE agent's.
    fn has_workload_api(&self) -> bool {
        self.get("workload-api") == Some("enabled")
    }

    /// The ConfigMap with the authorities that its collector is believed by, if it speaks TLS to one.
    fn otlp_ca(&self) -> Option<&str> {
        let is_tls = self.get("otlp-endpoint").is_some_and(|url| url.starts_with("https:"));
        self.get("otlp-ca-config-map").filter(|_| is_tls)
    }

    /// Its volumes.
    pub(super) fn volumes(&self) -> Vec<Value> {
        let csi = json!({ "driver": "csi.spiffe.io", "readOnly": true });
        let agent = json!({ "name": WORKLOAD_API_VOLUME, "csi": csi });
        // Whoever has no collector's authorities loses spans, and serves all the same.
        let authorities = self.otlp_ca().map(|name| {
            let items = json!([{ "key": OTLP_CA_KEY, "path": OTLP_CA_KEY }]);
            json!({ "name": OTLP_CA_VOLUME, "configMap": { "name": name, "items": items, "optional": true } })
        });
        let more = self.has_workload_api().then_some(agent).into_iter().chain(authorities);
        [Self::token_volume()].into_iter().chain(more).collect()
    }

    /// That of the token that proves whose sidecar it is.
    fn token_volume() -> Value {
        let token = json!({
            "audience": TOKEN_AUDIENCE,
            "expirationSeconds": TOKEN_SECONDS,
            "path": "token",
        });
        json!({ "name": TOKEN_VOLUME, "projected": { "sources": [{ "serviceAccountToken": token }] } })
    }

    fn container(&self, name: &str, image: &str) -> Map<String, Value> {
        let text = |setting| Value::from(self.get(setting).unwrap_or_default());
        Map::from_iter([
            ("name".to_owned(), name.into()),
            ("image".to_owned(), text(image)),
            ("imagePullPolicy".to_owned(), text("image-pull-policy")),
        ])
    }

    fn proxy_env(&self) -> Vec<Value> {
        let mut env = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            variable("SELVEDGE_WORKLOAD", "$(POD_NAMESPACE)/$(POD_NAME)"),
            variable("SELVEDGE_CONTROL_PLANE", &self.settings.control_plane),
            variable("SELVEDGE_TOKEN_FILE", &format!("{TOKEN_DIRECTORY}/token")),
        ];
        if !self.settings.trust_roots.is_empty() {
            env.push(variable("SELVEDGE_TRUST_ROOTS", &self.settings.trust_roots.join(",")));
        }
        if self.settings.trust_domain != TrustDomain::default() {
            env.push(variable("SELVEDGE_TRUST_DOMAIN", self.settings.trust_domain.as_str()));
        }
        if self.has_workload_api() {
            env.push(variable(
                "SELVEDGE_WORKLOAD_API",
                &format!("unix://{WORKLOAD_API_DIRECTORY}/spire-agent.sock"),
            ));
        }
        if self.otlp_ca().is_some() {
            env.push(variable("SELVEDGE_OTLP_CA_FILE", &format!("{OTLP_CA_DIRECTORY}/{OTLP_CA_KEY}")));
        }
        env
    }

    /// What a sidecar needs besides.
    fn sidecar_env(&self) -> Vec<Value> {
        let mut env = vec![variable("SELVEDGE_REDIRECTED", "true")];
        if !self.probes.is_empty() || self.metrics.is_some() {
            env.push(field("SELVEDGE_APP_ADDRESS", "status.podIP"));
        }
        if !self.probes.is_empty() {
            env.push(variable("SELVEDGE_APP_PROBES", &escaped(&Value::from(self.probes.clone()))));
        }
        if let Some(metrics) = &self.metrics {
            env.push(variable("SELVEDGE_APP_METRICS", &escaped(metrics)));
        }
        env
    }

    fn settings_env(&self) -> Vec<Value> {
        self.env_of(|acts| if let Acts::Proxy(variable) = acts { Some(variable) } else { None })
    }

    /// The variables of the settings that were made, for whom `of` picks.
    fn env_of(&self, of: impl Fn(Acts) -> Option<&'static str>) -> Vec<Value> {
        let settings = annotations::SETTINGS.iter();
        let set = settings.filter_map(|setting| Some((of(setting.acts)?, self.get(setting.name)?)));
        let text = |value: &str| match value {
            "enabled" => "true".to_owned(),
            "disabled" => "false".to_owned(),
            other => other.replace('$', "$$"),
        };
        set.map(|(name, value)| variable(name, &text(value))).collect()
    }

    fn resources(&self) -> Value {
        let mut resources = Map::new();
        for kind in ["requests", "limits"] {
            let mut amounts = Map::new();
            for what in ["cpu", "memory"] {
                let of = |kind: &str| self.get(&format!("proxy-{what}-{}", kind.trim_end_matches('s')));
                let Some(mut amount) = of(kind) else { continue };
                // A default request that is more than the limit that somebody set.
                if let Some(limit) = of("limits").filter(|limit| is_less(limit, amount)) {
                    amount = limit;
                }
                amounts.insert(what.to_owned(), amount.into());
            }
            if !amounts.is_empty() {
                resources.insert(kind.to_owned(), amounts.into());
            }
        }
        resources.into()
    }
}

/// Whether the amount `a` is less than `b`.
pub(super) fn is_less(a: &str, b: &str) -> bool {
    matches!((a.parse::<Quantity>(), b.parse::<Quantity>()), (Ok(a), Ok(b)) if a < b)
}

fn variable(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// As the value of a variable, in which `$(…)` would stand for another.
fn escaped(value: &Value) -> String {
    value.to_string().replace('$', "$$")
}

/// What [`escaped`] was made from.
pub(super) fn unescaped(text: &str) -> Option<Value> {
    serde_json::from_str(&text.replace("$$", "$")).ok()
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn probe(path: &str, times: &[(&str, u32)]) -> Value {
    let mut probe = Map::from_iter([("httpGet".to_owned(), json!({ "path": path, "port": ADMIN_PORT }))]);
    probe.extend(times.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    probe.into()
}
