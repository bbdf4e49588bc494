//! The chat page in a real browser: its security policy admits its own WebSocket, and nothing else.

use harness::{Browser, Node, WsClient};
use serde_json::json;

#[tokio::test]
async fn page_policy_admits_only_its_own_websocket() {
    let (gateway, other) = (Node::gateway("g1").start().await, Node::gateway("g2").start().await);
    WsClient::connect(other.ws()).await.register("ann").await;
    let mut browser = Browser::open(&format!("http://{}/", gateway.ws())).await;
    let watch = "window.violations = []; document.addEventListener('securitypolicyviolation', \
        (event) => violations.push(event.effectiveDirective)); true";
    assert_eq!(browser.evaluate(watch).await, true);
    for (node, admitted) in [(&gateway, true), (&other, false)] {
        let connect = format!(
            "new Promise((done) => {{ const socket = new WebSocket('ws://{}/ws'); \
             socket.onopen = () => done(true); socket.onerror = () => done(false); }})",
            node.ws()
        );
        assert_eq!(browser.evaluate(&connect).await, admitted, "{}", node.name());
    }
    let inject = "const script = document.createElement('script'); script.textContent = 'window.injected = true'; \
        document.body.append(script); window.injected === undefined";
    assert_eq!(browser.evaluate(inject).await, true, "no script in the page's own text runs");
    browser.until("violations.length >= 2").await;
    assert_eq!(browser.evaluate("violations").await, json!(["connect-src", "script-src-elem"]));
}
