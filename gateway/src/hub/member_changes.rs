//! The changes of a room's members that wait for the next flush of presence.
//!
//! [`add`] takes one change at a time; the hub flushes each part as one presence event. Invariant: a part has each
//! nickname once, so no part hides a step: a client that loads the list at any moment between the changes, and then
//! receives all parts, has the list after them. Only a new status replaces an earlier one. Pure.

use presence::model::{MemberInfo, PresenceDelta};

/// Adds a later change: to the last part, or as a new part if the last one has its nickname.
pub fn add(parts: &mut Vec<PresenceDelta>, next: PresenceDelta) {
    for left in next.left {
        part_without(parts, &[&left.nick]).left.push(left);
    }
    for rename in next.renamed {
        part_without(parts, &[&rename.from, &rename.to]).renamed.push(rename);
    }
    for member in next.joined {
        part_without(parts, &[&member.nick]).joined.push(member);
    }
    for member in next.status {
        match parts.last_mut().and_then(|part| status_of(part, &member.nick)) {
            Some(earlier) => *earlier = member,
            None => part_without(parts, &[&member.nick]).status.push(member),
        }
    }
}

/// Returns the number of changes in all parts.
#[must_use]
pub fn count(parts: &[PresenceDelta]) -> usize {
    parts.iter().map(|part| part.joined.len() + part.left.len() + part.renamed.len() + part.status.len()).sum()
}

/// Returns the last part, or a new one if the last one has one of these nicknames.
fn part_without<'a>(parts: &'a mut Vec<PresenceDelta>, nicks: &[&str]) -> &'a mut PresenceDelta {
    if parts.last().is_none_or(|part| nicks.iter().any(|nick| has_nick(part, nick))) {
        parts.push(PresenceDelta::default());
    }
    parts.last_mut().expect("a part was pushed if there was none")
}

fn has_nick(part: &PresenceDelta, nick: &str) -> bool {
    part.joined.iter().chain(&part.status).any(|member| member.nick == nick)
        || part.left.iter().any(|left| left.nick == nick)
        || part.renamed.iter().any(|rename| rename.from == nick || rename.to == nick)
}

fn status_of<'a>(part: &'a mut PresenceDelta, nick: &str) -> Option<&'a mut MemberInfo> {
    part.joined.iter_mut().chain(&mut part.status).find(|member| member.nick == nick)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use presence::model::{Availability, LeftReason, MemberLeft, Rename, Status};
    use proptest::prelude::*;

    use super::*;

    /// Applies a change to a list of members, in the documented order.
    fn apply(list: &mut BTreeMap<String, Status>, delta: &PresenceDelta) {
        for left in &delta.left {
            assert!(list.remove(&left.nick).is_some(), "{} left without being a member", left.nick);
        }
        let renamed: Vec<_> =
            delta.renamed.iter().map(|rename| (rename.to.clone(), list.remove(&rename.from))).collect();
        for (to, status) in renamed {
            let status = status.expect("a renamed nick is a member");
            assert!(list.insert(to.clone(), status).is_none(), "{to} is not a member before the rename");
        }
        for member in &delta.joined {
            assert!(list.insert(member.nick.clone(), member.status.clone()).is_none(), "{} joined twice", member.nick);
        }
        for member in &delta.status {
            assert!(
                list.insert(member.nick.clone(), member.status.clone()).is_some(),
                "{} changed status without being a member",
                member.nick
            );
        }
    }

    /// Makes a change that is valid for this list of members.
    fn change(list: &BTreeMap<String, Status>, kind: u8, nick: &str, other: &str) -> PresenceDelta {
        let (nick, other) = (nick.to_owned(), other.to_owned());
        let mut delta = PresenceDelta::default();
        match kind {
            _ if !list.contains_key(&nick) => {
                delta.joined.push(MemberInfo { nick, user: None, status: Status::default() });
            }
            0 => delta.left.push(MemberLeft { nick, reason: LeftReason::Left }),
            1 => delta.renamed.push(Rename { from: nick, to: other }),
            _ => {
                let status = Status { status: Availability::Away, text: other };
                delta.status.push(MemberInfo { nick, user: None, status });
            }
        }
        delta
    }

    /// Applies a part as a client does whose list may hold the change already: then what it has is newer.
    fn apply_late(list: &mut BTreeMap<String, Status>, part: &PresenceDelta) {
        for left in &part.left {
            list.remove(&left.nick);
        }
        for rename in &part.renamed {
            if let Some(status) = list.remove(&rename.from) {
                list.entry(rename.to.clone()).or_insert(status);
            }
        }
        for member in part.joined.iter().chain(&part.status) {
            list.insert(member.nick.clone(), member.status.clone());
        }
    }

    proptest! {
        /// The parts lead to the same list as the changes, also for a client that loaded its list between two of them.
        /// A new nickname was not in use before: a nickname that changes hands needs a new list.
        #[test]
        fn parts_lead_from_every_moment_to_the_end(
            changes in prop::collection::vec((0_u8..3, 0_usize..4, 4_usize..40), 0..40),
            split in 0_usize..40,
        ) {
            let (mut members, mut parts) = (BTreeMap::new(), Vec::new());
            let mut moments = Vec::new();
            let mut names = 4;
            for (index, (kind, a, _)) in changes.into_iter().enumerate() {
                let nicks: Vec<String> = members.keys().cloned().collect();
                let nick = nicks.get(a).cloned().unwrap_or_else(|| format!("n{a}"));
                names += 1;
                let delta = change(&members, kind, &nick, &format!("n{names}"));
                if index >= split {
                    moments.push(members.clone());
                    add(&mut parts, delta.clone());
                }
                apply(&mut members, &delta);
            }
            if let Some(mut strict) = moments.first().cloned() {
                parts.iter().for_each(|part| apply(&mut strict, part));
                prop_assert_eq!(&strict, &members);
            }
            for mut list in moments {
                parts.iter().for_each(|part| apply_late(&mut list, part));
                prop_assert_eq!(&list, &members);
            }
        }
    }

    fn joined(nick: &str) -> PresenceDelta {
        let member = MemberInfo { nick: nick.into(), user: None, status: Status::default() };
        PresenceDelta { joined: vec![member], ..Default::default() }
    }

    #[test]
    fn change_of_known_nick_begins_a_part() {
        let mut parts = Vec::new();
        let renamed =
            PresenceDelta { renamed: vec![Rename { from: "ann".into(), to: "anna".into() }], ..Default::default() };
        for change in [joined("bob"), joined("ann"), renamed.clone(), joined("eve")] {
            add(&mut parts, change);
        }
        let together = |one: PresenceDelta, two: PresenceDelta| PresenceDelta {
            joined: [one.joined, two.joined].concat(),
            renamed: [one.renamed, two.renamed].concat(),
            ..Default::default()
        };
        assert_eq!(parts, [together(joined("bob"), joined("ann")), together(renamed, joined("eve"))]);
        assert_eq!(count(&parts), 4);
    }
}
