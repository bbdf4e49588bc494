//! `load report`: turns the outcomes of a benchmark into a page of ratios, a plot and one file of figures.
//!
//! Reads the files that the scenarios wrote with `--json`, computes only ratios, and lists the conditions of the
//! measurements. deploy/bench/run calls it at its end.

mod page;
mod plot;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// One outcome as a table row.
#[derive(Debug, Clone)]
struct ReportRow {
    subject: &'static str,
    scenario: String,
    outcome: Value,
}

/// The order of subjects in tables and plots.
const SUBJECTS: &[&str] =
    &["floor", "batched floor", "Parley", "Parley, lines", "npm ws + Redis", "Socket.IO + Redis adapter", "NATS"];

impl ReportRow {
    fn new(outcome: Value) -> Self {
        let scenario = outcome["scenario"].as_str().unwrap_or_default();
        let (subject, scenario) = match (scenario, outcome["peer"].as_str().unwrap_or_default()) {
            ("floor", _) => ("floor", "room"),
            ("floor_rounds", _) => ("batched floor", "room"),
            (scenario, "lines") => ("Parley, lines", scenario),
            (scenario, "ws") => ("npm ws + Redis", scenario),
            (scenario, "socketio") => ("Socket.IO + Redis adapter", scenario),
            (scenario, "nats") => ("NATS", scenario),
            (scenario, _) => ("Parley", scenario),
        };
        Self { subject, scenario: scenario.to_owned(), outcome }
    }

    fn rank(&self) -> usize {
        SUBJECTS.iter().position(|subject| *subject == self.subject).unwrap_or(SUBJECTS.len())
    }

    /// Returns a figure by its path in the outcome, such as `delivery_ms.p99`.
    fn figure(&self, path: &str) -> Option<f64> {
        path.split('.').try_fold(&self.outcome, |value, key| value.get(key))?.as_f64()
    }

    fn rate(&self) -> f64 {
        self.figure("offered_per_s").unwrap_or_default()
    }

    fn clients(&self) -> f64 {
        self.figure("clients").unwrap_or_default()
    }

    /// Returns the processes that serve connections: all except Redis and presence.
    fn nodes(&self) -> Option<impl Iterator<Item = (&String, &Value)>> {
        let processes = self.outcome["processes"].as_object()?;
        Some(processes.iter().filter(|(name, _)| !matches!(name.as_str(), "redis" | "presence")))
    }

    /// Returns the memory of the nodes per connection in KiB; `None` if the nodes use less than at their start.
    fn node_kib_per_client(&self) -> Option<f64> {
        let nodes = self.nodes()?;
        let bytes: Vec<f64> = nodes.filter_map(|(_, process)| process["bytes_per_client"].as_f64()).collect();
        let all = bytes.iter().sum::<f64>() / 1024.0;
        (all > 0.0).then_some(all)
    }

    /// Returns the memory of the nodes in MiB at the end of the measurement.
    fn node_mib(&self) -> Option<f64> {
        let nodes = self.nodes()?;
        Some(nodes.filter_map(|(_, process)| process["rss_ended_kib"].as_f64()).sum::<f64>() / 1024.0)
    }

    /// Returns the peak memory of the nodes and their memory after the pause, each as a multiple of the start.
    fn node_memory_growth(&self) -> Option<(f64, f64)> {
        let nodes = self.nodes()?;
        let sums = nodes.fold([0.0; 3], |[before, peak, after], (_, process)| {
            let kib = |key: &str| process[key].as_f64().unwrap_or_default();
            [before + kib("rss_begun_kib"), peak + kib("rss_peak_kib"), after + kib("rss_after_kib")]
        });
        (sums[0] > 0.0).then(|| (sums[1] / sums[0], sums[2] / sums[0]))
    }
}

