//! Messages of the API in Redis: the calls of `publish.lua` and `direct.lua`, one of each for any number of messages.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU64;
use std::time::Duration;

use redis::streams::{StreamId, StreamRangeReply};
use redis::{Cmd, FromRedisValue, Script, Value};

use crate::model::keys::{CallKeys, KeyBuilder, NamedKeyBuilder, NickKeys, NickUnit, NodeUnit, OwnKey, RoomKeys};
use crate::model::keys::{ScriptKeys, SessionUnit};
use crate::model::stream::{StreamEnd, read_forks};
use crate::model::{NickKey, Owner, RoomKey};
use crate::registry::redis::done;
use crate::registry::reply::malformed;
use crate::registry::{RedisRegistry, RegistryError, retry, script};
use crate::store::redis::CallKind;
use crate::store::redis::message_scripts::{
    BUCKET_NOTES_MAX, DIRECT, DIRECT_BUCKETS, INBOX_RETENTION_SECONDS, PUBLISH, PUBLISH_BUCKETS,
};

use super::{ApiPost, Messages, PostError, PostTarget, PostedMessage, RoomMessage, RoomTail};

/// The lane of these calls: messages of one process stay in their order.
const LANE: &str = "api";

type PostResult = Result<PostedMessage, PostError>;

/// The messages to one target, with their places in the call of the caller.
struct TargetPosts<'a, K> {
    to: &'a K,
    posts: Vec<(usize, &'a ApiPost)>,
}

/// A script with the keys of its targets.
struct PostCall<'a, B: KeyBuilder> {
    script: &'static Script,
    kind: CallKind,
    targets: &'a [ScriptKeys<B>],
    /// The key that names all targets, in a text about the call.
    pattern: OwnKey<B>,
}

impl Messages for RedisRegistry {
    async fn post(&self, posts: &[ApiPost]) -> Vec<PostResult> {
        let numbered = || posts.iter().enumerate();
        let rooms = grouped(numbered().filter_map(|(at, post)| match &post.to {
            PostTarget::Room(room) => Some((room, at, post)),
            PostTarget::Nick(_) => None,
        }));
        let nicks = grouped(numbered().filter_map(|(at, post)| match &post.to {
            PostTarget::Room(_) => None,
            PostTarget::Nick(nick) => Some((nick, at, post)),
        }));
        let (to_rooms, to_nicks) = tokio::join!(
            retry::answered(|| self.post_to_rooms(&rooms)),
            retry::answered(|| self.post_to_nicks(&nicks))
        );
        let mut results: Vec<(usize, PostResult)> = answers(&rooms, to_rooms, room_answers);
        results.extend(answers(&nicks, to_nicks, inbox_answers));
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn room_messages(
        &self,
        room: &RoomKey,
        before: Option<NonZeroU64>,
        limit: usize,
    ) -> Result<Vec<RoomMessage>, RegistryError> {
        let end = before.map_or("+".to_owned(), |before| format!("({before}-0"));
        let mut connection = self.redis.query().await?;
        let mut command = redis::cmd("XREVRANGE");
        let stream = self.redis.keys().room(room).stream();
        command.arg(stream.as_str()).arg(end).arg("-").arg("COUNT").arg(limit);
        let reply: StreamRangeReply = self.redis.asked(&stream, command.query_async(&mut connection)).await?;
        Ok(reply.ids.iter().filter_map(message_of).collect())
    }

    async fn messages_after(
        &self,
        room: &RoomKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<RoomTail>, RegistryError> {
        let mut connection = self.redis.query().await?;
        let keys = self.redis.keys().room(room);
        let (meta, stream) = (keys.meta(), keys.stream());
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(meta.as_str()).arg(&["display", "epoch", "seq", "forks"]);
        pipeline.cmd("XRANGE").arg(stream.as_str()).arg("-").arg("+").arg("COUNT").arg(1);
        let from = format!("({after}-0");
        pipeline.cmd("XRANGE").arg(stream.as_str()).arg(from).arg("+").arg("COUNT").arg(limit);
        type TailReply = (Vec<Option<String>>, StreamRangeReply, StreamRangeReply);
        let reply: TailReply = self.redis.asked(&stream, pipeline.query_async(&mut connection)).await?;
        let (known, oldest, next) = reply;
        let [display, epoch, seq, forks] = known.try_into().map_err(|_| malformed("four fields"))?;
        let Some(display) = display else { return Ok(None) };
        let messages: Vec<RoomMessage> = next.ids.iter().filter_map(message_of).collect();
        let seq = seq.and_then(|seq| seq.parse().ok()).unwrap_or(0);
        let seq = messages.last().map_or(seq, |newest| newest.seq.max(seq));
        let forks = forks.map(|forks| read_forks(&forks)).unwrap_or_default();
        let end = StreamEnd { epoch: epoch.unwrap_or_default(), seq, forks };
        let first = oldest.ids.first().and_then(message_of).map(|first| first.seq);
        Ok(Some(RoomTail { room: display, end, first, messages }))
    }

    async fn delete_messages(&self, room: &RoomKey, seq: Option<NonZeroU64>) -> Result<u64, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().room(room)).own([RoomKeys::meta, RoomKeys::stream]);
        let seq = seq.map_or_else(String::new, |seq| seq.to_string());
        let args = [room.as_str(), &seq];
        let mut reply = self.write(room.as_str(), &script::DELETE_MESSAGES, keys, &args).await?;
        done(&mut reply)?;
        reply.number()
    }
}

