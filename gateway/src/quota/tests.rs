#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::host::client_address::ClientAddress;
use presence::host::reloadable::Reloadable;
use presence::model::{Incarnation, UserId};
use presence::registry::UsageReport;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn address(number: u32) -> ClientAddress {
    IpAddr::from(Ipv4Addr::from_bits(number)).into()
}

/// Limits of 100 messages per second and 200 at once, 30 registrations per minute, and this many connections.
fn limits(seats: usize) -> Reloadable<Arc<QuotaLimits>> {
    let of_owner = OwnerLimits::from_each(|kind| match kind {
        LimitKind::Messages => RateLimit::per_second(100, 200),
        LimitKind::Registrations => RateLimit::per_minute(30, 30),
        _ => RateLimit::per_second(0, 1),
    });
    Reloadable::from(Arc::new(QuotaLimits { address: of_owner, user: of_owner, seats }))
}

/// A gateway that exchanges usage with others.
struct QuotaNode {
    quotas: Quotas,
    incarnation: Incarnation,
    read: usize,
}

impl QuotaNode {
    fn new(name: &str, seats: usize) -> Self {
        Self { quotas: Quotas::new("parley", limits(seats)), incarnation: Incarnation::from_store(name), read: 0 }
    }

    /// Exchanges usage as a beat does.
    fn beat(&mut self, now: Instant, log: &mut Vec<UsageReport>) {
        let (text, _) = self.quotas.take_report(now);
        if !text.is_empty() {
            log.push(UsageReport { id: log.len().to_string(), by: self.incarnation.clone(), text });
        }
        self.quotas.note_reports(now, &self.incarnation, &log[self.read..]);
        self.read = log.len();
    }

    fn session(&self, from: ClientAddress) -> SessionQuotas {
        SessionQuotas { address: self.quotas.take_seat(from, usize::MAX), user: None }
    }
}

/// Sends one message. Returns true if it is admitted.
fn sends(session: &SessionQuotas, now: Instant) -> bool {
    session.admit(now, &[(LimitKind::Messages, 1)].into_iter()).is_ok()
}

#[test]
fn sessions_of_an_address_share_its_limit() {
    let node = QuotaNode::new("g1", 256);
    let (first, second, other) = (node.session(address(1)), node.session(address(1)), node.session(address(2)));
    let now = Instant::now();
    let admitted = (0..1000).filter(|number| sends([&first, &second][number % 2], now)).count();
    assert_eq!(admitted, 200);
    let refused = first.admit(now, &[(LimitKind::Messages, 1)].into_iter()).unwrap_err();
    assert_eq!((refused.kind, refused.owner), (LimitKind::Messages, LimitOwner::Address));
    assert_eq!(refused.retry_after, Duration::from_millis(10), "the exact time");
    assert!(!sends(&second, now + refused.retry_after - Duration::from_micros(1)));
    assert!(sends(&second, now + refused.retry_after));
    assert!(sends(&other, now), "another address has its own");
}

#[test]
fn user_is_counted_beside_its_addresses() {
    let node = QuotaNode::new("g1", 256);
    let user = Some(node.quotas.of_user(&UserId::parse("ann").unwrap()));
    let sessions = [1, 2].map(|number| SessionQuotas { user: user.clone(), ..node.session(address(number)) });
    let now = Instant::now();
    assert_eq!((0..1000).filter(|number| sends(&sessions[number % 2], now)).count(), 200);
    let refused = sessions[0].admit(now, &[(LimitKind::Messages, 1)].into_iter()).unwrap_err();
    assert_eq!(refused.owner, LimitOwner::User);
    let guest = node.session(address(1));
    assert_eq!((0..1000).filter(|_| sends(&guest, now)).count(), 100, "a refused message spent nothing of its address");
}

