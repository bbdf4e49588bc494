//! The contract of listings: complete, sorted, and paged by cursor.

use std::time::SystemTime;

use harness::eventually;
use presence::model::Nick;
use presence::registry::{ClusterStats, LeaseState, ListPage};

use super::{PATIENCE, RegistryArm, nick, on_both_arms, room};

on_both_arms! {
    pages_list_every_entry_exactly_once,
    page_respects_its_limit_and_cursor,
    lookup_answers_in_request_order,
    lookup_reads_users_of_many_rooms,
    gateway_list_shows_newest_incarnations,
}

async fn pages_list_every_entry_exactly_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let mut expected = Vec::new();
    for number in 0..250 {
        // Some names are not ASCII, so that cursors are encoded keys.
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

async fn page_respects_its_limit_and_cursor(arm: &RegistryArm) {
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
    assert_eq!((names(&second).as_str(), second.next_cursor.as_deref()), ("cd", None), "the last page has no cursor");
    assert_eq!(names(&arm.registry.users(Some("bb"), 9).await.unwrap()), "cd", "a cursor need not name an entry");
    assert_eq!(names(&arm.registry.users(Some("z"), 9).await.unwrap()), "");
    assert_eq!(arm.registry.users(None, 0).await.unwrap().items.len(), 1, "a page holds at least one entry");
    assert!(arm.registry.members(room("#never").key(), None, 9).await.unwrap().items.is_empty());
}

async fn lookup_answers_in_request_order(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    for name in ["ann", "bob"] {
        node.user(name).await;
    }
    node.user("eve").await.release().await;
    let asked = ["eve", "nobody", "ann", "eve", "bob"].map(|name| nick(name).key().clone());
    let found = arm.registry.lookup(&asked).await.unwrap();
    let states: Vec<_> = found.iter().map(|user| user.as_ref().map(|user| (user.nick.as_str(), user.online))).collect();
    assert_eq!(states, [Some(("eve", false)), None, Some(("ann", true)), Some(("eve", false)), Some(("bob", true))]);
    assert!(arm.registry.lookup(&[]).await.unwrap().is_empty());

    let many: Vec<_> = (0..1000).map(|number| Nick::parse(&format!("n{number}")).unwrap().key().clone()).collect();
    assert_eq!(arm.registry.lookup(&many).await.unwrap().len(), 1000);
}

async fn lookup_reads_users_of_many_rooms(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let names: Vec<String> = (0..30).map(|number| format!("user{number}")).collect();
    for name in &names {
        let user = node.user(name).await;
        for room in 0..20 {
            user.join(&format!("#room{room:02}")).await;
        }
    }
    let keys: Vec<_> = names.iter().map(|name| nick(name).key().clone()).collect();
    let found = arm.registry.lookup(&keys).await.unwrap();
    let seen: Vec<_> = found.iter().flatten().map(|user| (user.nick.as_str(), user.rooms.len())).collect();
    assert_eq!(seen, names.iter().map(|name| (name.as_str(), 20)).collect::<Vec<_>>());
    assert_eq!(arm.registry.users(None, 1000).await.unwrap().items.len(), 30);
}

async fn gateway_list_shows_newest_incarnations(arm: &RegistryArm) {
    let first = arm.node("g1").await;
    first.fence().await;
    // Two leases opened in the same millisecond would have no order.
    let opened = SystemTime::now();
    eventually(PATIENCE, "the clock advances", || async {
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
