//! Memory of an idle connection, and of a request.
#![allow(clippy::print_stdout)]

use crate::session::Driver;

use super::super::frame::{FrameReader, FrameSocket};
use super::super::permits::ConnectionPermit;
use super::super::tcp::{self, AcceptedTcp};
use super::super::ws;
use super::*;

/// Maximum size of a connection task without its driver, 8 bytes of it to count partial requests and 16 for the two
/// inputs of the TCP port.
const TASK_BYTES_MAX: usize = 1048;
/// Maximum size of a driver, 16 bytes of it for tokens, and 16 for the quotas of its address and its user, which their
/// connections share. The limits of a session are boxed at its first request, in 56 bytes more.
const DRIVER_BYTES_MAX: usize = 480;
/// Maximum size of a WebSocket task with its driver: with the runtime's part it is just below a size class of the
/// allocator, and the next one has 256 bytes more.
const WEBSOCKET_TASK_BYTES_MAX: usize = 1424;
/// Maximum size of a frame reader.
const READER_BYTES_MAX: usize = 64;
/// Maximum size of a request that is being performed. Each one is moved to the heap, however little of it is used.
const REQUEST_BYTES_MAX: usize = 6 * 1024;

/// Returns the size of a function's future without creating one.
fn future_size<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn idle_connection_stays_within_its_size() {
    let ws = future_size(|opening: Box<ws::Opening>, context: Arc<ConnectionContext<Driver>>, permit| {
        ws::serve::<Driver, TcpStream>(opening, context, permit)
    });
    let line = future_size(
        |socket: AcceptedTcp<TcpStream>, context: Arc<ConnectionContext<Driver>>, permit: ConnectionPermit| {
            tcp::serve(socket, context, permit)
        },
    );
    let (driver, socket, reader) = (size_of::<Driver>(), size_of::<FrameSocket>(), size_of::<FrameReader>());
    println!("bytes: websocket task {ws}, line task {line}; driver {driver}, socket {socket}, reader {reader}");
    assert!(ws <= WEBSOCKET_TASK_BYTES_MAX, "a websocket task holds {ws} bytes");
    assert!(ws.max(line) <= driver + TASK_BYTES_MAX, "a websocket task holds {ws} bytes, a line task {line}");
    assert!(driver <= DRIVER_BYTES_MAX, "a driver holds {driver} bytes");
    assert!(reader <= READER_BYTES_MAX, "a reader holds {reader} bytes");
}

#[test]
fn request_stays_within_its_size() {
    fn request_size<F: Future>(_: impl FnOnce(&'static mut Driver, DecodedRequest) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = request_size(Driver::request);
    println!("bytes: request {bytes}");
    assert!(bytes <= REQUEST_BYTES_MAX, "a request holds {bytes} bytes");
}
