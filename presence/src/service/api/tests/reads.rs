//! Successful reads.

use serde_json::json;

use super::Served;
use crate::model::{Nick, RoomName};
use crate::registry::ReleaseCause;
use crate::store::memory::{Append, Store};

#[tokio::test]
async fn user_is_found_online_and_offline() {
    let served = Served::empty().await;
    let owner = served.user("Ann", &["#Lobby", "#go"]).await;

    let answer = served.get("/v1/users/ann").await;
    let ann = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        (&ann["nick"], &ann["online"], &ann["status"], &ann["rooms"]),
        (&json!("Ann"), &json!(true), &json!("online"), &json!(["#go", "#Lobby"]))
    );
    assert!(ann["online_since"].is_u64() && ann["last_active"].is_u64(), "times are integers: {ann}");

    served.registry.release(&Nick::parse("ann").unwrap(), &owner, ReleaseCause::CLOSED).await.unwrap();
    let answer = served.get("/v1/users/ANN").await;
    let ann = answer.json();
    assert_eq!((answer.status, &ann["nick"], &ann["online"]), (200, &json!("Ann"), &json!(false)));
    assert_eq!((&ann["online_since"], &ann["rooms"]), (&json!(null), &json!([])));
}

#[tokio::test]
async fn names_of_any_script_are_found_percent_encoded() {
    let served = Served::empty().await;
    served.user("小明", &["#大厅"]).await;
    assert_eq!(served.get("/v1/users/%E5%B0%8F%E6%98%8E").await.json()["nick"], "小明");
    for room in ["%23%E5%A4%A7%E5%8E%85", "%E5%A4%A7%E5%8E%85"] {
        assert_eq!(served.get(&format!("/v1/rooms/{room}")).await.json()["room"], "#大厅");
        assert_eq!(served.get(&format!("/v1/rooms/{room}/members")).await.json()["items"][0]["nick"], "小明");
    }
}

#[tokio::test]
async fn nickname_may_equal_an_api_path() {
    let served = Served::empty().await;
    for nick in ["lookup", "Lookup", "%6cookup"] {
        assert_eq!(served.get(&format!("/v1/users/{nick}")).await.json()["code"], "no_such_user");
    }
    served.user("Lookup", &[]).await;
    for nick in ["lookup", "Lookup", "%6cookup"] {
        assert_eq!(served.get(&format!("/v1/users/{nick}")).await.json()["nick"], "Lookup");
    }
}

#[tokio::test]
async fn lists_are_paged_without_duplicates_or_gaps() {
    let served = Served::empty().await;
    // Keys with escapes, which cursors must encode.
    let names: Vec<String> = (0..25).map(|n| format!("名{n:02}")).collect();
    for name in &names {
        served.user(name, &["#lobby", &format!("#{name}")]).await;
    }
    for (list, field, others) in
        [("/v1/users?online=true&", "nick", 0), ("/v1/rooms?", "room", 1), ("/v1/rooms/lobby/members?", "nick", 0)]
    {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = served.get(&format!("{list}limit=10{cursor}")).await.json();
            let items = page["items"].as_array().unwrap().clone();
            assert!(items.len() <= 10, "{page}");
            seen.extend(items.iter().map(|item| item[field].as_str().unwrap().to_owned()));
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (25 + others, 3), "{list}: {seen:?}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 25 + others, "{list}");
    }
    let whole = served.get("/v1/users?online=true").await.json();
    assert_eq!((whole["items"].as_array().unwrap().len(), &whole["next_cursor"]), (25, &json!(null)));
}

#[tokio::test]
async fn api_finds_an_empty_room() {
    let store = Store::default();
    let served = Served::over_store(store.clone()).await;
    let owner = served.user("ann", &["#lobby"]).await;
    let (room, ann) = (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap());
    let message = Append {
        from: ann.key(),
        owner: &owner,
        moderates: false,
        key: None,
        adds_key: true,
        msg_id: "m",
        payload: "{}",
    };
    store.append(&room, message).unwrap();
    served.leave(&room, &ann, &owner).await;
    assert_eq!(served.get("/v1/rooms/lobby").await.json()["member_count"], 0);
    assert_eq!(served.get("/v1/rooms/lobby/members").await.json(), json!({ "items": [], "next_cursor": null }));
    assert_eq!(served.get("/v1/rooms").await.json(), json!({ "items": [], "next_cursor": null }));
}

