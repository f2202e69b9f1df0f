//! Whether a snippet in nginx's own language may keep somebody out. It is not run; but what it protects must not be open.
//!
//! What counts is what directives it has, not which words stand in it: `internal` may be a header's value.

use std::{iter::Peekable, mem, str::Chars};

/// The variables that say nothing of who asks.
const HARMLESS: &[&str] =
    &["scheme", "host", "http_host", "server_port", "https", "http_x_forwarded_proto", "request_method"];

/// Whether some directive of `text` may keep somebody out.
pub(super) fn keeps_out(text: &str) -> bool {
    let mut words: Vec<String> = Vec::new();
    // The directives whose blocks we are in, with their words.
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let mut tokens = Tokens(text.chars().peekable());
    loop {
        let token = tokens.next();
        let is_end = !matches!(token, Some(Token::Word(_)));
        if is_end && is_gate(&words, &Place::of(&blocks)) {
            return true;
        }
        match token {
            None => return false,
            Some(Token::Word(word)) => words.push(word),
            Some(Token::Semicolon) => words.clear(),
            Some(Token::Opens) => blocks.push(mem::take(&mut words)),
            Some(Token::Closes) => {
                words.clear();
                blocks.pop();
            }
        }
    }
}

/// Whose requests get to a directive, by the blocks that it is in.
#[derive(Default)]
struct Place {
    /// Those for some paths (`location`).
    is_of_paths: bool,
    /// Those for which an `if` holds that may tell one client from another.
    is_of_client: bool,
    /// Those for which an `if` holds that asks for what is [harmless](HARMLESS).
    is_of_harmless: bool,
}

impl Place {
    fn of(blocks: &[Vec<String>]) -> Self {
        let mut place = Self::default();
        for block in blocks {
            let Some((name, condition)) = block.split_first() else { continue };
            match name.as_str() {
                "location" => place.is_of_paths = true,
                "if" => {
                    for variable in condition.iter().flat_map(|word| variables(word)) {
                        if HARMLESS.contains(&variable) {
                            place.is_of_harmless = true;
                        } else {
                            place.is_of_client = true;
                        }
                    }
                }
                _ => {}
            }
        }
        place
    }
}

/// The names of the variables in `word`: `$name` and `${name}`.
fn variables(word: &str) -> impl Iterator<Item = &str> {
    word.split('$').skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let name = rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()?;
        (!name.is_empty()).then_some(name)
    })
}

/// Whether the directive of these words may keep somebody out at this place.
fn is_gate(words: &[String], place: &Place) -> bool {
    let Some((name, arguments)) = words.split_first() else { return false };
    let is_off = matches!(arguments, [only] if only == "off");
    match name.as_str() {
        "deny" | "satisfy" | "limit_except" | "valid_referers" | "internal" | "perl" | "js_access"
        | "js_content" => true,
        // Nobody knows what is in there.
        "include" => true,
        "return" => is_gate_of_return(arguments, place),
        // A language of its own, which can do anything.
        name if name.contains("_by_lua") => true,
        name => {
            let gates = ["auth_", "modsecurity", "secure_link", "ssl_verify_client"];
            !is_off && gates.iter().any(|gate| name.starts_with(gate))
        }
    }
}

/// Whether `return` with these arguments may keep somebody out. When in doubt, it does.
fn is_gate_of_return(arguments: &[String], place: &Place) -> bool {
    match arguments {
        // For `/robots.txt` or `OPTIONS` it is an answer like any other. For all, or some clients, it stands before the app.
        [status, ..] if status.starts_with('2') && status.len() == 3 => {
            place.is_of_client || !(place.is_of_paths || place.is_of_harmless)
        }
        // The same with another scheme or host. For some paths alone, it takes these away from the host; for some
        // clients alone, it takes the app away from them.
        [status, url] if matches!(status.as_str(), "301" | "302" | "303" | "307" | "308") => {
            place.is_of_paths || place.is_of_client || !is_same_elsewhere(url)
        }
        _ => true,
    }
}

/// Whether `url` is the request's with another scheme or host, not a page that is told what was asked for.
fn is_same_elsewhere(url: &str) -> bool {
    let origin = url.strip_suffix("$request_uri").and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(scheme, host)| {
        [scheme, host].iter().all(|part| !part.is_empty() && !part.contains(['/', '?', '#', '\\']))
    })
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
