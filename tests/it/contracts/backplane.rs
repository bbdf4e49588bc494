//! What a backplane promises, told once and run on both arms; then what only Redis can do to us.
//!
//! A [`Node`] is what a gateway is to the backplane: a lease that beats, a registry, a backplane, and ears. People claim
//! nicknames and join rooms through the real registry, so a promise here is a promise of both together.
#![allow(clippy::unwrap_used)]

mod batching;
mod directs;
mod epochs;
mod faults;
mod republish;
mod rig;
mod stories;

/// Runs every story on both arms.
macro_rules! on_both_arms {
    ($($module:ident: $($story:ident)*;)*) => {
        mod memory {
            use super::{rig::World, $($module),*};
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { $module::$story(&World::memory()).await; })*)*
        }
        mod redis {
            use super::{rig::World, $($module),*};
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { $module::$story(&World::redis().await).await; })*)*
        }
    };
}

on_both_arms! {
    stories:
    an_acked_message_reaches_every_subscribed_node_its_own_included
    ten_publishers_on_two_nodes_make_one_dense_order
    only_a_member_with_the_right_claim_may_publish
    a_repeated_key_is_answered_as_the_first_time_and_delivered_once
    a_key_counts_for_its_own_session_and_room_only
    history_gives_the_stretch_that_was_asked_for
    a_quick_return_to_a_room_loses_nothing
    presence_kicks_and_echoes_arrive
    a_new_incarnation_hears_its_own_channel_only
    text_that_is_not_ours_harms_nobody
    dropping_the_last_clone_ends_the_deliveries;

    directs:
    a_direct_message_reaches_its_owners_node_only
    a_direct_message_waits_for_who_is_away
    who_is_writing_is_heard_where_it_matters
    a_direct_message_is_refused_to_whoever_does_not_own_their_nick
    a_repeated_direct_key_is_answered_as_the_first_time;
}
