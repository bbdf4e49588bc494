//! `ctl who`: users and their gateways; all users, one user, or the members of a room.
//!
//! It reads page by page, so a large cluster costs many short calls. A user that moves meanwhile is shown at one of the
//! two places.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use presence::model::{Availability, ListCursor, Nick, NickKey, RoomName};
use presence::registry::{PAGE_LIMIT, UserRow};
use serde::Serialize;

use super::table::{duration, table};
use super::{CommandAccess, CtlAnswer, CtlError};

#[derive(Serialize)]
struct WhoReport {
    items: Vec<Whereabouts>,
}

#[derive(Serialize)]
struct Whereabouts {
    #[serde(flatten)]
    user: UserRow,
    /// The node id; `null` for an offline user.
    gateway: Option<String>,
}

pub(super) async fn who(cluster: &CommandAccess, whom: Option<&str>) -> Result<CtlAnswer, CtlError> {
    let mut users = match whom {
        None => all_users(cluster).await?,
        Some(room) if room.starts_with('#') => members(cluster, room).await?,
        Some(nick) => vec![one(cluster, nick).await?],
    };
    users.sort_by_cached_key(|user| Nick::parse(&user.nick).map(|nick| nick.key().clone()).ok());
    let who = WhoReport { items: locate(cluster, users).await? };
    Ok(CtlAnswer::new(text(&who.items), &who))
}

async fn all_users(cluster: &CommandAccess) -> Result<Vec<UserRow>, CtlError> {
    let (mut users, mut cursor): (Vec<UserRow>, Option<ListCursor>) = (Vec::new(), None);
    loop {
        let page = cluster.registry.users(cursor, PAGE_LIMIT).await?;
        users.extend(page.items);
        cursor = page.next_cursor.as_deref().map(list_cursor).transpose()?;
        if cursor.is_none() {
            return Ok(users);
        }
    }
}

async fn members(cluster: &CommandAccess, room: &str) -> Result<Vec<UserRow>, CtlError> {
    let room = RoomName::parse(room).map_err(|reason| CtlError::Usage(format!("{room}: {reason}")))?;
    if cluster.registry.room(room.key()).await?.is_none() {
        return Err(CtlError::Refused(format!("there is no room {}", room.as_str())));
    }
    let (mut users, mut cursor): (Vec<UserRow>, Option<ListCursor>) = (Vec::new(), None);
    loop {
        let page = cluster.registry.members(room.key(), cursor, PAGE_LIMIT).await?;
        let nicks: Vec<NickKey> =
            page.items.iter().filter_map(|member| Some(Nick::parse(&member.nick).ok()?.key().clone())).collect();
        users.extend(cluster.registry.lookup(&nicks).await?.into_iter().flatten());
        cursor = page.next_cursor.as_deref().map(list_cursor).transpose()?;
        if cursor.is_none() {
            return Ok(users);
        }
    }
}

fn list_cursor(text: &str) -> Result<ListCursor, CtlError> {
    text.parse()
        .map_err(|_| CtlError::Refused(format!("the store sent the cursor {text}, which this version cannot read")))
}

async fn one(cluster: &CommandAccess, nick: &str) -> Result<UserRow, CtlError> {
    let nick = Nick::parse(nick).map_err(|reason| CtlError::Usage(format!("{nick}: {reason}")))?;
    let user = cluster.registry.user(nick.key()).await?;
    user.ok_or_else(|| CtlError::Refused(format!("nobody by the name of {} was seen", nick.as_str())))
}

async fn locate(cluster: &CommandAccess, users: Vec<UserRow>) -> Result<Vec<Whereabouts>, CtlError> {
    let leases = cluster.registry.leases().await?.leases;
    let nodes: HashMap<_, _> = leases.into_iter().map(|lease| (lease.incarnation, lease.node)).collect();
    let key = |user: &UserRow| Nick::parse(&user.nick).map(|nick| nick.key().clone());
    let keys: Vec<NickKey> = users.iter().filter_map(|user| key(user).ok()).collect();
    if keys.len() != users.len() {
        return Err(CtlError::Usage(
            "the store contains an invalid nickname: was it written by another version?".to_owned(),
        ));
    }
    let owners = cluster.store.owners(&keys).await?;
    let located = users.into_iter().zip(owners).map(|(user, owner)| {
        let gateway = owner.filter(|_| user.online).and_then(|owner| nodes.get(&owner).cloned());
        Whereabouts { user, gateway }
    });
    Ok(located.collect())
}

fn text(items: &[Whereabouts]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let row = |Whereabouts { user, gateway }: &Whereabouts| {
        let state = match (user.online, user.status.status) {
            (false, _) => "offline",
            (true, Availability::Online) => "online",
            (true, Availability::Away) => "away",
        };
        [
            user.nick.clone(),
            gateway.clone().unwrap_or_default(),
            state.to_owned(),
            user.online_since.map(|since| duration(now.saturating_sub(since))).unwrap_or_default(),
            user.rooms.join(" "),
        ]
    };
    table(["NICK", "GATEWAY", "STATUS", "SINCE", "ROOMS"], &items.iter().map(row).collect::<Vec<_>>())
}
