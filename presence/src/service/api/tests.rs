#![allow(clippy::unwrap_used)]

mod announcements;
mod document;
mod events;
mod keys;
mod sanctions;
mod messages;
mod reads;
mod refusals;
mod room_changes;
mod room_messages;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{ApiClients, router};
use crate::host::client_address::TrustedProxies;
use crate::host::metrics::{ApiMetrics, registry as metrics_registry};
use crate::host::reloadable::Reloadable;
use crate::model::{Incarnation, Nick, Owner, RoomName, SessionId, Status, TokenHash, UserId};
use crate::registry::{ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, MemoryRegistry, Registry};
use crate::service::access::ApiAccess;
use crate::service::waiting::CONNECTIONS_MAX;
use crate::store::memory::Store;

/// Maximum wait of a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// The API over a registry, on a port of its own, until the test ends.
struct Served {
    address: SocketAddr,
    registry: Registry,
    metrics: ApiMetrics,
    access: Reloadable<Arc<ApiAccess>>,
    stop: CancellationToken,
    incarnation: Incarnation,
}

/// A response.
#[derive(Debug)]
struct HttpAnswer {
    status: u16,
    head: String,
    body: String,
}

impl HttpAnswer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Served {
    /// Serves the API over an empty store with one gateway.
    async fn empty() -> Self {
        Self::over_store(Store::default()).await
    }

    /// Serves the API over this store, with one gateway.
    async fn over_store(store: Store) -> Self {
        let served = Self::over(Registry::Memory(MemoryRegistry::new(store))).await;
        served.open_lease().await;
        served
    }

    async fn open_lease(&self) {
        let [node, ws, tcp] = ["g1", "127.0.0.1:8081", "127.0.0.1:9001"].map(ToOwned::to_owned);
        let info = GatewayInfo { node, version: "0.1.0".to_owned(), ws, tcp, admin: String::new() };
        self.registry.open_lease(&self.incarnation, &info).await.unwrap();
    }

    async fn over(registry: Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, metrics, stop) =
            (listener.local_addr().unwrap(), ApiMetrics::new(&metrics_registry("0")), CancellationToken::new());
        let access = Reloadable::default();
        let router = router(
            registry.clone(),
            metrics.clone(),
            ApiClients {
                proxies: TrustedProxies::default(),
                connections: CONNECTIONS_MAX,
                log_addresses: true,
                access: access.clone(),
            },
            stop.clone(),
        );
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { address, registry, metrics, access, stop, incarnation: Incarnation::random() }
    }

    /// Registers a user of tokens.
    async fn sign_in(&self, nick: &str, user: &str) {
        self.claim(nick, UserId::parse(user).as_ref()).await;
    }

    async fn claim(&self, nick: &str, user: Option<&UserId>) -> Owner {
        let (nick, session, token) = (Nick::parse(nick).unwrap(), SessionId::random(), TokenHash::of(b"secret"));
        let incarnation = &self.incarnation;
        let request = ClaimRequest { incarnation, session: &session, nick: &nick, token: &token, user };
        let (fence, _) = self.registry.claim(request).await.unwrap();
        Owner { incarnation: incarnation.clone(), session, fence }
    }

    /// Registers a user and joins rooms.
    async fn user(&self, nick: &str, rooms: &[&str]) -> Owner {
        let owner = self.claim(nick, None).await;
        let nick = Nick::parse(nick).unwrap();
        for room in rooms {
            let room = RoomName::parse(room).unwrap();
            self.registry
                .join(JoinRequest {
                    room: &room,
                    nick: &nick,
                    owner: &owner,
                    user: None,
                    status: &Status::default(),
                    entry: JoinEntry::New,
                    moderates: false,
                })
                .await
                .unwrap();
        }
        owner
    }

    async fn send(&self, request: &str) -> HttpAnswer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // A server that refuses a body may close the connection before it has read all of it.
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
        HttpAnswer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
    }

    // HTTP/1.0: no response is chunked, and each ends its connection.
    async fn ask(&self, method: &str, path: &str) -> HttpAnswer {
        self.send(&format!("{method} {path} HTTP/1.0\r\n\r\n")).await
    }

    async fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path).await
    }

    async fn lookup(&self, body: &str) -> HttpAnswer {
        self.post("/v1/users/lookup", "", body).await
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> HttpAnswer {
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}")).await
    }
}
