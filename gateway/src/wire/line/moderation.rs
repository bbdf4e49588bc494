//! Lines of moderators: `/kick NAME [WHY]` and its kind, and the lines that others see of them.
//!
//! Each line acts on the room that was entered last. It names people by nickname. The output is plain words; the caller
//! escapes what others have written.

use presence::model::RoomName;
use presence::model::moderation::{
    MODERATION_SECONDS_MAX, Moderation, ModerationAction, ModerationOrder, ModerationTarget, RoomRole,
};

use crate::wire::syntax::{self, bad_request};
use crate::wire::{Command, ModerationCommand, Refusal};

/// Reads the rest of a line that moderates a room.
pub(super) fn command(room: RoomName, action: ModerationAction, argument: &str) -> Result<Command, Refusal> {
    let word = action.as_str();
    if action == ModerationAction::Topic {
        let order = ModerationOrder { text: syntax::topic(argument)?, ..ModerationOrder::new(action, None) };
        return Ok(moderate(room, order));
    }
    let (name, rest) = next_word(argument);
    if name.is_empty() {
        return Err(bad_request(format!("a part is missing, type /{word} NAME")));
    }
    let mut order = ModerationOrder::new(action, Some(ModerationTarget::Nick(syntax::nick(name)?)));
    match action {
        ModerationAction::Kick => order.text = syntax::reason(rest)?,
        ModerationAction::Ban | ModerationAction::Mute => {
            let (first, other) = next_word(rest);
            let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
            order.text = syntax::reason(if is_number { other } else { rest })?;
            order.seconds = if is_number { Some(seconds(first)?) } else { None };
        }
        ModerationAction::Op if rest == "owner" => order.role = RoomRole::Owner,
        _ if rest.is_empty() => {}
        _ => return Err(bad_request(format!("type /{word} NAME"))),
    }
    Ok(moderate(room, order))
}

fn moderate(room: RoomName, order: ModerationOrder) -> Command {
    Command::Moderate(Box::new(ModerationCommand { room, order }))
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn seconds(digits: &str) -> Result<u64, Refusal> {
    let seconds = digits.parse().ok().filter(|seconds| (1..=MODERATION_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| bad_request(format!("SECONDS is a number from 1 to {MODERATION_SECONDS_MAX}")))
}

/// Returns what a moderator did to whom, for the middle of a line: `kicked bob`.
pub(super) fn deed(notice: &Moderation) -> (&'static str, &str, &'static str) {
    let person = notice.nick.as_deref().or(notice.user.as_ref().map(|user| user.as_str())).unwrap_or_default();
    let role = match notice.role {
        Some(RoomRole::Owner) => " owner",
        _ => " moderator",
    };
    match notice.action {
        ModerationAction::Kick => ("kicked ", person, ""),
        ModerationAction::Ban => ("banned ", person, ""),
        ModerationAction::Unban => ("lifted the ban of ", person, ""),
        ModerationAction::Mute => ("muted ", person, ""),
        ModerationAction::Unmute => ("lifted the mute of ", person, ""),
        ModerationAction::Op => ("made ", person, role),
        ModerationAction::Deop => ("took the role of ", person, ""),
        ModerationAction::Invite => ("invited ", person, ""),
        ModerationAction::Topic => ("set the topic", "", ""),
    }
}
