//! How what a store has lost is put back: each log is asked where it was cut, and what was acked behind the cut and is not
//! there is written again, under its id and key, in its old order.
//!
//! One task per gateway, started by the server; it sleeps until the ring owes something. A message that survived is not
//! doubled: what is before the cut is there; what is behind it was written since, and is searched for the ids; and the
//! scripts know the keys. What could not be done is done again from the beginning, until all is found.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use presence::model::stream::{StreamEnd, StreamId};
use presence::registry::RegistryError;

use super::{AckedPosition, Debt, Owed};
use crate::backplane::redis::calls::{Message, WriteOrigin};
use crate::backplane::redis::publisher::Limits;
use crate::backplane::redis::{Node, RedisBackplane};

/// Messages of one page of a search.
const PAGE: usize = 200;
/// Logs that are repaired at a time: some of the query pool's connections stay free for others.
const AT_ONCE: usize = 4;
/// How long after a failure the next attempt waits: half of it, and up to as much again at random.
const PAUSE: Duration = Duration::from_millis(100);

impl RedisBackplane {
    /// See [`crate::backplane::Backplane::put_back`].
    pub async fn put_back(&self, mut count: impl FnMut(u64)) {
        loop {
            let debt = self.node.repair.debt().await;
            let generation = debt.generation;
            let (lost, outcome) = self.pay(debt).await;
            if lost > 0 {
                count(lost);
                tracing::info!(generation, messages = lost, "put back what the store had lost");
            }
            if let Err(error) = outcome {
                tracing::debug!(%error, "not everything is put back yet, trying on");
                tokio::time::sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
            }
        }
    }

    /// Looks for everything that is owed. Returns how much of it was lost and is put back.
    async fn pay(&self, Debt { generation, incarnation, logs: owed }: Debt) -> (u64, Result<(), RegistryError>) {
        let hand = WriteOrigin::Repairer(generation, &incarnation);
        let logs: Vec<StreamId> = owed.iter().filter_map(|owed| Some(owed.first()?.target.log())).collect();
        let heads = match self.tops(&logs).await {
            Ok(heads) => heads,
            Err(error) => return (0, Err(error)),
        };
        let repairs = stream::iter(heads.into_iter().zip(owed)).map(async |((log, head), owed)| {
            let mut lost = 0;
            let outcome = self.repair(hand, (&log, &head), &owed, &mut lost).await;
            (lost, outcome)
        });
        let mut paid = (0, Ok(()));
        let mut repairs = pin!(repairs.buffer_unordered(AT_ONCE));
        while let Some((lost, outcome)) = repairs.next().await {
            paid = (paid.0 + lost, paid.1.and(outcome));
        }
        paid
    }

    /// Looks for what is owed of one log.
    async fn repair(
        &self,
        hand: WriteOrigin<'_>,
        (log, head): (&StreamId, &StreamEnd),
        owed: &[Owed],
        lost: &mut u64,
    ) -> Result<(), RegistryError> {
        let Node { repair, writes, .. } = &*self.node;
        let generation = hand.generation();
        let is_kept = |owed: &&Owed| owed.place.seq <= head.shares(&owed.place.epoch);
        let (kept, gone): (Vec<&Owed>, Vec<&Owed>) = owed.iter().partition(is_kept);
        kept.iter().for_each(|owed| repair.found(owed, owed.place.clone(), generation));
        // Of an epoch that nobody knows everything may be anywhere.
        let cut = gone.iter().map(|owed| head.shares(&owed.place.epoch)).min().unwrap_or(head.top);
        let there = self.search(log, head, cut, &gone).await?;
        let (found, gone): (Vec<&Owed>, Vec<&Owed>) =
            gone.into_iter().partition(|owed| there.contains_key(owed.message.msg_id.as_str()));
        for owed in found {
            let place = AckedPosition { epoch: head.epoch.clone(), seq: there[owed.message.msg_id.as_str()] };
            repair.found(owed, place, generation);
        }
        for batch in batches(&gone) {
            let messages: Vec<&Message> = batch.iter().map(|owed| &*owed.message).collect();
            let places = writes.put_back(hand, &batch[0].target, &messages).await?;
            for (owed, (place, is_new)) in batch.iter().zip(places) {
                *lost += u64::from(is_new);
                repair.found(owed, place, generation);
            }
        }
        Ok(())
    }

    /// Which of these the log has after `cut`, by their ids, and where.
    async fn search<'a>(
        &self,
        log: &StreamId,
        head: &StreamEnd,
        cut: u64,
        gone: &[&'a Owed],
    ) -> Result<HashMap<&'a str, u64>, RegistryError> {
        let ids: HashSet<&str> = gone.iter().map(|owed| owed.message.msg_id.as_str()).collect();
        let (mut there, mut after) = (HashMap::new(), cut);
        while after < head.top {
            let page = self.missed(log, after, PAGE).await?;
            if page.head.epoch != head.epoch {
                return Err(RegistryError::Unavailable("the store has become another one meanwhile".to_owned()));
            }
            let known =
                page.messages.iter().filter_map(|message| Some((*ids.get(message.msg_id.as_str())?, message.seq)));
            there.extend(known);
            after = page.through.max(after + 1);
        }
        Ok(there)
    }
}

/// What goes together into one call, as when it was said.
fn batches<'a, 'o>(mut gone: &'a [&'o Owed]) -> impl Iterator<Item = &'a [&'o Owed]> {
    let most = Limits::default().batch;
    std::iter::from_fn(move || {
        let target = &gone.first()?.target;
        let mut bytes = 0;
        let fitting = gone.iter().take(most.messages).take_while(|owed| {
            bytes += owed.message.bytes();
            owed.target == *target && bytes <= most.bytes
        });
        let (batch, rest) = gone.split_at(fitting.count().max(1));
        gone = rest;
        Some(batch)
    })
}
