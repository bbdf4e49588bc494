//! The Rust client of Parley. `machine` decides, `engine` and `link` do the input and output.
//!
#![doc = include_str!("../README.md")]

mod cores;
mod direct;
mod engine;
mod error;
mod events;
mod feed;
mod handle;
mod link;
mod machine;
mod packed;
mod parley;
mod reading;
mod room;
mod sign_in;
mod storage;
mod subscription;
mod tls;
mod wire;

pub use self::direct::Direct;
pub use self::error::ParleyError;
pub use self::events::{
    Ack, Announcement, Delivered, DirectEvent, History, ListedRoom, Member, MembersChange, Message, MessagePage,
    RoomEvent, RoomsPage, State, User, UserStatus,
};
pub use self::parley::{Options, Parley};
pub use self::room::{Room, RoomMessages};
pub use self::storage::{FileStorage, Storage};
pub use self::subscription::Events;
