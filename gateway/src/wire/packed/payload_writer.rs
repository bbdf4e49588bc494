//! The fields of a payload under construction, in one of the binary formats.
//!
//! `output.rs` writes replies and events through [`PayloadWriter`]. Invariant: an object has at most 15 fields.

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::wire::field::Field;

/// The fields of an object under construction.
pub(super) trait PayloadWriter {
    /// Adds a text.
    fn text(&mut self, field: Field, text: &str);
    /// Adds bytes.
    fn bytes(&mut self, field: Field, bytes: &[u8]);
    /// Adds a number.
    fn number(&mut self, field: Field, number: u64);
    /// Adds a number below 0.
    fn negative(&mut self, field: Field, number: i64);
    /// Adds a boolean.
    fn flag(&mut self, field: Field, flag: bool);
    /// Adds a JSON value.
    fn body(&mut self, field: Field, json: &str);
    /// Adds an object.
    fn object(&mut self, field: Field, write: impl FnOnce(&mut Self));
    /// Adds a list of objects.
    fn list<T>(&mut self, field: Field, items: &[T], write: impl Fn(&mut Self, &T));
    /// Adds a list of texts.
    fn texts(&mut self, field: Field, texts: &[String]);

    /// Adds the id of a message: the 16 bytes of the UUID that JSON writes as text.
    fn msg_id(&mut self, id: &str) {
        let is_canonical = id.len() == Hyphenated::LENGTH && !id.bytes().any(|byte| byte.is_ascii_uppercase());
        match Uuid::try_parse(id) {
            Ok(uuid) if is_canonical => self.bytes(Field::MsgId, uuid.as_bytes()),
            _ => self.text(Field::MsgId, id),
        }
    }

    /// Adds a text if there is one.
    fn optional_text(&mut self, field: Field, text: Option<&str>) {
        if let Some(text) = text {
            self.text(field, text);
        }
    }

    /// Adds a number if there is one.
    fn optional_number(&mut self, field: Field, number: Option<u64>) {
        if let Some(number) = number {
            self.number(field, number);
        }
    }
}
