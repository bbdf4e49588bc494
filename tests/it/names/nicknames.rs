//! Nickname ownership: one session owns a nickname in the whole cluster, also under concurrent claims.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, LineClient, WsClient, eventually};
use serde_json::json;

const CONTENDERS: usize = 200;
const ROUNDS: usize = 100;
const SOON: Duration = Duration::from_secs(20);

/// A client that claims the nickname.
enum NickContender {
    Json(WsClient),
    Text(LineClient),
}

impl NickContender {
    /// Connects, alternating between gateways and dialects.
    async fn connect(cluster: &Cluster, number: usize) -> Self {
        match number % 4 {
            0 | 1 => Self::Json(cluster.ws_on(number % 2).await),
            _ => Self::Text(cluster.line_on(number % 2).await),
        }
    }

    /// Claims the nickname with a registration or a rename, and returns the success.
    async fn wins(&self, nick: &str) -> bool {
        match self {
            Self::Json(ws) => {
                let verb = if ws.name() == "unregistered" { "register" } else { "nick" };
                let answer = ws.request_within(SOON, json!({"type": verb, "nick": nick})).await;
                answer.map_err(|refused| assert_eq!(refused.code, "nick_in_use")).is_ok()
            }
            Self::Text(line) => {
                line.types(&format!("/nick {nick}")).await;
                let is_answer = |line: &str| line.starts_with("* you are now known as ") || line.starts_with("! ");
                let answer = line.next_that(SOON, is_answer).await.unwrap();
                if answer.starts_with("! ") {
                    assert!(answer.starts_with("! nick_in_use"), "{answer}");
                    return false;
                }
                true
            }
        }
    }

    /// Changes to another nickname.
    async fn steps_aside(&self, nick: &str) {
        match self {
            Self::Json(ws) => drop(ws.rename(nick).await),
            Self::Text(line) => line.register(nick).await,
        }
    }

    async fn disconnects(&self) {
        match self {
            Self::Json(ws) => drop(ws.bye().await),
            Self::Text(line) => {
                line.types("/quit").await;
                line.closed().await;
            }
        }
    }
}

