//! Retries of idempotent calls, as [`presence::registry::retry`] makes them, for publishes too.

use presence::registry::RegistryError;
use presence::registry::retry::CallFailure;

pub(crate) use presence::registry::retry::{answered, pause, until_answered, until_known};

use crate::backplane::PublishError;

impl CallFailure for PublishError {
    fn call(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}
