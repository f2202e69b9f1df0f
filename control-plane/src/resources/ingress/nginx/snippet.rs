//! Whether a snippet in nginx's own language may keep somebody out. It is not run; but what it protects must not be open.
//!
//! What counts is what directives it has, not which words stand in it: `internal` may be a header's value.

use std::{iter::Peekable, str::Chars};

/// Whether some directive of `text` may keep somebody out.
pub(super) fn keeps_out(text: &str) -> bool {
    let mut words: Vec<String> = Vec::new();
    // The directives whose blocks we are in.
    let mut blocks: Vec<String> = Vec::new();
    let mut tokens = Tokens(text.chars().peekable());
    loop {
        let token = tokens.next();
        let is_end = !matches!(token, Some(Token::Word(_)));
        if is_end && is_gate(&words, blocks.iter().any(|block| block == "location")) {
            return true;
        }
        match token {
            None => return false,
            Some(Token::Word(word)) => words.push(word),
            Some(Token::Semicolon) => words.clear(),
            Some(Token::Opens) => {
                blocks.push(words.first().cloned().unwrap_or_default());
                words.clear();
            }
            Some(Token::Closes) => {
                words.clear();
                blocks.pop();
            }
        }
    }
}

/// Whether the directive of these words may keep somebody out, which is for some paths alone (`location`) or for all.
fn is_gate(words: &[String], is_of_paths: bool) -> bool {
    let Some((name, arguments)) = words.split_first() else { return false };
    let is_off = matches!(arguments, [only] if only == "off");
    match name.as_str() {
        "deny" | "satisfy" | "limit_except" | "valid_referers" | "internal" | "perl" | "js_access"
        | "js_content" => true,
        // Nobody knows what is in there.
        "include" => true,
        "return" => match arguments {
            [status, ..] if status.starts_with('2') && status.len() == 3 => false,
            // The same with another scheme or host. For some paths alone, it takes these away from the host.
            [_, url] => is_of_paths || !url.ends_with("$request_uri"),
            _ => true,
        },
        // A language of its own, which can do anything.
        name if name.contains("_by_lua") => true,
        name => {
            let gates = ["auth_", "modsecurity", "secure_link", "ssl_verify_client"];
            !is_off && gates.iter().any(|gate| name.starts_with(gate))
        }
    }
}

enum Token {
    Word(String),
    Semicolon,
    Opens,
    Closes,
}

/// The words and marks of nginx's language.
struct Tokens<'t>(Peekable<Chars<'t>>);

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            match self.0.next()? {
                space if space.is_whitespace() => {}
                '#' => while self.0.next().is_some_and(|letter| letter != '\n') {},
                ';' => return Some(Token::Semicolon),
                '{' => return Some(Token::Opens),
                '}' => return Some(Token::Closes),
                quote @ ('"' | '\'') => return Some(Token::Word(self.quoted(quote))),
                first => return Some(Token::Word(self.bare(first))),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> String {
        let mut word = String::new();
        while let Some(letter) = self.0.next() {
            match letter {
                '\\' => word.extend(self.0.next()),
                letter if letter == quote => break,
                letter => word.push(letter),
            }
        }
        word
    }

    fn bare(&mut self, first: char) -> String {
        let mut word = String::from(first);
        loop {
            match self.0.peek() {
                // The braces of `${name}` are its own.
                Some('{') if word.ends_with('$') => {
                    for letter in self.0.by_ref() {
                        word.push(letter);
                        if letter == '}' {
                            break;
                        }
                    }
                }
                None | Some(';' | '{' | '}') => return word,
                Some(letter) if letter.is_whitespace() => return word,
                Some('\\') => {
                    self.0.next();
                    word.extend(self.0.next());
                }
                Some(_) => word.extend(self.0.next()),
            }
        }
    }
}
