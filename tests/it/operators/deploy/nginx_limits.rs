//! The limits and headers of the production nginx, run for real: shares of one address, HSTS, and origins behind TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::http::{HttpResponse, exchange, get};
use harness::{Cluster, LineClient, Nginx, WsClient, eventually};
use tokio_tungstenite::tungstenite::Error;

use super::nginx::{ShippedNginx, tls_proxy, tls_proxy_from};

const SOON: Duration = Duration::from_secs(10);
/// Another client of nginx.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 31);

/// The production nginx with changed limits, and proxies that connect to it over TLS from two addresses.
struct LimitedFront {
    cluster: Cluster,
    client: Nginx,
    other: Nginx,
    _front: Nginx,
}

impl LimitedFront {
    /// Starts it with each of these texts replaced. A text occurs exactly `count` times.
    async fn start(changes: &[(&str, &str, usize)]) -> Self {
        let cluster = Cluster::builder().gateways(1).local_proxies().start().await;
        let shipped = ShippedNginx::read().await;
        let front = Nginx::configured(|place| {
            changes.iter().fold(shipped.configuration(place, &cluster.gateways, &[]), |text, (from, to, count)| {
                assert_eq!(text.matches(from).count(), *count, "{from}");
                text.replace(from, to)
            })
        })
        .await;
        let (client, other) = (tls_proxy(&front, &shipped).await, tls_proxy_from(OTHER, &front, &shipped).await);
        Self { cluster, client, other, _front: front }
    }
}

/// Returns the answer to a refused handshake.
async fn refused_handshake(address: SocketAddr) -> Result<(u16, Option<String>), String> {
    match WsClient::try_connect(address).await {
        Err(Error::Http(answer)) => {
            let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            Ok((answer.status().as_u16(), retry))
        }
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("admitted".to_owned()),
    }
}

#[tokio::test]
async fn address_fills_only_its_share_of_nginx() {
    let limited = LimitedFront::start(&[("connections 256;", "connections 2;", 2)]).await;
    let (ann, bob) = (WsClient::connect(limited.client.ws()).await, WsClient::connect(limited.client.ws()).await);
    ann.register("ann").await;
    bob.register("bob").await;
    assert_eq!(refused_handshake(limited.client.ws()).await, Ok((429, Some("1".to_owned()))));
    WsClient::connect(limited.other.ws()).await.register("other").await;
    drop(bob);
    eventually(SOON, "the seat is free again", async || {
        WsClient::try_connect(limited.client.ws()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;

    let carl = LineClient::connect(limited.client.tcp()).await;
    let dora = LineClient::connect(limited.client.tcp()).await;
    carl.register("carl").await;
    dora.register("dora").await;
    let refused = exchange(limited.client.tcp(), b"/ping\n").await;
    assert!(refused.is_err(), "the third line client is closed without an answer: {refused:?}");
    LineClient::connect(limited.other.tcp()).await.register("eve").await;
    limited.cluster.finish().await;
}

#[tokio::test]
async fn flood_of_handshakes_is_refused_by_nginx() {
    let limited = LimitedFront::start(&[("rate=20r/s", "rate=1r/m", 1), ("burst=200", "burst=3", 1)]).await;
    for _ in 0..4 {
        WsClient::connect(limited.client.ws()).await;
    }
    assert_eq!(refused_handshake(limited.client.ws()).await, Ok((429, Some("1".to_owned()))));
    for _ in 0..10 {
        assert_eq!(get(limited.client.ws(), "/").await.unwrap().status, 200, "files of the page are not limited");
    }
    WsClient::connect(limited.other.ws()).await.register("other").await;
    limited.cluster.finish().await;
}

/// Returns the answer to a handshake of a page.
async fn page_handshake(address: SocketAddr, host: &str, origin: &str) -> HttpResponse {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\nOrigin: {origin}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n\r\n"
    );
    exchange(address, request.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn page_connects_through_tls_of_nginx() {
    let limited = LimitedFront::start(&[]).await;
    let address = limited.client.ws();
    let page = get(address, "/").await.unwrap();
    assert_eq!((page.status, page.header("strict-transport-security")), (200, Some("max-age=31536000")));
    assert!(page.header("content-security-policy").is_some() && page.header("set-cookie").is_none(), "{page:?}");
    // The key is too short, so an admitted origin meets the next rule, and each answer ends.
    for (host, origin, status) in [
        ("chat.example", "https://chat.example", 400),
        ("chat.example:8443", "https://chat.example:8443", 400),
        ("chat.example:8443", "https://chat.example", 403),
        ("chat.example", "http://chat.example", 403),
        ("chat.example", "https://evil.example", 403),
        ("chat.example", "null", 403),
    ] {
        let answer = page_handshake(address, host, origin).await;
        assert_eq!(answer.status, status, "{host} {origin}: {answer:?}");
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"), "{host} {origin}");
    }
    limited.cluster.finish().await;
}
