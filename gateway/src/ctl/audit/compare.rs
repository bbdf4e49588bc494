//! Comparison of the store with the claims of the gateways, in one pass. Pure: two inventories in, their differences
//! out.

use std::collections::{BTreeMap, BTreeSet};

use presence::model::{Incarnation, NickKey, RoomKey};
use presence::registry::{HeldSession, Inventory};

/// An index that the store maintains in addition to its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Index {
    Online,
    OwnedNicks,
    MemberList,
    OwnedMembers,
}

impl Index {
    /// Returns its word in the name of the key.
    fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::OwnedNicks => "owned-nicks",
            Self::MemberList => "member-list",
            Self::OwnedMembers => "owned-members",
        }
    }
}

/// Type of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DriftKind {
    /// The store has a record, but its gateway does not have the claim or is not in the cluster.
    NotHeld,
    /// A gateway has the claim, but the store has no record of it or one of another claim.
    NotInStore,
    /// An index has an entry without a record.
    EntryWithoutRecord(Index),
    /// A record has no entry in an index.
    RecordWithoutEntry(Index),
}

impl DriftKind {
    pub(super) fn text(self) -> String {
        match self {
            Self::NotHeld => "in the store, held by no gateway".to_owned(),
            Self::NotInStore => "held by its gateway, not in the store".to_owned(),
            Self::EntryWithoutRecord(index) => format!("in {}, without a record", index.name()),
            Self::RecordWithoutEntry(index) => format!("recorded, not in {}", index.name()),
        }
    }
}

/// One difference. It is equal in all passes that find it for the same claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Drift {
    pub(super) kind: DriftKind,
    pub(super) nick: NickKey,
    /// Set for a membership.
    pub(super) room: Option<RoomKey>,
    /// The owning gateway, if there is one.
    pub(super) gateway: Option<Incarnation>,
    /// The claim in the record, or the claim of the gateway.
    pub(super) claim: Option<String>,
}

impl Drift {
    fn of_claim(kind: DriftKind, nick: &NickKey, room: Option<&RoomKey>, claim: &str) -> Self {
        let gateway = Some(incarnation(claim));
        Self { kind, nick: nick.clone(), room: room.cloned(), gateway, claim: Some(claim.to_owned()) }
    }

    fn of_entry(index: Index, nick: &NickKey, room: Option<&RoomKey>, gateway: Option<&Incarnation>) -> Self {
        let kind = DriftKind::EntryWithoutRecord(index);
        Self { kind, nick: nick.clone(), room: room.cloned(), gateway: gateway.cloned(), claim: None }
    }
}

/// Returns the differences. `held` has the serving gateways that answered; other leases in the table are left to the
/// failure detector and the reaper.
pub(super) fn compare(stored: &Inventory, held: &BTreeMap<Incarnation, Vec<HeldSession>>) -> BTreeSet<Drift> {
    let mut found = BTreeSet::new();
    // Records of an incarnation without a lease are drift too: no reaper removes them.
    let is_compared = |of: &Incarnation| held.contains_key(of) || !stored.leases.contains_key(of);
    let claims: BTreeSet<_> = held.values().flatten().map(|held| (&held.nick, &held.owner)).collect();
    let memberships: BTreeSet<_> = held.values().flatten().flat_map(memberships).collect();

    for (nick, claim) in &stored.nicks {
        let of = incarnation(claim);
        let mut differ = |kind| found.insert(Drift::of_claim(kind, nick, None, claim));
        if is_compared(&of) && !claims.contains(&(nick, claim)) {
            differ(DriftKind::NotHeld);
        }
        if held.contains_key(&of) && !stored.online.contains(nick) {
            differ(DriftKind::RecordWithoutEntry(Index::Online));
        }
        if held.contains_key(&of) && !stored.owned_nicks.contains(&(of.clone(), nick.clone())) {
            differ(DriftKind::RecordWithoutEntry(Index::OwnedNicks));
        }
    }
    for (membership, claim) in &stored.members {
        let (of, (room, nick)) = (incarnation(claim), membership);
        let mut differ = |kind| found.insert(Drift::of_claim(kind, nick, Some(room), claim));
        if is_compared(&of) && !memberships.contains(&(room, nick, claim)) {
            differ(DriftKind::NotHeld);
        }
        if held.contains_key(&of) && !stored.member_lists.contains(membership) {
            differ(DriftKind::RecordWithoutEntry(Index::MemberList));
        }
        if held.contains_key(&of) && !stored.owned_members.contains(&(of.clone(), membership.clone())) {
            differ(DriftKind::RecordWithoutEntry(Index::OwnedMembers));
        }
    }

    for HeldSession { nick, owner, rooms } in held.values().flatten() {
        if stored.nicks.get(nick) != Some(owner) {
            found.insert(Drift::of_claim(DriftKind::NotInStore, nick, None, owner));
        }
        for room in rooms {
            if stored.members.get(&(room.clone(), nick.clone())) != Some(owner) {
                found.insert(Drift::of_claim(DriftKind::NotInStore, nick, Some(room), owner));
            }
        }
    }

    let is_of = |claim: Option<&String>, of: &Incarnation| claim.is_some_and(|claim| incarnation(claim) == *of);
    let entries = stored.online.iter().filter(|nick| !stored.nicks.contains_key(*nick));
    found.extend(entries.map(|nick| Drift::of_entry(Index::Online, nick, None, None)));
    let entries = stored.member_lists.iter().filter(|membership| !stored.members.contains_key(*membership));
    found.extend(entries.map(|(room, nick)| Drift::of_entry(Index::MemberList, nick, Some(room), None)));
    for (of, nick) in stored.owned_nicks.iter().filter(|(of, nick)| !is_of(stored.nicks.get(nick), of)) {
        if held.contains_key(of) {
            found.insert(Drift::of_entry(Index::OwnedNicks, nick, None, Some(of)));
        }
    }
    for (of, membership) in
        stored.owned_members.iter().filter(|(of, membership)| !is_of(stored.members.get(membership), of))
    {
        let (room, nick) = membership;
        if held.contains_key(of) {
            found.insert(Drift::of_entry(Index::OwnedMembers, nick, Some(room), Some(of)));
        }
    }
    found
}

