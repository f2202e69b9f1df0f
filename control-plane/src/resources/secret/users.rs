//! The users that a `Secret` holds, with the hashes of their passwords. What is said of them repeats neither.

use selvedge_model::gateway::{PasswordHash, UserList, UserListForm, UserListName};

use super::{Rest, Unreadable};

/// The key of a file of `htpasswd`.
const FILE: &str = "auth";

/// The users of a `Secret`.
#[derive(Debug, PartialEq)]
pub(crate) struct Users {
    /// Those who can be let in.
    pub(crate) list: UserList,
    /// Why others cannot.
    pub(crate) left_out: Vec<Unreadable>,
}

/// A user, or why there is none.
type Read = Result<(Box<str>, PasswordHash), Unreadable>;

/// The users that `secret` holds in `form`, as the list `name`.
///
/// # Errors
/// If it holds none: why, in each place.
pub(crate) fn users(secret: &Rest, name: UserListName, form: UserListForm) -> Result<Users, Vec<Unreadable>> {
    let read = match form {
        UserListForm::File => in_file(secret).map_err(|why| vec![why])?,
        UserListForm::Map => in_map(secret),
    };
    let (mut users, mut left_out) = (Vec::<(Box<str>, PasswordHash)>::new(), Vec::new());
    for read in read {
        match read {
            Ok(user) => users.push(user),
            Err(why) => left_out.push(why),
        }
    }
    match (users.is_empty(), left_out.is_empty()) {
        (true, true) => Err(vec![none(secret, form)]),
        (true, false) => Err(left_out),
        (false, _) => Ok(Users { list: UserList::new(name, users), left_out }),
    }
}

fn none(secret: &Rest, form: UserListForm) -> Unreadable {
    let field = if secret.string_data.is_empty() { "data" } else { "stringData" };
    let why = match form {
        UserListForm::File => "has no user; write a file with htpasswd -B, as the key auth",
        UserListForm::Map => "has no user; write each as a key, with the hash that htpasswd -nB makes",
    };
    Unreadable { field: field.to_owned(), why: why.to_owned() }
}

/// Of lines such as `user:hash`. As in nginx, what begins with `#` is a remark, and so is what stands behind a further colon.
fn in_file(secret: &Rest) -> Result<Vec<Read>, Unreadable> {
    let Some((field, bytes)) = secret.part(FILE) else {
        let none = none(secret, UserListForm::File);
        return Err(Unreadable { why: "has no key auth; add it, as a file of htpasswd".to_owned(), ..none });
    };
    let no_text = || "is not text; write a file with htpasswd".to_owned();
    let text = String::from_utf8(bytes?).map_err(|_| Unreadable { field: field.clone(), why: no_text() })?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|(index, line)| in_line(&field, index + 1, line)).collect())
}

fn in_line(field: &str, number: usize, line: &str) -> Read {
    let wrong = |why: String| Unreadable { field: field.to_owned(), why: format!("line {number} {why}") };
    let Some((user, hash)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
        return Err(wrong("has no user before a colon; write user:hash, as htpasswd does".to_owned()));
    };
    // A password that is not hashed may have a colon.
    let hash = match hash.starts_with("{PLAIN}") {
        true => hash,
        false => hash.split(':').next().unwrap_or_default(),
    };
    let hash =
        hash.parse::<PasswordHash>().map_err(|error| wrong(format!("{error}; its user is not let in")))?;
    Ok((user.into(), hash))
}

fn in_map(secret: &Rest) -> Vec<Read> {
    let user = |key: &str| -> Option<Read> {
        let (field, bytes) = secret.part(key)?;
        let text = match bytes {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(unreadable) => return Some(Err(unreadable)),
        };
        let hash = text.trim().parse::<PasswordHash>();
        let why = |error| Unreadable { field, why: format!("{error}; this user is not let in") };
        Some(hash.map(|hash| (key.into(), hash)).map_err(why))
    };
    secret.keys().into_iter().filter_map(user).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;

    fn secret(data: &[(&str, &str)], string_data: &[(&str, &str)]) -> Rest {
        let owned = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
        let encoded = |(key, text): &(&str, &str)| ((*key).to_owned(), BASE64_STANDARD.encode(text));
        Rest {
            data: data.iter().map(encoded).collect::<BTreeMap<_, _>>(),
            string_data: string_data.iter().map(owned).collect(),
        }
    }

    fn read(secret: &Rest, form: UserListForm) -> (Vec<String>, Vec<String>) {
        let said =
            |all: Vec<Unreadable>| all.into_iter().map(|one| format!("{} {}", one.field, one.why)).collect();
        match users(secret, UserListName::new("shop", "users", form), form) {
            Ok(Users { list, left_out }) => (
                list.reveal().map(|(name, hash)| format!("{name}:{}", hash.reveal())).collect(),
                said(left_out),
            ),
            Err(whys) => (Vec::new(), said(whys)),
        }
    }

    #[test]
    fn a_file_is_read_line_by_line_and_who_cannot_be_let_in_is_told_by_the_line() {
        let file = "# staff\nann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=:Ann\r\n\nbob:{PLAIN}a:b\neve:rqXexS6ZhobKA\nnobody\n:x\n";
        for (data, string_data, field) in
            [(&[("auth", file)][..], &[][..], "data"), (&[], &[("auth", file)], "stringData")]
        {
            let (users, told) = read(&secret(data, string_data), UserListForm::File);

            assert_eq!(users, ["ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "bob:{PLAIN}a:b"]);
            assert_eq!(told.len(), 3, "{told:?}");
            assert!(
                told[0].starts_with(&format!("{field}[auth] line 5 has a hash of crypt's oldest")),
                "{told:?}"
            );
            assert!(told[1].starts_with(&format!("{field}[auth] line 6 has no user")), "{told:?}");
            assert!(!told.concat().contains("rqX") && !told.concat().contains("eve"), "{told:?}");
        }
    }

    #[test]
    fn a_map_has_a_user_in_each_key() {
        let map = [("ann", "{PLAIN}a\n"), ("bob", "secret")];
        let (users, told) = read(&secret(&map, &[]), UserListForm::Map);

        assert_eq!(users, ["ann:{PLAIN}a"]);
        assert!(told[0].starts_with("data[bob] has no hash of a known format"), "{told:?}");
        assert!(!told[0].contains("secret;"), "{told:?}");
    }

    #[test]
    fn a_secret_without_users_says_what_to_write() {
        let told = |secret: &Rest, form| read(secret, form).1.concat();

        assert!(told(&secret(&[], &[]), UserListForm::File).starts_with("data has no key auth"));
        assert!(told(&secret(&[("auth", "# x")], &[]), UserListForm::File).starts_with("data has no user"));
        assert!(told(&secret(&[], &[]), UserListForm::Map).starts_with("data has no user"));
        let broken = Rest { data: BTreeMap::from([("auth".into(), "*".into())]), ..Rest::default() };
        assert!(told(&broken, UserListForm::File).starts_with("data[auth] is not base64"));
    }
}
