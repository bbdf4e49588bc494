//! Applications that fail: the rule for failures decides, within the deadline, and nobody else waits.

use std::time::{Duration, Instant};

use harness::{HookApplication, HookReply, WsClient};
use serde_json::json;

use super::{SECRET, SOON, cluster_with, questions, refusal};

/// Much less than the deadline of a question that hangs.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Returns each kind of failure with its outcome in the metrics.
fn failures(elsewhere: &str) -> Vec<(HookReply, &'static str)> {
    let large = format!(r#"{{"allow":true,"reason":"{}"}}"#, "x".repeat(70_000));
    vec![
        (HookReply::Status(500, String::new()), "unusable"),
        (HookReply::Status(302, elsewhere.to_owned()), "unusable"),
        (HookReply::Status(403, String::new()), "unusable"),
        (HookReply::Hang, "late"),
        (HookReply::Text("allowed".to_owned()), "unusable"),
        (HookReply::json(json!({"allow": "true"})), "unusable"),
        (HookReply::json(json!([true])), "unusable"),
        (HookReply::Text(large), "unusable"),
    ]
}

#[tokio::test]
async fn failures_refuse_or_allow_by_setting() {
    for rule in ["closed", "open"] {
        let (application, other) = (HookApplication::start(SECRET).await, HookApplication::start(SECRET).await);
        let builder = cluster_with(&application, &["register", "join", "send"]);
        let builder = builder.gateway_setting("PARLEY__HOOKS__FAIL", rule);
        let mut cluster = builder.gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "300").start().await;
        cluster.allow("hook not answered");
        let ann = cluster.ws().await;
        ann.register("ann").await;
        ann.join("#lobby").await;
        for (number, (reply, outcome)) in failures(&other.url()).into_iter().enumerate() {
            let counted = questions(&cluster.gateways[0], "send", outcome).await;
            let shown = format!("{rule} {reply:?}").chars().take(80).collect::<String>();
            application.reply_with(move |_| reply.clone());
            let began = Instant::now();
            let (nick, room) = (format!("nick{number}"), format!("#room{number}"));
            let requests = [
                (&ann, json!({"type": "send", "to": "#lobby", "body": "hi"})),
                (&ann, json!({"type": "join", "room": room})),
                (&cluster.ws().await, json!({"type": "register", "nick": nick})),
            ];
            for (client, request) in requests {
                let result = client.request(request).await;
                if rule == "open" {
                    result.unwrap_or_else(|refused| panic!("{shown}: {}", refused.reply));
                } else {
                    let refused = result.expect_err(&shown);
                    assert_eq!(refused.code, "hook_unavailable", "{shown}");
                    assert_eq!(refused.reply["retry_after_ms"], 1000, "{shown}");
                }
            }
            assert!(began.elapsed() < 2 * AT_ONCE, "{shown}");
            assert_eq!(questions(&cluster.gateways[0], "send", outcome).await, counted + 1.0, "{shown}");
        }
        assert!(other.questions().is_empty(), "a redirect was followed");
        application.reply_with(|_| HookReply::allow());
        ann.sends("#lobby", "all is well").await;
        ann.receives("#lobby", "ann", "all is well").await;
        cluster.finish().await;
    }
}

#[tokio::test]
async fn closed_port_and_loopback_are_no_answers() {
    let application = HookApplication::start(SECRET).await;
    for (allows_private, url, reason) in [
        ("false", application.url(), "127.0.0.1 is refused"),
        ("true", "http://127.0.0.1:1/".to_owned(), "not connected"),
        ("true", "http://no-such-name.invalid/".to_owned(), "not resolved"),
    ] {
        let builder = cluster_with(&application, &[]).gateway_setting("PARLEY__HOOKS__SEND", &url);
        let builder = builder.gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
        let builder = builder.gateway_setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", allows_private);
        let mut cluster = builder.start().await;
        cluster.allow("hook not answered");
        cluster.allow("settings are valid and have no effect");
        let ann = cluster.ws().await;
        ann.register("ann").await;
        ann.join("#lobby").await;
        for _ in 0..3 {
            assert_eq!(refusal(ann.try_send("#lobby", "hi").await).0, "hook_unavailable");
        }
        let log = cluster.gateways[0].log();
        let lines: Vec<String> = log.lines().into_iter().filter(|line| line.contains("hook not answered")).collect();
        assert_eq!(lines.len(), 1, "one line for a minute of failures");
        assert!(lines[0].contains(reason) && !lines[0].contains("from=parley"), "{lines:?}");
        assert!(application.questions().is_empty());
        assert_eq!(questions(&cluster.gateways[0], "send", "unanswered").await, 3.0);
        cluster.finish().await;
    }
}

#[tokio::test]
async fn neighbours_are_served_while_application_hangs() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|question| match question["nick"].as_str() {
        Some("ann") => HookReply::Hang,
        _ => HookReply::allow(),
    });
    let builder = cluster_with(&application, &["send"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let mut cluster = builder.start().await;
    cluster.allow("hook not answered");
    let mut clients: Vec<WsClient> = Vec::new();
    for nick in ["ann", "bob", "carl"] {
        let client = cluster.ws().await;
        client.register(nick).await;
        client.join("#lobby").await;
        clients.push(client);
    }
    let [ann, bob, carl] = &clients[..] else { panic!("three clients") };
    let began = Instant::now();
    let mut hanging = Vec::new();
    for number in 0..50 {
        hanging.push(ann.post(json!({"type": "send", "to": "#lobby", "body": format!("late {number}")})).await);
    }
    harness::eventually(SOON, "the questions hang", async || {
        let asked = application.questions().len();
        if asked == 16 { Ok(()) } else { Err(asked) }
    })
    .await;
    bob.sends("#lobby", "hi").await;
    carl.receives("#lobby", "bob", "hi").await;
    ann.receives("#lobby", "bob", "hi").await;
    carl.history("#lobby", 10).await;
    cluster.ws().await.register("dora").await;
    assert!(began.elapsed() < AT_ONCE, "neighbours waited for {:?}", began.elapsed());
    let refused = ann.reply_within(SOON, hanging[0]).await.expect_err("a refusal");
    assert_eq!((refused.code.as_str(), &refused.reply["retry_after_ms"]), ("hook_unavailable", &json!(1000)));
    assert!(began.elapsed() >= Duration::from_secs(4), "the deadline is that of the setting");
    cluster.finish().await;
}
