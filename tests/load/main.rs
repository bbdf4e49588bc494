//! `load`: many thin clients against a cluster of Parley, its peers, or the floor, and their measurements.
//!
//! One process coordinates ([`run`]) and starts worker processes ([`worker`]) of the same program. Each worker runs an
//! epoll loop with as many clients as its descriptor limit allows. `make bench` runs it; by hand, start with `load room
//! --ws 127.0.0.1:8081,127.0.0.1:8082`. It uses only Parley's public protocol.

// This program runs in a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]
// Counts become figures here: all are far below 2^53, and the plan ensures that a client's number fits its type.
#![allow(clippy::cast_precision_loss)]

mod api;
mod capacity;
mod checked;
mod cli;
mod client;
mod clock;
mod crew;
mod dialect;
mod flood;
mod floor;
mod frame;
mod ledger;
mod orders;
mod outcome;
mod plan;
mod process;
mod report;
mod run;
mod scenario;
mod schedule;
mod stamp;
mod tally;
mod worker;

use std::net::TcpListener;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::cli::{LoadCommand, LoadFlags};
use crate::scenario::PreparedRun;

fn main() -> Result<()> {
    match LoadFlags::parse().command {
        LoadCommand::Echo(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Idle(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Room(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Rooms(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Capacity(scenario) => {
            let (prepared, search) = scenario.prepare()?;
            capacity::carry_out(&prepared, search)
        }
        LoadCommand::Pipeline(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Dm(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Login(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Resume(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Burst(scenario) => carry_out(scenario.prepare()?),
        LoadCommand::Flood(scenario) => flood::carry_out(&scenario),
        LoadCommand::Api(flags) => api::carry_out(&flags),
        LoadCommand::Floor(scenario) => {
            let server = floor::FloorServer::start(scenario.rounds)?;
            carry_out(scenario.prepare(server.address, server.pid())?)
        }
        LoadCommand::Report(options) => report::write(&options),
        LoadCommand::FreePort => {
            println!("{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
            Ok(())
        }
        LoadCommand::FloorServer(options) => floor::serve(options.rounds),
        LoadCommand::Worker => worker::run(),
    }
}

fn carry_out(prepared: PreparedRun) -> Result<()> {
    let PreparedRun { scenario, plan, course, json } = prepared;
    let finished = run::run(plan, course)?;
    let outcome = outcome::json(scenario, &finished);
    println!("{}", outcome::summary(&outcome));
    let is_clean = finished.checked.is_none_or(|checked| checked.is_clean());
    ensure!(is_clean, "the checking members did not receive each message once and in order");
    outcome::save(&outcome, json.as_deref())
}
