//! The contract of listings: complete, in an order that renames keep, and paged by cursor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use harness::eventually;
use presence::model::{ListCursor, Nick};
use presence::registry::{ClusterStats, LeaseState, ListPage, ReleaseCause};

use super::{JoinEntry, PATIENCE, RegistryArm, nick, on_both_arms, room};

on_both_arms! {
    pages_list_every_entry_exactly_once,
    page_respects_its_limit_and_cursor,
    lookup_answers_in_request_order,
    lookup_reads_users_of_many_rooms,
    renamed_users_are_listed_exactly_once,
    rename_during_a_page_hides_no_user,
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
    let mut place: Option<ListCursor> = None;
    loop {
        let page = arm.registry.users(place, 17).await.unwrap();
        let names: Vec<String> = page.items.into_iter().map(|user| user.nick).collect();
        assert!(names.is_sorted_by_key(|name| nick(name).key().clone()), "a page is sorted: {names:?}");
        users.extend(names);
        place = next(page.next_cursor);
        if place.is_none() {
            break;
        }
    }
    loop {
        let page = arm.registry.members(room("#lobby").key(), place, 50).await.unwrap();
        members.extend(page.items.into_iter().map(|member| member.nick));
        place = next(page.next_cursor);
        if place.is_none() {
            break;
        }
    }
    let mut cursor: Option<String> = None;
    loop {
        let page = arm.registry.rooms(cursor.as_deref(), 1000).await.unwrap();
        rooms.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    for names in [&mut users, &mut members] {
        names.sort_unstable_by_key(|name| nick(name).key().clone());
        assert_eq!(*names, expected);
    }
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
    let first = arm.registry.users(None, 3).await.unwrap();
    assert_eq!(first.items.len(), 3);
    let second = arm.registry.users(next(first.next_cursor), 3).await.unwrap();
    assert_eq!((second.items.len(), second.next_cursor), (1, None), "the last page has no cursor");
    let all = arm.registry.users(None, 4).await.unwrap();
    let names: String = all.items.iter().map(|user| user.nick.as_str()).collect();
    assert_eq!((names.as_str(), all.next_cursor), ("abcd", None));
    assert_eq!(arm.registry.users("0".parse().ok(), 9).await.unwrap().items.len(), 4, "a cursor need not name a row");
    let behind_all = ((1_u64 << 48) - 1).to_string().parse().ok();
    assert!(behind_all.is_some() && arm.registry.users(behind_all, 9).await.unwrap().items.is_empty());
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

async fn renamed_users_are_listed_exactly_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (mut users, mut names) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let user = node.user(&format!("m{number:02}")).await;
        user.join("#lobby").await;
        names.push(vec![user.nick.as_str().to_owned()]);
        users.push(user);
    }
    let (mut seen, mut members) = (Vec::new(), Vec::new());
    let (mut cursor, mut member_cursor): (Option<ListCursor>, Option<ListCursor>) = (None, None);
    for round in 0.. {
        if round == 0 || cursor.is_some() {
            let page = arm.registry.users(cursor, 3).await.unwrap();
            assert!(page.items.len() <= 3);
            seen.extend(page.items.into_iter().map(|user| user.nick));
            cursor = next(page.next_cursor);
        }
        if round == 0 || member_cursor.is_some() {
            let page = arm.registry.members(room("#lobby").key(), member_cursor, 3).await.unwrap();
            members.extend(page.items.into_iter().map(|member| member.nick));
            member_cursor = next(page.next_cursor);
        }
        if cursor.is_none() && member_cursor.is_none() {
            break;
        }
        // One user moves from the front of the alphabet to its end, another one to its front.
        for (number, letter) in [(round % 40, 'z'), (39 - round % 40, 'a')] {
            let former = users[number].clone();
            let renamed = node.claim_as(&former.owner.session, &format!("{letter}{round:02}")).await.unwrap();
            // Every third rename stays in the middle: both nicknames are owned.
            if round % 3 != 0 {
                renamed.try_join("#lobby", JoinEntry::Renamed(&former.nick, &former.owner)).await.unwrap();
                arm.registry
                    .release(&former.nick, &former.owner, ReleaseCause::RenamedTo(&renamed.nick))
                    .await
                    .unwrap();
            }
            names[number].push(renamed.nick.as_str().to_owned());
            users[number] = renamed;
        }
    }
    for (list, found) in [("users", seen), ("members", members)] {
        for known in &names {
            let times = found.iter().filter(|name| known.contains(name)).count();
            assert_eq!(times, 1, "{list}: {known:?} in {found:?}");
        }
    }
}

async fn rename_during_a_page_hides_no_user(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let mut user = node.user("restless0").await;
    user.join("#lobby").await;
    let done = AtomicBool::new(false);
    let rename = async {
        for number in 1.. {
            let former = user.clone();
            user = node.claim_as(&former.owner.session, &format!("restless{number}")).await.unwrap();
            user.try_join("#lobby", JoinEntry::Renamed(&former.nick, &former.owner)).await.unwrap();
            arm.registry.release(&former.nick, &former.owner, ReleaseCause::RenamedTo(&user.nick)).await.unwrap();
            if done.load(Ordering::Relaxed) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let list = async {
        for _ in 0..200 {
            assert_eq!(arm.registry.users(None, 10).await.unwrap().items.len(), 1);
            assert_eq!(arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items.len(), 1);
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(rename, list);
}

fn next(cursor: Option<String>) -> Option<ListCursor> {
    cursor.map(|text| text.parse().expect("the cursor of a page is read back"))
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
