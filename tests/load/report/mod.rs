//! `load report`: turns the outcomes of a benchmark into a page of ratios, a plot and one file of figures.
//!
//! Reads the files that the scenarios wrote with `--json`, computes only ratios, and lists the conditions of the
//! measurements. deploy/bench/run calls it at its end.

mod formats;
mod page;
mod plot;
mod searches;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cli::ReportFlags;

/// One outcome as a table row.
#[derive(Debug, Clone)]
struct ReportRow {
    subject: &'static str,
    scenario: String,
    outcome: Value,
}

/// The order of subjects in tables and plots.
const SUBJECTS: &[&str] = &[
    "floor",
    "batched floor",
    "Parley",
    "Parley, MessagePack",
    "Parley, Protobuf",
    "Parley, JSON frames",
    "Parley, MessagePack frames",
    "Parley, Protobuf frames",
    "Parley, mixed formats",
    "Parley, lines",
    "npm ws + Redis",
    "Socket.IO + Redis adapter",
    "NATS",
];

impl ReportRow {
    fn new(outcome: Value) -> Self {
        let scenario = outcome["scenario"].as_str().unwrap_or_default();
        let (subject, scenario) = match (scenario, outcome["peer"].as_str().unwrap_or_default()) {
            ("floor", _) => ("floor", "room"),
            ("floor_rounds", _) => ("batched floor", "room"),
            (scenario, "parley-msgpack") => ("Parley, MessagePack", scenario),
            (scenario, "parley-protobuf") => ("Parley, Protobuf", scenario),
            (scenario, "parley-frames-json") => ("Parley, JSON frames", scenario),
            (scenario, "parley-frames-msgpack") => ("Parley, MessagePack frames", scenario),
            (scenario, "parley-frames-protobuf") => ("Parley, Protobuf frames", scenario),
            (scenario, "parley-mix") => ("Parley, mixed formats", scenario),
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

    /// Returns the mark of a row whose load generator was too busy.
    fn dagger(&self) -> &'static str {
        if self.outcome["load"]["too_busy"] == true { "†" } else { "" }
    }

    fn faults(&self) -> String {
        ["lost", "duplicated", "out_of_order"].map(|key| shown(self.figure(key), 0)).join(" / ")
    }

    /// Returns the identity of the measurement: of two outcomes with the same one, the newer one counts.
    fn identity(&self) -> String {
        // The rate of a search is a result.
        let rate = if self.scenario == "capacity" { &Value::Null } else { &self.outcome["offered_per_s"] };
        let plan = &self.outcome["plan"];
        json!([self.scenario, self.subject, self.clients(), rate, plan["room_size"], plan["traffic"]["pipeline"]])
            .to_string()
    }

    fn unix_time(&self) -> f64 {
        self.figure("unix_time").unwrap_or_default()
    }

    /// Returns the CPU of Redis per sent message in microseconds; `None` without Redis.
    fn redis_us_per_message(&self) -> Option<f64> {
        let redis = self.outcome["processes"].get("redis")?;
        self.us_per_message([redis].into_iter())
    }

    /// Returns the CPU of the nodes per sent message in microseconds.
    fn node_us_per_message(&self) -> Option<f64> {
        self.us_per_message(self.nodes()?.map(|(_, process)| process))
    }

    fn us_per_message<'a>(&self, processes: impl Iterator<Item = &'a Value>) -> Option<f64> {
        let sent = self.figure("sent").filter(|sent| *sent > 0.0)?;
        let seconds = processes.flat_map(|process| [&process["user_s"], &process["system_s"]]);
        Some(seconds.filter_map(Value::as_f64).sum::<f64>() * 1e6 / sent)
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

fn of<'a>(rows: &'a [ReportRow], scenario: &'a str) -> impl Iterator<Item = &'a ReportRow> {
    rows.iter().filter(move |row| row.scenario == scenario)
}

fn shown(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"))
}

/// Writes PERFORMANCE.md, performance.svg and performance.json from the outcomes in a folder and the kept figures.
pub(crate) fn write(options: &ReportFlags) -> Result<()> {
    let ReportFlags { from, into, keep, draft } = options;
    let mut newest: BTreeMap<String, ReportRow> = BTreeMap::new();
    let kept = match keep {
        Some(file) if file.exists() => read(file)?["outcomes"].as_array().cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    for row in kept.into_iter().chain(outcomes(from)?).map(ReportRow::new) {
        let identity = row.identity();
        if newest.get(&identity).is_none_or(|other| row.unix_time() >= other.unix_time()) {
            newest.insert(identity, row);
        }
    }
    let mut rows: Vec<ReportRow> = newest.into_values().collect();
    rows.sort_by(|a, b| {
        let key = |row: &ReportRow| (row.rate(), row.clients(), row.rank());
        a.scenario.cmp(&b.scenario).then(key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal))
    });
    let draft = *draft || rows.iter().any(|row| row.outcome["debug_build"] == true);
    let outcomes: Vec<&Value> = rows.iter().map(|row| &row.outcome).collect();

    fs::create_dir_all(into)?;
    fs::write(into.join("PERFORMANCE.md"), page::page(&rows, draft))?;
    fs::write(into.join("performance.svg"), plot::plots(&rows))?;
    fs::write(into.join("performance.json"), format!("{:#}\n", json!({"draft": draft, "outcomes": outcomes})))?;
    println!("Wrote PERFORMANCE.md, performance.svg and performance.json into {}.", into.display());
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Reads the outcomes in a folder; there must be one.
fn outcomes(folder: &Path) -> Result<Vec<Value>> {
    let mut outcomes = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            outcomes.push(read(&path)?);
        }
    }
    ensure!(!outcomes.is_empty(), "there are no outcomes in {}", folder.display());
    Ok(outcomes)
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

    fn report(from: &Path, into: &Path, keep: Option<&Path>) {
        let keep = keep.map(Path::to_owned);
        write(&ReportFlags { from: from.to_owned(), into: into.to_owned(), keep, draft: false }).unwrap();
    }

    /// Returns the page of these outcomes, with the figures of an earlier page.
    fn page_of(outcomes: &[Value], keep: Option<&Path>) -> (String, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        for (number, outcome) in outcomes.iter().enumerate() {
            fs::write(folder.path().join(format!("{number}.json")), outcome.to_string()).unwrap();
        }
        let into = folder.path().join("docs");
        report(folder.path(), &into, keep);
        (fs::read_to_string(into.join("PERFORMANCE.md")).unwrap(), folder)
    }

    #[test]
    fn kept_figures_yield_to_newer_ones() {
        let dated = |peer: &str, micros: f64, unix_time: u64| {
            let mut outcome = outcome("room", peer, 50.0, micros, 3.0);
            outcome["unix_time"] = json!(unix_time);
            outcome
        };
        let (_, earlier) = page_of(&[dated("parley", 6.0, 10), dated("nats", 7.0, 20)], None);
        let kept = earlier.path().join("docs/performance.json");
        let (page, _) = page_of(&[dated("parley", 5.0, 11), dated("nats", 8.0, 19)], Some(&kept));
        assert!(page.contains("| 50 | Parley | 50000 | 1.0 | 3.0 | 3.0 | 5.00 |"), "{page}");
        assert!(page.contains("| 50 | NATS | 50000 | 1.0 | 3.0 | 3.0 | 7.00 |"), "{page}");
        assert_eq!(page.matches("| 50 |").count(), 2, "{page}");
        let (page, _) = page_of(&[dated("ws", 5.0, 11)], Some(Path::new("/no/such/file")));
        assert_eq!(page.matches("| 50 |").count(), 1, "{page}");
    }

    #[test]
    fn report_shows_capacity_and_pipeline() {
        let capacity = |peer: &str, members: u32, rate: f64, holds: bool| {
            let mut outcome = outcome("capacity", peer, rate, 6.0, 3.0);
            outcome["plan"] = json!({"room_size": members, "traffic": {"rooms": {"rate": rate, "publishers": 2}}});
            outcome["sent"] = json!(rate * 10.0);
            outcome["holds"] = json!(holds);
            outcome["fails_at_per_s"] = json!(rate * 2.0);
            outcome["ack_ms"] = json!({"p99": 2.5});
            let cpu = |seconds: f64| json!({"user_s": seconds, "system_s": seconds});
            outcome["processes"] = json!({"g1": cpu(rate * 1e-4), "g2": cpu(rate * 1e-4), "redis": cpu(rate * 1e-4)});
            outcome
        };
        let mut pipeline = outcome("pipeline", "parley", 0.0, 30.0, 3.0);
        pipeline["plan"] = json!({"room_size": 1, "traffic": {"pipeline": {"depth": 64, "rooms": 100}}});
        pipeline["acked_per_s"] = json!(4200);
        pipeline["ack_ms"] = json!({"p50": 15.0, "p99": 20.0});
        pipeline["refused"] = json!(7);
        let mut deeper = pipeline.clone();
        deeper["plan"]["traffic"]["pipeline"]["depth"] = json!(256);
        let outcomes = [
            capacity("nats", 100, 400.0, true),
            capacity("nats", 2, 8000.0, true),
            capacity("parley", 2, 5000.0, false),
            pipeline,
            deeper,
        ];
        let (page, earlier) = page_of(&outcomes, None);
        assert!(page.contains("| 500 x 2 | Parley | below 5000 | 10000 | 1.0 | 3.0 | 2.5 | 20.0 | 40.0 |"), "{page}");
        assert!(page.contains("| 500 x 2 | NATS | 8000 | 16000 | 1.0 | 3.0 | 2.5 |"), "{page}");
        assert!(page.contains("| 10 x 100 | NATS | 400 | 800 |"), "{page}");
        assert!(page.contains("| 100 | 64 | Parley | 4200 | 15.0 | 20.0 | 7 |"), "{page}");
        assert!(page.contains("| 100 | 256 | Parley | 4200 |"), "{page}");
        // The rate is a result of the search, not a part of its identity.
        let kept = earlier.path().join("docs/performance.json");
        let (page, _) = page_of(&[capacity("nats", 2, 9000.0, true)], Some(&kept));
        assert!(page.contains("| 500 x 2 | NATS | 9000 |") && !page.contains("| 500 x 2 | NATS | 8000 |"), "{page}");
    }

    #[test]
    fn report_compares_formats_with_json() {
        let mut rooms =
            ["parley", "parley-msgpack", "parley-mix"].map(|peer| outcome("formats", peer, 50.0, 12.0, 3.0));
        rooms[1]["server_us_per_message"] = json!(9.0);
        rooms[1]["bytes_per_message"] = json!(198.4);
        let decoding = [("parley", 9000), ("parley-msgpack", 4500)];
        let decoding =
            decoding.map(|(peer, text)| json!({"scenario": "decode", "peer": peer, "text": text, "object": 100}));
        let (page, _) = page_of(&[&rooms[..], &decoding[..]].concat(), None);
        assert!(
            page.contains("| Parley | 50000 | 1.0 | 3.0 | - | 12.00 | 1.00 | 9000 | 1.00 | 100 | 1.00 |"),
            "{page}"
        );
        assert!(
            page.contains("| Parley, MessagePack | 50000 | 1.0 | 3.0 | 198 | 9.00 | 0.75 | 4500 | 0.50 |"),
            "{page}"
        );
        assert!(page.contains("| Parley, mixed formats | 50000 | 1.0 | 3.0 | - | 12.00 | 1.00 | - | - |"), "{page}");
        assert!(!page.contains("A room of"), "{page}");
    }

    #[test]
    fn report_divides_figures_by_their_floor() {
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
        report(folder.path(), &into, None);
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
        report(folder.path(), folder.path(), None);
        let page = fs::read_to_string(folder.path().join("PERFORMANCE.md")).unwrap();
        assert!(page.contains("Draft") && page.contains("| 50† |"), "{page}");
    }
}
