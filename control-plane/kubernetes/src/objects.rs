//! Any object of any kind, as JSON: read, made, changed, removed.

use kube::{
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::Request,
};
use serde_json::Value;

use crate::{Client, Error, Kind};

/// The name under which our changes are recorded in `managedFields`.
pub const FIELD_MANAGER: &str = "selvedge";
/// Objects per answer, so that no answer is too large.
const PAGE: u32 = 500;

/// How a change is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Server-side apply: these fields are ours from now on, whoever had them; what we had and no longer
    /// name is removed. The object is made if it is missing.
    Apply(&'a Value),
    /// The same, but refused ([`Error::Conflict`]) where somebody else has one of these fields with another value.
    Claim(&'a Value),
    /// RFC 7386: these fields, and nothing else; `null` removes one.
    Merge(&'a Value),
    /// RFC 6902: a list of operations.
    Json(&'a Value),
}

impl Client {
    /// The object; `None` if there is none of that name, or its kind is not served.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn get(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, Error> {
        let request = Request::new(kind.path(namespace)).get(name, &GetParams::default());
        match self.ask(request).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object, of one namespace or of all, with the labels that `selector` (such as `app=a`) asks for.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses; [`Error::NotFound`] if the kind is not served.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<Value>, Error> {
        let mut page = ListParams { limit: Some(PAGE), ..ListParams::default() };
        page.label_selector = selector.map(str::to_owned);
        let mut objects = Vec::new();
        loop {
            let mut answer: Value = self.ask(Request::new(kind.path(namespace)).list(&page)).await?;
            if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
                objects.extend(items.into_iter().map(|item| self::typed(item, kind)));
            }
            match answer.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(more) if !more.is_empty() => page.continue_token = Some(more.to_owned()),
                _ => return Ok(objects),
            }
        }
    }

    /// Makes `object`, and returns it as it was made.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; or if the API server does not answer, or refuses.
    pub async fn create(&self, kind: &Kind, namespace: Option<&str>, object: &Value) -> Result<Value, Error> {
        let body = object.to_string().into_bytes();
        self.ask(Request::new(kind.path(namespace)).create(&PostParams::default(), body)).await
    }

    /// What [`Client::create`] would make of `object`, after defaults and webhooks; nothing is made.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn try_create(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<Value, Error> {
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let body = object.to_string().into_bytes();
        self.ask(Request::new(kind.path(namespace)).create(&parameters, body)).await
    }

    /// Puts `object` in the place of the one with its name; if it has a `resourceVersion`, only if nobody
    /// has changed that since.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::NotFound`]; or if the API server does not answer, or refuses.
    pub async fn replace(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        let body = object.to_string().into_bytes();
        self.ask(Request::new(kind.path(namespace)).replace(name, &PostParams::default(), body)).await
    }

    /// Changes the object, and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`] (but for [`Change::Apply`] and [`Change::Claim`]); or if the API server does not answer, or refuses.
    pub async fn change(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        change: Change<'_>,
    ) -> Result<Value, Error> {
        self.patch(&kind.path(namespace), name, None, change).await
    }

    /// Changes the object's status, and nothing else of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is gone or has no status of its own; or if the API server does not answer,
    /// or refuses.
    pub async fn change_status(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        change: Change<'_>,
    ) -> Result<Value, Error> {
        self.patch(&kind.path(namespace), name, Some("status"), change).await
    }

    /// Removes the object; whether there was one.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn delete(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> Result<bool, Error> {
        let request = Request::new(kind.path(namespace)).delete(name, &DeleteParams::default());
        match self.ask::<Value>(request).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the object if it is still the one with this uid; whether it was there.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is another one; or if the API server does not answer, or refuses.
    pub async fn delete_exactly(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
    ) -> Result<bool, Error> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        // What belongs to it goes with it.
        let parameters = DeleteParams::background().preconditions(preconditions);
        match self.ask::<Value>(Request::new(kind.path(namespace)).delete(name, &parameters)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn patch(
        &self,
        path: &str,
        name: &str,
        subresource: Option<&str>,
        change: Change<'_>,
    ) -> Result<Value, Error> {
        let request = Request::new(path);
        let send = |parameters: &PatchParams, patch: &Patch<&Value>| match subresource {
            Some(part) => request.patch_subresource(part, name, parameters, patch),
            None => request.patch(name, parameters, patch),
        };
        match change {
            Change::Apply(fields) => {
                let parameters = PatchParams::apply(FIELD_MANAGER).force();
                self.ask(send(&parameters, &Patch::Apply(fields))).await
            }
            Change::Claim(fields) => {
                let parameters = PatchParams::apply(FIELD_MANAGER);
                self.ask(send(&parameters, &Patch::Apply(fields))).await
            }
            Change::Merge(fields) => {
                let parameters =
                    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                self.ask(send(&parameters, &Patch::Merge(fields))).await
            }
            Change::Json(operations) => {
                let patch = serde_json::from_value(operations.clone());
                let patch = patch.map_err(|error| Error::Refused {
                    code: 0,
                    reason: "Malformed".to_owned(),
                    message: format!("no JSON patch: {error}"),
                })?;
                let parameters = PatchParams::default();
                let operations: Patch<&Value> = Patch::Json(patch);
                self.ask(send(&parameters, &operations)).await
            }
        }
    }
}

/// Members of a list come without their apiVersion and kind.
pub(crate) fn typed(mut object: Value, kind: &Kind) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        fields.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    object
}
