//! Reads of streams: history pages, the messages after a position, and the ends of streams.
//!
//! One script reads one stream, so epoch, end and messages are of one moment. Many streams share a pipeline over the
//! query pool, so no read delays a delivery.

use std::sync::LazyLock;

use presence::model::RoomKey;
use presence::model::keys::Keys;
use presence::model::stream::{StreamEnd, StreamId, read_forks};
use presence::registry::RegistryError;
use presence::store::redis::CallKind;
use redis::streams::{self, StreamRangeReply};
use redis::{Cmd, ErrorKind, Script, ServerErrorKind};

use super::{RedisBackplane, epoch, script};
use crate::backplane::{HistoryPage, Range, ReplayPage, envelope};
use crate::message::ChatMessage;

static PAGE: LazyLock<Script> = LazyLock::new(|| script(&[], include_str!("../lua/page.lua")));

/// Maximum number of streams in one pipeline, few enough to delay no message for long.
const STREAMS_MAX: usize = 100;
/// The lifetime of a stream's meta without its room or session: 73 hours, longer than any position.
const META_SECONDS: u64 = 73 * 60 * 60;
/// The lifetime of a meta without room, session and messages: a join within it continues its epoch.
const BLANK_META_SECONDS: u64 = 60 * 60;

/// Epoch, seq of the end, forks, entries.
type PageReply = (String, u64, String, StreamRangeReply);

impl RedisBackplane {
    pub(super) async fn read_page(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<ReplayPage, RegistryError> {
        let read = [(stream, after, limit)];
        let Some((epoch, top, forks, page)) = self.pages(&read).await?.pop() else {
            return Err(RegistryError::Unknown("stream read returned nothing".to_owned()));
        };
        let last = page.ids.last().map_or(after, |entry| seq(entry).unwrap_or(after));
        let through = if page.ids.len() < limit { top.max(after) } else { last };
        let messages: Vec<ChatMessage> = page.ids.iter().filter_map(message).collect();
        self.node.malformed.add(&names(self.node.redis.keys(), stream).1, (page.ids.len() - messages.len()) as u64);
        Ok(ReplayPage { end: StreamEnd { epoch, seq: top, forks: read_forks(&forks) }, messages, through })
    }

    pub(super) async fn read_stream_ends(
        &self,
        streams: &[StreamId],
    ) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        let mut ends = Vec::with_capacity(streams.len());
        for chunk in streams.chunks(STREAMS_MAX) {
            let read: Vec<_> = chunk.iter().map(|stream| (stream, 0, 0)).collect();
            let pages = self.pages(&read).await?.into_iter();
            let found = pages.map(|(epoch, top, forks, _)| StreamEnd { epoch, seq: top, forks: read_forks(&forks) });
            ends.extend(chunk.iter().cloned().zip(found));
        }
        Ok(ends)
    }

    pub(super) async fn read_history(
        &self,
        room: &RoomKey,
        range: Range,
        limit: usize,
    ) -> Result<HistoryPage, RegistryError> {
        let stream = self.node.redis.keys().room(room).stream();
        // One more than requested shows whether there are more.
        let count = limit.saturating_add(1);
        let command = match range {
            Range::Newest => redis::Cmd::xrevrange_count(&stream, "+", "-", count),
            Range::Before(seq) => redis::Cmd::xrevrange_count(&stream, seq.saturating_sub(1), "-", count),
            Range::After(seq) => redis::Cmd::xrange_count(&stream, seq.saturating_add(1), "+", count),
        };
        let mut connection = self.node.redis.query().await?;
        let answer = command.query_async(&mut connection);
        let reply: StreamRangeReply =
            self.node.redis.timed_on(CallKind::Log, &[stream.as_str().to_owned()], answer).await?;

        let more = reply.ids.len() > limit;
        let mut messages = Vec::with_capacity(reply.ids.len().min(limit));
        for entry in reply.ids.iter().take(limit) {
            let seq = entry.id.split('-').next().and_then(|seq| seq.parse().ok());
            let payload: Option<Vec<u8>> = entry.get("payload");
            let read = seq.zip(entry.get("time")).zip(payload);
            match read.and_then(|((seq, time), payload)| envelope::message(&payload, seq, time)) {
                Some(message) => messages.push(message),
                None => self.node.malformed.add(&stream, 1),
            }
        }
        if !matches!(range, Range::After(_)) {
            messages.reverse();
        }
        Ok(HistoryPage { messages, more })
    }

    /// Reads one page of each stream, after a seq and up to a number of messages.
    async fn pages(&self, read: &[(&StreamId, u64, usize)]) -> Result<Vec<PageReply>, RegistryError> {
        let keys = self.node.redis.keys();
        let mut pipeline = redis::pipe();
        for (stream, after, limit) in read {
            let (meta, stream) = names(keys, stream);
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(PAGE.get_hash()).arg(3).arg(keys.generation()).arg(meta).arg(stream);
            call.arg(epoch()).arg(after.saturating_add(1)).arg(limit).arg(META_SECONDS).arg(BLANK_META_SECONDS);
            pipeline.add_command(call);
        }
        let mut connection = self.node.redis.query().await?;
        let call = async {
            match pipeline.query_async(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    PAGE.load_async(&mut connection).await?;
                    pipeline.query_async(&mut connection).await
                }
                answer => answer,
            }
        };
        // One broken stream refuses the whole pipeline, so the call is identified by its first stream.
        let first: Vec<String> = read.iter().take(1).map(|(stream, ..)| names(keys, stream).1).collect();
        self.node.redis.timed_on(CallKind::Log, &first, call).await
    }
}

/// Returns the keys of a stream's meta and of the stream itself.
fn names(keys: &Keys, stream: &StreamId) -> (String, String) {
    match stream {
        StreamId::Room(room) => (keys.room(room).meta().into(), keys.room(room).stream().into()),
        StreamId::Inbox(session) => (keys.session(session).record().into(), keys.session(session).inbox().into()),
    }
}

fn seq(entry: &streams::StreamId) -> Option<u64> {
    entry.id.split('-').next()?.parse().ok()
}

/// Decodes an entry; `None` if it is malformed.
fn message(entry: &streams::StreamId) -> Option<ChatMessage> {
    let payload: Vec<u8> = entry.get("payload")?;
    envelope::message(&payload, seq(entry)?, entry.get("time")?)
}
