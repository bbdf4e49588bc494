//! The two listening sockets and their accept loops, which never end before the stop signal, whatever accept says.
//!
//! Sets up every socket before anything is read from it. Never reads or writes one itself, but to refuse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use presence::host::metrics::Label;
use presence::model::codes::ErrorCode;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::metrics::ListenerKind;
use crate::outbound::policy::SLOW_READER;
use crate::wire::line;

use super::connection::Session;
use super::frame::hang_up;
use super::timer_wheel::TimerWheel;
use super::{ConnectionContext, tcp, upgrade};

/// Connections the kernel holds for us until we accept them: a storm of reconnects waits instead of failing.
const BACKLOG: i32 = 4096;
/// Most bytes the kernel queues for one reader (it doubles this). Left alone it grows to megabytes for each stalled one.
const SEND_BUFFER: usize = SLOW_READER.socket_send_buffer_bytes;
/// How long written bytes may go without being acknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(90);
/// Silence after which the kernel asks whether a line client still exists.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of something: descriptors, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Failures closer together than this are one burst, logged once.
const BURST: Duration = Duration::from_secs(10);

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for {port} on {addr}", port = port.value())]
pub struct BindError {
    port: ListenerKind,
    addr: SocketAddr,
    source: io::Error,
}

/// Both listening sockets, bound and not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    ws: TcpListener,
    tcp: TcpListener,
}

impl Listeners {
    /// Binds both ports; port 0 takes a free one. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`BindError`] names the port and address that could not be had.
    pub fn bind(ws: SocketAddr, tcp: SocketAddr) -> Result<Self, BindError> {
        let open = |port, addr| listen_on(addr).map_err(|source| BindError { port, addr, source });
        Ok(Self { ws: open(ListenerKind::Ws, ws)?, tcp: open(ListenerKind::Tcp, tcp)? })
    }

    /// Where a port really listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self, port: ListenerKind) -> io::Result<SocketAddr> {
        match port {
            ListenerKind::Ws => self.ws.local_addr(),
            ListenerKind::Tcp => self.tcp.local_addr(),
        }
    }

    /// Starts accepting on both ports. Returns at once; the loops and all connections run on the house's tasks.
    pub fn serve<S: Session>(self, house: &Arc<ConnectionContext<S>>) {
        // Not on the house's tasks, which it outlives by a notch.
        tokio::spawn(TimerWheel::run(Arc::downgrade(&house.wheel)));
        house.tasks.spawn(accept(self.ws, ListenerKind::Ws, Arc::clone(house)));
        house.tasks.spawn(accept(self.tcp, ListenerKind::Tcp, Arc::clone(house)));
    }
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // A restarted gateway takes its port back at once, although old connections still wait out their time.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept<S: Session>(listener: TcpListener, port: ListenerKind, house: Arc<ConnectionContext<S>>) {
    let mut failed: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = house.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if failed.is_some_and(|at| at.elapsed() > BURST) {
                    failed = None;
                    info!(port = port.value(), "accepting connections again");
                }
                welcome(stream, port, &house);
            }
            Err(error) if died_in_the_queue(&error) => {}
            Err(error) => {
                if failed.is_none_or(|at| at.elapsed() > BURST) {
                    warn!(port = port.value(), %error, "cannot accept connections");
                }
                failed = Some(Instant::now());
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether accept failed only for the one connection that it was about to return.
fn died_in_the_queue(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn welcome<S: Session>(stream: TcpStream, port: ListenerKind, house: &Arc<ConnectionContext<S>>) {
    if let Err(error) = tune(&stream, port) {
        debug!(port = port.value(), %error, "connection ended before it began");
        return;
    }
    let Some(seat) = house.seats.take(port, house.limits.get().connections) else {
        turn_away(stream, port, ErrorCode::Overloaded, house);
        return;
    };
    match port {
        ListenerKind::Ws => drop(house.tasks.spawn(upgrade::serve(stream, Arc::clone(house), seat))),
        // The HTTP door reads the request before it refuses, so that the rest of the site keeps answering.
        ListenerKind::Tcp => match house.admission.refusal() {
            Some(code) => turn_away(stream, port, code, house),
            None => drop(house.tasks.spawn(tcp::serve(stream, Arc::clone(house), seat))),
        },
    }
}

fn tune(stream: &TcpStream, port: ListenerKind) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    if port == ListenerKind::Tcp {
        // Nobody has to type, so silence proves nothing here: the kernel finds the dead.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// Tells a newcomer why not, and hangs up.
fn turn_away<S: Session>(stream: TcpStream, port: ListenerKind, code: ErrorCode, house: &ConnectionContext<S>) {
    let Some(leave) = house.seats.refuse() else { return };
    let words: Bytes = match port {
        ListenerKind::Ws => upgrade::raw_refusal(code),
        ListenerKind::Tcp => line::encode_refusal(&code.into()),
    };
    let limit = house.limits.get().close_wait;
    house.tasks.spawn(async move {
        let _ = timeout(limit, async {
            let (input, mut output) = stream.into_split();
            if output.write_all(&words).await.is_ok() {
                hang_up(input, Arc::new(output)).await;
            }
        })
        .await;
        drop(leave);
    });
}
