#![allow(clippy::unwrap_used)]

mod printed;
mod rooms;

use std::ffi::OsString;

use presence::host::settings::Sources;
use presence::host::telemetry::LogFormat;
use presence::store::redis::tls::ClientFiles;

use super::*;
use crate::listen::AllowedOrigins;

/// Returns the loaded settings, or the error line.
fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<GatewayConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    let path = file.map(|text| {
        std::fs::write(&path, text).unwrap();
        path.as_path()
    });
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let sources = Sources { file: path.map(ToOwned::to_owned), environment, flags: Vec::new() };
    let settings = Settings::load(KEYS, &sources).map_err(|report| report.to_string());
    let config = settings.and_then(|settings| GatewayConfig::new(&settings).map_err(|error| error.to_string()));
    config.map_err(|error| error.replace(&folder.path().display().to_string(), ""))
}

/// Returns two allowed origins.
fn two() -> AllowedOrigins {
    let words: Vec<OriginWord> = ["https://a", "http://b:1"].map(|word| word.parse().unwrap()).into();
    words.into()
}

/// Limits with one of them replaced.
fn with_limit(limits: SessionLimits, changed: LimitKind, to: RateLimit) -> SessionLimits {
    SessionLimits::from_each(|limit| Ok::<_, ()>(if limit == changed { to } else { limits.of(limit) })).unwrap()
}

/// Lifts the limits that are not set.
fn open(config: &mut GatewayConfig, session_limits: SessionLimits) {
    let QuotaSettings { bytes, registrations, creations, .. } = &mut config.quotas;
    for limit in [bytes, registrations, creations] {
        *limit = limit.lifted();
    }
    (config.profile, config.session_limits) = (LimitsProfile::Open, session_limits);
}

/// Returns the settings of no API, and of webhooks that are shown so.
fn api_of(webhooks: &str) -> EmbeddedApiConfig {
    let mut api = EmbeddedApiConfig::default();
    api.webhooks.shown = webhooks.to_owned();
    api
}

fn changed(change: impl FnOnce(&mut GatewayConfig)) -> GatewayConfig {
    let mut config = GatewayConfig {
        node: "g1".to_owned(),
        redis: None,
        redis_tls: TlsFiles::default(),
        prefix: "parley".to_owned(),
        ws: "127.0.0.1:8080".parse().unwrap(),
        tcp: "127.0.0.1:9000".parse().unwrap(),
        admin: "127.0.0.1:9180".parse().unwrap(),
        history: Retention {
            messages: 10_000,
            bytes: 16 * 1024 * 1024,
            age: Duration::from_secs(72 * 3600),
            inbox_messages: 1_000,
            inbox_bytes: 4 * 1024 * 1024,
            quiet: Duration::from_secs(24 * 3600),
        },
        rooms: RoomPolicies::default(),
        hooks: HookSettings::default(),
        api: api_of("[]"),
        hold: Duration::from_secs(60),
        hold_after: Duration::from_secs(10),
        lookalikes: LookalikePolicy::AllNames,
        grace: Duration::from_secs(30),
        certificate: None,
        auth: AuthConfig::default(),
        limits: ConnectionLimits::default(),
        reply_bytes: 64 * 1024 * 1024,
        republish_bytes: 256 * 1024 * 1024,
        room_bytes_per_second: 2 * 1024 * 1024,
        profile: LimitsProfile::Default,
        session_limits: SessionLimits::default(),
        quotas: QuotaSettings::default(),
        logs: Logs {
            level: "info".to_owned(),
            addresses: true,
            format: LogFormat::Auto,
            file: None,
            kept: 5,
            size_mib: 64,
            spans: None,
        },
    };
    change(&mut config);
    config
}

#[test]
fn addresses_have_multiples_of_session_limits() {
    let limits = changed(|_| {}).quota_limits();
    assert_eq!(limits.address.of(LimitKind::Messages), RateLimit::per_second(160, 480));
    assert_eq!(limits.user.of(LimitKind::Messages), RateLimit::per_second(80, 240));
    assert_eq!(limits.address.of(LimitKind::Bytes), RateLimit::bytes_per_second(20_480, 4_194_304));
    assert_eq!(limits.user.of(LimitKind::Bytes), RateLimit::bytes_per_second(262_144, 1_048_576));
    assert_eq!(limits.address.of(LimitKind::Registrations), RateLimit::per_minute(30, 30));
    assert_eq!(limits.user.of(LimitKind::Creations).units(), 0, "users create rooms as their address may");
    assert_eq!(limits.seats, 256);
    let open = changed(|config| open(config, SessionLimits::open())).quota_limits();
    assert!(LimitKind::ALL.iter().all(|kind| open.address.of(*kind).units() + open.user.of(*kind).units() == 0));
}

