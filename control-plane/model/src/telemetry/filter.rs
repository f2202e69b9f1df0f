//! Which requests are lines of the access log: a part of CEL, the language of `accessLogging.filter.expression`.
//!
//! An expression is read when configuration changes. Each request then only walks a small tree. What is not of this part of
//! the language is an error that says so; nothing is guessed. A comparison with what a request does not have is false.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    time::Duration,
};

use serde::{Serialize, Serializer};

use crate::normalize::path::{Part, comparable, in_capitals};

/// The longest expression, in bytes.
pub const LONGEST: usize = 2_048;
/// How deep parentheses and negations may be.
const DEEPEST: usize = 32;
/// The most comparisons in one expression.
const MOST: usize = 64;

/// An expression, ready to be asked.
#[derive(Debug, Clone)]
pub struct LogFilter {
    text: String,
    expression: Expression,
}

/// What an expression can ask of a request that is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logged<'a> {
    /// The answer's status; 0: there was no answer.
    pub status: u16,
    /// How the gRPC call ended.
    pub grpc_status: Option<u8>,
    /// How long it took.
    pub duration: Duration,
    /// Whether it came, or went, over mutual TLS.
    pub mtls: bool,
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// `Host`, or `:authority`.
    pub host: &'a str,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// Why a proxy made the answer itself, or broke it off: a word of `proxy/errors.md`.
    pub reason: Option<&'a str>,
    /// Who the client has proven to be.
    pub principal: Option<&'a str>,
    /// The name of the route that it followed.
    pub route: Option<&'a str>,
    /// Bytes of its body, as far as they are known.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Attempts after the first.
    pub retries: u32,
}

/// Why a text is no expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Always(bool),
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    Mtls,
    Has(Field),
    Number(Number, Compared, i64),
    NumberIn(Number, Vec<i64>),
    Took(Compared, Duration),
    Text(Text, TextTest, String),
    TextIn(Text, Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Number(Number),
    Text(Text),
    Duration,
    Mtls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Status,
    GrpcStatus,
    Received,
    Sent,
    Retries,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Method,
    Path,
    Host,
    UserAgent,
    Protocol,
    Reason,
    Principal,
    Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextTest {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

/// The names that an expression can have, as CEL's users know them from Envoy's attributes.
const FIELDS: [(&str, Field); 19] = [
    ("response.code", Field::Number(Number::Status)),
    ("response.grpc_status", Field::Number(Number::GrpcStatus)),
    ("response.size", Field::Number(Number::Sent)),
    ("response.total_size", Field::Number(Number::Sent)),
    ("request.size", Field::Number(Number::Received)),
    ("request.total_size", Field::Number(Number::Received)),
    ("request.duration", Field::Duration),
    ("request.method", Field::Text(Text::Method)),
    ("request.path", Field::Text(Text::Path)),
    ("request.url_path", Field::Text(Text::Path)),
    ("request.host", Field::Text(Text::Host)),
    ("request.useragent", Field::Text(Text::UserAgent)),
    ("request.protocol", Field::Text(Text::Protocol)),
    ("connection.mtls", Field::Mtls),
    ("connection.uri_san_peer_certificate", Field::Text(Text::Principal)),
    ("source.principal", Field::Text(Text::Principal)),
    ("xds.route_name", Field::Text(Text::Route)),
    ("selvedge.reason", Field::Text(Text::Reason)),
    ("selvedge.retries", Field::Number(Number::Retries)),
];

impl LogFilter {
    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a request is a line.
    pub fn admits(&self, logged: &Logged<'_>) -> bool {
        self.expression.holds(logged)
    }
}

impl PartialEq for LogFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for LogFilter {}

impl Hash for LogFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for LogFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl FromStr for LogFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > LONGEST {
            return Err(FilterError(format!("has {} bytes, and may have {LONGEST}", text.len())));
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, tests: 0 };
        let expression = parser.any(0)?;
        match parser.peek() {
            None => Ok(Self { text: text.to_owned(), expression }),
            Some(token) => {
                Err(FilterError(format!("{token} is not understood there; join tests by && or ||")))
            }
        }
    }
}

