//! `join`: enters a room, from the client's position in it if it names one.
//!
//! The operation is shared: a resume joins the session's rooms again, and a change of nickname rewrites its member
//! records. Invariant: a join that fails leaves the session where it was, or ends the connection.

use std::sync::Arc;

use presence::model::RoomName;
use presence::model::codes::ErrorCode;
use presence::model::moderation::{RoomRole, RoomTopic};
use presence::model::stream::{StreamEnd, StreamId};

use crate::identity::RoomRight;
use crate::quota::Quota;
use crate::session::state::{JoinedRoom, ROOMS_MAX, SessionIdentity, SessionState};
use crate::session::stream_entry::StreamEntry;
use crate::wire::{Answer, Since};

use super::Decision;

/// Joins a room, or rewrites the session's member record there.
#[derive(Debug)]
pub struct JoinRoom {
    pub(crate) room: RoomName,
    pub(crate) me: SessionIdentity,
    /// The session's former identity there, if it has changed.
    pub(crate) former: Option<SessionIdentity>,
    /// True if this join starts delivery to the connection. False if the room is delivered already, or a resume does
    /// not deliver it.
    pub(crate) starts_delivery: bool,
    /// The client's position, if it named one and delivery starts.
    pub(crate) since: Option<Since>,
    /// The address that is charged if the room is created. `None` for a room in which the session was before.
    pub(crate) creator: Option<Arc<Quota>>,
    /// True for a room that a resume joins again: a ban then leaves out the room only.
    pub(crate) is_return: bool,
    /// True if an application lets the session enter: it needs no invite and no right to create the room, and hooks are
    /// not asked.
    pub(crate) is_ordered: bool,
}

/// A room that was joined.
#[derive(Debug)]
pub struct RoomJoined {
    /// The room by the name that all its members see.
    pub(crate) room: RoomName,
    /// The end of its stream.
    pub(crate) end: StreamEnd,
    pub(crate) member_count: u64,
    pub(crate) since: Option<Since>,
    pub(crate) topic: Option<Box<RoomTopic>>,
    pub(crate) role: Option<RoomRole>,
}

pub(super) fn decide(
    state: &SessionState,
    me: SessionIdentity,
    room: RoomName,
    since: Option<Since>,
) -> Result<JoinRoom, ErrorCode> {
    if !state.may(&room, RoomRight::Join) {
        return Err(ErrorCode::Forbidden);
    }
    let joined = state.rooms.get(room.key());
    if joined.is_none() && state.rooms.len() >= ROOMS_MAX {
        return Err(ErrorCode::TooManyRooms);
    }
    let starts_delivery = !joined.is_some_and(|joined| joined.receives);
    let since = state.allowed_since(&room, since.filter(|_| starts_delivery));
    let creator = state.quotas.address.clone().filter(|_| joined.is_none());
    Ok(JoinRoom { room, me, former: None, starts_delivery, since, creator, is_return: false, is_ordered: false })
}

/// Decides about the order of an application to enter a room. Returns `None` if there is nothing to do, or no space for
/// another room. The rights of the token do not count: the application gives them, and lets the session enter.
pub(in crate::session) fn decide_ordered(state: &SessionState, room: RoomName) -> Option<JoinRoom> {
    let me = state.identity.clone()?;
    let joined = state.rooms.get(room.key());
    let is_possible = joined.map_or(state.rooms.len() < ROOMS_MAX, |joined| !joined.receives);
    is_possible.then_some(JoinRoom {
        room,
        me,
        former: None,
        starts_delivery: true,
        since: None,
        creator: None,
        is_return: false,
        is_ordered: true,
    })
}

pub(in crate::session) fn conclude(state: &mut SessionState, joined: RoomJoined) -> Decision {
    let RoomJoined { room, end, member_count, since, topic, role } = joined;
    state.rooms.insert(room.key().clone(), JoinedRoom { room: room.clone(), receives: true });
    let answer = Answer::Joined {
        room: room.as_str().to_owned(),
        epoch: end.epoch.clone(),
        seq: end.seq,
        member_count,
        recovered: since.as_ref().is_some_and(|since| end.holds(&since.epoch, since.seq)),
        topic,
        role,
        by_order: false,
    };
    let entry = StreamEntry::new(StreamId::Room(room.key().clone()), room.as_str(), end, since);
    Decision::AnswerAndEnter(answer, vec![entry])
}

/// Concludes a join by order of an application.
pub(in crate::session) fn conclude_ordered(state: &mut SessionState, joined: RoomJoined) -> Decision {
    let mut decision = conclude(state, joined);
    if let Decision::AnswerAndEnter(Answer::Joined { by_order, .. }, _) = &mut decision {
        *by_order = true;
    }
    decision
}

mod perform {
    use std::sync::Arc;
    use std::time::Instant;

