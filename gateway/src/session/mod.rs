//! One connected user: the pure core decides, the driver performs, the outbox holds what is to be written.
pub mod driver;
pub mod outbox;

pub use self::driver::{Driver, Services};
pub use self::outbox::Outbox;
