//! Several changes of a room's members as one. Pure; the hub calls it for every change and shows the sum once per round.
//!
//! Read in the order left, renamed, joined, status, a sum takes a listener from the list before to the list after.
//! Who came and went within one round is not in it, nor who went and came back.

use presence::model::{MemberInfo, MemberLeft, PresenceDelta, Rename};

/// Adds a later change to the sum so far.
pub fn add(sum: &mut PresenceDelta, next: PresenceDelta) {
    for departure in next.left {
        leave(sum, departure);
    }
    for rename in next.renamed {
        change_name(sum, rename);
    }
    for member in next.joined {
        join(sum, member);
    }
    for member in next.status {
        change_status(sum, member);
    }
}

/// How many changes there are to show.
#[must_use]
pub fn count(sum: &PresenceDelta) -> usize {
    sum.joined.len() + sum.left.len() + sum.renamed.len() + sum.status.len()
}

fn leave(sum: &mut PresenceDelta, mut departure: MemberLeft) {
    sum.status.retain(|member| member.nick != departure.nick);
    if take(&mut sum.joined, |member| member.nick == departure.nick).is_some() {
        return;
    }
    if let Some(rename) = take(&mut sum.renamed, |rename| rename.to == departure.nick) {
        departure.nick = rename.from;
    }
    sum.left.push(departure);
}

fn join(sum: &mut PresenceDelta, member: MemberInfo) {
    if take(&mut sum.left, |departure| departure.nick == member.nick).is_some() {
        sum.status.push(member);
    } else {
        sum.joined.push(member);
    }
}

fn change_name(sum: &mut PresenceDelta, mut rename: Rename) {
    for member in sum.status.iter_mut().chain(&mut sum.joined).filter(|member| member.nick == rename.from) {
        member.nick.clone_from(&rename.to);
    }
    if sum.joined.iter().any(|member| member.nick == rename.to) {
        return;
    }
    if let Some(earlier) = take(&mut sum.renamed, |earlier| earlier.to == rename.from) {
        rename.from = earlier.from;
    }
    if rename.from != rename.to {
        sum.renamed.push(rename);
    }
}

fn change_status(sum: &mut PresenceDelta, member: MemberInfo) {
    match sum.joined.iter_mut().chain(&mut sum.status).find(|known| known.nick == member.nick) {
        Some(known) => *known = member,
        None => sum.status.push(member),
    }
}

fn take<T>(list: &mut Vec<T>, found: impl Fn(&T) -> bool) -> Option<T> {
    let position = list.iter().position(found)?;
    Some(list.remove(position))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use presence::model::{Availability, LeftReason, Status};
    use proptest::prelude::*;

    use super::*;

    /// What a listener's list of members becomes by a change, read in the documented order.
    fn apply(list: &mut BTreeMap<String, Status>, delta: &PresenceDelta) {
        for departure in &delta.left {
            assert!(list.remove(&departure.nick).is_some(), "{} left but was not there", departure.nick);
        }
        let renamed: Vec<_> =
            delta.renamed.iter().map(|rename| (rename.to.clone(), list.remove(&rename.from))).collect();
        for (to, status) in renamed {
            let status = status.expect("renamed but was not there");
            assert!(list.insert(to, status).is_none(), "renamed to somebody who is there");
        }
        for member in &delta.joined {
            assert!(list.insert(member.nick.clone(), member.status.clone()).is_none(), "{} twice", member.nick);
        }
        for member in &delta.status {
            assert!(list.insert(member.nick.clone(), member.status.clone()).is_some(), "{} unknown", member.nick);
        }
    }

    /// One true change to a list of members: `kind` and two nicks, made valid against the list.
    fn change(list: &BTreeMap<String, Status>, kind: u8, a: usize, b: usize) -> PresenceDelta {
        let nick = format!("n{a}");
        let other = format!("n{b}");
        let mut delta = PresenceDelta::default();
        match kind {
            _ if !list.contains_key(&nick) => {
                delta.joined.push(MemberInfo { nick, status: Status::default() });
            }
            0 => delta.left.push(MemberLeft { nick, reason: LeftReason::Left }),
            1 if !list.contains_key(&other) => delta.renamed.push(Rename { from: nick, to: other }),
            _ => {
                let status = Status { status: Availability::Away, text: format!("{b}") };
                delta.status.push(MemberInfo { nick, status });
            }
        }
        delta
    }

    proptest! {
        /// Whatever happens in a round, its sum brings a listener to the same list as every change by itself.
        #[test]
        fn a_sum_is_worth_its_parts(changes in prop::collection::vec((0_u8..3, 0_usize..4, 0_usize..4), 0..40), split in 0_usize..40) {
            let mut truth = BTreeMap::new();
            let mut before = None;
            let mut sum = PresenceDelta::default();
            for (index, (kind, a, b)) in changes.into_iter().enumerate() {
                let delta = change(&truth, kind, a, b);
                if index == split {
                    before = Some(truth.clone());
                }
                apply(&mut truth, &delta);
                if before.is_some() {
                    add(&mut sum, delta);
                }
            }
            if let Some(mut shown) = before {
                apply(&mut shown, &sum);
                prop_assert_eq!(shown, truth);
            }
        }
    }

    #[test]
    fn a_short_visit_is_not_shown() {
        let mut sum = PresenceDelta::default();
        add(
            &mut sum,
            PresenceDelta {
                joined: vec![MemberInfo { nick: "bob".into(), status: Status::default() }],
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
