//! The presence page in a real browser: it shows changes without a reload, and an outage with its end.

use std::process::Command;

use harness::{Browser, Redis, repository};
use presence::host::program::Drained;

use super::browser::register;
use super::{GatewayUsers, SOON, presence, serve};

/// Opens the page and waits until it is live.
async fn live_page(api: std::net::SocketAddr) -> Browser {
    let mut browser = Browser::open(&format!("http://{api}/")).await;
    until_phase(&mut browser, "live").await;
    browser.evaluate("window.isSamePage = true").await;
    browser
}

async fn until_phase(browser: &mut Browser, phase: &str) {
    browser.until(&format!("document.getElementById('link').dataset.phase === '{phase}'")).await;
}

/// Waits until the element with this id shows a text, apart from the marks that isolate names in it.
async fn until_shown(browser: &mut Browser, id: &str, text: &str) {
    let shown = format!("document.getElementById('{id}').innerText.replace(/[\\u2068\\u2069]/g, '')");
    browser.until(&format!("{shown}.includes('{text}')")).await;
}

/// Waits until the page shows that it is not live for at least 2 s.
async fn until_time_passes(browser: &mut Browser) {
    browser.until("/^for ([2-9]|[1-9][0-9]) s$/.test(document.getElementById('since').innerText)").await;
}

#[tokio::test]
async fn page_shows_new_user_without_reload() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let mut browser = live_page(presence.addresses().api).await;
    until_shown(&mut browser, "users-note", "No user is online.").await;

    let users = GatewayUsers::on(&redis).await;
    let ann = users.register("ann").await;
    users.join("ann", &ann, "#lobby").await;
    until_shown(&mut browser, "events", "ann came online").await;
    until_shown(&mut browser, "events", "ann joined #lobby").await;
    until_shown(&mut browser, "users", "ann").await;
    until_shown(&mut browser, "users", "g1").await;
    until_shown(&mut browser, "gateways", "1 user").await;
    until_shown(&mut browser, "rooms", "#lobby").await;
    until_shown(&mut browser, "rooms", "1 member").await;
    until_shown(&mut browser, "tile-users", "1").await;

    users.leave("ann", &ann).await;
    until_shown(&mut browser, "events", "ann went offline").await;
    until_shown(&mut browser, "users-note", "No user is online.").await;
    assert_eq!(browser.evaluate("isSamePage").await, true);
}

#[tokio::test]
async fn page_recovers_from_redis_outage() {
    let mut redis = Redis::not_started().setting("appendfsync", "always");
    redis.start().await;
    let presence = presence(&redis).await;
    let mut browser = live_page(presence.addresses().api).await;
    let users = GatewayUsers::on(&redis).await;
    users.register("ann").await;
    until_shown(&mut browser, "users", "ann").await;

    redis.kill9();
    until_phase(&mut browser, "unavailable").await;
    until_shown(&mut browser, "phase", "Redis does not answer").await;
    until_time_passes(&mut browser).await;
    until_shown(&mut browser, "stale", "The figures are of ").await;
    assert_eq!(browser.evaluate("document.getElementById('users').innerText.includes('ann')").await, true);

    redis.restart().await;
    until_phase(&mut browser, "live").await;
    browser.until("document.getElementById('stale').hidden").await;
    register(&users, "bob").await;
    until_shown(&mut browser, "users", "bob").await;
    assert_eq!(browser.evaluate("isSamePage").await, true);
}

#[tokio::test]
async fn page_reconnects_to_restarted_presence() {
    let redis = Redis::running().await;
    let first = presence(&redis).await;
    let api = first.addresses().api;
    let mut browser = live_page(api).await;
    assert_eq!(first.shutdown(SOON).await, Drained::Complete);
    until_phase(&mut browser, "reconnecting").await;
    until_time_passes(&mut browser).await;

    let _second = serve(&redis.url(), api).await;
    until_phase(&mut browser, "live").await;
    GatewayUsers::on(&redis).await.register("ann").await;
    until_shown(&mut browser, "users", "ann").await;
    assert_eq!(browser.evaluate("isSamePage").await, true);
}

#[tokio::test]
async fn page_fits_screens_of_320_pixels() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let mut browser = live_page(presence.addresses().api).await;
    let users = GatewayUsers::on(&redis).await;
    let long = "w".repeat(30);
    let owner = users.register(&long).await;
    users.join(&long, &owner, &format!("#{long}")).await;
    until_shown(&mut browser, "users", &long).await;
    until_shown(&mut browser, "rooms", &long).await;
    for width in [320, 390, 768] {
        browser.resize(width).await;
        browser.until(&format!("innerWidth === {width}")).await;
        let page = browser.evaluate("document.documentElement.scrollWidth").await;
        assert!(page.as_u64().is_some_and(|page| page <= u64::from(width)), "the page is {page} wide on {width}");
    }
}

#[test]
fn unit_tests_of_the_page_pass() {
    let tests = Command::new("node").arg("--test").current_dir(repository().join("presence/page")).output();
    let tests = tests.expect("node is installed");
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stdout));
}
