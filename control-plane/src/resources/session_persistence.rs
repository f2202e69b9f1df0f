//! `sessionPersistence` of a rule of an `HTTPRoute` or `GRPCRoute` (Gateway API, GEP-1619).

use http::HeaderName;
use selvedge_model::{SessionCarrier, SessionKey, SessionPersistence};
use serde::Deserialize;

use super::{document::wrong, load_balancer::cookie_name, typed::FieldError, values::GatewayDuration};

/// The longest `sessionName` (Gateway API).
const LONGEST_NAME: usize = 128;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SessionYaml {
    session_name: Option<String>,
    absolute_timeout: Option<GatewayDuration>,
    idle_timeout: Option<GatewayDuration>,
    #[serde(rename = "type")]
    kind: SessionType,
    cookie_config: Option<CookieConfigYaml>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum SessionType {
    #[default]
    Cookie,
    Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CookieConfigYaml {
    lifetime_type: LifetimeType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum LifetimeType {
    Permanent,
    #[default]
    Session,
}

impl SessionYaml {
    /// What it says, at `field`. Its name is empty if it gives none, and its key is not made yet.
    pub(super) fn read(self, field: &str) -> Result<SessionPersistence, FieldError> {
        let name = self.session_name.unwrap_or_default();
        let of_name = format!("{field}.sessionName");
        if name.len() > LONGEST_NAME {
            return Err(wrong(of_name, format!("is longer than {LONGEST_NAME} characters; shorten it")));
        }
        let (absolute, idle) = (
            timeout(self.absolute_timeout, &format!("{field}.absoluteTimeout"))?,
            timeout(self.idle_timeout, &format!("{field}.idleTimeout"))?,
        );
        let carrier = match self.kind {
            SessionType::Header => {
                if self.cookie_config.is_some() {
                    let message = "is for the type Cookie; remove it, or write type: Cookie";
                    return Err(wrong(format!("{field}.cookieConfig"), message));
                }
                if !name.is_empty() && HeaderName::from_bytes(name.as_bytes()).is_err() {
                    return Err(wrong(of_name, format!("{name:?} is not the name of a header; correct it")));
                }
                SessionCarrier::Header
            }
            SessionType::Cookie => {
                if !name.is_empty() {
                    cookie_name(&name, &of_name)?;
                }
                let lifetime = self.cookie_config.unwrap_or_default().lifetime_type;
                let max_age = (lifetime == LifetimeType::Permanent).then_some(absolute);
                if max_age == Some(None) {
                    let message = "Permanent needs absoluteTimeout, which says how long the cookie is kept";
                    return Err(wrong(format!("{field}.cookieConfig.lifetimeType"), message));
                }
                let attributes = ["HttpOnly", "SameSite=Lax"].map(str::to_owned).to_vec();
                SessionCarrier::Cookie { path: "/".to_owned(), max_age: max_age.flatten(), attributes }
            }
        };
        let name = if self.kind == SessionType::Header { name.to_ascii_lowercase() } else { name };
        Ok(SessionPersistence {
            name,
            carrier,
            absolute_timeout: absolute,
            idle_timeout: idle,
            moves_on_failure: true,
            key: SessionKey([0; 32]),
        })
    }
}

fn timeout(yaml: Option<GatewayDuration>, field: &str) -> Result<Option<std::time::Duration>, FieldError> {
    match yaml {
        None => Ok(None),
        Some(GatewayDuration(time)) if time.as_secs() == 0 => {
            Err(wrong(field, "is shorter than 1s; write for example 1h, or remove it"))
        }
        Some(GatewayDuration(time)) => Ok(Some(time)),
    }
}
