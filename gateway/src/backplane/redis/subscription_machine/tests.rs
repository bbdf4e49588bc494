#![allow(clippy::unwrap_used)]

use super::*;

/// The machine and its clock, in milliseconds from its start.
struct MachineHarness {
    machine: SubscriptionMachine,
    start: Instant,
}

fn room(name: &str) -> SubscriptionInput {
    SubscriptionInput::Subscribe(name.into(), RoomKey::from_store(name))
}

fn unsubscribe(name: &str) -> SubscriptionInput {
    SubscriptionInput::Unsubscribe(name.into())
}

fn own_channel(name: &str) -> SubscriptionInput {
    SubscriptionInput::SubscribeOwnChannel(name.into(), Incarnation::from_store(name))
}

const LOST: SubscriptionInput = SubscriptionInput::Lost { jitter: 0.0 };

impl MachineHarness {
    fn new() -> Self {
        let start = Instant::now();
        Self { machine: SubscriptionMachine::new(start), start }
    }

    /// Returns a whole connection with these rooms and the gateway channel `gw`, at 0.
    fn whole(rooms: &[&str]) -> Self {
        let mut harness = Self::new();
        harness.at(0, own_channel("gw"));
        for name in rooms {
            harness.at(0, room(name));
        }
        harness.at(0, SubscriptionInput::Deadline);
        harness.at(0, SubscriptionInput::Connected);
        harness.answer_all(0);
        assert_eq!(harness.link(), LinkState::Subscribed);
        harness
    }

