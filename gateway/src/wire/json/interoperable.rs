//! The check of JSON values that travel on byte for byte, with the refusal for clients.

use presence::model::json_value::is_interoperable;
use serde_json::value::RawValue;

use crate::wire::Refusal;
use crate::wire::syntax::bad_request;

/// Refuses a value that some JSON readers cannot read. `field` names it to the client.
pub(in crate::wire) fn check(field: &str, value: &RawValue) -> Result<(), Refusal> {
    if is_interoperable(value) { Ok(()) } else { Err(not_interoperable(field)) }
}

/// Returns the refusal of such a value.
pub(in crate::wire) fn not_interoperable(field: &str) -> Refusal {
    bad_request(format!("`{field}` contains a number that does not fit a double, or an object with a key given twice"))
}
