//! The fault bench: injects faults into a real cluster, as drawn from a seed, and checks the guarantees.
//!
//! `make chaos [SEED=n] [SECONDS=n]`. Exit codes: 0 every guarantee holds, 1 one is violated, 64 bad flags, 69 a client
//! library is not installed. The history of the run is written as JSON lines. Modules in reading order: plan, history,
//! crowd, bench, run, evidence, check, library_results, report, failpoints.

#![allow(missing_docs)] // A program: its items are not public.
#![allow(unreachable_pub)]
#![allow(clippy::print_stdout)] // The results go to stdout.

mod bench;
mod check;
mod crowd;
mod evidence;
mod history;
mod library_results;
mod plan;
mod report;
mod run;
mod failpoints;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::crowd::{ClientLibrary, LIBRARIES};
use crate::failpoints::{CASES, FailpointCase};
use crate::plan::ClusterSize;
use crate::run::ChaosTask;

/// Injects faults into a Parley cluster and checks its guarantees.
#[derive(Debug, Parser)]
struct ChaosFlags {
    /// Seed of the faults; the same seed draws the same faults. By default the current time.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds with faults; startup and recovery take about half a minute more.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// Approximate number of messages per second, of all members together.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Instead of faults: restarts all gateways one after the other, this many times.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rolls: Option<u32>,
    /// Draws only faults of this name, as in the table of results; repeatable.
    #[arg(long, value_parser = fault_name)]
    only: Vec<String>,
    /// `appendfsync` of Redis: `everysec`, as shipped, or `always`.
    #[arg(long, default_value = "everysec", value_parser = ["everysec", "always"])]
    fsync: String,
    /// File of the history; by default `chaos-<seed>.jsonl` in the folder of this program.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Instead of faults from a seed: disables this mechanism of a debug build, and expects its checker to fail.
    /// `nothing` runs the faults of all mechanisms with none disabled.
    #[arg(long, value_parser = mechanism)]
    without: Option<String>,
    /// Alters one line of every program on a client library: drops a message, repeats one, or drops an ack. Checkers
    /// must find it.
    #[arg(long)]
    alter_lines: bool,
    /// Prints only the plan.
    #[arg(long)]
    plan: bool,
    /// Tested version, for the table of results.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    version_under_test: String,
}

fn fault_name(name: &str) -> Result<String, String> {
    let mut names = plan::every_kind().map(plan::Fault::name);
    names.any(|known| known == name).then(|| name.to_owned()).ok_or_else(|| {
        let names: Vec<&str> = plan::every_kind().map(plan::Fault::name).collect();
        format!("one of: {}", names.join(", "))
    })
}

fn mechanism(name: &str) -> Result<String, String> {
    let mut known = CASES.iter().map(|case| case.mechanism).chain([failpoints::NOTHING]);
    let names = || CASES.map(|case| case.mechanism).join(", ");
    if name != failpoints::NOTHING && !cfg!(debug_assertions) {
        return Err("a release build cannot disable a mechanism".to_owned());
    }
    known.any(|known| known == name).then(|| name.to_owned()).ok_or_else(|| format!("one of: {}, nothing", names()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match ChaosFlags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let now_seconds = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (seed, length) = (flags.seed.unwrap_or_else(now_seconds), Duration::from_secs(flags.seconds));
    let size = ClusterSize { gateways: 3, presence: 2 };
    let (case, rate) = (flags.without.as_deref().and_then(FailpointCase::of), flags.rate);
    let (steps, length, rate) = match (&flags.without, flags.rolls) {
        (None, None) => (plan::draw(seed, length, size, &flags.only), length, rate),
        (None, Some(rolls)) => {
            let steps = plan::rolls(rolls, size);
            let length = steps.iter().map(plan::FaultStep::ends).chain([length]).max().unwrap_or(length);
            (steps, length, rate)
        }
        (Some(_), _) => {
            let cases = case.map_or_else(|| CASES.to_vec(), |case| vec![case.alone()]);
            let (steps, length) = failpoints::plan(&cases);
            (steps, length, failpoints::RATE)
        }
    };
    // Printed first, so that a run that hangs or crashes can be repeated.
    println!("seed {seed}, {} s, appendfsync {}, {} faults", length.as_secs(), flags.fsync, steps.len());
    if flags.plan {
        for step in &steps {
            println!("{:6.1} s, for {:4.1} s: {}", step.begins.as_secs_f64(), step.lasts.as_secs_f64(), step.fault);
        }
        return ExitCode::SUCCESS;
    }
    let task = ChaosTask { seed, size, fsync: flags.fsync, steps, length, rate, case, alters_lines: flags.alter_lines };
    if let Some(missing) = LIBRARIES.iter().find_map(ClientLibrary::missing).filter(|_| task.case.is_none()) {
        println!("{missing}");
        return ExitCode::from(69);
    }
    let evidence = run::run(&task).await;
    let path = flags.history.unwrap_or_else(|| report::default_path(seed));
    let written = history::write(&path, &evidence.events);
    let passed = report::print(&task, &flags.version_under_test, &evidence);
    match written {
        Ok(()) => println!("history: {}", path.display()),
        Err(error) => println!("cannot write the history to {}: {error}", path.display()),
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
