//! `ctl ban`, `mute`, `revoke` and their opposites and lists, and `kick` of anything but a nickname.
//!
//! Orders go through the registry, so each gateway follows them within two seconds. The settings of this gateway name
//! the proxies that must not be banned.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use presence::host::client_address::TrustedProxies;
use presence::model::{SANCTIONS_MAX, SanctionEntry, SanctionKind, SanctionOrder, SanctionSubject, SubjectFields};
use serde_json::{Value, json};

use super::table::{duration, table};
use super::{CommandAccess, CtlAnswer, CtlError, kick};

/// The clients that an order is about: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct SubjectFlags {
    /// A nickname, in any case
    nick: Option<String>,
    /// A user id, the claim `sub` of tokens
    #[arg(long)]
    user: Option<String>,
    /// An IP address or a network, such as 192.0.2.7, 198.51.100.0/24 or 2001:db8::/48
    #[arg(long)]
    address: Option<String>,
    /// A session id, for `kick`
    #[arg(long)]
    session: Option<String>,
}

/// Terms of an order.
#[derive(Debug, clap::Args)]
pub(super) struct TermFlags {
    /// For how long: seconds, or a number with s, m, h or d. Without it: for good
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<ForTime>,
    /// The reason. The client sees it
    #[arg(long, default_value = "")]
    reason: String,
    /// Your name, for the lists
    #[arg(long, value_name = "NAME", default_value = "ctl")]
    by: String,
}

/// A time such as `90`, `90s`, `10m`, `2h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ForTime(Duration);

impl FromStr for ForTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = |unit| text.strip_suffix(unit);
        let (number, seconds) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
            .into_iter()
            .find_map(|(word, seconds)| Some((unit(word)?, seconds)))
            .unwrap_or((text, 1));
        let seconds = number.parse::<u32>().ok().filter(|number| *number > 0).map(|number| u64::from(number) * seconds);
        // At most 136 years: times stay exact in every reader.
        let seconds = seconds.filter(|seconds| *seconds <= u64::from(u32::MAX));
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or("expected a time such as 90s, 10m, 2h or 7d")
    }
}

impl SubjectFlags {
    fn subject(&self) -> Result<SanctionSubject, CtlError> {
        let Self { nick, user, session, address } = self;
        let [nick, user, session, address] = [nick, user, session, address].map(Clone::clone);
        SubjectFields { nick, user, session, address }.try_into().map_err(|error| usage(&error))
    }
}

/// Flags of `ban`.
#[derive(Debug, clap::Args)]
pub(super) struct BanFlags {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    terms: TermFlags,
    /// Ban even a network wider than /8 (IPv6: /16) or a trusted proxy
    #[arg(long)]
    force: bool,
}

pub(super) async fn ban(
    cluster: &CommandAccess,
    BanFlags { subject, terms, force }: &BanFlags,
    proxies: &TrustedProxies,
) -> Result<CtlAnswer, CtlError> {
    let subject = subject.subject()?;
    check_reach(&subject, *force, proxies)?;
    put(cluster, (SanctionKind::Ban, subject), terms).await
}

/// Refuses an order about a wide network or a trusted proxy, unless it is forced.
fn check_reach(subject: &SanctionSubject, force: bool, proxies: &TrustedProxies) -> Result<(), CtlError> {
    let spared = if force { Ok(()) } else { proxies.check_ban(subject) };
    spared.map_err(|reason| CtlError::Refused(format!("{reason}; --force gives the order anyway")))
}

/// Flags of `mute`.
#[derive(Debug, clap::Args)]
pub(super) struct MuteFlags {
    #[command(flatten)]
    subject: SubjectFlags,
    #[command(flatten)]
    terms: TermFlags,
}

pub(super) async fn mute(cluster: &CommandAccess, flags: &MuteFlags) -> Result<CtlAnswer, CtlError> {
    put(cluster, (SanctionKind::Mute, flags.subject.subject()?), &flags.terms).await
}

/// Flags of `revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeFlags {
    /// The user id, the claim `sub` of tokens
    user: String,
    /// Refuse tokens issued before this time, in Unix seconds. Without it: before now
    #[arg(long, value_name = "SECONDS")]
    before: Option<u32>,
    /// Lift the revocation instead
    #[arg(long, conflicts_with = "before")]
    undo: bool,
    #[command(flatten)]
    terms: TermFlags,
}

pub(super) async fn revoke(cluster: &CommandAccess, flags: &RevokeFlags) -> Result<CtlAnswer, CtlError> {
    let RevokeFlags { user, before, undo, terms } = flags;
    let subject = SanctionSubject::try_from(SubjectFields { user: Some(user.clone()), ..SubjectFields::default() });
    let subject = subject.map_err(|error| usage(&error))?;
    if *undo {
        return lift(cluster, SanctionKind::Revocation, subject).await;
    }
    let mut order = SanctionOrder::new(SanctionKind::Revocation, subject, &terms.by, &terms.reason)
        .map_err(|error| usage(&error))?;
    order.before = before.map(|seconds| u64::from(seconds) * 1000);
    put_order(cluster, &order, terms).await
}

