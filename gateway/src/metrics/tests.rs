#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use presence::registry::{Generation, Phase};
use presence::store::memory::Store;
use prometheus::TextEncoder;

use super::*;
use crate::backplane::{Backplane, Delivery, MemoryBackplane};
use crate::hub::position::StreamStep;
use crate::message::Accepted;

fn scrape(metrics: &Metrics) -> String {
    TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap()
}

fn assert_line(metrics: &Metrics, line: &str) {
    let text = scrape(metrics);
    assert!(text.lines().any(|found| found == line), "{line} in {text}");
}

#[test]
fn every_series_exists_from_the_start() {
    let metrics = Metrics::new();
    for line in [
        "parley_connections{door=\"ws\",state=\"handshake\"} 0",
        "parley_messages_refused_total{code=\"not_in_room\"} 0",
        "parley_messages_duplicate_total{kind=\"room\"} 0",
        "parley_gap_messages_total{outcome=\"lost\"} 0",
        "parley_delivery_seconds_bucket{le=\"0.00005\"} 0",
        "parley_drain_began_with_sessions 0",
        "parley_connections_total{door=\"tcp\"} 0",
        "parley_registrations_total{outcome=\"nick_confusable\"} 0",
        "parley_messages_published_total{kind=\"direct\"} 0",
        "parley_messages_delivered_total 0",
        "parley_events_dropped_total 0",
        "parley_refusals_total{code=\"overloaded\"} 0",
        "parley_closes_total{code=\"slow_consumer\"} 0",
        "parley_backplane_reconnects_total 0",
        "parley_fences_total 0",
        "parley_repaired_total 0",
    ] {
        assert_line(&metrics, line);
    }
    let text = scrape(&metrics);
    assert_eq!(text.matches("parley_refusals_total{").count(), ErrorCode::ALL.len());
    assert_eq!(text.matches("parley_closes_total{").count(), CloseCode::ALL.len());
}

#[test]
fn connection_counts_under_its_listener_and_stage() {
    let metrics = Metrics::new();
    [ListenerKind::Ws, ListenerKind::Ws, ListenerKind::Tcp]
        .into_iter()
        .for_each(|port| metrics.connection_accepted(port));
    metrics.connection_opened(ListenerKind::Ws);
    for line in [
        "parley_connections{door=\"ws\",state=\"handshake\"} 1",
        "parley_connections{door=\"ws\",state=\"open\"} 1",
        "parley_connections{door=\"tcp\",state=\"handshake\"} 1",
    ] {
        assert_line(&metrics, line);
    }
    metrics.connection_closed(ListenerKind::Ws, Stage::Open);
    metrics.connection_closed(ListenerKind::Ws, Stage::Handshake);
    assert_eq!((metrics.open(ListenerKind::Ws), metrics.open(ListenerKind::Tcp)), (0, 1));
    assert_line(&metrics, "parley_connections{door=\"ws\",state=\"open\"} 0");
    assert_line(&metrics, "parley_connections_total{door=\"ws\"} 2");
}

#[test]
fn row_counts_under_its_own_name() {
    let metrics = Metrics::new();
    metrics.refusals[ErrorCode::NotInRoom].inc();
    metrics.closes[CloseCode::Kicked].inc();
    metrics.published[MessageKind::Room].inc_by(2);
    metrics.registrations[RegistrationOutcome::Failed].inc();
    assert_line(&metrics, "parley_refusals_total{code=\"not_in_room\"} 1");
    assert_line(&metrics, "parley_closes_total{code=\"kicked\"} 1");
    assert_line(&metrics, "parley_messages_published_total{kind=\"room\"} 2");
    assert_line(&metrics, "parley_registrations_total{outcome=\"failed\"} 1");
    metrics.resumes[ResumeOutcome::UnknownToken].inc();
    assert_line(&metrics, "parley_resumes_total{outcome=\"unknown_token\"} 1");
}

#[tokio::test]
async fn scrape_reads_the_current_values() {
    let metrics = Metrics::new();
    let backplane = Backplane::Memory(MemoryBackplane::start(Store::default(), Arc::new(|_: Delivery| {})));
    metrics.at_scrape(AtScrape {
        sessions: Box::new(|| 3),
        detached: Box::new(|| 1),
        rooms: Box::new(|| 2),
        unsafe_bytes: Box::new(|| 7),
        generation: Box::new(|| Generation { number: 7, phase: Phase::Recovering }),
        beat_age: Box::new(|| Duration::from_millis(250)),
        subscription: Box::new(move || backplane.subscription()),
        draining: Box::new(|| true),
    });
    metrics.pull_stalled(|| 1, || 4096);
    for line in [
        "parley_sessions 3",
        "parley_detached_sessions 1",
        "parley_store_generation 7",
        "parley_store_recovering 1",
        "parley_rooms 2",
        "parley_repair_bytes 7",
        "parley_beat_age_seconds 0.25",
        "parley_draining 1",
        "parley_backplane_subscribed 1",
        "parley_backplane_gap_seconds_total 0",
        "parley_backplane_malformed_total 0",
        "parley_stalled_connections 1",
        "parley_outbox_bytes 4096",
    ] {
        assert_line(&metrics, line);
    }
    let text = scrape(&metrics);
    assert!(text.contains("# TYPE parley_backplane_gap_seconds_total counter"), "the gap is a counter: {text}");
}

#[test]
fn batches_gaps_and_writes_are_counted() {
    let metrics = Metrics::new();
    metrics.counts.fan_out_finished(30);
    metrics.counts.fan_out_finished(0);
    metrics.counts.gap::<&str>(&[
        StreamStep::Message(4, "a"),
        StreamStep::Gap { from: 5, to: 9 },
        StreamStep::Message(10, "b"),
    ]);
    metrics.counts.deliveries.written(Accepted::at(SystemTime::now() - Duration::from_secs(3)), 30);
    metrics.counts.deliveries.written(Accepted::default(), 5);
    for line in [
        "parley_messages_delivered_total 30",
        "parley_fanout_round_deliveries_bucket{le=\"20\"} 0",
        "parley_fanout_round_deliveries_bucket{le=\"50\"} 1",
        "parley_gaps_found_total 1",
        "parley_gap_messages_total{outcome=\"repaired\"} 2",
        "parley_gap_messages_total{outcome=\"lost\"} 5",
        "parley_delivery_seconds_bucket{le=\"2\"} 0",
        "parley_delivery_seconds_bucket{le=\"5\"} 30",
        "parley_delivery_seconds_count 30",
    ] {
        assert_line(&metrics, line);
    }
}
