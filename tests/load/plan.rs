//! Plan of a run and the role of each client in it. Pure, and the same in every process of the run.
//!
//! The command line makes a [`Plan`], and the coordinator sends it to its workers. Clients are numbered across the run;
//! client `i` connects to address `i % addresses`. The members and publishers of a room are thus spread over all
//! gateways.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dialect::LoadDialect;

/// Address and dialect of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanAddress {
    pub(crate) at: SocketAddr,
    pub(crate) dialect: LoadDialect,
}

/// Traffic in the measured window. Rates are messages a second in total.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Traffic {
    /// No messages.
    Silence,
    /// Messages from `publishers` members of each room.
    Rooms { rate: f64, publishers: u32 },
    /// Direct messages from each client to its partner at another gateway.
    Direct { rate: f64 },
    /// Pings: at a rate, or each one after the answer to the previous one.
    Echo { rate: Option<f64> },
    /// Messages from one client to its own rooms in turn, with `depth` of them unanswered.
    Pipeline { depth: u32, rooms: u32 },
}

/// Clients, addresses and traffic of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Prefix of all names of this run, so that runs against one cluster do not collide.
    pub(crate) run: String,
    pub(crate) addresses: Vec<PlanAddress>,
    pub(crate) clients: u32,
    /// Members of each room; zero means no rooms.
    pub(crate) room_size: u32,
    pub(crate) traffic: Traffic,
    /// Bytes of a message's body.
    pub(crate) body: usize,
    /// Maximum number of concurrent logins, over all processes.
    pub(crate) in_flight: u32,
    /// Logins a second; without a rate, each login follows an answer.
    pub(crate) login_rate: Option<f64>,
    /// Resumption of sessions after a lost connection.
    pub(crate) resumes: bool,
}

impl Plan {
    /// Returns the client's address after this number of refusals: rotates over the addresses with the dialect of the
    /// first one.
    pub(crate) fn address(&self, client: u32, attempts: u32) -> PlanAddress {
        let (first, count) = (client as usize, self.addresses.len());
        let dialect = self.addresses[first % count].dialect;
        let mut candidates =
            (first..).map(|at| self.addresses[at % count]).filter(|address| address.dialect == dialect);
        candidates.nth(attempts as usize).unwrap_or(self.addresses[first % count])
    }

