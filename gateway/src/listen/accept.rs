//! The two listening sockets and their accept loops, which run until they are cancelled; a failed accept is retried.
//!
//! Configures every socket before anything is read from it. Writes nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use presence::host::accept_failures::AcceptFailures;
use presence::host::client_address::ClientAddress;
use presence::host::metrics::Label;
use presence::model::codes::ErrorCode;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::metrics::ListenerKind;
use crate::outbound::policy::SLOW_READER;
use crate::wire::line;

use super::connection::ConnectionSession;
use super::handshake::HandshakeRefusal;
use super::permits::ConnectionPermit;
use super::refuse::{refuse, refuse_on};
use super::timer_wheel::TimerWheel;
use super::tls_accept::TlsArrival;
use super::{ConnectionContext, forwarded, tcp, tls_accept, upgrade};

/// The accept queue of the kernel: a storm of reconnects waits instead of failing.
const BACKLOG: i32 = 4096;
/// The silence after which the kernel probes a line client.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} (listen.{port})", port = port.value())]
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
    /// [`BindError`] names the port and address.
    pub fn bind(ws: SocketAddr, tcp: SocketAddr) -> Result<Self, BindError> {
        let open = |port, addr| listen_on(addr).map_err(|source| BindError { port, addr, source });
        Ok(Self { ws: open(ListenerKind::Ws, ws)?, tcp: open(ListenerKind::Tcp, tcp)? })
    }

    /// Returns the bound address of a port.
    ///
    /// # Errors
    /// The operating system does not report it.
    pub fn local_addr(&self, port: ListenerKind) -> io::Result<SocketAddr> {
        match port {
            ListenerKind::Ws => self.ws.local_addr(),
            ListenerKind::Tcp => self.tcp.local_addr(),
        }
    }

    /// Starts accepting on both ports. Returns at once; the loops and all connections run on the context's tasks.
    pub fn serve<S: ConnectionSession>(self, context: &Arc<ConnectionContext<S>>) {
        // Outside the context's task tracker: the wheel ends one tick after the context, and a drain must not wait for
        // it.
        tokio::spawn(TimerWheel::run(Arc::downgrade(&context.wheel)));
        context.tasks.spawn(accept(self.ws, ListenerKind::Ws, Arc::clone(context)));
        context.tasks.spawn(accept(self.tcp, ListenerKind::Tcp, Arc::clone(context)));
    }
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // A restarted gateway reuses its port at once, although old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept<S: ConnectionSession>(listener: TcpListener, port: ListenerKind, context: Arc<ConnectionContext<S>>) {
    let mut failures = AcceptFailures::new(port.value());
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failures.record_accepted();
                admit(stream, peer.ip(), port, &context);
            }
            Err(error) => failures.record_failed(&error).await,
        }
    }
}

fn admit<S: ConnectionSession>(
    stream: TcpStream,
    peer: IpAddr,
    port: ListenerKind,
    context: &Arc<ConnectionContext<S>>,
) {
    if let Err(error) = configure(&stream, port) {
        debug!(port = port.value(), %error, "connection ended before it began");
        return;
    }
    let limits = context.limits.get();
    let names_clients =
        (port == ListenerKind::Ws || limits.addresses.proxy_protocol) && limits.addresses.proxies.contain(peer);
    let address = (!names_clients).then(|| ClientAddress::from(peer));
    if address.is_some_and(|address| context.refuses_address(address)) {
        let words = match port {
            ListenerKind::Ws => HandshakeRefusal::Banned.problem().into_bytes(),
            ListenerKind::Tcp => line::encode_refusal(&ErrorCode::Banned.into()),
        };
        return refuse_on(port, (stream, Box::default()), words, context);
    }
    let permit = match context.permits.take(port, &limits, address) {
        Ok(permit) => permit,
        Err(limit) => {
            context.seat_refusals.record(limit, address);
            let words = match port {
                ListenerKind::Ws => HandshakeRefusal::from(limit).problem().into_bytes(),
                ListenerKind::Tcp => line::encode_refusal(&limit.code().into()),
            };
            // A proxy is not answered over TLS: its header stands before the handshake.
            match names_clients && port == ListenerKind::Tcp {
                true => refuse(stream, words, context),
                false => refuse_on(port, (stream, Box::default()), words, context),
            }
            return;
        }
    };
    match port {
        ListenerKind::Ws if context.tls.is_on() => serve_tls(stream, peer, port, (context, permit)),
        ListenerKind::Ws => {
            let client = (peer, limits.header_wait);
            drop(context.tasks.spawn(upgrade::serve(stream, client, Arc::clone(context), permit)));
        }
        // The HTTP listener reads the request before it refuses, so that other paths keep their answers.
        ListenerKind::Tcp => match context.admission.refusal() {
            Some(code) if names_clients => refuse(stream, line::encode_refusal(&code.into()), context),
            Some(code) => refuse_on(port, (stream, Box::default()), line::encode_refusal(&code.into()), context),
            None if names_clients => {
                drop(context.tasks.spawn(forwarded::serve(stream, peer, Arc::clone(context), permit)));
            }
            None if context.tls.is_on() => serve_tls(stream, peer, port, (context, permit)),
            None => drop(context.tasks.spawn(tcp::serve(stream.into(), Arc::clone(context), permit))),
        },
    }
}

fn serve_tls<S: ConnectionSession>(
    stream: TcpStream,
    peer: IpAddr,
    port: ListenerKind,
    (context, permit): (&Arc<ConnectionContext<S>>, ConnectionPermit),
) {
    let arrival = TlsArrival { stream, peer, port, read_ahead: Box::default() };
    context.tasks.spawn(tls_accept::serve(arrival, Arc::clone(context), permit));
}

fn configure(stream: &TcpStream, port: ListenerKind) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SLOW_READER.socket_send_buffer_bytes)?;
    socket.set_tcp_user_timeout(Some(SLOW_READER.unacknowledged_max))?;
    if port == ListenerKind::Tcp {
        // A person may be silent for long, so the kernel has to find dead connections.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
