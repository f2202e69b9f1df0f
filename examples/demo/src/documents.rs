//! The YAML of a demo mesh: the canary example's files byte for byte, and entries for the workloads that run.

use std::{fmt::Write as _, net::SocketAddr};

/// The canary's configuration, as it stands in `examples/canary/config`: file name and text.
pub const CANARY: [(&str, &str); 4] = [
    ("destinationrule.yaml", include_str!("../../canary/config/destinationrule.yaml")),
    ("peerauthentication.yaml", include_str!("../../canary/config/peerauthentication.yaml")),
    ("service.yaml", include_str!("../../canary/config/service.yaml")),
    ("virtualservice.yaml", include_str!("../../canary/config/virtualservice.yaml")),
];

/// What a `WorkloadEntry` says of one workload.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The service account whose identity it has.
    pub service_account: &'a str,
    /// Its labels, by which services and subsets select it.
    pub labels: &'a [(String, String)],
    /// Where its app listens.
    pub app: SocketAddr,
    /// Where its sidecar takes connections from other sidecars. `None`: it has no sidecar.
    pub inbound: Option<SocketAddr>,
}

/// The `WorkloadEntry` document. Its one port is named `http`, whatever is spoken.
pub fn workload_entry(entry: &Entry<'_>) -> String {
    let Entry { name, namespace, service_account, labels, app, inbound } = entry;
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\n\
         kind: WorkloadEntry\n\
         metadata:\n  name: {name}\n  namespace: {namespace}\n"
    );
    if let Some(inbound) = inbound {
        write!(text, "  annotations:\n    config.selvedge.io/inbound: {inbound}\n").expect("a String grows");
    }
    write!(text, "spec:\n  address: {}\n  ports:\n    http: {}\n", app.ip(), app.port())
        .expect("a String grows");
    text.push_str("  labels:\n");
    let meshed = inbound.map(|_| ("security.istio.io/tlsMode", "istio"));
    let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in labels.chain(meshed) {
        writeln!(text, "    {key}: {value}").expect("a String grows");
    }
    writeln!(text, "  serviceAccount: {service_account}").expect("a String grows");
    text
}

/// A `Service` whose workloads carry the label `app: <name>`.
pub fn service(name: &str, namespace: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  selector:\n    app: {name}\n  ports:\n    - name: http\n      port: {port}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_sidecar_is_not_meshed() {
        let labels = [("app".to_owned(), "reviews".to_owned())];
        let mut entry = Entry {
            name: "reviews-v1-a",
            namespace: "default",
            service_account: "reviews",
            labels: &labels,
            app: "127.20.1.2:9080".parse().unwrap(),
            inbound: Some("127.20.1.2:4143".parse().unwrap()),
        };
        let meshed = workload_entry(&entry);
        entry.inbound = None;
        let plain = workload_entry(&entry);

        assert!(meshed.contains("    config.selvedge.io/inbound: 127.20.1.2:4143\n"));
        assert!(meshed.contains("    security.istio.io/tlsMode: istio\n"));
        assert!(!plain.contains("istio.io/tlsMode") && !plain.contains("annotations"));
        assert!(plain.ends_with("  labels:\n    app: reviews\n  serviceAccount: reviews\n"));
    }

    #[test]
    fn the_canary_routes_nine_of_ten_to_v1() {
        let (_, text) = CANARY.iter().find(|(name, _)| *name == "virtualservice.yaml").unwrap();

        assert!(text.contains("weight: 90") && text.contains("weight: 10"));
    }
}
