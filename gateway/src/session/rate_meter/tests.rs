#![allow(clippy::unwrap_used)]

use super::*;

const RATE: u64 = 2 * 1024 * 1024;
const LARGE: usize = 64 * 1024;
const ROOM: &str = "#room";

/// A clock with a table of one room and senders by number.
struct MeteredRoom {
    table: MeterTable<&'static str>,
    senders: Vec<(SessionId, Nick)>,
    now: Instant,
}

impl MeteredRoom {
    fn new(senders: usize) -> Self {
        let sender = |number| (SessionId::random(), Nick::parse(&format!("sender{number}")).unwrap());
        Self { table: MeterTable::default(), senders: (0..senders).map(sender).collect(), now: Instant::now() }
    }

    fn send(&mut self, sender: usize, bytes: usize) -> Result<(), OverRate> {
        let (session, nick) = &self.senders[sender];
        self.table.admit(self.now, RATE, &ROOM, SendCharge { session, nick, bytes })
    }

    /// Lets senders send large messages without pause for some seconds. Returns the admitted bytes of each.
    fn flood(&mut self, senders: std::ops::Range<usize>, seconds: u64) -> Vec<usize> {
        let mut admitted = vec![0; senders.len()];
        for _ in 0..seconds * 1000 {
            self.now += Duration::from_millis(1);
            for sender in senders.clone() {
                if self.send(sender, LARGE).is_ok() {
                    admitted[sender - senders.start] += LARGE;
                }
            }
        }
        admitted
    }
}

#[test]
fn flooding_sender_gets_the_rate_and_no_more() {
    let mut room = MeteredRoom::new(1);
    let bytes = room.flood(0..1, 10)[0] as f64;
    let expected = 10.0 * RATE as f64;
    assert!((expected * 0.95..expected * 1.15).contains(&bytes), "{bytes} of {expected}");
}

#[test]
fn quiet_member_passes_beside_any_number_of_floods() {
    for floods in [1, 2, 10, 30] {
        let mut room = MeteredRoom::new(floods + 1);
        for _ in 0..20 {
            room.flood(0..floods, 1);
            assert_eq!(room.send(floods, 300), Ok(()), "beside {floods}");
        }
    }
}

#[test]
fn equal_floods_share_the_rate() {
    let admitted = MeteredRoom::new(4).flood(0..4, 20);
    let mean = admitted.iter().sum::<usize>() as f64 / 4.0;
    assert!(admitted.iter().all(|bytes| (0.6..1.4).contains(&(*bytes as f64 / mean))), "{admitted:?}");
}

#[test]
fn largest_of_two_senders_is_refused_first() {
    let mut room = MeteredRoom::new(2);
    let (mut small_refused, mut large_refused) = (0, 0);
    for _ in 0..10_000 {
        room.now += Duration::from_millis(1);
        // 1 MB/s beside an unbounded flood: below an equal share.
        small_refused += u32::from(room.send(1, 1000).is_err());
        large_refused += u32::from(room.send(0, LARGE).is_err());
    }
    assert_eq!((small_refused, large_refused > 1000), (0, true));
}

#[test]
fn refused_message_fits_after_its_pause() {
    let mut room = MeteredRoom::new(3);
    for step in 0_usize..2000 {
        let (sender, bytes) = (step % 3, 200 + step * 37 % LARGE);
        if let Err(OverRate { retry_after, .. }) = room.send(sender, bytes) {
            assert!(retry_after > Duration::ZERO && retry_after < Duration::from_secs(2), "{retry_after:?}");
            room.now += retry_after + Duration::from_micros(1);
            assert_eq!(room.send(sender, bytes), Ok(()), "step {step}");
        }
    }
}

#[test]
fn largest_message_passes_at_the_lowest_rate() {
    let (session, nick) = (SessionId::random(), Nick::parse("ann").unwrap());
    let (mut table, mut now) = (MeterTable::default(), Instant::now());
    let charge = SendCharge { session: &session, nick: &nick, bytes: LARGE + 200 };
    for _ in 0..20 {
        if let Err(OverRate { retry_after, .. }) = table.admit(now, 16 * 1024, &ROOM, charge) {
            now += retry_after + Duration::from_micros(1);
            assert_eq!(table.admit(now, 16 * 1024, &ROOM, charge), Ok(()));
        }
    }
}

