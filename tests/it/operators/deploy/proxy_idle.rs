//! Proxies that cut idle connections: the heartbeat settings keep quiet clients behind a real nginx with short limits.

use std::time::Duration;

use harness::{LineClient, Nginx, Node, WsClient, stays};

/// The idle limit of nginx for both ports.
const IDLE_LIMIT: Duration = Duration::from_secs(3);
/// Seconds between signs of a gateway that keeps its clients. Timers of connections are exact to 250 ms.
const SHORT: &str = "1";
/// Seconds between signs of a gateway that loses its clients.
const LONG: &str = "20";

/// A gateway behind an nginx with the short limits, and two clients that only listen.
struct QuietCorner {
    gateway: Node,
    _nginx: Nginx,
    json: WsClient,
    line: LineClient,
}

impl QuietCorner {
    async fn open(name: &str, seconds: &str) -> Self {
        let gateway = Node::gateway(name)
            .setting("PARLEY__HEARTBEAT__PROXY_IDLE_SECONDS", seconds)
            .setting("PARLEY__HEARTBEAT__LINE_SIGN_SECONDS", seconds)
            .start()
            .await;
        let shorten = |text: String| {
            ["proxy_read_timeout 90s;", "proxy_timeout 24h;"].into_iter().fold(text, |text, shipped| {
                assert!(text.contains(shipped), "{shipped}");
                let directive = shipped.split_once(' ').unwrap().0;
                text.replace(shipped, &format!("{directive} {}s;", IDLE_LIMIT.as_secs()))
            })
        };
        let nginx = Nginx::start_changed(&[gateway.ws()], &[gateway.tcp()], shorten).await;
        let (json, line) = (WsClient::connect(nginx.ws()).await, LineClient::connect(nginx.tcp()).await);
        json.register("json").await;
        json.join("#quiet").await;
        line.register("line").await;
        line.join("#quiet").await;
        Self { gateway, _nginx: nginx, json, line }
    }
}

#[tokio::test]
async fn heartbeat_settings_keep_quiet_clients_behind_proxies() {
    let (kept, cut) = tokio::join!(QuietCorner::open("kept", SHORT), QuietCorner::open("cut", LONG));
    let clients_stay = stays(IDLE_LIMIT * 3, "both quiet clients connected", async || {
        match (kept.json.has_ended(), kept.line.has_ended()) {
            (None, None) => Ok(()),
            ended => Err(ended),
        }
    });
    let clients_are_cut = async {
        cut.json.closed_within(IDLE_LIMIT * 3).await;
        cut.line.closed_within(IDLE_LIMIT * 3).await;
    };
    tokio::join!(clients_stay, clients_are_cut);
    assert_eq!(cut.line.received("* still connected"), Vec::<String>::new(), "nginx cut the client before its sign");
    assert!(kept.line.received("* still connected").len() >= 3, "the signs kept the connection");

    let talker = WsClient::connect(kept.gateway.ws()).await;
    talker.register("talker").await;
    talker.join("#quiet").await;
    talker.sends("#quiet", "anyone awake?").await;
    kept.json.receives("#quiet", "talker", "anyone awake?").await;
    kept.line.receives("#quiet", "talker", "anyone awake?").await;
    for mut gateway in [kept.gateway, cut.gateway] {
        assert_eq!(gateway.end().await, Some(0));
    }
}
