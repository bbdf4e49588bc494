//! Reads the replies of scripts, piece by piece, in the order of the script's header.
//!
//! A reply that differs from the header is an error, never a panic and never a default.

use redis::Value;

use crate::model::{Fence, Incarnation, Owner, SessionId};
use crate::registry::RegistryError;

/// An array of a reply, read from the front.
#[derive(Debug)]
pub(super) struct ScriptReply(std::vec::IntoIter<Value>);

impl ScriptReply {
    /// Takes the whole answer of a script.
    pub(super) fn new(value: Value) -> Result<Self, RegistryError> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            _ => Err(malformed("an array")),
        }
    }

    /// Reads the next piece as text.
    pub(super) fn text(&mut self) -> Result<String, RegistryError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => String::from_utf8(bytes).map_err(|_| malformed("UTF-8")),
            Some(Value::SimpleString(text)) => Ok(text),
            Some(Value::Int(number)) => Ok(number.to_string()),
            _ => Err(malformed("a text")),
        }
    }

    /// Reads the next piece as an unsigned number.
    pub(super) fn number(&mut self) -> Result<u64, RegistryError> {
        self.text()?.parse().map_err(|_| malformed("a number"))
    }

    /// Reads the next piece as 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, RegistryError> {
        Ok(self.number()? != 0)
    }

    /// Reads the next piece as an array.
    pub(super) fn array(&mut self) -> Result<Self, RegistryError> {
        self.0.next().ok_or_else(|| malformed("an array")).and_then(Self::new)
    }

    /// Returns true if all pieces were read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Reads the remaining pieces as arrays.
    pub(super) fn arrays(self) -> impl Iterator<Item = Result<Self, RegistryError>> {
        self.0.map(Self::new)
    }

    /// Reads the remaining pieces as texts.
    pub(super) fn texts(mut self) -> Result<Vec<String>, RegistryError> {
        let mut texts = Vec::with_capacity(self.0.len());
        while !self.is_empty() {
            texts.push(self.text()?);
        }
        Ok(texts)
    }
}

/// Reads an owner token, `<incarnation>/<session>/<fence>`; `None` if it is malformed.
pub(super) fn owner_of(token: &str) -> Option<Owner> {
    let [incarnation, session, fence] = token.split('/').collect::<Vec<_>>().try_into().ok()?;
    Some(Owner {
        incarnation: Incarnation::from_store(incarnation),
        session: SessionId::from_store(session),
        fence: Fence(fence.parse().ok()?),
    })
}

/// Parses JSON that a script or a gateway wrote.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, RegistryError> {
    serde_json::from_str(text).map_err(|_| malformed("the JSON of a record"))
}

/// Returns the error for a reply that differs from the script's header. The outcome of the call is then unknown.
pub(super) fn malformed(expected: &str) -> RegistryError {
    RegistryError::Unknown(format!("malformed answer: expected {expected}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn reply(items: Vec<Value>) -> ScriptReply {
        ScriptReply::new(Value::Array(items)).unwrap()
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn pieces_are_read_in_header_order() {
        let row = Value::Array(vec![text("a"), text("b")]);
        let mut reply = reply(vec![text("OK"), Value::Int(7), text("8"), Value::Int(1), row]);
        assert_eq!(reply.text().unwrap(), "OK");
        assert_eq!((reply.number().unwrap(), reply.number().unwrap()), (7, 8));
        assert!(reply.flag().unwrap());
        assert_eq!(reply.array().unwrap().texts().unwrap(), ["a", "b"]);
        assert!(reply.is_empty());
    }

    #[test]
    fn unexpected_pieces_are_errors_without_panic() {
        assert!(ScriptReply::new(Value::Nil).is_err());
        assert!(reply(vec![]).text().is_err());
        assert!(reply(vec![Value::Nil]).text().is_err());
        assert!(reply(vec![Value::BulkString(vec![0xff])]).text().is_err());
        assert!(reply(vec![Value::Int(-1)]).number().is_err());
        assert!(reply(vec![text("1.5")]).number().is_err());
        assert!(reply(vec![text("x")]).array().is_err());
        assert!(reply(vec![Value::Array(vec![]), Value::Nil]).arrays().any(|row| row.is_err()));
        assert!(reply(vec![text("a"), Value::Array(vec![])]).texts().is_err());
        assert!(from_json::<u64>("{").is_err());
    }
}
