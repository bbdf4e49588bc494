//! Listings: whole, in order, page by page.

use std::time::SystemTime;

use harness::eventually;
use presence::model::Nick;
use presence::registry::{ClusterStats, LeaseState, ListPage};

use super::{Arm, PATIENCE, nick, on_both_arms, room};

on_both_arms! {
    pages_lose_nobody_and_show_nobody_twice,
    a_page_is_as_long_as_it_may_be,
    a_lookup_answers_in_the_order_asked,
    gateways_are_listed_with_their_newest_incarnation,
}

async fn pages_lose_nobody_and_show_nobody_twice(arm: &Arm) {
    let node = arm.node("g1").await;
    let mut expected = Vec::new();
    for number in 0..250 {
        // Some of them not ASCII, so that cursors are encoded keys.
        let name = if number % 5 == 0 { format!("用户{number}") } else { format!("User{number}") };
        let user = node.user(&name).await;
        user.join("#lobby").await;
        user.join(&format!("#room-{name}")).await;
        expected.push(name);
    }
    expected.sort_unstable_by_key(|name| nick(name).key().clone());

    let (mut users, mut members, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    let mut cursor: Option<String> = None;
    loop {
        let page = arm.registry.users(cursor.as_deref(), 17).await.unwrap();
        users.extend(page.items.into_iter().map(|user| user.nick));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    loop {
        let page = arm.registry.members(room("#lobby").key(), cursor.as_deref(), 50).await.unwrap();
        members.extend(page.items.into_iter().map(|member| member.nick));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    loop {
        let page = arm.registry.rooms(cursor.as_deref(), 1000).await.unwrap();
        rooms.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(users, expected);
    assert_eq!(members, expected);
    assert_eq!(rooms.len(), 251);
    assert_eq!((rooms[0].room.as_str(), rooms[0].member_count, rooms[0].seq), ("#lobby", 250, 0));
    assert!(rooms[1..].iter().all(|room| room.member_count == 1));
    assert_eq!(arm.registry.stats().await.unwrap(), ClusterStats { users_online: 250, rooms: 251, gateways: 1 });
}

async fn a_page_is_as_long_as_it_may_be(arm: &Arm) {
    let node = arm.node("g1").await;
    assert_eq!(arm.registry.users(None, 10).await.unwrap(), ListPage { items: vec![], next_cursor: None });
    for name in ["a", "b", "c", "d"] {
        node.user(name).await.join("#lobby").await;
    }
    let names = |page: &ListPage<presence::registry::UserRow>| -> String {
        page.items.iter().map(|user| user.nick.as_str()).collect()
    };
    let first = arm.registry.users(None, 2).await.unwrap();
    assert_eq!((names(&first).as_str(), first.next_cursor.as_deref()), ("ab", Some("b")));
    let second = arm.registry.users(Some("b"), 2).await.unwrap();
    assert_eq!((names(&second).as_str(), second.next_cursor.as_deref()), ("cd", None), "the last page says so");
    assert_eq!(names(&arm.registry.users(Some("bb"), 9).await.unwrap()), "cd", "a cursor need not exist any more");
    assert_eq!(names(&arm.registry.users(Some("z"), 9).await.unwrap()), "");
    assert_eq!(arm.registry.users(None, 0).await.unwrap().items.len(), 1, "never none at all");
    assert!(arm.registry.members(room("#never").key(), None, 9).await.unwrap().items.is_empty());
}

async fn a_lookup_answers_in_the_order_asked(arm: &Arm) {
    let node = arm.node("g1").await;
    for name in ["ann", "bob"] {
        node.user(name).await;
    }
    node.user("eve").await.release().await;
    let asked = ["eve", "nobody", "ann", "eve", "bob"].map(|name| nick(name).key().clone());
    let found = arm.registry.lookup(&asked).await.unwrap();
    let told: Vec<_> = found.iter().map(|user| user.as_ref().map(|user| (user.nick.as_str(), user.online))).collect();
    assert_eq!(told, [Some(("eve", false)), None, Some(("ann", true)), Some(("eve", false)), Some(("bob", true))]);
    assert!(arm.registry.lookup(&[]).await.unwrap().is_empty());

    let many: Vec<_> = (0..1000).map(|number| Nick::parse(&format!("n{number}")).unwrap().key().clone()).collect();
    assert_eq!(arm.registry.lookup(&many).await.unwrap().len(), 1000);
}

async fn gateways_are_listed_with_their_newest_incarnation(arm: &Arm) {
    let first = arm.node("g1").await;
    first.fence().await;
    // Opened in the same millisecond it would be a matter of chance which one is newer.
    let opened = SystemTime::now();
    eventually(PATIENCE, "the clock moves", || async {
        opened.elapsed().ok().filter(|passed| passed.as_millis() > 1).ok_or("not yet")
    })
    .await;
    let (second, other) = (arm.node("g1").await, arm.node("g2").await);
    second.user("ann").await;
    other.user("bob").await;
    other.user("eve").await;
    arm.registry.beat(&second.incarnation, &[]).await.unwrap();
    other.fence().await;

    let gateways = arm.registry.gateways().await.unwrap();
    let rows: Vec<_> = gateways.iter().map(|row| (row.node.as_str(), row.state, row.beat, row.users)).collect();
    assert_eq!(rows, [("g1", LeaseState::Live, 1, 1), ("g2", LeaseState::Fenced, 0, 0)]);
    assert_eq!(gateways[0].incarnation, second.incarnation.as_str());
    assert_eq!(gateways[0].version, "1.2.3");
    let stats = arm.registry.stats().await.unwrap();
    assert_eq!((stats.users_online, stats.gateways), (1, 1));
}
