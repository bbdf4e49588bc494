//! What an audience knows of each session that hears its log. Most logs are inboxes, which one session hears, and that one
//! costs no allocation; the many of a room are in a table.
//!
//! Only the audience holds it, under the hub's lock. In no order.

use std::collections::HashMap;

use presence::model::SessionId;

#[derive(Debug)]
pub(super) enum Members<T> {
    One(Option<(SessionId, T)>),
    Many(HashMap<SessionId, T>),
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self::One(None)
    }
}

impl<T> Members<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    pub(super) fn get(&self, session: &SessionId) -> Option<&T> {
        match self {
            Self::One(one) => one.as_ref().filter(|(known, _)| known == session).map(|(_, value)| value),
            Self::Many(many) => many.get(session),
        }
    }

    /// Puts the value in the place of the one that the session had.
    pub(super) fn insert(&mut self, session: &SessionId, value: T) {
        let newcomer = (session.clone(), value);
        match self {
            Self::One(one) => match one.take_if(|(known, _)| known != session) {
                None => *one = Some(newcomer),
                Some(other) => *self = Self::Many(HashMap::from([other, newcomer])),
            },
            Self::Many(many) => _ = many.insert(newcomer.0, newcomer.1),
        }
    }

    pub(super) fn remove(&mut self, session: &SessionId) -> Option<T> {
        match self {
            Self::One(one) => one.take_if(|(known, _)| known == session).map(|(_, value)| value),
            Self::Many(many) => many.remove(session),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionId, &T)> {
        let (one, many) = match self {
            Self::One(one) => (one.as_ref(), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().map(|(session, value)| (session, value)).chain(many.into_iter().flatten())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (one, many) = match self {
            Self::One(one) => (one.as_mut(), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().map(|(_, value)| value).chain(many.into_iter().flat_map(HashMap::values_mut))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(life in prop::collection::vec((any::<bool>(), 0..4_u8, any::<u8>()), 0..40)) {
            let (mut members, mut map) = (Members::default(), BTreeMap::new());
            for (comes, session, value) in life {
                let session = SessionId::from_store(&session.to_string());
                match comes {
                    true => {
                        members.insert(&session, value);
                        map.insert(session.clone(), value);
                    }
                    false => prop_assert_eq!(members.remove(&session), map.remove(&session)),
                }
                prop_assert_eq!(members.get(&session), map.get(&session));
                prop_assert_eq!(members.is_empty(), map.is_empty());
                prop_assert_eq!(members.iter().collect::<BTreeMap<_, _>>(), map.iter().collect::<BTreeMap<_, _>>());
                members.values_mut().for_each(|value| *value ^= 1);
                map.values_mut().for_each(|value| *value ^= 1);
            }
        }
    }
}
