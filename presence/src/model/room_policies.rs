//! [`RoomPolicies`]: the rules of rooms by pattern, as the configuration of gateways has them.
//!
//! Invariant: the first policy whose pattern matches a room has its rules; a room that none matches has none.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{RoomCreation, RoomKey, RoomPattern, RoomRules};

/// Maximum number of policies: each one is compared with the name of a room.
const POLICIES_MAX: usize = 1000;

/// The rules of the rooms that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPolicy {
    /// The pattern as it was written.
    text: Box<str>,
    pattern: RoomPattern,
    rules: RoomRules,
    /// The JSON form of the rules, which scripts get.
    json: Box<str>,
}

impl RoomPolicy {
    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &RoomRules {
        &self.rules
    }

    /// Returns the rules as scripts get them.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Reads a policy: an object with `match` and rules.
    fn read(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else { return Err("expected a table".to_owned()) };
        let text = match fields.remove("match") {
            Some(Value::String(text)) => text,
            Some(other) => return Err(format!("match = {other}: expected the pattern of a room")),
            None => return Err("match is missing".to_owned()),
        };
        let pattern = RoomPattern::parse(&text).map_err(|error| format!("match = {text:?}: {error}"))?;
        let rules: RoomRules = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
        let json = rules.to_json().into();
        Ok(Self { text: text.into(), pattern, rules, json })
    }
}

/// The policies of a configuration, in their order. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomPolicies(Arc<[RoomPolicy]>);

impl RoomPolicies {
    /// Reads a JSON array of policies.
    ///
    /// # Errors
    /// The reason, with the place of the policy.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let policies: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if policies.len() > POLICIES_MAX {
            return Err(format!("expected at most {POLICIES_MAX} tables"));
        }
        let placed = |(place, value)| RoomPolicy::read(value).map_err(|error| format!("table {}: {error}", place + 1));
        Ok(Self(policies.into_iter().enumerate().map(placed).collect::<Result<_, _>>()?))
    }

    /// Returns what has no effect in this order, or given the clients and programs that can create rooms, for people.
    #[must_use]
    pub fn warnings(&self, no_one_creates: impl Fn(RoomCreation) -> Option<&'static str>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (place, RoomPolicy { text, pattern, rules, .. }) in self.0.iter().enumerate() {
            let hides = |earlier: &RoomPolicy| earlier.pattern.is_everything() || earlier.pattern == *pattern;
            if let Some(first) = self.0[..place].iter().position(hides) {
                let (place, first, before) = (place + 1, first + 1, &self.0[first].text);
                warnings.push(format!(
                    "rooms: table {place} ({text}) is never used: table {first} ({before}) has all its rooms"
                ));
            } else if let Some(reason) = no_one_creates(rules.create) {
                let place = place + 1;
                warnings.push(format!("rooms: nobody can create the rooms of table {place} ({text}): {reason}"));
            }
        }
        warnings
    }

    /// Returns the policy of a room: the first one that matches.
    #[must_use]
    pub fn of(&self, room: &RoomKey) -> Option<&RoomPolicy> {
        self.0.iter().find(|policy| policy.pattern.matches(room))
    }

    /// Returns the rules of a room as scripts get them, or nothing.
    #[must_use]
    pub fn json_of(&self, room: &RoomKey) -> &str {
        self.of(room).map_or("", RoomPolicy::json)
    }

    /// Returns the same if a rule concerns messages, else nothing.
    #[must_use]
    pub fn message_json_of(&self, room: &RoomKey) -> &str {
        self.of(room).filter(|policy| policy.rules.concern_messages()).map_or("", RoomPolicy::json)
    }
}

/// Prints the policies as a TOML array.
impl fmt::Display for RoomPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (place, RoomPolicy { text, rules, .. }) in self.0.iter().enumerate() {
            let mut fields = match serde_json::to_value(rules) {
                Ok(Value::Object(fields)) => fields,
                _ => Map::new(),
            };
            fields.insert("match".to_owned(), Value::from(&**text));
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            write!(f, "{}{{ {} }}", if place == 0 { "" } else { ", " }, fields.join(", "))?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::RoomName;

    fn key(room: &str) -> RoomKey {
        RoomName::parse(room).unwrap().key().clone()
    }

    #[test]
    fn first_matching_policy_has_the_rules() {
        let text = r##"[{"match":"#team-a","members_max":2},{"match":"#team-*","roles":true}]"##;
        let policies = RoomPolicies::from_json(text).unwrap();
        assert_eq!(policies.json_of(&key("#Team-A")), r#"{"members_max":2}"#);
        assert_eq!(policies.json_of(&key("#team-b")), r#"{"roles":true}"#);
        assert!(policies.of(&key("#lobby")).is_none());
        assert_eq!(policies.json_of(&key("#lobby")), "");
        let text = r##"[{"match":"#a","members_max":2},{"match":"#b","send":"moderators"}]"##;
        let policies = RoomPolicies::from_json(text).unwrap();
        assert_eq!(policies.message_json_of(&key("#a")), "");
        assert_eq!(policies.message_json_of(&key("#b")), r#"{"send":"moderators"}"#);
    }

    #[test]
    fn policies_without_effect_are_named() {
        let warnings = |json: &str| {
            let reason = |create| (create == RoomCreation::Api).then_some("no key");
            RoomPolicies::from_json(json).unwrap().warnings(reason)
        };
        assert_eq!(warnings(r##"[{"match":"#a*"},{"match":"#ab"},{"match":"#*"}]"##), [] as [&str; 0]);
        assert_eq!(
            warnings(r##"[{"match":"#A-*","create":"api"},{"match":"#a-*"},{"match":"#**"},{"match":"#b"}]"##),
            [
                "rooms: nobody can create the rooms of table 1 (#A-*): no key",
                "rooms: table 2 (#a-*) is never used: table 1 (#A-*) has all its rooms",
                "rooms: table 4 (#b) is never used: table 3 (#**) has all its rooms",
            ]
        );
    }

    #[test]
    fn bad_policies_are_refused_with_their_place() {
        for (text, reason) in [
            (r#"[{"roles":true}]"#, "table 1: match is missing"),
            (r#"[{"match":7}]"#, "table 1: match = 7: expected the pattern of a room"),
            (r##"[{"match":"#*"},{"match":"team"}]"##, "table 2: match = \"team\": "),
            (r##"[{"match":"#*","roles":true,"x":1}]"##, "table 1: unknown field `x`"),
            (r##"[{"match":"#*","members_max":0}]"##, "table 1: members_max = 0: expected"),
            (r#"["x"]"#, "table 1: expected a table"),
            ("{}", "expected a sequence"),
            ("x", "expected value"),
        ] {
            let error = RoomPolicies::from_json(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many = vec![r##"{"match":"#*"}"##; POLICIES_MAX + 1].join(",");
        assert!(RoomPolicies::from_json(&format!("[{many}]")).is_err());
    }

    #[test]
    fn policies_print_as_an_array_of_toml() {
        let text = r##"[{"match":"#a","members_max":2,"create":"api"},{"match":"#ö*"}]"##;
        let policies = RoomPolicies::from_json(text).unwrap();
        assert_eq!(policies.to_string(), r##"[{ create = "api", match = "#a", members_max = 2 }, { match = "#ö*" }]"##);
    }
}
