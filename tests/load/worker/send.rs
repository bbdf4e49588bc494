//! Sending side of a worker: messages and pings at their due times.

use std::cmp::Reverse;

use super::{DueAction, LoadWorker, UnansweredRequest};
use crate::client::ClientStage;
use crate::clock::{self, Nanos};
use crate::plan::Traffic;
use crate::schedule::{MeasureWindow, Schedule};
use crate::stamp::Stamp;

impl LoadWorker {
    /// Schedules the first message of every sending client. Replaces a former window.
    pub(super) fn start_sending(&mut self, window: MeasureWindow, rate: Option<f64>) {
        self.window = Some(window);
        self.agenda.retain(|Reverse((_, due))| !matches!(due, DueAction::Send(_)));
        self.tally.begin_window();
        if let Some(rate) = rate {
            self.plan.set_rate(rate);
        }
        let rate = self.plan.rate();
        self.schedule = Schedule::new(window.start, rate.unwrap_or(1.0), u64::from(self.plan.senders()));
        for client in 0..self.clients.len() {
            let number = self.number(client);
            let Some(sender) = self.plan.sender(number) else { continue };
            self.sending_clients.entry(number).or_default().turns = 0;
            match rate {
                Some(_) => self.schedule_action(self.schedule.due(u64::from(sender), 0), DueAction::Send(number)),
                None => self.schedule_action(window.start, DueAction::Send(number)),
            }
        }
    }

    /// Ends the window now.
    pub(super) fn stop_sending(&mut self) {
        if let Some(window) = &mut self.window {
            window.end = window.end.min(clock::now());
        }
    }

    /// Sends a message or ping with the due time `due`, even if it is late.
    pub(super) fn send_due(&mut self, number: u32, due: Nanos) {
        let client = self.index(number);
        if self.plan.depth().is_some() {
            return self.fill_pipeline(client);
        }
        let Some(window) = self.window.filter(|window| due < window.end) else { return };
        self.schedule_next_send(number);
        if self.clients[client].stage != ClientStage::Ready {
            return self.tally.error("not_connected");
        }
        self.put_request(client, due, window);
        self.send_outgoing(client);
    }

    /// Sends pipelined messages, in one write, until as many as planned are unanswered.
    pub(super) fn fill_pipeline(&mut self, client: usize) {
        let Some(depth) = self.plan.depth() else { return };
        let (number, now) = (self.number(client), clock::now());
        let Some(window) = self.window.filter(|window| (window.start..window.end).contains(&now)) else { return };
        let Some(unanswered) = self.sending_clients.get(&number).map(|sender| sender.unanswered.len()) else { return };
        if self.clients[client].stage != ClientStage::Ready || unanswered >= depth {
            return;
        }
        for _ in unanswered..depth {
            self.put_request(client, now, window);
        }
        self.send_outgoing(client);
    }

    /// Writes a message or ping into `outgoing`.
    fn put_request(&mut self, client: usize, due: Nanos, window: MeasureWindow) {
        let number = self.number(client);
        let (dialect, sender) = (self.address(client).dialect, self.plan.sender(number).unwrap_or_default());
        let Some(sending_client) = self.sending_clients.get_mut(&number) else { return };
        let is_ping = matches!(self.plan.traffic, Traffic::Echo { .. });
        let is_answered = is_ping || dialect.has_acks() || self.plan.depth().is_some();
        if is_answered {
            sending_client.unanswered.push_back(UnansweredRequest { due, number: sending_client.messages });
            let unanswered = sending_client.unanswered.len() as u64;
            self.tally.measured.unanswered_max = self.tally.measured.unanswered_max.max(unanswered);
        }
        if is_ping {
            dialect.ping(&mut dialect.writer(&mut self.outgoing));
        } else {
            let stamp = Stamp { due, publisher: sender, number: sending_client.messages };
            sending_client.messages += 1;
            if !self.plan.counts_seqs() {
                self.tops.insert(sender, u64::from(sending_client.messages));
            }
            let body = String::from_utf8(stamp.body(self.plan.body)).unwrap_or_default();
            let target = self.plan.target(number, stamp.number);
            dialect.publish(&target, &body, &mut dialect.writer(&mut self.outgoing));
        }
        self.tally.progress.sent += 1;
        self.tally.measured.sent += u64::from(window.counts(due));
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

    /// Removes the client's oldest unanswered message or ping and returns it.
    fn answered(&mut self, client: usize) -> Option<UnansweredRequest> {
        let number = self.number(client);
        let request = self.sending_clients.get_mut(&number)?.unanswered.pop_front()?;
        self.tally.progress.answered += 1;
        Some(request)
    }

    /// Handles the ack of a message, with its seq in the room.
    pub(super) fn acked(&mut self, client: usize, seq: Option<u64>) {
        let Some(UnansweredRequest { due, number }) = self.answered(client) else { return };
        if self.window.is_some_and(|window| window.counts(due)) {
            self.tally.measured.acked += 1;
            self.tally.ack.record(clock::now().saturating_sub(due));
        }
        if let Some(seq) = seq.filter(|_| self.plan.counts_seqs()) {
            let stream = self.plan.stream_of(0, number);
            let top = self.tops.entry(self.plan.stream(self.number(client), stream)).or_default();
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
        let Some(UnansweredRequest { due, .. }) = self.answered(client) else { return };
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
