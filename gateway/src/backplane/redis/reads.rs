//! Reads of streams: history pages, the messages after a position, and the ends of streams.
//!
//! One script reads one stream, so epoch, end and messages are of one moment. Many streams share a pipeline over the
//! query pool, so no read delays a delivery.

use std::sync::LazyLock;
use std::time::Duration;

use presence::model::RoomKey;
use presence::model::keys::{CallKeys, Keys};
use presence::model::stream::{PageLimit, StreamEnd, StreamId, read_forks};
use presence::registry::RegistryError;
use presence::store::redis::CallKind;
use presence::store::redis::message_scripts::assemble;
use redis::streams::{self, StreamRangeReply};
use redis::{Cmd, ErrorKind, Script, ServerErrorKind};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::{RedisBackplane, epoch};
use crate::backplane::{HistoryPage, Range, ReplayPage, envelope};
use crate::message::ChatMessage;

static PAGE: LazyLock<Script> =
    LazyLock::new(|| assemble(&[include_str!("../lua/entries.lua")], include_str!("../lua/page.lua")));
static HISTORY: LazyLock<Script> =
    LazyLock::new(|| assemble(&[include_str!("../lua/entries.lua")], include_str!("../lua/history.lua")));

/// Maximum number of streams in one pipeline, few enough to delay no message for long.
const STREAMS_MAX: usize = 100;
/// The lifetime of a stream's meta without its room or session: 73 hours, longer than any position.
const META_SECONDS: u64 = 73 * 60 * 60;
/// The lifetime of a meta without room, session and messages: a join within it continues its epoch.
const BLANK_META_SECONDS: u64 = 60 * 60;

/// Maximum number of history pages that one gateway reads at a time. A page of 1 MiB holds Redis for about 2 ms, and
/// messages wait as long.
pub(super) const HISTORY_READS_MAX: usize = 2;
/// Maximum wait of a history page for its place.
const HISTORY_WAIT: Duration = Duration::from_secs(2);

/// No message: a read of the end alone.
const END_ONLY: PageLimit = PageLimit { messages: 0, bytes: 0 };

/// Epoch, seq of the end, forks, entries, and true if more follow.
type PageReply = (String, u64, String, StreamRangeReply, bool);

impl RedisBackplane {
    pub(super) async fn read_page(
        &self,
        stream: &StreamId,
        after: u64,
        limit: PageLimit,
    ) -> Result<ReplayPage, RegistryError> {
        let read = [(stream, after, limit)];
        let Some((epoch, top, forks, page, has_more)) = self.pages(&read).await?.pop() else {
            return Err(RegistryError::Unknown("stream read returned nothing".to_owned()));
        };
        let last = page.ids.last().map_or(after, |entry| seq(entry).unwrap_or(after));
        let through = if has_more { last } else { top.max(after) };
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
            let read: Vec<_> = chunk.iter().map(|stream| (stream, 0, END_ONLY)).collect();
            let pages = self.pages(&read).await?.into_iter();
            let found = pages.map(|(epoch, top, forks, ..)| StreamEnd { epoch, seq: top, forks: read_forks(&forks) });
            ends.extend(chunk.iter().cloned().zip(found));
        }
        Ok(ends)
    }

    pub(super) async fn read_history(
        &self,
        room: &RoomKey,
        range: Range,
        limit: PageLimit,
    ) -> Result<HistoryPage, RegistryError> {
        let stream = self.node.redis.keys().room(room).stream();
        let (command, first) = match range {
            Range::Newest => ("XREVRANGE", "+".to_owned()),
            Range::Before(seq) => ("XREVRANGE", seq.saturating_sub(1).to_string()),
            Range::After(seq) => ("XRANGE", seq.saturating_add(1).to_string()),
        };
        let mut call = HISTORY.prepare_invoke();
        call.key(&*stream).arg(command).arg(first).arg(limit.messages).arg(limit.bytes);
        let _place = self.history_place().await?;
        let mut connection = self.node.redis.query().await?;
        let answer = call.invoke_async(&mut connection);
        let (reply, more): (StreamRangeReply, bool) =
            self.node.redis.timed_on(CallKind::Log, keys_of(&[stream.as_str().to_owned()]), answer).await?;

        let mut messages: Vec<ChatMessage> = reply.ids.iter().filter_map(message).collect();
        self.node.malformed.add(&stream, (reply.ids.len() - messages.len()) as u64);
        if !matches!(range, Range::After(_)) {
            messages.reverse();
        }
        Ok(HistoryPage { messages, more })
    }

    /// Waits for a place among the history pages that are being read.
    async fn history_place(&self) -> Result<SemaphorePermit<'_>, RegistryError> {
        match timeout(HISTORY_WAIT, self.node.history_places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ if self.node.redis.is_answering() => Err(RegistryError::Overloaded),
            _ => Err(RegistryError::Unavailable("earlier reads are not answered".to_owned())),
        }
    }

    /// Reads one page of each stream after a seq.
    async fn pages(&self, read: &[(&StreamId, u64, PageLimit)]) -> Result<Vec<PageReply>, RegistryError> {
        let keys = self.node.redis.keys();
        let mut pipeline = redis::pipe();
        for (stream, after, limit) in read {
            let (meta, stream) = names(keys, stream);
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(PAGE.get_hash()).arg(3).arg(keys.generation()).arg(meta).arg(stream);
            call.arg(epoch())
                .arg(after.saturating_add(1))
                .arg(limit.messages)
                .arg(META_SECONDS)
                .arg(BLANK_META_SECONDS);
            call.arg(limit.bytes);
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
        self.node.redis.timed_on(CallKind::Log, keys_of(&first), call).await
    }
}

fn keys_of(names: &[String]) -> CallKeys<'_> {
    CallKeys { names, in_script: &[] }
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
