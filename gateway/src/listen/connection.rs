//! One connection: the loop between a transport, which knows bytes, and a session, which knows chat.
//!
//! Every transport uses this loop, so order, limits and ends are the same for all. It runs one request at a time;
//! messages are answered later, in order. Output continues while a request runs; the next request is read after the
//! queued output is written. Knows no framing and no dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{Either, FutureExt, select};
use presence::model::codes::CloseCode;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{sleep, timeout};

use crate::outbound::Outbox;
use crate::outbound::outbox::{Broadcast, Outgoing};
use crate::session::{ConnectionEnd, DecodedRequest, Driver};
use crate::wire::{Dialect, Event, PackedDialect, Token};

use super::drain::{DrainMoment, due};
use super::permits::ConnectionPermit;
use super::{ConnectionContext, ConnectionLimits};

/// The maximum time that a close waits for the session to release its claims. Usually milliseconds.
const RELEASE_WAIT: Duration = Duration::from_millis(500);

/// The session side of a connection: exactly the driver's interface, so that transports are tested without a store.
pub trait ConnectionSession: Send + 'static {
    /// Returns the queue of output for the transport.
    fn outbox(&self) -> Outbox;
    /// Returns true once the client has registered.
    fn is_registered(&self) -> bool;
    /// Notes the token of the connection's `Authorization` header.
    fn present(&mut self, token: Token);
    /// Changes the dialect, before the first request. `sign_within` is the time between two signs of life.
    fn set_dialect(&mut self, dialect: Dialect, sign_within: Option<Duration>);
    /// Notes that the client sent something.
    fn note_input(&mut self);
    /// Notes and charges an input that is not a request. Returns one beyond the limits, to be refused as a request.
    fn charge(&mut self) -> Option<DecodedRequest>;
    /// Handles one request if it needs no wait; otherwise returns it.
    fn begin(&mut self, decoded: DecodedRequest) -> Option<DecodedRequest>;
    /// Handles one request, or answers one that could not be decoded. It is always run to its end.
    fn request(&mut self, decoded: DecodedRequest) -> impl Future<Output = ()> + Send;
    /// Answers the requests under way that have an outcome. Pending if there is none.
    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<()>;
    /// Waits until all requests under way are answered. It is always run to its end.
    fn conclude(&mut self) -> impl Future<Output = ()> + Send;
    /// Waits for the output that is still under way to a client that sends nothing more. It is always run to its end.
    fn settle(&mut self) -> impl Future<Output = ()> + Send;
    /// Returns the time of the next [`ConnectionSession::tick`].
    fn deadline(&self) -> Option<Instant>;
    /// Checks the session's deadlines.
    fn tick(&mut self);
    /// Leaves the rooms from which a moderator has removed the session, and enters those of an application's orders. It
    /// is always run to its end.
    fn apply_room_orders(&mut self) -> impl Future<Output = ()> + Send;
    /// Ends the session's connection. It is always run to its end.
    fn end(self, ending: ConnectionEnd) -> impl Future<Output = ()> + Send;
}

impl ConnectionSession for Driver {
    fn outbox(&self) -> Outbox {
        self.outbox()
    }

    fn is_registered(&self) -> bool {
        self.is_registered()
    }

    fn present(&mut self, token: Token) {
        self.present(token);
    }

    fn set_dialect(&mut self, dialect: Dialect, sign_within: Option<Duration>) {
        self.set_dialect(dialect, sign_within);
    }

    fn note_input(&mut self) {
        self.note_input();
    }

    fn charge(&mut self) -> Option<DecodedRequest> {
        self.charge()
    }

    fn begin(&mut self, decoded: DecodedRequest) -> Option<DecodedRequest> {
        self.begin(decoded)
    }

    async fn request(&mut self, decoded: DecodedRequest) {
        self.request(decoded).await;
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_progress(context)
    }

    async fn conclude(&mut self) {
        self.conclude().await;
    }

    async fn settle(&mut self) {
        self.settle().await;
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn tick(&mut self) {
        self.tick();
    }

    async fn apply_room_orders(&mut self) {
        self.apply_room_orders().await;
    }

    async fn end(self, ending: ConnectionEnd) {
        self.end(ending).await;
    }
}

/// Something that a transport received.
#[derive(Debug)]
pub(super) enum TransportInput {
    /// A frame or line with a request, decoded or refused.
    Request(DecodedRequest),
    /// A sign of life without a request: the part of a message.
    Activity,
    /// An input that the transport has answered itself, or that needs no answer, such as a ping or a blank line.
    Handled,
    /// The first bytes of a binary frame, which show the dialect of the connection.
    Dialect(PackedDialect),
    /// An input that ends the connection.
    Unacceptable(CloseCode),
    /// The client ended the session.
    Goodbye,
    /// The client ended its input and may still read.
    Ended,
    /// The client closed the connection.
    Gone,
}

/// A transport: turns a socket into requests and output into bytes.
pub(super) trait Transport: Send {
    /// Waits for the next input. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = TransportInput> + Send;
    /// Returns the socket for fan-out batches that are written directly; `None` if all output passes the outbox.
    fn socket(&self) -> Option<Arc<OwnedWriteHalf>>;
    /// Queues output without writing it.
    fn queue(&mut self, items: VecDeque<Outgoing>);
    /// Writes everything queued. A dropped flush is continued by the next one.
    ///
    /// # Errors
    /// The socket is broken.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Closes the connection, with a code if the server ends it, and waits for the client to close. The caller limits
    /// the time.
    fn close(self, code: Option<CloseCode>) -> impl Future<Output = ()> + Send;
}

/// Runs a connection from its first byte to its last. The session has ended when this returns.
///
/// Rare futures (a request, a stalled write, the end) are boxed, so that an idle connection needs no memory for them.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn run<D: Transport, S: ConnectionSession>(
    mut transport: D,
    mut session: S,
    permit: &ConnectionPermit,
    context: &ConnectionContext<S>,
) -> impl Future<Output = ConnectionEnd> + Send {
    async move {
        let limits = context.limits.get();
        let Err(end) = run_loop(&mut transport, &mut session, (permit, context), &limits).await;
        Box::pin(end_connection(transport, session, end, &limits)).await;
        end
    }
}

