//! [`ApiMetrics`]: the metrics of the HTTP API, on the registry of the program that serves it.

use std::time::Duration;

use prometheus::{
    HistogramVec, IntCounterVec, Registry, exponential_buckets, register_histogram_vec_with_registry,
    register_int_counter_vec_with_registry,
};

use super::REGISTERED_ONCE;

/// Metrics of the HTTP API.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    /// The registry of the program, for counters of single routes.
    pub registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
}

impl ApiMetrics {
    /// Creates the metrics on a registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        // 0.5 ms to 4 s, doubling.
        let buckets = exponential_buckets(0.0005, 2.0, 14).expect("a positive start and a factor over 1");
        Self {
            registry: registry.clone(),
            requests: register_int_counter_vec_with_registry!(
                "parley_api_requests_total",
                "Requests answered by the HTTP API, by route and status.",
                &["route", "status"],
                registry
            )
            .expect(REGISTERED_ONCE),
            request_seconds: register_histogram_vec_with_registry!(
                "parley_api_request_seconds",
                "Time from the head of a request to the head of its response.",
                &["route"],
                buckets,
                registry
            )
            .expect(REGISTERED_ONCE),
        }
    }

    /// Counts an answered request. `route` is the pattern of the route (`/v1/users/{nick}`) or one fixed word without a
    /// match, never the requested path.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}
