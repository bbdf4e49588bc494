//! The sections of the runbook, and whether a link leads to one.

use std::collections::BTreeMap;
use std::fs;

const RUNBOOK: &str = "docs/RUNBOOK.md";

/// The sections by the anchors that a reader makes of their headings.
pub(super) fn sections() -> BTreeMap<String, String> {
    let file = fs::read_to_string(harness::repository().join(RUNBOOK)).unwrap();
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
    let file = fs::read_to_string(harness::repository().join(RUNBOOK)).unwrap();
    for link in file.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let leads = match leads_to_section(link, "") {
            Some(true) => true,
            _ => harness::repository().join("docs").join(link).exists(),
        };
        assert!(leads, "{RUNBOOK} links to {link}, which is not there");
    }
}
