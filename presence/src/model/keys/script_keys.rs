//! [`ScriptKeys`]: the keys that one call of a script passes, all of one unit of atomicity unless it says otherwise.

use super::{KeyBuilder, OwnKey, PartitionUnit, Unit, UnitKey};

/// The KEYS of one script call on the unit of builder `B`, in the order of the script's header.
///
/// The unit's own keys are named by functions of its builder, so they belong to one room, nick, session or node:
///
/// ```
/// use presence::model::keys::{Keys, NickKeys, RoomKeys, ScriptKeys};
/// # use presence::model::{NickKey, RoomKey};
/// let (keys, lobby, ann) = (Keys::new("parley"), RoomKey::from_store("lobby"), NickKey::from_store("ann"));
/// ScriptKeys::of(keys.room(&lobby)).own([RoomKeys::meta, RoomKeys::members]);
/// ScriptKeys::of(keys.room(&lobby)).own([RoomKeys::meta]).crossing([keys.nick(&ann).record()]);
/// ```
///
/// A key of another unit, or of a second room, is no key of its own:
///
/// ```compile_fail
/// use presence::model::keys::{Keys, NickKeys, RoomKeys, ScriptKeys};
/// # use presence::model::{NickKey, RoomKey};
/// let (keys, lobby, ann) = (Keys::new("parley"), RoomKey::from_store("lobby"), NickKey::from_store("ann"));
/// ScriptKeys::of(keys.room(&lobby)).own([NickKeys::record]);
/// ```
///
/// ```compile_fail
/// use presence::model::keys::{Keys, NickKeys, RoomKeys, ScriptKeys};
/// # use presence::model::{NickKey, RoomKey};
/// let (keys, lobby, hall) = (Keys::new("parley"), RoomKey::from_store("lobby"), RoomKey::from_store("hall"));
/// ScriptKeys::of(keys.room(&lobby)).own([keys.room(&hall).meta()]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptKeys<B: KeyBuilder> {
    builder: B,
    names: Vec<String>,
    in_script: Vec<&'static str>,
}

/// The keys of a call, for a text about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKeys<'a> {
    /// The names that the call passes.
    pub names: &'a [String],
    /// The units and kinds of the keys that its script builds.
    pub in_script: &'a [&'static str],
}

impl<B: KeyBuilder> ScriptKeys<B> {
    /// Begins the keys of a call on this unit, which decides the partition.
    #[must_use]
    pub fn of(builder: B) -> Self {
        Self { builder, names: Vec::new(), in_script: Vec::new() }
    }

    /// Adds keys of the unit.
    #[must_use]
    pub fn own<const N: usize>(self, keys: [OwnKey<B>; N]) -> Self {
        let builder = self.builder;
        self.add(keys.map(|key| key(builder)))
    }

    /// Adds keys that the partition has once.
    #[must_use]
    pub fn partition<const N: usize>(self, keys: [UnitKey<PartitionUnit>; N]) -> Self {
        self.add(keys)
    }

    /// Adds keys of another unit: this script crosses units of atomicity and needs one partition for both.
    #[must_use]
    pub fn crossing<V: Unit, const N: usize>(self, keys: [UnitKey<V>; N]) -> Self {
        self.add(keys)
    }

    /// Records that the script builds keys of other units itself, of type `V`, from names that it reads or gets as
    /// arguments. Like [`ScriptKeys::crossing`], it needs one partition for all of them.
    #[must_use]
    pub fn crossing_in_script<V: Unit>(mut self) -> Self {
        self.in_script.push(V::PLURAL);
        self
    }

    /// Records that the script builds keys of these kinds, which belong to the partition and end with a time.
    #[must_use]
    pub fn buckets_in_script(mut self, kinds: &[&'static str]) -> Self {
        self.in_script.extend(kinds);
        self
    }

    /// The names, in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns all keys of the call, for a text about it.
    #[must_use]
    pub fn described(&self) -> CallKeys<'_> {
        CallKeys { names: &self.names, in_script: &self.in_script }
    }

    fn add<V: Unit, const N: usize>(mut self, keys: [UnitKey<V>; N]) -> Self {
        self.names.extend(keys.map(String::from));
        self
    }
}
