//! Webhooks: sends events to addresses of an application.
//!
//! [`WebhookDispatcher`] runs in every presence process that has webhooks, and in a gateway without Redis; one process
//! leads and has a worker for each webhook. A worker takes events from the log (`registry/webhooks`), sends them, and
//! moves the cursor of its webhook. Invariant: a cursor moves only past events that the receiver has accepted with 2xx,
//! or that are kept as dead letters. Chat never waits for any of this.

mod config;
mod dispatcher;
mod event;
mod metrics;
mod settings;
mod state;
mod worker;

pub use self::config::{ALLOW_PRIVATE, DEAD_LETTERS, DEADLINE, LOG_EVENTS, LOG_MIB, WEBHOOKS, WebhookConfig};
pub use self::dispatcher::{WebhookDispatcher, forget_unused};
pub use self::event::EventKind;
pub use self::settings::{WebhookRules, WebhookSettings};
pub use self::state::{WebhookState, WebhookStates, replay_dead_letters};
pub use self::worker::DeliveryReport;
