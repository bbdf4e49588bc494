//! [`Pulled`]: a metric whose value a closure reads at each scrape.
//!
//! Unlike the pulling gauge of the library it can be a counter, can have a label, and is left out of the scrape while
//! the value is unknown: a missing value alerts operators, a stale one misleads them. It stores no value itself.

use std::collections::HashMap;
use std::fmt;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::REGISTERED_ONCE;
use super::histogram::pair;

/// Source of the current value; returns `None` while it is unknown. Must not block.
type ReadValue = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// A metric that is read at the scrape.
pub struct Pulled {
    desc: Desc,
    kind: MetricType,
    label: Option<&'static str>,
    /// Sources with their label values.
    sources: Vec<(&'static str, ReadValue)>,
}

impl Pulled {
    /// Registers a gauge without labels.
    pub fn gauge(
        registry: &Registry,
        name: &str,
        help: &str,
        source: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let desc = describe(name, help, None);
        Self { desc, kind: MetricType::GAUGE, label: None, sources: vec![("", Box::new(source))] }.register(registry);
    }

    /// Registers a counter without labels. Its source never decreases while the process lives.
    pub fn counter(
        registry: &Registry,
        name: &str,
        help: &str,
        source: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        let desc = describe(name, help, None);
        Self { desc, kind: MetricType::COUNTER, label: None, sources: vec![("", Box::new(source))] }.register(registry);
    }

    /// Registers gauges of one name: a label, and its values with their sources.
    pub fn gauges<A>(
        registry: &Registry,
        name: &str,
        help: &str,
        (label, sources): (&'static str, impl IntoIterator<Item = (&'static str, A)>),
    ) where
        A: Fn() -> Option<f64> + Send + Sync + 'static,
    {
        let sources = sources.into_iter().map(|(value, source)| (value, Box::new(source) as ReadValue)).collect();
        let desc = describe(name, help, Some(label));
        Self { desc, kind: MetricType::GAUGE, label: Some(label), sources }.register(registry);
    }

    fn register(self, registry: &Registry) {
        registry.register(Box::new(self)).expect(REGISTERED_ONCE);
    }

    fn metric(&self, label_value: &str, number: f64) -> proto::Metric {
        let mut metric =
            proto::Metric::from_label(self.label.map(|label| pair(label, label_value)).into_iter().collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl Collector for Pulled {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = self.sources.iter().filter_map(|(value, source)| Some(self.metric(value, source()?)));
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulled").field("name", &self.desc.fq_name).finish_non_exhaustive()
    }
}

fn describe(name: &str, help: &str, label: Option<&str>) -> Desc {
    let labels = label.into_iter().map(str::to_owned).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect(REGISTERED_ONCE)
}
