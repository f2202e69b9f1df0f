//! YAML that several tests write.

pub mod drawn;

pub mod recipes;

/// A `PeerAuthentication` called `own`, of this mode (`STRICT`, `PERMISSIVE`, `DISABLE`): for the workloads labelled
/// `app: <app>`, or for all of namespace `default`.
pub fn peer_authentication(app: Option<&str>, mode: &str) -> String {
    let selector = app.map(|app| format!("selector: {{matchLabels: {{app: {app}}}}}, ")).unwrap_or_default();
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: own, namespace: default}}\n\
         spec: {{{selector}mtls: {{mode: {mode}}}}}\n"
    )
}
