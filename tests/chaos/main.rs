//! The fault bench: breaks a real cluster in every way that one seed draws, and checks what is promised.
//!
//! `make chaos [SEED=n] [SECONDS=n]`. Exit codes: 0 every promise held, 1 one was broken, 64 bad flags. The history of
//! the run is a file of JSON lines. Modules in reading order: plan, history, crowd, bench, run, evidence, check,
//! report, failpoints.

#![allow(missing_docs)] // A program: nobody outside reads its items.
#![allow(unreachable_pub)]
#![allow(clippy::print_stdout)] // Its output is its purpose.

mod bench;
mod check;
mod crowd;
mod evidence;
mod history;
mod plan;
mod report;
mod run;
mod failpoints;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::failpoints::{FailpointStory, STORIES};
use crate::plan::ClusterSize;
use crate::run::ChaosTask;

/// Breaks a Parley cluster on purpose and checks what is promised.
#[derive(Debug, Parser)]
struct ChaosFlags {
    /// Draws the faults; the same seed draws the same. A new one when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are made; coming up and catching up take about half a minute more.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// About how many messages a second the members say together.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Instead of faults: restart all gateways one after the other, so many times.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rolls: Option<u32>,
    /// Draw only faults of this name, as the table calls it; may be given again.
    #[arg(long, value_parser = fault_name)]
    only: Vec<String>,
    /// If Redis writes to its disk: `everysec`, as shipped, or `always`.
    #[arg(long, default_value = "everysec", value_parser = ["everysec", "always"])]
    fsync: String,
    /// Where the history goes; `chaos-<seed>.jsonl` beside the programs when left out.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Instead of faults from a seed: take this mechanism out of debug builds, and see whether that is noticed.
    /// `nothing` tells the same stories with everything in its place.
    #[arg(long, value_parser = mechanism)]
    without: Option<String>,
    /// Only print the plan.
    #[arg(long)]
    plan: bool,
    /// What is tested, for the table of results.
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
    let mut known = STORIES.iter().map(|story| story.mechanism).chain([failpoints::NOTHING]);
    let names = || STORIES.map(|story| story.mechanism).join(", ");
    if name != failpoints::NOTHING && !cfg!(debug_assertions) {
        return Err("a release build has every mechanism in its place".to_owned());
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
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (seed, length) = (flags.seed.unwrap_or_else(fresh), Duration::from_secs(flags.seconds));
    let size = ClusterSize { gateways: 3, presence: 2 };
    let (story, rate) = (flags.without.as_deref().and_then(FailpointStory::of), flags.rate);
    let (steps, length, rate) = match (&flags.without, flags.rolls) {
        (None, None) => (plan::draw(seed, length, size, &flags.only), length, rate),
        (None, Some(rolls)) => {
            let steps = plan::rolls(rolls, size);
            let length = steps.iter().map(plan::FaultStep::ends).chain([length]).max().unwrap_or(length);
            (steps, length, rate)
        }
        (Some(_), _) => {
            let told = story.map_or_else(|| STORIES.to_vec(), |story| vec![story.told_alone()]);
            let (steps, length) = failpoints::plan(&told);
            (steps, length, failpoints::RATE)
        }
    };
    // First of all: a run that hangs or dies can be made again.
    println!("seed {seed}, {} s, appendfsync {}, {} faults", length.as_secs(), flags.fsync, steps.len());
    if flags.plan {
        for step in &steps {
            println!("{:6.1} s, for {:4.1} s: {}", step.begins.as_secs_f64(), step.lasts.as_secs_f64(), step.fault);
        }
        return ExitCode::SUCCESS;
    }
    let task = ChaosTask { seed, size, fsync: flags.fsync, steps, length, rate, story };
    let evidence = run::run(&task).await;
    let path = flags.history.unwrap_or_else(|| report::default_path(seed));
    let written = history::write(&path, &evidence.events);
    let passed = report::print(&task, &flags.version_under_test, &evidence);
    match written {
        Ok(()) => println!("history: {}", path.display()),
        Err(error) => println!("no history at {}: {error}", path.display()),
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
