//! The sum of several changes of a room's members.
//!
//! [`add`] takes one change at a time; the hub flushes the sum as one presence event. Invariant: applied in the order
//! left, renamed, joined, status, the sum turns a list of members before the changes into the list after them. A member
//! that joined and left within one sum is not in it. Pure.

use presence::model::{MemberInfo, MemberLeft, PresenceDelta, Rename};

/// Adds a later change.
pub fn add(sum: &mut PresenceDelta, next: PresenceDelta) {
    for member in next.left {
        add_left(sum, member);
    }
    for rename in next.renamed {
        add_renamed(sum, rename);
    }
    for member in next.joined {
        add_joined(sum, member);
    }
    for member in next.status {
        add_status(sum, member);
    }
}

/// Returns the number of changes in the sum.
#[must_use]
pub fn count(sum: &PresenceDelta) -> usize {
    sum.joined.len() + sum.left.len() + sum.renamed.len() + sum.status.len()
}

fn add_left(sum: &mut PresenceDelta, mut left: MemberLeft) {
    sum.status.retain(|member| member.nick != left.nick);
    if remove_first(&mut sum.joined, |member| member.nick == left.nick).is_some() {
        return;
    }
    if let Some(rename) = remove_first(&mut sum.renamed, |rename| rename.to == left.nick) {
        left.nick = rename.from;
    }
    sum.left.push(left);
}

fn add_joined(sum: &mut PresenceDelta, member: MemberInfo) {
    if remove_first(&mut sum.left, |left| left.nick == member.nick).is_some() {
        sum.status.push(member);
    } else {
        sum.joined.push(member);
    }
}

fn add_renamed(sum: &mut PresenceDelta, mut rename: Rename) {
    for member in sum.status.iter_mut().chain(&mut sum.joined).filter(|member| member.nick == rename.from) {
        member.nick.clone_from(&rename.to);
    }
    if sum.joined.iter().any(|member| member.nick == rename.to) {
        return;
    }
    if let Some(earlier) = remove_first(&mut sum.renamed, |earlier| earlier.to == rename.from) {
        rename.from = earlier.from;
    }
    if rename.from != rename.to {
        sum.renamed.push(rename);
    }
}

fn add_status(sum: &mut PresenceDelta, member: MemberInfo) {
    match sum.joined.iter_mut().chain(&mut sum.status).find(|known| known.nick == member.nick) {
        Some(known) => *known = member,
        None => sum.status.push(member),
    }
}

fn remove_first<T>(list: &mut Vec<T>, matches: impl Fn(&T) -> bool) -> Option<T> {
    let index = list.iter().position(matches)?;
    Some(list.remove(index))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use presence::model::{Availability, LeftReason, Status};
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
    fn change(list: &BTreeMap<String, Status>, kind: u8, a: usize, b: usize) -> PresenceDelta {
        let nick = format!("n{a}");
        let other = format!("n{b}");
        let mut delta = PresenceDelta::default();
        match kind {
            _ if !list.contains_key(&nick) => {
                delta.joined.push(MemberInfo { nick, user: None, status: Status::default() });
            }
            0 => delta.left.push(MemberLeft { nick, reason: LeftReason::Left }),
            1 if !list.contains_key(&other) => delta.renamed.push(Rename { from: nick, to: other }),
            _ => {
                let status = Status { status: Availability::Away, text: format!("{b}") };
                delta.status.push(MemberInfo { nick, user: None, status });
            }
        }
        delta
    }

    proptest! {
        /// The sum of any changes leads to the same list as the changes one by one.
        #[test]
        fn sum_equals_its_changes_one_by_one(
            changes in prop::collection::vec((0_u8..3, 0_usize..4, 0_usize..4), 0..40),
            split in 0_usize..40,
        ) {
            let mut members = BTreeMap::new();
            let mut members_before = None;
            let mut sum = PresenceDelta::default();
            for (index, (kind, a, b)) in changes.into_iter().enumerate() {
                let delta = change(&members, kind, a, b);
                if index == split {
                    members_before = Some(members.clone());
                }
                apply(&mut members, &delta);
                if members_before.is_some() {
                    add(&mut sum, delta);
                }
            }
            if let Some(mut shown) = members_before {
                apply(&mut shown, &sum);
                prop_assert_eq!(shown, members);
            }
        }
    }

    #[test]
    fn sum_omits_member_that_joins_and_leaves() {
        let mut sum = PresenceDelta::default();
        add(
            &mut sum,
            PresenceDelta {
                joined: vec![MemberInfo { nick: "bob".into(), user: None, status: Status::default() }],
                ..Default::default()
            },
        );
        add(
            &mut sum,
            PresenceDelta {
                left: vec![MemberLeft { nick: "bob".into(), reason: LeftReason::Left }],
                ..Default::default()
            },
        );
        assert_eq!(count(&sum), 0);
    }
}
