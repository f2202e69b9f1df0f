//! What the API server knows about tokens and permissions.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
};
use kube::api::{Api, PostParams};

use crate::{Client, Error};

/// What the API server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reviewed {
    /// It is somebody's.
    Authenticated {
        /// Such as `system:serviceaccount:shop:reviews`.
        username: String,
        /// The audiences asked for that it is meant for.
        audiences: Vec<String>,
        /// What else is known, such as the pod that it is bound to.
        extra: BTreeMap<String, Vec<String>>,
    },
    /// It proves nothing; the API server's reason.
    Refused(String),
}

/// A permission to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The resource, such as `pods`; a part of it as `pods/status`.
    pub resource: &'a str,
    /// Such as `list`.
    pub verb: &'a str,
    /// Only in this namespace; `None` = in all.
    pub namespace: Option<&'a str>,
    /// Only this object; `None` = every one.
    pub name: Option<&'a str>,
}

impl Client {
    /// Whose `token` is, if it is meant for one of `audiences`.
    ///
    /// # Errors
    /// If the API server does not answer, or we may not ask.
    pub async fn review_token(&self, token: &str, audiences: &[&str]) -> Result<Reviewed, Error> {
        let reviews: Api<TokenReview> = Api::all(self.inner.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(audiences.iter().map(ToString::to_string).collect()),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let answer = self.within(reviews.create(&PostParams::default(), &review)).await?;
        Ok(read(answer))
    }

    /// Whether we may do what `access` says.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn may(&self, access: &Access<'_>) -> Result<bool, Error> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.inner.clone());
        let (resource, part) = match access.resource.split_once('/') {
            Some((resource, part)) => (resource, Some(part.to_owned())),
            None => (access.resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(access.group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: part,
                    verb: Some(access.verb.to_owned()),
                    namespace: access.namespace.map(str::to_owned),
                    name: access.name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = self.within(reviews.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn read(review: TokenReview) -> Reviewed {
    let Some(status) = review.status else {
        return Reviewed::Refused("the API server gave no verdict".to_owned());
    };
    match (status.authenticated, status.user) {
        (Some(true), Some(user)) => Reviewed::Authenticated {
            username: user.username.unwrap_or_default(),
            audiences: status.audiences.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        },
        _ => Reviewed::Refused(status.error.unwrap_or_else(|| "it is not authenticated".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reviewed(status: &Value) -> Reviewed {
        read(serde_json::from_value(json!({"spec": {}, "status": status})).unwrap())
    }

    #[test]
    fn a_token_is_somebodys_only_if_the_api_server_says_so() {
        let user = json!({"username": "system:serviceaccount:shop:reviews", "extra": {"pod": ["r-1"]}});

        assert_eq!(
            reviewed(&json!({"authenticated": true, "user": user, "audiences": ["selvedge"]})),
            Reviewed::Authenticated {
                username: "system:serviceaccount:shop:reviews".to_owned(),
                audiences: vec!["selvedge".to_owned()],
                extra: BTreeMap::from([("pod".to_owned(), vec!["r-1".to_owned()])]),
            }
        );
        assert_eq!(
            reviewed(&json!({"user": user, "error": "expired"})),
            Reviewed::Refused("expired".to_owned())
        );
        assert!(matches!(reviewed(&json!({"authenticated": true})), Reviewed::Refused(_)));
        assert!(matches!(read(TokenReview::default()), Reviewed::Refused(_)));
    }
}
