//! Kinds of objects, and which of them an API server serves.

use std::fmt;

use kube::core::{ApiResource, DynamicObject, Resource};

use crate::{Client, Error};

/// One kind in one version, with all that a request for it needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Such as `networking.istio.io`; empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `VirtualService`.
    pub kind: String,
    /// Its name in paths, such as `virtualservices`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether its status can be written by itself.
    pub has_status: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.api_version())
    }
}

impl Kind {
    /// A kind that lives in namespaces and is known without asking.
    pub fn namespaced(api_version: &str, kind: &str, plural: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced: true,
            has_status: false,
        }
    }

    /// A kind without namespaces that is known without asking.
    pub fn cluster_wide(api_version: &str, kind: &str, plural: &str) -> Self {
        Self { namespaced: false, ..Self::namespaced(api_version, kind, plural) }
    }

    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub(crate) fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }

    /// The path of its objects; in all namespaces if none is given.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        DynamicObject::url_path(&self.resource(), namespace.filter(|_| self.namespaced))
    }
}

impl Client {
    /// The kinds that `api_version` (such as `networking.istio.io/v1`) has here; none if it is not served.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn kinds(&self, api_version: &str) -> Result<Vec<Kind>, Error> {
        let listed = match api_version.split_once('/') {
            Some(_) => self.within(self.inner.list_api_group_resources(api_version)).await,
            None => self.within(self.inner.list_core_api_resources(api_version)).await,
        };
        let listed = match listed {
            Err(Error::NotFound(_)) => return Ok(Vec::new()),
            listed => listed?.resources,
        };
        let has_status = |plural: &str| listed.iter().any(|other| other.name == format!("{plural}/status"));
        let kinds = listed.iter().filter(|resource| !resource.name.contains('/')).map(|resource| Kind {
            has_status: has_status(&resource.name),
            namespaced: resource.namespaced,
            ..Kind::namespaced(api_version, &resource.kind, &resource.name)
        });
        Ok(kinds.collect())
    }

    /// Every `group/version` that is served, but for the core group's.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn api_versions(&self) -> Result<Vec<String>, Error> {
        let groups = self.within(self.inner.list_api_groups()).await?.groups;
        let versions = groups.into_iter().flat_map(|group| group.versions);
        Ok(versions.map(|version| version.group_version).collect())
    }

    /// `kind` in the first of `api_versions` that has it here.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn find_kind(&self, kind: &str, api_versions: &[&str]) -> Result<Option<Kind>, Error> {
        for api_version in api_versions {
            let kinds = self.kinds(api_version).await?;
            if let Some(found) = kinds.into_iter().find(|found| found.kind == kind) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kinds_path_has_its_group_and_its_namespace() {
        let service = Kind::namespaced("v1", "Service", "services");
        let route = Kind::namespaced("networking.istio.io/v1", "VirtualService", "virtualservices");
        let webhook = Kind::cluster_wide(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        );

        assert_eq!(service.path(Some("shop")), "/api/v1/namespaces/shop/services");
        assert_eq!(service.path(None), "/api/v1/services");
        assert_eq!(route.path(None), "/apis/networking.istio.io/v1/virtualservices");
        assert_eq!(
            webhook.path(Some("ignored")),
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        );
        assert_eq!(route.to_string(), "VirtualService (networking.istio.io/v1)");
    }
}