#[tokio::test]
async fn lookup_answers_each_name_in_order() {
    let served = Served::empty().await;
    served.user("ann", &[]).await;
    let answer = served.lookup(r#"{"nicks":["zed","ANN","b@d","ann"],"more":1}"#).await;
    let items = answer.json()["items"].clone();
    assert_eq!(answer.status, 200);
    assert_eq!(items[0], json!({ "asked": "zed", "user": null, "code": "no_such_user" }));
    assert_eq!((&items[1]["asked"], &items[1]["user"]["nick"]), (&json!("ANN"), &json!("ann")));
    assert_eq!(items[1]["code"], json!(null));
    let detail = "the name contains the character @, which is not allowed";
    assert_eq!(items[2], json!({ "asked": "b@d", "user": null, "code": "bad_nick", "detail": detail }));
    assert_eq!(items[3]["user"]["online"], true);
    assert_eq!(served.lookup(r#"{"nicks":[]}"#).await.json(), json!({ "items": [] }));
}

#[tokio::test]
async fn lookup_accepts_at_most_a_thousand_names() {
    let served = Served::empty().await;
    let body = |count: usize| json!({ "nicks": vec!["小明小明小明小明小明小明小明"; count] }).to_string();
    let answer = served.lookup(&body(1000)).await;
    assert_eq!((answer.status, answer.json()["items"].as_array().unwrap().len()), (200, 1000));
    let answer = served.lookup(&body(1001)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")));
    assert!(answer.json()["detail"].as_str().unwrap().contains("nicks"), "the detail names the field: {answer:?}");
}

/// Names of the maximum length are accepted in a lookup even if every character is written as an escape.
#[tokio::test]
async fn lookup_has_space_for_escaped_names() {
    let served = Served::empty().await;
    let nick = "\u{1E922}".repeat(32);
    served.user(&nick, &[]).await;
    let escaped: String = nick.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let body = format!("{{\"nicks\":[{}]}}", vec![format!("\"{escaped}\""); 1000].join(", "));
    let answer = served.lookup(&body).await;
    assert_eq!((answer.status, &answer.json()["items"][999]["user"]["nick"]), (200, &json!(nick)), "{}", body.len());
}

/// A list can end on a room with the longest key: letters that are longer in lower case, all encoded.
#[tokio::test]
async fn cursor_of_longest_room_is_accepted() {
    let served = Served::empty().await;
    let longest = format!("#{}", "\u{23A}".repeat(127));
    served.user("ann", &[&longest, "#\u{1E922}"]).await;
    let first = served.get("/v1/rooms?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = served.get(&format!("/v1/rooms?limit=1&cursor={cursor}")).await;
    let rooms = [&first["items"][0]["room"], &second.json()["items"][0]["room"]].map(|room| room.clone());
    assert_eq!(rooms, [json!(longest), json!("#\u{1E922}")], "{} bytes of cursor", cursor.len());
}

#[tokio::test]
async fn api_finds_names_with_signs() {
    let served = Served::empty().await;
    served.user("org/team+bot", &["#ann@example.org", "#a/b:c"]).await;
    served.user("user:123.x", &["#a/b:c", "#.."]).await;
    for (path, nick) in [
        ("/v1/users/org%2Fteam%2Bbot", "org/team+bot"),
        ("/v1/users/org%2fteam+bot", "org/team+bot"),
        ("/v1/users/user:123.x", "user:123.x"),
        ("/v1/users/USER%3A123%2EX", "user:123.x"),
    ] {
        assert_eq!(served.get(path).await.json()["nick"], json!(nick), "{path}");
    }
    for (path, room, members) in [
        ("/v1/rooms/%23ann%40example.org", "#ann@example.org", 1),
        ("/v1/rooms/ann@example.org", "#ann@example.org", 1),
        ("/v1/rooms/a%2Fb:c", "#a/b:c", 2),
        ("/v1/rooms/%23..", "#..", 1),
    ] {
        let found = served.get(path).await.json();
        assert_eq!((&found["room"], &found["member_count"]), (&json!(room), &json!(members)), "{path}");
        let listed = served.get(&format!("{path}/members")).await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), members, "{path}/members");
    }
    let answer = served.lookup(r#"{"nicks":["org/team+bot","/bot","USER:123.X"]}"#).await;
    let codes: Vec<_> = answer.json()["items"].as_array().unwrap().iter().map(|item| item["code"].clone()).collect();
    assert_eq!(codes, [json!(null), json!("bad_nick"), json!(null)]);
}

#[tokio::test]
async fn api_lists_gateways_and_totals() {
    let served = Served::empty().await;
    served.user("ann", &["#lobby"]).await;
    served.user("bob", &["#lobby", "#go"]).await;
    let stats = served.get("/v1/stats").await.json();
    assert_eq!(stats, json!({ "users_online": 2, "rooms": 2, "gateways": 1 }));
    let gateways = served.get("/v1/gateways").await.json();
    let g1 = &gateways["items"][0];
    assert_eq!(
        (&g1["node"], &g1["state"], &g1["users"], &g1["version"]),
        (&json!("g1"), &json!("live"), &json!(2), &json!("0.1.0"))
    );
    assert_eq!((gateways["items"].as_array().unwrap().len(), &gateways["next_cursor"]), (1, &json!(null)));
}

#[tokio::test]
async fn pages_load_nothing_from_other_servers() {
    let served = Served::empty().await;
    for (path, kind) in [
        ("/docs", "text/html"),
        ("/docs/docs.css", "text/css"),
        ("/docs/docs.js", "text/javascript"),
        ("/", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/source.js", "text/javascript"),
        ("/page/state.js", "text/javascript"),
        ("/page/words.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{answer:?}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let text = answer.body.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another server");
        let is_inline = text.contains(" style=\"") || text.contains("<script>") || text.contains("<style");
        assert!(!is_inline, "{path} has inline scripts or styles");
    }
}

#[tokio::test]
async fn page_file_is_sent_again_only_if_changed() {
    let served = Served::empty().await;
    for path in ["/", "/page/page.js", "/docs", "/docs/docs.js"] {
        let first = served.get(path).await;
        assert_eq!(first.header("cache-control"), Some("no-cache"), "{path}");
        let tag = first.header("etag").unwrap();
        for (known, status) in
            [(tag.to_owned(), 304), (format!("\"0\", W/{tag}"), 304), ("*".to_owned(), 304), ("\"0\"".to_owned(), 200)]
        {
            let answer = served.send(&format!("GET {path} HTTP/1.0\r\nIf-None-Match: {known}\r\n\r\n")).await;
            assert_eq!((answer.status, answer.header("etag")), (status, Some(tag)), "{path} {known}");
            assert_eq!(answer.body, if status == 200 { first.body.as_str() } else { "" }, "{path} {known}");
            assert_eq!(answer.header("content-security-policy"), first.header("content-security-policy"));
        }
    }
}

#[tokio::test]
async fn json_client_is_redirected_to_documentation() {
    let served = Served::empty().await;
    for (accept, status) in [
        ("application/json", 307),
        ("text/plain, Application/JSON;q=0.9, */*;q=0.1", 307),
        ("text/html,application/xhtml+xml,application/json;q=0.5", 200),
        ("*/*", 200),
        ("", 200),
    ] {
        let answer = served.send(&format!("GET / HTTP/1.0\r\nAccept: {accept}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("vary")), (status, Some("accept")), "{accept}");
        assert_eq!(answer.header("location"), (status == 307).then_some("/docs"), "{accept}");
    }
}

#[tokio::test]
async fn answers_are_counted_by_route_pattern() {
    let served = Served::empty().await;
    served.get("/v1/users/ann").await;
    served.get("/v1/users/bob").await;
    served.get("/nowhere").await;
    let text = prometheus::TextEncoder::new().encode_to_string(&served.metrics.registry.gather()).unwrap();
    assert!(text.contains(r#"parley_api_requests_total{route="/v1/users/{nick}",status="404"} 2"#), "{text}");
    assert!(text.contains(r#"parley_api_requests_total{route="none",status="404"} 1"#), "{text}");
}

#[tokio::test]
async fn sessions_are_listed_by_nick_user_or_page() {
    let served = Served::empty().await;
    let ann = served.user("ann", &["#lobby"]).await;
    served.sign_in("bob", "user:2").await;
    served.user("eve", &[]).await;
    let nicks = async |path: &str| {
        let page = served.get(path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let nicks = page["items"].as_array().unwrap().iter().map(|row| row["nick"].as_str().unwrap().to_owned());
        (nicks.collect::<Vec<_>>(), page["next_cursor"].as_str().map(str::to_owned))
    };
    let of_ann = served.get("/v1/sessions?nick=ANN").await.json();
    assert_eq!(
        (&of_ann["items"][0]["session"], &of_ann["items"][0]["rooms"]),
        (&json!(ann.session), &json!(["#lobby"]))
    );
    assert_eq!(nicks("/v1/sessions?nick=ann").await.0, ["ann"]);
    assert_eq!(nicks("/v1/sessions?user=user:2").await.0, ["bob"]);
    for none in ["nick=zoe", "user=user:3"] {
        assert_eq!(nicks(&format!("/v1/sessions?{none}")).await, (Vec::new(), None));
    }
    let (mut found, mut path) = (Vec::new(), "/v1/sessions?limit=2".to_owned());
    loop {
        let (page, cursor) = nicks(&path).await;
        found.extend(page);
        let Some(cursor) = cursor else { break };
        path = format!("/v1/sessions?limit=2&cursor={cursor}");
    }
    found.sort();
    assert_eq!(found, ["ann", "bob", "eve"]);
    for (query, code) in [("nick=ann&user=u", "bad_request"), ("nick=b@d", "bad_nick"), ("limit=0", "bad_request")] {
        let refusal = served.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!((refusal.status, &refusal.json()["code"]), (400, &json!(code)), "{query}");
    }
}
