//! One connection: the conversation between a door, which knows bytes, and a session, which knows chat.
//!
//! Every door runs the same loop, so order, limits and ends are the same for all of them: requests one at a time,
//! output in rounds (everything that waits, then one flush), and never a wait on a socket that keeps a request from
//! going on. Knows no framing and no dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, FutureExt, select};
use presence::model::codes::CloseCode;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::consume_budget;
use tokio::time::{sleep, timeout};

use crate::outbound::Outbox;
use crate::outbound::outbox::{Broadcast, Outgoing};
use crate::session::{Driver, Ending};
use crate::wire::{CorrelationId, Event, Refusal, Request};

use super::drain::{Parting, due};
use super::{ConnectionContext, Limits};

/// How long a goodbye waits for the session to have given back what it owns. Usually milliseconds.
const NAMES_FIRST: Duration = Duration::from_millis(500);

/// What a connection needs of a session: exactly the driver's interface, so that doors are tested without a store.
pub trait Session: Send + 'static {
    /// Where output waits for the door.
    fn outbox(&self) -> Outbox;
    /// Something came from the client.
    fn heard(&mut self);
    /// Handles one request, or answers one that could not be decoded. Is always run to its end.
    fn request(&mut self, decoded: Result<Request, (CorrelationId, Refusal)>) -> impl Future<Output = ()> + Send;
    /// When [`Session::tick`] wants to be called next.
    fn deadline(&self) -> Option<Instant>;
    /// Looks at the clock.
    fn tick(&mut self);
    /// The connection is over. Is always run to its end.
    fn end(self, ending: Ending) -> impl Future<Output = ()> + Send;
}

impl Session for Driver {
    fn outbox(&self) -> Outbox {
        self.outbox()
    }

    fn heard(&mut self) {
        self.heard();
    }

    async fn request(&mut self, decoded: Result<Request, (CorrelationId, Refusal)>) {
        self.request(decoded).await;
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn tick(&mut self) {
        self.tick();
    }

    async fn end(self, ending: Ending) {
        self.end(ending).await;
    }
}

/// What a door found on its socket.
#[derive(Debug)]
pub(super) enum Input {
    /// A frame or line that is a request, or should have been one.
    Request(Result<Request, (CorrelationId, Refusal)>),
    /// A sign of life that asks nothing of the session.
    Heard,
    /// Something for which the connection has to end.
    Unacceptable(CloseCode),
    /// The other side said that it is done.
    Goodbye,
    /// The other side hung up.
    Gone,
}

/// One way of framing: turns a socket into requests and output into bytes.
pub(super) trait Transport: Send {
    /// The next thing that arrives. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Input> + Send;
    /// The socket, for rounds that need not wait for the door.
    fn socket(&self) -> Arc<OwnedWriteHalf>;
    /// Takes output over without writing it yet.
    fn queue(&mut self, items: VecDeque<Outgoing>);
    /// Writes all that was taken over. A dropped flush is continued by the next one.
    ///
    /// # Errors
    /// The socket is of no use any more.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Says goodbye (with a code when it is us who end it), and hangs up when the other side has. Takes as long as the
    /// other side does: the caller sets the limit.
    fn close(self, code: Option<CloseCode>) -> impl Future<Output = ()> + Send;
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The other side hung up, or its socket broke.
    Gone,
    /// The other side said that it is done, and hung up.
    Goodbye,
    /// We ended it.
    Closed(CloseCode),
}

impl End {
    /// The word for logs and metric labels.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Goodbye => "goodbye",
            Self::Closed(code) => code.slug(),
        }
    }

    fn code(self) -> Option<CloseCode> {
        match self {
            Self::Gone | Self::Goodbye => None,
            Self::Closed(code) => Some(code),
        }
    }

    /// What the session is told.
    fn ending(self) -> Ending {
        match self {
            Self::Gone => Ending::Gone,
            Self::Goodbye => Ending::Goodbye,
            Self::Closed(code) => Ending::Closed(code),
        }
    }
}

/// Runs a connection from its first byte to its last. The session has ended when this returns.
///
/// What is done seldom (a request, a socket that stands still, the end) is boxed, so that a connection at rest holds no
/// room for it.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn run<D: Transport, S: Session>(
    mut door: D,
    mut session: S,
    house: &ConnectionContext<S>,
) -> impl Future<Output = End> + Send {
    async move {
        let limits = house.limits.get();
        let Err(end) = talk(&mut door, &mut session, house, &limits).await;
        Box::pin(part(door, session, end, &limits)).await;
        end
    }
}

/// Ends both halves of a connection.
async fn part<D: Transport, S: Session>(mut door: D, session: S, end: End, limits: &Limits) {
    // From here on the socket is the door's alone, and a frame that has begun goes out to its end.
    door.queue(session.outbox().disconnect().await.map(Outgoing::Rest).into_iter().collect());
    let mut ending = pin!(session.end(end.ending()));
    // Whoever comes back right after the goodbye finds their nickname free. A store that is away keeps nobody here.
    let settled = timeout(NAMES_FIRST, &mut ending).await.is_ok();
    let goodbye = timeout(limits.close_wait, door.close(end.code()));
    if settled {
        let _ = goodbye.await;
    } else {
        let _ = tokio::join!(ending, goodbye);
    }
}