/// Ends the session and the transport of a connection.
async fn end_connection<D: Transport, S: ConnectionSession>(
    mut transport: D,
    session: S,
    end: ConnectionEnd,
    limits: &ConnectionLimits,
) {
    // From here on only the transport writes to the socket, and a frame that has begun is completed.
    transport.queue(session.outbox().disconnect().await.map(Outgoing::Remainder).into_iter().collect());
    let mut ending = pin!(session.end(end));
    // A client that returns right after the close finds its nickname free. A store that is away delays no close.
    let settled = timeout(RELEASE_WAIT, &mut ending).await.is_ok();
    let goodbye = timeout(limits.close_wait, transport.close(end.code()));
    if settled {
        let _ = goodbye.await;
    } else {
        let _ = tokio::join!(ending, goodbye);
    }
}

/// Runs the loop of a connection until it ends; the error is the end.
async fn run_loop<D: Transport, S: ConnectionSession>(
    transport: &mut D,
    session: &mut S,
    (permit, context): (&ConnectionPermit, &ConnectionContext<S>),
    limits: &ConnectionLimits,
) -> Result<Infallible, ConnectionEnd> {
    let outbox = session.outbox();
    if let Some(socket) = transport.socket() {
        outbox.connect(socket);
    }
    let output = OutputPump { outbox: &outbox, limits, context };
    let mut timer = context.wheel.timer();
    let mut announced = pin!(context.drain.announced(limits.close_wait));
    let mut drain_moment: Option<Box<DrainMoment>> = None;
    let mut has_served = false;
    loop {
        // A client that sends without pause must not delay its neighbours on this thread: each request is a turn of
        // its own, and other input is cheap.
        if mem::take(&mut has_served) {
            yield_now().await;
        } else {
            consume_budget().await;
        }
        // A text line is decoded with what the replies before it have changed, so these are encoded first.
        let is_written = output.write(transport).await?;
        if session.is_registered() {
            permit.registered();
        }
        timer.set(session.deadline());
        let (mut is_closing, mut has_orders) = (false, false);
        let selected = tokio::select! {
            input = transport.next(), if is_written => Some(input),
            is_ordered = outbox.ready_or_ordered() => {
                has_orders = is_ordered;
                None
            }
            () = poll_fn(|context| session.poll_progress(context)) => None,
            () = timer.fired() => {
                session.tick();
                None
            }
            drawn_moment = &mut announced, if drain_moment.is_none() => {
                outbox.push_event(&Broadcast::new(Event::GoingAway { retry_after_ms: drawn_moment.retry_after_ms() }));
                drain_moment = Some(Box::new(drawn_moment));
                None
            }
            () = async { Box::pin(due(drain_moment.as_deref().copied())).await }, if drain_moment.is_some() && is_written => {
                is_closing = true;
                None
            }
        };
        if has_orders {
            drop(selected);
            Box::pin(output.run_beside(session.apply_room_orders(), transport)).await?;
            continue;
        }
        // Held across a wait, the input would be part of every connection.
        let input = if is_closing {
            drop(selected);
            Box::pin(output.run_beside(session.conclude(), transport)).await?;
            // Requests that have arrived are answered; a request that arrives after the close is not.
            let is_final = drain_moment.as_ref().is_some_and(|moment| moment.is_final());
            let arrived = transport.next().now_or_never().filter(|_| !is_final);
            if arrived.is_none() {
                outbox.close(CloseCode::Restart);
            }
            arrived
        } else {
            selected
        };
        if matches!(input, Some(TransportInput::Ended)) {
            drop(input);
            return Err(Box::pin(output.finish(&mut *session, &mut *transport)).await);
        }
        if let Some(TransportInput::Unacceptable(code)) = input {
            drop(input);
            Box::pin(output.run_beside(session.conclude(), transport)).await?;
            outbox.close(code);
            continue;
        }
        if let Some(TransportInput::Dialect(dialect)) = input {
            session.set_dialect(Dialect::Packed(dialect), limits.proxy_idle);
            continue;
        }
        match output.handle(input, session, transport)? {
            InputStep::Nothing => continue,
            InputStep::Served => {}
            InputStep::Request(request) => request.await?,
        }
        has_served = true;
        if let Some(drain_moment) = &mut drain_moment {
            drain_moment.note_request();
        }
    }
}

