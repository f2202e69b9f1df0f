//! Whether a pod gets a sidecar: what the pod and its namespace ask for, and what prevents it.

use std::fmt;

use serde_json::Value;

use super::{INIT_CONTAINER, INJECT, INJECTED, NamespaceFacts, PROXY_CONTAINER};

/// Containers of other meshes: two redirections in one pod would send connections in circles.
const OTHERS: [(&str, &str); 4] = [
    ("istio-proxy", "Istio"),
    ("istio-init", "Istio"),
    ("linkerd-proxy", "Linkerd"),
    ("linkerd-init", "Linkerd"),
];

/// Why a pod gets no sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Neither it nor its namespace asks for one.
    NotAsked,
    /// It says that it wants none.
    Disabled,
    /// It has one.
    AlreadyInjected,
    /// It is in the network namespace of its node, whose connections are not its own.
    HostNetwork,
    /// It has the sidecar of another mesh.
    OtherMesh(&'static str),
    /// It runs on Windows, where there is nothing to redirect with.
    Windows,
    /// It is the API server's picture of a pod that a node runs from a file; a patch would change nothing.
    StaticPod,
}

impl Reason {
    /// One word for machines, as in an annotation.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Disabled => "disabled",
            Self::AlreadyInjected => "already-injected",
            Self::HostNetwork => "host-network",
            Self::OtherMesh(_) => "other-mesh",
            Self::Windows => "windows",
            Self::StaticPod => "static-pod",
        }
    }

    /// The reason that has this word, as far as people are told of it. What mesh another sidecar is of is not in it.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        let all = [
            Self::Disabled,
            Self::HostNetwork,
            Self::OtherMesh("another mesh"),
            Self::Windows,
            Self::StaticPod,
        ];
        all.into_iter().find(|reason| reason.word() == word)
    }

    /// Whether somebody who looks for the sidecar should find the reason on the pod.
    pub(super) fn is_told(self) -> bool {
        !matches!(self, Self::NotAsked | Self::AlreadyInjected)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => {
                write!(f, "neither the pod nor its namespace has {INJECT}: enabled")
            }
            Self::Disabled => write!(f, "the pod has {INJECT}: disabled"),
            Self::AlreadyInjected => f.write_str("it has a sidecar already"),
            Self::HostNetwork => {
                f.write_str("it has hostNetwork: true, and its node's connections cannot be redirected")
            }
            Self::OtherMesh(mesh) => write!(f, "it has a sidecar of {mesh}; remove that first"),
            Self::Windows => f.write_str("it runs on Windows, where connections cannot be redirected"),
            Self::StaticPod => f.write_str("it is a static pod; use `selvedge inject` on its file"),
        }
    }
}

/// Why `pod` gets no sidecar; `None`: it gets one. `asked_anyway`: nobody else need ask for it.
///
/// # Errors
/// If what is asked for cannot be understood.
pub(super) fn skip(
    pod: &Value,
    namespace: &NamespaceFacts,
    asked_anyway: bool,
) -> Result<Option<Reason>, String> {
    let own = wish(|kind| pod["metadata"][kind][INJECT].as_str(), "the pod")?;
    let asked = match own {
        Some(own) => own,
        None if asked_anyway => true,
        None => {
            let of = |kind: &str| match kind {
                "annotations" => namespace.annotations.get(INJECT),
                _ => namespace.labels.get(INJECT),
            };
            let whose = format!("namespace {}", namespace.name);
            wish(|kind| of(kind).map(String::as_str), &whose)?.unwrap_or(false)
        }
    };
    let against = against(pod);
    Ok(match (own, asked) {
        // Said first: its own containers are no reason to say that it wants none.
        (_, true) => against,
        (Some(_), false) => Some(Reason::Disabled),
        (None, false) => Some(Reason::NotAsked),
    })
}

/// What an object says by its annotation, or else by its label.
fn wish<'a>(said: impl Fn(&str) -> Option<&'a str>, whose: &str) -> Result<Option<bool>, String> {
    for kind in ["annotations", "labels"] {
        match said(kind) {
            Some("enabled") => return Ok(Some(true)),
            Some("disabled") => return Ok(Some(false)),
            Some(other) => {
                return Err(format!("{whose}: {INJECT}: {other:?} is neither enabled nor disabled"));
            }
            None => {}
        }
    }
    Ok(None)
}

fn against(pod: &Value) -> Option<Reason> {
    let spec = &pod["spec"];
    let names = || {
        let lists = [&spec["initContainers"], &spec["containers"]];
        lists.into_iter().filter_map(Value::as_array).flatten().filter_map(|one| one["name"].as_str())
    };
    if pod["metadata"]["annotations"].get(INJECTED).is_some()
        || names().any(|name| name == PROXY_CONTAINER || name == INIT_CONTAINER)
    {
        return Some(Reason::AlreadyInjected);
    }
    if spec["hostNetwork"] == true {
        return Some(Reason::HostNetwork);
    }
    let other = names().find_map(|name| OTHERS.iter().find(|(other, _)| *other == name));
    if let Some((_, mesh)) = other {
        return Some(Reason::OtherMesh(mesh));
    }
    let windows = |value: &Value| value == "windows";
    if windows(&spec["os"]["name"]) || windows(&spec["nodeSelector"]["kubernetes.io/os"]) {
        return Some(Reason::Windows);
    }
    let mirror = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror");
    mirror.map(|_| Reason::StaticPod)
}
