#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use presence::model::{Nick, RoomName, Status};
use proptest::prelude::*;

use super::*;
use crate::message::{Body, Target};

fn send(body: &str) -> RequestCost {
    let to = Target::Room(RoomName::parse("#a").unwrap());
    RequestCost::of(&Command::Send { to, body: Body::from_text(body), key: None }).unwrap()
}

fn ping() -> RequestCost {
    RequestCost::of(&Command::Ping).unwrap()
}

impl SessionAllowance {
    /// Charges a request of a session whose address and user are not limited.
    fn admit_alone(&mut self, at: Duration, limits: &SessionLimits, cost: RequestCost) -> Result<(), RateRefusal> {
        self.admit(at, limits, cost, || Ok(()))
    }
}

/// The limits with one of them changed, and no others.
fn only(limit: LimitKind, to: RateLimit) -> SessionLimits {
    let lifted = |known: RateLimit| known.with(0, 1);
    let limits = SessionLimits::default();
    let each = |kind| Ok::<_, ()>(if kind == limit { to } else { lifted(limits.of(kind)) });
    SessionLimits::from_each(each).unwrap()
}

/// Admits as many requests as possible at one time.
fn admitted(allowance: &mut SessionAllowance, limits: &SessionLimits, cost: RequestCost) -> usize {
    (0..10_000).take_while(|_| allowance.admit_alone(Duration::ZERO, limits, cost).is_ok()).count()
}

#[test]
fn each_command_spends_its_own_limit() {
    let nick = || Nick::parse("ann").unwrap();
    let room = || RoomName::parse("#a").unwrap();
    for (command, count, limit) in [
        (Command::Ping, 200, LimitKind::Requests),
        (Command::Leave { room: room() }, 200, LimitKind::Requests),
        (Command::Whois { nick: nick() }, 200, LimitKind::Requests),
        (Command::Join { room: room(), since: None }, 30, LimitKind::Joins),
        (Command::Register { nick: Some(nick()), resume: None, token: None }, 30, LimitKind::Joins),
        (Command::Nick { nick: nick() }, 3, LimitKind::Renames),
        (Command::Status(Status::default()), 10, LimitKind::Statuses),
        (Command::Rooms { limit: 1, cursor: None }, 20, LimitKind::Pages),
        (Command::Members { room: room(), limit: 1, cursor: None }, 20, LimitKind::Pages),
    ] {
        let (mut allowance, cost) = (SessionAllowance::default(), RequestCost::of(&command).unwrap());
        let limits = SessionLimits::default();
        assert_eq!(admitted(&mut allowance, &limits, cost), count, "{command:?}");
        assert_eq!(allowance.admit_alone(Duration::ZERO, &limits, cost).unwrap_err().limit, limit, "{command:?}");
    }
    assert!(RequestCost::of(&Command::Bye).is_none(), "the end of a session is never refused");
}

#[test]
fn refused_message_spends_no_allowance() {
    let (limits, mut allowance) = (SessionLimits::default(), SessionAllowance::default());
    let large = send(&"x".repeat(60_000));
    assert_eq!(admitted(&mut allowance, &limits, large), 4);
    let refused = allowance.admit_alone(Duration::ZERO, &limits, large).unwrap_err();
    assert_eq!(refused.limit, LimitKind::Bytes);
    // 56 of 60 messages are left, although some were refused for their bytes.
    assert_eq!(admitted(&mut allowance, &limits, send("x")), 56);
    let refused = allowance.admit_alone(Duration::ZERO, &limits, send("x")).unwrap_err();
    // The one before it was refused too, for 50 ms.
    assert_eq!((refused.limit, refused.retry_after), (LimitKind::Messages, Duration::from_millis(100)));
    assert_eq!(admitted(&mut allowance, &limits, ping()), 140, "refused messages spent no request");
}

#[test]
fn refusals_queue_up_and_lapse() {
    let limits = only(LimitKind::Requests, RateLimit::per_second(10, 1));
    let mut allowance = SessionAllowance::default();
    let mut wait = |at_ms| {
        let outcome = allowance.admit_alone(Duration::from_millis(at_ms), &limits, ping());
        outcome.map_or_else(|refused| refused.retry_after.as_millis(), |()| 0)
    };
    assert_eq!([wait(0), wait(0), wait(0), wait(0)], [0, 100, 200, 300]);
    assert_eq!([wait(100), wait(200), wait(300)], [0, 0, 0], "each at its own time");
    assert_eq!([wait(300), wait(1000), wait(1000)], [100, 0, 100], "a turn that was not taken lapses");
}

