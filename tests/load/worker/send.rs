//! Sending side of a worker: messages and pings at their due times.

use std::collections::hash_map::Entry;

use super::{DueAction, LoadWorker, SendingClient};
use crate::client::ClientStage;
use crate::clock::{self, Nanos};
use crate::plan::Traffic;
use crate::schedule::{MeasureWindow, Schedule};
use crate::stamp::Stamp;

impl LoadWorker {
    /// Schedules the first message of every sending client.
    pub(super) fn start_sending(&mut self, window: MeasureWindow) {
        self.window = Some(window);
        let rate = self.plan.rate();
        self.schedule = Schedule::new(window.start, rate.unwrap_or(1.0), u64::from(self.plan.senders()));
        for client in 0..self.clients.len() {
            let number = self.number(client);
            let Some(sender) = self.plan.sender(number) else { continue };
            let Entry::Vacant(vacant) = self.sending_clients.entry(number) else { continue };
            vacant.insert(SendingClient::default());
            match rate {
                Some(_) => self.schedule_action(self.schedule.due(u64::from(sender), 0), DueAction::Send(number)),
                None => self.schedule_action(window.start, DueAction::Send(number)),
            }
        }
    }

    /// Sends a message or ping with the due time `due`, even if it is late.
    pub(super) fn send_due(&mut self, number: u32, due: Nanos) {
        let Some(window) = self.window.filter(|window| due < window.end) else { return };
        self.schedule_next_send(number);
        let client = self.index(number);
        if self.clients[client].stage != ClientStage::Ready {
            return self.tally.error("not_connected");
        }
        let (dialect, sender) = (self.address(client).dialect, self.plan.sender(number).unwrap_or_default());
        let Some(sending_client) = self.sending_clients.get_mut(&number) else { return };
        let is_ping = matches!(self.plan.traffic, Traffic::Echo { .. });
        if is_ping {
            dialect.ping(&mut dialect.writer(&mut self.outgoing));
        } else {
            let stamp = Stamp { due, publisher: sender, number: sending_client.messages };
            sending_client.messages += 1;
            if !self.plan.counts_seqs() {
                self.tops.insert(sender, u64::from(sending_client.messages));
            }
            let body = String::from_utf8(stamp.body(self.plan.body)).unwrap_or_default();
            dialect.publish(&self.plan.target(number), &body, &mut dialect.writer(&mut self.outgoing));
        }
        if is_ping || dialect.has_acks() {
            sending_client.unanswered.push_back(due);
        }
        self.tally.progress.sent += 1;
        self.tally.measured.sent += u64::from(window.counts(due));
        self.send_outgoing(client);
    }

    /// Schedules the client's next message in the open loop, independent of the reply to this one.
    fn schedule_next_send(&mut self, number: u32) {
        if self.plan.rate().is_none() {
            return;
        }
        let sender = u64::from(self.plan.sender(number).unwrap_or_default());
        let Some(sending_client) = self.sending_clients.get_mut(&number) else { return };
        sending_client.turns += 1;
        let due = self.schedule.due(sender, sending_client.turns);
        self.schedule_action(due, DueAction::Send(number));
    }

    /// Removes the client's oldest unanswered message or ping and returns its due time.
    fn answered(&mut self, client: usize) -> Option<Nanos> {
        let number = self.number(client);
        let due = self.sending_clients.get_mut(&number)?.unanswered.pop_front()?;
        self.tally.progress.answered += 1;
        Some(due)
    }

    /// Handles the ack of a message, with its seq in the room.
    pub(super) fn acked(&mut self, client: usize, seq: Option<u64>) {
        let Some(due) = self.answered(client) else { return };
        if self.window.is_some_and(|window| window.counts(due)) {
            self.tally.measured.acked += 1;
            self.tally.ack.record(clock::now().saturating_sub(due));
        }
        if let Some(seq) = seq.filter(|_| self.plan.counts_seqs()) {
            let top = self.tops.entry(self.plan.stream(self.number(client), 0)).or_default();
            *top = (*top).max(seq + 1);
        }
    }

    /// Handles a refused message or ping.
    pub(super) fn refused(&mut self, client: usize) {
        if self.answered(client).is_some() {
            self.tally.progress.refused += 1;
        }
    }

    /// Handles the answer to a ping, and sends the next ping in the closed loop.
    pub(super) fn echoed(&mut self, client: usize) {
        let Some(due) = self.answered(client) else { return };
        let now = clock::now();
        if self.window.is_some_and(|window| window.counts(due)) {
            self.tally.measured.echoed += 1;
            self.tally.measured.last = now;
            self.tally.echo.record(now.saturating_sub(due));
        }
        if self.plan.rate().is_none() {
            self.send_due(self.number(client), now);
        }
    }
}
