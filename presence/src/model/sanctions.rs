//! Sanctions of a whole cluster: bans, mutes, kicks and revocations of tokens.
//!
//! A [`SanctionOrder`] is what a moderator asks for; in force it is a [`SanctionEntry`]. Stores keep it as a line
//! of text. Invariant: a subject has one form, so one entry of a kind names it. Reads no clock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::moderation::is_free_text;
use super::{Nick, SessionId, UserId, hex, is_printable_text};

/// Maximum length of a reason, in bytes.
const REASON_BYTES: usize = 500;
/// Maximum length of the name of a moderator, in bytes.
const MODERATOR_BYTES: usize = 64;
/// Maximum number of entries of one kind.
pub const SANCTIONS_MAX: usize = 10_000;
/// The longest prefix of an IPv6 network: a network assigns that many bits to one client.
const CLIENT_PREFIX_V6: u8 = 64;
/// The prefixes of the widest networks that an order names without force: a 256th of IPv4, and more of IPv6 than any
/// provider has.
const WIDE_PREFIX_V4: u8 = 8;
const WIDE_PREFIX_V6: u8 = 16;
/// Number of bits in front of an IPv4 address that is written as an IPv6 address.
const MAPPED_PREFIX: u8 = 96;
const ID_BYTES: usize = 8;

/// A kind of sanction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SanctionKind {
    /// The subject may not connect or register. Its sessions end.
    Ban,
    /// The subject may not send messages.
    Mute,
    /// The present sessions of the subject end, once.
    Kick,
    /// Tokens of the user that were issued before a time are refused. Sessions with such a token end.
    Revocation,
}

impl SanctionKind {
    /// The time for which a kick stays in the list: longer than a gateway serves clients without the store.
    pub const KICK_LASTS: Duration = Duration::from_secs(60);

    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Ban, Self::Mute, Self::Kick, Self::Revocation];

    /// Returns the word in the store and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Mute => "mute",
            Self::Kick => "kick",
            Self::Revocation => "revocation",
        }
    }

    /// Returns true if an order of this kind can name the subject.
    #[must_use]
    pub fn applies_to(self, subject: &SanctionSubject) -> bool {
        match subject {
            SanctionSubject::User(_) => true,
            SanctionSubject::Nick(_) => self != Self::Revocation,
            SanctionSubject::Network(_) => matches!(self, Self::Ban | Self::Kick),
            SanctionSubject::Session(_) => self == Self::Kick,
        }
    }
}

/// The clients that an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "SubjectFields", try_from = "SubjectFields")]
pub enum SanctionSubject {
    /// Every session with this nickname, of a guest or of a user.
    Nick(Nick),
    /// Every session whose token names this user.
    User(UserId),
    /// One session.
    Session(SessionId),
    /// Every client with an address in this network.
    Network(SanctionedNetwork),
}

/// A subject that is missing, malformed, or named twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// None is named, or several are.
    #[error("name exactly one of nick, user, session and address")]
    NotOne,
    /// The nickname breaks a rule for names.
    #[error("nick: {0}")]
    Nick(super::NameError),
    /// The user id is not valid.
    #[error("user: expected 1 to 255 bytes of printable text")]
    User,
    /// The session id is not valid.
    #[error("session: expected the session id of a registered client")]
    Session,
    /// The address is not valid.
    #[error("address: expected an IP address or a network, such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/48")]
    Address,
}

/// The fields with which an order names its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectFields {
    /// A nickname, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nick: Option<String>,
    /// A user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A session id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// An address or a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl TryFrom<SubjectFields> for SanctionSubject {
    type Error = SubjectError;

    fn try_from(fields: SubjectFields) -> Result<Self, SubjectError> {
        let SubjectFields { nick, user, session, address } = fields;
        match (nick, user, session, address) {
            (Some(nick), None, None, None) => Nick::parse(&nick).map(Self::Nick).map_err(SubjectError::Nick),
            (None, Some(user), None, None) => UserId::parse(&user).map(Self::User).ok_or(SubjectError::User),
            (None, None, Some(id), None) => uuid::Uuid::try_parse(&id)
                .map(|id| Self::Session(SessionId::from_store(&id.simple().to_string())))
                .map_err(|_| SubjectError::Session),
            (None, None, None, Some(address)) => {
                SanctionedNetwork::parse(&address).map(Self::Network).ok_or(SubjectError::Address)
            }
            _ => Err(SubjectError::NotOne),
        }
    }
}

impl From<SanctionSubject> for SubjectFields {
    fn from(subject: SanctionSubject) -> Self {
        let fields = Self::default();
        match subject {
            SanctionSubject::Nick(nick) => Self { nick: Some(nick.as_str().to_owned()), ..fields },
            SanctionSubject::User(user) => Self { user: Some(user.as_str().to_owned()), ..fields },
            SanctionSubject::Session(session) => Self { session: Some(session.to_string()), ..fields },
            SanctionSubject::Network(network) => Self { address: Some(network.to_string()), ..fields },
        }
    }
}

/// For people: the kind of the subject and its name.
impl fmt::Display for SanctionSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nick(nick) => write!(f, "nick {nick}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Session(session) => write!(f, "session {session}"),
            Self::Network(network) => write!(f, "address {network}"),
        }
    }
}

/// A network of client addresses in its one form: no host bits, IPv4 where an address is mapped, and at most 64 bits of
/// an IPv6 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SanctionedNetwork(IpNet);