#[test]
fn queue_of_refusals_is_bounded() {
    let limits = only(LimitKind::Requests, RateLimit::per_second(1, 1));
    let mut allowance = SessionAllowance::default();
    let waits = (0..500).filter_map(|_| allowance.admit_alone(Duration::ZERO, &limits, ping()).err());
    let longest = waits.map(|refused| refused.retry_after).max().unwrap();
    assert!(longest <= Duration::from_micros(QUEUE_US_MAX) + Duration::from_secs(1), "{longest:?}");
}

#[test]
fn stubborn_client_is_closed_after_its_burst() {
    let (limits, mut allowance) = (SessionLimits::default(), SessionAllowance::default());
    let outcomes: Vec<_> =
        (0..512).filter_map(|_| allowance.admit_alone(Duration::ZERO, &limits, send("x")).err()).collect();
    assert!(outcomes.len() == 452 && outcomes.iter().all(|refused| !refused.closes));
    assert!(!allowance.is_exhausted(Duration::ZERO));
    let mut refusals = 452;
    let closing = loop {
        let refused = allowance.admit_alone(Duration::ZERO, &limits, send("x")).unwrap_err();
        refusals += 1;
        if refused.closes {
            break refusals;
        }
    };
    assert_eq!(closing, 513);
    assert!(allowance.is_exhausted(Duration::ZERO) && !allowance.is_exhausted(Duration::from_millis(10)));
}

#[test]
fn refusals_are_reported_once_a_minute() {
    let limits = only(LimitKind::Requests, RateLimit::per_minute(1, 1));
    let mut allowance = SessionAllowance::default();
    allowance.admit_alone(Duration::ZERO, &limits, ping()).unwrap();
    assert_eq!(allowance.take_report(Duration::ZERO, || true), None);
    let mut reported = |at, refusals| {
        for _ in 0..refusals {
            allowance.admit_alone(at, &limits, ping()).unwrap_err();
        }
        allowance.take_report(at, || true).map(|report| report.refused)
    };
    let second = Duration::from_secs;
    assert_eq!([reported(second(1), 1), reported(second(2), 3), reported(second(59), 0)], [Some(1), None, None]);
    assert_eq!(reported(second(61), 0), Some(3));
}

#[test]
fn available_limits_need_no_memory() {
    let (mut allowance, limits) = (SessionAllowance::default(), SessionLimits::default());
    let rename = RequestCost::of(&Command::Nick { nick: Nick::parse("ann").unwrap() }).unwrap();
    allowance.admit_alone(Duration::ZERO, &limits, rename).unwrap();
    allowance.forget_spent(Duration::from_secs(19));
    assert!(allowance.spent.is_some(), "a third of a minute has not passed");
    allowance.forget_spent(Duration::from_secs(20));
    assert!(allowance.spent.is_none());
}

#[test]
fn state_of_unrefused_session_stays_small() {
    let (mut allowance, limits) = (SessionAllowance::default(), SessionLimits::default());
    assert!(allowance.spent.is_none(), "a connection that asks for nothing has no state");
    allowance.admit_alone(Duration::ZERO, &limits, ping()).unwrap();
    assert!(allowance.refusals.is_none());
    assert_eq!(size_of_val(&**allowance.spent.as_ref().unwrap()), 56);
}

proptest! {
    /// A client with many requests under way that repeats each refused one at its own time.
    #[test]
    fn client_that_waits_gets_all_in_order(
        burst in 1_usize..=256,
        delay_us in 0_u64..300_000,
        bodies in prop::collection::vec(1_usize..3000, 256),
    ) {
        let (limits, mut allowance) = (SessionLimits::default(), SessionAllowance::default());
        let mut due: BinaryHeap<Reverse<(u64, usize)>> = (0..burst).map(|number| Reverse((0, number))).collect();
        let (mut order, mut refusals) = (Vec::new(), 0);
        while let Some(Reverse((at, number))) = due.pop() {
            match allowance.admit_alone(Duration::from_micros(at), &limits, send(&"x".repeat(bodies[number]))) {
                Ok(()) => order.push(number),
                Err(refused) => {
                    refusals += 1;
                    prop_assert!(!refused.closes && refusals < 3000, "{refused:?} after {refusals}");
                    let wait = u64::try_from(refused.retry_after.as_micros()).unwrap();
                    due.push(Reverse((at + wait.div_ceil(1000) * 1000 + delay_us, number)));
                }
            }
        }
        prop_assert_eq!(order.len(), burst);
        if bodies.iter().all(|bytes| *bytes < 1000) {
            prop_assert!(order.is_sorted(), "{:?}", order);
        }
    }
}
