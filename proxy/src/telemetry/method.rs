//! The methods of requests that metrics tell apart: those that HTTP has. Anybody can make up others.

/// A method as metrics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Method(u8);

/// What each is called; the last stands for all others.
const WORDS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "_OTHER"];

impl Method {
    /// What `method` counts as.
    pub(super) fn of(method: &http::Method) -> Self {
        Self(match *method {
            http::Method::CONNECT => 0,
            http::Method::DELETE => 1,
            http::Method::GET => 2,
            http::Method::HEAD => 3,
            http::Method::OPTIONS => 4,
            http::Method::PATCH => 5,
            http::Method::POST => 6,
            http::Method::PUT => 7,
            http::Method::TRACE => 8,
            _ => 9,
        })
    }

    /// What it is called.
    pub(super) fn word(self) -> &'static str {
        WORDS.get(usize::from(self.0)).copied().unwrap_or("_OTHER")
    }

    /// Its number, below 15.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    /// The one with this number.
    pub(super) fn numbered(number: u8) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_its_word_and_made_up_ones_share_one() {
        for word in WORDS {
            let method = http::Method::from_bytes(word.as_bytes()).expect("a method");
            assert_eq!(Method::of(&method).word(), word);
            assert!(Method::of(&method).number() < 15, "it fits into its bits");
        }
        let made_up = http::Method::from_bytes(b"BREW").expect("a method");
        assert_eq!(Method::of(&made_up).word(), "_OTHER");
    }
}
