//! Inboxes: direct messages wait for their session and are delivered once, in order.
//!
//! A later owner of the same nickname receives none of them.

use std::time::Duration;

use harness::fault_proxy::Mode;
use harness::{Cluster, LineClient, Node, WsClient, eventually};
use serde_json::{Value, json};

/// The maximum time for an expected delivery.
const SOON: Duration = Duration::from_secs(3);
/// The nickname hold in these tests.
const HOLD: Duration = Duration::from_secs(8);

async fn cluster() -> Cluster {
    let hold = HOLD.as_secs().to_string();
    Cluster::builder().gateways(2).gateway_setting("PARLEY__SESSION__HOLD_SECONDS", &hold).start().await
}

async fn person(cluster: &Cluster, gateway: usize, nick: &str) -> (WsClient, Value) {
    let person = cluster.ws_on(gateway).await;
    let registered = person.register(nick).await;
    person.must(json!({"type": "ping"})).await;
    (person, registered)
}

/// Returns the bodies of the direct messages to this client, in order.
fn received(person: &WsClient) -> Vec<Value> {
    let own = person.name();
    let said = person.received(|event| event["type"] == "message" && event["to"] == own.as_str());
    said.into_iter().map(|message| message["body"].clone()).collect()
}

async fn until_received(person: &WsClient, text: &str) {
    let what = format!("`{text}`");
    person.expect_event(SOON, &what, |event| event["type"] == "message" && event["body"] == text).await;
}

/// Sends a direct message and expects that the recipient is offline.
async fn send_offline(from: &WsClient, to: &str, text: &str) {
    let ack = from.sends(to, text).await;
    assert_eq!(ack["delivered"], "offline", "{ack}");
}

/// Repeats a message until the store reports the recipient as offline. Returns the number of attempts.
async fn until_offline(from: &WsClient, to: &str, text: &str) -> usize {
    let mut tries = 0;
    loop {
        tries += 1;
        if from.sends(to, text).await["delivered"] == "offline" {
            return tries;
        }
        assert!(tries < 1000, "{to} stays online");
    }
}

