#![allow(clippy::unwrap_used)]

use std::time::Duration;

use prometheus::TextEncoder;

use super::*;

fn scrape(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

/// Checks that every row counts under its own label: a table with rows out of order would count under another one.
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
fn histogram_counts_batches_in_their_bucket() {
    let registry = Registry::new();
    let delivery = Family::single(&registry, "took_seconds", "Time.", Bounds::SECONDS);
    delivery.record(Duration::from_micros(50));
    delivery.record_many(51, 3);
    delivery.record(Duration::from_secs(11));
    std::thread::scope(|other| drop(other.spawn(|| delivery.record_many(1_000, 2))));
    let text = scrape(&registry);
    for line in [
        "# TYPE took_seconds histogram",
        "took_seconds_bucket{le=\"0.00005\"} 1",
        "took_seconds_bucket{le=\"0.0001\"} 4",
        "took_seconds_bucket{le=\"0.001\"} 6",
        "took_seconds_bucket{le=\"10\"} 6",
        "took_seconds_bucket{le=\"+Inf\"} 7",
        "took_seconds_count 7",
        "took_seconds_sum 11.002203",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn histograms_of_a_family_count_apart() {
    let registry = Registry::new();
    let (family, by_code) = Family::labelled::<ErrorCode>("h", "Help.", "code", Bounds::RECEIVERS);
    registry.register(Box::new(family)).unwrap();
    by_code[ErrorCode::NotInRoom].record_many(3, 1);
    let text = scrape(&registry);
    assert!(text.contains("h_bucket{code=\"not_in_room\",le=\"2\"} 0\n"), "{text}");
    assert!(text.contains("h_bucket{code=\"not_in_room\",le=\"5\"} 1\n"), "{text}");
    assert!(text.contains("h_count{code=\"overloaded\"} 0\n"), "{text}");
}

#[test]
fn scrape_omits_unknown_values() {
    let registry = Registry::new();
    Pulled::counter(&registry, "risen_total", "Rises.", || Some(2.5));
    Pulled::gauge(&registry, "unknown", "Unknown.", || None);
    let sources = [("a", Some(1.0)), ("b", None)].map(|(value, number)| (value, move || number));
    Pulled::gauges(&registry, "some", "Some are known.", ("who", sources));
    let text = scrape(&registry);
    assert!(text.contains("# TYPE risen_total counter\nrisen_total 2.5\n"), "{text}");
    assert!(text.contains("some{who=\"a\"} 1\n"), "{text}");
    assert!(!text.contains("unknown") && !text.contains("who=\"b\""), "{text}");
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let metrics = PresenceMetrics::new();
    metrics.api.request("/v1/users/{nick}", 404, Duration::from_millis(3));
    metrics.api.request("/v1/users/{nick}", 404, Duration::from_millis(9));
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
fn two_nodes_of_one_process_count_apart() {
    let (one, two) = (PresenceMetrics::new(), PresenceMetrics::new());
    one.fences.inc();
    let (one, two) = (scrape(&one.registry), scrape(&two.registry));
    assert!(one.contains("parley_fences_total 1\n") && two.contains("parley_fences_total 0\n"));
    let version = format!("parley_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
    for text in [one, two] {
        assert!(text.contains(&version) && text.contains("process_resident_memory_bytes "), "{text}");
    }
}