    /// Returns the actions that the input causes, one word each, with the channels of a command sorted.
    fn at(&mut self, ms: u64, input: SubscriptionInput) -> String {
        let mut actions = Vec::new();
        self.machine.handle(self.start + Duration::from_millis(ms), input, &mut actions);
        let words = actions.into_iter().map(|action| match action {
            SubscriptionAction::Connect => "connect".to_owned(),
            SubscriptionAction::Abandon => "abandon".to_owned(),
            SubscriptionAction::Subscribe(channels) => format!("subscribe[{}]", sorted(&channels)),
            SubscriptionAction::Unsubscribe(channels) => format!("unsubscribe[{}]", sorted(&channels)),
            SubscriptionAction::Confirmed(channel) => format!("confirmed[{channel}]"),
            SubscriptionAction::Refused(channel) => format!("refused[{channel}]"),
            SubscriptionAction::Restored => "restored".to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Answers until no command is pending. Returns all actions.
    fn answer_all(&mut self, ms: u64) -> String {
        let mut all = Vec::new();
        while self.machine.pending_command.is_some() {
            all.push(self.at(ms, SubscriptionInput::Answered));
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

fn sorted(channels: &[ChannelName]) -> String {
    let mut names: Vec<&str> = channels.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.join(",")
}

/// Plays steps of `(time, input, expected actions)`.
fn play(harness: &mut MachineHarness, steps: impl IntoIterator<Item = (u64, SubscriptionInput, &'static str)>) {
    for (ms, input, expected) in steps {
        let label = format!("{input:?} at {ms} ms");
        assert_eq!(harness.at(ms, input), expected, "{label}");
    }
}

#[test]
fn first_connection_subscribes_all_and_resumes_nothing() {
    let mut harness = MachineHarness::new();
    assert_eq!(harness.deadline(), Some(0));
    play(
        &mut harness,
        [
            (0, own_channel("gw"), ""),
            (0, room("a"), ""),
            (0, SubscriptionInput::Deadline, "connect"),
            (1, room("b"), ""),
            (5, SubscriptionInput::Connected, "subscribe[a,b,gw]"),
        ],
    );
    assert_eq!(harness.link(), LinkState::Connecting);
    let actions = harness.at(6, SubscriptionInput::Answered);
    assert!(
        actions.starts_with("confirmed[gw]") && actions.contains("confirmed[a]") && actions.contains("confirmed[b]"),
        "{actions}"
    );
    assert_eq!((harness.link(), harness.machine.status().reconnects), (LinkState::Subscribed, 0));
}

#[test]
fn requests_during_a_command_join_the_next_one() {
    let mut harness = MachineHarness::whole(&[]);
    play(
        &mut harness,
        [
            (1, room("a"), "subscribe[a]"),
            (2, room("b"), ""),
            (2, room("c"), ""),
            (2, room("b"), ""),
            (3, SubscriptionInput::Answered, "confirmed[a] subscribe[b,c]"),
            (3, room("a"), "confirmed[a]"),
            (4, SubscriptionInput::Answered, "confirmed[b] confirmed[c]"),
        ],
    );
}

#[test]
fn refused_rooms_leave_the_connection_whole() {
    let mut harness = MachineHarness::whole(&["a"]);
    assert!(!harness.machine.survives_refusal(), "no command is pending");
    play(&mut harness, [(1, room("b"), "subscribe[b]"), (1, room("b"), ""), (2, room("c"), "")]);
    assert!(harness.machine.survives_refusal());
    play(
        &mut harness,
        [
            (3, SubscriptionInput::Refused, "refused[b] subscribe[c]"),
            (4, unsubscribe("b"), ""),
            (5, SubscriptionInput::Answered, "confirmed[c]"),
            (6, room("b"), "subscribe[b]"),
            (7, SubscriptionInput::Answered, "confirmed[b]"),
            (8, own_channel("gw2"), "unsubscribe[gw]"),
        ],
    );
    assert_eq!(harness.link(), LinkState::Subscribed);
    assert!(!harness.machine.survives_refusal(), "an UNSUBSCRIBE is pending");
    play(&mut harness, [(9, SubscriptionInput::Answered, "subscribe[gw2]")]);
    assert!(!harness.machine.survives_refusal(), "the own channel must be subscribed");
}

#[test]
fn long_commands_are_split_into_batches() {
    let mut harness = MachineHarness::new();
    for name in 0..1201 {
        harness.at(0, room(&name.to_string()));
    }
    harness.at(0, SubscriptionInput::Deadline);
    let mut sizes = Vec::new();
    let mut actions = harness.at(0, SubscriptionInput::Connected);
    while !actions.is_empty() {
        if let Some((_, command)) = actions.split_once("subscribe[") {
            sizes.push(command.split(',').count());
        }
        assert_ne!(harness.link(), LinkState::Subscribed, "the connection became whole before the last answer");
        actions = harness.at(1, SubscriptionInput::Answered);
        if harness.machine.pending_command.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 201]);
    assert_eq!(harness.link(), LinkState::Subscribed);
}

#[test]
fn lingering_room_is_confirmed_at_once_on_return() {
    let mut harness = MachineHarness::whole(&["a"]);
    play(&mut harness, [(1000, SubscriptionInput::Echo, ""), (1000, unsubscribe("a"), "")]);
    harness.at(29_000, SubscriptionInput::Echo);
    play(
        &mut harness,
        [
            (30_999, SubscriptionInput::Deadline, ""),
            (30_999, room("a"), "confirmed[a]"),
            (31_000, SubscriptionInput::Deadline, ""),
        ],
    );
    play(&mut harness, [(31_500, SubscriptionInput::Echo, ""), (32_000, unsubscribe("a"), "")]);
    harness.at(61_000, SubscriptionInput::Echo);
    play(
        &mut harness,
        [
            (62_000, SubscriptionInput::Deadline, "unsubscribe[a]"),
            (62_000, room("a"), ""),
            (62_001, SubscriptionInput::Answered, "subscribe[a]"),
            (62_002, SubscriptionInput::Answered, "confirmed[a]"),
        ],
    );
}

#[test]
fn two_interests_need_two_unsubscribes() {
    let mut harness = MachineHarness::whole(&["a", "a"]);
    harness.at(0, unsubscribe("a"));
    harness.at(29_000, SubscriptionInput::Echo);
    play(&mut harness, [(31_000, SubscriptionInput::Deadline, ""), (31_000, unsubscribe("a"), "")]);
    harness.at(60_000, SubscriptionInput::Echo);
    play(&mut harness, [(61_000, SubscriptionInput::Deadline, "unsubscribe[a]")]);
}

#[test]
fn room_released_during_its_subscribe_ends_with_answer() {
    let mut harness = MachineHarness::whole(&[]);
    play(&mut harness, [(0, room("a"), "subscribe[a]"), (1, unsubscribe("a"), "")]);
    assert_eq!(harness.deadline(), Some(3000), "a passed deadline came again");
    play(&mut harness, [(2, SubscriptionInput::Answered, "unsubscribe[a]"), (3, SubscriptionInput::Answered, "")]);
    assert!(harness.machine.topic("a").is_none());
    play(
        &mut harness,
        [
            (4, room("a"), "subscribe[a]"),
            (5, unsubscribe("a"), ""),
            (6, room("a"), ""),
            (7, SubscriptionInput::Answered, "confirmed[a]"),
            (8, SubscriptionInput::Deadline, ""),
        ],
    );
}

#[test]
fn room_released_before_connecting_is_never_subscribed() {
    let mut harness = MachineHarness::new();
    play(
        &mut harness,
        [
            (0, room("a"), ""),
            (0, unsubscribe("a"), ""),
            (0, SubscriptionInput::Deadline, "connect"),
            (1, SubscriptionInput::Connected, ""),
        ],
    );
    assert_eq!(harness.link(), LinkState::Subscribed);
}

#[test]
fn lost_connection_is_restored_and_reported_once() {
    let mut harness = MachineHarness::whole(&["a", "b"]);
    play(&mut harness, [(1000, LOST, "")]);
    assert_eq!((harness.link(), harness.deadline()), (LinkState::Backoff, Some(1050)));
    play(&mut harness, [(1050, SubscriptionInput::Deadline, "connect")]);
    assert_eq!(harness.link(), LinkState::Connecting);
    play(&mut harness, [(1060, SubscriptionInput::Connected, "subscribe[a,b,gw]")]);
    let actions = harness.at(3000, SubscriptionInput::Answered);
    assert!(actions.ends_with("restored"), "{actions}");
    let status = harness.machine.status();
    assert_eq!((status.link, status.reconnects, status.broken_since), (LinkState::Subscribed, 1, None));
    assert_eq!(status.gap(Instant::now()), Duration::from_secs(2));
}

#[test]
fn repeated_losses_before_restore_are_reported_once() {
    let mut harness = MachineHarness::whole(&["a"]);
    play(
        &mut harness,
        [
            (0, LOST, ""),
            (50, SubscriptionInput::Deadline, "connect"),
            (60, SubscriptionInput::Connected, "subscribe[a,gw]"),
            (70, LOST, ""),
            (200, SubscriptionInput::Deadline, "connect"),
            (210, LOST, ""),
            (1000, SubscriptionInput::Deadline, "connect"),
            (1010, SubscriptionInput::Connected, "subscribe[a,gw]"),
        ],
    );
    assert!(harness.at(1020, SubscriptionInput::Answered).ends_with("restored"));
    assert_eq!(harness.machine.status().reconnects, 1);
    assert_eq!(harness.machine.status().gap(harness.start), Duration::from_millis(1020));
}

#[test]
fn rooms_added_during_restore_do_not_delay_it() {
    let mut harness = MachineHarness::whole(&["a"]);
    play(
        &mut harness,
        [
            (0, LOST, ""),
            (50, SubscriptionInput::Deadline, "connect"),
            (60, SubscriptionInput::Connected, "subscribe[a,gw]"),
            (61, room("b"), ""),
        ],
    );
    let actions = harness.at(62, SubscriptionInput::Answered);
    assert!(actions.ends_with("restored subscribe[b]"), "{actions}");
}

#[test]
fn loss_of_connection_ends_lingering_rooms() {
    let mut harness = MachineHarness::whole(&["a"]);
    play(
        &mut harness,
        [
            (0, unsubscribe("a"), ""),
            (1, LOST, ""),
            (51, SubscriptionInput::Deadline, "connect"),
            (52, SubscriptionInput::Connected, "subscribe[gw]"),
            (53, SubscriptionInput::Answered, "confirmed[gw] restored"),
        ],
    );
}

#[test]
fn silent_connection_turns_stale_then_dead_unless_echoed() {
    let mut harness = MachineHarness::whole(&["a"]);
    assert_eq!(harness.deadline(), Some(3000));
    play(&mut harness, [(2000, SubscriptionInput::Echo, ""), (4999, SubscriptionInput::Deadline, "")]);
    assert_eq!((harness.link(), harness.deadline()), (LinkState::Subscribed, Some(5000)));
    play(&mut harness, [(5000, SubscriptionInput::Deadline, "")]);
    assert_eq!((harness.link(), harness.deadline()), (LinkState::Stale, Some(7000)));
    play(&mut harness, [(6000, SubscriptionInput::Echo, "")]);
    assert_eq!((harness.link(), harness.deadline()), (LinkState::Subscribed, Some(9000)));
    play(
        &mut harness,
        [(9000, SubscriptionInput::Deadline, ""), (11_000, SubscriptionInput::Deadline, "abandon"), (11_000, LOST, "")],
    );
    assert_eq!(harness.link(), LinkState::Backoff);
}

#[test]
fn refused_beats_keep_the_connection_whole() {
    let mut harness = MachineHarness::whole(&["a"]);
    for second in [3, 6, 9] {
        play(&mut harness, [(second * 1000, SubscriptionInput::BeatsRefused, "")]);
        play(&mut harness, [(second * 1000, SubscriptionInput::Deadline, "")]);
        assert_eq!(harness.link(), LinkState::Subscribed);
    }
    // Beats are accepted again, and nothing comes back.
    play(&mut harness, [(12_000, SubscriptionInput::Deadline, ""), (14_000, SubscriptionInput::Deadline, "abandon")]);
}

#[test]
fn silence_without_own_channel_is_ignored() {
    let mut harness = MachineHarness::new();
    harness.at(0, SubscriptionInput::Deadline);
    harness.at(0, SubscriptionInput::Connected);
    assert_eq!((harness.link(), harness.deadline()), (LinkState::Subscribed, None));
    // A later own channel starts the time for an echo.
    play(&mut harness, [(60_000, own_channel("gw"), "subscribe[gw]"), (60_001, SubscriptionInput::Deadline, "")]);
    assert_eq!(harness.deadline(), Some(63_000));
}

#[test]
fn new_incarnation_replaces_the_old_channel() {
    let mut harness = MachineHarness::whole(&[]);
    play(
        &mut harness,
        [
            (1, own_channel("gw"), "confirmed[gw]"),
            (1, own_channel("gw2"), "unsubscribe[gw]"),
            (2, SubscriptionInput::Answered, "subscribe[gw2]"),
            (3, SubscriptionInput::Answered, "confirmed[gw2]"),
            (4, LOST, ""),
            (60, SubscriptionInput::Deadline, "connect"),
            (61, SubscriptionInput::Connected, "subscribe[gw2]"),
        ],
    );
    assert!(harness.machine.topic("gw").is_none());
}

#[test]
fn reconnect_pauses_grow_and_only_echo_resets_them() {
    let pause = |harness: &mut MachineHarness, jitter: f64| {
        harness.at(0, SubscriptionInput::Lost { jitter });
        let pause = harness.deadline().unwrap();
        harness.at(u64::try_from(pause).unwrap(), SubscriptionInput::Deadline);
        pause
    };
    let mut harness = MachineHarness::whole(&["a"]);
    let longest: Vec<u128> = (0..8).map(|_| pause(&mut harness, 1.0)).collect();
    assert_eq!(longest, [100, 100, 200, 400, 800, 1600, 2000, 2000]);
    for _ in 0..100 {
        assert_eq!(pause(&mut harness, 0.0), 50, "a pause was shorter than the minimum");
    }
    harness.at(0, SubscriptionInput::Connected);
    harness.answer_all(0);
    assert_eq!(pause(&mut harness, 1.0), 2000, "a connection without an echo reset the pause");
    harness.at(0, SubscriptionInput::Connected);
    harness.answer_all(0);
    harness.at(0, SubscriptionInput::Echo);
    assert_eq!(pause(&mut harness, 1.0), 100);
}

/// For any history: at most one command is pending, none is empty or too long, and no channel is subscribed twice
/// without an UNSUBSCRIBE or a loss in between. In the end exactly the wanted channels are confirmed.
mod any_history {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ends_with_exactly_the_wanted_channels(steps in prop::collection::vec((0_u8..7, 0_u8..5, 0_u64..20_000), 1..120)) {
            let start = Instant::now();
            let mut machine = SubscriptionMachine::new(start);
            let mut server: HashSet<ChannelName> = HashSet::new();
            let mut interest = [0_u32; 5];
            let mut connected = false;
            let mut connecting = false;
            let mut pending_command: Option<SubscriptionAction> = None;
            let mut now = start;
            let settle = (0..400_u64).map(|_| (7, 0, 1000));
            for (kind, room, pass) in steps.into_iter().chain(settle) {
                now += Duration::from_millis(pass);
                let name: ChannelName = format!("r{room}").into();
                let mut inputs = vec![];
                match kind {
                    0 | 1 => {
                        interest[usize::from(room)] += 1;
                        inputs.push(SubscriptionInput::Subscribe(name, RoomKey::from_store("r")));
                    }
                    2 if interest[usize::from(room)] > 0 => {
                        interest[usize::from(room)] -= 1;
                        inputs.push(SubscriptionInput::Unsubscribe(name));
                    }
                    3 if connected || connecting => {
                        (connected, connecting, pending_command) = (false, false, None);
                        server.clear();
                        inputs.push(SubscriptionInput::Lost { jitter: 0.5 });
                    }
                    4 | 7 if connecting => {
                        (connected, connecting) = (true, false);
                        inputs.push(SubscriptionInput::Connected);
                    }
                    5 | 7 if pending_command.is_some() => match pending_command.take() {
                        Some(SubscriptionAction::Subscribe(channels)) => {
                            for channel in channels {
                                prop_assert!(server.insert(channel), "a confirmed channel was subscribed");
                            }
                            inputs.push(SubscriptionInput::Answered);
                        }
                        Some(SubscriptionAction::Unsubscribe(channels)) => {
                            for channel in channels {
                                prop_assert!(server.remove(&channel), "an unconfirmed channel was unsubscribed");
                            }
                            inputs.push(SubscriptionInput::Answered);
                        }
                        _ => {}
                    },
                    _ => {}
                }
                if machine.deadline().is_some_and(|at| at <= now) {
                    inputs.push(SubscriptionInput::Deadline);
                }
                for input in inputs {
                    let mut actions = Vec::new();
                    machine.handle(now, input, &mut actions);
                    for action in actions {
                        match &action {
                            SubscriptionAction::Connect => connecting = true,
                            SubscriptionAction::Subscribe(channels) | SubscriptionAction::Unsubscribe(channels) => {
                                prop_assert!(connected && pending_command.is_none());
                                prop_assert!(!channels.is_empty() && channels.len() <= COMMAND_CHANNELS_MAX);
                                pending_command = Some(action);
                            }
                            SubscriptionAction::Confirmed(channel) => prop_assert!(server.contains(channel)),
                            SubscriptionAction::Refused(_) => prop_assert!(false, "nothing was refused"),
                            SubscriptionAction::Restored => prop_assert!(connected),
                            SubscriptionAction::Abandon => prop_assert!(false, "abandoned without an own channel"),
                        }
                    }
                }
                prop_assert!(machine.deadline().is_none_or(|at| at > now), "the deadline did not advance");
            }
            let wanted: HashSet<ChannelName> =
                (0..5).filter(|&at| interest[at] > 0).map(|at| format!("r{at}").into()).collect();
            prop_assert_eq!(server, wanted);
        }
    }
}
