//! Clients for tests: they send requests, wait with deadlines, and keep everything they receive.

mod line;
mod packed;
mod person;
mod raw;
mod transcript;
mod ws;

pub use self::line::LineClient;
pub use self::person::Person;
pub use self::raw::{RawFrame, RawWs};
pub use self::transcript::{ReceivedItem, TranscriptEnd};
pub use self::ws::{RefusedRequest, RequestResult, WsClient};

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

/// Time limit for a reply or event that should arrive at once.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects from this address of the machine, such as 127.0.0.2.
///
/// # Errors
/// The connection is refused.
pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
