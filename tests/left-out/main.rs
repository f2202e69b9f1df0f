//! The last test of a run: says what the others left out for want of a tool or a right, and how to get it.
//!
//! `cargo test` runs it last, since it is the last target of the last package, and shows what it prints. For nextest
//! `.config/nextest.toml` has it run alone, after all others, and shows its output below the result. It has no harness,
//! so that it is silent when nothing was left out, and is not even listed on a machine that lacks nothing.

use clap::ValueEnum as _;
use selvedge_tests::needs::{Need, left_out};

fn main() -> std::io::Result<()> {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    if asked("--list") {
        // What nextest asks of every test program: its tests, then those that are ignored.
        let lacks = Need::value_variants().iter().any(|need| need.find().is_none());
        if lacks && !asked("--ignored") {
            println!("summary: test");
        }
    } else if let Some(summary) = left_out::summary()? {
        print!("{summary}");
    }
    Ok(())
}