#[test]
fn unit_returns_unless_it_is_kept() {
    let node = QuotaNode::new("g1", 256);
    let session = node.session(address(1));
    let address = session.address.clone().unwrap();
    let (now, registers) = (Instant::now(), [(LimitKind::Registrations, 1)]);
    for _ in 0..100 {
        session.admit(now, &registers.into_iter()).unwrap();
        drop(address.hold(LimitKind::Registrations));
    }
    for _ in 0..30 {
        session.admit(now, &registers.into_iter()).unwrap();
        address.hold(LimitKind::Registrations).keep();
    }
    assert_eq!(session.admit(now, &registers.into_iter()).unwrap_err().retry_after, Duration::from_secs(2));
}

#[test]
fn units_beyond_the_limit_are_paid_back() {
    let node = QuotaNode::new("g1", 256);
    let (quota, now) = (node.quotas.take_seat(address(1), 1).unwrap(), Instant::now());
    for _ in 0..3 {
        assert_eq!(quota.check(now, LimitKind::Registrations), Ok(()), "a check spends nothing");
    }
    (0..35).for_each(|_| quota.charge(now, LimitKind::Registrations));
    // 30 at once and one in two seconds.
    let wait = Duration::from_secs(12);
    assert_eq!(quota.check(now, LimitKind::Registrations), Err(wait));
    assert_eq!(quota.check(now + wait, LimitKind::Registrations), Ok(()));
}

#[test]
fn gateways_together_admit_at_most_the_bound() {
    const GATEWAYS: usize = 4;
    const SECONDS: u64 = 120;
    let mut nodes: Vec<QuotaNode> = (0..GATEWAYS).map(|number| QuotaNode::new(&format!("g{number}"), 256)).collect();
    let sessions: Vec<SessionQuotas> = nodes.iter().map(|node| node.session(address(1))).collect();
    let (began, mut log, mut admitted) = (Instant::now(), Vec::new(), 0_u64);
    let mut late = 0_u64;
    for step in 0..SECONDS * 100 {
        let now = began + Duration::from_millis(step * 10);
        for session in &sessions {
            let count = (0..10).filter(|_| sends(session, now)).count() as u64;
            admitted += count;
            late += if step >= SECONDS * 50 { count } else { 0 };
        }
        // Each gateway beats once a second, at a moment of its own.
        let due = (step % 100) as usize;
        if let Some(node) = nodes.get_mut(due / 25).filter(|_| due.is_multiple_of(25)) {
            node.beat(now, &mut log);
        }
    }
    let (rate, burst, gateways) = (100, 200, GATEWAYS as u64);
    let most = rate * SECONDS + burst + gateways * (burst / 8) + gateways * (burst + 2 * rate);
    println!(
        "{admitted} messages of one address over {GATEWAYS} gateways in {SECONDS} s, at most {most}; then {late} in 60 s"
    );
    assert!(admitted <= most, "{admitted} > {most}");
    assert!(admitted >= rate * SECONDS, "{admitted}: nothing is lost");
    assert!(late <= rate * SECONDS / 2 + gateways * (burst / 8 + 2 * rate), "{late}: the bursts were not paid back");
}

#[test]
fn reports_of_others_are_charged_and_lapse() {
    let (mut one, mut two) = (QuotaNode::new("g1", 256), QuotaNode::new("g2", 256));
    let (session, began, mut log) = (one.session(address(1)), Instant::now(), Vec::new());
    assert_eq!((0..1000).filter(|_| sends(&session, began)).count(), 200);
    one.beat(began, &mut log);
    assert_eq!(log.len(), 1);
    two.beat(began, &mut log);
    let elsewhere = two.session(address(1));
    assert!(!sends(&elsewhere, began), "the burst is spent on the other gateway");
    assert!(sends(&elsewhere, began + SECOND));
    assert_eq!((0..1000).filter(|_| sends(&elsewhere, began + 3 * SECOND)).count(), 200, "it has refilled");
    let other = two.session(address(2));
    assert!(sends(&other, began));
    for report in
        ["", "address", "address x messages=1", "planet 0123456789abcdef messages=1", "address 0123456789abcdef x"]
    {
        let unknown = UsageReport { id: "9".into(), by: Incarnation::from_store("g3"), text: report.into() };
        two.quotas.note_reports(began, &two.incarnation, &[unknown]);
    }
    assert!(sends(&other, began));
    assert_eq!(two.quotas.take_report(began).1, "9");
}

