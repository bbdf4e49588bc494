//! Fan-out batches that the hub writes directly to the socket, mixed with the transport's own writes.
//!
//! Order holds across both writers, and frames stay whole. The hub's choice of recipients is tested elsewhere.

use std::sync::atomic::AtomicBool;

use crate::outbound::outbox::FanOutBatch;

use super::*;

/// Number of mixed writes.
const MIXED_WRITES: usize = 1000;

fn fan_out_batch(texts: &[&str]) -> FanOutBatch {
    FanOutBatch::new(texts.iter().map(|text| message(text)).collect())
}

/// Sends the numbers from 0 as batches, events and answers alternately, as fast as the outbox accepts them.
/// Every seventh one is large.
async fn send_mixed(outbox: Outbox) {
    let subscribed = AtomicBool::new(true);
    for number in 0..MIXED_WRITES {
        let padding = if number % 7 == 0 { 20_000 } else { 10 };
        let text = format!("<{number}>{}", "x".repeat(padding));
        match number % 3 {
            0 => drop(outbox.push_batch(&fan_out_batch(&[&text]), &subscribed)),
            1 => drop(outbox.push_event(&message(&text))),
            _ => outbox.push_reply(Reply {
                id: None,
                answer: Answer::History { to: "#lobby".into(), items: vec![lobby_message(&text)], more: false },
            }),
        }
        if number % 50 == 0 {
            soon(outbox.wait_for_space()).await;
        }
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Returns the sent numbers in the order of the received text.
fn received_numbers(text: &str) -> Vec<usize> {
    let starts = text.match_indices('<').filter_map(|(at, _)| text[at + 1..].split_once('>'));
    starts.filter_map(|(number, _)| number.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_events_and_answers_keep_their_order() {
    let fixture = ListenFixture::open();
    let (mut ws, mut line) = (fixture.websocket().await, fixture.line_client().await);
    let sending = [0, 1].map(|session| tokio::spawn(send_mixed(fixture.outbox(session))));
    for session in [0, 1] {
        eventually("the socket buffer is full", || !fixture.outbox(session).is_empty()).await;
    }
    let (mut received, mut pongs) = (Vec::new(), 0);
    while received.len() < MIXED_WRITES {
        // The transport sends pongs at any time, but only between whole frames.
        if received.len() % 100 == 0 {
            ws.0.send(&frame(0x89, b"ping")).await;
        }
        match ws.frame().await.expect("the connection ended") {
            (0x8A, _) => pongs += 1,
            (first, payload) => {
                assert_eq!(first, 0x81, "{payload:?}");
                received.extend(received_numbers(&String::from_utf8(payload).unwrap()));
            }
        }
    }
    assert_eq!(received, Vec::from_iter(0..MIXED_WRITES));
    assert!(pongs > 0, "no pong arrived between the messages");

    let last = format!("<{}>", MIXED_WRITES - 1);
    while !line.received.ends_with(b"\n")
        || !line
            .received
            .rsplit(|byte| *byte == b'\n')
            .nth(1)
            .is_some_and(|end| end.windows(last.len()).any(|part| part == last.as_bytes()))
    {
        assert!(line.more().await > 0, "the connection ended");
    }
    assert_eq!(received_numbers(str::from_utf8(&line.received).unwrap()), received);
    for sending in sending {
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn batch_reaches_an_idle_socket_immediately() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.assert_alive().await;
    let outbox = fixture.outbox(0);
    outbox.push_batch(&fan_out_batch(&["one", "two"]), &AtomicBool::new(true));
    assert!(outbox.take().is_some_and(|batch| batch.items.is_empty()), "the batch is still queued");
    let _ = outbox.finish_write();
    assert!(client.text().await.contains("one") && client.text().await.contains("two"));
}

/// Writes batches without yielding to the transport until the socket buffer is full. Returns the number of batches.
fn fill_socket(outbox: &Outbox, text: &str) -> usize {
    let subscribed = AtomicBool::new(true);
    let full = (1..1000).find(|_| {
        outbox.push_batch(&fan_out_batch(&[text]), &subscribed);
        !outbox.is_empty()
    });
    full.expect("the socket buffer never filled")
}

#[tokio::test]
async fn closing_connection_completes_its_partly_written_frame() {
    let fixture = ListenFixture::with(ConnectionLimits { close_wait: PATIENCE, ..limits() }, None);
    let text = "x".repeat(50_000);
    // The transport polls the close and the rest of the batch in random order, so both orders run.
    for (session, client_closes) in [false, true].into_iter().cycle().take(12).enumerate() {
        let mut client = fixture.websocket().await;
        client.assert_alive().await;
        let outbox = fixture.outbox(session);
        if client_closes {
            client.0.send(&frame(0x88, &1000_u16.to_be_bytes())).await;
        }
        let batches = fill_socket(&outbox, &text);
        if !client_closes {
            outbox.push_batch(&fan_out_batch(&[&text]), &AtomicBool::new(true));
            outbox.close(CloseCode::Slow);
        }
        let mut whole = 0;
        loop {
            let (first, payload) = client.frame().await.expect("no close frame");
            if first == 0x88 {
                break;
            }
            assert_eq!(first, 0x81, "payload bytes were read as a frame header");
            let is_whole = payload.len() > text.len() && payload.ends_with(b"\"}");
            assert!(
                is_whole,
                "cut frame, client closes {client_closes}: {} bytes, {:?}",
                payload.len(),
                payload.get(..60)
            );
            whole += 1;
        }
        assert_eq!(whole, batches + usize::from(!client_closes));
    }
}
