//! Login, failure and resumption of a worker's clients: with a limit of concurrent logins, or at a rate.

use super::{DueAction, LoadWorker, error_code};
use crate::client::ClientStage;
use crate::clock::{self, Nanos};
use crate::dialect::{ClientIdentity, Framing, ResumePoint};
use crate::frame;
use crate::schedule::Schedule;

/// Number of refusals after which a login counts as failed.
const LOGIN_ATTEMPTS_MAX: u8 = 8;
/// Wait after the first refusal; it doubles with each further one.
const RETRY_PAUSE_NANOS: Nanos = 50_000_000;

impl LoadWorker {
    /// Starts all logins: at the plan's rate, or each one when another login has finished.
    pub(super) fn begin_logins(&mut self, at: Nanos) {
        let numbers = self.first..self.first + self.clients.len() as u32;
        match self.plan.login_rate {
            Some(rate) => {
                let schedule = Schedule::new(at, rate, 1);
                for number in numbers {
                    self.schedule_action(schedule.due(0, u64::from(number)), DueAction::Login(number));
                }
            }
            None => numbers.for_each(|number| self.schedule_action(at, DueAction::Retry(number))),
        }
    }

    pub(super) fn login_due(&mut self, number: u32, at: Nanos) {
        let client = self.index(number);
        self.clients[client].began = at;
        self.queue_login(number);
    }

    pub(super) fn queue_login(&mut self, number: u32) {
        self.queue.push_back(number);
        self.start_queued_logins();
    }

    /// Connects waiting clients, as far as the limit allows.
    fn start_queued_logins(&mut self) {
        let limit = self.plan.in_flight.div_ceil(self.workers).max(1);
        while self.in_flight < limit {
            let Some(number) = self.queue.pop_front() else { return };
            self.in_flight += 1;
            let index = self.index(number);
            let client = &mut self.clients[index];
            if client.began == 0 {
                client.began = clock::now();
            }
            let address = self.plan.address(number, u32::from(client.attempts));
            if let Err(error) = client.connect(address.at, self.poll.registry(), mio::Token(index)) {
                self.login_failed(index, &error_code(&error));
            }
        }
    }

    /// Handles the result of a connection attempt: requests the upgrade, or logs in.
    pub(super) fn connected(&mut self, client: usize) {
        match self.clients[client].is_connected() {
            Err(error) => return self.connection_lost(client, &error_code(&error)),
            Ok(false) => return,
            Ok(true) => {}
        }
        let address = self.address(client);
        if address.dialect.framing() == Framing::Raw {
            return self.upgraded(client);
        }
        self.clients[client].stage = ClientStage::Upgrading;
        self.outgoing.extend(frame::request(address.dialect.path(), address.at, address.dialect.subprotocol()));
        self.send_outgoing(client);
    }

    /// Handles the open connection: sends the login.
    pub(super) fn upgraded(&mut self, client: usize) {
        self.clients[client].stage = ClientStage::LoggingIn;
        let (dialect, number) = (self.address(client).dialect, self.number(client));
        if dialect.is_ready_on_connect() {
            return self.joined(client, 0);
        }
        let (nick, rooms) = (self.plan.nick(number), self.plan.rooms(number));
        let room_number = self.plan.room_number(number).unwrap_or_default();
        let resume = self.sessions.tokens.get(&number).and_then(|token| {
            let seq = self.ledger.next_expected(client, 0)?.saturating_sub(1);
            Some(ResumePoint { token, epoch: self.sessions.epochs.get(&room_number)?, seq })
        });
        if self.storming && resume.is_none() {
            // It returns as a new client, and misses the messages sent meanwhile.
            self.tally.error("not_resumed");
        }
        let identity = ClientIdentity { nick: &nick, rooms: &rooms, resume: resume.as_ref() };
        dialect.log_in(&identity, &mut dialect.writer(&mut self.outgoing));
        self.send_outgoing(client);
    }

    /// Handles the answer to a join, with `next` as the next message of the room. The last one completes the login.
    pub(super) fn join_answered(&mut self, client: usize, next: u64) {
        // All rooms of a client with more than one are new, so their streams begin alike.
        let answered = self.joins.remove(&client).unwrap_or_default() + 1;
        let rooms = self.plan.rooms_each();
        if answered < self.address(client).dialect.joins_answered(rooms) {
            self.joins.insert(client, answered);
            return;
        }
        self.joined(client, next);
    }

    /// Marks the client as ready, with `next` as its next expected message.
    pub(super) fn joined(&mut self, client: usize, next: u64) {
        let state = &mut self.clients[client];
        if state.stage != ClientStage::LoggingIn {
            return;
        }
        let now = clock::now();
        let latency = now.saturating_sub(state.began);
        (state.stage, state.attempts, state.began) = (ClientStage::Ready, 0, 0);
        let next = if self.plan.counts_seqs() { next } else { 0 };
        self.ledger.start_streams(client, next);
        match self.storming {
            true => {
                self.tally.resume.record(latency);
                self.tally.progress.resumed += 1;
            }
            false => {
                self.tally.last_ready_at = now;
                self.tally.login.record(latency);
            }
        }
        self.tally.progress.ready += 1;
        self.in_flight -= 1;
        self.start_queued_logins();
    }

    /// Handles the end of a connection, by either side.
    pub(super) fn connection_lost(&mut self, client: usize, code: &str) {
        match self.clients[client].stage {
            ClientStage::Away => {}
            ClientStage::Ready => {
                self.tally.error(code);
                self.disconnect(client);
                if self.storming {
                    self.login_due(self.number(client), clock::now());
                }
            }
            ClientStage::Connecting | ClientStage::Upgrading | ClientStage::LoggingIn => {
                self.login_failed(client, code)
            }
        }
    }

    fn login_failed(&mut self, client: usize, code: &str) {
        self.tally.error(code);
        self.in_flight -= 1;
        self.joins.remove(&client);
        let number = self.number(client);
        let state = &mut self.clients[client];
        state.close();
        state.attempts += 1;
        if state.attempts < LOGIN_ATTEMPTS_MAX {
            let pause = RETRY_PAUSE_NANOS << state.attempts;
            self.schedule_action(clock::now() + pause, DueAction::Retry(number));
        } else {
            self.tally.progress.failed += 1;
        }
    }

    /// Handles the loss of a ready client; its outstanding requests stay unanswered.
    fn disconnect(&mut self, client: usize) {
        self.clients[client].close();
        self.tally.progress.ready -= 1;
        let number = self.number(client);
        if let Some(sending_client) = self.sending_clients.get_mut(&number) {
            let unanswered = std::mem::take(&mut sending_client.unanswered).len() as u64;
            self.tally.progress.answered += unanswered;
            self.tally.progress.refused += unanswered;
            if unanswered > 0 {
                *self.tally.errors.entry("unanswered".to_owned()).or_default() += unanswered;
            }
        }
    }

    /// Starts the storm: all connections end at once without notice, and all sessions resume.
    pub(super) fn drop_all_connections(&mut self) {
        let now = clock::now();
        for client in 0..self.clients.len() {
            if self.clients[client].stage == ClientStage::Ready {
                self.disconnect(client);
                self.clients[client].began = now;
                self.queue.push_back(self.number(client));
            }
        }
        self.start_queued_logins();
    }

    /// Returns the client's current or next address.
    pub(super) fn address(&self, client: usize) -> crate::plan::PlanAddress {
        self.plan.address(self.number(client), u32::from(self.clients[client].attempts))
    }
}
