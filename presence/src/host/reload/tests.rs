#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::host::settings::key;

use super::*;

const KEYS: &[Key] = &[key::NODE_ID, key::LOG_LEVEL, key::DRAIN_GRACE];

/// A reloader with a settings file, and the values that it applied.
struct ReloadTest {
    reloader: Reloader,
    metrics: Registry,
    applied: Vec<String>,
}

impl ReloadTest {
    fn new(file: &Path) -> Self {
        let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
        let settings = Settings::load(KEYS, &sources).unwrap();
        let metrics = Registry::new();
        Self { reloader: Reloader::new(KEYS, sources, settings, &metrics), metrics, applied: Vec::new() }
    }

    fn reload(&mut self) -> Outcome {
        self.reloader.reload(|settings| settings.grace(), |grace| self.applied.push(format!("{grace:?}")))
    }

    /// Returns the value of a series, found by the start of its line.
    fn number(&self, series: &str) -> Option<f64> {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.metrics.gather()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    fn hashes(&self) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.metrics.gather()).unwrap();
        text.lines().filter(|line| line.starts_with("parley_config_info")).map(str::to_owned).collect()
    }
}

#[test]
fn reload_applies_only_a_valid_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("node.id = 'a'");
    let mut world = ReloadTest::new(&file);
    let before = world.hashes();
    assert_eq!(before.len(), 1);

    for bad in ["drain.grace_seconds = 'soon'", "drain.grace = 1", "[", "log.level = ['a']"] {
        write(bad);
        assert_eq!(world.reload(), Outcome::Rejected, "{bad}");
    }
    assert_eq!((world.applied.len(), &world.hashes()), (0, &before));

    write("node.id = 'b'\ndrain.grace_seconds = 7");
    assert_eq!(world.reload(), Outcome::Applied);
    assert_eq!(world.applied, ["7s"]);
    let after = world.hashes();
    assert_eq!(after.len(), 1);
    assert_ne!(after, before);
    assert_eq!(world.number("parley_config_restart_pending"), Some(1.0), "node.id waits for a restart");
    assert_eq!(world.number(r#"parley_config_reloads_total{outcome="applied"}"#), Some(1.0));
    assert_eq!(world.number(r#"parley_config_reloads_total{outcome="rejected"}"#), Some(4.0));

    write("node.id = 'a'\ndrain.grace_seconds = 7");
    assert_eq!(world.reload(), Outcome::Applied);
    assert_eq!(world.number("parley_config_restart_pending"), Some(0.0), "the old node.id waits for nothing");
    assert_eq!(world.hashes(), after);
}
