//! Announcements: their recipients, and their delivery in portions.

use std::sync::Arc;

use presence::model::{AnnouncementOrder, Fence};

use super::*;

fn announcement(id: &str, tags: &[&str]) -> AnnouncementOrder {
    let (id, tags) = (id.to_owned(), tags.iter().map(ToString::to_string).collect());
    AnnouncementOrder { id, tags, body: serde_json::value::to_raw_value("noon").unwrap(), time: 7 }
}

/// Registers a session in its inbox, which it has not entered yet.
fn registered(hub: &Hub, tags: &[&str]) -> (Owner, Outbox) {
    let (incarnation, session) = (Incarnation::from_store("i"), SessionId::random());
    let owner = Owner { incarnation, session, fence: Fence(1) };
    let outbox = Outbox::new(Dialect::Json);
    hub.register_session(&owner, &Nick::parse("ann").unwrap(), &outbox);
    let tags: Vec<Box<str>> = tags.iter().map(|tag| (*tag).into()).collect();
    hub.tag_session(&owner, &tags.into());
    (owner, outbox)
}

fn enter(hub: &Hub, (owner, outbox): &(Owner, Outbox)) {
    let inbox = StreamId::Inbox(owner.session.clone());
    hub.observe_end(&inbox, &end(0));
    assert_eq!(join_inbox(hub, "ann", (&owner.session, outbox), 0), JoinProgress::Entered);
}

fn ids(hub: &Hub, outbox: &Outbox) -> Vec<String> {
    take_events(hub, outbox).iter().map(|event| event["msg_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tagged_announcement_reaches_sessions_with_its_tags() {
    let hub = new_hub();
    let sessions = [&["a", "b"][..], &["c"], &[]].map(|tags| registered(&hub, tags));
    sessions.iter().for_each(|session| enter(&hub, session));
    hub.announce(&announcement("1", &["b", "d"]));
    hub.announce(&announcement("2", &[]));
    let stale = Owner { fence: Fence(0), ..sessions[1].0.clone() };
    hub.tag_session(&stale, &Arc::from([Box::from("d")]));
    hub.announce(&announcement("3", &["d"]));
    hub.tag_session(&sessions[1].0, &Arc::from([Box::from("d")]));
    hub.announce(&announcement("4", &["d"]));
    let received = sessions.map(|(_, outbox)| ids(&hub, &outbox));
    assert_eq!(received, [vec!["1", "2"], vec!["2", "4"], vec!["2"]]);
}

#[test]
fn entering_session_gets_the_announcement_after_its_entry() {
    let hub = new_hub();
    let session = registered(&hub, &[]);
    hub.announce(&announcement("1", &[]));
    hub.announce(&announcement("2", &[]));
    assert_eq!(ids(&hub, &session.1), [] as [&str; 0], "not before it is registered");
    enter(&hub, &session);
    hub.announce(&announcement("3", &[]));
    assert_eq!(ids(&hub, &session.1), ["1", "2", "3"]);
}

#[test]
fn announcement_is_written_in_portions_and_encoded_once() {
    let hub = new_hub();
    let sessions: Vec<_> = (0..10_000).map(|_| registered(&hub, &[])).collect();
    sessions.iter().for_each(|session| enter(&hub, session));
    hub.announce(&announcement("1", &[]));
    let queued = || sessions.iter().filter(|(_, outbox)| outbox.queued_bytes() > 0).count();
    assert_eq!(queued(), 0, "the task that receives it writes nothing");
    let mut portions = 1;
    while fan_out_portion(&hub) {
        assert_eq!(queued(), portions * PORTION_WRITES);
        portions += 1;
    }
    assert_eq!(queued(), 10_000);
    let buffers = sessions.iter().take(2).map(|(_, outbox)| match outbox.take().unwrap().items.pop_front() {
        Some(Outgoing::Batch(frames)) => frames.as_ptr(),
        other => panic!("{other:?}"),
    });
    let buffers: Vec<_> = buffers.collect();
    assert_eq!(buffers[0], buffers[1], "sessions share one buffer");
}

#[test]
fn session_that_ends_gets_no_announcement_under_way() {
    let hub = new_hub();
    let session = registered(&hub, &[]);
    enter(&hub, &session);
    hub.announce(&announcement("1", &[]));
    hub.unregister_session(&session.0);
    assert_eq!(ids(&hub, &session.1), [] as [&str; 0]);
}
