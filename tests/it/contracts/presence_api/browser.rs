//! The API in a real browser: event streams that survive an outage, and a documentation page that fits a phone.

use harness::fault_proxy::{FaultProxy, Mode};
use harness::{Browser, Redis, eventually, stays};
use serde_json::json;

use super::{GatewayUsers, SOON, presence, presence_at, until_status};

/// Opens an `EventSource` that keeps the kinds and the nicknames of its events.
const LISTEN: &str = "window.seen = []; window.source = new EventSource('/v1/events'); \
    for (const kind of ['online', 'unavailable', 'available', 'gap', 'overloaded']) \
    source.addEventListener(kind, (event) => seen.push(kind + ' ' + (JSON.parse(event.data).nick ?? ''))); \
    new Promise((done) => source.onopen = () => done(true))";

/// Registers a nickname once Redis answers.
pub(super) async fn register(users: &GatewayUsers, nick: &str) {
    eventually(2 * SOON, "the registry answers", || async {
        let claims = &[];
        let beat = users.registry.beat(&users.incarnation, &[]).await?;
        let batch = presence::registry::ReassertBatch {
            incarnation: &users.incarnation,
            info: &users.info,
            generation: beat.generation.number,
            claims,
            last: true,
        };
        users.registry.reassert(batch).await?;
        let session = presence::model::SessionId::random();
        let token = presence::model::TokenHash::of(b"secret");
        users
            .registry
            .claim(presence::registry::ClaimRequest {
                incarnation: &users.incarnation,
                session: &session,
                nick: &super::parse_nick(nick),
                token: &token,
                user: None,
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn browser_receives_events_after_frozen_redis() {
    let mut redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let mut browser = Browser::open(&format!("http://{api}/docs")).await;
    assert_eq!(browser.evaluate(LISTEN).await, true);
    users.register("ann").await;
    browser.until("seen.includes('online ann')").await;

    redis.stop_signal().await;
    // The outage that made browsers give up: longer than every timeout and their pause before a reconnect.
    stays(2 * SOON, "redis is frozen", || async { Ok::<_, String>(()) }).await;
    assert_eq!(browser.evaluate("seen.includes('unavailable ')").await, true, "the page learns of the outage");
    redis.cont();
    register(&users, "bob").await;
    browser.until("seen.includes('online bob')").await;
    let seen = browser.evaluate("seen.filter((event) => event.startsWith('online'))").await;
    assert_eq!(seen, json!(["online ann", "online bob"]), "nothing twice");
    assert_eq!(browser.evaluate("seen.includes('gap ')").await, false);
}

#[tokio::test]
async fn browser_misses_no_event_of_an_outage() {
    let redis = Redis::running().await;
    // Only the presence process loses Redis, so users come online meanwhile.
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let mut browser = Browser::open(&format!("http://{}/docs", presence.addresses().api)).await;
    assert_eq!(browser.evaluate(LISTEN).await, true);
    let users = GatewayUsers::on(&redis).await;
    users.register("ann").await;
    browser.until("seen.includes('online ann')").await;

    proxy.set(Mode::Reset);
    browser.until("seen.includes('unavailable ')").await;
    users.register("bob").await;
    proxy.set(Mode::Pass);
    browser.until("seen.includes('available ') && seen.includes('online bob')").await;
    users.register("eve").await;
    browser.until("seen.includes('online eve')").await;
    let seen = browser.evaluate("seen.filter((event) => !event.endsWith('available '))").await;
    assert_eq!(seen, json!(["online ann", "online bob", "online eve"]), "each event once, and no gap");
}

#[tokio::test]
async fn browser_opened_during_outage_receives_events_after_it() {
    let mut redis = Redis::not_started().setting("appendfsync", "always");
    redis.start().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    redis.kill9();
    until_status(api, "/v1/stats", 503, SOON).await;
    let mut browser = Browser::open(&format!("http://{api}/docs")).await;
    assert_eq!(browser.evaluate(LISTEN).await, true);
    browser.until("seen.includes('unavailable ')").await;
    stays(2 * SOON, "redis is down", || async { Ok::<_, String>(()) }).await;
    redis.restart().await;
    browser.until("seen.includes('available ')").await;
    register(&users, "bob").await;
    browser.until("seen.includes('online bob')").await;
}

#[tokio::test]
async fn documentation_page_fits_narrow_screens() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let mut browser = Browser::open(&format!("http://{}/docs", presence.addresses().api)).await;
    browser.until("document.querySelectorAll('article').length > 5").await;
    browser.evaluate("document.querySelectorAll('details').forEach((part) => part.open = true)").await;
    for width in [320, 390, 600] {
        browser.resize(width).await;
        browser.until(&format!("innerWidth === {width}")).await;
        let page = browser.evaluate("document.documentElement.scrollWidth").await;
        assert!(page.as_u64().is_some_and(|page| page <= u64::from(width)), "the page is {page} wide on {width}");
        let navigation = browser.evaluate("document.querySelector('nav').getBoundingClientRect().height").await;
        assert!(navigation.as_f64().is_some_and(|height| height <= 120.0), "navigation of {navigation} on {width}");
        let wide = "[...document.querySelectorAll('table, td, p, form')].filter((part) => \
            part.getBoundingClientRect().right > part.parentElement.getBoundingClientRect().right + 1).length";
        assert_eq!(browser.evaluate(wide).await, 0, "elements leave their column on {width}");
    }
}

#[tokio::test]
async fn documentation_menu_folds_on_a_phone() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let mut browser = Browser::open(&format!("http://{}/docs", presence.addresses().api)).await;
    browser.resize(1280).await;
    let links = "[...document.querySelectorAll('nav #contents a')]";
    browser.until(&format!("{links}.length > 5 && {links}.every((link) => link.checkVisibility())")).await;

    browser.resize(390).await;
    browser.until(&format!("{links}.every((link) => !link.checkVisibility())")).await;
    browser.evaluate("document.querySelector('nav summary').click()").await;
    browser.until(&format!("{links}.every((link) => link.checkVisibility())")).await;
    browser.evaluate(&format!("{links}.find((link) => link.hash === '#totals-over-the-cluster').click()")).await;
    browser.until(&format!("{links}.every((link) => !link.checkVisibility())")).await;
    // The chapter stands below the bar.
    let top = "document.getElementById('totals-over-the-cluster').getBoundingClientRect().top";
    browser.until(&format!("{top} >= document.querySelector('nav').offsetHeight && {top} < 200")).await;
}
