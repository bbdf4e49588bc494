//! Rounds that the hub writes past the transport, among everything that the transport writes itself.

use std::sync::atomic::AtomicBool;

use crate::outbound::outbox::FanOutBatch;

use super::*;

/// So many different things are sent.
const MIXED: usize = 1000;

fn round(texts: &[&str]) -> FanOutBatch {
    FanOutBatch::new(texts.iter().map(|text| message(text)).collect())
}

/// Sends `0`, `1`, `2`, .. as rounds, events and answers in turn, some of them large, as fast as there is room.
async fn send_mixed(outbox: Outbox) {
    let hears = AtomicBool::new(true);
    for number in 0..MIXED {
        let padding = if number % 7 == 0 { 20_000 } else { 10 };
        let text = format!("<{number}>{}", "x".repeat(padding));
        match number % 3 {
            0 => drop(outbox.push_batch(&round(&[&text]), &hears)),
            1 => drop(outbox.push_event(&message(&text))),
            _ => outbox.push_reply(Reply {
                id: None,
                answer: Answer::History { to: "#lobby".into(), items: vec![lobby_message(&text)], more: false },
            }),
        }
        if number % 50 == 0 {
            soon(outbox.wait_for_room()).await;
        }
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The numbers that were sent, as they stand in what was received.
fn numbers(text: &str) -> Vec<usize> {
    let starts = text.match_indices('<').filter_map(|(at, _)| text[at + 1..].split_once('>'));
    starts.filter_map(|(number, _)| number.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_events_and_answers_keep_their_order_however_much_the_socket_takes() {
    let world = ListenFixture::open();
    let (mut ws, mut line) = (world.websocket().await, world.line_client().await);
    let sending = [0, 1].map(|session| tokio::spawn(send_mixed(world.outbox(session))));
    for session in [0, 1] {
        eventually("the socket takes no more", || !world.outbox(session).is_empty()).await;
    }
    let (mut seen, mut pongs) = (Vec::new(), 0);
    while seen.len() < MIXED {
        // Pongs come out of the transport, at any time, and go between whole frames only.
        if seen.len() % 100 == 0 {
            ws.0.send(&frame(0x89, b"ping")).await;
        }
        match ws.frame().await.expect("the connection ended") {
            (0x8A, _) => pongs += 1,
            (first, payload) => {
                assert_eq!(first, 0x81, "{payload:?}");
                seen.extend(numbers(&String::from_utf8(payload).unwrap()));
            }
        }
    }
    assert_eq!(seen, Vec::from_iter(0..MIXED));
    assert!(pongs > 0, "no pong came between");

    let last = format!("<{}>", MIXED - 1);
    while !line.seen.ends_with(b"\n")
        || !line
            .seen
            .rsplit(|byte| *byte == b'\n')
            .nth(1)
            .is_some_and(|end| end.windows(last.len()).any(|part| part == last.as_bytes()))
    {
        assert!(line.more().await > 0, "the connection ended");
    }
    assert_eq!(numbers(str::from_utf8(&line.seen).unwrap()), seen);
    for sending in sending {
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_round_goes_out_at_once_when_nothing_waits() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    client.is_alive().await;
    let outbox = world.outbox(0);
    outbox.push_batch(&round(&["one", "two"]), &AtomicBool::new(true));
    assert!(outbox.take().is_some_and(|batch| batch.items.is_empty()), "the socket has taken it");
    let _ = outbox.finish_write();
    assert!(client.text().await.contains("one") && client.text().await.contains("two"));
}

/// Gives rounds until the socket takes no more, without a pause in which the transport could do something. Returns how many.
fn fill(outbox: &Outbox, text: &str) -> usize {
    let hears = AtomicBool::new(true);
    let full = (1..1000).find(|_| {
        outbox.push_batch(&round(&[text]), &hears);
        !outbox.is_empty()
    });
    full.expect("the socket takes whatever there is")
}

#[tokio::test]
async fn a_frame_that_the_socket_took_half_of_is_sent_to_its_end_however_the_connection_ends() {
    let world = ListenFixture::with(ConnectionLimits { close_wait: PATIENCE, ..limits() }, None);
    let text = "x".repeat(50_000);
    // What the transport looks at first, the goodbye or the rest of the round, is left to chance.
    for (session, goodbye) in [false, true].into_iter().cycle().take(12).enumerate() {
        let mut client = world.websocket().await;
        client.is_alive().await;
        let outbox = world.outbox(session);
        if goodbye {
            client.0.send(&frame(0x88, &1000_u16.to_be_bytes())).await;
        }
        let rounds = fill(&outbox, &text);
        if !goodbye {
            outbox.push_batch(&round(&[&text]), &AtomicBool::new(true));
            outbox.close(CloseCode::Slow);
        }
        let mut whole = 0;
        loop {
            let (first, payload) = client.frame().await.expect("no close frame");
            if first == 0x88 {
                break;
            }
            assert_eq!(first, 0x81, "bytes in the middle of a frame are taken for its head");
            let is_whole = payload.len() > text.len() && payload.ends_with(b"\"}");
            assert!(is_whole, "cut in goodbye {goodbye}: {} bytes, {:?}", payload.len(), payload.get(..60));
            whole += 1;
        }
        assert_eq!(whole, rounds + usize::from(!goodbye));
    }
}
