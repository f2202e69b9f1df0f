//! Who may ask with a name and a password (HTTP's basic authentication, RFC 7617), as `htpasswd` writes them down.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

/// The highest cost of a bcrypt hash: its verification takes about a second. Each step more doubles that.
const MOST_COST: u32 = 14;
/// The most rounds of crypt's SHA-256 and SHA-512, for the same reason.
const MOST_ROUNDS: u32 = 1_000_000;

/// How a `Secret` says who the users are (nginx's `auth-secret-type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UserListForm {
    /// `auth-file`: its key `auth` is a file of `htpasswd`.
    #[default]
    File,
    /// `auth-map`: each of its keys is a user.
    Map,
}

impl UserListForm {
    /// As the annotation has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "auth-file",
            Self::Map => "auth-map",
        }
    }

    /// The form that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::File, Self::Map].into_iter().find(|form| form.word() == word)
    }
}

/// What a list of users is called: the `Secret` that it comes from and how that is read, as `namespace/name/form`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserListName(Arc<str>);

/// A text is no `namespace/name/form`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no NAMESPACE/NAME/auth-file or NAMESPACE/NAME/auth-map")]
pub struct UserListNameError;

impl UserListName {
    /// Of the Secret `name` in `namespace`, which is read as `form` says.
    pub fn new(namespace: &str, name: &str, form: UserListForm) -> Self {
        Self(format!("{namespace}/{name}/{}", form.word()).into())
    }

    /// The Secret, as `namespace/name`.
    pub fn secret(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(secret, _)| secret)
    }
}

impl FromStr for UserListName {
    type Err = UserListNameError;

    fn from_str(text: &str) -> Result<Self, UserListNameError> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [namespace, name, form] if !namespace.is_empty() && !name.is_empty() => {
                UserListForm::from_word(form).map(|_| Self(text.into())).ok_or(UserListNameError)
            }
            _ => Err(UserListNameError),
        }
    }
}

impl fmt::Display for UserListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UserListName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Users with the hashes of their passwords. Neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct UserList {
    /// What it is called.
    pub name: UserListName,
    /// By their names, in order; no name twice.
    users: Vec<(Box<str>, Arc<PasswordHash>)>,
}

impl UserList {
    /// The list `name` of these users. Of several with one name the first counts, as in nginx.
    pub fn new(name: UserListName, users: impl IntoIterator<Item = (Box<str>, PasswordHash)>) -> Self {
        let mut users: Vec<_> = users.into_iter().map(|(user, hash)| (user, Arc::new(hash))).collect();
        users.sort_by(|(one, _), (other, _)| one.cmp(other));
        users.dedup_by(|(later, _), (first, _)| later == first);
        Self { name, users }
    }

    /// The hash of the password of `user`.
    pub fn find(&self, user: &[u8]) -> Option<&Arc<PasswordHash>> {
        let found = self.users.binary_search_by(|(name, _)| name.as_bytes().cmp(user));
        found.ok().map(|place| &self.users[place].1)
    }

    /// The hash that a password is compared with for a user who is not there, so that this takes as long as for one who is.
    /// Each `number` stands for one of the users; `None`: there are none.
    pub fn stand_in(&self, number: u64) -> Option<&Arc<PasswordHash>> {
        let place = number.checked_rem(u64::try_from(self.users.len()).unwrap_or(u64::MAX))?;
        self.users.get(usize::try_from(place).ok()?).map(|(_, hash)| hash)
    }

    /// All of them, for whoever sends them to the gateway that asks for them.
    pub fn reveal(&self) -> impl ExactSizeIterator<Item = (&str, &PasswordHash)> {
        self.users.iter().map(|(name, hash)| (&**name, &**hash))
    }
}

impl fmt::Debug for UserList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserList").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// bcrypt: `$2a$`, `$2b$`, `$2y$`; `htpasswd -B`.
    Bcrypt,
    /// A thousand rounds of MD5: `$apr1$` (`htpasswd -m`) and crypt's `$1$`, which differ in that prefix alone.
    Md5,
    /// `{SHA}`: SHA-1 without a salt; `htpasswd -s`.
    Sha1,
    /// `{SSHA}`: SHA-1 with a salt.
    SaltedSha1,
    /// crypt's SHA-256 (`$5$`) and SHA-512 (`$6$`); `htpasswd -2` and `-5`.
    ShaCrypt,
    /// `{PLAIN}`: it is not hashed.
    Plain,
}

