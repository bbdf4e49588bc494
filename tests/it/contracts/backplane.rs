//! The contract of the backplane: `rooms` and `directs` run on both arms, memory and Redis.
//!
//! An acknowledged message reaches every subscribed node once, in one order per room, and only a member with
//! a current claim may publish. `batching`, `epochs`, `faults`, `listed`, `repeats`, `republish` and `shared_calls`
//! cover calls and failures of a real Redis.
//! A [`BackplaneNode`](fixture::BackplaneNode) stands for a gateway: a beating lease, the real registry, a backplane.
//! Sessions, client protocols and the registry's own contract are tested elsewhere.
#![allow(clippy::unwrap_used)]

mod batching;
mod directs;
mod epochs;
mod faults;
mod listed;
mod names;
mod pages;
mod posts;
mod repeats;
mod republish;
mod fixture;
mod rooms;
mod rules;
mod shared_calls;
mod shares;
mod sizes;

/// Runs every story on both arms.
macro_rules! on_both_arms {
    ($($module:ident: $($test:ident)*;)*) => {
        mod memory {
            use super::{fixture::StoreFixture, $($module),*};
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { $module::$test(&StoreFixture::memory()).await; })*)*
        }
        mod redis {
            use super::{fixture::StoreFixture, $($module),*};
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { $module::$test(&StoreFixture::redis().await).await; })*)*
        }
    };
}

on_both_arms! {
    rooms:
    acked_message_reaches_every_subscribed_node
    concurrent_publishers_share_one_dense_order
    publish_requires_membership_and_current_claim
    repeated_key_gets_first_answer_and_one_delivery
    idempotency_key_is_scoped_to_session_and_room
    session_adds_only_its_share_of_keys
    history_returns_the_requested_range
    quick_resubscribe_misses_no_message
    subscriber_receives_presence_kicks_and_echoes
    new_incarnation_receives_only_its_own_channel
    malformed_payloads_are_counted_and_skipped
    dropping_last_clone_stops_deliveries;

    rules:
    only_moderators_send_where_the_rules_say_so
    moderator_by_token_is_exempt_from_rules
    typing_follows_the_right_to_send
    slow_mode_makes_members_wait
    slow_mode_admits_one_of_many_at_once
    room_keeps_the_history_of_its_rules
    ephemeral_room_keeps_few_messages;

    names:
    idempotency_keys_never_collide_across_names;

    pages:
    bounded_pages_return_every_message_once
    replay_pages_end_at_their_bytes
    lists_are_read_in_turns;

    sizes:
    room_keeps_at_most_its_bytes
    inbox_keeps_at_most_its_bytes
    newest_message_fits_into_any_bound
    lowered_byte_bound_applies_while_running;

    posts:
    posted_message_has_its_place_in_the_room
    messages_after_position_come_with_the_end
    posted_key_gets_first_answer_for_its_application
    each_post_has_a_result_of_its_own
    posted_direct_message_reaches_session_and_inbox
    empty_room_keeps_posts_until_it_ends
    deleted_messages_leave_a_gap;

    directs:
    direct_message_reaches_only_the_owners_node
    direct_message_to_unresumable_session_is_refused
    direct_message_waits_in_inbox_of_absent_user
    typing_signal_reaches_only_its_target
    direct_message_requires_ownership_of_senders_nick
    repeated_direct_key_gets_first_answer;
}
