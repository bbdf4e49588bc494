//! Repeats every message of a room.

use std::path::Path;

use parley_client::{FileStorage, Options, Parley, ParleyError};

/// Echoes until the session ends. After a restart it continues behind the last echo.
pub(crate) async fn echo(url: &str, room: &str, storage: &Path) -> Result<(), ParleyError> {
    let options = Options::new("echo-bot").storage(FileStorage::new(storage));
    let chat = Parley::connect([url], options).await?;
    let room = chat.join(room, 0).await?;
    let mut messages = room.messages();
    while let Some(message) = messages.next().await {
        if !message.own {
            // The key makes the echo unique, also if a crash repeats the message.
            room.send_once(message.body, format!("echo-{}", message.id)).await?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), ParleyError> {
    echo("ws://127.0.0.1:8080/ws", "#lobby", Path::new("echo-bot.json")).await
}
