//! A cursor is exactly a text that a page gives, and every number in it is one that Redis can read. A position in a
//! stream is valid up to an end of its epoch.

use gateway::wire::{Command, json};
use presence::model::ListCursor;
use presence::model::stream::{StreamEnd, read_forks};

pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(cursor) = text.parse::<ListCursor>() {
        assert_eq!(cursor.to_string(), text);
        let (score, rows) = ListCursor::next_row(Some(cursor));
        assert!(score <= 1 << 48 && u32::try_from(rows).is_ok(), "{text}");
        let mut page = vec![((), score); 3];
        assert!(ListCursor::cut(Some(cursor), &mut page, 2).is_some_and(|next| next != cursor));
    }
    // The forks of the store, and behind a line feed the position of a client.
    let (forks, since) = text.split_once('\n').unwrap_or((text, text));
    let end = StreamEnd { epoch: "present".to_owned(), seq: 7, forks: read_forks(forks) };
    assert!(end.forks.len() <= forks.split(' ').count());
    for fork in &end.forks {
        assert!(end.came_from(&fork.epoch) && end.shares(&fork.epoch) <= fork.seq.max(end.seq), "{fork:?}");
        assert!(!end.holds(&fork.epoch, u64::MAX) || fork.seq == u64::MAX, "{fork:?}");
    }
    let request = format!("{{\"type\":\"join\",\"room\":\"#a\",\"since\":{since}}}");
    if let Ok(Command::Join { since: Some(since), .. }) = json::decode(&request).map(|request| request.command) {
        assert!(since.seq < 1 << 53, "{since:?}");
        let known = since.epoch == "present" || end.came_from(&since.epoch);
        assert!(known || !end.holds(&since.epoch, since.seq), "{since:?}");
    }
}