/// The hash of a password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    scheme: Scheme,
    text: Box<str>,
}

/// Why a text is no hash that a password can be verified by. It says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// crypt's first format.
    #[error("has a hash of crypt's oldest format (DES), which anybody can break; make one with htpasswd -B")]
    Des,
    /// No format that is known.
    #[error(
        "has no hash of a known format (bcrypt, $apr1$, $1$, $5$, $6$, {{SHA}}, {{SSHA}}, {{PLAIN}}); make one with htpasswd -B"
    )]
    Unknown,
    /// A known format, but not as it says.
    #[error("has a hash that is cut short or broken; make one with htpasswd -B")]
    Broken,
    /// One verification would take seconds.
    #[error(
        "has a hash that takes seconds to verify: bcrypt's cost may be at most {MOST_COST}, and SHA may have at most {MOST_ROUNDS} rounds"
    )]
    Slow,
}

impl PasswordHash {
    /// How the password is hashed.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The hash itself, for whoever verifies a password or sends it to the gateway that does.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordHashError;

    fn from_str(text: &str) -> Result<Self, PasswordHashError> {
        Ok(Self { scheme: scheme(text)?, text: text.into() })
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// How `text` is hashed, which is as that has it.
fn scheme(text: &str) -> Result<Scheme, PasswordHashError> {
    let whole = |is: bool, scheme| if is { Ok(scheme) } else { Err(PasswordHashError::Broken) };
    if text.starts_with("{PLAIN}") {
        return Ok(Scheme::Plain);
    }
    if let Some(hash) = text.strip_prefix("{SHA}") {
        return whole(hash.len() == 28 && is_base64(hash), Scheme::Sha1);
    }
    if let Some(hash) = text.strip_prefix("{SSHA}") {
        return whole(hash.len() >= 28 && is_base64(hash), Scheme::SaltedSha1);
    }
    let Some(parts) = text.strip_prefix('$') else {
        let is_des = text.len() == 13 && text.bytes().all(is_of_crypt);
        return Err(if is_des { PasswordHashError::Des } else { PasswordHashError::Unknown });
    };
    let parts: Vec<&str> = parts.split('$').collect();
    match parts[..] {
        ["2a" | "2b" | "2y", cost, hash] => bcrypt(cost, hash).map(|()| Scheme::Bcrypt),
        ["apr1" | "1", salt, hash] => whole(is_crypt(salt, 0..=8) && is_crypt(hash, 22..=22), Scheme::Md5),
        ["5", ref rest @ ..] => sha_crypt(rest, 43).map(|()| Scheme::ShaCrypt),
        ["6", ref rest @ ..] => sha_crypt(rest, 86).map(|()| Scheme::ShaCrypt),
        ["2a" | "2b" | "2y" | "apr1" | "1", ..] => Err(PasswordHashError::Broken),
        _ => Err(PasswordHashError::Unknown),
    }
}

fn bcrypt(cost: &str, hash: &str) -> Result<(), PasswordHashError> {
    let cost = cost.parse::<u32>().ok().filter(|known| cost.len() == 2 && (4..=31).contains(known));
    match cost.filter(|_| is_crypt(hash, 53..=53)) {
        None => Err(PasswordHashError::Broken),
        Some(cost) if cost > MOST_COST => Err(PasswordHashError::Slow),
        Some(_) => Ok(()),
    }
}

fn sha_crypt(parts: &[&str], length: usize) -> Result<(), PasswordHashError> {
    let (rounds, salt, hash) = match parts {
        [salt, hash] => (None, *salt, *hash),
        [rounds, salt, hash] => (Some(*rounds), *salt, *hash),
        _ => return Err(PasswordHashError::Broken),
    };
    if !is_crypt(salt, 1..=16) || !is_crypt(hash, length..=length) {
        return Err(PasswordHashError::Broken);
    }
    let Some(rounds) = rounds else { return Ok(()) };
    let rounds = rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse::<u32>().ok());
    match rounds.filter(|rounds| *rounds >= 1_000) {
        None => Err(PasswordHashError::Broken),
        Some(rounds) if rounds > MOST_ROUNDS => Err(PasswordHashError::Slow),
        Some(_) => Ok(()),
    }
}

fn is_crypt(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(is_of_crypt)
}

fn is_of_crypt(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/')
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuDzWcZSMoCdAHM1NvUIxVZ9kmcwXBxr2";

    fn read(text: &str) -> Result<Scheme, PasswordHashError> {
        text.parse::<PasswordHash>().map(|hash| hash.scheme())
    }

    #[test]
    fn the_formats_of_htpasswd_are_known_and_others_are_told_apart() {
        let sha512 = "a".repeat(86);
        for (text, scheme) in [
            (BCRYPT, Ok(Scheme::Bcrypt)),
            ("$apr1$Uu1.eRtt$9jOfj0wWMvGdSAQYw0GFM0", Ok(Scheme::Md5)),
            ("$1$Uu1.eRtt$9jOfj0wWMvGdSAQYw0GFM0", Ok(Scheme::Md5)),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", Ok(Scheme::Sha1)),
            ("{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9hzYWx0", Ok(Scheme::SaltedSha1)),
            ("{PLAIN}secret", Ok(Scheme::Plain)),
            (&format!("$6$salt${sha512}"), Ok(Scheme::ShaCrypt)),
            (&format!("$6$rounds=5000$salt${sha512}"), Ok(Scheme::ShaCrypt)),
            (&format!("$5$salt${}", &sha512[..43]), Ok(Scheme::ShaCrypt)),
            ("rqXexS6ZhobKA", Err(PasswordHashError::Des)),
            ("secret", Err(PasswordHashError::Unknown)),
            ("", Err(PasswordHashError::Unknown)),
            ("$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA", Err(PasswordHashError::Unknown)),
            ("$2x$05$abcdefghijklmnopqrstuuDzWcZSMoCdAHM1NvUIxVZ9kmcwXBxr2", Err(PasswordHashError::Unknown)),
            (&BCRYPT[..50], Err(PasswordHashError::Broken)),
            (&BCRYPT.replace("$05$", "$5$"), Err(PasswordHashError::Broken)),
            (&BCRYPT.replace("$05$", "$15$"), Err(PasswordHashError::Slow)),
            (&format!("$6$rounds=5000000$salt${sha512}"), Err(PasswordHashError::Slow)),
            (&format!("$6$rounds=x$salt${sha512}"), Err(PasswordHashError::Broken)),
            ("$apr1$Uu1.eRtt$", Err(PasswordHashError::Broken)),
            ("{SHA}W6ph5Mm5", Err(PasswordHashError::Broken)),
        ] {
            assert_eq!(read(text), scheme, "{text}");
        }
    }

    #[test]
    fn neither_users_nor_hashes_are_shown() {
        let name = UserListName::new("shop", "users", UserListForm::File);
        let list = UserList::new(name, [("ann".into(), BCRYPT.parse().unwrap())]);

        let shown = format!("{list:?} {:?}", list.find(b"ann"));

        assert!(shown.contains("shop/users/auth-file"), "{shown}");
        assert!(!shown.contains("ann") && !shown.contains("2y"), "{shown}");
    }

    #[test]
    fn the_first_of_two_users_with_one_name_counts_and_who_is_not_there_has_a_stand_in() {
        let users = [("b", "{PLAIN}1"), ("a", "{PLAIN}2"), ("b", "{PLAIN}3")];
        let users = users.map(|(user, hash)| (user.into(), hash.parse().unwrap()));
        let list = UserList::new(UserListName::new("shop", "users", UserListForm::Map), users);
        let hash = |user: &str| list.find(user.as_bytes()).map(|hash| hash.reveal().to_owned());

        assert_eq!((hash("a"), hash("b")), (Some("{PLAIN}2".into()), Some("{PLAIN}1".into())));
        assert_eq!(hash("c"), None);
        assert!(list.stand_in(u64::MAX).is_some());
        assert!(UserList::new(list.name.clone(), []).stand_in(7).is_none());
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = UserListName::new("shop", "users", UserListForm::Map);
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        assert_eq!(name.secret(), "shop/users");
        for text in ["", "shop/users", "shop/users/other", "/users/auth-map", "a/b/c/auth-map"] {
            assert!(text.parse::<UserListName>().is_err(), "{text}");
        }
    }
}