#[test]
fn seats_of_other_gateways_count_until_they_lapse() {
    let (mut one, mut two) = (QuotaNode::new("g1", 16), QuotaNode::new("g2", 16));
    let (now, mut log) = (Instant::now(), Vec::new());
    let held: Vec<Arc<Quota>> = (0..12).map(|_| one.quotas.take_seat(address(1), 16).unwrap()).collect();
    one.beat(now, &mut log);
    two.beat(now, &mut log);
    let here: Vec<Option<Arc<Quota>>> = (0..16).map(|_| two.quotas.take_seat(address(1), 16)).collect();
    assert_eq!(here.iter().flatten().count(), 4);
    assert!(two.quotas.take_seat(address(2), 16).is_some(), "another address has its own");
    held.iter().for_each(|quota| one.quotas.release_seat(quota));
    drop(held);
    one.beat(now + SECOND, &mut log);
    assert_eq!(log.len(), 1, "an idle address is not reported");
    // Reports of 3 s ago count no more; the table asks the clock, so the state is asked here.
    let quota = two.quotas.take_seat(address(1), 100).unwrap();
    let later = quota.rules.micros(now + 4 * SECOND);
    assert_eq!(quota.lock().seats_elsewhere(later), 0);
}

#[test]
fn table_forgets_what_is_over() {
    let mut node = QuotaNode::new("g1", 256);
    let quotas: Vec<Arc<Quota>> =
        (0..100_000).map(|number| node.quotas.take_seat(address(number), 1).unwrap()).collect();
    assert!(node.quotas.take_seat(address(5), 1).is_none(), "the share is used");
    quotas.iter().for_each(|quota| node.quotas.release_seat(quota));
    let (entries, capacity) = node.quotas.size();
    assert!(entries == 0 && capacity < 1000, "{entries} entries, {capacity}");
    assert!(node.quotas.take_seat(address(1), 0).is_none());
    assert_eq!(node.quotas.size().0, 0);

    let (now, mut log) = (Instant::now(), Vec::new());
    let session = node.session(address(1));
    assert!(sends(&session, now));
    node.quotas.release_seat(session.address.as_ref().unwrap());
    drop(session);
    assert_eq!(node.quotas.size().0, 1, "what it has spent is remembered");
    node.beat(now + SECOND, &mut log);
    assert_eq!(node.quotas.size().0, 0);
}

#[test]
fn report_names_the_largest_shares_only() {
    let node = QuotaNode::new("g1", 256);
    let now = Instant::now();
    for number in 0..200 {
        let session = node.session(address(number));
        assert_eq!((0..=number).filter(|_| sends(&session, now)).count(), number as usize + 1);
    }
    let (text, _) = node.quotas.take_report(now);
    assert_eq!(text.lines().count(), 64);
    assert!(text.len() < 4096 && !text.contains("0.0.0."), "{} bytes", text.len());
    assert!(text.lines().all(|line| line.starts_with("address ")) && text.contains("messages=200"), "{text}");
    assert!(!text.contains("messages=136\n"), "{text}");
    assert!(node.quotas.take_report(now).0.contains("messages=136"), "the next ones follow");
}

#[test]
fn quota_of_an_idle_address_stays_small() {
    println!("bytes: quota {}, activity {}", size_of::<Quota>(), size_of::<holder::QuotaActivity>());
    assert!(size_of::<Quota>() <= 64 && size_of::<SessionQuotas>() <= 16);
}
