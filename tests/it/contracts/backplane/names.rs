//! Names with signs, and their idempotency keys.

use futures_util::future::join_all;
use gateway::backplane::{PublishError, Published};
use presence::model::Nick;

use super::fixture::{BackplaneNode, NickHolder, StoreFixture, room};

/// Returns all texts of at most `length` of these characters.
fn texts(signs: &[&str], length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut longest = all.clone();
    for _ in 0..length {
        longest = longest.iter().flat_map(|text| signs.iter().map(move |sign| format!("{text}{sign}"))).collect();
        all.extend(longest.iter().cloned());
    }
    all
}

async fn send(node: &BackplaneNode, (to, from, key): (&str, &NickHolder, &str)) -> Result<Published, PublishError> {
    let request = from.keyed(key, "x");
    match to.strip_prefix('@') {
        None => node.publish(&room(to), &request).await,
        Some(nick) => node.backplane.direct(Nick::parse(nick).unwrap().key(), &request).await,
    }
}

/// Every separator of the stores stands in the names and in the keys. Each target, session and key has its own answer.
pub(crate) async fn idempotency_keys_never_collide_across_names(store: &StoreFixture) {
    let node = store.node("g1").await;
    let (ann, bob) = (node.claim_nick("ann").await, node.claim_nick("bob").await);
    let mut targets = Vec::new();
    for name in texts(&["a", "|", "@", "=", "/"], 2).into_iter().filter(|name| !name.is_empty()) {
        let name = format!("#{name}");
        node.join(&ann, &room(&name)).await;
        node.join(&bob, &room(&name)).await;
        targets.push(name);
    }
    for nick in texts(&["a", "|", "=", ":", "/"], 2) {
        if let Ok(parsed) = Nick::parse(&nick) {
            node.claim_nick(parsed.as_str()).await;
            targets.push(format!("@{nick}"));
        }
    }
    let keys = texts(&["a", "|", "#", "="], 2);
    let mut sends = Vec::new();
    for to in &targets {
        for key in &keys {
            sends.extend([(&**to, &ann, &**key), (&**to, &bob, &**key)]);
        }
    }
    let answers = async || {
        let mut answers = Vec::new();
        for some in sends.chunks(500) {
            answers.extend(join_all(some.iter().map(|one| send(&node, *one))).await);
        }
        answers
    };
    let (first, again) = (answers().await, answers().await);
    for ((to, from, key), (first, again)) in sends.iter().zip(first.into_iter().zip(again)) {
        let (from, first, again) = (&from.nick, first.unwrap(), again.unwrap());
        assert!(!first.duplicate, "{from} to {to} with the key {key:?} got another answer");
        assert_eq!(again, Published { duplicate: true, ..first }, "{from} to {to} with the key {key:?}");
    }
}
