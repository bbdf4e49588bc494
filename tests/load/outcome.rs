//! Outcome of a run, for programs (JSON) and for people.
//!
//! The JSON contains everything that a figure depends on: the plan, the machine, the usage of every process. It also
//! marks figures that the load generator itself has distorted.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::clock::SECOND;
use crate::process;
use crate::run::{FinishedRun, RunSnapshot};
use crate::tally::Latencies;

/// CPU share of a load process above which the figures measure the load generator.
const LOAD_CPU_SHARE_MAX: f64 = 0.8;

/// Returns the outcome as one JSON object; `scenario` is its name.
pub(crate) fn json(scenario: &str, finished: &FinishedRun) -> Value {
    let FinishedRun { plan, course, tally, workers, .. } = finished;
    let (measured, progress) = (&tally.measured, &tally.progress);
    let seconds = |from: &RunSnapshot, to: &RunSnapshot| to.at.saturating_sub(from.at) as f64 / SECOND as f64;
    let window = match plan.senders() {
        0 => seconds(&finished.begun, &finished.ended),
        _ => course.measured.as_secs_f64(),
    };
    // A backlog that arrives after the window lowers the rate.
    let end = finished.begun.at as f64 + window * SECOND as f64;
    let span = (measured.last as f64).max(end) / SECOND as f64 - finished.begun.at as f64 / SECOND as f64;
    let login_span = tally.last_ready_at.saturating_sub(finished.login) as f64 / SECOND as f64;
    let (begun, ended) = (&finished.begun, &finished.ended);
    let server_cpu: f64 = begun.watched.iter().zip(&ended.watched).map(|(from, to)| to.cpu() - from.cpu()).sum();
    let load_cpu = (ended.load.cpu() - begun.load.cpu()) / seconds(begun, ended).max(1e-3) / *workers as f64;
    let received = measured.delivered + measured.echoed;
    json!({
        "scenario": scenario,
        "plan": plan,
        "peer": plan.peer(),
        "unix_time": std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        "machine": process::machine(),
        "debug_build": cfg!(debug_assertions),
        "clients": plan.clients,
        "seconds": window,
        "login": {
            "seconds": login_span,
            "per_second": f64::from(plan.clients) / login_span.max(1e-3),
            "ms": latency(&tally.login),
        },
        "offered_per_s": plan.rate(),
        "sent": measured.sent,
        "sent_per_s": measured.sent as f64 / window.max(1e-3),
        "acked": measured.acked,
        "acked_per_s": measured.acked as f64 / window.max(1e-3),
        "unanswered_max": measured.unanswered_max,
        "refused": progress.refused,
        "delivered": measured.delivered,
        "delivered_per_s": measured.delivered as f64 / span.max(1e-3),
        "echoed_per_s": measured.echoed as f64 / span.max(1e-3),
        "resumed": progress.resumed,
        "lost": lost(finished),
        "duplicated": tally.faults.duplicated,
        "out_of_order": tally.faults.out_of_order,
        "checked": finished.checked,
        "messages_per_read": measured.delivered as f64 / measured.reads.max(1) as f64,
        "bytes_per_message": measured.read_bytes as f64 / measured.delivered.max(1) as f64,
        "delivery_ms": latency(&tally.delivery),
        "ack_ms": latency(&tally.ack),
        "echo_ms": latency(&tally.echo),
        "resume_ms": latency(&tally.resume),
        "errors": tally.errors,
        "server_us_per_message": (received > 0 && !course.watched.is_empty()).then(|| server_cpu * 1e6 / received as f64),
        "login_us_per_client": (!course.watched.is_empty()).then(|| {
            let spent = finished.before.watched.iter().zip(&finished.ready.watched);
            spent.map(|(from, to)| to.cpu() - from.cpu()).sum::<f64>() * 1e6 / f64::from(plan.clients.max(1))
        }),
        "processes": processes(finished),
        "load": {
            "processes": workers,
            "cores_each": load_cpu,
            "too_busy": load_cpu > LOAD_CPU_SHARE_MAX,
            "bytes_per_idle_client": bytes_each(finished.base_kib, finished.ready.load.rss_kib, plan.clients),
        },
    })
}

/// Returns the number of expected messages that did not arrive. A refused message was never sent. Where publishers
/// number the messages, its number is still missing, so it is subtracted.
fn lost(finished: &FinishedRun) -> u64 {
    let tally = &finished.tally;
    let excused = match finished.plan.counts_seqs() {
        true => 0,
        false => tally.progress.refused * finished.plan.readers(),
    };
    tally.missing().saturating_sub(excused)
}

/// Returns the distribution in milliseconds; null if it is empty.
pub(crate) fn latency(latencies: &Latencies) -> Value {
    if latencies.count() == 0 {
        return Value::Null;
    }
    let at = |percentile| latencies.percentile_ms(percentile);
    json!({
        "count": latencies.count(), "mean": latencies.mean_ms(), "p50": at(50.0), "p90": at(90.0), "p99": at(99.0),
        "p999": at(99.9), "max": at(100.0),
    })
}

fn bytes_each(before_kib: u64, after_kib: u64, clients: u32) -> f64 {
    (after_kib as f64 - before_kib as f64) * 1024.0 / f64::from(clients.max(1))
}