/// Decodes an entry of a stream; `None` if it is malformed.
fn message_of(entry: &StreamId) -> Option<RoomMessage> {
    let seq = entry.id.split('-').next()?.parse().ok()?;
    Some(RoomMessage { seq, time: entry.get("time")?, payload: entry.get("payload")? })
}

/// Groups messages by target; each group keeps their order.
fn grouped<'a, K: Eq + Hash>(posts: impl Iterator<Item = (&'a K, usize, &'a ApiPost)>) -> Vec<TargetPosts<'a, K>> {
    let (mut groups, mut places) = (Vec::<TargetPosts<'a, K>>::new(), HashMap::new());
    for (to, at, post) in posts {
        let group = *places.entry(to).or_insert_with(|| {
            groups.push(TargetPosts { to, posts: Vec::new() });
            groups.len() - 1
        });
        groups[group].posts.push((at, post));
    }
    groups
}

impl RedisRegistry {
    async fn post_to_rooms(&self, rooms: &[TargetPosts<'_, RoomKey>]) -> Result<Vec<Value>, RegistryError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, retention, policies) = (self.redis.keys(), self.retention.get(), self.rooms.get());
        let own = [RoomKeys::meta, RoomKeys::stream, RoomKeys::members, RoomKeys::channel];
        let mut targets = Vec::with_capacity(rooms.len());
        for TargetPosts { to, .. } in rooms {
            targets.push(ScriptKeys::of(keys.room(to)).own(own).buckets_in_script(&PUBLISH_BUCKETS));
        }
        let mut command = self.post_command(&PUBLISH, &targets);
        command.arg(retention.messages).arg(retention.age.as_millis() as u64).arg(retention.quiet.as_secs());
        command.arg(epoch()).arg(retention.bytes);
        for TargetPosts { to, posts } in rooms {
            command.arg(policies.message_json_of(to)).arg(to.as_str()).arg(posts.len());
            for (_, post) in posts {
                let (owner, key) = (Owner::of_api(&post.application).token(), format!("={}", post.key));
                command.arg(owner).arg("").arg(key).arg(&post.msg_id).arg(&post.payload).arg("");
            }
        }
        let (script, pattern) = (&*PUBLISH, RoomKeys::meta as OwnKey<_>);
        self.send_posts(PostCall { script, kind: CallKind::Publish, targets: &targets, pattern }, &command).await
    }

    async fn post_to_nicks(&self, nicks: &[TargetPosts<'_, NickKey>]) -> Result<Vec<Value>, RegistryError> {
        if nicks.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, retention) = (self.redis.keys(), self.retention.get());
        let mut targets = Vec::with_capacity(nicks.len());
        for TargetPosts { to, posts } in nicks {
            let mut target = ScriptKeys::of(keys.nick(to))
                .own([NickKeys::record])
                .crossing_in_script::<NickUnit>()
                .crossing_in_script::<SessionUnit>()
                .crossing_in_script::<NodeUnit>()
                .buckets_in_script(&DIRECT_BUCKETS);
            // The place of the sender's nick, which a message of the API does not have.
            for _ in posts {
                target = target.own([NickKeys::record]);
            }
            targets.push(target);
        }
        let mut command = self.post_command(&DIRECT, &targets);
        command.arg("").arg(retention.inbox_messages).arg(INBOX_RETENTION_SECONDS).arg(epoch());
        command.arg(retention.inbox_bytes);
        for TargetPosts { to, posts } in nicks {
            command.arg(to.as_str()).arg(posts.len());
            for (_, post) in posts {
                let (owner, key) = (Owner::of_api(&post.application).token(), format!("={}", post.key));
                command.arg(owner).arg(key).arg(&post.msg_id).arg(&post.payload);
            }
        }
        let (script, pattern) = (&*DIRECT, NickKeys::record as OwnKey<_>);
        self.send_posts(PostCall { script, kind: CallKind::Direct, targets: &targets, pattern }, &command).await
    }

    /// Begins a call in any generation that is open.
    fn post_command<B: KeyBuilder>(&self, script: &Script, targets: &[ScriptKeys<B>]) -> Cmd {
        let keys = self.redis.keys();
        let key_count: usize = targets.iter().map(|target| target.names().len()).sum();
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(2 + key_count).arg(keys.generation()).arg(keys.leases());
        for target in targets {
            command.arg(target.names());
        }
        command.arg(keys.base()).arg("0").arg(BUCKET_NOTES_MAX).arg("");
        command
    }

    /// Sends a call, and returns one reply for each target.
    async fn send_posts<'k, B: NamedKeyBuilder<'k>>(
        &'k self,
        PostCall { script, kind, targets, pattern }: PostCall<'_, B>,
        command: &Cmd,
    ) -> Result<Vec<Value>, RegistryError> {
        let in_script = targets.first().map_or(&[][..], |target| target.described().in_script);
        let names = [self.redis.keys().pattern(pattern)];
        let mut lane = self.redis.lane(LANE);
        let sent = self.redis.call_script(&mut lane, script, command);
        let replies: Vec<Value> = self.redis.timed_on(kind, CallKeys { names: &names, in_script }, sent).await?;
        if replies.len() != targets.len() {
            return Err(RegistryError::Unknown("script returned a wrong number of targets".to_owned()));
        }
        Ok(replies)
    }
}

/// Returns an unused epoch, for a stream that has to begin one.
fn epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Returns the results of all messages to these targets, with their places.
fn answers<K>(
    targets: &[TargetPosts<'_, K>],
    replies: Result<Vec<Value>, RegistryError>,
    decode: impl Fn(Value, &[(usize, &ApiPost)]) -> Option<Vec<PostResult>>,
) -> Vec<(usize, PostResult)> {
    let mut replies = replies.map(Vec::into_iter);
    let mut results = Vec::new();
    for TargetPosts { posts, .. } in targets {
        let answered = match &mut replies {
            Ok(replies) => target_answers(replies.next().unwrap_or(Value::Nil), posts, &decode),
            Err(error) => vec![Err(error.clone().into()); posts.len()],
        };
        results.extend(posts.iter().map(|(at, _)| *at).zip(answered));
    }
    results
}

/// Decodes the reply for one target. What cannot be decoded may have been done.
fn target_answers(
    reply: Value,
    posts: &[(usize, &ApiPost)],
    decode: impl Fn(Value, &[(usize, &ApiPost)]) -> Option<Vec<PostResult>>,
) -> Vec<PostResult> {
    let failed = |error: RegistryError| vec![Err(error.into()); posts.len()];
    match reply {
        Value::BulkString(word) if word == b"apart" => {
            failed(RegistryError::Unavailable("the step of the target failed".to_owned()))
        }
        Value::BulkString(word) if word == b"unknown" => {
            failed(RegistryError::Unknown("script failed after a write".to_owned()))
        }
        reply => decode(reply, posts)
            .unwrap_or_else(|| failed(RegistryError::Unknown("script returned a malformed reply".to_owned()))),
    }
}

/// The stream of a reply, and the time of the messages that were stored now.
struct ReplyHead {
    epoch: String,
    time: u64,
    online: bool,
}

/// Decodes the reply for a room: `<epoch> <time> <last seq>`, or {epoch, time, an answer for each message}.
fn room_answers(reply: Value, posts: &[(usize, &ApiPost)]) -> Option<Vec<PostResult>> {
    match reply {
        Value::BulkString(text) => {
            let words: Vec<&str> = str::from_utf8(&text).ok()?.split(' ').collect();
            let [epoch, time, last] = words.try_into().ok()?;
            stored_in_a_row(&ReplyHead { epoch: epoch.to_owned(), time: time.parse().ok()?, online: true }, last, posts)
        }
        Value::Array(mut parts) if parts.len() == posts.len() + 2 => {
            let rest = parts.split_off(2);
            let [epoch, time] = parts.try_into().ok()?;
            let head = ReplyHead { epoch: word(epoch)?, time: u64::from_redis_value(time).ok()?, online: true };
            Some(judged(&head, rest, posts))
        }
        _ => None,
    }
}

/// Decodes the reply for an inbox: `<1 if online> <session> <epoch> <time> <last seq>`, or the same in parts, with an
/// answer for each message in place of the last seq.
fn inbox_answers(reply: Value, posts: &[(usize, &ApiPost)]) -> Option<Vec<PostResult>> {
    match reply {
        Value::BulkString(text) => {
            let words: Vec<&str> = str::from_utf8(&text).ok()?.split(' ').collect();
            let [online, _, epoch, time, last] = words.try_into().ok()?;
            let head = ReplyHead { epoch: epoch.to_owned(), time: time.parse().ok()?, online: online == "1" };
            stored_in_a_row(&head, last, posts)
        }
        Value::Array(mut parts) if parts.len() == posts.len() + 4 => {
            let rest = parts.split_off(4);
            let [online, _, epoch, time] = parts.try_into().ok()?;
            let online = u64::from_redis_value(online).ok()? == 1;
            let head = ReplyHead { epoch: word(epoch)?, time: u64::from_redis_value(time).ok()?, online };
            Some(judged(&head, rest, posts))
        }
        _ => None,
    }
}

fn word(value: Value) -> Option<String> {
    String::from_redis_value(value).ok()
}

/// Returns the results of messages that were all stored, one after the other.
fn stored_in_a_row(head: &ReplyHead, last: &str, posts: &[(usize, &ApiPost)]) -> Option<Vec<PostResult>> {
    // A number of Redis has 63 bits.
    let last = u64::try_from(last.parse::<i64>().ok()?).ok()?;
    let first = (last + 1).checked_sub(posts.len() as u64).filter(|first| *first > 0)?;
    Some((first..).zip(posts).map(|(seq, (_, post))| Ok(stored(head, post, seq))).collect())
}

fn stored(head: &ReplyHead, post: &ApiPost, seq: u64) -> PostedMessage {
    let ReplyHead { epoch, time, online } = head;
    PostedMessage {
        msg_id: post.msg_id.clone(),
        seq,
        epoch: epoch.clone(),
        time: *time,
        duplicate: false,
        online: *online,
    }
}

/// Returns the results of messages of which each has an answer: its seq, or a verdict.
fn judged(head: &ReplyHead, answers: Vec<Value>, posts: &[(usize, &ApiPost)]) -> Vec<PostResult> {
    let judge = |(answer, (_, post)): (Value, &(usize, &ApiPost))| match answer {
        Value::Int(seq @ 1..) => Ok(stored(head, post, seq.unsigned_abs())),
        Value::Array(parts) => verdict(head, post, parts),
        _ => Err(RegistryError::Unknown("script returned a malformed answer".to_owned()).into()),
    };
    answers.into_iter().zip(posts).map(judge).collect()
}

/// Decodes {verdict, seq, time, message id, ..}. A duplicate of this very message is the answer to an earlier attempt
/// of the same call.
fn verdict(head: &ReplyHead, post: &ApiPost, parts: Vec<Value>) -> PostResult {
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let (kind, seq, time, id) =
        (word(next()), u64::from_redis_value(next()), u64::from_redis_value(next()), word(next()));
    match (kind.as_deref(), seq, time, id) {
        (Some("duplicate"), Ok(seq), Ok(time), Some(msg_id)) => {
            let duplicate = msg_id != post.msg_id;
            Ok(PostedMessage { msg_id, seq, epoch: head.epoch.clone(), time, duplicate, online: head.online })
        }
        (Some("no_such_room"), ..) => Err(PostError::NoSuchRoom),
        (Some("no_such_user"), ..) => Err(PostError::NoSuchUser),
        (Some("exhausted"), _, Ok(time), _) => Err(PostError::Exhausted { retry_after: Duration::from_millis(time) }),
        (kind, ..) => Err(RegistryError::Unknown(format!("script returned verdict {kind:?}")).into()),
    }
}
