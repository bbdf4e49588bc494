//! Replies of Redis: the corpus of the fuzz target `replies`, and the recorder of its real replies.
//!
//! `PARLEY_RECORD_REPLIES=1` writes what the real Redis answers into the corpus.

#[path = "../../../fuzz/checks/replies.rs"]
mod calls;
#[path = "../../../fuzz/checks/scripted_redis.rs"]
mod scripted_redis;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::rc::Rc;

use self::calls::{CALLS, PATIENCE, StoreCalls};
use self::scripted_redis::ScriptedRedis;

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

fn corpus() -> PathBuf {
    harness::repository().join("fuzz/corpus/replies")
}

#[test]
fn corpus_of_replies_is_decoded_without_panic() {
    // A task of a runtime that panics is not seen by its caller. All tasks of a check run on this thread.
    let hook = take_hook();
    set_hook(Box::new(move |panic| {
        PANICS.with(|panics| panics.set(panics.get() + 1));
        hook(panic);
    }));
    let mut called = BTreeSet::new();
    for entry in fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        called.extend(input.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec));
        let is_correct = catch_unwind(|| calls::check(&input, PATIENCE)).is_ok();
        assert!(is_correct && PANICS.get() == 0, "{}: {}", path.display(), input.escape_ascii());
    }
    for (name, _) in CALLS {
        assert!(called.contains(name.as_bytes()), "the corpus has no replies to {name}");
    }
}

#[tokio::test]
async fn recorded_replies_give_the_real_outcomes() {
    let redis = harness::Redis::running().await;
    for (name, call) in CALLS {
        let calls = StoreCalls::on(Rc::new(ScriptedRedis::relay(redis.address())));
        let real = call(&calls).await;
        let replies = calls.server.take_recorded();
        assert!(real.is_ok() && !replies.is_empty(), "{name}: {real:?} {}", replies.escape_ascii());
        // INFO names the machine, so its replies in the corpus are written by hand.
        let is_info = replies.windows(8).any(|text| text == b"# Server");
        if std::env::var_os("PARLEY_RECORD_REPLIES").is_some() && !is_info {
            fs::write(corpus().join(name), [name.as_bytes(), b"\n", &replies].concat()).unwrap();
        }
        let again = StoreCalls::on(Rc::new(ScriptedRedis::with_replies(&replies)));
        assert_eq!(call(&again).await, real, "{name}: {}", replies.escape_ascii());
    }
}

/// Returns the names of the calls that a contract of a store declares.
fn declared_calls(path: &str) -> Vec<String> {
    let source = fs::read_to_string(harness::repository().join(path)).unwrap();
    let (_, declared) = source.split_once("contract! {").unwrap();
    let calls = declared.lines().filter_map(|line| line.trim_start().strip_prefix("async fn "));
    calls.filter_map(|call| Some(call.split_once('(')?.0.to_owned())).collect()
}

#[test]
fn every_call_of_both_contracts_is_fuzzed() {
    let topics = [
        "announcements",
        "leases",
        "listing",
        "messages",
        "names",
        "rooms",
        "rooms/moderation",
        "sanctions",
        "sessions",
    ];
    let registry = topics.map(|topic| format!("presence/src/registry/{topic}/mod.rs"));
    let declared = registry.iter().map(String::as_str).chain(["gateway/src/backplane/contract.rs"]);
    let declared: Vec<String> = declared.flat_map(declared_calls).collect();
    assert!(declared.len() > 30, "{declared:?}");
    // These wait for the subscription or for beats; none decodes a reply.
    let silent = ["subscribe_own_channel", "subscribe", "wait_safe"];
    let is_fuzzed = |call: &String| silent.contains(&call.as_str()) || CALLS.iter().any(|(name, _)| name == call);
    let missing: Vec<&String> = declared.iter().filter(|call| !is_fuzzed(call)).collect();
    assert!(missing.is_empty(), "without a row in fuzz/checks/replies.rs: {missing:?}");
}
