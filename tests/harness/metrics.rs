//! A scrape of `/metrics`, with values by name and labels.

use std::collections::{BTreeMap, BTreeSet};

/// One sample of the Prometheus text format.
#[derive(Debug, Clone, PartialEq)]
struct MetricSample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All metrics of a program at one moment.
#[derive(Debug, Clone, Default)]
pub struct ScrapedMetrics {
    samples: Vec<MetricSample>,
    families: Vec<String>,
}

impl ScrapedMetrics {
    /// Reads the Prometheus text format, version 0.0.4.
    ///
    /// # Panics
    /// If a line is not a sample.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        Self { samples, families: types.map(|(name, _)| name.to_owned()).collect() }
    }

    /// Returns the sum of all samples with this name and these labels; `None` if there is no such sample.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is_meant = |sample: &&MetricSample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|held| held == value))
        };
        let mut values = self.samples.iter().filter(is_meant).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// Returns the names of all samples, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the names of all metric families; the three kinds of samples of a histogram have one.
    #[must_use]
    pub fn families(&self) -> &[String] {
        &self.families
    }

    /// Returns the labels of the samples with this name.
    #[must_use]
    pub fn labels(&self, name: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.flat_map(|sample| sample.labels.keys().map(String::as_str)).collect()
    }
}

fn sample(line: &str) -> Option<MetricSample> {
    let (name, mut rest, mut labels) = match line.split_once('{') {
        Some((name, rest)) => (name, rest, BTreeMap::new()),
        None => {
            let (name, value) = line.split_once(' ')?;
            return Some(MetricSample { name: name.to_owned(), labels: BTreeMap::new(), value: number(value)? });
        }
    };
    while !rest.starts_with('}') {
        let (label, quoted) = rest.split_once("=\"")?;
        let end = closing_quote(quoted)?;
        labels.insert(label.to_owned(), unescape(&quoted[..end]));
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some(MetricSample { name: name.to_owned(), labels, value: number(rest[1..].trim_start())? })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Parses a value and ignores a following timestamp.
fn number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_sums_samples_with_matching_labels() {
        let metrics = ScrapedMetrics::parse(
            "# TYPE requests counter\nrequests{listener=\"ws\",code=\"ok\"} 3\nrequests{listener=\"tcp\",code=\"a \\\"b\\\"}\"} 4\nup 1 1700000000\n",
        );
        assert_eq!(metrics.get("requests", &[]), Some(7.0));
        assert_eq!(metrics.get("requests", &[("listener", "ws")]), Some(3.0));
        assert_eq!(metrics.get("requests", &[("code", "a \"b\"}")]), Some(4.0));
        assert_eq!(metrics.get("requests", &[("listener", "irc")]), None);
        assert_eq!(metrics.get("up", &[]), Some(1.0));
        assert_eq!(metrics.names(), ["requests", "up"]);
        assert_eq!(metrics.families(), ["requests"]);
        assert_eq!(metrics.labels("requests"), BTreeSet::from(["code", "listener"]));
    }
}
