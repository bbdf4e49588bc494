//! Messages of the server API: published by the registry, delivered like those of users.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use gateway::backplane::Range;
use presence::model::stream::{PageLimit, StreamId};
use presence::model::{Nick, NickKey, RoomName, SessionId, TokenHash};
use presence::registry::{ApiPost, PayloadFields, PostError, PostTarget, PostedMessage, RegistryError, payload};
use serde_json::value::RawValue;

use super::fixture::{BackplaneNode, SOON, StoreFixture, eventually, room};

/// Returns a message of an application.
pub(super) fn post_of(application: &str, to: PostTarget, key: &str) -> ApiPost {
    let body = RawValue::from_string(format!("\"{key}\"")).unwrap();
    let msg_id = SessionId::random().to_string();
    let shown = match &to {
        PostTarget::Room(room) => format!("#{room}"),
        PostTarget::Nick(nick) => nick.as_str().to_owned(),
    };
    let fields = PayloadFields { to: &shown, from: "news", msg_id: &msg_id, accepted: 7, application, body: &body };
    let payload = payload(fields);
    ApiPost { to, application: application.to_owned(), key: key.to_owned(), msg_id, payload }
}

fn to_room(room: &RoomName, key: &str) -> ApiPost {
    post_of("app", PostTarget::Room(room.key().clone()), key)
}

fn to_nick(nick: &str, key: &str) -> ApiPost {
    post_of("app", PostTarget::Nick(nick_key(nick)), key)
}

fn nick_key(nick: &str) -> NickKey {
    Nick::parse(nick).unwrap().key().clone()
}