impl SanctionedNetwork {
    /// Reads an address or a network.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let network: IpNet = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        let network = match network {
            IpNet::V4(network) => IpNet::V4(network),
            IpNet::V6(network) => match network.addr().to_ipv4_mapped() {
                Some(address) => Ipv4Net::new(address, network.prefix_len().checked_sub(MAPPED_PREFIX)?).ok()?.into(),
                // Neither a network of IPv4 clients nor that of one IPv6 client.
                None if has_mapped(network) && network.prefix_len() > CLIENT_PREFIX_V6 => return None,
                None => Ipv6Net::new(network.addr(), network.prefix_len().min(CLIENT_PREFIX_V6)).ok()?.into(),
            },
        };
        Some(Self(network.trunc()))
    }

    /// Returns the network with this prefix length that an address is in; `None` if its family has no such prefix.
    #[must_use]
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        IpNet::new(address, prefix).ok().map(|network| Self(network.trunc()))
    }

    /// Returns the network itself.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Returns the length of its prefix.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// Returns true if it covers more than a /8 of IPv4 or a /16 of IPv6.
    #[must_use]
    pub fn is_wide(self) -> bool {
        let widest = match self.0 {
            IpNet::V4(_) => WIDE_PREFIX_V4,
            IpNet::V6(_) => WIDE_PREFIX_V6,
        };
        self.prefix() < widest
    }
}

/// Returns true if a network contains IPv4 addresses that are written as IPv6 addresses.
fn has_mapped(network: Ipv6Net) -> bool {
    network.contains(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped())
}

/// A single IPv4 address has no prefix.
impl fmt::Display for SanctionedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNet::V4(network) if network.prefix_len() == 32 => write!(f, "{}", network.addr()),
            network => write!(f, "{network}"),
        }
    }
}

/// What a moderator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanctionOrder {
    /// Its kind.
    pub kind: SanctionKind,
    /// The clients that it is about.
    #[serde(flatten)]
    pub subject: SanctionSubject,
    /// The moderator, as the log and lists show it.
    pub by: String,
    /// The reason, which the clients see. Empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of a revocation: tokens issued before this time are refused, in Unix milliseconds. `None` for the time of the
    /// order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// The idempotency key: while an order with this key is in force, the same order changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// An order that cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Orders of this kind do not name such a subject.
    #[error("this cannot be ordered for such a subject")]
    Subject,
    /// The reason is not valid.
    #[error("the reason must be at most 500 bytes of printable text")]
    Reason,
    /// The name of the moderator is not valid.
    #[error("the name of the moderator must be 1 to 64 bytes of printable text")]
    Moderator,
}

impl SanctionOrder {
    /// Creates an order.
    ///
    /// # Errors
    /// [`OrderError`] for the first rule that it breaks.
    pub fn new(kind: SanctionKind, subject: SanctionSubject, by: &str, reason: &str) -> Result<Self, OrderError> {
        if !kind.applies_to(&subject) {
            return Err(OrderError::Subject);
        }
        if !is_printable_text(by, MODERATOR_BYTES) {
            return Err(OrderError::Moderator);
        }
        if reason.len() > REASON_BYTES || !is_free_text(reason) {
            return Err(OrderError::Reason);
        }
        Ok(Self { kind, subject, by: by.to_owned(), reason: reason.to_owned(), before: None, key: None })
    }

    /// Returns the id of the entry: the same for every order of its kind about its subject.
    #[must_use]
    pub fn id(&self) -> String {
        let subject = match &self.subject {
            // Spellings of a nickname are one subject.
            SanctionSubject::Nick(nick) => format!("nick {}", nick.key()),
            subject => subject.to_string(),
        };
        let hash = Sha256::digest(format!("{} {subject}", self.kind.as_str()));
        hex(&hash[..ID_BYTES])
    }
}

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanctionEntry {
    /// Its id.
    pub id: String,
    /// The order.
    pub order: SanctionOrder,
    /// The end, in Unix milliseconds; `None` for never.
    pub until: Option<u64>,
    /// The time of the order, in Unix milliseconds.
    pub time: u64,
    /// The version of the list in which it came into force or was changed.
    pub version: u64,
}

impl SanctionEntry {
    /// Returns true if it is in force at a time, in Unix milliseconds.
    #[must_use]
    pub fn is_in_force(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns the time before which tokens are refused, in Unix milliseconds.
    #[must_use]
    pub fn revoked_before(&self) -> u64 {
        self.order.before.unwrap_or(self.time)
    }
}

/// A change of the list of sanctions: an entry, or the end of one that was lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanctionChange {
    /// The id of the entry.
    pub id: String,
    /// The version of the list since this change.
    pub version: u64,
    /// The entry; `None` if it was lifted.
    pub entry: Option<SanctionEntry>,
    /// The form in the store.
    pub line: String,
}

/// The first word of the line of a lifted entry.
const LIFTED: &str = "lifted";

impl SanctionChange {
    /// Reads a line of the store, `<kind> <version> <time> <until or 0> <order as JSON>`, or
    /// `lifted <version> <time> 0 <kind>`. The scripts write the same. `None` if it is malformed or of a later version.
    #[must_use]
    pub fn parse(id: &str, line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let word = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let (version, time, until) = (number()?, number()?, number()?);
        let (id, line) = (id.to_owned(), line.to_owned());
        if word == LIFTED {
            return Some(Self { id, version, entry: None, line });
        }
        let order: SanctionOrder =
            serde_json::from_str(words.next()?).ok().filter(|order: &SanctionOrder| order.kind.as_str() == word)?;
        let until = Some(until).filter(|until| *until > 0);
        let entry = SanctionEntry { id: id.clone(), order, until, time, version };
        Some(Self { id, version, entry: Some(entry), line })
    }

    /// Returns the line of a lifted entry.
    #[must_use]
    pub fn lifted(kind: SanctionKind, version: u64, time: u64) -> String {
        format!("{LIFTED} {version} {time} 0 {}", kind.as_str())
    }
}

#[cfg(test)]
mod tests;