/// Flags of `kick`.
#[derive(Debug, clap::Args)]
pub(super) struct KickFlags {
    #[command(flatten)]
    subject: SubjectFlags,
    /// Kick even a network wider than /8 (IPv6: /16) or a trusted proxy
    #[arg(long)]
    force: bool,
}

pub(super) async fn kick(
    cluster: &CommandAccess,
    KickFlags { subject, force }: &KickFlags,
    proxies: &TrustedProxies,
) -> Result<CtlAnswer, CtlError> {
    if let Some(nick) = &subject.nick {
        return kick::kick(cluster, nick).await;
    }
    let subject = subject.subject()?;
    check_reach(&subject, *force, proxies)?;
    let order = SanctionOrder::new(SanctionKind::Kick, subject, "ctl", "").map_err(|error| usage(&error))?;
    let entry = order_entry(cluster, &order, Some(SanctionKind::KICK_LASTS)).await?;
    let subject = &entry.order.subject;
    Ok(CtlAnswer::new(format!("ordered: every session of {subject} ends\n"), &json!({ "kicked": subject })))
}

pub(super) async fn lift_of(
    cluster: &CommandAccess,
    kind: SanctionKind,
    flags: &SubjectFlags,
) -> Result<CtlAnswer, CtlError> {
    lift(cluster, kind, flags.subject()?).await
}

/// Lists the entries of a kind that are in force.
pub(super) async fn list(cluster: &CommandAccess, kind: SanctionKind) -> Result<CtlAnswer, CtlError> {
    let now = unix_ms();
    let entries = cluster.registry.sanction_entries(kind, now).await?;
    let row = |entry: &SanctionEntry| {
        [
            entry.id.clone(),
            entry.order.subject.to_string(),
            entry.until.map_or_else(|| "for good".to_owned(), |until| duration(until.saturating_sub(now))),
            entry.order.by.clone(),
            format!("{} ago", duration(now.saturating_sub(entry.time))),
            entry.order.reason.clone(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let text = table(["ID", "SUBJECT", "ENDS IN", "BY", "ORDERED", "REASON"], &rows);
    let items: Vec<Value> = entries.iter().map(document).collect();
    Ok(CtlAnswer::new(text, &json!({ "items": items })))
}

async fn put(
    cluster: &CommandAccess,
    (kind, subject): (SanctionKind, SanctionSubject),
    terms: &TermFlags,
) -> Result<CtlAnswer, CtlError> {
    let order = SanctionOrder::new(kind, subject, &terms.by, &terms.reason).map_err(|error| usage(&error))?;
    put_order(cluster, &order, terms).await
}

async fn put_order(cluster: &CommandAccess, order: &SanctionOrder, terms: &TermFlags) -> Result<CtlAnswer, CtlError> {
    let lasts = terms.lasts.map(|ForTime(lasts)| lasts);
    let entry = order_entry(cluster, order, lasts).await?;
    let verb = match order.kind {
        SanctionKind::Ban => "banned",
        SanctionKind::Mute => "muted",
        SanctionKind::Kick => "kicked",
        SanctionKind::Revocation => "revoked the tokens of",
    };
    let ends =
        lasts.map_or_else(|| "for good".to_owned(), |lasts| format!("for {}", duration(lasts.as_millis() as u64)));
    Ok(CtlAnswer::new(format!("{verb} {} {ends}\n", entry.order.subject), &document(&entry)))
}

async fn order_entry(
    cluster: &CommandAccess,
    order: &SanctionOrder,
    lasts: Option<Duration>,
) -> Result<SanctionEntry, CtlError> {
    let full = || CtlError::Refused(format!("the list is full: {SANCTIONS_MAX} entries of this kind"));
    cluster.registry.sanction_person(order, lasts).await?.ok_or_else(full)
}

async fn lift(cluster: &CommandAccess, kind: SanctionKind, subject: SanctionSubject) -> Result<CtlAnswer, CtlError> {
    let order = SanctionOrder::new(kind, subject, "ctl", "").map_err(|error| usage(&error))?;
    let (word, subject) = (kind.as_str(), &order.subject);
    if !cluster.registry.lift(kind, &order.id()).await? {
        return Err(CtlError::Refused(format!("there is no {word} of {subject}")));
    }
    Ok(CtlAnswer::new(format!("lifted the {word} of {subject}\n"), &json!({ "lifted": subject })))
}

/// Returns an entry as the HTTP API shows it.
fn document(entry: &SanctionEntry) -> Value {
    serde_json::to_value(presence::registry::SanctionRow::from(entry.clone())).expect("texts and numbers are JSON")
}

fn usage(error: &impl ToString) -> CtlError {
    CtlError::Usage(error.to_string())
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(ForTime(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "0", "m", "1w", "-1", "1.5h", "4294967295d"] {
            assert!(text.parse::<ForTime>().is_err(), "{text}");
        }
    }
}
