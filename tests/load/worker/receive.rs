//! Receiving side of a worker: from the bytes of a socket to counts and latencies.

use super::LoadWorker;
use crate::client::ClientStage;
use crate::clock::{self, Nanos};
use crate::dialect::{Framing, RequestPurpose, ServerMessage};
use crate::frame::{self, opcode};

impl LoadWorker {
    /// Reads until the socket is empty. A read that does not fill the buffer emptied the socket, unless the peer closed
    /// it.
    pub(super) fn read(&mut self, client: usize, is_read_closed: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let filled = match self.clients[client].read(&mut buffer) {
                Ok(Some(filled)) => filled,
                Ok(None) => break,
                Err(error) => {
                    self.connection_lost(client, &super::error_code(&error));
                    break;
                }
            };
            match self.process_bytes(client, &buffer[..filled]) {
                Ok(used) => self.clients[client].keep_received(&buffer[used..filled]),
                Err(code) => self.connection_lost(client, &code),
            }
            if self.clients[client].stage == ClientStage::Away || (filled < buffer.len() && !is_read_closed) {
                break;
            }
        }
        self.buffer = buffer;
        self.fill_pipeline(client);
    }

    /// Processes all whole units and returns their length. An error ends the connection and is counted by its code.
    fn process_bytes(&mut self, client: usize, bytes: &[u8]) -> Result<usize, String> {
        let now = clock::now();
        let delivered = self.tally.measured.delivered;
        let mut used = 0;
        if self.clients[client].stage == ClientStage::Upgrading {
            let Some(head) = frame::upgraded(bytes)? else { return Ok(0) };
            used = head;
            self.upgraded(client);
        }
        match self.address(client).dialect.framing() {
            Framing::Raw => used += self.process_units(client, &bytes[used..], now),
            Framing::Text | Framing::Message | Framing::Binary => {
                while self.clients[client].stage != ClientStage::Away
                    && let Some((frame, length)) = frame::take(&bytes[used..])?
                {
                    used += length;
                    self.process_frame(client, &frame, now)?;
                }
            }
        }
        if self.tally.measured.delivered > delivered {
            self.tally.measured.reads += 1;
            self.tally.measured.read_bytes += used as u64;
            self.tally.measured.last = now;
        }
        Ok(used)
    }

    fn process_frame(&mut self, client: usize, frame: &frame::ServerFrame<'_>, now: Nanos) -> Result<(), String> {
        match frame.opcode {
            opcode::TEXT => self.interpret(client, frame.payload, now),
            opcode::BINARY if self.address(client).dialect.framing() == Framing::Message => {
                self.interpret(client, frame.payload, now);
            }
            opcode::BINARY | opcode::CONTINUATION => {
                let stream = self.clients[client].take_stream(frame.payload);
                let used = self.process_units(client, &stream, now);
                if self.clients[client].stage != ClientStage::Away {
                    self.clients[client].keep_stream(&stream[used..]);
                }
            }
            opcode::PING => {
                frame::put_masked(opcode::PONG, frame.payload, &mut self.outgoing);
                self.send_outgoing(client);
            }
            opcode::CLOSE => return Err(frame::close_code(frame.payload)),
            _ => {}
        }
        Ok(())
    }

    fn process_units(&mut self, client: usize, stream: &[u8], now: Nanos) -> usize {
        let (dialect, mut used) = (self.address(client).dialect, 0);
        while self.clients[client].stage != ClientStage::Away
            && let Some(length) = dialect.unit(&stream[used..])
        {
            self.interpret(client, &stream[used..used + length], now);
            used += length;
        }
        used
    }

    fn interpret(&mut self, client: usize, unit: &[u8], now: Nanos) {
        let (dialect, number) = (self.address(client).dialect, self.number(client));
        let (plan, outgoing) = (&self.plan, &mut self.outgoing);
        let message = dialect.interpret(unit, &|| plan.rooms(number), &mut dialect.writer(outgoing));
        if !self.outgoing.is_empty() {
            self.send_outgoing(client);
        }
        let is_logging_in = self.clients[client].stage == ClientStage::LoggingIn;
        match message {
            ServerMessage::Delivery { seq, stamp } => self.delivered(client, seq, stamp, now),
            ServerMessage::Acked { seq } => self.acked(client, seq),
            // NATS answers the ping after the subscription before it.
            ServerMessage::Pong if is_logging_in => self.join_answered(client, 0),
            ServerMessage::Pong => self.echoed(client),
            ServerMessage::Registered { resume, restored } => self.registered(client, resume, restored),
            ServerMessage::Joined { next, epoch } => {
                if let Some((room, epoch)) = self.plan.room_number(number).zip(epoch.filter(|_| self.plan.resumes)) {
                    self.sessions.epochs.insert(room, epoch);
                }
                self.join_answered(client, next);
            }
            ServerMessage::Refused { code, .. } if is_logging_in => self.connection_lost(client, &code),
            ServerMessage::Refused { step, code } => {
                self.tally.error(&code);
                if step != RequestPurpose::Login {
                    self.refused(client);
                }
            }
            ServerMessage::Moved { kind, next } => {
                self.tally.error(&kind);
                if self.plan.counts_seqs() {
                    self.ledger.reposition(client, 0, next);
                }
            }
            ServerMessage::Nothing => {}
        }
    }

    /// Handles an accepted nickname. The client is ready without a room, or with the room of its resumed session.
    fn registered(&mut self, client: usize, resume: Option<String>, restored: bool) {
        let number = self.number(client);
        let has_room = !self.plan.rooms(number).is_empty();
        let was_resumed = self.sessions.tokens.contains_key(&number);
        if let Some(token) = resume.filter(|_| self.plan.resumes) {
            self.sessions.tokens.insert(number, token.into_boxed_str());
        }
        if !has_room || (was_resumed && restored) {
            let next = self.ledger.next_expected(client, 0).unwrap_or_default();
            self.joined(client, next);
        } else if was_resumed {
            // The session has expired.
            self.sessions.tokens.remove(&number);
            self.connection_lost(client, "session_expired");
        }
    }

    fn delivered(&mut self, client: usize, seq: Option<u64>, stamp: Option<crate::stamp::Stamp>, now: Nanos) {
        self.tally.progress.delivered += 1;
        let Some(stamp) = stamp else { return self.tally.error("foreign_message") };
        let stream = self.plan.stream_of(stamp.publisher, stamp.number) as usize;
        if self.plan.counts_seqs() {
            if let Some(seq) = seq {
                self.ledger.record_received(client, stream, seq);
            }
        } else {
            self.ledger.record_received(client, stream, u64::from(stamp.number));
        }
        if self.window.is_some_and(|window| window.counts(stamp.due)) {
            self.tally.measured.delivered += 1;
            self.tally.delivery.record(now.saturating_sub(stamp.due));
        }
        // A peer without acks answers a pipelined message by returning it.
        if self.plan.depth().is_some() && !self.address(client).dialect.has_acks() {
            self.acked(client, None);
        }
    }
}
