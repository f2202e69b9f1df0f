//! `auth-type: basic`, with `auth-secret`, `auth-secret-type` and `auth-realm`: names and passwords from a `Secret`.
//!
//! As in nginx's controller, the Secret is one of the `Ingress`'s own namespace, and the realm is empty if none is named. A
//! value that cannot be used is an error, so that nothing is answered without a password that should be.

use selvedge_model::gateway::UserListForm;

use super::Annotations;

/// What its Secret is named by.
pub(crate) const SECRET: &str = "auth-secret";
/// What asks for a password.
pub(crate) const KIND: &str = "auth-type";
const FORM: &str = "auth-secret-type";
const REALM: &str = "auth-realm";

/// Who may ask, by name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// The namespace of the `Secret` that says who, if it is written.
    pub namespace: Option<String>,
    /// The name of the `Secret`.
    pub secret: String,
    /// How it says that.
    pub form: UserListForm,
    /// What others are told that they ask for.
    pub realm: String,
}

/// Who may ask; none: all.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Option<Passwords> {
    let (form, realm, secret) = (form(annotations), realm(annotations), secret(annotations));
    match annotations.text(KIND) {
        None => {
            let message = "does nothing without auth-type; write auth-type: basic, or remove it";
            if annotations.text(SECRET).is_some() {
                annotations.wrong(SECRET, message);
            }
            // Who writes these alone keeps nobody out.
            for name in [FORM, REALM] {
                if annotations.text(name).is_some() {
                    annotations.notes.warning(super::annotation(name), message);
                }
            }
            return None;
        }
        Some("basic") => {}
        Some(other) => {
            annotations.wrong(KIND, format!("{other:?} is not acted on; write basic"));
            return None;
        }
    }
    if annotations.text(SECRET).is_none() {
        annotations.wrong(KIND, "needs auth-secret; name a Secret of this namespace with the users");
    }
    let (namespace, secret) = secret?;
    Some(Passwords { namespace, secret, form: form?, realm: realm? })
}

fn form(annotations: &mut Annotations<'_>) -> Option<UserListForm> {
    let Some(text) = annotations.text(FORM) else { return Some(UserListForm::default()) };
    let form = UserListForm::from_word(text);
    if form.is_none() {
        annotations.wrong(FORM, format!("{text:?} is not acted on; write auth-file or auth-map"));
    }
    form
}

/// As a header can hold it. nginx would put variables in.
fn realm(annotations: &mut Annotations<'_>) -> Option<String> {
    let text = annotations.text(REALM).unwrap_or_default();
    let is_one = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !text.contains('$');
    if !is_one {
        annotations.wrong(
            REALM,
            format!("{text:?} is not a realm; write ASCII letters, without variables of nginx"),
        );
    }
    is_one.then(|| text.to_owned())
}

/// Its namespace, if that is written, and its name.
fn secret(annotations: &mut Annotations<'_>) -> Option<(Option<String>, String)> {
    let text = annotations.text(SECRET)?;
    let (namespace, name) = match text.split_once('/') {
        None => (None, text),
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
    };
    if name.is_empty() || name.contains('/') {
        annotations.wrong(SECRET, format!("{text:?} is not the name of a Secret"));
        return None;
    }
    Some((namespace, name.to_owned()))
}
