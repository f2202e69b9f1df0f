//! Calico's language of selectors, such as `app == 'web' && has(tier) && !(env in {'test', 'dev'})`.

use std::{collections::BTreeSet, fmt};

/// The longest expression, in bytes.
const LONGEST: usize = 4096;
/// How deep parentheses and `!` may be.
const DEEPEST: usize = 64;

/// What a selector asks of labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expression {
    /// `all()`, and an empty text.
    All,
    /// `global()`: what is in no namespace.
    Global,
    /// `has(LABEL)`
    Has(String),
    /// `LABEL OPERATOR 'VALUE'`
    Compares(String, Operator, String),
    /// `LABEL in {'VALUE', …}`
    In(String, BTreeSet<String>),
    /// `!EXPRESSION`
    Not(Box<Self>),
    /// `EXPRESSION && …`
    And(Vec<Self>),
    /// `EXPRESSION || …`
    Or(Vec<Self>),
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `==`
    Equals,
    /// `contains`
    Contains,
    /// `starts with`
    StartsWith,
    /// `ends with`
    EndsWith,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at {}", match .rest.is_empty() { true => "its end".to_owned(), false => format!("{rest:?}") })]
pub struct Malformed {
    what: &'static str,
    /// The text from there on.
    rest: String,
}

impl Expression {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut reader = Reader { rest: text.trim() };
        if text.len() > LONGEST {
            return Err(reader.malformed("it is longer than 4096 bytes,"));
        }
        if reader.rest.is_empty() {
            return Ok(Self::All);
        }
        let expression = reader.or(0)?;
        match reader.rest.is_empty() {
            true => Ok(expression),
            false => Err(reader.malformed("expected && or ||")),
        }
    }

    /// Whether it selects what has the labels that `value` says; `is_global`: and is in no namespace.
    pub fn selects<'v>(&self, value: &dyn Fn(&str) -> Option<&'v str>, is_global: bool) -> bool {
        match self {
            Self::All => true,
            Self::Global => is_global,
            Self::Has(label) => value(label).is_some(),
            Self::Compares(label, operator, wanted) => {
                value(label).is_some_and(|value| operator.holds(value, wanted))
            }
            Self::In(label, values) => value(label).is_some_and(|value| values.contains(value)),
            Self::Not(inner) => !inner.selects(value, is_global),
            Self::And(all) => all.iter().all(|one| one.selects(value, is_global)),
            Self::Or(any) => any.iter().any(|one| one.selects(value, is_global)),
        }
    }
}

impl Operator {
    fn holds(self, value: &str, wanted: &str) -> bool {
        match self {
            Self::Equals => value == wanted,
            Self::Contains => value.contains(wanted),
            Self::StartsWith => value.starts_with(wanted),
            Self::EndsWith => value.ends_with(wanted),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Equals => "==",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }
}

impl fmt::Display for Expression {
    /// In parentheses where more than one thing is asked, so that it reads as the same again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, list: &[Self], word: &str| {
            for (number, one) in list.iter().enumerate() {
                let before = if number == 0 { "(" } else { word };
                write!(f, "{before}{one}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Compares(label, operator, value) => {
                write!(f, "{label} {} {}", operator.text(), Quoted(value))
            }
            Self::In(label, values) => {
                write!(f, "{label} in {{")?;
                for (number, value) in values.iter().enumerate() {
                    let separator = if number == 0 { "" } else { ", " };
                    write!(f, "{separator}{}", Quoted(value))?;
                }
                f.write_str("}")
            }
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(all) => joined(f, all, " && "),
            Self::Or(any) => joined(f, any, " || "),
        }
    }
}

/// A value in quotation marks that are not in it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{mark}{}{mark}", self.0)
    }
}

