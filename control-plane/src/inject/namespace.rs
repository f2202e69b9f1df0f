//! What a namespace says about the pods in it.

use std::collections::BTreeMap;

/// The label by which a namespace has its pods held to a Pod Security Standard.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// The part of a `Namespace` that injection looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// That the namespace `name` with these `labels` forbids what redirection needs, if it does.
///
/// Both Pod Security levels but `privileged` forbid the capability `NET_ADMIN`, and the API server checks them
/// after injection: it would refuse every injected pod.
pub fn pod_security_warning(name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let level = labels.get(POD_SECURITY).filter(|level| *level != "privileged")?;
    Some(format!(
        "namespace {name} enforces Pod Security {level:?}, which forbids NET_ADMIN ({}): \
         label it {POD_SECURITY}=privileged",
        super::INIT_CONTAINER
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_forbids_redirection_is_warned_of_by_name() {
        let labels = |level: &str| BTreeMap::from([(POD_SECURITY.to_owned(), level.to_owned())]);

        for level in ["baseline", "restricted"] {
            let warning = pod_security_warning("shop", &labels(level)).unwrap();
            assert!(warning.contains("namespace shop") && warning.contains(level), "{warning}");
            assert!(warning.len() <= 256, "the API server may cut it");
        }
        assert_eq!(pod_security_warning("shop", &labels("privileged")), None);
        assert_eq!(pod_security_warning("shop", &BTreeMap::new()), None);
    }
}
