//! The runbook: its sections and links, and the commands and words that it quotes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{ChildProgram, Redis, repository};

const RUNBOOK: &str = "docs/RUNBOOK.md";
/// Files whose words the runbook may quote.
const SOURCES: &[&str] = &[
    "gateway/src",
    "presence/src",
    "gateway/gateway.example.toml",
    "deploy/prometheus/alerts.yml",
    "deploy/redis",
    "deploy/secrets",
    "grafana/dashboards",
    "Makefile",
];
/// First words of quoted Redis commands.
const COMMANDS: &[&str] = &["acl", "client", "config", "info", "latency", "redis-cli", "slowlog"];

/// Returns the sections by the anchors of their headings.
pub(super) fn sections() -> BTreeMap<String, String> {
    let file = fs::read_to_string(repository().join(RUNBOOK)).unwrap();
    let sections = file.split("\n## ").skip(1).map(|section| {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        (heading.to_lowercase().replace(' ', "-"), body.to_owned())
    });
    sections.collect()
}

/// Returns `true` for a link to a section or the whole runbook, and `None` for a link elsewhere.
pub(super) fn leads_to_section(link: &str, runbook: &str) -> Option<bool> {
    let rest = link.strip_prefix(runbook)?;
    Some(rest.is_empty() || rest.strip_prefix('#').is_some_and(|anchor| sections().contains_key(anchor)))
}

#[test]
fn every_runbook_section_has_three_parts() {
    let sections = sections();
    assert!(sections.len() > 10, "{sections:?}");
    for (name, body) in &sections {
        for word in ["**Means:**", "**Look:**", "**Do:**"] {
            assert!(body.contains(word), "{RUNBOOK}#{name} has no {word}");
        }
    }
    let file = fs::read_to_string(repository().join(RUNBOOK)).unwrap();
    for link in file.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let leads = match leads_to_section(link, "") {
            Some(true) => true,
            _ => repository().join("docs").join(link).exists(),
        };
        assert!(leads, "{RUNBOOK} links to {link}, which is missing");
    }
}

/// Returns the words between backticks, without code blocks.
fn quoted() -> Vec<String> {
    let file = fs::read_to_string(repository().join(RUNBOOK)).unwrap();
    let prose: String = file.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(|words| words.replace('\n', " ")).collect()
}

/// Returns the text of a file, or of all files in a folder.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    fs::read_dir(path).unwrap().map(|entry| text_of(&entry.unwrap().path())).collect()
}

#[tokio::test]
async fn quoted_redis_commands_work_for_admin() {
    let redis = Redis::running().await;
    let quoted = quoted();
    let commands: Vec<&String> =
        quoted.iter().filter(|words| COMMANDS.contains(&words.split(' ').next().unwrap())).collect();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let words = command.trim_start_matches("redis-cli ").split(' ').map(str::to_owned);
        let cli = ChildProgram::system("redis-cli", "redis-cli")
            .args(["-e".to_owned()])
            .args(redis.admin_flags())
            .args(words);
        let finished = cli.run(Duration::from_secs(10)).await;
        assert_eq!(finished.code, Some(0), "{command}: {finished:?}");
    }
}

#[tokio::test]
async fn every_quoted_word_exists_in_sources() {
    let redis = Redis::running().await;
    let info: String = redis.call("INFO everything").await;
    let known: String = SOURCES.iter().map(|source| text_of(&repository().join(source))).chain([info]).collect();
    for words in quoted().iter().filter(|words| !COMMANDS.contains(&words.split(' ').next().unwrap())) {
        // The name of a metric, or the path of a request.
        let word = words.split('{').next().unwrap().trim_start_matches("curl G1:9180");
        assert!(known.contains(word), "{RUNBOOK}: {words:?} is in none of the sources");
    }
}