    use presence::model::RoomName;
    use presence::model::codes::CloseCode;
    use presence::model::stream::StreamEnd;
    use presence::registry::{JoinEntry, JoinRequest, JoinedAt, RegistryError};

    use super::super::leave::LeaveRoom;
    use super::{JoinRoom, RoomJoined};
    use crate::quota::{LimitKind, LimitOwner, Quota};
    use crate::session::performer::Performer;
    use crate::session::refusal::over_limit;
    use crate::session::retry::answered;
    use crate::session::services::Services;
    use crate::session::state::SessionIdentity;
    use crate::wire::Refusal;

    impl JoinRoom {
        pub(in crate::session) async fn perform(self, performer: &mut Performer) -> Result<RoomJoined, Refusal> {
            let Self { room, me, former, starts_delivery, since, creator, is_ordered, .. } = self;
            let services = Arc::clone(&performer.services);
            let session = &me.owner.session;
            // A session that was in the room before stays in it when this fails.
            let is_new = !performer.rooms.contains_key(room.key());
            if is_new && !is_ordered {
                let address = creator.as_deref().and_then(Quota::address);
                services.ask_join(&me, &room, address, &performer.outbox).await?;
            }
            if starts_delivery {
                services.hub.start_join(&room, session, &performer.outbox);
                if let Err(error) = services.backplane.subscribe(room.key()).await {
                    services.hub.leave_room(room.key(), session, &performer.outbox);
                    return Err(error.into());
                }
                performer.received.insert(room.key().clone(), ());
                performer.rooms.insert(room.key().clone(), room.clone());
            }
            // Only what was created counts: many clients of an address may enter a new room at the same moment.
            let may_create = match &creator {
                Some(address) => address.check(Instant::now(), LimitKind::Creations),
                None => Ok(()),
            };
            let entry = match (&former, may_create) {
                (Some(former), _) => JoinEntry::Renamed(&former.nick, &former.owner),
                (None, Err(_)) => JoinEntry::Existing,
                (None, Ok(())) if is_ordered => JoinEntry::Ordered,
                (None, Ok(())) => JoinEntry::New,
            };
            match answered(|| {
                services.registry.join(JoinRequest {
                    room: &room,
                    nick: &me.nick,
                    owner: &me.owner,
                    user: me.user(),
                    status: &me.status,
                    entry,
                    moderates: me.moderates(&room),
                })
            })
            .await
            {
                Ok(joined) => {
                    if let Some(address) = creator.filter(|_| joined.is_first_entry()) {
                        address.charge(Instant::now(), LimitKind::Creations);
                    }
                    let JoinedAt { room, epoch, seq, member_count, forks, topic, role } = joined;
                    if is_new {
                        services.claims.change(&me.owner, |claim| {
                            // Usually the only entry.
                            claim.rooms.reserve_exact(1);
                            claim.rooms.push(room.clone());
                        });
                    }
                    let (end, topic) = (StreamEnd { epoch, seq, forks }, topic.map(Box::new));
                    Ok(RoomJoined { room, end, member_count, since, topic, role })
                }
                Err(error) => {
                    if starts_delivery {
                        performer.stop_receiving(room.key(), session);
                    }
                    // A resume finds rooms that do not admit the person any more.
                    if is_new || error.is_by_rules() {
                        undo(performer, &room, me, &error).await;
                    }
                    match (may_create, &error) {
                        (Ok(()), RegistryError::Unknown(_)) => {
                            // The room may exist.
                            if let Some(address) = creator {
                                address.charge(Instant::now(), LimitKind::Creations);
                            }
                            Err(error.into())
                        }
                        (Err(retry_after), RegistryError::NoSuchRoom) => {
                            log_refused_room(&services, creator.as_deref());
                            Err(over_limit((LimitOwner::Address, LimitKind::Creations), retry_after))
                        }
                        _ => Err(error.into()),
                    }
                }
            }
        }
    }

    /// Logs that an address may create no room now, at most once a minute.
    fn log_refused_room(services: &Services, creator: Option<&Quota>) {
        if creator.is_some_and(|address| address.takes_log_line(Instant::now())) {
            let address = creator.and_then(Quota::address).filter(|_| services.log_addresses);
            let address = address.map(tracing::field::display);
            let (limit, scope) = (LimitKind::Creations.slug(), LimitOwner::Address.slug());
            tracing::info!(event = "rate_limited", limit, scope, address, "rooms refused by a limit");
        }
    }

    /// Undoes a first join that failed or whose outcome is unknown.
    async fn undo(performer: &mut Performer, room: &RoomName, me: SessionIdentity, error: &RegistryError) {
        let leave = LeaveRoom { room: room.clone(), me };
        if matches!(error, RegistryError::Unknown(_)) && leave.remove_member(performer).await.is_err() {
            // The member record may exist: only the end of the session is certain to remove it.
            performer.outbox.close(CloseCode::Restart);
        } else {
            performer.forget_room(room, &leave.me.owner);
        }
    }
}