/// The conversation. Comes back only with its end.
async fn talk<D: Transport, S: Session>(
    door: &mut D,
    session: &mut S,
    house: &ConnectionContext<S>,
    limits: &Limits,
) -> Result<Infallible, End> {
    let departure = &house.departure;
    let outbox = session.outbox();
    outbox.connect(door.socket());
    let mut alarm = house.wheel.alarm();
    let mut announced = pin!(departure.announced(limits.close_wait));
    let mut parting: Option<Parting> = None;
    loop {
        // A client that sends faster than we read must not keep its neighbours on this thread waiting.
        consume_budget().await;
        round(door, &outbox, limits, house).await?;
        alarm.set(session.deadline());
        let input = tokio::select! {
            input = door.next() => Some(input),
            () = outbox.ready() => None,
            () = alarm.rang() => {
                session.tick();
                None
            }
            told = &mut announced, if parting.is_none() => {
                outbox.event(&Broadcast::new(Event::GoingAway { retry_after_ms: told.retry_after_ms() }));
                parting = Some(told);
                None
            }
            () = async { Box::pin(due(parting)).await }, if parting.is_some() => {
                // What has arrived by now is still answered; what crosses our goodbye on the wire is not.
                let arrived = door.next().now_or_never().filter(|_| !parting.is_some_and(|parting| parting.is_final()));
                if arrived.is_none() {
                    outbox.close(CloseCode::Restart);
                }
                arrived
            }
        };
        match input {
            Some(Input::Request(decoded)) => {
                session.heard();
                Box::pin(beside_output(session.request(decoded), door, &outbox, limits, house)).await?;
                if let Some(parting) = &mut parting {
                    parting.was_asked();
                }
            }
            Some(Input::Heard) => session.heard(),
            Some(Input::Unacceptable(code)) => outbox.close(code),
            Some(Input::Gone) => return Err(End::Gone),
            Some(Input::Goodbye) => return Err(End::Goodbye),
            None => {}
        }
    }
}

/// Runs a request to its end while output keeps going out, whatever happens to the socket meanwhile.
async fn beside_output<D: Transport, S>(
    request: impl Future<Output = ()>,
    door: &mut D,
    outbox: &Outbox,
    limits: &Limits,
    house: &ConnectionContext<S>,
) -> Result<(), End> {
    let output = async {
        loop {
            outbox.ready().await;
            if let Err(end) = round(door, outbox, limits, house).await {
                return end;
            }
        }
    };
    match select(pin!(request), pin!(output)).await {
        // A round that was cut short here is finished by the next one.
        Either::Left(((), _)) => Ok(()),
        Either::Right((end, request)) => {
            // Nobody takes output any more: a request that waits for room must not wait for ever.
            outbox.close(end.code().unwrap_or(CloseCode::Normal));
            request.await;
            Err(end)
        }
    }
}

/// One round of output: everything that waits, then one flush. Ends the conversation once the outbox is closed. Nothing
/// while the hub writes: the outbox is ready again when it is done.
async fn round<D: Transport, S>(
    door: &mut D,
    outbox: &Outbox,
    limits: &Limits,
    house: &ConnectionContext<S>,
) -> Result<(), End> {
    let Some(batch) = outbox.take() else { return Ok(()) };
    door.queue(batch.items);
    // Most rounds go out at once; only one that stands still needs clocks.
    let written = match door.flush().now_or_never() {
        Some(written) => written.map_err(|_| End::Gone),
        None => Box::pin(stalled(door, outbox, limits, house)).await,
    };
    written?;
    let oldest = outbox.written();
    if batch.has_messages {
        house.metrics.counts.deliveries.written(oldest, 1);
    }
    batch.close.map_or(Ok(()), |code| Err(End::Closed(code)))
}

/// Goes on with a flush for as long as its reader may take.
async fn stalled<D: Transport, S>(
    door: &mut D,
    outbox: &Outbox,
    limits: &Limits,
    house: &ConnectionContext<S>,
) -> Result<(), End> {
    let _standing = house.standing.enter(outbox);
    let given_up = async {
        // A reader that stands still must not hold up the end of the house either.
        let code = tokio::select! {
            code = outbox.closed() => code,
            () = house.departure.over() => CloseCode::Restart,
        };
        sleep(limits.close_wait).await;
        code
    };
    tokio::select! {
        biased;
        written = timeout(limits.write_stall, door.flush()) => match written {
            Ok(written) => written.map_err(|_| End::Gone),
            Err(_) => Err(End::Closed(CloseCode::Slow)),
        },
        code = given_up => Err(End::Closed(code)),
    }
}