fn processes(finished: &FinishedRun) -> Value {
    let mut processes = Map::new();
    for (at, watched) in finished.course.watched.iter().enumerate() {
        let sample = |snapshot: &RunSnapshot| snapshot.watched[at];
        let (begun, ended) = (sample(&finished.begun), sample(&finished.ended));
        let before = sample(&finished.before);
        // Only for silent clients, and without the memory that their logins left behind; with traffic the memory
        // includes more than clients.
        let is_silent = finished.plan.senders() == 0;
        let each = is_silent.then(|| bytes_each(before.rss_kib, ended.rss_kib, finished.plan.clients));
        let figures = json!({
            "pid": watched.pid,
            "user_s": ended.user - begun.user,
            "system_s": ended.system - begun.system,
            "rss_before_kib": before.rss_kib,
            "rss_ready_kib": sample(&finished.ready).rss_kib,
            "rss_begun_kib": begun.rss_kib,
            "rss_ended_kib": ended.rss_kib,
            "rss_after_kib": sample(&finished.after).rss_kib,
            "rss_peak_kib": sample(&finished.after).peak_kib,
            "bytes_per_client": each,
        });
        processes.insert(watched.name.clone(), figures);
    }
    Value::Object(processes)
}

/// Writes the outcome into a file, if there is one.
pub(crate) fn save(outcome: &Value, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, format!("{outcome:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the outcome as a few lines of text.
pub(crate) fn summary(outcome: &Value) -> String {
    let number = |key: &str| outcome[key].as_f64().unwrap_or_default();
    let mut lines = vec![format!(
        "{} ({}): {} clients ready after {:.1} s ({:.0} a second), {}",
        outcome["scenario"].as_str().unwrap_or_default(),
        outcome["peer"].as_str().unwrap_or_default(),
        outcome["clients"],
        outcome["login"]["seconds"].as_f64().unwrap_or_default(),
        outcome["login"]["per_second"].as_f64().unwrap_or_default(),
        milliseconds(&outcome["login"]["ms"]),
    )];
    let mut timed = |what: &str, per_second: f64, key: &str| {
        if !outcome[key].is_null() {
            lines.push(format!("  {what:<10} {per_second:>10.0} a second   {}", milliseconds(&outcome[key])));
        }
    };
    timed("delivered", number("delivered_per_s"), "delivery_ms");
    timed("acked", number("acked_per_s"), "ack_ms");
    timed("echoed", number("echoed_per_s"), "echo_ms");
    timed("resumed", number("resumed"), "resume_ms");
    if number("delivered") > 0.0 {
        lines.push(format!(
            "  of {} sent: {} lost, {} duplicated, {} out of order, {} refused; {:.1} messages a read, {:.0} bytes each",
            outcome["sent"],
            outcome["lost"],
            outcome["duplicated"],
            outcome["out_of_order"],
            outcome["refused"],
            number("messages_per_read"),
            number("bytes_per_message"),
        ));
    }
    if let Some(received) = outcome["checked"]["received"].as_u64() {
        let [lost, doubled, reordered] = ["lost", "doubled", "reordered"].map(|key| &outcome["checked"][key]);
        lines.push(format!("  checked: {received} received, {lost} lost, {doubled} doubled, {reordered} reordered"));
    }
    if let Some(errors) = outcome["errors"].as_object().filter(|errors| !errors.is_empty()) {
        let errors: Vec<String> = errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        lines.push(format!("  errors: {}", errors.join(", ")));
    }
    if let Some(micros) = outcome["server_us_per_message"].as_f64() {
        lines.push(format!("  server CPU {micros:.2} us a message"));
    }
    for (name, process) in outcome["processes"].as_object().into_iter().flatten() {
        let get = |key: &str| process[key].as_f64().unwrap_or_default();
        lines.push(format!(
            "  {name:<10} user {:.2} s, system {:.2} s; MiB: {:.1} before, {:.1} ready, {:.1} ended, {:.1} after, {:.1} peak{}",
            get("user_s"),
            get("system_s"),
            get("rss_before_kib") / 1024.0,
            get("rss_ready_kib") / 1024.0,
            get("rss_ended_kib") / 1024.0,
            get("rss_after_kib") / 1024.0,
            get("rss_peak_kib") / 1024.0,
            process["bytes_per_client"].as_f64().map(|each| format!("; {each:.0} bytes a client")).unwrap_or_default(),
        ));
    }
    let load = &outcome["load"];
    lines.push(format!(
        "  load itself: {} processes, {:.2} cores each, {:.0} bytes a client{}",
        load["processes"],
        load["cores_each"].as_f64().unwrap_or_default(),
        load["bytes_per_idle_client"].as_f64().unwrap_or_default(),
        if load["too_busy"] == true { " -- TOO BUSY: these figures are of the load, not of the server" } else { "" },
    ));
    lines.join("\n")
}

/// Returns a distribution of [`latency`] as text.
pub(crate) fn milliseconds(latency: &Value) -> String {
    let get = |key: &str| latency[key].as_f64().unwrap_or_default();
    format!("ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}", get("p50"), get("p99"), get("p999"), get("max"))
}