    /// Returns the name of the measured server, with the format of its clients if that is not JSON text.
    pub(crate) fn peer(&self) -> &'static str {
        let is_packed = |address: &PlanAddress| matches!(address.dialect, LoadDialect::Packed(_));
        let first = self.addresses[0].dialect;
        match self.addresses.iter().any(|address| address.dialect != first && is_packed(address)) {
            true => "parley-mix",
            false => first.name(),
        }
    }

    /// Returns the client's nickname.
    pub(crate) fn nick(&self, client: u32) -> String {
        format!("{}u{client}", self.run)
    }

    /// Returns the number of the client's room.
    pub(crate) fn room_number(&self, client: u32) -> Option<u32> {
        client.checked_div(self.room_size)
    }

    /// Returns the client's rooms, with their `#`.
    pub(crate) fn rooms(&self, client: u32) -> Vec<String> {
        let numbers = match self.traffic {
            Traffic::Direct { .. } => {
                let is_addressed = self.address(client, 0).dialect.has_nicks();
                return if is_addressed { Vec::new() } else { vec![self.nick(client)] };
            }
            Traffic::Pipeline { rooms, .. } => 0..rooms,
            _ => self.room_number(client).map_or(0..0, |room| room..room + 1),
        };
        numbers.map(|room| self.room_name(room)).collect()
    }

    /// Returns the number of rooms that a client joins.
    pub(crate) fn rooms_each(&self) -> usize {
        match self.traffic {
            Traffic::Pipeline { rooms, .. } => rooms as usize,
            _ => 1,
        }
    }

    /// Returns the name of a room, with its `#`.
    pub(crate) fn room_name(&self, room: u32) -> String {
        format!("#{}r{room}", self.run)
    }

    /// Returns the client's partner in private messages.
    pub(crate) fn partner(&self, client: u32) -> u32 {
        client ^ 1
    }

    /// Returns the recipient of the client's message with this number.
    pub(crate) fn target(&self, client: u32, number: u32) -> String {
        match self.traffic {
            Traffic::Direct { .. } => self.nick(self.partner(client)),
            Traffic::Pipeline { rooms, .. } => self.room_name(number % rooms),
            _ => self.room_number(client).map(|room| self.room_name(room)).unwrap_or_default(),
        }
    }

    fn is_direct(&self) -> bool {
        matches!(self.traffic, Traffic::Direct { .. })
    }

    /// Returns the number of sending clients.
    pub(crate) fn senders(&self) -> u32 {
        match self.traffic {
            Traffic::Silence => 0,
            Traffic::Rooms { publishers, .. } => {
                self.clients.checked_div(self.room_size).unwrap_or_default() * publishers
            }
            Traffic::Direct { .. } | Traffic::Echo { .. } | Traffic::Pipeline { .. } => self.clients,
        }
    }

    /// Returns the messages offered per second, or `None` if the answers set the pace.
    pub(crate) fn rate(&self) -> Option<f64> {
        match self.traffic {
            Traffic::Silence | Traffic::Pipeline { .. } => None,
            Traffic::Rooms { rate, .. } | Traffic::Direct { rate } => Some(rate),
            Traffic::Echo { rate } => rate,
        }
    }

    /// Changes the messages offered per second, if they have a rate.
    pub(crate) fn set_rate(&mut self, new: f64) {
        match &mut self.traffic {
            Traffic::Rooms { rate, .. } | Traffic::Direct { rate } | Traffic::Echo { rate: Some(rate) } => *rate = new,
            Traffic::Silence | Traffic::Echo { rate: None } | Traffic::Pipeline { .. } => {}
        }
    }

    /// Returns the number of unanswered messages that a client keeps, if the answers set the pace of its messages.
    pub(crate) fn depth(&self) -> Option<usize> {
        match self.traffic {
            Traffic::Pipeline { depth, .. } => Some(depth as usize),
            _ => None,
        }
    }

    /// Returns the client's number among the senders.
    pub(crate) fn sender(&self, client: u32) -> Option<u32> {
        match self.traffic {
            Traffic::Silence => None,
            Traffic::Rooms { publishers, .. } => {
                let (room, index) = (self.room_number(client)?, client % self.room_size);
                (index < publishers).then_some(room * publishers + index)
            }
            Traffic::Direct { .. } | Traffic::Echo { .. } | Traffic::Pipeline { .. } => Some(client),
        }
    }

    /// Returns true if deliveries are checked by the seqs of rooms, which are dense and the same for all members.
    /// Otherwise they are checked by each publisher's own numbers.
    pub(crate) fn counts_seqs(&self) -> bool {
        !self.is_direct() && self.addresses.iter().all(|address| address.dialect.has_seqs())
    }

    /// Returns the number of streams that a client counts.
    pub(crate) fn streams(&self) -> u32 {
        match self.traffic {
            Traffic::Rooms { publishers, .. } if !self.counts_seqs() => publishers,
            Traffic::Pipeline { rooms, .. } if self.counts_seqs() => rooms,
            _ => 1,
        }
    }

    /// Returns the stream in which a client counts a message, from the message's publisher and number.
    pub(crate) fn stream_of(&self, publisher: u32, number: u32) -> u32 {
        match self.traffic {
            Traffic::Pipeline { .. } => number % self.streams(),
            _ => publisher % self.streams(),
        }
    }

    /// Returns the name of a client's stream in the whole run.
    pub(crate) fn stream(&self, client: u32, stream: u32) -> u32 {
        match self.is_direct() {
            true => self.partner(client),
            false => self.room_number(client).unwrap_or_default() * self.streams() + stream,
        }
    }

    /// Returns the number of recipients of a message.
    pub(crate) fn readers(&self) -> u64 {
        match self.traffic {
            Traffic::Silence | Traffic::Echo { .. } => 0,
            Traffic::Direct { .. } | Traffic::Pipeline { .. } => 1,
            Traffic::Rooms { .. } => u64::from(self.room_size),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn plan(dialect: LoadDialect, traffic: Traffic) -> Plan {
        let address = |port| PlanAddress { at: SocketAddr::from(([127, 0, 0, 1], port)), dialect };
        Plan {
            run: "t".to_owned(),
            addresses: vec![address(1), address(2)],
            clients: 12,
            room_size: 4,
            traffic,
            body: 128,
            in_flight: 10,
            login_rate: None,
            resumes: false,
        }
    }

    #[test]
    fn plan_numbers_publishers_and_spreads_them_over_gateways() {
        let plan = plan(LoadDialect::Ws, Traffic::Rooms { rate: 1.0, publishers: 2 });
        let senders: Vec<_> = (0..12).filter_map(|client| Some((client, plan.sender(client)?))).collect();
        assert_eq!(senders, [(0, 0), (1, 1), (4, 2), (5, 3), (8, 4), (9, 5)]);
        assert_eq!(plan.senders(), 6);
        assert_ne!(plan.address(4, 0), plan.address(5, 0));
        assert_ne!(plan.address(4, 0), plan.address(4, 1));
    }

    #[test]
    fn stream_has_same_name_for_all_readers() {
        let by_publisher = plan(LoadDialect::Ws, Traffic::Rooms { rate: 1.0, publishers: 2 });
        assert_eq!((by_publisher.streams(), by_publisher.stream(4, 1), by_publisher.stream(7, 1)), (2, 3, 3));
        let by_seq = plan(LoadDialect::Parley, Traffic::Rooms { rate: 1.0, publishers: 2 });
        assert_eq!((by_seq.streams(), by_seq.stream(4, 0), by_seq.stream(8, 0)), (1, 1, 2));
        let direct = plan(LoadDialect::Parley, Traffic::Direct { rate: 1.0 });
        assert_eq!((direct.stream(4, 0), direct.target(4, 0), direct.rooms(4)), (5, "tu5".to_owned(), Vec::new()));
    }

    #[test]
    fn peer_without_names_uses_one_room_per_client() {
        let plan = plan(LoadDialect::Nats, Traffic::Direct { rate: 1.0 });
        assert_eq!((plan.rooms(4), plan.target(5, 0)), (vec!["tu4".to_owned()], "tu4".to_owned()));
    }

    #[test]
    fn pipelined_messages_visit_all_rooms_in_turn() {
        let pipeline = |dialect| Plan { clients: 1, ..plan(dialect, Traffic::Pipeline { depth: 8, rooms: 3 }) };
        let parley = pipeline(LoadDialect::Parley);
        assert_eq!(parley.rooms(0), ["#tr0", "#tr1", "#tr2"]);
        assert_eq!(
            [0, 4].map(|number| (parley.target(0, number), parley.stream_of(0, number))),
            [("#tr0".to_owned(), 0), ("#tr1".to_owned(), 1)]
        );
        assert_eq!((parley.stream(0, 2), parley.readers(), parley.depth()), (2, 1, Some(8)));
        let nats = pipeline(LoadDialect::Nats);
        assert_eq!((nats.streams(), nats.stream_of(0, 4)), (1, 0), "the publisher's numbers are one stream");
    }

    #[test]
    fn changed_rate_applies_to_paced_traffic() {
        let mut paced = plan(LoadDialect::Ws, Traffic::Rooms { rate: 1.0, publishers: 2 });
        paced.set_rate(7.0);
        assert_eq!((paced.rate(), paced.senders()), (Some(7.0), 6));
        let mut unpaced = plan(LoadDialect::Ws, Traffic::Echo { rate: None });
        unpaced.set_rate(7.0);
        assert_eq!(unpaced.rate(), None);
    }
}
