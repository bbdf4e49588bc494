//! Replies of a Redis that is not ours, for tests: of any type and depth, and often nearly right.

use proptest::prelude::*;
use redis::Value;

/// Words and numbers of real replies, and some at the limits.
const WORDS: [&str; 12] = [
    "ok",
    "duplicate",
    "searching",
    "exhausted",
    "apart",
    "e",
    "e 99 8",
    "1 s e 99 8",
    "1",
    "-1",
    "",
    "e 1 9223372036854775807",
];

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => "[ -~]{0,8}( -?[0-9]{1,20}){0,4}".prop_map(String::into_bytes),
    ]
}

/// Returns replies of every kind.
pub(super) fn any_reply() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => any_text().prop_map(Value::BulkString),
        2 => prop_oneof![any::<i64>(), -1..3_i64, Just(i64::MAX)].prop_map(Value::Int),
        1 => Just(Value::Nil),
        1 => Just(Value::Okay),
        1 => "[a-z ]{0,8}".prop_map(Value::SimpleString),
        1 => any::<bool>().prop_map(Value::Boolean),
    ];
    leaf.prop_recursive(3, 32, 6, |inner| prop::collection::vec(inner, 0..7).prop_map(Value::Array))
}