#[tokio::test]
async fn one_contender_wins_a_raced_nickname() {
    let cluster = Cluster::builder().gateways(2).presence(1).start().await;
    let mut contenders = join_all((0..CONTENDERS).map(|number| NickContender::connect(&cluster, number))).await;
    let mut named = [false; CONTENDERS];
    for round in 0..ROUNDS {
        let outcomes = join_all(contenders.iter().map(|contender| contender.wins("star"))).await;
        let winners: Vec<usize> = (0..CONTENDERS).filter(|number| outcomes[*number]).collect();
        assert_eq!(winners.len(), 1, "round {round} was won by {winners:?}");
        assert!(cluster.is_online("star").await);

        // Half of the winners rename themselves; the other half disconnect and connect again.
        let winner = winners[0];
        if round % 2 == 0 {
            contenders[winner].steps_aside(&format!("former-star-{round}")).await;
            named[winner] = true;
        } else {
            contenders[winner].disconnects().await;
            contenders[winner] = NickContender::connect(&cluster, winner).await;
            named[winner] = false;
        }
        // The gateway closes unregistered connections after 30 s, less than all rounds may need.
        if round % 20 == 19 {
            for number in (0..CONTENDERS).filter(|number| !named[*number]) {
                contenders[number] = NickContender::connect(&cluster, number).await;
            }
        }
        eventually(SOON, "nickname released", || async {
            if cluster.is_online("star").await { Err("taken") } else { Ok(()) }
        })
        .await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn nicknames_ignore_letter_case() {
    let cluster = Cluster::builder().gateways(2).presence(1).start().await;
    let ann = cluster.person_on(0, "Ann").await;
    assert_eq!(cluster.refusal_on(1, "aNN").await, "nick_in_use");
    cluster.person_on(1, "bob").await.sends("ANN", "any spelling works").await;
    let delivery = ann.receives_privately("bob", "any spelling works").await;
    assert_eq!(delivery.to, "Ann");
    cluster.finish().await;
}

#[tokio::test]
async fn gateway_refuses_a_confusable_nickname() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = cluster.person_on(0, "paypal").await;
    // Cyrillic letters that look like p and a.
    assert_eq!(cluster.refusal_on(1, "\u{440}\u{430}ypal").await, "nick_confusable");
    let other = cluster.person_on(1, "小明").await;
    other.join("#大廳").await;
    ann.join("#大廳").await;
    other.sends("#大廳", "你好").await;
    ann.receives("#大廳", "小明", "你好").await;
    cluster.finish().await;
}

/// A nickname, and one that looks like it.
const LOOKALIKES: &[(&str, &str)] = &[
    // Capitals of Cyrillic and Greek.
    ("Tom", "\u{422}om"),
    ("Bob", "\u{412}ob"),
    ("Hal", "\u{41D}al"),
    ("Hal", "\u{397}al"),
    ("Mary", "\u{41C}ary"),
    ("Kim", "\u{41A}im"),
    ("TOMMY", "\u{422}OMMY"),
    ("MAX", "\u{41C}AX"),
    ("Zoe", "\u{396}oe"),
    ("Nick", "\u{39D}ick"),
    ("bobby", "\u{42C}obby"),
    ("Eve", "\u{395}ve"),
    ("Yuri", "\u{3A5}uri"),
    ("Anna", "\u{410}nna"),
    ("Carl", "\u{421}arl"),
    ("Petra", "\u{420}etra"),
    ("Xena", "\u{425}ena"),
    ("Admin", "\u{391}dmin"),
    ("Ivan", "\u{399}van"),
    ("Root", "R\u{3BF}ot"),
    ("frank", "FR\u{391}\u{39D}\u{39A}"),
    // Within ASCII.
    ("paypal", "paypaI"),
    ("modern", "rnodern"),
    ("Ivar", "lvar"),
    ("agent0", "agentO"),
];

#[tokio::test]
async fn lookalikes_are_refused_by_another_gateway() {
    let cluster = Cluster::builder().gateways(2).start().await;
    for (genuine, lookalike) in LOOKALIKES {
        let here = cluster.person_on(0, genuine).await;
        assert_eq!(cluster.refusal_on(1, lookalike).await, "nick_confusable", "{genuine} {lookalike}");
        here.bye().await;
        let there = cluster.person_on(1, lookalike).await;
        assert_eq!(cluster.refusal_on(0, genuine).await, "nick_confusable", "{lookalike} {genuine}");
        there.bye().await;
        cluster.person_on(0, genuine).await.bye().await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn respelled_nickname_must_not_become_a_lookalike() {
    let cluster = Cluster::builder().gateways(2).start().await;
    // A small Cyrillic te looks like no t, a capital one does.
    let (tom, other) = (cluster.person_on(0, "tom").await, cluster.person_on(1, "\u{442}om").await);
    assert_eq!(other.chat().rename("\u{422}om").await.unwrap_err().code(), "nick_confusable");
    tom.chat().rename("tim").await.unwrap();
    other.chat().rename("\u{422}om").await.unwrap();
    assert_eq!(tom.chat().rename("TOM").await.unwrap_err().code(), "nick_confusable");
    other.chat().rename("\u{442}om").await.unwrap();
    tom.chat().rename("TOM").await.unwrap();
    cluster.finish().await;
}

#[tokio::test]
async fn operator_may_allow_lookalikes_within_ascii() {
    let cluster =
        Cluster::builder().gateways(2).gateway_setting("PARLEY__NAMES__ASCII_LOOKALIKES", "false").start().await;
    let _genuine = cluster.person_on(0, "paypal").await;
    assert_eq!(cluster.refusal_on(1, "p\u{430}ypal").await, "nick_confusable");
    cluster.person_on(1, "paypaI").await;
    cluster.finish().await;
}

/// A client that loads its list of members between two of the changes would otherwise keep the former nickname.
#[tokio::test]
async fn each_step_of_a_member_is_reported() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (bob, ann) = (cluster.ws_on(1).await, cluster.ws_on(0).await);
    bob.register("bob").await;
    bob.join("#lobby").await;
    ann.register("ann").await;
    for request in [
        json!({"type": "join", "room": "#lobby"}),
        json!({"type": "nick", "nick": "anna"}),
        json!({"type": "leave", "room": "#lobby"}),
    ] {
        ann.post(request).await;
    }
    let steps = [
        bob.sees_join("#lobby", "ann").await.at,
        bob.sees_rename("#lobby", "ann", "anna").await.at,
        bob.sees_left("#lobby", "anna", "left").await.at,
    ];
    assert!(steps.is_sorted_by(|one, two| one < two), "in this order: {steps:?}");
    cluster.finish().await;
}
