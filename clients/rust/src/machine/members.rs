//! Loading the members of a room, page by page. Changes that arrive meanwhile are applied to the loaded list again:
//! the pages may have been read before or after them.

use std::collections::BTreeMap;

use crate::events::{Member, MembersChange};

/// Members by nickname.
pub(crate) type MemberMap = BTreeMap<String, Member>;

/// Applies a change in the order of the protocol: left, renamed, joined, status.
pub(crate) fn apply_change(members: &mut MemberMap, change: &MembersChange) {
    for (nick, _) in &change.left {
        members.remove(nick);
    }
    for (from, to) in &change.renamed {
        let (former, known) = (members.remove(from), members.remove(to));
        let (user, status, text) =
            known.or(former).map(|member| (member.user, member.status, member.text)).unwrap_or_default();
        members.insert(to.clone(), Member { nick: to.clone(), user, status, text });
    }
    for member in &change.joined {
        members.insert(member.nick.clone(), member.clone());
    }
    for member in &change.status {
        let known = members.remove(&member.nick).and_then(|known| known.user);
        let user = member.user.clone().or(known);
        members.insert(member.nick.clone(), Member { user, ..member.clone() });
    }
}

/// A list that is being loaded.
#[derive(Debug, Default)]
pub(super) struct MembersLoad {
    loaded: MemberMap,
    meanwhile: Vec<MembersChange>,
}

impl MembersLoad {
    pub(super) fn add_page(&mut self, items: Vec<Member>) {
        self.loaded.extend(items.into_iter().map(|member| (member.nick.clone(), member)));
    }

    pub(super) fn note(&mut self, change: MembersChange) {
        self.meanwhile.push(change);
    }

    /// Returns the members after the last page.
    pub(super) fn finish(mut self) -> MemberMap {
        for change in &self.meanwhile {
            apply_change(&mut self.loaded, change);
        }
        self.loaded
    }
}