impl Expression {
    fn holds(&self, logged: &Logged<'_>) -> bool {
        match self {
            Self::Always(holds) => *holds,
            Self::Any(list) => list.iter().any(|one| one.holds(logged)),
            Self::All(list) => list.iter().all(|one| one.holds(logged)),
            Self::Not(inner) => !inner.holds(logged),
            Self::Mtls => logged.mtls,
            Self::Has(field) => field.is_in(logged),
            Self::Number(number, compared, with) => {
                number.of(logged).is_some_and(|value| compared.holds(&value, with))
            }
            Self::NumberIn(number, list) => number.of(logged).is_some_and(|value| list.contains(&value)),
            Self::Took(compared, with) => compared.holds(&logged.duration, with),
            Self::Text(text, test, with) => text.of(logged).is_some_and(|value| test.holds(&value, with)),
            Self::TextIn(text, list) => {
                text.of(logged).is_some_and(|value| list.iter().any(|one| **one == *value))
            }
        }
    }
}

impl Field {
    fn is_in(self, logged: &Logged<'_>) -> bool {
        match self {
            Self::Number(Number::Status) => logged.status != 0,
            Self::Number(number) => number.of(logged).is_some(),
            Self::Text(text) => text.of(logged).is_some(),
            Self::Duration | Self::Mtls => true,
        }
    }
}

impl Number {
    fn of(self, logged: &Logged<'_>) -> Option<i64> {
        match self {
            Self::Status => Some(logged.status.into()),
            Self::GrpcStatus => logged.grpc_status.map(Into::into),
            Self::Received => Some(i64::try_from(logged.received).unwrap_or(i64::MAX)),
            Self::Sent => Some(i64::try_from(logged.sent).unwrap_or(i64::MAX)),
            Self::Retries => Some(logged.retries.into()),
        }
    }
}

impl Text {
    /// What `written` is compared as. Paths are in normal form; what no path can be like stays as it is, and is never found.
    fn compared(self, test: TextTest, written: String) -> String {
        let part = match test {
            TextTest::Equal | TextTest::NotEqual => Part::Whole,
            TextTest::Contains => Part::Within,
            TextTest::StartsWith => Part::Beginning,
            TextTest::EndsWith => Part::End,
        };
        match self {
            Self::Path => comparable(&written, part).unwrap_or(written),
            _ => written,
        }
    }

    fn of<'a>(self, logged: &Logged<'a>) -> Option<Cow<'a, str>> {
        let text = match self {
            Self::Path => return Some(in_capitals(logged.path)),
            Self::Method => Some(logged.method),
            Self::Host => Some(logged.host),
            Self::UserAgent => logged.user_agent,
            Self::Protocol => Some(logged.protocol),
            Self::Reason => logged.reason,
            Self::Principal => logged.principal,
            Self::Route => logged.route,
        };
        text.map(Cow::Borrowed)
    }
}

impl Compared {
    fn holds<T: PartialOrd>(self, value: &T, with: &T) -> bool {
        match self {
            Self::Equal => value == with,
            Self::NotEqual => value != with,
            Self::Less => value < with,
            Self::AtMost => value <= with,
            Self::More => value > with,
            Self::AtLeast => value >= with,
        }
    }

    /// The same with its sides exchanged.
    fn turned(self) -> Self {
        match self {
            Self::Less => Self::More,
            Self::AtMost => Self::AtLeast,
            Self::More => Self::Less,
            Self::AtLeast => Self::AtMost,
            same => same,
        }
    }
}

impl TextTest {
    fn holds(self, value: &str, with: &str) -> bool {
        match self {
            Self::Equal => value == with,
            Self::NotEqual => value != with,
            Self::Contains => value.contains(with),
            Self::StartsWith => value.starts_with(with),
            Self::EndsWith => value.ends_with(with),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(i64),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => number.fmt(f),
            Self::Sign(sign) => f.write_str(sign),
        }
    }
}

/// The longer signs first.
const SIGNS: [&str; 16] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", ".", "-"];

fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = |is_inner: fn(char) -> bool| rest.find(|c| !is_inner(c)).unwrap_or(rest.len());
        let length = if first.is_ascii_alphabetic() || first == '_' {
            let length = end(|c| c.is_ascii_alphanumeric() || c == '_');
            tokens.push(Token::Name(rest[..length].to_owned()));
            length
        } else if first.is_ascii_digit() {
            let length = end(|c| c.is_ascii_digit());
            let number = rest[..length].parse();
            tokens.push(Token::Number(
                number.map_err(|_| FilterError(format!("{} is too large a number", &rest[..length])))?,
            ));
            length
        } else if first == '"' || first == '\'' {
            let closing = rest[1..].find(first);
            let closing = closing
                .ok_or_else(|| FilterError(format!("a text that begins with {first} does not end")))?;
            let inner = &rest[1..=closing];
            if inner.contains('\\') {
                return Err(FilterError(format!("{inner:?} has a \\, which is not understood in texts")));
            }
            tokens.push(Token::Text(inner.to_owned()));
            closing + 2
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| FilterError(format!("{first:?} is not understood")))?;
            tokens.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    tests: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Result<Token, FilterError> {
        let token = self.peek().cloned();
        self.next += 1;
        token.ok_or_else(|| FilterError("ends too early; write for example response.code >= 400".to_owned()))
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &str) -> Result<(), FilterError> {
        match self.take()? {
            Token::Sign(next) if next == sign => Ok(()),
            other => Err(FilterError(format!("{other} stands where {sign} was expected"))),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut list = vec![self.all(depth)?];
        while self.takes("||") {
            list.push(self.all(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expression::Any(list) })
    }

    fn all(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut list = vec![self.one(depth)?];
        while self.takes("&&") {
            list.push(self.one(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expression::All(list) })
    }

    fn one(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if depth > DEEPEST {
            return Err(FilterError(format!("is nested deeper than {DEEPEST} levels")));
        }
        if self.takes("!") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.any(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.tests += 1;
        if self.tests > MOST {
            return Err(FilterError(format!("has more than {MOST} tests")));
        }
        self.test()
    }

    fn test(&mut self) -> Result<Expression, FilterError> {
        if self.peek().is_none() {
            self.take()?;
        }
        // A value first, such as 400 <= response.code.
        if !matches!(self.peek(), Some(Token::Name(name)) if name != "duration") {
            return self.value_first();
        }
        let name = self.name()?;
        match name.as_str() {
            "true" | "false" => return Ok(Expression::Always(name == "true")),
            "has" => {
                self.expect("(")?;
                let field = self.name()?;
                let field = field_of(&field)?;
                self.expect(")")?;
                return Ok(Expression::Has(field));
            }
            _ => {}
        }
        let (name, method) = match name.rsplit_once('.') {
            Some((field, method)) if self.peek() == Some(&Token::Sign("(")) => {
                (field.to_owned(), Some(method.to_owned()))
            }
            _ => (name, None),
        };
        let field = field_of(&name)?;
        match (field, method) {
            (Field::Text(text), Some(method)) => {
                let test = match method.as_str() {
                    "contains" => TextTest::Contains,
                    "startsWith" => TextTest::StartsWith,
                    "endsWith" => TextTest::EndsWith,
                    _ => {
                        let message = format!(
                            "{name}.{method}() is not understood; use contains, startsWith or endsWith"
                        );
                        return Err(FilterError(message));
                    }
                };
                self.expect("(")?;
                let with = self.text(&name)?;
                self.expect(")")?;
                Ok(Expression::Text(text, test, text.compared(test, with)))
            }
            (_, Some(method)) => Err(FilterError(format!("{name} is no text, and has no {method}()"))),
            (field, None) if self.peek() == Some(&Token::Name("in".to_owned())) => {
                self.next += 1;
                self.one_of(field, &name)
            }
            (Field::Mtls, None) => self.mtls(),
            (field, None) => {
                let compared = self.compared(&name)?;
                self.compare(field, &name, compared)
            }
        }
    }

    fn value_first(&mut self) -> Result<Expression, FilterError> {
        let start = self.next;
        let value_ends = self.value_end(start);
        self.next = value_ends;
        let compared = self.compared("a value")?;
        let name = self.name()?;
        let (field, after) = (field_of(&name)?, self.next);
        self.next = start;
        let expression = match field {
            Field::Mtls => return Err(FilterError(format!("write {name}, or !{name}"))),
            field => self.compare(field, &name, compared.turned())?,
        };
        self.next = after;
        Ok(expression)
    }

    /// Behind the value that begins at `start`.
    fn value_end(&self, start: usize) -> usize {
        match self.tokens.get(start) {
            Some(Token::Name(_)) => start + 4,
            Some(Token::Sign("-")) => start + 2,
            _ => start + 1,
        }
    }

    fn name(&mut self) -> Result<String, FilterError> {
        let mut name = match self.take()? {
            Token::Name(name) => name,
            other => return Err(FilterError(format!("{other} is no attribute; {}", known()))),
        };
        while self.takes(".") {
            match self.take()? {
                Token::Name(part) => {
                    name.push('.');
                    name.push_str(&part);
                }
                other => return Err(FilterError(format!("{other} stands where a name was expected"))),
            }
        }
        Ok(name)
    }

    /// `connection.mtls` alone, or compared with true or false.
    fn mtls(&mut self) -> Result<Expression, FilterError> {
        let is_equal = match self.peek() {
            Some(Token::Sign("==")) => true,
            Some(Token::Sign("!=")) => false,
            _ => return Ok(Expression::Mtls),
        };
        self.next += 1;
        match self.take()? {
            Token::Name(word) if word == "true" || word == "false" => {
                let is_meant = (word == "true") == is_equal;
                Ok(if is_meant { Expression::Mtls } else { Expression::Not(Box::new(Expression::Mtls)) })
            }
            other => Err(FilterError(format!("connection.mtls is true or false, and not {other}"))),
        }
    }

    fn compared(&mut self, name: &str) -> Result<Compared, FilterError> {
        match self.take() {
            Ok(Token::Sign("==")) => Ok(Compared::Equal),
            Ok(Token::Sign("!=")) => Ok(Compared::NotEqual),
            Ok(Token::Sign("<")) => Ok(Compared::Less),
            Ok(Token::Sign("<=")) => Ok(Compared::AtMost),
            Ok(Token::Sign(">")) => Ok(Compared::More),
            Ok(Token::Sign(">=")) => Ok(Compared::AtLeast),
            _ => Err(FilterError(format!(
                "{name} is compared with nothing; write ==, !=, <, <=, > or >= behind it"
            ))),
        }
    }

    fn compare(&mut self, field: Field, name: &str, compared: Compared) -> Result<Expression, FilterError> {
        match field {
            Field::Number(number) => Ok(Expression::Number(number, compared, self.number(name)?)),
            Field::Duration => Ok(Expression::Took(compared, self.duration(name)?)),
            Field::Text(text) => {
                let test = match compared {
                    Compared::Equal => TextTest::Equal,
                    Compared::NotEqual => TextTest::NotEqual,
                    _ => return Err(FilterError(format!("{name} is a text; compare it by == or !="))),
                };
                let with = self.text(name)?;
                Ok(Expression::Text(text, test, text.compared(test, with)))
            }
            Field::Mtls => Err(FilterError(format!("write {name}, or !{name}"))),
        }
    }

    fn one_of(&mut self, field: Field, name: &str) -> Result<Expression, FilterError> {
        self.expect("[")?;
        let expression = match field {
            Field::Number(number) => Expression::NumberIn(number, self.list(|it| it.number(name))?),
            Field::Text(text) => {
                let list = self.list(|it| Ok(text.compared(TextTest::Equal, it.text(name)?)))?;
                Expression::TextIn(text, list)
            }
            Field::Duration | Field::Mtls => return Err(FilterError(format!("{name} is in no list"))),
        };
        Ok(expression)
    }

    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, FilterError>,
    ) -> Result<Vec<T>, FilterError> {
        let mut list = vec![item(self)?];
        while self.takes(",") {
            list.push(item(self)?);
        }
        self.expect("]")?;
        Ok(list)
    }

    fn number(&mut self, name: &str) -> Result<i64, FilterError> {
        let is_negative = self.takes("-");
        match self.take()? {
            Token::Number(number) => Ok(if is_negative { -number } else { number }),
            other => Err(FilterError(format!("{name} is a whole number, and {other} is none"))),
        }
    }

    fn text(&mut self, name: &str) -> Result<String, FilterError> {
        match self.take()? {
            Token::Text(text) => Ok(text),
            other => Err(FilterError(format!("{name} is a text, and {other} is none; put it in quotes"))),
        }
    }

    fn duration(&mut self, name: &str) -> Result<Duration, FilterError> {
        let wrong = || FilterError(format!("{name} is a time; write for example duration(\"500ms\")"));
        match self.take()? {
            Token::Name(word) if word == "duration" => {}
            _ => return Err(wrong()),
        }
        self.expect("(")?;
        let text = self.text("duration")?;
        self.expect(")")?;
        duration(&text).ok_or_else(wrong)
    }
}

fn field_of(name: &str) -> Result<Field, FilterError> {
    let found = FIELDS.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, field)| *field)
        .ok_or_else(|| FilterError(format!("{name} is not understood; {}", known())))
}