/// The rest of the work for an input.
enum InputStep<F> {
    /// It was no request.
    Nothing,
    /// The request is served, or under way.
    Served,
    /// The request has to wait. Boxed: most connections are idle.
    Request(Pin<Box<F>>),
}

/// The output of a connection: from the outbox to the transport.
#[derive(Debug)]
struct OutputPump<'a, S> {
    outbox: &'a Outbox,
    limits: &'a ConnectionLimits,
    context: &'a ConnectionContext<S>,
}

impl<S: ConnectionSession> OutputPump<'_, S> {
    /// Handles an input that needs no wait.
    fn handle<'a>(
        &'a self,
        input: Option<TransportInput>,
        session: &'a mut S,
        transport: &'a mut impl Transport,
    ) -> Result<InputStep<impl Future<Output = Result<(), ConnectionEnd>> + Send + 'a>, ConnectionEnd> {
        match input {
            Some(TransportInput::Request(decoded)) => {
                session.note_input();
                let Some(decoded) = session.begin(decoded) else { return Ok(InputStep::Served) };
                return Ok(InputStep::Request(Box::pin(self.run_beside(session.request(decoded), transport))));
            }
            Some(TransportInput::Activity) => session.note_input(),
            Some(TransportInput::Handled) => {
                let Some(refused) = session.charge() else { return Ok(InputStep::Nothing) };
                return Ok(InputStep::Request(Box::pin(self.run_beside(session.request(refused), transport))));
            }
            Some(TransportInput::Gone) => return Err(ConnectionEnd::Gone),
            Some(TransportInput::Goodbye) => return Err(ConnectionEnd::Goodbye),
            Some(TransportInput::Dialect(_) | TransportInput::Ended | TransportInput::Unacceptable(_)) | None => {}
        }
        Ok(InputStep::Nothing)
    }

    /// Runs a request to its end while output continues, even if the socket breaks meanwhile.
    async fn run_beside(
        &self,
        request: impl Future<Output = ()>,
        transport: &mut impl Transport,
    ) -> Result<(), ConnectionEnd> {
        let output = async {
            loop {
                self.outbox.ready().await;
                if let Err(end) = self.write(transport).await {
                    return end;
                }
            }
        };
        match select(pin!(request), pin!(output)).await {
            // A write that was interrupted here is finished by the next one.
            Either::Left(((), _)) => Ok(()),
            Either::Right((end, request)) => {
                // Nothing drains the outbox any more: closing it releases a request that waits for space.
                self.outbox.close(end.code().unwrap_or(CloseCode::Normal));
                request.await;
                Err(end)
            }
        }
    }

    /// Writes the output that is still under way to a client whose input has ended. Returns the end.
    async fn finish(&self, session: &mut S, transport: &mut impl Transport) -> ConnectionEnd {
        if let Err(end) = self.run_beside(session.settle(), transport).await {
            return end;
        }
        loop {
            match self.write(transport).await {
                Ok(false) => self.outbox.ready().await,
                Ok(true) => return ConnectionEnd::Gone,
                Err(end) => return end,
            }
        }
    }

    /// Writes everything queued with one flush. Ends the connection once the outbox is closed. Does nothing and returns
    /// false while the hub writes: the outbox becomes ready again afterwards.
    async fn write(&self, transport: &mut impl Transport) -> Result<bool, ConnectionEnd> {
        let Some(batch) = self.outbox.take() else { return Ok(false) };
        transport.queue(batch.items);
        // Most writes complete at once; only a stalled one needs timers.
        let written = match transport.flush().now_or_never() {
            Some(written) => written.map_err(|_| ConnectionEnd::Gone),
            None => Box::pin(self.finish_stalled(transport)).await,
        };
        written?;
        let oldest = self.outbox.finish_write();
        if batch.has_messages {
            self.context.metrics.counts.deliveries.written(oldest, 1);
        }
        batch.close.map_or(Ok(true), |code| Err(ConnectionEnd::Closed(code)))
    }

    /// Continues a stalled flush within the write limit.
    async fn finish_stalled(&self, transport: &mut impl Transport) -> Result<(), ConnectionEnd> {
        let _stalled = self.context.stalled.enter(self.outbox);
        let given_up = async {
            // A stalled reader must not delay the drain either.
            let code = tokio::select! {
                code = self.outbox.closed() => code,
                () = self.context.drain.over() => CloseCode::Restart,
            };
            sleep(self.limits.close_wait).await;
            code
        };
        tokio::select! {
            biased;
            written = timeout(self.limits.write_stall, transport.flush()) => match written {
                Ok(written) => written.map_err(|_| ConnectionEnd::Gone),
                Err(_) => Err(ConnectionEnd::Closed(CloseCode::Slow)),
            },
            code = given_up => Err(ConnectionEnd::Closed(code)),
        }
    }
}
