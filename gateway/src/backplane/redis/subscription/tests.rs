#![allow(clippy::unwrap_used)]

use super::*;

/// The machine with a clock of its own, in milliseconds from its start.
struct Rig {
    machine: Subscriptions,
    start: Instant,
}

fn room(name: &str) -> Input {
    Input::Want(name.into(), RoomKey::from_store(name))
}

fn unwant(name: &str) -> Input {
    Input::Unwant(name.into())
}

fn listen(name: &str) -> Input {
    Input::Listen(name.into(), Incarnation::from_store(name))
}

const LOST: Input = Input::Lost { dice: 0.0 };

impl Rig {
    fn new() -> Self {
        let start = Instant::now();
        Self { machine: Subscriptions::new(start), start }
    }

    /// Connected and whole with these rooms and the gateway channel `gw`, at 0.
    fn whole(rooms: &[&str]) -> Self {
        let mut rig = Self::new();
        rig.at(0, listen("gw"));
        for name in rooms {
            rig.at(0, room(name));
        }
        rig.at(0, Input::Time);
        rig.at(0, Input::Connected);
        rig.answer_all(0);
        assert_eq!(rig.link(), LinkState::Subscribed);
        rig
    }

    /// What the input makes it do, one word per action, channels of a command sorted.
    fn at(&mut self, ms: u64, input: Input) -> String {
        let mut actions = Vec::new();
        self.machine.handle(self.start + Duration::from_millis(ms), input, &mut actions);
        let words = actions.into_iter().map(|action| match action {
            Action::Connect => "connect".to_owned(),
            Action::Abandon => "abandon".to_owned(),
            Action::Subscribe(channels) => format!("subscribe[{}]", sorted(&channels)),
            Action::Unsubscribe(channels) => format!("unsubscribe[{}]", sorted(&channels)),
            Action::Heard(channel) => format!("heard[{channel}]"),
            Action::Resumed => "resumed".to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Answers until no command is on its way. Returns all actions.
    fn answer_all(&mut self, ms: u64) -> String {
        let mut all = Vec::new();
        while self.machine.on_its_way.is_some() {
            all.push(self.at(ms, Input::Answered));
        }
        all.join(" ").trim().to_owned()
    }

    fn link(&self) -> LinkState {
        self.machine.status().link
    }

    fn deadline(&self) -> Option<u128> {
        self.machine.deadline().map(|at| at.saturating_duration_since(self.start).as_millis())
    }
}

fn sorted(channels: &[Channel]) -> String {
    let mut names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.join(",")
}

/// Plays steps of `(time, input, expected actions)`.
fn play(rig: &mut Rig, steps: impl IntoIterator<Item = (u64, Input, &'static str)>) {
    for (ms, input, expected) in steps {
        let shown = format!("{input:?} at {ms} ms");
        assert_eq!(rig.at(ms, input), expected, "{shown}");
    }
}

#[test]
fn the_first_connection_asks_for_everything_and_resumes_nothing() {
    let mut rig = Rig::new();
    assert_eq!(rig.deadline(), Some(0));
    play(
        &mut rig,
        [
            (0, listen("gw"), ""),
            (0, room("a"), ""),
            (0, Input::Time, "connect"),
            (1, room("b"), ""),
            (5, Input::Connected, "subscribe[a,b,gw]"),
        ],
    );
    assert_eq!(rig.link(), LinkState::Connecting);
    let heard = rig.at(6, Input::Answered);
    assert!(heard.starts_with("heard[gw]") && heard.contains("heard[a]") && heard.contains("heard[b]"), "{heard}");
    assert_eq!((rig.link(), rig.machine.status().reconnects), (LinkState::Subscribed, 0));
}

#[test]
fn one_command_at_a_time_and_what_comes_meanwhile_goes_with_the_next() {
    let mut rig = Rig::whole(&[]);
    play(
        &mut rig,
        [
            (1, room("a"), "subscribe[a]"),
            (2, room("b"), ""),
            (2, room("c"), ""),
            (2, room("b"), ""),
            (3, Input::Answered, "heard[a] subscribe[b,c]"),
            (3, room("a"), "heard[a]"),
            (4, Input::Answered, "heard[b] heard[c]"),
        ],
    );
}

#[test]
fn commands_are_cut_into_chunks() {
    let mut rig = Rig::new();
    for name in 0..1201 {
        rig.at(0, room(&name.to_string()));
    }
    rig.at(0, Input::Time);
    let mut sizes = Vec::new();
    let mut actions = rig.at(0, Input::Connected);
    while !actions.is_empty() {
        if let Some((_, command)) = actions.split_once("subscribe[") {
            sizes.push(command.split(',').count());
        }
        assert_ne!(rig.link(), LinkState::Subscribed, "not whole before the last answer");
        actions = rig.at(1, Input::Answered);
        if rig.machine.on_its_way.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 201]);
    assert_eq!(rig.link(), LinkState::Subscribed);
}

#[test]
fn a_room_lingers_and_a_quick_return_is_heard_at_once() {
    let mut rig = Rig::whole(&["a"]);
    play(&mut rig, [(1000, Input::Echo, ""), (1000, unwant("a"), "")]);
    rig.at(29_000, Input::Echo);
    play(&mut rig, [(30_999, Input::Time, ""), (30_999, room("a"), "heard[a]"), (31_000, Input::Time, "")]);
    play(&mut rig, [(31_500, Input::Echo, ""), (32_000, unwant("a"), "")]);
    rig.at(61_000, Input::Echo);
    play(
        &mut rig,
        [
            (62_000, Input::Time, "unsubscribe[a]"),
            (62_000, room("a"), ""),
            (62_001, Input::Answered, "subscribe[a]"),
            (62_002, Input::Answered, "heard[a]"),
        ],
    );
}

#[test]
fn two_interests_need_two_farewells() {
    let mut rig = Rig::whole(&["a", "a"]);
    rig.at(0, unwant("a"));
    rig.at(29_000, Input::Echo);
    play(&mut rig, [(31_000, Input::Time, ""), (31_000, unwant("a"), "")]);
    rig.at(60_000, Input::Echo);
    play(&mut rig, [(61_000, Input::Time, "unsubscribe[a]")]);
}

#[test]
fn a_room_given_up_while_it_is_asked_for_ends_with_the_answer() {
    let mut rig = Rig::whole(&[]);
    play(&mut rig, [(0, room("a"), "subscribe[a]"), (1, unwant("a"), "")]);
    assert_eq!(rig.deadline(), Some(3000), "a passed deadline must not come again");
    play(&mut rig, [(2, Input::Answered, "unsubscribe[a]"), (3, Input::Answered, "")]);
    assert!(rig.machine.topic("a").is_none());
    play(
        &mut rig,
        [
            (4, room("a"), "subscribe[a]"),
            (5, unwant("a"), ""),
            (6, room("a"), ""),
            (7, Input::Answered, "heard[a]"),
            (8, Input::Time, ""),
        ],
    );
}

#[test]
fn a_room_given_up_before_it_could_be_asked_for_is_never_asked_for() {
    let mut rig = Rig::new();
    play(&mut rig, [(0, room("a"), ""), (0, unwant("a"), ""), (0, Input::Time, "connect"), (1, Input::Connected, "")]);
    assert_eq!(rig.link(), LinkState::Subscribed);
}

#[test]
fn a_lost_connection_is_made_again_whole_and_said_once() {
    let mut rig = Rig::whole(&["a", "b"]);
    play(&mut rig, [(1000, LOST, "")]);
    assert_eq!((rig.link(), rig.deadline()), (LinkState::Backoff, Some(1050)));
    play(&mut rig, [(1050, Input::Time, "connect")]);
    assert_eq!(rig.link(), LinkState::Connecting);
    play(&mut rig, [(1060, Input::Connected, "subscribe[a,b,gw]")]);
    let actions = rig.at(3000, Input::Answered);
    assert!(actions.ends_with("resumed"), "{actions}");
    let status = rig.machine.status();
    assert_eq!((status.link, status.reconnects, status.broken_since), (LinkState::Subscribed, 1, None));
    assert_eq!(status.gap(Instant::now()), Duration::from_secs(2));
}

#[test]
fn a_connection_that_dies_again_before_it_is_whole_says_nothing_twice() {
    let mut rig = Rig::whole(&["a"]);
    play(
        &mut rig,
        [
            (0, LOST, ""),
            (50, Input::Time, "connect"),
            (60, Input::Connected, "subscribe[a,gw]"),
            (70, LOST, ""),
            (200, Input::Time, "connect"),
            (210, LOST, ""),
            (1000, Input::Time, "connect"),
            (1010, Input::Connected, "subscribe[a,gw]"),
        ],
    );
    assert!(rig.at(1020, Input::Answered).ends_with("resumed"));
    assert_eq!(rig.machine.status().reconnects, 1);
    assert_eq!(rig.machine.status().gap(rig.start), Duration::from_millis(1020));
}

#[test]
fn rooms_that_come_while_it_is_restored_do_not_keep_it_from_becoming_whole() {
    let mut rig = Rig::whole(&["a"]);
    play(
        &mut rig,
        [(0, LOST, ""), (50, Input::Time, "connect"), (60, Input::Connected, "subscribe[a,gw]"), (61, room("b"), "")],
    );
    let actions = rig.at(62, Input::Answered);
    assert!(actions.ends_with("resumed subscribe[b]"), "{actions}");
}

#[test]
fn what_lingered_does_not_survive_a_loss() {
    let mut rig = Rig::whole(&["a"]);
    play(
        &mut rig,
        [
            (0, unwant("a"), ""),
            (1, LOST, ""),
            (51, Input::Time, "connect"),
            (52, Input::Connected, "subscribe[gw]"),
            (53, Input::Answered, "heard[gw] resumed"),
        ],
    );
}

#[test]
fn silence_makes_it_stale_then_dead_and_an_echo_makes_it_good() {
    let mut rig = Rig::whole(&["a"]);
    assert_eq!(rig.deadline(), Some(3000));
    play(&mut rig, [(2000, Input::Echo, ""), (4999, Input::Time, "")]);
    assert_eq!((rig.link(), rig.deadline()), (LinkState::Subscribed, Some(5000)));
    play(&mut rig, [(5000, Input::Time, "")]);
    assert_eq!((rig.link(), rig.deadline()), (LinkState::Stale, Some(7000)));
    play(&mut rig, [(6000, Input::Echo, "")]);
    assert_eq!((rig.link(), rig.deadline()), (LinkState::Subscribed, Some(9000)));
    play(&mut rig, [(9000, Input::Time, ""), (11_000, Input::Time, "abandon"), (11_000, LOST, "")]);
    assert_eq!(rig.link(), LinkState::Backoff);
}

#[test]
fn without_a_channel_of_our_own_silence_proves_nothing() {
    let mut rig = Rig::new();
    rig.at(0, Input::Time);
    rig.at(0, Input::Connected);
    assert_eq!((rig.link(), rig.deadline()), (LinkState::Subscribed, None));
    // Listening long after that starts the time anew.
    play(&mut rig, [(60_000, listen("gw"), "subscribe[gw]"), (60_001, Input::Time, "")]);
    assert_eq!(rig.deadline(), Some(63_000));
}

#[test]
fn a_new_incarnation_replaces_the_old_channel() {
    let mut rig = Rig::whole(&[]);
    play(
        &mut rig,
        [
            (1, listen("gw"), "heard[gw]"),
            (1, listen("gw2"), "unsubscribe[gw]"),
            (2, Input::Answered, "subscribe[gw2]"),
            (3, Input::Answered, "heard[gw2]"),
            (4, LOST, ""),
            (60, Input::Time, "connect"),
            (61, Input::Connected, "subscribe[gw2]"),
        ],
    );
    assert!(rig.machine.topic("gw").is_none());
}

#[test]
fn pauses_grow_to_their_limit_and_only_an_echo_resets_them() {
    let pause = |rig: &mut Rig, dice: f64| {
        rig.at(0, Input::Lost { dice });
        let pause = rig.deadline().unwrap();
        rig.at(u64::try_from(pause).unwrap(), Input::Time);
        pause
    };
    let mut rig = Rig::whole(&["a"]);
    let longest: Vec<u128> = (0..8).map(|_| pause(&mut rig, 1.0)).collect();
    assert_eq!(longest, [100, 100, 200, 400, 800, 1600, 2000, 2000]);
    for _ in 0..100 {
        assert_eq!(pause(&mut rig, 0.0), 50, "never a pause of nothing");
    }
    rig.at(0, Input::Connected);
    rig.answer_all(0);
    assert_eq!(pause(&mut rig, 1.0), 2000, "being connected proves little");
    rig.at(0, Input::Connected);
    rig.answer_all(0);
    rig.at(0, Input::Echo);
    assert_eq!(pause(&mut rig, 1.0), 100);
}

/// Whatever happens: at most one command is on its way, none is empty or too long, a channel is never asked for twice
/// without an UNSUBSCRIBE or a loss in between, and in the end everything wanted is heard and nothing else.
mod any_history {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ends_with_exactly_what_is_wanted(steps in prop::collection::vec((0_u8..7, 0_u8..5, 0_u64..20_000), 1..120)) {
            let start = Instant::now();
            let mut machine = Subscriptions::new(start);
            let mut server: HashSet<Channel> = HashSet::new();
            let mut interest = [0_u32; 5];
            let mut connected = false;
            let mut connecting = false;
            let mut on_its_way: Option<Action> = None;
            let mut now = start;
            let settle = (0..400_u64).map(|_| (7, 0, 1000));
            for (what, which, pass) in steps.into_iter().chain(settle) {
                now += Duration::from_millis(pass);
                let name: Channel = format!("r{which}").into();
                let mut inputs = vec![];
                match what {
                    0 | 1 => {
                        interest[usize::from(which)] += 1;
                        inputs.push(Input::Want(name, RoomKey::from_store("r")));
                    }
                    2 if interest[usize::from(which)] > 0 => {
                        interest[usize::from(which)] -= 1;
                        inputs.push(Input::Unwant(name));
                    }
                    3 if connected || connecting => {
                        (connected, connecting, on_its_way) = (false, false, None);
                        server.clear();
                        inputs.push(Input::Lost { dice: 0.5 });
                    }
                    4 | 7 if connecting => {
                        (connected, connecting) = (true, false);
                        inputs.push(Input::Connected);
                    }
                    5 | 7 if on_its_way.is_some() => match on_its_way.take() {
                        Some(Action::Subscribe(channels)) => {
                            for channel in channels {
                                prop_assert!(server.insert(channel), "asked for what is heard");
                            }
                            inputs.push(Input::Answered);
                        }
                        Some(Action::Unsubscribe(channels)) => {
                            for channel in channels {
                                prop_assert!(server.remove(&channel), "gave up what is not heard");
                            }
                            inputs.push(Input::Answered);
                        }
                        _ => {}
                    },
                    _ => {}
                }
                if machine.deadline().is_some_and(|at| at <= now) {
                    inputs.push(Input::Time);
                }
                for input in inputs {
                    let mut actions = Vec::new();
                    machine.handle(now, input, &mut actions);
                    for action in actions {
                        match &action {
                            Action::Connect => connecting = true,
                            Action::Subscribe(channels) | Action::Unsubscribe(channels) => {
                                prop_assert!(connected && on_its_way.is_none());
                                prop_assert!(!channels.is_empty() && channels.len() <= CHUNK);
                                on_its_way = Some(action);
                            }
                            Action::Heard(channel) => prop_assert!(server.contains(channel)),
                            Action::Resumed => prop_assert!(connected),
                            Action::Abandon => prop_assert!(false, "no channel of our own"),
                        }
                    }
                }
                prop_assert!(machine.deadline().is_none_or(|at| at > now), "a deadline that does not pass");
            }
            let wanted: HashSet<Channel> =
                (0..5).filter(|&at| interest[at] > 0).map(|at| format!("r{at}").into()).collect();
            prop_assert_eq!(server, wanted);
        }
    }
}
