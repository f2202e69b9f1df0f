//! What the demo says: each step's verdict as it falls, and everything at the end.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use comfy_table::{Table, presets};
use serde::Serialize;

/// What one step showed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    /// What it is about.
    pub(super) name: &'static str,
    /// What must be seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) observed: String,
    /// Whether that is the same.
    pub(super) passed: bool,
}

/// Latencies of one way of calling, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Latency {
    /// Half of all answers came within this.
    pub(super) p50_us: u64,
    /// All but one of a hundred came within this.
    pub(super) p99_us: u64,
}

/// The whole run; `--json` prints it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Summary {
    /// The steps, as far as they came.
    pub(super) steps: Vec<Step>,
    /// Whether every step was run and passed.
    pub(super) passed: bool,
    /// Why the run ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Requests through the mesh, in all steps.
    pub(super) requests: u64,
    /// Those answered with 2xx.
    pub(super) succeeded: u64,
    /// Through both sidecars.
    pub(super) pair: Latency,
    /// To the app itself, in turn with those through the pair.
    pub(super) direct: Latency,
    /// What the pair adds.
    pub(super) added: Latency,
    /// The whole run.
    pub(super) seconds: f64,
}

/// What is being done; always on stderr.
pub(super) fn progress(words: &str) {
    let _ = writeln!(io::stderr(), "  … {words}"); // nobody has to listen
}

/// Where the demo's words go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    colours: bool,
}

impl Output {
    /// With `json`, stdout is kept for the one object at the end.
    pub(super) fn new(json: bool) -> Self {
        let terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Self { json, colours: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// A step's verdict.
    pub(super) fn step(self, number: usize, step: &Step) -> anyhow::Result<()> {
        let (sign, colour) = if step.passed { ("✓", "32") } else { ("✗", "31") };
        let sign = if self.colours { format!("\x1b[{colour}m{sign}\x1b[0m") } else { sign.to_owned() };
        self.say(&format!(
            "{number}. {}\n   expected  {}\n   observed  {}\n   {sign}\n",
            step.name, step.expected, step.observed
        ))
    }

    /// The end of the run.
    pub(super) fn summary(self, summary: &Summary) -> anyhow::Result<()> {
        self.say(&summary.table())?;
        if self.json {
            let text = serde_json::to_string(summary).expect("plain data");
            writeln!(io::stdout(), "{text}").map_err(|error| unheard(&error))?;
        }
        Ok(())
    }

    /// To people: on stdout unless that is a program's.
    pub(super) fn say(self, words: &str) -> anyhow::Result<()> {
        let said =
            if self.json { writeln!(io::stderr(), "{words}") } else { writeln!(io::stdout(), "{words}") };
        said.map_err(|error| unheard(&error))
    }
}

/// In words, because a reader who left is not a failure of other commands, but a demo that is cut short has not
/// passed.
fn unheard(error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot print what was seen: {error}")
}

impl Summary {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["", "p50", "p99"]);
        let rows = [
            ("direct call to the app", self.direct),
            ("through both sidecars, mutual TLS", self.pair),
            ("added by the pair", self.added),
        ];
        for (name, Latency { p50_us, p99_us }) in rows {
            table.add_row([name.to_owned(), milliseconds(p50_us), milliseconds(p99_us)]);
        }
        // An early end measured nothing.
        let table = if self.pair.p50_us == 0 { String::new() } else { format!("{table}\n") };
        let passed = self.steps.iter().filter(|step| step.passed).count();
        let share =
            if self.requests == 0 { 0.0 } else { 100.0 * self.succeeded as f64 / self.requests as f64 };
        format!(
            "{table}{} requests, {} answered ({share:.2} %); {passed} of {} steps passed in {:.0} s",
            self.requests,
            self.succeeded,
            self.steps.len(),
            self.seconds
        )
    }
}

impl Latency {
    /// What this way costs more than `other`.
    pub(super) fn beyond(self, other: Self) -> Self {
        Self {
            p50_us: self.p50_us.saturating_sub(other.p50_us),
            p99_us: self.p99_us.saturating_sub(other.p99_us),
        }
    }
}

fn milliseconds(micros: u64) -> String {
    format!("{:.2} ms", Duration::from_micros(micros).as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_the_fields_that_programs_read() {
        let step = Step { name: "a", expected: "b".into(), observed: "c".into(), passed: true };
        let summary = Summary { steps: vec![step], passed: true, ..Summary::default() };

        let value = serde_json::to_value(&summary).unwrap();

        let ended_early = Summary { error: Some("it is late".to_owned()), ..summary };
        crate::documented::is_documented("demo", &ended_early);
        assert_eq!(value["passed"], true);
        assert_eq!(value["steps"][0]["name"], "a");
        assert_eq!(value["steps"][0]["expected"], "b");
        assert_eq!(value["steps"][0]["observed"], "c");
        assert_eq!(value["steps"][0]["passed"], true);
        assert!(value.get("error").is_none());
    }

    #[test]
    fn the_table_says_how_many_requests_were_answered() {
        let summary = Summary { requests: 200, succeeded: 199, ..Summary::default() };

        assert!(summary.table().contains("200 requests, 199 answered (99.50 %); 0 of 0 steps passed"));
    }
}