async fn post_one(node: &BackplaneNode, post: ApiPost) -> Result<PostedMessage, PostError> {
    let mut results = node.registry.post(&[post]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

pub(crate) async fn posted_message_has_its_place_in_the_room(store: &StoreFixture) {
    let (one, two) = (store.node("one").await, store.node("two").await);
    let lobby = room("#lobby");
    let ann = one.member("ann", &lobby).await;
    two.member("bob", &lobby).await;
    one.publish(&lobby, &ann.request("first")).await.unwrap();
    let posted = post_one(&one, to_room(&lobby, "k")).await.unwrap();
    let last = one.publish(&lobby, &ann.request("last")).await.unwrap();
    assert_eq!((posted.seq, last.seq, posted.duplicate), (2, 3, false));
    for node in [&one, &two] {
        let message = node.receives(&lobby, &posted.msg_id).await;
        assert_eq!((message.seq, message.time, message.from.as_str()), (posted.seq, posted.time, "news"));
        assert!(message.from_api);
        node.receives(&lobby, &last.msg_id).await;
        let seqs: Vec<u64> = node.messages(&lobby).iter().map(|message| message.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert!(node.messages(&lobby).iter().all(|message| message.from_api == (message.seq == 2)));
    }
}

pub(crate) async fn posted_key_gets_first_answer_for_its_application(store: &StoreFixture) {
    let node = store.node("one").await;
    let (lobby, attic) = (room("#lobby"), room("#attic"));
    let ann = node.member("ann", &lobby).await;
    node.join(&ann, &attic).await;
    let first = post_one(&node, to_room(&lobby, "k")).await.unwrap();
    let again = post_one(&node, to_room(&lobby, "k")).await.unwrap();
    assert_eq!(again, PostedMessage { duplicate: true, ..first.clone() });
    let read = node.registry.room_messages(lobby.key(), None, 10).await.unwrap();
    let [only] = &read[..] else { panic!("one message was stored: {read:?}") };
    assert_eq!((only.seq, only.time, only.payload.contains(&first.msg_id)), (first.seq, first.time, true));
    let older = node.registry.room_messages(lobby.key(), NonZeroU64::new(1), 10).await.unwrap();
    assert!(older.is_empty(), "{older:?}");
    // The same key of another application, in another room and of a user is another one.
    let other = post_of("other", PostTarget::Room(lobby.key().clone()), "k");
    assert!(!post_one(&node, other).await.unwrap().duplicate);
    assert!(!post_one(&node, to_room(&attic, "k")).await.unwrap().duplicate);
    assert!(!node.publish(&lobby, &ann.keyed("k", "mine")).await.unwrap().duplicate);
    // A repeated key within one call, and the repeat of a whole call.
    let call = [to_room(&lobby, "a"), to_room(&lobby, "a"), to_room(&lobby, "b")];
    let results: Vec<PostedMessage> = node.registry.post(&call).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().map(|posted| posted.duplicate).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(results[0].msg_id, results[1].msg_id);
    let stored: BTreeSet<u64> = results.iter().map(|posted| posted.seq).collect();
    assert_eq!(stored.len(), 2);
}

pub(crate) async fn each_post_has_a_result_of_its_own(store: &StoreFixture) {
    let node = store.node("one").await;
    let (lobby, attic, unknown) = (room("#lobby"), room("#attic"), room("#nowhere"));
    let ann = node.member("ann", &lobby).await;
    node.join(&ann, &attic).await;
    node.claim_nick_with("away", &TokenHash::of(b"x")).await;
    let call = [
        to_room(&lobby, "1"),
        to_nick("zoe", "2"),
        to_room(&unknown, "3"),
        to_nick("ann", "4"),
        to_room(&attic, "5"),
        to_room(&lobby, "6"),
    ];
    let results = node.registry.post(&call).await;
    let codes: Vec<&str> = results
        .iter()
        .map(|result| match result {
            Ok(_) => "ok",
            Err(PostError::NoSuchRoom) => "no room",
            Err(PostError::NoSuchUser) => "no user",
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(codes, ["ok", "no user", "no room", "ok", "ok", "ok"]);
    let seq = |at: usize| results[at].as_ref().unwrap().seq;
    assert_eq!((seq(0), seq(4), seq(5)), (1, 1, 2));
    // A refused message notes no key: it can be sent again.
    assert_eq!(post_one(&node, to_nick("zoe", "2")).await, Err(PostError::NoSuchUser));
    assert!(node.registry.room(unknown.key()).await.unwrap().is_none(), "a post creates no room");
}

pub(crate) async fn posted_direct_message_reaches_session_and_inbox(store: &StoreFixture) {
    let (one, two) = (store.node("one").await, store.node("two").await);
    let bob = two.claim_nick("bob").await;
    let posted = post_one(&one, to_nick("bob", "k")).await.unwrap();
    assert!(posted.online);
    let (session, message) = eventually(SOON, "bob receives it", async || {
        two.directs().into_iter().find(|(_, message)| message.msg_id == posted.msg_id)
    })
    .await;
    assert_eq!((session, message.from_api), (bob.owner.session.clone(), true));
    assert!(one.directs().is_empty());
    let again = post_one(&one, to_nick("bob", "k")).await.unwrap();
    assert!(again.duplicate && again.msg_id == posted.msg_id, "{again:?}");
}

pub(crate) async fn empty_room_keeps_posts_until_it_ends(store: &StoreFixture) {
    let node = store.node("one").await;
    let lobby = room("#lobby");
    let ann = node.member("ann", &lobby).await;
    for text in ["a", "b", "c"] {
        node.publish(&lobby, &ann.request(text)).await.unwrap();
    }
    node.leave(&ann, &lobby).await;
    let posted = post_one(&node, to_room(&lobby, "k")).await.unwrap();
    assert_eq!(posted.seq, 4);
    if let StoreFixture::Redis(server, _) = store {
        // Without members nothing else would end the stream.
        for key in ["room", "log"] {
            let ttl: i64 = server.ask(&["TTL", &format!("parley:{{0}}:{key}:lobby")]).await;
            assert!(ttl > 3600, "{key} has the lifetime {ttl}");
        }
    }
}

pub(crate) async fn deleted_messages_leave_a_gap(store: &StoreFixture) {
    let node = store.node("one").await;
    let lobby = room("#lobby");
    let ann = node.member("ann", &lobby).await;
    for text in ["1", "2", "3", "4", "5"] {
        node.publish(&lobby, &ann.request(text)).await.unwrap();
    }
    let delete = async |seq| node.registry.delete_messages(lobby.key(), NonZeroU64::new(seq)).await;
    let stream = StreamId::Room(lobby.key().clone());
    // Returns the seqs of a page after a position, and the last seq that it covers.
    let replayed = async |after: u64, limit: usize| {
        let page = node.backplane.read_after(&stream, after, PageLimit::of_messages(limit)).await.unwrap();
        (page.messages.iter().map(|message| message.seq).collect::<Vec<u64>>(), page.through)
    };
    assert_eq!((delete(3).await, delete(3).await, delete(9).await), (Ok(1), Ok(0), Ok(0)));
    assert_eq!(replayed(0, 10).await, (vec![1, 2, 4, 5], 5));
    assert_eq!(replayed(1, 2).await, (vec![2, 4], 4));
    assert_eq!(replayed(2, 10).await, (vec![4, 5], 5));
    let newest = node.backplane.history(lobby.key(), Range::Newest, PageLimit::of_messages(3)).await.unwrap();
    assert_eq!(newest.messages.iter().map(|message| message.seq).collect::<Vec<u64>>(), [2, 4, 5]);
    // The newest one too: its seq is not used again.
    assert_eq!(delete(5).await, Ok(1));
    assert_eq!(node.publish(&lobby, &ann.request("6")).await.unwrap().seq, 6);
    assert_eq!((delete(0).await, delete(0).await), (Ok(4), Ok(0)));
    assert_eq!(replayed(0, 10).await, (Vec::new(), 6));
    assert_eq!(node.publish(&lobby, &ann.request("7")).await.unwrap().seq, 7);
    assert_eq!(replayed(2, 10).await, (vec![7], 7));
    if let StoreFixture::Redis(server, _) = store {
        // A meta that was restored from before its stream: the end is known by the messages only.
        let _: i64 = server.ask(&["HSET", "parley:{0}:room:lobby", "seq", "3"]).await;
        assert_eq!(delete(0).await, Ok(1));
        assert_eq!(node.publish(&lobby, &ann.request("8")).await.unwrap().seq, 8);
    }
    let unknown = node.registry.delete_messages(room("#attic").key(), None).await;
    assert_eq!(unknown, Err(RegistryError::NoSuchRoom));
}

pub(crate) async fn messages_after_position_come_with_the_end(store: &StoreFixture) {
    let node = store.node("one").await;
    let lobby = room("#Lobby");
    node.member("ann", &lobby).await;
    assert_eq!(node.registry.messages_after(room("#attic").key(), 0, 10).await, Ok(None));
    let empty = node.registry.messages_after(lobby.key(), 0, 10).await.unwrap().unwrap();
    assert_eq!((empty.room.as_str(), empty.end.seq, empty.first, empty.messages), ("#Lobby", 0, None, vec![]));
    for key in ["a", "b", "c"] {
        post_one(&node, to_room(&lobby, key)).await.unwrap();
    }
    let tail = node.registry.messages_after(lobby.key(), 1, 1).await.unwrap().unwrap();
    let seqs: Vec<u64> = tail.messages.iter().map(|message| message.seq).collect();
    assert_eq!((seqs, tail.end.seq, tail.first), (vec![2], 3, Some(1)));
    assert!(tail.messages[0].payload.contains("\"body\":\"b\""), "{tail:?}");
    let end = node.registry.messages_after(lobby.key(), 3, 10).await.unwrap().unwrap();
    assert_eq!((end.messages, end.end), (vec![], tail.end));
}
