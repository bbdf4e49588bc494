//! Calls of scripts by their hash. A Redis that lacks a script gets it once, not from every caller that waits for it.
//!
//! Redis compiles a script at each SCRIPT LOAD, for longer than most scripts run. After a restart of Redis or the first
//! start of a cluster, hundreds of logins may meet the missing script at the same time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind};
use tokio::sync::Mutex;

use super::RedisStore;

/// Maximum number of attempts: between load and call another client may empty the script cache.
const ATTEMPTS_MAX: usize = 3;

/// The loads of each script by this process, by the script's hash. Different scripts do not wait for each other.
#[derive(Debug, Default)]
pub(super) struct ScriptLoads(std::sync::Mutex<HashMap<String, Arc<Mutex<LastLoad>>>>);

/// The end of the last load of a script.
type LastLoad = Option<Instant>;

impl ScriptLoads {
    /// Loads a script, unless another caller has loaded it since `sent`.
    async fn load(&self, connection: &mut impl ConnectionLike, script: &Script, sent: Instant) -> RedisResult<()> {
        let load = {
            // A panic leaves the table as it was.
            let mut loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loads.entry(script.get_hash().to_owned()).or_default())
        };
        let mut loaded = load.lock().await;
        if loaded.is_none_or(|loaded| loaded < sent) {
            script.load_async(connection).await?;
            *loaded = Some(Instant::now());
        }
        Ok(())
    }
}

impl RedisStore {
    /// Calls EVALSHA with `call`, which names the script's hash.
    ///
    /// # Errors
    /// The answer of Redis, or no answer.
    pub async fn call_script<T: FromRedisValue>(
        &self,
        connection: &mut impl ConnectionLike,
        script: &Script,
        call: &Cmd,
    ) -> RedisResult<T> {
        let mut attempts = 1;
        loop {
            let sent = Instant::now();
            match call.query_async(connection).await {
                Err(error) if is_missing(error.kind()) && attempts < ATTEMPTS_MAX => {
                    // Boxed: it is rare, and would otherwise be part of every call.
                    Box::pin(self.shared.script_loads.load(connection, script, sent)).await?;
                    attempts += 1;
                }
                answer => return answer,
            }
        }
    }
}

fn is_missing(kind: ErrorKind) -> bool {
    kind == ErrorKind::Server(ServerErrorKind::NoScript)
}
