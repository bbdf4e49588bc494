use super::*;

#[test]
fn key_names_stay_as_stored_data_has_them() {
    let keys = Keys::new("p");
    let (room, nick) = (RoomKey::from_store("r"), NickKey::from_store("n"));
    let (session, node) = (SessionId::from_store("s"), Incarnation::from_store("i"));
    let (room, nick, session, node) = (keys.room(&room), keys.nick(&nick), keys.session(&session), keys.node(&node));
    let skeleton = keys.skeleton("k");
    for (key, name) in [
        (keys.generation().to_string(), "generation"),
        (keys.beats().into(), "beats"),
        (keys.leases().into(), "leases"),
        (keys.gateways().into(), "gateways"),
        (keys.beaten().into(), "beaten"),
        (keys.ended().into(), "ended"),
        (keys.asserted().into(), "asserted"),
        (keys.fence().into(), "fence"),
        (keys.rooms().into(), "rooms"),
        (keys.online().into(), "online"),
        (keys.events().into(), "events"),
        (keys.largest().into(), "largest"),
        (keys.usage().into(), "usage"),
        (room.meta().into(), "room:r"),
        (room.stream().into(), "log:r"),
        (room.members().into(), "members:r"),
        (room.member_list().into(), "member-list:r"),
        (room.channel().into(), "ch:room:r"),
        (nick.record().into(), "nick:n"),
        (nick.rooms().into(), "nick-rooms:n"),
        (skeleton.nicks().into(), "skeleton:k"),
        (keys.user(&UserKey::from_store("u")).nicks().into(), "user-nicks:u"),
        (session.record().into(), "session:s"),
        (session.rooms().into(), "session-rooms:s"),
        (session.inbox().into(), "inbox:s"),
        (node.owned_nicks().into(), "owned-nicks:i"),
        (node.owned_members().into(), "owned-members:i"),
        (node.mailbox().into(), "mailbox:i"),
        (node.channel().into(), "ch:gw:i"),
    ] {
        assert_eq!(key, format!("p:{{0}}:{name}"));
    }
}

#[test]
fn patterns_match_the_names_of_their_keys() {
    let keys = Keys::new("p");
    let kinds = ["p:{0}:log:a:b", "p:{0}:generation", "p:{1}:log:a", "q"].map(|key| keys.kind_of(key));
    assert_eq!(kinds, [Some("log"), Some("generation"), None, None]);
    assert_eq!(keys.pattern(NodeKeys::owned_nicks), "p:{0}:owned-nicks:*");
    assert_eq!(keys.pattern(RoomKeys::meta), "p:{0}:room:*");
}

#[test]
fn script_keys_keep_the_order_of_their_calls() {
    let keys = Keys::new("p");
    let (room, nick) = (RoomKey::from_store("r"), NickKey::from_store("n"));
    let script_keys = ScriptKeys::of(keys.room(&room))
        .own([RoomKeys::meta])
        .partition([keys.rooms()])
        .crossing([keys.nick(&nick).record()])
        .own([RoomKeys::members])
        .crossing_in_script::<NodeUnit>()
        .buckets_in_script(&["idempotency"]);
    assert_eq!(script_keys.names(), ["p:{0}:room:r", "p:{0}:rooms", "p:{0}:nick:n", "p:{0}:members:r"]);
    assert_eq!(script_keys.described().in_script, ["gateways", "idempotency"]);
}
