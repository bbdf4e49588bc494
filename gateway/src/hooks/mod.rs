//! Hooks: questions to the application before a client registers, joins a room or sends a message.
//!
//! [`ApplicationHooks`] asks [`HookQuestion`]s by HTTP, within one deadline, and remembers answers for as long as they
//! say. Invariants: the questions of a gateway are bounded in number and time, so an application that hangs holds
//! nothing without bound. Without hooks nothing is asked, held or spent. Knows no session: `session/questions.rs` does.

mod answers;
mod application;
mod metrics;
mod question;
mod settings;
mod verdict;

pub use self::application::{ApplicationHooks, HookRefusal};
pub use self::question::{AskedRequest, HookKind, HookQuestion};
pub use self::settings::{HookFailureRule, HookSettings};
