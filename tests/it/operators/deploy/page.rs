//! The chat page through nginx: files, validators, compression and the WebSocket, over the same location.

use std::net::SocketAddr;

use harness::http::{self, HttpResponse};
use harness::{Cluster, Nginx, WsClient};

use super::nginx::{ShippedNginx, tls_proxy};

/// Number of requests in a row.
const REPEATS: usize = 20;

async fn ask(front: SocketAddr, path: &str, headers: &str) -> HttpResponse {
    let request = format!("GET {path} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n{headers}\r\n");
    http::exchange(front, request.as_bytes()).await.unwrap()
}

/// Loads the page and its files, and connects.
async fn page_and_websocket_work(front: SocketAddr) {
    let page = ask(front, "/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{page:?}");
    assert!(page.header("content-security-policy").is_some() && page.header("content-encoding").is_none(), "{page:?}");
    let files = page.body.split('"').filter(|text| text.starts_with("/page/") || text.starts_with("/parley/"));
    for path in files.chain(["/"]) {
        let compressed = ask(front, path, "Accept-Encoding: gzip\r\n").await;
        assert_eq!((compressed.status, compressed.header("content-encoding")), (200, Some("gzip")), "{path}");
        assert_eq!(compressed.header("vary"), Some("accept-encoding"), "{path}");
        let tag = compressed.header("etag").expect("a tag");
        let known = ask(front, path, &format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n")).await;
        assert_eq!((known.status, known.header("etag"), known.body.as_str()), (304, Some(tag), ""), "{path}");
    }
    for number in 0..REPEATS {
        assert_eq!(ask(front, "/", "").await.status, 200);
        WsClient::connect(front).await.register(&format!("user{number}")).await;
    }
    assert_eq!(ask(front, "/none", "").await.status, 404);
    assert_eq!(ask(front, "/ws", "").await.status, 426);
}

#[tokio::test]
async fn local_nginx_serves_page_and_websocket() {
    let cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    page_and_websocket_work(cluster.nginx.as_ref().map(Nginx::ws).unwrap()).await;
    cluster.finish().await;
}

#[tokio::test]
async fn production_nginx_serves_page_and_websocket() {
    let cluster = Cluster::builder().gateways(1).local_proxies().start().await;
    let shipped = ShippedNginx::read().await;
    let front = Nginx::configured(|place| shipped.configuration(place, &cluster.gateways, &[])).await;
    let clients = tls_proxy(&front, &shipped).await;
    page_and_websocket_work(clients.ws()).await;

    let accepted = async || {
        let metrics = cluster.gateways[0].metrics().await;
        metrics.get("parley_connections_total", &[("door", "ws")]).unwrap()
    };
    let before = accepted().await;
    for _ in 0..REPEATS {
        assert_eq!(ask(clients.ws(), "/", "").await.status, 200);
    }
    let opened = accepted().await - before;
    assert!(opened < REPEATS as f64 / 2.0, "nginx opened {opened} connections for {REPEATS} requests");
    cluster.finish().await;
}
