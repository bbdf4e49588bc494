//! The republish task: it searches the streams for acknowledged messages that may be lost. It appends the lost ones
//! again under their id and key, in their old order.
//!
//! One task per gateway, started by the composition root; it sleeps until the ring has unsettled messages. No message
//! is stored twice: up to the fork of its epoch a message is present, after the fork it is searched by id. The scripts
//! also compare idempotency keys. A failed pass starts again from the beginning.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use presence::model::stream::{PageLimit, StreamEnd, StreamId};
use presence::registry::RegistryError;

use crate::backplane::redis::message::{AckedPosition, StoredMessage, WriteOrigin};
use crate::backplane::redis::publisher::PublisherLimits;
use crate::backplane::redis::{RedisBackplane, RedisNode};

use super::{UnsettledBatch, UnsettledMessage};

/// The number of messages in one page of a search.
const PAGE_MESSAGES: usize = 200;
/// Maximum number of streams searched concurrently, so that some connections of the query pool stay free.
const CONCURRENT_STREAMS: usize = 4;
/// Pause after a failed pass, times a random factor from 0.5 to 1.5.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Republishes for as long as it is polled. `count` receives the number of republished messages.
pub(in crate::backplane::redis) async fn run(backplane: &RedisBackplane, mut count: impl FnMut(u64)) {
    loop {
        let batch = backplane.node.republish.wait_unsettled().await;
        let generation = batch.generation;
        let (lost, outcome) = backplane.settle(batch).await;
        if lost > 0 {
            count(lost);
            tracing::info!(generation, messages = lost, "lost messages republished");
        }
        if let Err(error) = outcome {
            tracing::debug!(%error, "republish pass failed, retrying");
            tokio::time::sleep(RETRY_PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }
}

/// A stream with its end at the start of the pass.
struct SearchedStream<'a> {
    stream: &'a StreamId,
    end: &'a StreamEnd,
}

impl RedisBackplane {
    /// Settles all messages of a batch. Returns the number of messages that were lost and are republished.
    async fn settle(&self, batch: UnsettledBatch) -> (u64, Result<(), RegistryError>) {
        let UnsettledBatch { generation, incarnation, streams: unsettled } = batch;
        let origin = WriteOrigin::Republish(generation, &incarnation);
        let streams: Vec<StreamId> = unsettled.iter().filter_map(|part| Some(part.first()?.target.stream())).collect();
        let ends = match self.read_stream_ends(&streams).await {
            Ok(ends) => ends,
            Err(error) => return (0, Err(error)),
        };
        let passes = stream::iter(ends.into_iter().zip(unsettled)).map(async |((stream, end), unsettled)| {
            let mut lost = 0;
            let searched = SearchedStream { stream: &stream, end: &end };
            let outcome = self.settle_stream(origin, searched, &unsettled, &mut lost).await;
            (lost, outcome)
        });
        let mut settled = (0, Ok(()));
        let mut passes = pin!(passes.buffer_unordered(CONCURRENT_STREAMS));
        while let Some((lost, outcome)) = passes.next().await {
            settled = (settled.0 + lost, settled.1.and(outcome));
        }
        settled
    }

    /// Settles the unsettled messages of one stream.
    async fn settle_stream(
        &self,
        origin: WriteOrigin<'_>,
        searched: SearchedStream<'_>,
        unsettled: &[UnsettledMessage],
        lost: &mut u64,
    ) -> Result<(), RegistryError> {
        let RedisNode { republish, calls, .. } = &*self.node;
        let (generation, end) = (origin.generation(), searched.end);
        let is_before_fork = |message: &&UnsettledMessage| message.position.seq <= end.shares(&message.position.epoch);
        let (present, doubtful): (Vec<&UnsettledMessage>, Vec<&UnsettledMessage>) =
            unsettled.iter().partition(is_before_fork);
        present.iter().for_each(|message| republish.mark_present(message, message.position.clone(), generation));
        // A message of an unknown epoch may be anywhere.
        let fork = doubtful.iter().map(|message| end.shares(&message.position.epoch)).min().unwrap_or(end.seq);
        let found = self.search(searched, fork, &doubtful).await?;
        let (present, missing): (Vec<&UnsettledMessage>, Vec<&UnsettledMessage>) =
            doubtful.into_iter().partition(|unsettled| found.contains_key(unsettled.message.msg_id.as_str()));
        for unsettled in present {
            let position =
                AckedPosition { epoch: end.epoch.as_str().into(), seq: found[unsettled.message.msg_id.as_str()] };
            republish.mark_present(unsettled, position, generation);
        }
        for batch in batches(&missing) {
            let messages: Vec<&StoredMessage> = batch.iter().map(|unsettled| &*unsettled.message).collect();
            let positions = calls.republish(origin, &batch[0].target, &messages).await?;
            for (unsettled, (position, was_missing)) in batch.iter().zip(positions) {
                *lost += u64::from(was_missing);
                republish.mark_present(unsettled, position, generation);
            }
        }
        Ok(())
    }

    /// Returns the seqs of those messages that the stream has after `fork`, by id.
    async fn search<'a>(
        &self,
        SearchedStream { stream, end }: SearchedStream<'_>,
        fork: u64,
        doubtful: &[&'a UnsettledMessage],
    ) -> Result<HashMap<&'a str, u64>, RegistryError> {
        let ids: HashSet<&str> = doubtful.iter().map(|unsettled| unsettled.message.msg_id.as_str()).collect();
        let (mut found, mut after) = (HashMap::new(), fork);
        while after < end.seq {
            let page = self.read_page(stream, after, PageLimit::of_messages(PAGE_MESSAGES)).await?;
            if page.end.epoch != end.epoch {
                return Err(RegistryError::Unavailable("stream began another epoch during the search".to_owned()));
            }
            let known =
                page.messages.iter().filter_map(|message| Some((*ids.get(message.msg_id.as_str())?, message.seq)));
            found.extend(known);
            after = page.through.max(after + 1);
        }
        Ok(found)
    }
}

/// Splits missing messages into calls within the publisher's limits of one call.
fn batches<'a, 'o>(mut missing: &'a [&'o UnsettledMessage]) -> impl Iterator<Item = &'a [&'o UnsettledMessage]> {
    let limit = PublisherLimits::default().call;
    std::iter::from_fn(move || {
        let target = &missing.first()?.target;
        let mut bytes = 0;
        let fitting = missing.iter().take(limit.messages).take_while(|unsettled| {
            bytes += unsettled.message.bytes();
            unsettled.target == *target && bytes <= limit.bytes
        });
        let (batch, rest) = missing.split_at(fitting.count().max(1));
        missing = rest;
        Some(batch)
    })
}
