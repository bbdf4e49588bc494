//! Sessions in Redis: the calls of the scripts beside this file.

use crate::model::keys::{NickKeys, NickUnit, NodeUnit, ScriptKeys, SessionKeys, SessionUnit, SkeletonUnit, UserUnit};
use crate::model::{Fence, Incarnation, Nick, OfflineReason, Owner, RoomName, SessionId, Status, TokenHash};
use crate::registry::names::{NickAssignment, refused_claim};
use crate::registry::redis::{RedisRegistry, did_change, millis, refused};
use crate::registry::reply::{ScriptReply, from_json, malformed, owner_of};
use crate::registry::{ClaimError, RegistryError, script};

use super::{
    DetachOutcome, HoldTerms, InboxState, RestoredMembership, ResumeError, ResumeTicket, ResumedSession, Sessions,
};

impl Sessions for RedisRegistry {
    async fn resume(
        &self,
        incarnation: &Incarnation,
        ticket: &ResumeTicket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<ResumedSession, ResumeError> {
        let ResumeTicket { session, presented, user } = ticket;
        let tokens = [presented.as_str(), next.as_str()];
        let assignment = NickAssignment { incarnation, session, nick, tokens, user: user.as_ref() };
        let mut reply = self.assign_nick(&script::RESUME, assignment).await.map_err(ClaimError::from)?;
        let word = reply.text().map_err(ClaimError::from)?;
        match word.as_str() {
            "OK" => Ok(resumed(reply).map_err(ClaimError::from)?),
            "UNKNOWN" => Err(ResumeError::UnknownToken),
            refusal => Err(refused_claim(refusal, &mut reply).map_err(ClaimError::from)?.into()),
        }
    }

    async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().session(session)).own([SessionKeys::record]);
        did_change(&mut self.write(session.as_str(), &script::CONFIRM, keys, &[token.as_str()]).await?)
    }

    async fn detach(&self, nick: &Nick, owner: &Owner, terms: HoldTerms) -> Result<DetachOutcome, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick.key())).own([NickKeys::record]);
        let args = [&*owner.token(), &millis(terms.hold), &millis(terms.after)];
        let mut reply = self.write(owner.session.as_str(), &script::DETACH, keys, &args).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(DetachOutcome::Held),
            "NEW" => Ok(DetachOutcome::TooNew),
            "NO" => Ok(DetachOutcome::NotOwned),
            word => Err(refused(word)),
        }
    }

    async fn expire_detached(&self, nick: &Nick, owner: &Owner, reason: OfflineReason) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick.key()))
            .own([NickKeys::record])
            .crossing_in_script::<SkeletonUnit>()
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<NodeUnit>();
        let args = [&*owner.token(), nick.key().as_str(), reason.as_str()];
        did_change(&mut self.write(owner.session.as_str(), &script::EXPIRE_DETACHED, keys, &args).await?)
    }

    async fn read(&self, session: &SessionId, seq: u64) -> Result<Option<u64>, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().session(session)).own([SessionKeys::record, SessionKeys::inbox]);
        let mut reply = self.write(session.as_str(), &script::READ, keys, &[&seq.to_string()]).await?;
        if did_change(&mut reply)? { Ok(Some(reply.number()?)) } else { Ok(None) }
    }
}

/// Reads the rest of a reply, a resumed session.
fn resumed(mut reply: ScriptReply) -> Result<ResumedSession, RegistryError> {
    let fence = Fence(reply.number()?);
    let former = match reply.text()?.as_str() {
        "" => None,
        text => Some(claim_before(text).ok_or_else(|| malformed("the former claim"))?),
    };
    let status = match reply.text()?.as_str() {
        "" => Status::default(),
        json => from_json(json)?,
    };
    // A room whose name another version accepted is left out: the session is worth more than one membership.
    let rooms: Result<Vec<RestoredMembership>, RegistryError> =
        reply.array()?.arrays().filter_map(|row| row.and_then(restored).transpose()).collect();
    let inbox = InboxState { epoch: reply.text()?, seq: reply.number()?, read: reply.number()? };
    Ok(ResumedSession { fence, former, status, rooms: rooms?, inbox })
}

fn restored(mut row: ScriptReply) -> Result<Option<RestoredMembership>, RegistryError> {
    let Some(room) = RoomName::from_store(&row.text()?) else { return Ok(None) };
    Ok(Some(RestoredMembership { room, epoch: row.text()?, seq: row.number()? }))
}

/// Reads `<owner token> <nick as shown>`.
fn claim_before(text: &str) -> Option<(Nick, Owner)> {
    let (token, nick) = text.split_once(' ')?;
    Some((Nick::parse(nick).ok()?, owner_of(token)?))
}
