//! The embedded mode: one gateway without Redis, nginx or presence process serves every feature of a single node.

use std::time::Duration;

use harness::{LineClient, Node, WsClient};

#[tokio::test]
async fn embedded_gateway_serves_both_ports_and_drains() {
    let mut gateway = Node::gateway("alone").start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    let carl = LineClient::connect(gateway.tcp()).await;
    assert_eq!(ann.register("ann").await["node"], "alone");
    bob.register("bob").await;
    carl.register("carl").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    carl.join("#lobby").await;
    ann.sees_join("#lobby", "carl").await;
    ann.sends("#lobby", "hi").await;
    bob.receives("#lobby", "ann", "hi").await;
    carl.receives("#lobby", "ann", "hi").await;
    bob.sends("ann", "psst").await;
    ann.receives_privately("bob", "psst").await;

    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(ann.closed().await.code, Some(1012));
    assert_eq!(bob.closed().await.code, Some(1012));
    carl.reads("* closing: restart").await;
    carl.closed().await;
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
    assert_eq!(gateway.process().output().lines().len(), 1, "one line on stdout");
}

#[tokio::test]
async fn admin_pages_are_served_only_on_admin_port() {
    let mut gateway = Node::gateway("alone").start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(harness::http::get(gateway.admin(), path).await.unwrap().status, 200, "{path}");
        assert_eq!(harness::http::get(gateway.ws(), path).await.unwrap().status, 404, "{path}");
    }
    let metrics = gateway.metrics().await;
    assert!(!metrics.names().is_empty());
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn second_program_cannot_take_used_ports() {
    let gateway = Node::gateway("first").start().await;
    let second = Node::gateway("second").setting("PARLEY__LISTEN__WS", &gateway.ws().to_string());
    let finished = second.program().run(Duration::from_secs(10)).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains(&gateway.ws().to_string()), "{finished:?}");
    assert_eq!(finished.stdout, "", "no listening line");
}
