//! `selvedge-bench`: the benchmark's runner and every small program that it starts, in one binary.
//!
//! One binary, so that one build serves the whole run and the floor is compiled with exactly the
//! profile of the product. `tests/bench/run` builds it and starts `compare`.

mod app;
mod certificates;
mod compare;
mod field;
mod fleet;
mod floor;
mod hosts;
mod instructions;
mod kubernetes;
mod load;
mod measure;
mod netspace;
mod once;
mod pairs;
mod process;
mod readiness;
mod report;
mod soaking;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures what a pair of sidecars costs, beside the least that it could cost.
#[derive(Debug, Parser)]
#[command(name = "selvedge-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every pair, load them in turn, and print the table.
    Compare(compare::Args),
    /// The backend: answers every GET with the same bytes.
    App(app::Args),
    /// One half of the floor: a proxy that only forwards.
    Floor(floor::Args),
    /// The control plane with a large cluster.
    Kubernetes(kubernetes::Args),
    /// The control plane with a fleet of simulated proxies.
    Fleet(fleet::Args),
    /// Ten minutes of load and faults, to look for leaks and for errors outside the rule.
    Soak(soaking::Args),
    /// The load generator by itself.
    Load(load::generator::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::App(args) => app::run(&args),
        Command::Floor(args) => floor::run(args),
        Command::Kubernetes(args) => kubernetes::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Soak(args) => soaking::run(&args),
        Command::Load(args) => load::generator::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selvedge-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
