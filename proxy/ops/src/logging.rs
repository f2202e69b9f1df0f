//! Logs: to stderr (stdout is for the listeners' addresses), as text or JSON, with a level that can be
//! changed while the daemon runs.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::format::FmtSpan,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::plain::{is_hidden, plain};

/// Begins what a terminal does instead of showing it.
const ESCAPE: char = '\u{1b}';

/// The settings that both daemons share.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// What to log: a level, or directives such as `info,selvedge_proxy=debug`
    #[arg(long, env = "SELVEDGE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// The format of log lines
    #[arg(long, env = "SELVEDGE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a level, and not a list of directives.
    #[error(
        "{filter:?} is not a log filter ({reason}); use error, warn, info, debug, trace, or target=level,…"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging was set up before, in this process.
    #[error("logging is already set up")]
    Twice,
}

/// The level, changeable while the daemon runs (`/log-level`). Cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<Targets, Registry>,
    /// What it goes back to, and how often it was lent.
    own: Arc<Mutex<(String, u64)>>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.filter()).finish()
    }
}

impl LogLevel {
    /// The filter in force.
    pub fn filter(&self) -> String {
        self.handle.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Puts another filter in force, for good.
    ///
    /// # Errors
    /// If `filter` is not one.
    pub fn set(&self, filter: &str) -> Result<(), LoggingError> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_in_force(filter)?;
        *own = (filter.to_owned(), own.1 + 1);
        Ok(())
    }

    /// Puts another filter in force for a while; an empty one: its own, at once. To be called on a runtime.
    ///
    /// # Errors
    /// If `filter` is not one.
    pub fn lend(&self, filter: &str, time: Duration) -> Result<(), LoggingError> {
        let number = {
            // Held meanwhile, so that nobody whose time is over gives back what is put in force just now.
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            if !filter.is_empty() {
                self.put_in_force(filter)?;
            }
            own.1 += 1;
            own.1
        };
        if filter.is_empty() {
            return self.give_back(number);
        }
        let level = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // It was a filter before.
            let _ = level.give_back(number);
        });
        Ok(())
    }

    /// Puts its own filter in force again, unless it was changed or lent after it was lent for the time of this `number`.
    fn give_back(&self, number: u64) -> Result<(), LoggingError> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.1 != number {
            return Ok(());
        }
        self.put_in_force(&own.0)?;
        let filter = own.0.clone();
        drop(own);
        tracing::info!(filter, "the log level is as it was set again");
        Ok(())
    }

    fn put_in_force(&self, filter: &str) -> Result<(), LoggingError> {
        let parsed = parse(filter)?;
        self.handle
            .reload(parsed)
            .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), reason: error.to_string() })
    }
}

/// Sends this process's logs to stderr.
///
/// # Errors
/// If the filter is not one, or logging was set up before.
pub fn init(args: &LogArgs) -> Result<LogLevel, LoggingError> {
    let (filter, level) = filter(&args.log)?;
    let subscriber = tracing_subscriber::registry().with(filter).with(output(args.log_format));
    subscriber.try_init().map_err(|_| LoggingError::Twice)?;
    Ok(level)
}

/// The filter as a layer, for a program that puts its subscriber together itself, and the handle that
/// changes it for as long as the layer lives.
///
/// # Errors
/// If `text` is not a filter.
pub fn filter(text: &str) -> Result<(reload::Layer<Targets, Registry>, LogLevel), LoggingError> {
    let (layer, handle) = reload::Layer::new(parse(text)?);
    Ok((layer, LogLevel { handle, own: Arc::new(Mutex::new((text.to_owned(), 0))) }))
}

