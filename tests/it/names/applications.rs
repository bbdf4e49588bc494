//! Ids of applications as names: users and rooms that an application names `user:123` or `docs/ann@example.org`.

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Cluster, LineClient, Node, Person, WsClient, eventually, http};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

const DOCUMENT: &str = "#https://docs.example.org/ann@example.org/a.b=c+d";
const TEAM: &str = "#org/team:42";

/// A room whose key is as long as a key can be: every letter is longer in lower case, and encoded.
fn longest_room() -> String {
    format!("#{}", "\u{23A}".repeat(127))
}

/// The addresses of one node or several nodes.
struct Doors {
    ws: [SocketAddr; 2],
    tcp: SocketAddr,
}

/// Three users talk in rooms and directly, and one of them changes its nickname.
async fn users_talk(doors: &Doors) -> (Person, WsClient, LineClient) {
    let john = Person::connect([doors.ws[0]], "john.doe").await;
    let user = WsClient::connect(doors.ws[1]).await;
    let bot = LineClient::connect(doors.tcp).await;
    user.register("user:123").await;
    bot.register("org/team+bot").await;

    for room in [DOCUMENT, TEAM] {
        john.join(room).await;
        user.join(room).await;
    }
    // The `#` may be left out, also before other signs.
    bot.types("/join org/team:42").await;
    bot.reads("* you are in #org/team:42, members: 3").await;
    john.sees_join(TEAM, "org/team+bot").await;
    john.sends(DOCUMENT, "read line 3").await;
    user.receives(DOCUMENT, "john.doe", "read line 3").await;
    bot.types("//etc/hosts: done").await;
    john.receives(TEAM, "org/team+bot", "/etc/hosts: done").await;
    user.receives(TEAM, "org/team+bot", "/etc/hosts: done").await;
    assert_eq!(john.history(DOCUMENT).await.len(), 1);
    bot.types("/history").await;
    bot.reads("[#org/team:42] <org/team+bot> /etc/hosts: done").await;

    bot.types("/msg user:123 hi: you").await;
    bot.reads("-> user:123: hi: you").await;
    user.receives_privately("org/team+bot", "hi: you").await;
    let keyed = json!({"type": "send", "to": "john.doe", "key": "k|#=@/", "body": "once"});
    let first = user.must(keyed.clone()).await;
    let again = user.must(keyed).await;
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)), "{first} {again}");
    assert_eq!(again["msg_id"], first["msg_id"]);
    john.receives_privately("user:123", "once").await;
    john.sends("org/team+bot", "and you").await;
    bot.reads("<- john.doe: and you").await;

    bot.types("/nick org/team+bot.v2").await;
    bot.reads("* you are now known as org/team+bot.v2").await;
    john.sees_rename(TEAM, "org/team+bot", "org/team+bot.v2").await;
    bot.types("/whois JOHN.DOE").await;
    bot.reads("* john.doe is online").await;
    let mut members = user.members(TEAM).await;
    members.sort_unstable();
    assert_eq!(members, ["john.doe", "org/team+bot.v2", "user:123"]);

    refuses_other_signs(&user, &bot).await;
    pages_end_on_longest_room(&user).await;
    (john, user, bot)
}

/// A refusal names the character in words, in both dialects.
async fn refuses_other_signs(user: &WsClient, bot: &LineClient) {
    for (name, reason) in [
        ("John Doe", "the name contains a space, which is not allowed"),
        ("john@example.org", "the name contains the character @, which is not allowed"),
        ("/admin", "the name must not begin with the character /"),
        (".hidden", "the name must not begin with the character ."),
        ("a\u{202E}b", "the name contains U+202E, which is not allowed"),
    ] {
        let refused = user.request(json!({"type": "nick", "nick": name})).await.expect_err("refused");
        assert_eq!((&*refused.code, &refused.reply["message"]), ("bad_nick", &json!(reason)), "{name}");
        bot.types(&format!("/nick {name}")).await;
        bot.reads(&format!("! bad_nick: {reason}")).await;
    }
    let refused = user.request(json!({"type": "join", "room": "#a\u{7}"})).await.expect_err("refused");
    assert_eq!(refused.reply["message"], "the name contains U+0007, which is not allowed");
    bot.types("/msg :bob hi").await;
    bot.reads("! bad_nick: the name must not begin with the character :").await;
}

/// Lists the rooms one by one, also behind the longest one.
async fn pages_end_on_longest_room(user: &WsClient) {
    let longest = longest_room();
    let mut expected = vec![DOCUMENT.to_owned(), TEAM.to_owned(), longest.clone(), "#\u{1E922}".to_owned()];
    user.join(&longest).await;
    user.join("#\u{1E922}").await;
    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut request = json!({"type": "rooms", "limit": 1});
        if cursor != Value::Null {
            request["cursor"] = cursor;
        }
        let page = user.must(request).await;
        found.extend(page["items"].as_array().unwrap().iter().map(|row| row["room"].as_str().unwrap().to_owned()));
        cursor = page["next_cursor"].clone();
        if cursor == Value::Null {
            break;
        }
    }
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    user.leave(&longest).await;
}

#[tokio::test]
async fn application_ids_chat_across_two_gateways() {
    let cluster = Cluster::builder().gateways(2).presence(1).start().await;
    let ws = [0, 1].map(|gateway| cluster.gateways[gateway].ws());
    let (john, user, bot) = users_talk(&Doors { ws, tcp: cluster.gateways[1].tcp() }).await;

    for (path, nick) in
        [("john.doe", "john.doe"), ("user%3A123", "user:123"), ("org%2Fteam%2Bbot.v2", "org/team+bot.v2")]
    {
        let found = cluster.ask(&format!("/v1/users/{path}")).await;
        assert_eq!((&found["nick"], &found["online"]), (&json!(nick), &json!(true)), "{found}");
    }
    let members = cluster.ask("/v1/rooms/%23org%2Fteam%3A42/members").await;
    assert_eq!(members["items"].as_array().unwrap().len(), 3, "{members}");
    let api = cluster.presence[0].api();
    let asked = json!({"nicks": ["user:123", "org/team+bot", ".x"]});
    let found = http::post(api, "/v1/users/lookup", &asked).await.unwrap().json();
    assert_eq!(found["items"][0]["user"]["online"], true, "{found}");
    assert_eq!(found["items"][1]["user"]["online"], false, "{found}");
    assert_eq!(found["items"][2]["code"], "bad_nick", "{found}");

    // The session moves to the other gateway with its names.
    let registered = WsClient::connect(cluster.gateways[0].ws()).await;
    let first = registered.register("user:9/a").await;
    let joined = registered.join(TEAM).await;
    registered.cut();
    john.sends(TEAM, "while away").await;
    let returned = WsClient::connect(cluster.gateways[1].ws()).await;
    let since = json!({TEAM: {"epoch": joined["epoch"], "seq": joined["seq"]}});
    let resumed = returned.resume(&first, since).await;
    assert_eq!(resumed["rooms"][0]["room"], TEAM, "{resumed}");
    returned.receives(TEAM, "john.doe", "while away").await;
    returned.bye().await;
    john.bye().await;
    user.bye().await;
    bot.types("/quit").await;
    bot.closed().await;
    eventually(SOON, "all are offline", || async {
        if cluster.is_online("user:123").await { Err("online") } else { Ok(()) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn application_ids_chat_on_embedded_gateway() {
    let mut gateway = Node::gateway("alone").start().await;
    let people = users_talk(&Doors { ws: [gateway.ws(); 2], tcp: gateway.tcp() }).await;
    drop(people);
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}
