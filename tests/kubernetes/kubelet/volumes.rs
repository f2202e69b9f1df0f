//! A pod's volumes as directories, with the owners and rights that kubelets give them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use selvedge_tests::kubernetes::Api;
use serde_json::Value;

use super::{environment::field, items, pod::Facts, text};

/// What is written for a pod that says no mode.
const MODE: u32 = 0o644;

/// Fills all volumes of a pod below `directory`, one directory each. Filled again, they show what has changed.
pub(super) async fn fill(api: &Api, pod: &Value, facts: &Facts, directory: &Path) {
    for volume in items(&pod["spec"]["volumes"]) {
        let path = directory.join(text(&volume["name"]));
        fs::create_dir_all(&path).unwrap();
        let filling = Filling { api, pod, facts, path };
        filling.fill(volume).await;
        filling.own();
    }
}

struct Filling<'a> {
    api: &'a Api,
    pod: &'a Value,
    facts: &'a Facts,
    path: PathBuf,
}

impl Filling<'_> {
    async fn fill(&self, volume: &Value) {
        if volume["emptyDir"].is_object() {
            fs::set_permissions(&self.path, Permissions::from_mode(0o777)).unwrap();
        } else if let Some(projected) = volume["projected"].as_object() {
            for source in items(&projected["sources"]) {
                self.source(source, mode(&volume["projected"]["defaultMode"], MODE)).await;
            }
        } else if volume["configMap"].is_object()
            || volume["secret"].is_object()
            || volume["downwardAPI"].is_object()
        {
            let kind =
                ["configMap", "secret", "downwardAPI"].into_iter().find(|kind| volume[kind].is_object());
            self.source(volume, mode(&volume[kind.unwrap_or_default()]["defaultMode"], MODE)).await;
        } else {
            panic!("the volume {volume}, which this kubelet does not know");
        }
    }

    async fn source(&self, source: &Value, mode_of_all: u32) {
        for (kind, plural) in [("configMap", "configmaps"), ("secret", "secrets")] {
            if source[kind].is_object() {
                self.object(&source[kind], kind, plural, mode_of_all).await;
            }
        }
        for item in items(&source["downwardAPI"]["items"]) {
            let value = field(self.pod, self.facts, text(&item["fieldRef"]["fieldPath"]));
            self.write(text(&item["path"]), value.as_bytes(), mode(&item["mode"], mode_of_all));
        }
        let token = &source["serviceAccountToken"];
        if token.is_object() {
            self.token(token, mode_of_all).await;
        }
    }

    async fn object(&self, reference: &Value, kind: &str, plural: &str, mode_of_all: u32) {
        let namespace = text(&self.pod["metadata"]["namespace"]);
        let name = reference["name"].as_str().or(reference["secretName"].as_str()).unwrap_or_default();
        let object = match self.api.get(&format!("/api/v1/namespaces/{namespace}/{plural}/{name}")).await {
            Ok(object) => object,
            Err(_) if reference["optional"] == true => return,
            Err(error) => panic!("a volume's {kind}: {error}"),
        };
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            let chosen = items(&reference["items"]).find(|item| item["key"] == key.as_str());
            if reference["items"].is_array() && chosen.is_none() {
                continue;
            }
            let path = chosen.map_or(key.as_str(), |item| text(&item["path"]));
            let own = chosen.map_or(mode_of_all, |item| mode(&item["mode"], mode_of_all));
            let bytes = if kind == "secret" {
                BASE64_STANDARD.decode(text(value)).unwrap()
            } else {
                text(value).as_bytes().to_vec()
            };
            self.write(path, &bytes, own);
        }
    }

    /// As kubelets do: for one user's eyes if all containers run as one, for a group's if the pod has one.
    async fn token(&self, token: &Value, mode_of_all: u32) {
        let path = text(&token["path"]);
        if self.path.join(path).exists() {
            return;
        }
        let namespace = text(&self.pod["metadata"]["namespace"]);
        let account = text(&self.pod["spec"]["serviceAccountName"]);
        let value =
            self.api.token(namespace, account, token["audience"].as_str(), Some(self.pod)).await.unwrap();
        let only = self.facts.only_user.is_some() || self.facts.group.is_some();
        self.write(path, value.as_bytes(), if only { 0o600 } else { mode_of_all });
        if let Some(user) = self.facts.only_user {
            chown(self.path.join(path), Some(user), None).unwrap();
        }
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) {
        let file = self.path.join(path);
        fs::create_dir_all(file.parent().expect("below the volume")).unwrap();
        // Whoever reads meanwhile sees the old or the new, never half of it.
        let beside = file.with_extension("new");
        fs::write(&beside, bytes).unwrap();
        fs::set_permissions(&beside, Permissions::from_mode(mode)).unwrap();
        fs::rename(&beside, &file).unwrap();
    }

    /// The pod's group owns its volumes, and may read what their owner may.
    fn own(&self) {
        let Some(group) = self.facts.group else { return };
        chown(&self.path, None, Some(group)).unwrap();
        for entry in fs::read_dir(&self.path).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                chown(entry.path(), None, Some(group)).unwrap();
                let mode = entry.metadata().unwrap().permissions().mode();
                fs::set_permissions(entry.path(), Permissions::from_mode(mode | 0o040)).unwrap();
            }
        }
    }
}

fn mode(value: &Value, otherwise: u32) -> u32 {
    value.as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(otherwise)
}
