#![allow(clippy::unwrap_used)]

use prometheus::TextEncoder;

use super::*;

fn scrape(metrics: &Metrics) -> String {
    TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap()
}

fn assert_line(metrics: &Metrics, line: &str) {
    let text = scrape(metrics);
    assert!(text.lines().any(|found| found == line), "{line} in {text}");
}

#[test]
fn every_series_is_there_before_anything_happened() {
    let metrics = Metrics::new();
    for line in [
        "parley_connections{door=\"ws\"} 0",
        "parley_connections_total{door=\"tcp\"} 0",
        "parley_registrations_total{outcome=\"nick_confusable\"} 0",
        "parley_messages_published_total{kind=\"direct\"} 0",
        "parley_messages_delivered_total 0",
        "parley_events_dropped_total 0",
        "parley_refusals_total{code=\"overloaded\"} 0",
        "parley_closes_total{code=\"slow_consumer\"} 0",
        "parley_backplane_reconnects_total 0",
        "parley_fences_total 0",
    ] {
        assert_line(&metrics, line);
    }
    let text = scrape(&metrics);
    assert_eq!(text.matches("parley_refusals_total{").count(), ErrorCode::ALL.len());
    assert_eq!(text.matches("parley_closes_total{").count(), CloseCode::ALL.len());
}

#[test]
fn a_connection_counts_as_open_until_it_is_dropped() {
    let metrics = Metrics::new();
    let first = metrics.connected(Port::Ws);
    let second = metrics.connected(Port::Ws);
    let _other = metrics.connected(Port::Tcp);
    drop(first);
    assert_line(&metrics, "parley_connections{door=\"ws\"} 1");
    assert_line(&metrics, "parley_connections{door=\"tcp\"} 1");
    assert_line(&metrics, "parley_connections_total{door=\"ws\"} 2");
    drop(second);
    assert_line(&metrics, "parley_connections{door=\"ws\"} 0");
    assert_line(&metrics, "parley_connections_total{door=\"ws\"} 2");
}

#[test]
fn a_row_counts_under_its_own_name() {
    let metrics = Metrics::new();
    metrics.refusals[ErrorCode::NotInRoom].inc();
    metrics.closes[CloseCode::Kicked].inc();
    metrics.published[Kind::Room].inc_by(2);
    metrics.registrations[Registration::Failed].inc();
    assert_line(&metrics, "parley_refusals_total{code=\"not_in_room\"} 1");
    assert_line(&metrics, "parley_closes_total{code=\"kicked\"} 1");
    assert_line(&metrics, "parley_messages_published_total{kind=\"room\"} 2");
    assert_line(&metrics, "parley_registrations_total{outcome=\"failed\"} 1");
    metrics.resumes[Return::UnknownToken].inc();
    assert_line(&metrics, "parley_resumes_total{outcome=\"unknown_token\"} 1");
}

#[test]
fn gauges_are_asked_at_the_scrape() {
    let metrics = Metrics::new();
    metrics.at_scrape(AtScrape {
        sessions: Box::new(|| 3),
        detached: Box::new(|| 1),
        rooms: Box::new(|| 2),
        beat_age: Box::new(|| 0.25),
    });
    assert_line(&metrics, "parley_sessions 3");
    assert_line(&metrics, "parley_detached_sessions 1");
    assert_line(&metrics, "parley_rooms 2");
    assert_line(&metrics, "parley_beat_age_seconds 0.25");
}
