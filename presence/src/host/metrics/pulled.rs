//! [`Pulled`]: a metric whose value a closure reads at each scrape.
//!
//! Unlike the pulling gauge of the library it can be a counter, can have a label, and is left out of the scrape while
//! the value is unknown: a missing value is noticed, a stale one is believed. It stores no value itself.

use std::collections::HashMap;
use std::fmt;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::LITERAL;
use super::histogram::pair;

/// Direction of a metric: gauge or counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rises {
    /// It goes up and down: a gauge.
    No,
    /// It only goes up while the process lives: a counter.
    Only,
}

/// Source of the current value; returns `None` while it is unknown. Must not block.
type ReadValue = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// A metric that is read at the scrape.
pub struct Pulled {
    desc: Desc,
    rises: Rises,
    label: Option<&'static str>,
    /// Sources with their label values.
    asks: Vec<(&'static str, ReadValue)>,
}

impl Pulled {
    /// Registers a metric without labels.
    pub fn register(
        registry: &Registry,
        rises: Rises,
        name: &str,
        help: &str,
        ask: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        Self::add(registry, rises, name, help, None, vec![("", Box::new(ask))]);
    }

    /// Registers gauges of one name: each value of `label` with its source.
    pub fn register_each<A>(
        registry: &Registry,
        name: &str,
        help: &str,
        label: &'static str,
        asks: impl IntoIterator<Item = (&'static str, A)>,
    ) where
        A: Fn() -> Option<f64> + Send + Sync + 'static,
    {
        let asks = asks.into_iter().map(|(value, ask)| (value, Box::new(ask) as ReadValue)).collect();
        Self::add(registry, Rises::No, name, help, Some(label), asks);
    }

    fn add(
        registry: &Registry,
        rises: Rises,
        name: &str,
        help: &str,
        label: Option<&'static str>,
        asks: Vec<(&'static str, ReadValue)>,
    ) {
        let labels = label.into_iter().map(str::to_owned).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect(LITERAL);
        registry.register(Box::new(Self { desc, rises, label, asks })).expect(LITERAL);
    }

    fn metric(&self, label_value: &str, number: f64) -> proto::Metric {
        let mut metric =
            proto::Metric::from_label(self.label.map(|label| pair(label, label_value)).into_iter().collect());
        match self.rises {
            Rises::No => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            Rises::Only => {
                let mut counter = proto::Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
        }
        metric
    }
}

impl Collector for Pulled {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = self.asks.iter().filter_map(|(value, ask)| Some(self.metric(value, ask()?)));
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(match self.rises {
            Rises::No => MetricType::GAUGE,
            Rises::Only => MetricType::COUNTER,
        });
        family.set_metric(metrics.collect());
        vec![family]
    }
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulled").field("name", &self.desc.fq_name).finish_non_exhaustive()
    }
}
