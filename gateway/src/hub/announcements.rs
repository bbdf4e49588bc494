//! Announcements: one event for every session of the node, or for those with a tag.
//!
//! The recipients are the live inboxes of the moment. Fan-out tasks write the event as a job of its own, in portions
//! and encoded once per dialect. A session that is entering its inbox gets the event when it has entered, so after
//! `registered`. Nothing is kept for sessions that begin later.

use std::sync::Arc;
use std::time::Instant;

use presence::model::{AnnouncementOrder, Owner};

use super::streams::FollowUp;
use super::{Hub, HubState};
use crate::message::Body;
use crate::outbound::outbox::Broadcast;
use crate::wire::Event;

impl Hub {
    /// Sets the tags of a session, those of its token. Does nothing if a newer claim holds the session.
    pub fn tag_session(&self, owner: &Owner, tags: &Arc<[Box<str>]>) {
        self.lock().sessions.tag(owner, tags);
    }

    /// Delivers an announcement to the sessions that it is for.
    pub fn announce(&self, announcement: &AnnouncementOrder) {
        let AnnouncementOrder { id, tags, body, time } = announcement;
        let event = Event::Announcement { id: id.clone(), body: Body::from_raw(body.clone()), time: *time };
        let event = Broadcast::new(event);
        let mut state = self.lock();
        let HubState { sessions, streams } = &mut *state;
        let is_for = |session: &_| tags.is_empty() || sessions.has_tag(session, tags);
        let recipients = streams.inboxes().filter(|(session, _)| is_for(session));
        let recipients = recipients.filter_map(|(_, inbox)| inbox.announce(&event)).collect();
        let fan_out = streams.queue_announcement(Instant::now(), event, recipients);
        drop(state);
        self.wake(FollowUp { fan_out, refill: false });
    }
}
