#![allow(clippy::unwrap_used)]

use prometheus::TextEncoder;

use super::*;

fn scrape(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

/// Every row counts for itself: a table whose rows are out of order would count under another's name.
fn counts_under_its_own_name<L: Label>() {
    let registry = Registry::new();
    let labelled = Labelled::<L, IntCounter>::counters(&registry, "n_total", "Counted.", "row");
    for (place, row) in L::ROWS.iter().enumerate() {
        labelled[*row].inc_by(place as u64 + 1);
    }
    let text = scrape(&registry);
    for (place, row) in L::ROWS.iter().enumerate() {
        let line = format!("n_total{{row=\"{}\"}} {}\n", row.value(), place + 1);
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[test]
fn codes_count_under_their_own_names() {
    counts_under_its_own_name::<ErrorCode>();
    counts_under_its_own_name::<CloseCode>();
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let metrics = Metrics::new();
    metrics.api_request("/v1/users/{nick}", 404, Duration::from_millis(3));
    metrics.api_request("/v1/users/{nick}", 404, Duration::from_millis(9));
    metrics.fences.inc();
    let text = scrape(&metrics.registry);
    for line in [
        "parley_api_requests_total{route=\"/v1/users/{nick}\",status=\"404\"} 2\n",
        "parley_api_request_seconds_bucket{route=\"/v1/users/{nick}\",le=\"0.004\"} 1\n",
        "parley_api_request_seconds_count{route=\"/v1/users/{nick}\"} 2\n",
        "parley_fences_total 1\n",
        "parley_reaped_nicks_total 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn two_nodes_of_one_process_count_apart_and_tell_about_the_process_alike() {
    let (one, two) = (Metrics::new(), Metrics::new());
    one.fences.inc();
    let (one, two) = (scrape(&one.registry), scrape(&two.registry));
    assert!(one.contains("parley_fences_total 1\n") && two.contains("parley_fences_total 0\n"));
    let version = format!("parley_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
    for text in [one, two] {
        assert!(text.contains(&version) && text.contains("process_resident_memory_bytes "), "{text}");
    }
}
