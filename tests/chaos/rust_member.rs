//! A client of the fault bench on the Rust library. The bench starts it, writes commands to its stdin and reads events
//! from its stdout, each as a line of JSON. `crowd/library.rs` describes them.

use std::collections::BTreeMap;
use std::io::{Write, stdin, stdout};

use parley_client::{Options, Parley, ParleyError, Room, RoomEvent, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The argument of the program.
#[derive(Deserialize)]
struct MemberTask {
    urls: Vec<String>,
    nick: String,
    rooms: Vec<String>,
}

/// A message to send.
#[derive(Deserialize)]
struct SendOrder {
    room: String,
    key: String,
}

fn report(event: &Value) {
    // Without a reader the bench has ended, and this program ends with it.
    let _ = writeln!(stdout(), "{event}");
}

async fn report_states(chat: Parley) {
    let mut states = chat.states();
    while let Some(state) = states.next().await {
        report(&match state {
            State::Online { node, resumed, .. } => {
                json!({"event": "state", "name": "online", "node": node, "resumed": resumed})
            }
            State::Offline { reason, .. } => json!({"event": "state", "name": "offline", "reason": reason}),
            _ => json!({"event": "state", "name": "connecting"}),
        });
    }
}

async fn report_events(name: String, room: Room) {
    let mut events = room.events();
    while let Some(event) = events.next().await {
        match event {
            RoomEvent::Message(message) => report(&json!({"event": "message", "room": name, "id": message.id,
                "from": message.from, "seq": message.seq, "key": message.body})),
            RoomEvent::Gap { from_seq, to_seq } => {
                report(&json!({"event": "gap", "room": name, "from": from_seq, "to": to_seq}));
            }
            RoomEvent::Rewind { seq } => report(&json!({"event": "rewind", "room": name, "seq": seq})),
            _ => {}
        }
    }
}

async fn send(room: Room, key: String) {
    report(&match room.send_once(&key, key.as_str()).await {
        Ok(ack) => json!({"event": "acked", "room": room.name(), "key": key, "id": ack.id, "seq": ack.seq}),
        Err(error) => json!({"event": "refused", "key": key, "code": error.code()}),
    });
}

/// Returns the lines of stdin, which a thread reads.
fn orders() -> mpsc::UnboundedReceiver<SendOrder> {
    let (sender, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = stdin().lines().map_while(Result::ok);
        for order in lines.map_while(|line| serde_json::from_str(&line).ok()) {
            let _ = sender.send(order);
        }
    });
    orders
}

// One thread, so that the tasks of the sends begin in the order of the commands.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ParleyError> {
    let task = std::env::args().nth(1).and_then(|text| serde_json::from_str(&text).ok());
    let MemberTask { urls, nick, rooms: names } = task.expect("the argument of the bench");
    let chat = Parley::start(urls, Options::new(nick))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(report_states(chat.clone()));
    let mut rooms = BTreeMap::new();
    for name in names {
        let room = chat.join(&name, 0).await?;
        report(&json!({"event": "joined", "room": name, "seq": room.read_seq()}));
        tasks.spawn(report_events(name.clone(), room.clone()));
        rooms.insert(name, room);
    }
    let mut orders = orders();
    while let Some(SendOrder { room, key }) = orders.recv().await {
        tasks.spawn(send(rooms[&room].clone(), key));
    }
    chat.close().await;
    while tasks.join_next().await.is_some() {}
    Ok(())
}
