//! The watch on Redis: once a second it probes a write, and checks the requirements again.
//!
//! Both programs run [`RedisStore::watch`] for as long as they live; its findings are in `condition`. Each second uses
//! another lane, so a connection to a new server is checked within [`super::LANES`] seconds. Without an answer it
//! checks TLS. It changes nothing.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use tokio::time::MissedTickBehavior;

use super::fitness::judge_running;
use super::{CallKind, LANES, RedisStore, script_source};
use crate::registry::RegistryError;

static PROBE: LazyLock<Script> = LazyLock::new(|| script_source::script(include_str!("probe.lua")));

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl RedisStore {
    /// Checks Redis for as long as it is polled. Dropping the future stops the checks.
    pub async fn watch(self) {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The rights as of the last answered probe.
        let mut refused = Vec::new();
        for lane in (0..LANES).cycle() {
            tick.tick().await;
            let info = match self.probe(lane).await {
                Ok((commands, info)) => {
                    refused = commands;
                    Ok(info)
                }
                // A server that refuses writes still describes itself; a refused connection shows the reason here.
                Err(_) => self.info().await,
            };
            match info {
                Ok(info) => {
                    self.shared.condition.record_handshake(None);
                    self.shared.condition.record_unfit(judge_running(&info, &refused));
                }
                Err(_) => self.check_handshake().await,
            }
            self.shared.condition.expire();
        }
    }

    /// Records whether the TLS handshake fails, which is then the cause of the missing answer.
    pub(super) async fn check_handshake(&self) {
        self.shared.condition.record_handshake(self.handshake_failure().await);
    }

    /// Calls the probe over a lane. Returns the commands that the user of Redis may not run, and INFO.
    async fn probe(&self, lane: usize) -> Result<(Vec<String>, String), RegistryError> {
        let mut lane = self.shared.lanes[lane].clone();
        let mut call = PROBE.prepare_invoke();
        call.arg(self.keys().base());
        self.timed(CallKind::Probe, call.invoke_async(&mut lane)).await
    }
}