#[test]
fn refunded_message_leaves_no_use() {
    let mut room = MeteredRoom::new(1);
    for _ in 0..1000 {
        assert_eq!(room.send(0, LARGE), Ok(()));
        let session = room.senders[0].0.clone();
        room.table.refund(RATE, &ROOM, &session, LARGE);
    }
}

#[test]
fn quiet_meters_are_dropped() {
    let mut room = MeteredRoom::new(1);
    room.flood(0..1, 2);
    let (session, nick) = room.senders[0].clone();
    let other = ["#other"];
    let charge = SendCharge { session: &session, nick: &nick, bytes: 10 };
    room.now += Duration::from_secs(60);
    assert!(room.table.take_ended(room.now, &ROOM).is_some());
    room.table.admit(room.now, RATE, &other[0], charge).unwrap();
    assert_eq!(room.table.meters.len(), 1, "the flooded room is forgotten");
    room.now += Duration::from_secs(2);
    room.table.admit(room.now, RATE, &ROOM, charge).unwrap();
    assert_eq!(room.table.meters.len(), 1, "a room with one small message is forgotten too");
}

#[test]
fn episode_has_one_begin_and_one_end() {
    let mut room = MeteredRoom::new(2);
    room.send(1, 100).unwrap();
    let mut begun = Vec::new();
    for _ in 0..5000 {
        room.now += Duration::from_millis(1);
        begun.extend(room.send(0, LARGE).err().and_then(|refused| refused.begun_by));
        assert_eq!(room.table.take_ended(room.now, &ROOM), None);
    }
    assert_eq!(begun, [room.senders[0].1.clone()], "the flooding sender is named once");
    room.now += EPISODE_QUIET;
    let episode = room.table.take_ended(room.now, &ROOM).unwrap();
    assert!(episode.messages > 1000 && episode.bytes > 1000 * LARGE as u64 && episode.first < episode.last);
    assert_eq!(room.table.take_ended(room.now, &ROOM), None);
    assert_eq!(room.table.episodes, 0);
}

#[test]
fn meters_of_many_receivers_are_few() {
    let (session, nick) = (SessionId::random(), Nick::parse("ann").unwrap());
    let (mut table, mut now) = (MeterTable::default(), Instant::now());
    let charge = SendCharge { session: &session, nick: &nick, bytes: 200 };
    let mut most = 0;
    // One session writes to 100,000 receivers, 5,000 a second.
    for receiver in 0..100_000 {
        now += Duration::from_micros(200);
        table.admit(now, RATE, &receiver, charge).unwrap();
        most = most.max(table.meters.len());
    }
    assert!(most <= 10_001, "{most} meters");
    now += SWEEP_INTERVAL;
    table.admit(now, RATE, &0, charge).unwrap();
    assert_eq!(table.meters.len(), 1);
}

#[test]
fn meter_forgets_senders_that_left() {
    let (mut table, mut now) = (MeterTable::default(), Instant::now());
    let nick = Nick::parse("ann").unwrap();
    for _ in 0..20_000 {
        now += Duration::from_millis(1);
        let session = SessionId::random();
        table.admit(now, RATE, &ROOM, SendCharge { session: &session, nick: &nick, bytes: 1000 }).unwrap();
    }
    let senders = table.meters[ROOM].senders.len();
    assert!(senders <= 3000, "{senders} senders of the last seconds");
}

#[test]
fn episodes_of_many_rooms_are_bounded() {
    let (session, nick) = (SessionId::random(), Nick::parse("ann").unwrap());
    let (mut table, mut now) = (MeterTable::default(), Instant::now());
    let charge = SendCharge { session: &session, nick: &nick, bytes: LARGE };
    let mut begun = 0;
    for room in 0..100 {
        for _ in 0..100 {
            let refused = table.admit(now, RATE, &room, charge).err();
            begun += usize::from(refused.is_some_and(|refused| refused.begun_by.is_some()));
        }
        assert!(table.admit(now, RATE, &room, charge).is_err(), "room {room} is not limited");
    }
    assert_eq!(begun, EPISODES_MAX);
    now += EPISODE_QUIET;
    let ended = (0..100).filter(|room| table.take_ended(now, room).is_some()).count();
    assert_eq!((ended, table.episodes), (EPISODES_MAX, 0));
    now += SWEEP_INTERVAL * 60;
    table.admit(now, RATE, &0, charge).unwrap();
    assert_eq!(table.meters.len(), 1, "limited rooms are forgotten too");
}