/// Reads the outcomes in `from`, and writes PERFORMANCE.md, performance.svg and performance.json into `into`.
pub(crate) fn write(from: &Path, into: &Path, draft: bool) -> Result<()> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read(&path)?;
            rows.push(ReportRow::new(
                serde_json::from_slice(&text).with_context(|| format!("{} is not an outcome", path.display()))?,
            ));
        }
    }
    ensure!(!rows.is_empty(), "there are no outcomes in {}", from.display());
    rows.sort_by(|a, b| {
        let key = |row: &ReportRow| (row.rate(), row.clients(), row.rank());
        a.scenario.cmp(&b.scenario).then(key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal))
    });
    let draft = draft || rows.iter().any(|row| row.outcome["debug_build"] == true);
    let outcomes: Vec<&Value> = rows.iter().map(|row| &row.outcome).collect();

    fs::create_dir_all(into)?;
    fs::write(into.join("PERFORMANCE.md"), page::page(&rows, draft))?;
    fs::write(into.join("performance.svg"), plot::plots(&rows))?;
    fs::write(into.join("performance.json"), format!("{:#}\n", json!({"draft": draft, "outcomes": outcomes})))?;
    println!("Wrote PERFORMANCE.md, performance.svg and performance.json into {}.", into.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn outcome(scenario: &str, peer: &str, rate: f64, micros: f64, p99: f64) -> Value {
        json!({
            "scenario": scenario, "peer": peer, "clients": 1000, "seconds": 10.0, "offered_per_s": rate,
            "delivered_per_s": rate * 1000.0, "server_us_per_message": micros, "lost": 0, "duplicated": 0,
            "out_of_order": 0, "messages_per_read": 1.0, "delivery_ms": {"p50": 1.0, "p99": p99, "p999": p99},
            "machine": {"cpus": 2, "cpu": "some CPU", "congestion_control": "cubic"},
            "processes": {"g1": {"bytes_per_client": 1024.0}, "g2": {"bytes_per_client": 1024.0}, "redis": {"bytes_per_client": 9e9}},
        })
    }

    #[test]
    fn report_divides_figures_by_matching_floor() {
        let folder = tempfile::tempdir().unwrap();
        let outcomes = [
            outcome("floor", "bare", 50.0, 4.0, 2.0),
            outcome("floor_rounds", "bare", 50.0, 2.0, 2.0),
            outcome("floor", "bare", 100.0, 8.0, 2.0),
            outcome("room", "parley", 50.0, 6.0, 3.0),
            outcome("room", "nats", 100.0, 20.0, 30.0),
            outcome("idle", "parley", 0.0, 0.0, 0.0),
            json!({"scenario": "rest", "peer": "parley", "clients": 10_000, "redis_requests_per_s": 3.5}),
        ];
        for (number, outcome) in outcomes.iter().enumerate() {
            fs::write(folder.path().join(format!("{number}.json")), outcome.to_string()).unwrap();
        }
        let into = folder.path().join("docs");
        write(folder.path(), &into, false).unwrap();
        let page = fs::read_to_string(into.join("PERFORMANCE.md")).unwrap();
        assert!(page.contains("| 50 | Parley | 50000 | 1.0 | 3.0 | 3.0 | 6.00 | 1.50 | 3.00 |"), "{page}");
        assert!(page.contains("| 100 | NATS | 100000 | 1.0 | 30.0 | 30.0 | 20.00 | 2.50 | - |"), "{page}");
        assert!(page.contains("| 1000 | Parley | 2.0 |") && page.contains("cubic"), "{page}");
        assert!(page.contains("10000 silent users on two gateways cause 3.5 requests a second"), "{page}");
        assert!(!page.contains("Draft"));
        let plot = fs::read_to_string(into.join("performance.svg")).unwrap();
        assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n") && plot.contains("NATS"));
        let figures: Value = serde_json::from_slice(&fs::read(into.join("performance.json")).unwrap()).unwrap();
        assert_eq!(figures["outcomes"].as_array().unwrap().len(), 7);
    }

    #[test]
    fn debug_build_makes_a_draft_page() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = outcome("room", "parley", 50.0, 6.0, 3.0);
        one["debug_build"] = json!(true);
        one["load"] = json!({"too_busy": true});
        fs::write(folder.path().join("one.json"), one.to_string()).unwrap();
        write(folder.path(), folder.path(), false).unwrap();
        let page = fs::read_to_string(folder.path().join("PERFORMANCE.md")).unwrap();
        assert!(page.contains("Draft") && page.contains("| 50† |"), "{page}");
    }
}