fn known() -> String {
    let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    format!("the attributes are {}", names.join(", "))
}

/// A time as CEL writes it: numbers with units, such as `1h30m`, `1.5s` or `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Logged<'static> {
        Logged {
            status: 503,
            duration: Duration::from_millis(700),
            mtls: true,
            method: "GET",
            path: "/v1beta3/items",
            host: "reviews:9080",
            user_agent: Some("curl/8.0"),
            protocol: "HTTP/2",
            reason: Some("no-endpoint"),
            ..Logged::default()
        }
    }

    fn holds(text: &str) -> bool {
        let filter: LogFilter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        filter.admits(&request())
    }

    #[test]
    fn expressions_ask_what_was_written() {
        for text in [
            "response.code >= 400",
            "400 <= response.code",
            "response.code == 503 && connection.mtls",
            "connection.mtls == true",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "!has(request.useragent) || !(request.useragent.startsWith(\"Amazon-Route53\"))",
            "request.duration > duration(\"500ms\")",
            "duration('0.5s') < request.duration",
            "request.duration >= duration('1m') || request.method != 'POST'",
            "response.code in [502, 503, 504]",
            "request.host in ['reviews:9080']",
            "has(selvedge.reason) && selvedge.reason == 'no-endpoint'",
            "true",
            "!(false)",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "response.code < 400",
            "400 > response.code",
            "!connection.mtls",
            "connection.mtls != true",
            "has(response.grpc_status)",
            "response.grpc_status != 0",
            "request.duration > duration('1h1m1s')",
            "request.host.endsWith(':80')",
            "response.code in [1, -2]",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn paths_are_compared_as_requests_have_them() {
        let logged = Logged { path: "/caf%C3%A9/~x.js", ..request() };
        for text in [
            "request.path == '/café/%7Ex.js'",
            "request.path != '/'",
            "request.url_path.startsWith('/caf%C3%A9/%7E')",
            "request.path.endsWith('%2Ejs')",
            "request.path.contains('é/%7E')",
            "request.path in ['/', '/café/~x%2Ejs']",
        ] {
            assert!(text.parse::<LogFilter>().unwrap().admits(&logged), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_says_what_is() {
        for (text, words) in [
            ("", "ends too early"),
            ("response.code", "compared with nothing"),
            ("response.code >= '400'", "whole number"),
            ("response.codes >= 400", "response.code, "),
            ("request.headers['x'] == 'y'", "request.headers is not understood"),
            ("request.path.matches('a.*')", "contains, startsWith or endsWith"),
            ("request.path > 'a'", "== or !="),
            ("request.duration > 500", "duration(\"500ms\")"),
            ("request.duration > duration('soon')", "duration(\"500ms\")"),
            ("response.code >= 400 response.code", "&& or ||"),
            ("(response.code >= 400", "ends too early"),
            ("request.path == 'a", "does not end"),
            ("request.path == 'a\\n'", "not understood in texts"),
            ("response.code >= 99999999999999999999", "too large"),
            ("response.code ? 1 : 2", "not understood"),
            ("1", "compared with nothing"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let deep = format!("{}true{}", "(".repeat(100), ")".repeat(100));
        assert!(deep.parse::<LogFilter>().unwrap_err().to_string().contains("nested"));
        let many = vec!["true"; 100].join(" || ");
        assert!(many.parse::<LogFilter>().unwrap_err().to_string().contains("64 tests"));
    }
}
