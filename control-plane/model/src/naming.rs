//! What people call a workload: its controller, and what its labels say of it.
//!
//! A workload of a cluster is a pod, whose name changes with each release. People speak of its Deployment, StatefulSet or
//! Job. Pods carry labels of their controllers, and those say which part of a pod's name is the controller's.

use std::{collections::BTreeMap, sync::Arc};

/// The labels in which a Deployment or a Rollout says what stands behind its own name in the names of its pods.
const TEMPLATE_HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// The labels in which a Job says its name.
const JOB_NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The label of a StatefulSet's pods: their own name, which ends with their number.
const STATEFUL: &str = "statefulset.kubernetes.io/pod-name";
/// The label of a DaemonSet's pods. A StatefulSet's have it, too.
const REVISION: &str = "controller-revision-hash";
/// The longest that any of it may be, in bytes.
pub const LONGEST: usize = 253;

/// What people call a workload. What is empty is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Naming {
    /// Its controller, such as a Deployment; its own name if it has none.
    pub owner: Arc<str>,
    /// The label `app`, or `app.kubernetes.io/name`.
    pub app: Arc<str>,
    /// The label `version`, or `app.kubernetes.io/version`.
    pub version: Arc<str>,
    /// Istio's canonical service: `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, or the owner.
    pub service: Arc<str>,
    /// Istio's canonical revision: `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, or `latest`.
    pub revision: Arc<str>,
}

impl Naming {
    /// What people call the workload `name` (without its namespace) that has these `labels`.
    pub fn of(name: &str, labels: &BTreeMap<String, String>) -> Self {
        let first = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| labels.get(*key).filter(|value| !value.is_empty()));
            found.map(|value| Arc::from(value.as_str()))
        };
        let owner: Arc<str> = Arc::from(owner(name, labels));
        let service = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision =
            first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        Self {
            app: first(&["app", "app.kubernetes.io/name"]).unwrap_or_default(),
            version: first(&["version", "app.kubernetes.io/version"]).unwrap_or_default(),
            service: service.unwrap_or_else(|| Arc::clone(&owner)),
            revision: revision.unwrap_or_else(|| "latest".into()),
            owner,
        }
    }

    /// Whether it is short enough, and of the letters that names and labels of a cluster have.
    pub fn is_plausible(&self) -> bool {
        let is_plausible = |text: &str| {
            let may_be = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            text.len() <= LONGEST && text.bytes().all(may_be)
        };
        [&self.owner, &self.app, &self.version, &self.service, &self.revision]
            .into_iter()
            .all(|text| is_plausible(text))
    }
}

/// The controller of the workload `name`, by its `labels`; its own name if they name none.
fn owner<'n>(name: &'n str, labels: &'n BTreeMap<String, String>) -> &'n str {
    for hash in TEMPLATE_HASHES.iter().filter_map(|label| labels.get(*label)).filter(|hash| !hash.is_empty())
    {
        let behind = format!("-{hash}-");
        if let Some((owner, _)) = name.rsplit_once(&behind).filter(|(owner, _)| !owner.is_empty()) {
            return owner;
        }
    }
    if let Some(job) = JOB_NAMES.iter().find_map(|label| labels.get(*label)).filter(|job| !job.is_empty()) {
        return cron_job(job);
    }
    let suffix = match (labels.contains_key(STATEFUL), labels.contains_key(REVISION)) {
        (true, _) => |suffix: &str| suffix.bytes().all(|byte| byte.is_ascii_digit()),
        (false, true) => |suffix: &str| suffix.len() == 5,
        (false, false) => return name,
    };
    match name.rsplit_once('-') {
        Some((owner, behind)) if !owner.is_empty() && !behind.is_empty() && suffix(behind) => owner,
        _ => name,
    }
}

/// The CronJob of a Job, whose name it ends with the minute for which it made it.
fn cron_job(job: &str) -> &str {
    // It is counted from 1970 on. A day such as 20261130 is less than any minute since 2009.
    let minute = |text: &str| {
        (8..=10).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && text.parse().is_ok_and(|number: u64| number >= 21_000_000)
    };
    match job.rsplit_once('-') {
        Some((owner, behind)) if !owner.is_empty() && minute(behind) => owner,
        _ => job,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(name: &str, labels: &[(&str, &str)]) -> Naming {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Naming::of(name, &labels)
    }

    #[test]
    fn the_controller_of_a_pod_is_found_by_the_labels_that_it_gives() {
        for (name, labels, owner) in [
            ("web-7d9c5b-x2x4z", &[("pod-template-hash", "7d9c5b")][..], "web"),
            ("web-7d9c5b-7d9c5b-x2x4z", &[("pod-template-hash", "7d9c5b")], "web-7d9c5b"),
            ("web-55f-x2x4z", &[("rollouts-pod-template-hash", "55f")], "web"),
            (
                "db-0",
                &[("statefulset.kubernetes.io/pod-name", "db-0"), ("controller-revision-hash", "db-5")],
                "db",
            ),
            ("agent-x2x4z", &[("controller-revision-hash", "5c9")], "agent"),
            ("report-28461230-abcde", &[("job-name", "report-28461230")], "report"),
            ("import-abcde", &[("batch.kubernetes.io/job-name", "import")], "import"),
            ("import-20261130-abcde", &[("job-name", "import-20261130")], "import-20261130"),
            ("reviews-v1", &[("app", "reviews")], "reviews-v1"),
            ("web-7d9c5b-x2x4z", &[("pod-template-hash", "other")], "web-7d9c5b-x2x4z"),
            ("-0", &[("statefulset.kubernetes.io/pod-name", "-0")], "-0"),
        ] {
            assert_eq!(&*naming(name, labels).owner, owner, "{name}");
        }
    }

    #[test]
    fn labels_say_the_rest_and_what_they_do_not_say_has_its_default() {
        let all = naming("a", &[("app", "shop"), ("version", "v1"), ("app.kubernetes.io/name", "store")]);
        assert_eq!((&*all.app, &*all.version, &*all.service, &*all.revision), ("shop", "v1", "store", "v1"));
        let none = naming("a", &[]);
        assert_eq!((&*none.app, &*none.version, &*none.service, &*none.revision), ("", "", "a", "latest"));
        assert!(all.is_plausible() && none.is_plausible());
        assert!(!naming("a\"b", &[]).is_plausible() && !naming(&"a".repeat(254), &[]).is_plausible());
    }
}
