//! Who may ask with a name and a password (nginx's `auth-type: basic` of an `Ingress`).

use serde::Serialize;

use crate::gateway::UserListName;

/// Which users are answered. Others are answered 401.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BasicAuth {
    /// What they are told that they ask for (RFC 9110, section 11.5).
    pub realm: String,
    /// Who they are.
    pub users: UserListName,
}

impl BasicAuth {
    /// How a client learns that it must say who it is (`WWW-Authenticate`; RFC 7617, section 2).
    pub fn challenge(&self) -> String {
        let realm = self.realm.replace('\\', "\\\\").replace('"', "\\\"");
        format!("Basic realm=\"{realm}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::UserListForm;

    #[test]
    fn a_realm_is_quoted() {
        let users = UserListName::new("shop", "users", UserListForm::File);
        let basic = BasicAuth { realm: r#"the "inner" \ shop"#.to_owned(), users };

        assert_eq!(basic.challenge(), r#"Basic realm="the \"inner\" \\ shop""#);
    }
}
