//! [`KEYS`]: the settings of a gateway, with their defaults and meanings.
//!
//! `--example`, the example file and docs/CONFIGURATION.md are written from it. Values are checked in `config.rs`.

use presence::host::client_address::TRUSTED_PROXIES_DEFAULT;
use presence::host::settings::key::{self, Key};
use presence::service::config::{API_KEYS, API_OPEN_READS, API_ORIGINS};
use presence::webhooks;

use super::api;

/// The rate of a limit. Its default depends on `limits.profile`, so it is part of the meaning.
macro_rules! rate {
    ($name:literal, $what:literal, $default:literal) => {
        Key::number($name).sample($default).live().meaning(concat!(
            "Maximum number of ",
            $what,
            ", 0 to 1000000000; 0 is no limit. Default: ",
            $default,
            ". Beyond it requests are refused as rate_limited."
        ))
    };
}

/// The burst of a limit.
macro_rules! burst {
    ($name:literal, $what:literal, $default:literal, $least:literal) => {
        Key::number($name).sample($default).live().meaning(concat!(
            "Maximum number of ",
            $what,
            ", ",
            $least,
            " to 1000000000. Default: ",
            $default,
            "."
        ))
    };
}

/// Every key of a gateway. The environment variable of `listen.ws` is `PARLEY__LISTEN__WS`.
pub const KEYS: &[Key] = &[
    key::NODE_ID,
    Key::secret("redis.url").sample("redis://127.0.0.1:6379").meaning(
        "Redis of the cluster, redis://HOST:PORT or rediss://HOST:PORT. Without it the gateway runs alone and keeps \
         everything in memory.",
    ),
    key::REDIS_TLS_CA,
    key::REDIS_TLS_CERT,
    key::REDIS_TLS_KEY,
    key::REDIS_PREFIX,
    Key::address("listen.ws")
        .default("127.0.0.1:8080")
        .meaning("IP:PORT or NAME:PORT of HTTP: WebSocket (/ws) and the chat page (/). Port 0 selects a free port."),
    Key::address("listen.tcp").default("127.0.0.1:9000").meaning("IP:PORT or NAME:PORT of text lines and binary frames."),
    Key::text("listen.tls_cert").sample("/etc/parley/fullchain.pem").live().meaning(
        "Path of a certificate with its chain, in PEM: both client ports use TLS, 1.2 or 1.3. A reload reads the file \
         again; connections that are open stay as they are.",
    ),
    Key::text("listen.tls_key")
        .sample("/etc/parley/privkey.pem")
        .live()
        .meaning("Path of the private key of listen.tls_cert, in PEM and without a password."),
    Key::list("listen.origins").sample("https://chat.example.org").live().meaning(
        "Origins of the web pages that may connect. Empty: only pages of the host and port that the request names, such as \
         the chat page. * admits every page. Clients without an Origin header always may.",
    ),
    Key::flag("listen.page").default("true").live().meaning(
        "Serve the chat page at / of listen.ws. If listen.origins is not empty, it must list the origin of the page too.",
    ),
    Key::list("listen.page_embedders").sample("https://www.example.org").live().meaning(
        "Origins of the web sites that may show the chat page in a frame, and sign its users in (see the README of the page). \
         Empty: none.",
    ),
    Key::list("listen.trusted_proxies").default(TRUSTED_PROXIES_DEFAULT).live().meaning(
        "Addresses and networks of reverse proxies. Only from these, X-Forwarded-For names the address of the client.",
    ),
    Key::flag("listen.tcp_proxy_protocol").default("false").live().meaning(
        "Require a PROXY header (version 1 or 2) on listen.tcp from listen.trusted_proxies. Others never may send one.",
    ),
    Key::text("auth.mode").default("open").live().meaning(
        "Who may connect: open (anybody, tokens are ignored), token (only with a valid token) or mixed (without a token \
         as a guest). The same on all gateways.",
    ),
    Key::text("auth.issuer")
        .sample("https://id.example.org")
        .live()
        .meaning("Issuer of the tokens: their claim iss. Required unless auth.mode is open."),
    Key::list("auth.audience")
        .sample("parley")
        .live()
        .meaning("Names of this service, one of which is in the claim aud. Required unless auth.mode is open."),
    Key::secret("auth.secret")
        .sample("32 bytes or more, shared with the issuer")
        .live()
        .meaning("Secret of tokens with HS256, 32 bytes or more. For other algorithms and several keys: auth.keys."),
    Key::list("auth.keys").sample("ES256/2026=/etc/parley/es256.pem").live().meaning(
        "Keys of tokens, ALGORITHM=FILE or ALGORITHM/KEY_ID=FILE: a secret for HS256, HS384 and HS512, a public key as \
         PEM for RS256, ES256 and EdDSA. A reload reads the files again.",
    ),
    Key::text("auth.jwks").sample("https://id.example.org/.well-known/jwks.json").live().meaning(
        "Set of keys (JWKS), the path of a file or a URL. A reload reads it again. A URL is also fetched again at an \
         interval, and for a key id that is unknown, at most every 30 s.",
    ),
    Key::number("auth.jwks_refresh_seconds").default("300").live().meaning(
        "Seconds after which the set at a URL is fetched again, 30 to 86400. A key that it no longer has ends its sessions \
         then.",
    ),
    Key::flag("auth.jwks_plain_http").default("false").live().meaning(
        "Allow http:// for auth.jwks to other machines. Without it only to this one: the answer decides about every user.",
    ),
    Key::address("admin.addr")
        .default("127.0.0.1:9180")
        .meaning("IP:PORT or NAME:PORT of /livez, /readyz, /metrics and /holdings. Never expose it to clients."),
    Key::number("limits.connections")
        .default("16384")
        .live()
        .meaning("Maximum number of connections on both ports together, 1 to 1000000. Fewer if descriptors are short. More are refused."),
    Key::number("limits.connections_per_address").default("256").live().meaning(
        "Maximum number of connections of one address on all gateways, 1 to 1000000; an IPv6 address counts by its /64. \
         More are refused as rate_limited. Behind a proxy that is not in listen.trusted_proxies all clients have its address.",
    ),
    Key::number("limits.write_stall_seconds").default("30").live().meaning(
        "Seconds without write progress before a slow reader is closed, 1 to 3600. Applies to new connections.",
    ),
    Key::number("heartbeat.proxy_idle_seconds").default("45").live().meaning(
        "Maximum seconds between frames to a client of WebSocket or binary frames, for proxies with an idle limit; 0 to 3600, 0 is off.",
    ),
    Key::number("heartbeat.line_sign_seconds")
        .default("0")
        .live()
        .meaning("Seconds without input before a line client is sent a visible sign; 0 to 3600, 0 is off."),
    Key::number("limits.reply_mib").default("64").meaning(
        "Memory in MiB for lists (history, members, rooms) that clients have not read yet, 4 to 65536. Beyond it pages \
         are shorter, then lists are refused as overloaded.",
    ),
    Key::number("limits.republish_mib").default("256").meaning(
        "Memory in MiB for acknowledged messages that Redis may still lose, about 7 seconds of them, 16 to 65536. Beyond \
         it messages are refused as overloaded.",
    ),
    Key::number("limits.room_bytes_per_second").default("2097152").live().meaning(
        "Maximum number of bytes per second that this gateway sends into one room or to one nickname, 65536 to \
         1073741824. Beyond it messages are refused as overloaded, the largest senders first.",
    ),
    Key::text("limits.profile").default("default").live().meaning(
        "Limits of sessions, addresses and users that are not set: default, or open for none (tests and benchmarks only).",
    ),
    rate!("limits.requests_per_second", "requests of a session per second", "100"),
    burst!("limits.requests_burst", "requests of a session at once", "200", "1"),
    rate!("limits.messages_per_second", "messages of a session per second", "20"),
    burst!("limits.messages_burst", "messages of a session at once", "60", "1"),
    rate!("limits.bytes_per_second", "bytes of message bodies of a session per second", "65536"),
    burst!("limits.bytes_burst", "bytes of message bodies of a session at once", "262144", "65536"),
    rate!("limits.joins_per_second", "joins and registrations of a session per second", "5"),
    burst!("limits.joins_burst", "joins and registrations of a session at once", "30", "1"),
    rate!("limits.renames_per_minute", "changes of nickname of a session per minute", "3"),
    burst!("limits.renames_burst", "changes of nickname of a session at once", "3", "1"),
    rate!("limits.statuses_per_minute", "changes of status of a session per minute", "30"),
    burst!("limits.statuses_burst", "changes of status of a session at once", "10", "1"),
    rate!("limits.pages_per_second", "lists (history, members, rooms) of a session per second", "5"),
    burst!("limits.pages_burst", "lists (history, members, rooms) of a session at once", "20", "1"),
    Key::number("limits.address_sessions").default("8").live().meaning(
        "Limits of an address over the whole cluster, as a multiple of those of a session, 0 to 1000000; 0 is no limit. \
         Many users may share an address. Its bytes, registrations and new rooms have limits of their own.",
    ),
    Key::number("limits.user_sessions").default("4").live().meaning(
        "Limits of a user with a token over the whole cluster, as a multiple of those of a session, 0 to 1000000; 0 is no \
         limit.",
    ),
    rate!("limits.address_bytes_per_second", "bytes of message bodies of an address per second", "20480"),
    burst!("limits.address_bytes_burst", "bytes of message bodies of an address at once", "4194304", "65536"),
    rate!("limits.registrations_per_minute", "registrations of an address per minute", "30"),
    burst!("limits.registrations_burst", "registrations of an address at once", "30", "1"),
    rate!("limits.creations_per_minute", "rooms that an address creates per minute", "10"),
    burst!("limits.creations_burst", "rooms that an address creates at once", "10", "1"),
    key::HISTORY_MAX_MESSAGES,
    key::HISTORY_MAX_BYTES,
    key::HISTORY_MAX_AGE_HOURS,
    key::HISTORY_INBOX_MESSAGES,
    key::HISTORY_INBOX_BYTES,
    key::HISTORY_QUIET_ROOM_HOURS,
    key::ROOMS,
    Key::secret("hooks.register").sample("https://app.example.org/hooks/register").live().meaning(
        "URL that is asked before a client begins a session (docs/HOOKS.md). Not set: nobody is asked, here and in the \
         other hooks.",
    ),
    Key::secret("hooks.join")
        .sample("https://app.example.org/hooks/join")
        .live()
        .meaning("URL that is asked before a session enters a room."),
    Key::secret("hooks.send")
        .sample("https://app.example.org/hooks/send")
        .live()
        .meaning("URL that is asked before a message of a client is published."),
    Key::secret("hooks.secret")
        .sample("at-least-16-characters")
        .live()
        .meaning("Secret that signs the questions, 16 to 256 characters. Required with any of these URLs."),
    Key::number("hooks.timeout_ms").default("1000").live().meaning(
        "Time limit of a question in milliseconds, from the request of the client to the answer, 50 to 5000.",
    ),
    Key::text("hooks.fail").default("closed").live().meaning(
        "Rule for a question without a usable answer: closed (the request is refused as hook_unavailable) or open (it is \
         performed).",
    ),
    Key::number("hooks.cache_seconds").default("0").live().meaning(
        "Seconds for which an answer is remembered that does not state its own time, 0 to 3600; 0 is not at all.",
    ),
    webhooks::ALLOW_PRIVATE,
    Key::number("session.hold_seconds")
        .default("60")
        .meaning("Seconds that a nickname is held for a session that lost its connection, 5 to 3600."),
    Key::number("session.hold_after_seconds").default("10").meaning(
        "Seconds that a session must have had its nickname before it is held after a lost connection, 0 to 3600.",
    ),
    Key::flag("names.ascii_lookalikes").default("true").meaning(
        "Refuse a nickname in ASCII that looks like another one in ASCII (paypal, paypaI). The same on all gateways.",
    ),
    api::ADDRESS,
    API_KEYS,
    API_OPEN_READS,
    API_ORIGINS,
    webhooks::WEBHOOKS,
    webhooks::DEADLINE,
    webhooks::DEAD_LETTERS,
    webhooks::LOG_EVENTS,
    webhooks::LOG_MIB,
    key::DRAIN_GRACE,
    key::LOG_LEVEL,
    key::LOG_ADDRESSES,
    key::LOG_FORMAT,
    key::LOG_FILE,
    key::LOG_FILES,
    key::LOG_FILE_MIB,
    #[cfg(feature = "otlp")]
    Key::text("otlp.endpoint").sample("http://127.0.0.1:4318/v1/traces").meaning(
        "URL of the collector that receives message spans: OTLP over HTTP, as JSON. Independent of the log level.",
    ),
];
