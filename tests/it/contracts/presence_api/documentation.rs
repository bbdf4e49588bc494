//! The documentation page holds: every example is played, and every path and code is shown.

use super::*;

/// A request and its answer, from a block of the page.
#[derive(Debug)]
struct ApiExample<'a> {
    line: usize,
    /// The shell command above the block.
    command: &'a str,
    method: &'a str,
    path: &'a str,
    headers: Vec<&'a str>,
    body: Option<&'a str>,
    status: u16,
    answer: String,
}

fn examples(page: &str) -> Vec<ApiExample<'_>> {
    let mut found = Vec::new();
    let mut command = "";
    let mut lines = (1..).zip(page.lines());
    while let Some((line, text)) = lines.next() {
        match text {
            "```sh" => command = lines.next().expect("a command").1,
            "```api" => {
                let block: Vec<&str> = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
                let (method, path) = block[0].split_once(' ').expect("a method and a path");
                let at = block.iter().position(|text| text.parse::<u16>().is_ok()).expect("a status");
                let (mut headers, mut body) = (Vec::new(), None);
                for &part in &block[1..at] {
                    if part.starts_with('{') { body = Some(part) } else { headers.push(part) }
                }
                let (status, answer) = (block[at].parse().expect("a status"), block[at + 1..].join("\n"));
                found.push(ApiExample { line, command, method, path, headers, body, status, answer });
            }
            _ => {}
        }
    }
    found
}

impl ApiExample<'_> {
    fn request(&self) -> String {
        let (body, headers) = (self.body.unwrap_or_default(), &self.headers);
        let headers: String =
            headers.iter().map(|header| format!("{header}\r\n").replace("KEY", &EXAMPLE_KEY.secret)).collect();
        let length = body.len();
        let (method, path) = (self.method, self.path);
        format!("{method} {path} HTTP/1.0\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    async fn play(&self, api: SocketAddr) {
        let line = self.line;
        let command_fits = self.command.contains(self.path) && self.body.is_none_or(|body| self.command.contains(body));
        assert!(command_fits, "line {line}: the command above sends another request: {}", self.command);
        if self.path == "/v1/events" {
            return self.play_stream(api).await;
        }
        let answer = http::exchange(api, self.request().as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, self.status, "line {line}: {answer:?}");
        if self.answer.is_empty() {
            return assert_eq!(answer.body, "", "line {line}: {answer:?}");
        }
        let pattern: Value = serde_json::from_str(&self.answer).unwrap_or_else(|error| panic!("line {line}: {error}"));
        assert!(json_fits(&pattern, &answer.json()), "line {line}: {}", answer.body);
    }

    async fn play_stream(&self, api: SocketAddr) {
        let mut stream = EventStream::send(api, &self.request()).await;
        let wanted: Vec<&str> = self.answer.lines().collect();
        stream.until(|body| body.lines().count() >= wanted.len()).await;
        for (wanted, seen) in wanted.iter().zip(stream.body().lines()) {
            assert!(text_fits(wanted, seen), "example at line {}: {seen:?} is not {wanted:?}", self.line);
        }
    }
}

#[tokio::test]
async fn api_page_matches_the_api() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    assert_page_matches(&users, presence.addresses().api).await;
}

/// Plays every example of the page on an API with the users that the page has.
pub(super) async fn assert_page_matches(users: &GatewayUsers, api: SocketAddr) {
    let ann = users.register("ann").await;
    users.join("ann", &ann, "#lobby").await;
    let user = UserId::parse("user:2");
    let bob = users.sign_in("bob", user.as_ref()).await;
    users.join_as(("bob", user.as_ref()), &bob, "#lobby").await;
    let lunch = Status { status: Availability::Away, text: "lunch".to_owned() };
    let lobby = RoomName::parse("#lobby").expect("a room").key().clone();
    let member = MemberInfo { nick: "bob".to_owned(), user, status: lunch };
    users.registry.set_status(parse_nick("bob").key(), &bob, &member, &[lobby]).await.expect("an answer");
    let eve = users.register("eve").await;
    users.leave("eve", &eve).await;
    let lead = WebhookLead { process: "p1", lasts: SOON };
    users.registry.lead_webhooks(&lead, "", &["push"]).await.expect("an answer");

    let page = std::fs::read_to_string(repository().join("presence/API.md")).expect("the page");
    let examples = examples(&page);
    for example in &examples {
        example.play(api).await;
    }

    // The page shows every path that is served and explains every error code.
    let document = get(api, "/openapi.json").await.json();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let shown = |method: &String| page.contains(&format!("### `{} {path}", method.to_uppercase()));
        let methods = methods.as_object().expect("methods");
        assert!(methods.keys().all(shown), "{path} has no chapter");
        let is_shown = |example: &ApiExample<'_>| {
            let (path, requested) = (path.split('/'), example.path.split(['?']).next().unwrap_or_default().split('/'));
            path.clone().count() == requested.clone().count()
                && path.zip(requested).all(|(part, given)| part.starts_with('{') || part == given)
        };
        assert!(examples.iter().any(is_shown), "{path} has no example");
    }
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().expect("codes");
    for code in codes {
        let code = code.as_str().expect("a slug");
        assert!(page.contains(&format!("| `{code}` |")), "{code} is not explained");
    }
}
