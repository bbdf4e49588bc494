//! Bad input in binary formats: one coded answer each, and the connection lives unless the framing is broken.

use harness::packed::{self, PackedWire};
use harness::{Cluster, WsClient};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::{PATIENCE, WAYS, connect};

/// Sends a packed message as it is.
async fn send(client: &WsClient, (_, wire, is_tcp): (&str, PackedWire, bool), message: &[u8]) {
    match is_tcp {
        true => client.send_bytes(&packed::frame(wire, message)).await,
        false => client.send_message(Message::binary(message.to_vec())).await,
    }
}

async fn refusal(client: &WsClient) -> Value {
    client.expect_event(PATIENCE, "refusal", |frame| frame["type"] == "error").await.value
}

/// Returns messages that are refused in every format, with the code.
fn refused(wire: PackedWire) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let send = |fields: Value| {
        let mut request = json!({"type": "send", "to": "#lobby"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        packed::encode(wire, &request)
    };
    let nested = (0..33).fold(json!(1), |inner, _| json!([inner]));
    let ping = packed::encode(wire, &json!({"type": "ping"}));
    let bomb = [&[0x80, 4][..], &[0xFF, 0xFF, 0xFF, 0x7F], &[0; 100]].concat();
    let long = [&[0, 4][..], &vec![b'x'; 70_000]].concat();
    let mut cut = send(json!({"body": "hello"}));
    cut.pop();
    vec![
        ("no body", send(json!({})), "bad_request"),
        ("nesting", send(json!({"body": nested})), "bad_request"),
        ("unknown type", [&[0x12, 0x34][..], &ping[2..]].concat(), "unknown_type"),
        ("type of a reply", [&[1, 14][..], &ping[2..]].concat(), "unknown_type"),
        ("trailing byte", [&ping[..], &[0x00]].concat(), "bad_request"),
        ("cut payload", cut, "bad_request"),
        ("no payload that inflates", bomb, "too_large"),
        ("corrupt compression", vec![0x80, 14, 5, 0xFF, 0xFF], "bad_request"),
        ("long payload", long, "too_large"),
    ]
}

#[tokio::test]
async fn bad_messages_get_one_coded_answer() {
    let cluster = Cluster::builder().gateways(1).gateway_setting("limits.profile", "open").start().await;
    for way in WAYS {
        let client = connect(&cluster, 0, way).await;
        client.register(way.0).await;
        client.join("#lobby").await;
        for (what, message, code) in refused(way.1) {
            send(&client, way, &message).await;
            assert_eq!(refusal(&client).await["code"], code, "{}: {what}", way.0);
            client.must(json!({"type": "ping"})).await;
        }
        client.sends("#lobby", "still there").await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn compressed_requests_are_read() {
    let cluster = Cluster::builder().gateways(1).start().await;
    for way in WAYS {
        let client = connect(&cluster, 0, way).await;
        client.register(way.0).await;
        client.join("#lobby").await;
        let body = "zip".repeat(1000);
        let plain = packed::encode(way.1, &json!({"type": "send", "to": "#lobby", "body": body}));
        send(&client, way, &packed::compressed(&plain)).await;
        let message = client.expect_event(PATIENCE, "message", |frame| frame["type"] == "message").await.value;
        assert_eq!(message["body"], body, "{}", way.0);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn broken_framing_ends_one_connection_only() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let neighbour = connect(&cluster, 0, WAYS[3]).await;
    neighbour.register("neighbour").await;
    for (bytes, code) in [
        (&[0xCA, 0xFE, 0xBA, 0xBF][..], 1002),
        (&[0xCA, 0xFE, 0xBA, 0xBE, 7], 1002),
        (&[0xCA, 0xFE, 0xBA, 0xBE, 1], 1002),
        (&[0xCA, 0xFE, 0xBA, 0xBE, 2, 0x7F, 0, 0, 0], 1009),
    ] {
        let client = connect(&cluster, 0, WAYS[3]).await;
        client.must(json!({"type": "ping"})).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.closed().await.code, Some(code), "{bytes:?}");
        neighbour.must(json!({"type": "ping"})).await;
    }
    for way in [WAYS[0], WAYS[1]] {
        let client = connect(&cluster, 0, way).await;
        client.send_message(Message::text("{}")).await;
        assert_eq!(client.closed().await.code, Some(1003), "{}", way.0);
    }
    cluster.finish().await;
}

/// 64 KiB, and 1 MiB that are skipped.
#[tokio::test]
async fn payload_limits_are_the_same_over_both_carriers() {
    let cluster = Cluster::builder().gateways(1).gateway_setting("limits.profile", "open").start().await;
    for way in [WAYS[3], WAYS[0]] {
        let client = connect(&cluster, 0, way).await;
        for (payload_bytes, answer) in [(65_536, "pong"), (65_537, "error"), (1 << 20, "error")] {
            // A map with the unknown field 1000, and 9 bytes before its text.
            let text_bytes = u32::try_from(payload_bytes - 9).unwrap();
            let head = [&b"\x00\x0e\x81\xcd\x03\xe8\xdb"[..], &text_bytes.to_be_bytes()].concat();
            send(&client, way, &[head, vec![b'x'; text_bytes as usize]].concat()).await;
            let what = format!("{}: {answer} to {payload_bytes} bytes", way.0);
            let received = client.expect_event(PATIENCE, &what, |_| true).await.value;
            assert_eq!(received["type"], answer, "{what}");
        }
    }
    cluster.finish().await;
}

/// The version is known, though the length is not acceptable.
#[tokio::test]
async fn closing_has_the_version_of_the_first_frame() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let mut stream = TcpStream::connect(cluster.gateways[0].tcp()).await.unwrap();
    stream.write_all(b"\xca\xfe\xba\xbe\x02\x00\x10\x00\x01").await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut received)).await.unwrap().unwrap();
    let start = received.windows(4).position(|bytes| bytes == b"\xca\xfe\xba\xbe").unwrap();
    assert_eq!(received[start + 4], 2, "{}", received.escape_ascii());
    cluster.finish().await;
}
