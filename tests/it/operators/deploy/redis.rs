//! The Redis rights of the user `parley`: every command that the sources use, and no other.
//!
//! Every test of this binary runs with these rights, and the harness fails a test when Redis has refused a command.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use harness::{Node, Redis, eventually};

use crate::operators::program_sources;

const SOON: Duration = Duration::from_secs(10);

/// Commands that only the client library sends, so that no source line names them.
const LIBRARY: &[&str] = &["evalsha", "hello", "ping", "script|load", "subscribe", "unsubscribe", "unwatch"];

/// Commands without which streams take more memory, or `gateway ctl status` shows less, and nothing else changes.
const OPTIONAL: &[&str] = &["copy", "rename", "scan", "memory", "usage", "dbsize"];

/// Returns the quoted words right behind each of these prefixes.
fn quoted_after<'a>(text: &'a str, words: &[&str], quote: char) -> BTreeSet<String> {
    let names = words.iter().flat_map(|word| text.split(word).skip(1));
    let name = |rest: &'a str| rest.trim_start().strip_prefix(quote)?.split_once(quote).map(|(name, _)| name);
    names.filter_map(name).map(str::to_lowercase).collect()
}

/// Returns the commands that the user `parley` may call.
fn allowed() -> BTreeSet<String> {
    let template = fs::read_to_string(harness::repository().join("deploy/redis/users.acl.in")).unwrap();
    let (_, parley) = template.split_once("user parley").unwrap();
    let rules = parley.lines().filter(|line| !line.trim_start().starts_with('#'));
    rules.flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
}

#[tokio::test]
async fn shipped_redis_refuses_writes_when_full() {
    let redis = Redis::running().await;
    let settings: Vec<String> = redis.call("CONFIG GET maxmemory*").await;
    let value = |name: &str| settings.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    assert_eq!((value("maxmemory"), value("maxmemory-policy")), (Some("1073741824"), Some("noeviction")));
}

#[test]
fn acl_allows_exactly_the_commands_used() {
    let (lua, rust) = (program_sources("lua"), program_sources("rs"));
    let in_scripts = quoted_after(&lua, &["redis.call(", "redis.pcall("], '\'');
    let calls = lua.matches("redis.call(").count() + lua.matches("redis.pcall(").count();
    let readable = lua.matches("redis.call('").count() + lua.matches("redis.pcall('").count();
    assert_eq!(calls, readable, "a script that computes the name of a command cannot be checked");
    let mut in_rust = quoted_after(&rust, &["redis::cmd(", ".cmd("], '"');
    if rust.contains(".atomic()") {
        in_rust.extend(["multi", "exec"].map(str::to_owned));
    }
    assert!(in_scripts.len() > 20 && in_rust.len() > 3, "the sources were not found");

    let allowed = allowed();
    let names: BTreeSet<&str> = allowed.iter().map(|right| right.split('|').next().unwrap()).collect();
    let missing: Vec<_> = in_scripts.union(&in_rust).filter(|command| !names.contains(command.as_str())).collect();
    assert!(missing.is_empty(), "deploy/redis/users.acl.in lacks {missing:?}");

    let is_used = |right: &&String| {
        let command = right.split('|').next().unwrap();
        LIBRARY.contains(&right.as_str()) || in_scripts.contains(command) || in_rust.contains(command)
    };
    let idle: Vec<_> = allowed.iter().filter(|right| !is_used(right)).collect();
    assert!(idle.is_empty(), "deploy/redis/users.acl.in allows unused commands: {idle:?}");
}

#[test]
fn probe_checks_exactly_the_allowed_commands() {
    let probe = fs::read_to_string(harness::repository().join("presence/src/store/redis/probe.lua")).unwrap();
    let words = probe.split('\'').skip(1).step_by(2);
    // STREAMS is a word of XREAD.
    let commands = words
        .filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()) && *word != "STREAMS");
    let checked: BTreeSet<String> =
        commands.map(str::to_lowercase).chain(OPTIONAL.iter().map(|command| (*command).to_owned())).collect();
    let allowed: BTreeSet<String> = allowed().iter().flat_map(|right| right.split('|')).map(str::to_owned).collect();
    assert_eq!(checked, allowed);
}

#[tokio::test]
async fn missing_right_is_named_in_log() {
    // For a command within a script, Redis 7.0 names the line, and only ACL LOG names the command.
    let in_script = "can't run this command";
    for (right, words) in [("evalsha", "evalsha"), ("hset", in_script), ("subscribe", "subscribe")] {
        let redis = Redis::running().await;
        redis.call::<()>(&format!("ACL SETUSER parley -{right}")).await;
        let gateway = Node::gateway("g1").redis(&redis).launch().await;
        eventually(SOON, &format!("the missing {right} is logged"), || async {
            let lines = gateway.log().lines();
            let logged = lines.into_iter().find(|line| line.contains("WARN") && line.contains(words));
            logged.ok_or_else(|| gateway.log().tail(20))
        })
        .await;
        let answer = gateway.readyz().await.unwrap();
        assert_eq!(answer.status, 503, "the gateway is not ready: {answer:?}");
        assert!(format!("{:?}", redis.call::<redis::Value>("ACL LOG").await).contains(right));
        drop(gateway);
        redis.call::<()>("ACL LOG RESET").await;
    }
}

#[tokio::test]
async fn acl_refuses_other_commands_and_keys() {
    let redis = Redis::running().await;
    let probe = redis.admin_url().replace("redis://", "redis://probe:x@");
    let cases: [(&str, &[&[&str]]); 2] = [
        (&probe, &[&["HGET", "parley:{0}:nick", "ann"], &["PUBLISH", "parley:x", "hi"], &["INFO"]]),
        (&redis.url(), &[&["HGET", "other:{0}:nick", "ann"], &["PUBLISH", "other:x", "hi"], &["FLUSHALL"]]),
    ];
    for (url, commands) in cases {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        assert_eq!(redis::cmd("PING").query_async::<String>(&mut connection).await.unwrap(), "PONG");
        for words in commands {
            let refused = redis::cmd(words[0]).arg(&words[1..]).query_async::<()>(&mut connection).await.unwrap_err();
            assert_eq!(refused.code(), Some("NOPERM"), "{words:?}: {refused}");
        }
    }
    redis.call::<()>("ACL LOG RESET").await;
}
