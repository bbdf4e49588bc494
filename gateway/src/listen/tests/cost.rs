//! What a connection costs while nothing happens on it.
#![allow(clippy::print_stdout)]

use hyper::upgrade::OnUpgrade;

use crate::session::Driver;

use super::super::frame::{FrameReader, FrameSocket};
use super::super::{permits::ConnectionPermit, tcp, ws};
use super::*;

/// Most bytes that the task of a connection may hold beside its driver.
const TASK: usize = 1024;
/// Most bytes that a reader may hold.
const READER: usize = 64;

/// The size of the future that a function makes, without making one.
fn future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_connection_at_rest_is_small() {
    let ws = future(|upgrade: OnUpgrade, context: Arc<ConnectionContext<Driver>>, permit| {
        ws::serve(upgrade, context, permit)
    });
    let line = future(|tcp: TcpStream, context: Arc<ConnectionContext<Driver>>, permit: ConnectionPermit| {
        tcp::serve(tcp, context, permit)
    });
    let (driver, socket, reader) = (size_of::<Driver>(), size_of::<FrameSocket>(), size_of::<FrameReader>());
    println!("bytes: websocket task {ws}, line task {line}; driver {driver}, socket {socket}, reader {reader}");
    assert!(ws.max(line) <= driver + TASK, "a websocket task holds {ws} bytes, a line task {line}");
    assert!(reader <= READER, "a reader holds {reader} bytes");
}
