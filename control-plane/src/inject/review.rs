//! What the API server asks a webhook, and what it is answered: `AdmissionReview` of `admission.k8s.io/v1`.
//!
//! Own structs of the fields that we read, and not a library's: those come with a copy of all of Kubernetes.

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_ops::{plain, plain_within};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::patch::Operation;

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The most characters of one warning, and of all together: the API server cuts what is longer.
const ONE_WARNING: usize = 256;
const ALL_WARNINGS: usize = 4096;
/// How much is said of why an object is refused, in bytes.
const LONGEST_REASON: usize = 8192;

/// A question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What it is about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Comes back in the answer.
    pub uid: String,
    /// The kind of the object.
    pub kind: GroupVersionKind,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The object as it would be; `null` for `DELETE`.
    #[serde(default)]
    pub object: Value,
    /// Whether nothing comes of it; then nothing else may come of it either.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// What an object is.
#[derive(Debug, Deserialize)]
pub struct GroupVersionKind {
    /// Such as `apps`; empty for Kubernetes' oldest.
    #[serde(default)]
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `Pod`.
    pub kind: String,
}

impl Review {
    /// The request in the bytes of a body.
    ///
    /// # Errors
    /// What is wrong with them, for whoever configured the webhook.
    pub fn request(body: &[u8]) -> Result<Request, String> {
        let review: Self = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not an {KIND} of {VERSION}: {error}"))?;
        if review.api_version != VERSION || review.kind != KIND {
            return Err(format!(
                "the body is {} of {}, and not {KIND} of {VERSION}; set admissionReviewVersions to [v1]",
                review.kind, review.api_version
            ));
        }
        review.request.ok_or_else(|| format!("the {KIND} has no request"))
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64, as JSON has bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Answer {
    /// That the object may be as it is.
    pub fn allowed(request: &Request) -> Self {
        let response = Response {
            uid: request.uid.clone(),
            allowed: true,
            status: None,
            patch_type: None,
            patch: None,
            warnings: Vec::new(),
        };
        Self { api_version: VERSION, kind: KIND, response }
    }

    /// That it may be if it is changed so.
    ///
    /// # Errors
    /// None that can be met: the operations are JSON.
    pub fn patched(request: &Request, patch: &[Operation]) -> serde_json::Result<Self> {
        let mut answer = Self::allowed(request);
        if !patch.is_empty() {
            answer.response.patch_type = Some("JSONPatch");
            answer.response.patch = Some(BASE64_STANDARD.encode(serde_json::to_vec(patch)?));
        }
        Ok(answer)
    }

    /// That it may not be, and why.
    pub fn refused(request: &Request, reason: &str) -> Self {
        let mut answer = Self::allowed(request);
        let reason = plain_within(reason, LONGEST_REASON);
        answer.response.allowed = false;
        answer.response.status = Some(json!({ "code": 400, "reason": "Invalid", "message": reason }));
        answer
    }

    /// The same, with `warnings` for whoever asks for the object. What the API server would cut is cut here,
    /// and said to be.
    #[must_use]
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        let mut left = ALL_WARNINGS - ONE_WARNING;
        let mut omitted = 0;
        for warning in warnings {
            let warning = cut(&warning);
            match left.checked_sub(warning.len()) {
                Some(rest) if omitted == 0 => {
                    left = rest;
                    self.response.warnings.push(warning);
                }
                _ => omitted += 1,
            }
        }
        if omitted > 0 {
            self.response.warnings.push(format!("{omitted} more; `selvedge check` shows all of them"));
        }
        self
    }

    /// Whether the object may be.
    pub fn is_allowed(&self) -> bool {
        self.response.allowed
    }
}

/// `warning` as far as the API server shows it.
fn cut(warning: &str) -> String {
    let warning = plain(warning);
    if warning.len() <= ONE_WARNING {
        return warning.into_owned();
    }
    let end = warning.floor_char_boundary(ONE_WARNING - '…'.len_utf8());
    format!("{}…", &warning[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let body = json!({
            "apiVersion": VERSION, "kind": KIND,
            "request": {
                "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "namespace": "shop",
                "operation": "CREATE", "object": {}, "dryRun": true, "userInfo": { "username": "me" },
            },
        });
        Review::request(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_body_that_is_no_review_is_refused_with_what_it_is() {
        for (body, reason) in [
            ("", "not an AdmissionReview"),
            ("{}", "missing field"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
                "admissionReviewVersions",
            ),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "has no request"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":1}}"#,
                "a string",
            ),
        ] {
            let error = Review::request(body.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
    }

    #[test]
    fn an_answer_has_the_uid_of_its_request_and_no_more_than_it_needs() {
        let request = request();
        let answer = serde_json::to_value(Answer::allowed(&request)).unwrap();

        assert_eq!(request.dry_run, Some(true));
        assert_eq!(
            answer,
            json!({ "apiVersion": VERSION, "kind": KIND, "response": { "uid": "u", "allowed": true } })
        );
        let refused = serde_json::to_value(Answer::refused(&request, "no")).unwrap();
        assert_eq!(refused["response"]["allowed"], false);
        assert_eq!(refused["response"]["status"]["message"], "no");
    }

    #[test]
    fn warnings_stay_within_what_the_api_server_shows() {
        let long = "ä".repeat(300);
        let answer = Answer::allowed(&request()).with_warnings(std::iter::repeat_n(long, 40));

        let warnings = answer.response.warnings;
        assert!(warnings.iter().all(|warning| warning.len() <= ONE_WARNING));
        assert!(warnings.iter().map(String::len).sum::<usize>() <= ALL_WARNINGS);
        assert!(warnings.last().unwrap().contains("more; `selvedge check`"), "{warnings:?}");
    }
}