/// What is left of a text.
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, rest: self.rest.chars().take(20).collect() }
    }

    /// Whether `word` comes next; then it is passed.
    fn takes(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// The same of a word that must not go on.
    fn takes_word(&mut self, word: &str) -> bool {
        let goes_on = |rest: &str| rest.starts_with(is_of_label);
        match self.rest.strip_prefix(word) {
            Some(rest) if !goes_on(rest) => self.takes(word),
            _ => false,
        }
    }

    fn or(&mut self, depth: usize) -> Result<Expression, Malformed> {
        let mut any = vec![self.and(depth)?];
        while self.takes("||") {
            any.push(self.and(depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expression::Or(any) })
    }

    fn and(&mut self, depth: usize) -> Result<Expression, Malformed> {
        let mut all = vec![self.one(depth)?];
        while self.takes("&&") {
            all.push(self.one(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn one(&mut self, depth: usize) -> Result<Expression, Malformed> {
        if depth > DEEPEST {
            return Err(self.malformed("more than 64 parentheses"));
        }
        if self.takes("!") {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.or(depth + 1)?;
            return if self.takes(")") { Ok(inner) } else { Err(self.malformed("expected )")) };
        }
        self.about_labels()
    }

    fn about_labels(&mut self) -> Result<Expression, Malformed> {
        let label = self.label()?;
        match label {
            "all" | "global" if self.takes("(") => {
                if !self.takes(")") {
                    return Err(self.malformed("expected )"));
                }
                Ok(if label == "all" { Expression::All } else { Expression::Global })
            }
            "has" if self.takes("(") => {
                let label = self.label()?.to_owned();
                if self.takes(")") { Ok(Expression::Has(label)) } else { Err(self.malformed("expected )")) }
            }
            label => self.comparison(label.to_owned()),
        }
    }

    fn comparison(&mut self, label: String) -> Result<Expression, Malformed> {
        let not = |expression| Expression::Not(Box::new(expression));
        if self.takes("==") {
            return Ok(Expression::Compares(label, Operator::Equals, self.value()?));
        }
        if self.takes("!=") {
            return Ok(not(Expression::Compares(label, Operator::Equals, self.value()?)));
        }
        if self.takes_word("contains") {
            return Ok(Expression::Compares(label, Operator::Contains, self.value()?));
        }
        if self.takes_word("in") {
            return Ok(Expression::In(label, self.values()?));
        }
        if self.takes_word("not") && self.takes_word("in") {
            return Ok(not(Expression::In(label, self.values()?)));
        }
        for (word, operator) in [("starts", Operator::StartsWith), ("ends", Operator::EndsWith)] {
            if self.takes_word(word) {
                return match self.takes_word("with") {
                    true => Ok(Expression::Compares(label, operator, self.value()?)),
                    false => Err(self.malformed("expected with")),
                };
            }
        }
        Err(self.malformed("expected ==, !=, in, not in, contains, starts with or ends with"))
    }

    fn label(&mut self) -> Result<&'t str, Malformed> {
        let end = self.rest.find(|char| !is_of_label(char)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.malformed("expected a label"));
        }
        let (label, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        Ok(label)
    }

    fn value(&mut self) -> Result<String, Malformed> {
        let mark = self.rest.chars().next().filter(|mark| matches!(mark, '\'' | '"'));
        let Some(mark) = mark else { return Err(self.malformed("expected a value in quotation marks")) };
        let Some((value, rest)) = self.rest[1..].split_once(mark) else {
            return Err(self.malformed("a quotation mark is not closed"));
        };
        self.rest = rest.trim_start();
        Ok(value.to_owned())
    }

    fn values(&mut self) -> Result<BTreeSet<String>, Malformed> {
        let mut values = BTreeSet::new();
        if !self.takes("{") {
            return Err(self.malformed("expected {"));
        }
        while !self.takes("}") {
            if !values.is_empty() && !self.takes(",") {
                return Err(self.malformed("expected , or }"));
            }
            values.insert(self.value()?);
        }
        Ok(values)
    }
}

fn is_of_label(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn selects(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.selects(&|label| labels.get(label).copied(), false)
    }

    #[test]
    fn each_operator_does_what_calico_documents() {
        let web = [("app", "web"), ("k8s.io/tier", "front-end")];
        for text in [
            "",
            " all() ",
            "app == 'web'",
            "app==\"web\"",
            "app != 'db'",
            "none != 'db'",
            "has(app)",
            "!has(none)",
            "app in {'db', 'web'}",
            "app in{'web'}",
            "app not in {'db'}",
            "none not in {'db'}",
            "app contains 'e'",
            "k8s.io/tier starts with 'front'",
            "k8s.io/tier ends with '-end'",
            "app == 'db' || app == 'web' && has(app)",
            "(app == 'db' || app == 'web') && !(app == 'db')",
            "!!has(app)",
            "!global()",
        ] {
            assert!(selects(text, &web), "{text}");
        }
        for text in [
            "app == 'db'",
            "app != 'web'",
            "none == ''",
            "has(none)",
            "app in {}",
            "app not in {'web'}",
            "none contains ''",
            "app == 'web' && app == 'db' || has(none)",
            "global()",
        ] {
            assert!(!selects(text, &web), "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        for (text, words) in [
            ("app = 'web'", "expected ==, !="),
            ("app == web", "in quotation marks at \"web\""),
            ("app == 'web", "not closed"),
            ("has(app", "expected ) at its end"),
            ("app == 'a' app == 'b'", "expected && or || at \"app == 'b'\""),
            ("app == 'a' &&", "expected a label at its end"),
            ("(app == 'a'", "expected )"),
            ("app in 'a'", "expected {"),
            ("app in {'a' 'b'}", "expected , or }"),
            ("app starts 'a'", "expected with"),
            ("app not 'a'", "expected =="),
            ("all(", "expected )"),
        ] {
            let error = Expression::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Expression::parse(&"(".repeat(4000)).is_err());
        assert!(Expression::parse(&"!".repeat(4000)).is_err());
        assert!(Expression::parse(&" ".repeat(LONGEST + 1)).is_err());
    }

    fn expression() -> impl Strategy<Value = Expression> {
        let label = || "[a-z][a-z./_-]{0,5}";
        let value = || prop_oneof!["[a-z \"{}()!&|]{0,5}", "[a-z ']{0,5}"];
        let operator = prop_oneof![
            Just(Operator::Equals),
            Just(Operator::Contains),
            Just(Operator::StartsWith),
            Just(Operator::EndsWith),
        ];
        let leaf = prop_oneof![
            Just(Expression::All),
            Just(Expression::Global),
            label().prop_map(Expression::Has),
            (label(), operator, value())
                .prop_map(|(label, operator, value)| Expression::Compares(label, operator, value)),
            (label(), proptest::collection::btree_set(value(), 0..3))
                .prop_map(|(label, values)| Expression::In(label, values)),
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|one| Expression::Not(Box::new(one))),
                vec(inner.clone(), 2..4).prop_map(Expression::And),
                vec(inner, 2..4).prop_map(Expression::Or),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_expression_is_read_as_it_is_written(expression in expression()) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }

        #[test]
        fn no_text_is_too_odd_to_be_answered(text in "[a-z0-9 '\"(){}!&|=,]{0,40}|.{0,40}") {
            if let Ok(expression) = Expression::parse(&text) {
                prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
            }
        }
    }
}