#[test]
fn environment_overrides_the_file_key_by_key() {
    let named = "node.id = 'g1'";
    let env = |name, value| vec![(name, value)];
    let table = [
        (named, vec![], changed(|_| {})),
        ("[node]\nid = 'g1'\n[listen]\n[redis]\n", vec![], changed(|_| {})),
        (named, env("PARLEY__NODE__ID", "g2"), changed(|c| c.node = "g2".into())),
        (named, env("PARLEY__NODE__ID", "123"), changed(|c| c.node = "123".into())),
        ("node.id = 123", vec![], changed(|c| c.node = "123".into())),
        (named, env("PARLEY__LISTEN__WS", "[::]:0"), changed(|c| c.ws = "[::]:0".parse().unwrap())),
        (named, env("PARLEY__LISTEN__WS", "localhost:1"), changed(|c| c.ws = "127.0.0.1:1".parse().unwrap())),
        ("node.id = 'g1'\nlisten.tcp = '0.0.0.0:1'", vec![], changed(|c| c.tcp = "0.0.0.0:1".parse().unwrap())),
        (named, env("PARLEY__REDIS__PREFIX", "blue:1"), changed(|c| c.prefix = "blue:1".into())),
        ("node.id = 'g1'\n[drain]\ngrace_seconds = 5", vec![], changed(|c| c.grace = Duration::from_secs(5))),
        (named, env("PARLEY__DRAIN__GRACE_SECONDS", "0"), changed(|c| c.grace = Duration::ZERO)),
        (named, env("PARLEY__SESSION__HOLD_SECONDS", "5"), changed(|c| c.hold = Duration::from_secs(5))),
        (named, env("PARLEY__SESSION__HOLD_AFTER_SECONDS", "0"), changed(|c| c.hold_after = Duration::ZERO)),
        (
            named,
            env("PARLEY__NAMES__ASCII_LOOKALIKES", "false"),
            changed(|c| c.lookalikes = LookalikePolicy::ExceptAscii),
        ),
        (
            "node.id = 'g1'\n[names]\nascii_lookalikes = false",
            vec![],
            changed(|c| c.lookalikes = LookalikePolicy::ExceptAscii),
        ),
        (named, env("PARLEY__LIMITS__REPLY_MIB", "4"), changed(|c| c.reply_bytes = 4 * 1024 * 1024)),
        (named, env("PARLEY__LIMITS__REPUBLISH_MIB", "16"), changed(|c| c.republish_bytes = 16 * 1024 * 1024)),
        (named, env("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "65536"), changed(|c| c.room_bytes_per_second = 65_536)),
        (
            named,
            env("PARLEY__LIMITS__RENAMES_PER_MINUTE", "9"),
            changed(|c| {
                c.session_limits =
                    with_limit(SessionLimits::default(), LimitKind::Renames, RateLimit::per_minute(9, 3));
            }),
        ),
        (
            "node.id = 'g1'\nlimits.bytes_burst = 65536",
            vec![],
            changed(|c| {
                let bytes = RateLimit::bytes_per_second(65_536, 65_536);
                c.session_limits = with_limit(SessionLimits::default(), LimitKind::Bytes, bytes);
            }),
        ),
        (named, env("PARLEY__LIMITS__PROFILE", "open"), changed(|c| open(c, SessionLimits::open()))),
        (
            "node.id = 'g1'\nlimits.profile = 'open'",
            env("PARLEY__LIMITS__MESSAGES_PER_SECOND", "20"),
            changed(|c| {
                let messages = RateLimit::per_second(20, 60);
                let limits = with_limit(SessionLimits::open(), LimitKind::Messages, messages);
                open(c, limits);
            }),
        ),
        (
            "node.id = 'g1'\nlimits.address_sessions = 0",
            env("PARLEY__LIMITS__CREATIONS_PER_MINUTE", "20"),
            changed(|c| {
                c.quotas.address_sessions = 0;
                c.quotas.creations = RateLimit::per_minute(20, 10);
            }),
        ),
        (named, env("PARLEY__HISTORY__MAX_MESSAGES", "7"), changed(|c| c.history.messages = 7)),
        (named, env("PARLEY__HISTORY__MAX_BYTES", "65536"), changed(|c| c.history.bytes = 65_536)),
        (named, env("PARLEY__HISTORY__INBOX_MESSAGES", "7"), changed(|c| c.history.inbox_messages = 7)),
        (named, env("PARLEY__HISTORY__INBOX_BYTES", "65536"), changed(|c| c.history.inbox_bytes = 65_536)),
        (
            named,
            env("PARLEY__HISTORY__QUIET_ROOM_HOURS", "2"),
            changed(|c| c.history.quiet = Duration::from_secs(7200)),
        ),
        (
            "node.id = 'g1'\n[history]\nmax_age_hours = 2",
            vec![],
            changed(|c| c.history.age = Duration::from_secs(7200)),
        ),
        (
            named,
            env("PARLEY__LOG__LEVEL", "info,gateway=debug"),
            changed(|c| c.logs.level = "info,gateway=debug".into()),
        ),
        (
            "node.id = 'g1'\nredis.url = 'redis://file'",
            env("PARLEY__REDIS__URL", "redis://u:p@h:6390/2"),
            changed(|c| c.redis = Some("redis://u:p@h:6390/2".parse().unwrap())),
        ),
        ("node.id = 'g1'\nlisten.origins = ['https://a', 'http://b:1']", vec![], changed(|c| c.limits.origins = two())),
        (named, env("PARLEY__LISTEN__ORIGINS", "https://a, http://b:1"), changed(|c| c.limits.origins = two())),
        ("node.id = 'g1'\nlisten.origins = ['https://a']", env("PARLEY__LISTEN__ORIGINS", ""), changed(|_| {})),
        (named, env("PARLEY__LISTEN__ORIGINS", "https://A:443,http://b:1"), changed(|c| c.limits.origins = two())),
        ("node.id = 'g1'\nlisten.origins = '*'", vec![], changed(|c| c.limits.origins = AllowedOrigins::Any)),
        (named, env("PARLEY__LISTEN__PAGE", "false"), changed(|c| Arc::make_mut(&mut c.limits.page).served = false)),
        (
            named,
            env("PARLEY__LISTEN__PAGE_EMBEDDERS", "https://www.Example.org:443"),
            changed(|c| {
                let embedders = vec!["https://www.example.org".parse().unwrap()];
                Arc::make_mut(&mut c.limits.page).embedders = embedders.into();
            }),
        ),
        (named, env("PARLEY__LIMITS__CONNECTIONS", "5"), changed(|c| c.limits.connections = 5)),
        (
            named,
            env("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", "5"),
            changed(|c| Arc::make_mut(&mut c.limits.addresses).connections = 5),
        ),
        (
            named,
            env("PARLEY__LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            changed(|c| {
                let networks: Vec<ProxyNetwork> = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
                Arc::make_mut(&mut c.limits.addresses).proxies = networks.into();
            }),
        ),
        (
            named,
            env("PARLEY__LISTEN__TCP_PROXY_PROTOCOL", "true"),
            changed(|c| Arc::make_mut(&mut c.limits.addresses).proxy_protocol = true),
        ),
        (named, env("PARLEY__LOG__ADDRESSES", "false"), changed(|c| c.logs.addresses = false)),
        (
            named,
            env("PARLEY__LIMITS__WRITE_STALL_SECONDS", "5"),
            changed(|c| c.limits.write_stall = Duration::from_secs(5)),
        ),
        (named, env("PARLEY__LOG__FORMAT", "json"), changed(|c| c.logs.format = LogFormat::Json)),
        (named, env("PARLEY__LOG__FILE", "/var/log/g1.log"), changed(|c| c.logs.file = Some("/var/log/g1.log".into()))),
        (named, env("PARLEY__LOG__FILES", "3"), changed(|c| c.logs.kept = 3)),
        (named, env("PARLEY__LOG__FILE_MIB", "3"), changed(|c| c.logs.size_mib = 3)),
        // Variables without the exact prefix, such as an orchestrator's for a service named parley, are ignored.
        (
            named,
            vec![("PARLEY_PORT", "tcp://10.0.0.1:80"), ("PARLEY_NODE_ID", "x"), ("NODE__ID", "x")],
            changed(|_| {}),
        ),
    ];
    for (file, environment, expected) in table {
        assert_eq!(load(Some(file), &environment), Ok(expected), "{file:?} {environment:?}");
    }
}

/// A file, an environment, and the expected error line.
type InvalidSettings<'a> = (&'a str, &'a [(&'a str, &'a str)], String);

#[test]
fn invalid_settings_are_named_on_one_line() {
    let ip_port = "expected IP:PORT or NAME:PORT, such as 127.0.0.1:8080, [::]:8080 or localhost:8080";
    let node = "expected 1 to 64 of the characters A-Z a-z 0-9 . _ -";
    let prefix = "expected 1 to 64 printable ASCII characters without spaces and braces";
    let seconds = "expected a whole number of seconds from 0 to 3600";
    let messages = "expected a whole number from 1 to 1000000";
    let bytes = "expected a whole number from 65536 to 1073741824";
    let hours = "expected a whole number of hours from 1 to 8760";
    let quiet = "expected a whole number of hours from 1 to 72";
    let hold = "expected a whole number of seconds from 5 to 3600";
    let origins =
        "expected * or origins as browsers send them, such as https://chat.example.org or http://localhost:8080";
    let long = "x".repeat(65);
    let table: &[InvalidSettings<'_>] = &[
        // Unknown keys in both places, also a section that is written as a value.
        ("node.idd = 'x'", &[], "unknown key node.idd in /gateway.toml: the nearest known one is node.id".into()),
        ("nodes.id = 'x'", &[], "unknown key nodes.id in /gateway.toml: the nearest known one is node.id".into()),
        ("node = 'x'", &[], "unknown key node in /gateway.toml: the nearest known one is node.id".into()),
        ("node.id.x = 'x'", &[], "unknown key node.id.x in /gateway.toml: the nearest known one is node.id".into()),
        ("Node.ID = 'x'", &[], "unknown key Node.ID in /gateway.toml: the nearest known one is node.id".into()),
        (
            "",
            &[("PARLEY__NODE__IDD", "x")],
            "unknown key PARLEY__NODE__IDD in the environment: the nearest known one is PARLEY__NODE__ID".into(),
        ),
        (
            "",
            &[("PARLEY__NODE", "x")],
            "unknown key PARLEY__NODE in the environment: the nearest known one is PARLEY__NODE__ID".into(),
        ),
        (
            "",
            &[("PARLEY__", "x")],
            "unknown key PARLEY__ in the environment: the option --example lists the known ones".into(),
        ),
        (
            "",
            &[("PARLEY__node__id", "x")],
            "unknown key PARLEY__node__id in the environment: the nearest known one is PARLEY__NODE__ID".into(),
        ),
        (
            "",
            &[("PARLEY__PRESENCE__ADDR", "127.0.0.1:1")],
            "unknown key PARLEY__PRESENCE__ADDR in the environment: the option --example lists the known ones".into(),
        ),
        // Values of a wrong type.
        ("listen.ws = 8080", &[], format!(r#"listen.ws = "8080": {ip_port}"#)),
        ("listen.ws = ['127.0.0.1:1']", &[], r#"listen.ws = "[..]": expected one value, not a list (set in /gateway.toml)"#.into()),
        ("listen = []", &[], "unknown key listen in /gateway.toml: the nearest known one is listen.ws".into()),
        ("log.files = [7]", &[], r#"log.files = "[..]": expected one value, not a list (set in /gateway.toml)"#.into()),
        (
            "listen.origins = [['x']]",
            &[],
            r#"listen.origins = "[..]": expected values, not lists or tables, between the brackets (set in /gateway.toml)"#.into(),
        ),
        (
            "",
            &[("PARLEY__NODE__ID_FILE", "x")],
            "unknown key PARLEY__NODE__ID_FILE in the environment: the nearest known one is PARLEY__NODE__ID".into(),
        ),
        ("drain.grace_seconds = 1.5", &[], format!(r#"drain.grace_seconds = "1.5": {seconds}"#)),
        ("drain.grace_seconds = true", &[], format!(r#"drain.grace_seconds = "true": {seconds}"#)),
        ("drain.grace_seconds = -1", &[], format!(r#"drain.grace_seconds = "-1": {seconds}"#)),
        // Values out of range.
        ("", &[("PARLEY__LISTEN__WS", ":::")], format!(r#"listen.ws = ":::": {ip_port}"#)),
        ("", &[("PARLEY__LISTEN__TCP", "local host:1")], format!(r#"listen.tcp = "local host:1": {ip_port}"#)),
        ("", &[("PARLEY__ADMIN__ADDR", "127.0.0.1:65536")], format!(r#"admin.addr = "127.0.0.1:65536": {ip_port}"#)),
        ("", &[("PARLEY__NODE__ID", "a b")], format!(r#"node.id = "a b": {node}"#)),
        ("", &[("PARLEY__NODE__ID", "g1\n")], format!(r#"node.id = "g1\n": {node}"#)),
        ("", &[("PARLEY__NODE__ID", &long)], format!(r#"node.id = "{long}": {node}"#)),
        ("", &[("PARLEY__REDIS__PREFIX", "{a}")], format!(r#"redis.prefix = "{{a}}": {prefix}"#)),
        ("", &[("PARLEY__REDIS__PREFIX", "a b")], format!(r#"redis.prefix = "a b": {prefix}"#)),
        ("", &[("PARLEY__DRAIN__GRACE_SECONDS", "3601")], format!(r#"drain.grace_seconds = "3601": {seconds}"#)),
        ("history.max_messages = 0", &[], format!(r#"history.max_messages = "0": {messages}"#)),
        ("history.max_messages = 1000001", &[], format!(r#"history.max_messages = "1000001": {messages}"#)),
        ("history.inbox_messages = 0", &[], format!(r#"history.inbox_messages = "0": {messages}"#)),
        ("history.inbox_messages = 1000001", &[], format!(r#"history.inbox_messages = "1000001": {messages}"#)),
        ("history.max_bytes = 65535", &[], format!(r#"history.max_bytes = "65535": {bytes}"#)),
        ("history.max_bytes = 1073741825", &[], format!(r#"history.max_bytes = "1073741825": {bytes}"#)),
        ("history.inbox_bytes = 65535", &[], format!(r#"history.inbox_bytes = "65535": {bytes}"#)),
        ("history.inbox_bytes = 1073741825", &[], format!(r#"history.inbox_bytes = "1073741825": {bytes}"#)),
        ("history.quiet_room_hours = 0", &[], format!(r#"history.quiet_room_hours = "0": {quiet}"#)),
        ("history.quiet_room_hours = 73", &[], format!(r#"history.quiet_room_hours = "73": {quiet}"#)),
        ("history.max_age_hours = 0", &[], format!(r#"history.max_age_hours = "0": {hours}"#)),
        ("", &[("PARLEY__HISTORY__MAX_AGE_HOURS", "8761")], format!(r#"history.max_age_hours = "8761": {hours}"#)),
        ("session.hold_seconds = 4", &[], format!(r#"session.hold_seconds = "4": {hold}"#)),
        ("", &[("PARLEY__SESSION__HOLD_SECONDS", "3601")], format!(r#"session.hold_seconds = "3601": {hold}"#)),
        (
            "names.ascii_lookalikes = 1",
            &[],
            r#"names.ascii_lookalikes = "1": expected true or false"#.into(),
        ),
        ("listen.origins = 'https://h/'", &[], format!(r#"listen.origins = "https://h/": {origins}"#)),
        ("listen.origins = ['https://h', 'h']", &[], format!(r#"listen.origins = "https://h,h": {origins}"#)),
        ("listen.origins = 'null'", &[], format!(r#"listen.origins = "null": {origins}"#)),
        ("listen.origins = 'https://ann@h'", &[], format!(r#"listen.origins = "https://ann@h": {origins}"#)),
        (
            "limits.connections = 0",
            &[],
            r#"limits.connections = "0": expected a whole number from 1 to 1000000"#.into(),
        ),
        (
            "limits.connections_per_address = 0",
            &[],
            r#"limits.connections_per_address = "0": expected a whole number from 1 to 1000000"#.into(),
        ),
        (
            "listen.trusted_proxies = ['nginx']",
            &[],
            r#"listen.trusted_proxies = "nginx": expected IP addresses or networks, such as 10.0.0.0/8 or ::1"#.into(),
        ),
        (
            "limits.write_stall_seconds = 0",
            &[],
            r#"limits.write_stall_seconds = "0": expected a whole number of seconds from 1 to 3600"#.into(),
        ),
        (
            "heartbeat.proxy_idle_seconds = 3601",
            &[],
            r#"heartbeat.proxy_idle_seconds = "3601": expected a whole number of seconds from 0 to 3600"#.into(),
        ),
        (
            "heartbeat.line_sign_seconds = -1",
            &[],
            r#"heartbeat.line_sign_seconds = "-1": expected a whole number of seconds from 0 to 3600"#.into(),
        ),
        ("log.format = 'xml'", &[], r#"log.format = "xml": expected auto, text or json"#.into()),
        ("log.file = '/'", &[], r#"log.file = "/": expected the path of a file"#.into()),
        ("log.file_mib = 0", &[], r#"log.file_mib = "0": expected a whole number of MiB from 1 to 65536"#.into()),
        ("log.files = 0", &[], r#"log.files = "0": expected a whole number from 1 to 1000"#.into()),
        // An empty variable does not select the default; an empty redis.url must not start a gateway in memory.
        ("", &[("PARLEY__REDIS__URL", "")], r#"redis.url = "": expected redis://HOST:PORT or rediss://HOST:PORT"#.into()),
        ("", &[("PARLEY__REDIS__PREFIX", "")], format!(r#"redis.prefix = "": {prefix}"#)),
        ("", &[("PARLEY__NODE__ID", "")], format!(r#"node.id = "": {node}"#)),
    ];
    for (file, environment, expected) in table {
        let error = load(Some(file), environment).unwrap_err();
        assert_eq!(error, *expected, "{file:?} {environment:?}");
        assert_eq!(error.lines().count(), 1);
    }
    let error = load(None, &[("PARLEY__LOG__LEVEL", "loud")]).unwrap_err();
    assert!(error.starts_with(r#"log.level = "loud": expected off, error"#), "{error}");
}

#[test]
fn printed_config_loads_again() {
    let table = [
        changed(|_| {}),
        changed(|c| {
            c.redis = Some("redis://127.0.0.1:6390/2".parse().unwrap());
            c.prefix = r#"a"b\c'#="#.to_owned();
            c.ws = "[::1]:0".parse().unwrap();
            let hours = |hours: u64| Duration::from_secs(hours * 3600);
            c.history = Retention {
                messages: 1,
                bytes: 65_537,
                age: hours(8760),
                inbox_messages: 2,
                inbox_bytes: 65_538,
                quiet: hours(3),
            };
            c.hold = Duration::from_secs(8);
            c.lookalikes = LookalikePolicy::ExceptAscii;
            c.limits.origins = two();
            let embedders = vec!["https://www.example.org".parse().unwrap()].into();
            c.limits.page = Arc::new(PageAccess { served: false, embedders });
            c.limits.connections = 2;
            *Arc::make_mut(&mut c.limits.addresses) = AddressLimits {
                proxies: vec!["10.0.0.0/8".parse().unwrap()].into(),
                proxy_protocol: true,
                connections: 3,
                ..AddressLimits::default()
            };
            c.logs.addresses = false;
            c.limits.write_stall = Duration::from_secs(4);
            c.limits.proxy_idle = None;
            c.limits.line_sign = Some(Duration::from_secs(50));
            c.logs.format = LogFormat::Text;
            c.logs.file = Some("logs/g1 .log".into());
            c.logs.kept = 1;
            c.logs.size_mib = 1;
            c.grace = Duration::from_secs(7);
            c.logs.level = r#"info,gateway[say{to="x"}]=debug"#.to_owned();
        }),
    ];
    for config in table {
        assert_eq!(load(Some(&config.to_string()), &[]), Ok(config));
    }
}

#[test]
fn printed_config_hides_credentials() {
    let config = changed(|c| c.redis = Some("redis://ann:hunter2@127.0.0.1:6390/2?protocol=resp3".parse().unwrap()));
    assert!(config.to_string().contains("redis.url = \"redis://***@127.0.0.1:6390/2?***\"\n"), "{config}");
    assert!(!format!("{config} {config:?}").contains("hunter2"));
    assert!(config.redis.unwrap().reveal().contains("hunter2"));
    let config = changed(|c| c.auth = AuthConfig::full());
    assert!(config.to_string().contains("auth.secret = \"***\"\n"), "{config}");
    assert!(!format!("{config} {config:?}").contains("hunter2"));
    let config = changed(|c| c.hooks = HookSettings::full());
    assert!(config.to_string().contains("hooks.secret = \"***\"\n"), "{config}");
    assert!(!format!("{config} {config:?}").contains("hunter2"));
}

#[test]
fn default_node_id_is_new_each_time() {
    let names = [(); 2].map(|()| load(None, &[]).unwrap().node);
    assert_ne!(names[0], names[1]);
    for name in names {
        assert_eq!(load(None, &[("PARLEY__NODE__ID", &name)]).unwrap().node, name);
    }
}