fn memberships(held: &HeldSession) -> impl Iterator<Item = (&RoomKey, &NickKey, &String)> {
    held.rooms.iter().map(|room| (room, &held.nick, &held.owner))
}

/// Returns the incarnation in a claim: its first part.
fn incarnation(claim: &str) -> Incarnation {
    Incarnation::from_store(claim.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use presence::registry::LeaseState;

    use super::*;

    /// Returns a store and a gateway that agree: ann is on g1, in #lobby.
    fn agreed() -> (Inventory, BTreeMap<Incarnation, Vec<HeldSession>>) {
        let (g1, ann, lobby) = (of("g1"), NickKey::from_store("ann"), RoomKey::from_store("lobby"));
        let (claim, membership) = ("g1/s/1".to_owned(), (lobby.clone(), ann.clone()));
        let stored = Inventory {
            leases: [(g1.clone(), LeaseState::Live), (of("g0"), LeaseState::Drained)].into(),
            nicks: [(ann.clone(), claim.clone())].into(),
            online: [ann.clone()].into(),
            owned_nicks: [(g1.clone(), ann.clone())].into(),
            members: [(membership.clone(), claim.clone())].into(),
            member_lists: [membership.clone()].into(),
            owned_members: [(g1.clone(), membership)].into(),
            ..Inventory::default()
        };
        (stored, [(g1, vec![HeldSession { nick: ann, owner: claim, rooms: vec![lobby] }])].into())
    }

    fn of(incarnation: &str) -> Incarnation {
        Incarnation::from_store(incarnation)
    }

    fn kinds(stored: &Inventory, held: &BTreeMap<Incarnation, Vec<HeldSession>>) -> Vec<(DriftKind, bool)> {
        compare(stored, held).into_iter().map(|drift| (drift.kind, drift.room.is_some())).collect()
    }

    #[test]
    fn equal_inventories_have_no_drift() {
        let (stored, held) = agreed();
        assert_eq!(kinds(&stored, &held), []);
    }

    #[test]
    fn one_sided_claim_is_drift() {
        use DriftKind::{EntryWithoutRecord, NotHeld, NotInStore, RecordWithoutEntry};
        use Index::{MemberList, Online, OwnedMembers, OwnedNicks};
        type CauseDrift = fn(&mut Inventory, &mut BTreeMap<Incarnation, Vec<HeldSession>>);
        let cases: [(CauseDrift, &[(DriftKind, bool)]); 8] = [
            (|_, held| held.values_mut().for_each(Vec::clear), &[(NotHeld, false), (NotHeld, true)]),
            (|_, held| held.values_mut().for_each(|all| all[0].rooms.clear()), &[(NotHeld, true)]),
            (|stored, _| stored.online.clear(), &[(RecordWithoutEntry(Online), false)]),
            (|stored, _| stored.owned_nicks.clear(), &[(RecordWithoutEntry(OwnedNicks), false)]),
            (|stored, _| stored.member_lists.clear(), &[(RecordWithoutEntry(MemberList), true)]),
            (|stored, _| stored.owned_members.clear(), &[(RecordWithoutEntry(OwnedMembers), true)]),
            (
                |stored, _| stored.nicks.clear(),
                &[(NotInStore, false), (EntryWithoutRecord(Online), false), (EntryWithoutRecord(OwnedNicks), false)],
            ),
            (
                |stored, _| stored.members.clear(),
                &[(NotInStore, true), (EntryWithoutRecord(MemberList), true), (EntryWithoutRecord(OwnedMembers), true)],
            ),
        ];
        for (number, (cause_drift, expected)) in cases.into_iter().enumerate() {
            let (mut stored, mut held) = agreed();
            cause_drift(&mut stored, &mut held);
            assert_eq!(kinds(&stored, &held), expected, "case {number}");
        }
    }

    #[test]
    fn another_claim_of_the_same_session_is_drift() {
        let (mut stored, held) = agreed();
        stored.nicks.values_mut().for_each(|claim| *claim = "g1/s/2".to_owned());
        let found = compare(&stored, &held);
        let claims: Vec<_> = found.iter().map(|drift| (drift.kind, drift.claim.as_deref())).collect();
        assert_eq!(claims, [(DriftKind::NotHeld, Some("g1/s/2")), (DriftKind::NotInStore, Some("g1/s/1"))]);
    }

    #[test]
    fn claims_of_ended_gateway_drift_without_lease() {
        let (mut stored, held) = agreed();
        let bob = NickKey::from_store("bob");
        stored.nicks.insert(bob.clone(), "g0/s/9".to_owned());
        stored.online.insert(bob.clone());
        stored.owned_nicks.insert((of("g0"), bob));
        assert_eq!(kinds(&stored, &held), [], "the hold of a drained lease");
        stored.leases.remove(&of("g0"));
        assert_eq!(kinds(&stored, &held), [(DriftKind::NotHeld, false)], "no lease, no reaper");
    }
}
