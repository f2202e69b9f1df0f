//! Regular expressions (RE2 syntax), and what they may cost.
//!
//! A few letters can ask for much: ten thousand expressions such as `\pL{1,12}` fit into one document, and each is half a
//! megabyte when compiled. So one expression has a limit, and so has a sum: what one document asks for ([`metered`]), what a
//! namespace has in use (the control plane sees to that), and what a proxy holds ([`Expression::hold`]). Equal expressions
//! are one, and are counted once. Whoever only reads expressions keeps none compiled.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use regex_automata::{meta::Regex, util::syntax};

/// The longest regular expression, in bytes, as it is written.
const LONGEST: usize = 4096;
/// The largest automaton of one expression, in bytes: all that `[\w.-]+@[\w.-]+` needs, twice over. There are two, one for
/// each direction.
const LARGEST: usize = 256 << 10;
/// What one expression may keep of its work, in bytes and for each thread: as much as it is large itself, and this at
/// least. Beyond that it is forgotten and done again, in linear time all the same.
const LEAST_KEPT: usize = 8 << 10;
/// What the expressions of one namespace may cost, in bytes: room for some 700 ordinary ones that differ.
pub const NAMESPACE_LIMIT: usize = 8 << 20;
/// What the expressions that a process holds ready for requests may cost, in bytes: those of four namespaces that have as
/// many as they may.
pub const PROCESS_LIMIT: usize = 32 << 20;

/// Every expression that is in use, by its text.
static KNOWN: LazyLock<Mutex<HashMap<Box<str>, Weak<Shared>>>> = LazyLock::new(Mutex::default);
/// What the expressions cost that are held, in bytes.
static HELD: Mutex<usize> = Mutex::new(0);

thread_local! {
    /// What is being read on this thread.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Why a text is not a regular expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// Whoever writes so long a list usually wants several matches.
    #[error("it is {0} bytes long; {LONGEST} are allowed")]
    TooLong(usize),
    /// It is not of this syntax.
    #[error("{0}")]
    Malformed(String),
    /// Classes of Unicode, such as `\w` and `\pL`, are large; repeated they are larger.
    #[error(
        "it is larger than {} KiB when compiled; repeat less, or write [0-9A-Za-z_] in place of \\w and [0-9] in place of \\d",
        LARGEST >> 10
    )]
    TooLarge,
    /// Too many large ones in one document.
    #[error(
        "with those before it in this document it costs more than {} MiB; use fewer or simpler expressions",
        NAMESPACE_LIMIT >> 20
    )]
    TooMany,
    /// More than one process may hold.
    #[error("with those in use it costs more than {} MiB", PROCESS_LIMIT >> 20)]
    Full,
}

/// A regular expression as it is compiled. Equal ones are one.
#[derive(Clone)]
pub struct Expression(Arc<Shared>);

struct Shared {
    text: Box<str>,
    /// Bytes, compiled, without what it keeps of its work.
    size: usize,
    compiled: OnceLock<Regex>,
    /// Whether it counts in [`HELD`].
    held: AtomicBool,
}

/// What the document that is being read may still ask for.
struct Meter {
    left: usize,
    met: HashSet<Expression>,
    /// Whether one was refused: none is looked at any more.
    over: bool,
}

/// What `read` gives, and the expressions that it has asked for, each once and in order. All together may cost `limit` bytes; what goes beyond is
/// refused to `read`.
pub fn metered<T>(limit: usize, read: impl FnOnce() -> T) -> (T, Vec<Expression>) {
    let outer = METER.replace(Some(Meter { left: limit, met: HashSet::new(), over: false }));
    let read = read();
    let meter = METER.replace(outer);
    let mut asked: Vec<Expression> = meter.into_iter().flat_map(|meter| meter.met).collect();
    asked.sort_unstable_by(|a, b| a.text().cmp(b.text()));
    (read, asked)
}

/// What all `expressions` cost, in bytes; equal ones once.
pub fn cost<'a>(expressions: impl IntoIterator<Item = &'a Expression>) -> usize {
    let different: HashSet<&Expression> = expressions.into_iter().collect();
    different.into_iter().map(Expression::cost).sum()
}

