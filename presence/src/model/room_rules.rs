//! [`RoomRules`]: the rules of a room about its creation, its members, its messages and its history.
//!
//! The configuration of gateways has them by pattern ([`super::RoomPolicies`]), and the API writes them for one room.
//! Both use the JSON form of this type, which the scripts read too (`registry/rooms/rules.lua`). Invariant: every
//! number is within its bounds, and an unknown field is an error. Decides nothing; the scripts and their twins do.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Retention;

/// Maximum number of messages that an ephemeral room keeps for clients that reconnect.
pub const EPHEMERAL_MESSAGES: usize = 100;
/// Maximum time that an ephemeral room keeps messages.
pub const EPHEMERAL_AGE: Duration = Duration::from_secs(3600);

/// The clients that may create a room by joining it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoomCreation {
    /// All clients.
    #[default]
    Anyone,
    /// Users with a token.
    Token,
    /// None: the API creates the room.
    Api,
}

/// The members that may send messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendRight {
    /// All members.
    #[default]
    Members,
    /// Moderators and owners.
    Moderators,
}

/// The rules of a room. The default is an open room with the bounds of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoomRules {
    /// The clients that may create the room. A room that exists may always be joined.
    #[serde(skip_serializing_if = "is_default")]
    pub create: RoomCreation,
    /// Maximum number of messages kept; `None` is the bound of the cluster.
    #[serde(deserialize_with = "history_messages", skip_serializing_if = "is_default")]
    pub history_messages: Option<u64>,
    /// Maximum age of messages kept, in hours; `None` is the bound of the cluster.
    #[serde(deserialize_with = "history_hours", skip_serializing_if = "is_default")]
    pub history_hours: Option<u64>,
    /// True if messages are kept only for clients that reconnect. Replaces the bounds of the history.
    #[serde(skip_serializing_if = "is_default")]
    pub ephemeral: bool,
    /// Maximum number of members.
    #[serde(deserialize_with = "members_max", skip_serializing_if = "is_default")]
    pub members_max: Option<u64>,
    /// True if only invited users, moderators and owners may join.
    #[serde(skip_serializing_if = "is_default")]
    pub invite_only: bool,
    /// True if the member that creates the room becomes its owner.
    #[serde(skip_serializing_if = "is_default")]
    pub roles: bool,
    /// The members that may send messages.
    #[serde(skip_serializing_if = "is_default")]
    pub send: SendRight,
    /// Minimum number of seconds between two messages of a member. Moderators and owners are exempt.
    #[serde(deserialize_with = "slow_mode_seconds", skip_serializing_if = "is_default")]
    pub slow_mode_seconds: Option<u64>,
}

impl RoomRules {
    /// Parses the JSON form.
    ///
    /// # Errors
    /// The text is malformed, a field is unknown, or a value is out of its bounds.
    pub fn from_json(text: &str) -> Result<Self, RoomRulesError> {
        // Without this step an array would be read as the fields in their order.
        let fields: Map<String, Value> = serde_json::from_str(text)?;
        Ok(serde_json::from_value(Value::Object(fields))?)
    }

    /// Returns the JSON form, without the fields that have their default.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("rules are always JSON")
    }

    /// Returns true if a rule concerns messages: a publish then has to read the rules.
    #[must_use]
    pub fn concern_messages(&self) -> bool {
        let Self { history_messages, history_hours, ephemeral, send, slow_mode_seconds, .. } = self;
        let has_bounds = history_messages.is_some() || history_hours.is_some() || *ephemeral;
        has_bounds || *send != SendRight::default() || slow_mode_seconds.is_some()
    }

    /// Returns the bounds of the room's history, given those of the cluster. The twin is `history_bounds` in
    /// `registry/rooms/rules.lua`.
    #[must_use]
    pub fn history(&self, cluster: Retention) -> Retention {
        if self.ephemeral {
            return Retention { messages: EPHEMERAL_MESSAGES, age: EPHEMERAL_AGE, ..cluster };
        }
        Retention {
            messages: self.history_messages.map_or(cluster.messages, |messages| messages as usize),
            age: self.history_hours.map_or(cluster.age, |hours| Duration::from_secs(hours * 3600)),
            ..cluster
        }
    }
}

