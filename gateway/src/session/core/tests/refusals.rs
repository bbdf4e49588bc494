//! Refusals that end a connection, and those by the limits of an address.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use presence::host::reloadable::Reloadable;

use super::*;
use crate::quota::{LimitKind, OwnerLimits, QuotaLimits, Quotas, RateLimit};
use crate::session::liveness::LivenessAction;

#[test]
fn fifth_unknown_token_closes_the_connection() {
    let mut core = core();
    for guess in 1..=5 {
        ask(&mut core, resume("ann", &[]));
        let expected: &[&str] = if guess < 5 { &["resume_failed"] } else { &["resume_failed", "close rate_limited"] };
        assert_eq!(summary(&fail(&mut core, ErrorCode::ResumeFailed)), expected);
        // A nickname in use is no guess.
        ask(&mut core, register("ann"));
        assert_eq!(summary(&fail(&mut core, ErrorCode::NickInUse)), ["nick_in_use"]);
    }
}

#[test]
fn half_done_resume_ends_the_connection() {
    let mut core = core();
    ask(&mut core, resume("ann", &[]));
    assert_eq!(summary(&fail(&mut core, ErrorCode::ResumeFailed)), ["resume_failed"]);
    resume_to(&mut core, resume("ann", &[]), &["#a"]);
    assert_eq!(summary(&fail(&mut core, ErrorCode::Unavailable)), ["unavailable", "close restart"]);
}

#[test]
fn resume_goes_on_without_a_refused_room() {
    let mut core = core();
    resume_to(&mut core, resume("ann", &["#a"]), &["#a", "#b"]);
    assert_eq!(summary(&succeed(&mut core, OperationOutcome::NotAdmitted)), ["do Join"]);
    assert_eq!(summary(&succeed(&mut core, joined("#b"))), ["do FindInboxEnd"]);
    let last = succeed(&mut core, OperationOutcome::InboxEnd(inbox()));
    assert_eq!(summary(&last), ["Registered", "enter ann after i 2"]);
    assert!(!format!("{:?}", last[0]).contains("#a"), "{last:?}");
    assert_eq!(core.rooms().map(RoomName::as_str).collect::<Vec<_>>(), ["#b"]);
}

/// A table of quotas with one registration a minute of an address, and three messages.
fn quotas() -> Quotas {
    let address = OwnerLimits::from_each(|kind| match kind {
        LimitKind::Registrations => RateLimit::per_minute(1, 1),
        LimitKind::Messages => RateLimit::per_second(1, 3),
        _ => RateLimit::per_second(0, 1),
    });
    Quotas::new("parley", Reloadable::from(Arc::new(QuotaLimits { address, ..QuotaLimits::default() })))
}

fn core_at(quotas: &Quotas) -> Core {
    let mut core = core();
    core.count_for_address(quotas.take_seat(IpAddr::from(Ipv4Addr::LOCALHOST).into(), 99).unwrap());
    core
}

#[test]
fn failed_registration_costs_its_address_nothing() {
    let quotas = quotas();
    let [mut first, mut second] = [(); 2].map(|()| core_at(&quotas));
    // The operation is dropped with its effects, as when it fails.
    assert_eq!(summary(&ask(&mut first, register("ann"))), ["do Begin"]);
    fail(&mut first, ErrorCode::NickInUse);
    let effects = ask(&mut second, register("bob"));
    assert_eq!(summary(&effects), ["do Begin"]);
    assert_eq!(summary(&ask(&mut first, register("ann"))), ["rate_limited"], "one is under way");
    drop(effects);
    succeed(&mut second, begun("bob", 1));
    assert_eq!(summary(&ask(&mut second, register("bob"))), ["already_registered"]);
    assert_eq!(summary(&ask(&mut first, register("ann"))), ["do Begin"]);
}

#[test]
fn refused_messages_of_an_address_queue_up() {
    let quotas = quotas();
    let (mut core, now) = (core_at(&quotas), Instant::now());
    let mut wait = |after: Duration| {
        let (limits, command) = (SessionLimits::open(), send("#a"));
        let effects = core.request(now + after, &limits, Request { id: None, command });
        let Some(Effect::Reply(Reply { answer: Answer::Refused(refusal), .. })) = effects.first() else { return 0 };
        refusal.retry_after_ms.unwrap_or(0)
    };
    // Three are admitted to be refused for another reason: the client has not registered.
    assert_eq!([wait(Duration::ZERO), wait(Duration::ZERO), wait(Duration::ZERO)], [0, 0, 0]);
    let second = |seconds| Duration::from_secs(seconds);
    let waits = [wait(Duration::ZERO), wait(Duration::ZERO), wait(second(1)), wait(second(1))];
    assert_eq!(waits, [1000, 2000, 0, 2000], "each has a time behind those before it");
    assert_eq!([wait(second(2)), wait(second(3))], [0, 0]);
}

#[test]
fn answered_ping_leaves_no_charge() {
    let mut core = registered("ann");
    let one = SessionLimits::from_each(|kind| Ok::<_, ()>(SessionLimits::default().of(kind).with(1, 1))).unwrap();
    let mut now = Instant::now() + Duration::from_secs(31);
    assert_eq!(core.liveness_mut().due(now), LivenessAction::Ping);
    for (expected, input) in [(true, "the pong"), (true, "the allowance of a second"), (false, "one more")] {
        now += Duration::from_millis(1);
        assert_eq!(core.admits_input(now, &one), expected, "{input}");
    }
}
