//! The settings of hooks: mistakes end the start, secrets stay hidden, and a reload applies them.

use harness::{HookApplication, HookReply, Node, WsClient, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{SECRET, SOON, hook_settings, refusal};

/// A setting of a hook to complete others.
const JOIN: (&str, &str) = ("PARLEY__HOOKS__JOIN", "https://app.example/hook/hunter2?token=hunter2hunter2");

#[tokio::test]
async fn mistakes_in_settings_end_the_start() {
    let secret = ("PARLEY__HOOKS__SECRET", SECRET);
    for (settings, reason) in [
        (vec![JOIN], "hooks.secret"),
        (vec![JOIN, ("PARLEY__HOOKS__SECRET", "hunter2")], "16 to 256"),
        (vec![secret, ("PARLEY__HOOKS__SEND", "ftp://app.example/hunter2")], "expected https://HOST/PATH"),
        (vec![secret, ("PARLEY__HOOKS__SEND", "https://u:hunter2@app.example/")], "credentials"),
        (vec![secret, JOIN, ("PARLEY__HOOKS__TIMEOUT_MS", "0")], "50 to 5000"),
        (vec![secret, JOIN, ("PARLEY__HOOKS__FAIL", "maybe")], "expected closed or open"),
        (vec![secret, JOIN, ("PARLEY__HOOKS__CACHE_SECONDS", "3601")], "0 to 3600"),
        (vec![secret, JOIN, ("PARLEY__HOOKS__JION", "x")], "PARLEY__HOOKS__JOIN"),
    ] {
        let node = settings.iter().fold(Node::gateway("g1"), |node, (key, value)| node.setting(key, value));
        let ended = node.program().run(SOON).await;
        assert_eq!(ended.code, Some(64), "{settings:?}: {ended:?}");
        assert!(ended.stderr.contains(reason) && !ended.stderr.contains("hunter2"), "{settings:?}: {ended:?}");
    }
}

#[tokio::test]
async fn check_shows_hooks_without_secrets() {
    let node = Node::gateway("g1").setting(JOIN.0, JOIN.1).setting("PARLEY__HOOKS__SECRET", "hunter2hunter2hunter2");
    let shown = node.program().args(["--check".to_owned()]).run(SOON).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("hooks.join = \"https://app.example/***\""), "{shown:?}");
    assert!(!shown.stdout.contains("hunter2") && !shown.stderr.contains("hunter2"), "{shown:?}");
}

#[tokio::test]
async fn start_warns_about_refused_addresses() {
    let webhook =
        json!([{"name": "app", "url": "http://localhost:9/hunter2", "secret": SECRET, "events": ["message"]}]);
    let near = |node: harness::node::NodeBuilder| {
        node.setting("PARLEY__HOOKS__SEND", "http://127.0.0.1:9/hunter2")
            .setting("PARLEY__HOOKS__SECRET", SECRET)
            .setting("PARLEY__WEBHOOKS", &webhook.to_string())
    };
    let expected = ["hooks.send: 127.0.0.1: a loopback", "webhook app: localhost: a loopback"];
    let checked = near(Node::gateway("g1")).program().args(["--check".to_owned()]).run(SOON).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(expected.iter().all(|part| checked.stderr.contains(part)), "{checked:?}");
    assert!(!checked.stdout.contains("hunter2") && !checked.stderr.contains("hunter2"), "{checked:?}");
    let mut gateway = near(Node::gateway("g1")).start().await;
    let log = gateway.log().lines();
    let warned = |part: &str| log.iter().any(|line| line.contains("\"WARN\"") && line.contains(part));
    assert!(expected.iter().all(|part| warned(part)), "{log:?}");
    assert_eq!(gateway.end().await, Some(0));
    let allowed = near(Node::gateway("g1")).setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true");
    let checked = allowed.program().args(["--check".to_owned()]).run(SOON).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn reload_sets_and_removes_hooks() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|_| HookReply::json(json!({"allow": false, "cache_seconds": 3600})));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let set = format!("hooks.join = '{}'\nhooks.secret = '{SECRET}'\n", application.url());
    std::fs::write(&file, "").unwrap();
    let settings = hook_settings(&application, &[]);
    let private = settings.iter().find(|(key, _)| key.contains("CALLBACKS")).unwrap();
    let mut gateway = Node::gateway("g1").setting(&private.0, &private.1).config(&file).start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    ann.join("#before").await;
    for (reload, (text, is_asked)) in [(set.as_str(), true), ("", false), (set.as_str(), true)].into_iter().enumerate()
    {
        std::fs::write(&file, text).unwrap();
        gateway.process().signal(Signal::SIGHUP);
        eventually(SOON, "the reload is applied", async || {
            let reloads = gateway.metrics().await.get("parley_config_reloads_total", &[("outcome", "applied")]);
            if reloads == Some(reload as f64 + 1.0) { Ok(()) } else { Err(reloads) }
        })
        .await;
        for _ in 0..2 {
            let joined = ann.request(json!({"type": "join", "room": "#room"})).await;
            if is_asked {
                assert_eq!(refusal(joined).0, "not_allowed");
            } else {
                joined.unwrap();
                ann.leave("#room").await;
            }
        }
    }
    assert_eq!(application.questions().len(), 2, "a reload forgets the answers of before");
    assert_eq!(gateway.end().await, Some(0));
    assert!(!gateway.log().lines().iter().any(|line| line.contains(SECRET) || line.contains("from=parley")));
}
