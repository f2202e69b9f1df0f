//! A new root for the CA in the Secret, step by step. The replicas follow the Secret; `selvedge certs rotate-root` changes
//! it.

use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_certs::ca::{
    AuthorityError, CaPem,
    rotation::{Rotation, Step},
};
use selvedge_kubernetes::{Error, Kind, Secret, objects::Change};
use serde_json::{Map, Value, json};

use super::{
    CA_SECRET, Cluster,
    authority::{CERTIFICATE, CROSS, PRIVATE_KEY, ROOT},
};

/// How far the new root has come.
const STATE: &str = "root-rotation.json";
/// The new root, before and after it signs.
const NEXT: [&str; 2] = ["next.crt", "next.key"];
/// The old root, once the new one signs.
const PREVIOUS: [&str; 2] = ["previous.crt", "previous.key"];

/// Why a change of roots does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The API server does not answer, or refuses.
    #[error("the Secret {namespace}/{CA_SECRET}: {source}")]
    Secret {
        /// Where it is.
        namespace: String,
        /// What the API server says.
        source: Box<Error>,
    },
    /// There is no CA.
    #[error("the Secret {0}/{CA_SECRET} is missing; the control plane makes it when it starts")]
    Missing(String),
    /// The CA cannot be replaced by us.
    #[error("the Secret {namespace}/{CA_SECRET}: {source}")]
    Authority {
        /// Where it is.
        namespace: String,
        /// What is wrong.
        source: AuthorityError,
    },
    /// The Secret holds something else than this command has put there.
    #[error("the Secret {namespace}/{CA_SECRET}: {problem}")]
    Unexpected {
        /// Where it is.
        namespace: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Cluster {
    /// The change of roots that is under way.
    ///
    /// # Errors
    /// If the Secret cannot be read.
    pub async fn rotation(&self) -> Result<Option<Rotation>, RotationError> {
        self.state_in(&self.ca_secret().await?)
    }

    /// Makes a new root, to be trusted beside the one that is there.
    ///
    /// # Errors
    /// If one is under way, if the CA is not a root, or if the Secret cannot be changed.
    pub async fn begin_rotation(&self, now: SystemTime) -> Result<(), RotationError> {
        let failed = |source| RotationError::Authority { namespace: self.namespace.clone(), source };
        let secret = self.ca_secret().await?;
        if self.state_in(&secret)?.is_some() {
            return Err(self.unexpected("a change of roots is under way"));
        }
        let old = self.pem(&secret, [CERTIFICATE, PRIVATE_KEY])?;
        let (fingerprint, trust_domain) = old.own_root().map_err(failed)?;
        let trusted = secret.data.get(ROOT).is_none_or(|roots| same_text(roots, &old.certificate));
        if !trusted {
            let problem = "ca.crt has other roots than that of tls.crt: somebody is changing the root by hand; \
                           leave only that one there";
            return Err(self.unexpected(problem));
        }
        let new = CaPem::new_root(&trust_domain, now).map_err(failed)?;
        let cross = old.vouch_for(&new, &trust_domain, now).map_err(failed)?;
        let (new_fingerprint, _) = new.own_root().map_err(failed)?;
        let state = Rotation {
            step: Step::Trust,
            back: false,
            old: fingerprint.to_string(),
            new: new_fingerprint.to_string(),
        };
        let parts = [
            (ROOT, Some([old.certificate, new.certificate.clone()].concat())),
            (NEXT[0], Some(new.certificate)),
            (NEXT[1], Some(new.key)),
            (CROSS, Some(cross)),
        ];
        self.change_ca(&secret, Some(&state), parts.into()).await
    }

    /// Takes the change of roots to this step.
    ///
    /// # Errors
    /// If the Secret lacks a part, or cannot be changed.
    pub async fn set_rotation(&self, rotation: &Rotation) -> Result<(), RotationError> {
        let secret = self.ca_secret().await?;
        let found =
            self.state_in(&secret)?.ok_or_else(|| self.unexpected("no change of roots is under way"))?;
        let parts = match (found.step, rotation.step) {
            (Step::Trust, Step::Issue) => {
                let (old, new) = (self.pem(&secret, [CERTIFICATE, PRIVATE_KEY])?, self.pem(&secret, NEXT)?);
                let mut parts = signs(new, &old);
                parts.extend([(PREVIOUS[0], Some(old.certificate)), (PREVIOUS[1], Some(old.key))]);
                parts
            }
            (Step::Issue, Step::Trust) => signs(self.pem(&secret, PREVIOUS)?, &self.pem(&secret, NEXT)?),
            (Step::Issue, Step::Drop) => vec![(ROOT, Some(self.pem(&secret, NEXT)?.certificate))],
            // The same step, perhaps to be taken back.
            _ => Vec::new(),
        };
        self.change_ca(&secret, Some(rotation), parts).await
    }

    /// Ends the change of roots: whoever signs now is trusted alone.
    ///
    /// # Errors
    /// If the Secret cannot be changed.
    pub async fn end_rotation(&self) -> Result<(), RotationError> {
        let secret = self.ca_secret().await?;
        let signing = self.pem(&secret, [CERTIFICATE, PRIVATE_KEY])?;
        let mut parts = vec![(ROOT, Some(signing.certificate)), (CROSS, None)];
        parts.extend(NEXT.into_iter().chain(PREVIOUS).map(|name| (name, None)));
        self.change_ca(&secret, None, parts).await
    }

    async fn ca_secret(&self) -> Result<Secret, RotationError> {
        let secret = self.client.secret(&self.namespace, CA_SECRET).await.map_err(self.refused())?;
        secret.ok_or_else(|| RotationError::Missing(self.namespace.clone()))
    }

    fn state_in(&self, secret: &Secret) -> Result<Option<Rotation>, RotationError> {
        let Some(bytes) = secret.data.get(STATE) else { return Ok(None) };
        let state = serde_json::from_slice(bytes);
        state.map(Some).map_err(|error| self.unexpected(&format!("{STATE}: {error}")))
    }

    fn pem(&self, secret: &Secret, names: [&str; 2]) -> Result<CaPem, RotationError> {
        let part = |name: &str| {
            let found = secret.data.get(name).cloned();
            found.ok_or_else(|| self.unexpected(&format!("{name} is missing; restore it")))
        };
        Ok(CaPem { certificate: part(names[0])?, key: part(names[1])?, root: None, cross: None })
    }

    /// All in one, and only if nobody has changed the Secret since it was read.
    async fn change_ca(
        &self,
        read: &Secret,
        state: Option<&Rotation>,
        parts: Vec<(&str, Option<Vec<u8>>)>,
    ) -> Result<(), RotationError> {
        let text =
            |bytes: Option<Vec<u8>>| bytes.map_or(Value::Null, |bytes| BASE64_STANDARD.encode(bytes).into());
        let mut data: Map<String, Value> =
            parts.into_iter().map(|(name, bytes)| (name.to_owned(), text(bytes))).collect();
        let state = state.map(|state| serde_json::to_vec(state).expect("words always have a JSON form"));
        data.insert(STATE.to_owned(), text(state));
        let changed = json!({ "metadata": { "resourceVersion": read.resource_version }, "data": data });
        let (kind, change) = (Kind::namespaced("v1", "Secret", "secrets"), Change::Merge(&changed));
        let done = self.client.change(&kind, Some(&self.namespace), CA_SECRET, change).await;
        done.map(drop).map_err(self.refused())
    }

    fn refused(&self) -> impl Fn(Error) -> RotationError + use<> {
        let namespace = self.namespace.clone();
        move |source| RotationError::Secret { namespace: namespace.clone(), source: Box::new(source) }
    }

    fn unexpected(&self, problem: &str) -> RotationError {
        RotationError::Unexpected { namespace: self.namespace.clone(), problem: problem.to_owned() }
    }
}

/// `ca` signs, and `other` is trusted beside it.
fn signs(ca: CaPem, other: &CaPem) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let roots = [ca.certificate.as_slice(), other.certificate.as_slice()].concat();
    vec![(CERTIFICATE, Some(ca.certificate)), (PRIVATE_KEY, Some(ca.key)), (ROOT, Some(roots))]
}

fn same_text(one: &[u8], other: &[u8]) -> bool {
    one.trim_ascii() == other.trim_ascii()
}
