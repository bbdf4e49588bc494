//! The same contract on a gateway without Redis, which serves the API over its own memory.

use gateway::config::{GatewayConfig, KEYS};
use gateway::server::Gateway;
use presence::host::settings::{Settings, Sources};
use presence::registry::MemoryRegistry;
use presence::store::memory::Store;

use super::documentation::assert_page_matches;
use super::*;

impl GatewayUsers {
    /// The users of the gateway that runs on this store.
    async fn of_gateway_on(store: &Store) -> Self {
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        let lease = eventually(SOON, "the gateway has a lease", || async {
            registry.leases().await.expect("an answer").leases.pop().ok_or("no lease")
        })
        .await;
        let [ws, tcp, admin] = [(); 3].map(|()| String::new());
        let info = GatewayInfo { node: lease.node, version: String::new(), ws, tcp, admin };
        Self { registry, incarnation: lease.incarnation, info }
    }
}

#[tokio::test]
async fn api_page_matches_a_gateway_alone() {
    let keys = format!("api.keys={},{DEMO_KEY}", EXAMPLE_KEY.known);
    let flags = ["listen.ws=127.0.0.1:0", "listen.tcp=127.0.0.1:0", "admin.addr=127.0.0.1:0", "api.addr=127.0.0.1:0"];
    let flags = flags.iter().copied().chain([&*keys, "node.id=g1", "api.open_reads=true"]).map(str::to_owned).collect();
    let sources = Sources { flags, ..Sources::default() };
    let config = GatewayConfig::new(&Settings::load(KEYS, &sources).expect("known keys")).expect("valid settings");
    let store = Store::default();
    let gateway = Gateway::start_on(&config, &store).await.expect("free ports");
    let users = GatewayUsers::of_gateway_on(&store).await;
    assert_page_matches(&users, gateway.addresses().api.expect("an API")).await;
    assert_eq!(gateway.drain(SOON).await, Drained::Complete);
}
