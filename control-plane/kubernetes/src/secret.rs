//! Secrets: what they hold, made once and read again.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    ByteString, api::core::v1::Secret as ApiSecret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::{Api, PostParams};

use crate::{Client, Error};

/// What a Secret holds. `Debug` names its keys, never what they hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its type, such as `kubernetes.io/tls` or `Opaque`.
    pub secret_type: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its data, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
    /// Which version of it was read; empty before it was.
    pub resource_version: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().collect();
        f.debug_struct("Secret")
            .field("type", &self.secret_type)
            .field("keys", &keys)
            .field("resource_version", &self.resource_version)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// A Secret that is not there yet.
    pub fn new(secret_type: &str, data: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            secret_type: secret_type.to_owned(),
            labels: BTreeMap::new(),
            data,
            resource_version: String::new(),
        }
    }
}

impl Client {
    /// The Secret `namespace/name`; `None` if there is none.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
        let secrets: Api<ApiSecret> = Api::namespaced(self.inner.clone(), namespace);
        let found = self.within(secrets.get_opt(name)).await?;
        Ok(found.map(read))
    }

    /// Makes the Secret `namespace/name`, and returns it as it was made.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if somebody was faster; or if the API server does not answer, or refuses.
    pub async fn create_secret(&self, namespace: &str, name: &str, secret: &Secret) -> Result<Secret, Error> {
        let secrets: Api<ApiSecret> = Api::namespaced(self.inner.clone(), namespace);
        let object = write(name, secret);
        self.within(secrets.create(&PostParams::default(), &object)).await.map(read)
    }
}

fn read(secret: ApiSecret) -> Secret {
    Secret {
        secret_type: secret.type_.unwrap_or_default(),
        labels: secret.metadata.labels.unwrap_or_default().into_iter().collect(),
        data: secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
        resource_version: secret.metadata.resource_version.unwrap_or_default(),
    }
}

fn write(name: &str, secret: &Secret) -> ApiSecret {
    let data = secret.data.iter().map(|(key, value)| (key.clone(), ByteString(value.clone()))).collect();
    let version = &secret.resource_version;
    ApiSecret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(secret.labels.clone()),
            resource_version: Some(version.clone()).filter(|version| !version.is_empty()),
            ..ObjectMeta::default()
        },
        type_: Some(secret.secret_type.clone()),
        data: Some(data),
        ..ApiSecret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds_is_never_shown() {
        let secret = Secret::new("Opaque", BTreeMap::from([("tls.key".into(), b"private".to_vec())]));

        let shown = format!("{secret:?}");

        assert!(shown.contains("tls.key") && !shown.contains("private"), "{shown}");
    }

    #[test]
    fn a_secret_comes_back_as_it_was_written() {
        let secret = Secret::new("Opaque", BTreeMap::from([("a".into(), vec![0, 255])]));

        assert_eq!(read(write("name", &secret)), secret);
    }
}