#[tokio::test]
async fn resume_delivers_direct_messages_sent_while_offline() {
    let cluster = cluster().await;
    let (ann, registered) = person(&cluster, 0, "ann").await;
    let (bob, _) = person(&cluster, 1, "bob").await;
    let terminal = cluster.line_on(1).await;
    terminal.register("carl").await;
    let ack = bob.sends("ann", "one").await;
    assert_eq!((&ack["delivered"], ack.get("seq")), (&json!("online"), None));
    until_received(&ann, "one").await;
    ann.cut();
    let tries = until_offline(&bob, "ann", "knock").await;
    send_offline(&bob, "ann", "two").await;
    send_offline(&bob, "ANN", "three").await;
    terminal.types("/msg ann four").await;
    terminal.reads("-> ann: four (offline now, delivered when they return)").await;
    assert_eq!(bob.try_send("nobody", "hi").await.unwrap_err().code, "no_such_user");

    let again = cluster.ws_on(1).await;
    let inbox = &registered["inbox"];
    let since = json!({"@": {"epoch": inbox["epoch"], "seq": 1}});
    let back = again.resume(&registered, since).await;
    assert_eq!(back["inbox"], json!({"epoch": inbox["epoch"], "seq": 4 + tries}));
    until_received(&again, "four").await;
    assert_eq!(bob.sends("ann", "five").await["delivered"], "online");
    until_received(&again, "five").await;
    let mut expected = vec!["knock"; tries];
    expected.extend(["two", "three", "four", "five"]);
    assert_eq!(received(&again), expected);
    let seqs: Vec<u64> =
        again.received(|e| e["type"] == "message").iter().map(|m| m["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, Vec::from_iter(2..=5 + tries as u64));
    cluster.finish().await;
}

#[tokio::test]
async fn new_nick_owner_receives_no_older_direct_messages() {
    let cluster = cluster().await;
    let (ann, registered) = person(&cluster, 0, "ann").await;
    let (bob, _) = person(&cluster, 1, "bob").await;
    ann.cut();
    let tries = until_offline(&bob, "ann", "knock").await;
    send_offline(&bob, "ann", "for the old ann").await;
    let stranger = cluster.ws_on(0).await;
    let taken = eventually(HOLD + SOON, "nickname released", || async { stranger.try_register("ann").await }).await;
    assert_eq!(taken["inbox"]["seq"], 0, "a new session has an empty inbox");
    assert_eq!(bob.sends("ann", "for the new ann").await["delivered"], "online");
    until_received(&stranger, "for the new ann").await;
    assert_eq!(received(&stranger), ["for the new ann"]);

    let mut renamed = registered.clone();
    renamed["nick"] = json!("anna");
    let again = cluster.ws_on(1).await;
    again.resume(&renamed, json!({})).await;
    until_received(&again, "for the old ann").await;
    let mut expected = vec!["knock"; tries];
    expected.push("for the old ann");
    assert_eq!(received(&again), expected, "the whole inbox, because the client sent no position");
    cluster.finish().await;
}

#[tokio::test]
async fn resume_without_position_replays_inbox_after_read_mark() {
    let cluster = cluster().await;
    let (ann, registered) = person(&cluster, 0, "ann").await;
    let (bob, _) = person(&cluster, 1, "bob").await;
    for text in ["one", "two", "three"] {
        bob.sends("ann", text).await;
        until_received(&ann, text).await;
    }
    assert_eq!(ann.must(json!({"type": "read", "to": "@", "seq": 2})).await["seq"], 2);
    // The read mark never moves back, and never past the end.
    ann.must(json!({"type": "read", "to": "@", "seq": 1})).await;
    ann.cut();
    let again = cluster.ws_on(1).await;
    let back = again.resume(&registered, json!({})).await;
    until_received(&again, "three").await;
    bob.sends("ann", "four").await;
    until_received(&again, "four").await;
    assert_eq!(received(&again), ["three", "four"]);

    again.must(json!({"type": "read", "to": "@", "seq": 1_000_000})).await;
    again.cut();
    let tries = until_offline(&bob, "ann", "five").await;
    let last = cluster.ws_on(0).await;
    last.resume(&back, json!({})).await;
    until_received(&last, "five").await;
    assert_eq!(received(&last), vec!["five"; tries], "messages after the read mark");
    cluster.finish().await;
}

#[tokio::test]
async fn direct_message_arrives_before_registration_is_answered() {
    let cluster = Cluster::builder().gateways(2).fault_proxies(true).start().await;
    let (bob, carl) = (cluster.ws_on(1).await, cluster.ws_on(0).await);
    bob.register("bob").await;
    carl.register("carl").await;
    bob.join("#lobby").await;
    carl.join("#lobby").await;
    // Redis connections open on first use, and each session uses a random one.
    for number in 0..24 {
        cluster.ws_on(0).await.register(&format!("dave{number}")).await;
    }
    let ann = cluster.ws_on(0).await;
    cluster.proxies[0].set(Mode::MuteCommands);
    let asked = ann.post(json!({"type": "register", "nick": "ann"})).await;
    eventually(SOON, "claim written to the store", async || bob.try_send("ann", "knock").await).await;
    // A gateway that delivers this message has received the earlier one.
    bob.sends("#lobby", "did you hear?").await;
    carl.receives("#lobby", "bob", "did you hear?").await;
    cluster.proxies[0].set(Mode::Pass);
    ann.reply_within(SOON, asked).await.unwrap();
    until_received(&ann, "knock").await;
    cluster.finish().await;
}

#[tokio::test]
async fn inbox_delivers_each_message_once_across_resumes() {
    const MESSAGES: u64 = 300;
    let cluster = cluster().await;
    let (ann, mut registered) = person(&cluster, 0, "ann").await;
    let (bob, _) = person(&cluster, 1, "bob").await;
    let epoch = registered["inbox"]["epoch"].clone();
    let talk = async {
        for number in 1..=MESSAGES {
            bob.must(json!({"type": "send", "to": "ann", "body": number})).await;
        }
    };
    let reconnecting = async {
        let mut seen: Vec<u64> = Vec::new();
        let mut current = ann;
        for turn in 0.. {
            let _ = current.next(Duration::from_millis(20), |event| event["type"] == "none").await;
            let given = current.received(|event| event["type"] == "message");
            seen.extend(given.iter().map(|message| message["seq"].as_u64().unwrap()));
            let last = seen.last().copied().unwrap_or(0);
            if last == MESSAGES {
                return seen;
            }
            current.cut();
            current = cluster.ws_on(turn % 2).await;
            registered = current.resume(&registered, json!({"@": {"epoch": epoch, "seq": last}})).await;
        }
        unreachable!("the loop ends with the last message")
    };
    let ((), seen) = tokio::join!(talk, reconnecting);
    assert_eq!(seen, Vec::from_iter(1..=MESSAGES));
    cluster.finish().await;
}

#[tokio::test]
async fn embedded_node_keeps_messages_for_offline_sessions() {
    let mut gateway = Node::gateway("alone").start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    let registered = ann.register("ann").await;
    ann.must(json!({"type": "ping"})).await;
    bob.register("bob").await;
    ann.cut();
    until_offline(&bob, "ann", "knock").await;
    let again = WsClient::connect(gateway.ws()).await;
    again.resume(&registered, json!({})).await;
    until_received(&again, "knock").await;
    assert_eq!(gateway.end().await, Some(0));
}

/// Asserts that a direct message to each nick gets the answer of an unknown one, in both dialects.
async fn assert_unknown(json: &WsClient, line: &LineClient, nicks: &[&str]) {
    for nick in nicks {
        let refused = async || match json.try_send(nick, "still there?").await {
            Err(refused) if refused.code == "no_such_user" => Ok(()),
            answer => Err(format!("{nick}: {answer:?}")),
        };
        eventually(SOON, "a direct message is refused", refused).await;
        line.types(&format!("/msg {nick} still there?")).await;
        line.reads("! no_such_user: this nickname is not known").await;
    }
}

/// Text clients end on this gateway; senders of both dialects are on the other one.
async fn departed_text_clients_are_unknown(home: &Node, other: &Node) {
    let (json, line) = (WsClient::connect(other.ws()).await, LineClient::connect(other.tcp()).await);
    json.register("json").await;
    line.register("line").await;
    let [quits, hangs_up, ends, renamed] = ["quits", "hangs-up", "ends", "former"].map(|nick| async move {
        let client = LineClient::connect(home.tcp()).await;
        client.register(nick).await;
        client
    });
    let (quits, hangs_up, ends, renamed) = tokio::join!(quits, hangs_up, ends, renamed);
    renamed.types("/nick renamed").await;
    renamed.reads("* you are now known as renamed").await;
    for nick in ["quits", "hangs-up", "ends", "former", "renamed"] {
        assert_eq!(json.sends(nick, "hello").await["delivered"], "online", "{nick}");
    }
    quits.types("/quit").await;
    ends.ends_input().await;
    renamed.types("/quit").await;
    drop(hangs_up);
    for client in [&quits, &ends, &renamed] {
        client.closed().await;
    }
    assert_unknown(&json, &line, &["quits", "hangs-up", "ends", "former", "renamed", "never-seen"]).await;

    // A JSON client may return, so its messages wait; one that returns receives them.
    let returns = WsClient::connect(home.ws()).await;
    let registered = returns.register("returns").await;
    returns.must(json!({"type": "ping"})).await;
    returns.cut();
    let tries = until_offline(&json, "returns", "knock").await;
    line.types("/msg returns hello").await;
    line.reads("-> returns: hello (offline now, delivered when they return)").await;
    let again = WsClient::connect(other.ws()).await;
    again.resume(&registered, json!({})).await;
    until_received(&again, "hello").await;
    assert_eq!(received(&again).len(), tries + 1);
}

#[tokio::test]
async fn departed_text_client_is_an_unknown_recipient() {
    let cluster = cluster().await;
    departed_text_clients_are_unknown(&cluster.gateways[0], &cluster.gateways[1]).await;
    cluster.finish().await;
}

#[tokio::test]
async fn departed_text_client_is_unknown_to_embedded_node() {
    let mut gateway = Node::gateway("alone").start().await;
    departed_text_clients_are_unknown(&gateway, &gateway).await;
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn text_client_of_crashed_gateway_is_unknown() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    cluster.allow("lease");
    let gone = cluster.line_on(0).await;
    gone.register("gone").await;
    let (json, line) = (cluster.ws_on(1).await, cluster.line_on(1).await);
    json.register("json").await;
    line.register("line").await;
    assert_eq!(json.sends("gone", "hello").await["delivered"], "online");
    cluster.gateways[0].process().kill9();
    gone.closed().await;
    let refused = async || match json.try_send("gone", "still there?").await {
        Err(refused) if refused.code == "no_such_user" => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    eventually(Duration::from_secs(20), "the lease of the crashed gateway has ended", refused).await;
    assert_unknown(&json, &line, &["gone"]).await;
}