/// Error in the JSON form of rules.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RoomRulesError(#[from] serde_json::Error);

/// Returns true for the value of a field that was not set.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A whole number within bounds, or an error that names the field.
fn bounded<'de, D: Deserializer<'de>>(
    from: D,
    field: &str,
    bounds: RangeInclusive<u64>,
) -> Result<Option<u64>, D::Error> {
    let refused = |given: &dyn fmt::Display| {
        let (least, most) = (bounds.start(), bounds.end());
        serde::de::Error::custom(format_args!("{field} = {given}: expected a whole number from {least} to {most}"))
    };
    let given = Value::deserialize(from)?;
    given.as_u64().filter(|number| bounds.contains(number)).map(Some).ok_or_else(|| refused(&given))
}

fn history_messages<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, "history_messages", 1..=1_000_000)
}

fn history_hours<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, "history_hours", 1..=8760)
}

fn members_max<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, "members_max", 1..=1_000_000)
}

fn slow_mode_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, "slow_mode_seconds", 1..=86_400)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn absent_fields_are_those_of_open_rooms() {
        assert_eq!(RoomRules::from_json("{}").unwrap(), RoomRules::default());
        assert_eq!(RoomRules::default().to_json(), "{}");
    }

    #[test]
    fn every_rule_survives_its_json_form() {
        let text = concat!(
            r#"{"create":"token","history_messages":50,"history_hours":2,"ephemeral":true,"members_max":10,"#,
            r#""invite_only":true,"roles":true,"send":"moderators","slow_mode_seconds":30}"#
        );
        assert_eq!(RoomRules::from_json(text).unwrap().to_json(), text);
    }

    #[test]
    fn bad_rules_are_refused_with_their_field() {
        for (text, reason) in [
            (r#"{"membersmax":1}"#, "unknown field `membersmax`"),
            (r#"{"create":"nobody"}"#, "unknown variant `nobody`"),
            (r#"{"send":"all"}"#, "unknown variant `all`"),
            (r#"{"members_max":0}"#, "members_max = 0: expected a whole number from 1 to 1000000"),
            (r#"{"members_max":"9"}"#, "members_max = \"9\": expected"),
            (r#"{"members_max":null}"#, "members_max = null: expected"),
            (r#"{"history_messages":-1}"#, "history_messages = -1: expected"),
            (r#"{"history_hours":8761}"#, "history_hours = 8761: expected"),
            (r#"{"slow_mode_seconds":1.5}"#, "slow_mode_seconds = 1.5: expected"),
            (r#"{"roles":1}"#, "invalid type"),
            ("[]", "expected a map"),
            ("", "EOF"),
        ] {
            let error = RoomRules::from_json(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_some_rules_concern_messages() {
        let concern = |text: &str| RoomRules::from_json(text).unwrap().concern_messages();
        assert!(!concern("{}") && !concern(r#"{"create":"api","members_max":2,"invite_only":true,"roles":true}"#));
        for text in [
            r#"{"send":"moderators"}"#,
            r#"{"slow_mode_seconds":1}"#,
            r#"{"ephemeral":true}"#,
            r#"{"history_hours":1}"#,
            r#"{"history_messages":1}"#,
        ] {
            assert!(concern(text), "{text}");
        }
    }

    #[test]
    fn rules_replace_the_bounds_of_history() {
        let cluster = Retention::default();
        assert_eq!(RoomRules::default().history(cluster), cluster);
        let rules = RoomRules { history_messages: Some(7), ..RoomRules::default() };
        assert_eq!(rules.history(cluster), Retention { messages: 7, ..cluster });
        let rules = RoomRules { history_hours: Some(2), ..RoomRules::default() };
        assert_eq!(rules.history(cluster), Retention { age: Duration::from_secs(7200), ..cluster });
        let rules = RoomRules { ephemeral: true, ..rules };
        assert_eq!(rules.history(cluster), Retention { messages: 100, age: Duration::from_secs(3600), ..cluster });
    }
}