/// Whether `filter` is one.
///
/// # Errors
/// If it is not.
pub fn check(filter: &str) -> Result<(), LoggingError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<Targets, LoggingError> {
    let wrong = |reason: String| LoggingError::Filter { filter: filter.to_owned(), reason };
    // A word alone that is no level would be a target, and everything else would be off: a slip of the pen silences the log.
    if let Some(word) =
        filter.split(',').find(|word| !word.contains('=') && word.parse::<LevelFilter>().is_err())
    {
        return Err(wrong(format!("{word:?} is no level")));
    }
    filter.parse::<Targets>().map_err(|error| wrong(error.to_string()))
}

fn output<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let ansi = format == LogFormat::Text && io::stderr().is_terminal();
    let writer = move || Lines { out: io::stderr(), ansi };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_span_events(FmtSpan::NONE);
    match format {
        LogFormat::Text => layer.with_ansi(ansi).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Writes each event as one line, whatever somebody said in it ([`crate::plain`]).
struct Lines<W> {
    out: W,
    /// Whether our own colours are in it; escape sequences in what others say are none by then.
    ansi: bool,
}

impl<W: io::Write> io::Write for Lines<W> {
    /// An event comes whole, with its line's end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let text = String::from_utf8_lossy(line);
        if text.chars().any(|c| is_hidden(c) && !(self.ansi && c == ESCAPE)) {
            let shown = text.split(ESCAPE).map(plain).collect::<Vec<_>>();
            let escape = if self.ansi { "\u{1b}" } else { "\\u{1b}" };
            self.out.write_all(shown.join(escape).as_bytes())?;
            self.out.write_all(b"\n")?;
        } else {
            self.out.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[test]
    fn the_level_changes_and_a_wrong_one_changes_nothing() {
        let (_layer, level) = filter("info").unwrap();

        level.set("warn,selvedge_proxy=debug").unwrap();
        let refused = level.set("selvedge_proxy=loud").unwrap_err();

        assert!(refused.to_string().contains("selvedge_proxy=loud"), "{refused}");
        for slip in ["debgu", "info,selvedge_proxy"] {
            let refused = level.set(slip).unwrap_err().to_string();
            assert!(refused.contains("is no level"), "{refused}");
        }
        level.set("WARN,selvedge_proxy=debug").unwrap();
        assert!(level.filter().contains("selvedge_proxy=debug"), "{}", level.filter());
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_that_is_lent_goes_back_to_the_one_that_is_set() {
        let (_layer, level) = filter("info").unwrap();
        let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));

        level.lend("debug", Duration::from_secs(60)).unwrap();
        wait(30).await;
        level.lend("trace", Duration::from_secs(60)).unwrap();
        wait(40).await;
        assert_eq!(level.filter(), "trace", "the first time is over, and it was lent again");
        wait(30).await;
        assert_eq!(level.filter(), "info");

        level.set("warn").unwrap();
        level.lend("debug", Duration::from_secs(60)).unwrap();
        level.lend("", Duration::from_secs(60)).unwrap();
        assert_eq!(level.filter(), "warn", "at once");
        level.lend("debug", Duration::from_secs(60)).unwrap();
        level.set("error").unwrap();
        wait(70).await;
        assert_eq!(level.filter(), "error", "what was set meanwhile stays");
        assert!(level.lend("x=loud", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn nobody_forges_a_line_of_the_log() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = Arc::clone(&written);
        let writer = move || Lines { out: Shared(Arc::clone(&out)), ansi: false };
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(writer).finish();

        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(why = %"a\n ERROR forged\u{1b}[2J\u{202e}", "said: b\r\nINFO forged");
        });

        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(!written.trim_end().chars().any(is_hidden), "{written:?}");
        assert!(written.contains("a\\n ERROR forged"), "{written}");
    }

    #[test]
    fn our_own_colours_stay() {
        let mut written = Vec::new();
        let mut lines = Lines { out: &mut written, ansi: true };

        lines.write_all(b"\x1b[31mERROR\x1b[0m a\nb\n").unwrap();

        assert_eq!(written, b"\x1b[31mERROR\x1b[0m a\\nb\n");
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