impl Expression {
    /// The expression `text`, which is compiled to see that it can be, and is not kept so.
    pub(crate) fn new(text: &str) -> Result<Self, RegexError> {
        if METER.with_borrow(|meter| meter.as_ref().is_some_and(|meter| meter.over)) {
            return Err(RegexError::TooMany);
        }
        let known = locked(&KNOWN).get(text).and_then(Weak::upgrade);
        let expression = match known {
            Some(known) => Self(known),
            None => Self::read(text)?,
        };
        let fits = METER.with_borrow_mut(|meter| meter.as_mut().is_none_or(|meter| meter.take(&expression)));
        fits.then_some(expression).ok_or(RegexError::TooMany)
    }

    fn read(text: &str) -> Result<Self, RegexError> {
        let size = build(text, LEAST_KEPT)?.memory_usage();
        let shared = Arc::new(Shared {
            text: text.into(),
            size,
            compiled: OnceLock::new(),
            held: AtomicBool::new(false),
        });
        locked(&KNOWN).insert(text.into(), Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Makes it ready for requests. What is held in this process costs at most [`PROCESS_LIMIT`].
    ///
    /// # Errors
    /// If it would cost more with this one.
    pub fn hold(&self) -> Result<(), RegexError> {
        let mut held = locked(&HELD);
        if !self.0.held.load(Ordering::Relaxed) {
            if *held + self.cost() > PROCESS_LIMIT {
                return Err(RegexError::Full);
            }
            *held += self.cost();
            self.0.held.store(true, Ordering::Relaxed);
        }
        drop(held);
        self.compiled();
        Ok(())
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// What it costs when it is held: in bytes, compiled, with what it keeps of its work on one thread.
    pub fn cost(&self) -> usize {
        self.0.cost()
    }

    pub(crate) fn compiled(&self) -> &Regex {
        self.0
            .compiled
            .get_or_init(|| build(&self.0.text, self.0.kept()).expect("it was compiled when it was read"))
    }
}

impl Meter {
    /// Whether there is room for `expression`.
    fn take(&mut self, expression: &Expression) -> bool {
        if self.met.contains(expression) {
            return true;
        }
        let Some(left) = self.left.checked_sub(expression.cost()) else {
            self.over = true;
            return false;
        };
        self.left = left;
        self.met.insert(expression.clone())
    }
}

impl Shared {
    fn kept(&self) -> usize {
        self.size.clamp(LEAST_KEPT, LARGEST)
    }

    fn cost(&self) -> usize {
        self.size + self.kept()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            *locked(&HELD) -= self.cost();
        }
        let mut known = locked(&KNOWN);
        if known.get(&self.text).is_some_and(|known| known.strong_count() == 0) {
            known.remove(&self.text);
        }
    }
}

/// Nothing that is done under these locks can leave half a change behind.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn syntax() -> syntax::Config {
    syntax::Config::new().dot_matches_new_line(true)
}

/// How many groups `source` has, which must by itself be of the syntax; the whole is one of them.
pub(crate) fn groups(source: &str) -> Result<usize, RegexError> {
    if source.len() > LONGEST {
        return Err(RegexError::TooLong(source.len()));
    }
    let parsed = syntax::parse_with(source, &syntax()).map_err(|error| malformed(&error))?;
    Ok(1 + parsed.properties().explicit_captures_len())
}

/// The expression `text` that keeps so many bytes of its work. The engines whose memory depends on texts are left out.
fn build(text: &str, kept: usize) -> Result<Regex, RegexError> {
    let limits = Regex::config()
        .nfa_size_limit(Some(LARGEST))
        .hybrid_cache_capacity(kept)
        .onepass_size_limit(Some(LEAST_KEPT))
        .dfa(false)
        .backtrack(false);
    let built = Regex::builder().configure(limits).syntax(syntax()).build(text);
    built.map_err(|error| match error.syntax_error() {
        Some(error) => malformed(error),
        None => RegexError::TooLarge,
    })
}

/// The last line of what the crate says shows the reason; those before it draw the place.
fn malformed(error: &dyn fmt::Display) -> RegexError {
    RegexError::Malformed(error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Expression {}

impl std::hash::Hash for Expression {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.text.fmt(f)
    }
}

#[cfg(test)]
mod tests;
