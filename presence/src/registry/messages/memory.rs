//! Messages of the API in memory: the rules for them in `publish.lua`, `direct.lua` and
//! `rooms/delete_messages.lua`.

use std::num::NonZeroU64;

use crate::model::stream::{PageLimit, StreamId};
use crate::model::{NickKey, Owner, RoomKey};
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{Append, AppendError, Appended, StoreState, StoredEntry};

use super::{ApiPost, Messages, PostError, PostTarget, PostedMessage, RoomMessage, RoomTail};

impl Messages for MemoryRegistry {
    async fn post(&self, posts: &[ApiPost]) -> Vec<Result<PostedMessage, PostError>> {
        let mut store = self.store.lock();
        posts.iter().map(|post| store.post(post)).collect()
    }

    async fn room_messages(
        &self,
        room: &RoomKey,
        before: Option<NonZeroU64>,
        limit: usize,
    ) -> Result<Vec<RoomMessage>, RegistryError> {
        let last = before.map_or(u64::MAX, |before| before.get() - 1);
        let page = self.store.page(&StreamId::Room(room.clone()), 1..=last, PageLimit::of_messages(limit), true);
        let message = |StoredEntry { seq, time, payload }| RoomMessage { seq, time, payload };
        Ok(page.entries.into_iter().rev().map(message).collect())
    }

    async fn messages_after(
        &self,
        room: &RoomKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<RoomTail>, RegistryError> {
        let stream = StreamId::Room(room.clone());
        let mut store = self.store.lock();
        let Some(shown) = store.room(room).map(|row| row.room) else { return Ok(None) };
        let Some(end) = store.end(&stream) else { return Ok(None) };
        let mut page = |seqs, limit| {
            let page = store.named(&stream).map(|log| log.page(seqs, PageLimit::of_messages(limit), false));
            page.map(|page| page.entries).unwrap_or_default()
        };
        let first = page(1..=u64::MAX, 1).first().map(|first| first.seq);
        let messages = page(after.saturating_add(1)..=u64::MAX, limit).into_iter();
        let messages = messages.map(|StoredEntry { seq, time, payload }| RoomMessage { seq, time, payload }).collect();
        Ok(Some(RoomTail { room: shown, end, first, messages }))
    }

    async fn delete_messages(&self, room: &RoomKey, seq: Option<NonZeroU64>) -> Result<u64, RegistryError> {
        let mut store = self.store.lock();
        let log = &mut store.rooms.get_mut(room).ok_or(RegistryError::NoSuchRoom)?.log;
        Ok(match seq {
            Some(seq) => u64::from(log.delete(seq.get())),
            None => log.clear(),
        })
    }
}

impl StoreState {
    fn post(&mut self, post: &ApiPost) -> Result<PostedMessage, PostError> {
        let (owner, nobody) = (Owner::of_api(&post.application), NickKey::from_store(""));
        let message = Append {
            from: &nobody,
            owner: &owner,
            moderates: false,
            key: Some(&post.key),
            adds_key: true,
            msg_id: &post.msg_id,
            payload: &post.payload,
        };
        let (appended, stream) = match &post.to {
            PostTarget::Room(room) => (self.append(room, message), Some(StreamId::Room(room.clone()))),
            PostTarget::Nick(nick) => {
                let appended = self.append_direct(nick, message);
                (appended, self.nicks.session(nick).cloned().map(StreamId::Inbox))
            }
        };
        let Appended { msg_id, seq, time, duplicate, online } = appended.map_err(|error| match error {
            AppendError::Exhausted { retry_after } => PostError::Exhausted { retry_after },
            AppendError::NoSuchUser => PostError::NoSuchUser,
            // Only a member can be refused for another reason.
            AppendError::Fenced
            | AppendError::NotInRoom
            | AppendError::Muted { .. }
            | AppendError::NotAllowed
            | AppendError::SlowMode { .. } => PostError::NoSuchRoom,
        })?;
        let epoch = stream.and_then(|stream| self.end(&stream)).map(|end| end.epoch).unwrap_or_default();
        Ok(PostedMessage { msg_id, seq, epoch, time, duplicate, online })
    }
}
