//! The runbook: its sections, whether a link leads to one, and whether what it quotes exists and works.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{Program, Redis, repository};

const RUNBOOK: &str = "docs/RUNBOOK.md";
/// Where the words are that programs, rules, dashboards and settings use.
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
/// First words of what is said to Redis.
const COMMANDS: &[&str] = &["acl", "client", "config", "info", "latency", "redis-cli", "slowlog"];

/// The sections by the anchors that a reader makes of their headings.
pub(super) fn sections() -> BTreeMap<String, String> {
    let file = fs::read_to_string(repository().join(RUNBOOK)).unwrap();
    let sections = file.split("\n## ").skip(1).map(|section| {
        let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
        (heading.to_lowercase().replace(' ', "-"), body.to_owned())
    });
    sections.collect()
}

/// Whether a link leads to a section, or to the whole runbook; `None` when it leads elsewhere.
pub(super) fn leads_to_section(link: &str, runbook: &str) -> Option<bool> {
    let rest = link.strip_prefix(runbook)?;
    Some(rest.is_empty() || rest.strip_prefix('#').is_some_and(|anchor| sections().contains_key(anchor)))
}

#[test]
fn a_section_says_what_an_alert_means_where_to_look_and_what_to_do() {
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
        assert!(leads, "{RUNBOOK} links to {link}, which is not there");
    }
}

/// What stands between backticks, blocks of code left out.
fn quoted() -> Vec<String> {
    let file = fs::read_to_string(repository().join(RUNBOOK)).unwrap();
    let prose: String = file.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(|words| words.replace('\n', " ")).collect()
}

/// The text of a file, or of all in a folder.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    fs::read_dir(path).unwrap().map(|entry| text_of(&entry.unwrap().path())).collect()
}

#[tokio::test]
async fn what_is_said_to_redis_works_for_the_user_admin() {
    let redis = Redis::running().await;
    let quoted = quoted();
    let commands: Vec<&String> =
        quoted.iter().filter(|words| COMMANDS.contains(&words.split(' ').next().unwrap())).collect();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let words = command.trim_start_matches("redis-cli ").split(' ').map(str::to_owned);
        let cli =
            Program::system("redis-cli", "redis-cli").args(["-e".to_owned()]).args(redis.admin_flags()).args(words);
        let said = cli.run(Duration::from_secs(10)).await;
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
    }
}

#[tokio::test]
async fn every_word_that_is_quoted_exists() {
    let redis = Redis::running().await;
    let info: String = redis.call("INFO everything").await;
    let known: String = SOURCES.iter().map(|source| text_of(&repository().join(source))).chain([info]).collect();
    for words in quoted().iter().filter(|words| !COMMANDS.contains(&words.split(' ').next().unwrap())) {
        // Of a metric its name, of a request its path.
        let word = words.split('{').next().unwrap().trim_start_matches("curl G1:9180");
        assert!(known.contains(word), "{RUNBOOK}: nobody knows {words:?}");
    }
}
