//! The setting `rooms`, a list of tables.

use super::*;

const TWO_ROOMS: &str = r##"[{"match":"#a","members_max":2},{"match":"#*","roles":true}]"##;

fn two_rooms() -> GatewayConfig {
    changed(|config| config.rooms = RoomPolicies::from_json(TWO_ROOMS).unwrap())
}

#[test]
fn rooms_are_tables_in_toml_or_json() {
    let inline = "node.id = 'g1'\nrooms = [{ match = '#a', members_max = 2 }, { match = '#*', roles = true }]";
    let blocks = "node.id = 'g1'\n[[rooms]]\nmatch = '#a'\nmembers_max = 2\n[[rooms]]\nmatch = '#*'\nroles = true";
    for file in [inline, blocks] {
        assert_eq!(load(Some(file), &[]), Ok(two_rooms()), "{file}");
    }
    assert_eq!(load(Some("node.id = 'g1'\nrooms = []"), &[("PARLEY__ROOMS", TWO_ROOMS)]), Ok(two_rooms()));
    assert_eq!(load(Some("node.id = 'g1'\nrooms = []"), &[]), Ok(changed(|_| {})));
    assert_eq!(load(Some(&two_rooms().to_string()), &[]), Ok(two_rooms()), "the printed form");
}

#[test]
fn bad_rules_are_named_with_their_table() {
    let json = r##""[{\"match\":\"#a\",\"members_max\":0}]""##;
    let expected = "expected a whole number from 1 to 1000000";
    // A text that is not JSON may be a secret.
    let not_tables = "rooms = \"***\": expected tables between the brackets (set in /gateway.toml)";
    let table: [InvalidSettings<'_>; 6] = [
        ("rooms = ['x']", &[], not_tables.into()),
        ("rooms = 'x'", &[], not_tables.into()),
        ("rooms.match = 'x'", &[], "unknown key rooms.match in /gateway.toml: the nearest known one is rooms".into()),
        (
            "rooms = [{ match = '#a', members_max = 0 }]",
            &[],
            format!("rooms = {json}: table 1: members_max = 0: {expected}"),
        ),
        ("", &[("PARLEY__ROOMS", "")], "rooms = \"***\": EOF while parsing a value at line 1 column 0".into()),
        ("", &[("PARLEY__ROOMS", "[{}, 1]")], r##"rooms = "[{},\"***\"]": table 1: match is missing"##.into()),
    ];
    for (file, environment, error) in table {
        assert_eq!(load(Some(file), environment), Err(error), "{file:?} {environment:?}");
    }
}
