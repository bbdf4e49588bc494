//! [`Reply`] and [`Event`] to packed messages.
//!
//! One walk for both binary formats: it names the type and writes the fields to a [`PayloadWriter`], in the order of
//! JSON. Absent fields are left out, and so is `next_cursor` of the last page. Invariant: a message has the fields of
//! the JSON frame, except for `type`.

use bytes::Bytes;
use presence::model::codes::CloseCode;
use presence::model::moderation::{Moderation, ModerationAction, RoomTopic};
use presence::model::{MemberInfo, PresenceDelta, Status};

use crate::message::ChatMessage;
use crate::wire::field::Field;
use crate::wire::{Answer, CorrelationId, DeliveryStatus, Event, INBOX, PackedDialect, PackedFormat, Reply, json};

use super::messagepack::MapWriter;
use super::packed_type::{COMPRESSED, PackedType};
use super::payload_writer::PayloadWriter;
use super::protobuf::MessageWriter;
use super::snappy;

/// Bytes reserved for a message.
const USUAL_BYTES: usize = 256;
/// Length of the type of a message.
const TYPE_BYTES: usize = 2;

/// Encodes an event as a packed message.
#[must_use]
pub fn encode_event(dialect: PackedDialect, event: &Event) -> Bytes {
    let kind = event_type(event);
    pack(dialect, kind, |out| match dialect.format {
        PackedFormat::Json => out.extend_from_slice(&json::encode_event(event)),
        PackedFormat::MessagePack => write_event(&mut MapWriter::begin(out), event),
        PackedFormat::Protobuf => write_event(&mut MessageWriter::begin(out), event),
    })
}

/// Encodes a reply as a packed message.
#[must_use]
pub fn encode_reply(dialect: PackedDialect, reply: &Reply) -> Bytes {
    let kind = reply_type(&reply.answer);
    pack(dialect, kind, |out| match dialect.format {
        PackedFormat::Json => out.extend_from_slice(&json::encode_reply(reply)),
        PackedFormat::MessagePack => write_reply(&mut MapWriter::begin(out), reply),
        PackedFormat::Protobuf => write_reply(&mut MessageWriter::begin(out), reply),
    })
}

/// Encodes the last message of a connection that the gateway closes.
#[must_use]
pub fn encode_closing(dialect: PackedDialect, code: CloseCode) -> Bytes {
    let (number, slug) = (u64::from(code.number()), code.slug());
    pack(dialect, PackedType::Closing, |out| match dialect.format {
        PackedFormat::Json => {
            let closing = PackedType::Closing.name();
            out.extend_from_slice(
                format!(r#"{{"type":"{closing}","close_code":{number},"code":"{slug}"}}"#).as_bytes(),
            );
        }
        PackedFormat::MessagePack => write_closing(&mut MapWriter::begin(out), number, slug),
        PackedFormat::Protobuf => write_closing(&mut MessageWriter::begin(out), number, slug),
    })
}

/// Returns the message that asks a client for a sign of life. It has no payload.
#[must_use]
pub fn heartbeat() -> Bytes {
    Bytes::copy_from_slice(&PackedType::Heartbeat.number().to_be_bytes())
}

/// Makes a message of a type and a payload.
fn pack(dialect: PackedDialect, kind: PackedType, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut message = Vec::with_capacity(USUAL_BYTES);
    message.extend_from_slice(&kind.number().to_be_bytes());
    write(&mut message);
    if dialect.compresses
        && let Some(compressed) = snappy::compress(&message[TYPE_BYTES..])
    {
        message.clear();
        message.extend_from_slice(&(kind.number() | COMPRESSED).to_be_bytes());
        message.extend_from_slice(&compressed);
    }
    message.into()
}

fn reply_type(answer: &Answer) -> PackedType {
    match answer {
        Answer::Registered { .. } => PackedType::Registered,
        Answer::Joined { .. } => PackedType::JoinedReply,
        Answer::Left { .. } => PackedType::LeftReply,
        Answer::Ack { .. } => PackedType::Ack,
        Answer::Nick { .. } => PackedType::NickReply,
        Answer::Status(_) => PackedType::StatusReply,
        Answer::Members { .. } => PackedType::MembersReply,
        Answer::Rooms { .. } => PackedType::RoomsReply,
        Answer::Whois { .. } => PackedType::WhoisReply,
        Answer::History { .. } => PackedType::HistoryReply,
        Answer::Read { .. } => PackedType::ReadReply,
        Answer::Typing { .. } => PackedType::TypingReply,
        Answer::Refreshed { .. } => PackedType::Refreshed,
        Answer::Options { .. } => PackedType::OptionsReply,
        Answer::Pong => PackedType::Pong,
        Answer::Refused(_) => PackedType::Error,
        Answer::Moderated { notice, .. } => match notice.action {
            ModerationAction::Kick => PackedType::KickReply,
            ModerationAction::Ban => PackedType::BanReply,
            ModerationAction::Unban => PackedType::UnbanReply,
            ModerationAction::Mute => PackedType::MuteReply,
            ModerationAction::Unmute => PackedType::UnmuteReply,
            ModerationAction::Op => PackedType::OpReply,
            ModerationAction::Deop => PackedType::DeopReply,
            ModerationAction::Invite => PackedType::InviteReply,
            ModerationAction::Topic => PackedType::TopicReply,
        },
    }
}

fn write_reply(out: &mut impl PayloadWriter, reply: &Reply) {
    write_id(out, &reply.id);
    match &reply.answer {
        Answer::Registered { nick, user, expires_in_ms, session, resume, rooms, inbox, heartbeat_ms, node, time } => {
            out.text(Field::Nick, nick);
            out.optional_text(Field::User, user.as_ref().map(|user| user.as_str()));
            out.optional_number(Field::ExpiresInMs, *expires_in_ms);
            out.text(Field::Session, session);
            out.text(Field::Resume, resume.reveal());
            out.list(Field::Rooms, rooms, |row, room| {
                row.text(Field::Room, &room.room);
                row.text(Field::Epoch, &room.epoch);
                row.number(Field::Seq, room.seq);
            });
            out.object(Field::Inbox, |position| {
                position.text(Field::Epoch, &inbox.epoch);
                position.number(Field::Seq, inbox.seq);
            });
            out.number(Field::HeartbeatMs, *heartbeat_ms);
            out.text(Field::Node, node);
            out.number(Field::Time, *time);
        }
        Answer::Joined { room, epoch, seq, member_count, recovered, topic, role, .. } => {
            out.text(Field::Room, room);
            out.text(Field::Epoch, epoch);
            out.number(Field::Seq, *seq);
            out.number(Field::MemberCount, *member_count);
            out.flag(Field::Recovered, *recovered);
            if let Some(topic) = topic {
                out.object(Field::Topic, |object| write_topic(object, topic));
            }
            out.optional_text(Field::Role, role.map(|role| role.as_str()));
        }
        Answer::Left { room } => out.text(Field::Room, room),
        Answer::Ack { to, msg_id, delivery, time, duplicate } => {
            out.text(Field::To, to);
            out.msg_id(msg_id);
            match delivery {
                DeliveryStatus::Room { seq } => out.number(Field::Seq, *seq),
                DeliveryStatus::Online => out.text(Field::Delivered, "online"),
                DeliveryStatus::Offline => out.text(Field::Delivered, "offline"),
            }
            out.number(Field::Time, *time);
            out.flag(Field::Duplicate, *duplicate);
        }
        Answer::Nick { nick } => out.text(Field::Nick, nick),
        Answer::Status(status) => {
            out.text(Field::Status, status.status.as_str());
            out.text(Field::Text, &status.text);
        }
        Answer::Members { room, items, next_cursor } => {
            out.text(Field::Room, room);
            out.list(Field::Items, items, write_member);
            out.optional_text(Field::NextCursor, next_cursor.as_deref());
        }
        Answer::Rooms { items, next_cursor } => {
            out.list(Field::Items, items, |row, item| {
                row.text(Field::Room, &item.room);
                row.number(Field::MemberCount, item.member_count);
            });
            out.optional_text(Field::NextCursor, next_cursor.as_deref());
        }
        Answer::Whois { nick, user, status } => {
            out.text(Field::Nick, nick);
            out.optional_text(Field::User, user.as_ref().map(|user| user.as_str()));
            out.flag(Field::Online, status.is_some());
            if let Some(Status { status, text }) = status {
                out.text(Field::Status, status.as_str());
                out.text(Field::Text, text);
            }
        }
        Answer::History { to, items, more } => {
            out.text(Field::To, to);
            out.list(Field::Items, items, write_message);
            out.flag(Field::More, *more);
        }
        Answer::Read { seq } => {
            out.text(Field::To, INBOX);
            out.number(Field::Seq, *seq);
        }
        Answer::Typing { to } => out.text(Field::To, to),
        Answer::Refreshed { expires_in_ms, left } => {
            out.optional_number(Field::ExpiresInMs, *expires_in_ms);
            out.texts(Field::Left, left);
        }
        Answer::Moderated { room, notice } => {
            out.text(Field::Room, room);
            write_notice(out, notice);
        }
        Answer::Options { snappy } => out.flag(Field::Snappy, *snappy),
        Answer::Pong => {}
        Answer::Refused(refusal) => {
            out.text(Field::Code, refusal.code.slug());
            out.text(Field::Message, refusal.message());
            out.optional_number(Field::RetryAfterMs, refusal.retry_after_ms);
        }
    }
}

fn event_type(event: &Event) -> PackedType {
    match event {
        Event::Message(_) => PackedType::Message,
        Event::Presence { .. } => PackedType::Presence,
        Event::Gap { .. } => PackedType::Gap,
        Event::Epoch { .. } => PackedType::Epoch,
        Event::Rewound { .. } => PackedType::Rewound,
        Event::Typing { .. } => PackedType::TypingEvent,
        Event::Moderation { .. } => PackedType::Moderation,
        Event::Left { .. } => PackedType::LeftEvent,
        Event::Expiring { .. } => PackedType::Expiring,
        Event::Announcement { .. } => PackedType::Announcement,
        Event::GoingAway { .. } => PackedType::GoingAway,
    }
}

fn write_event(out: &mut impl PayloadWriter, event: &Event) {
    match event {
        Event::Message(message) => write_message(out, message),
        Event::Presence { room, delta, resync } => {
            out.text(Field::Room, room);
            write_changes(out, delta);
            if *resync {
                out.flag(Field::Resync, true);
            }
        }
        Event::Gap { to, from_seq, to_seq } => {
            out.text(Field::To, to);
            out.number(Field::FromSeq, *from_seq);
            out.number(Field::ToSeq, *to_seq);
        }
        Event::Epoch { to, epoch, seq } | Event::Rewound { to, epoch, seq } => {
            out.text(Field::To, to);
            out.text(Field::Epoch, epoch);
            out.number(Field::Seq, *seq);
        }
        Event::Typing { to, from } => {
            out.text(Field::To, to);
            out.text(Field::From, from);
        }
        Event::Moderation { room, notice } => {
            out.text(Field::Room, room);
            out.text(Field::Action, notice.action.as_str());
            write_notice(out, notice);
        }
        Event::Left { room, reason, by, text } => {
            out.text(Field::Room, room);
            out.text(Field::Reason, reason.as_str());
            out.optional_text(Field::By, by.as_deref());
            out.optional_text(Field::Text, text.as_deref());
        }
        Event::Expiring { expires_in_ms } => out.number(Field::ExpiresInMs, *expires_in_ms),
        Event::Announcement { id, body, time } => {
            out.msg_id(id);
            out.body(Field::Body, body.json());
            out.number(Field::Time, *time);
        }
        Event::GoingAway { retry_after_ms } => out.number(Field::RetryAfterMs, *retry_after_ms),
    }
}

/// Writes the correlation value. In Protobuf it is always a number: its requests have no other.
fn write_id(out: &mut impl PayloadWriter, id: &CorrelationId) {
    let Some(id) = id.as_deref() else { return };
    if let Ok(number) = id.get().parse() {
        out.number(Field::Id, number);
    } else if let Ok(number) = id.get().parse() {
        out.negative(Field::Id, number);
    } else {
        out.text(Field::Id, &serde_json::from_str::<String>(id.get()).unwrap_or_default());
    }
}

fn write_closing(out: &mut impl PayloadWriter, number: u64, slug: &str) {
    out.number(Field::CloseCode, number);
    out.text(Field::Code, slug);
}

fn write_message(out: &mut impl PayloadWriter, message: &ChatMessage) {
    out.text(Field::To, &message.to);
    out.text(Field::From, &message.from);
    out.optional_text(Field::FromUser, message.from_user.as_ref().map(|user| user.as_str()));
    if message.from_api {
        out.flag(Field::FromApi, true);
    }
    out.msg_id(&message.msg_id);
    out.number(Field::Seq, message.seq);
    out.number(Field::Time, message.time);
    out.body(Field::Body, message.body.json());
}

fn write_changes<W: PayloadWriter>(out: &mut W, changes: &PresenceDelta) {
    if !changes.joined.is_empty() {
        out.list(Field::Joined, &changes.joined, write_member);
    }
    if !changes.left.is_empty() {
        out.list(Field::Left, &changes.left, |row, left| {
            row.text(Field::Nick, &left.nick);
            row.text(Field::Reason, left.reason.as_str());
        });
    }
    if !changes.renamed.is_empty() {
        out.list(Field::Renamed, &changes.renamed, |row, rename| {
            row.text(Field::From, &rename.from);
            row.text(Field::To, &rename.to);
        });
    }
    if !changes.status.is_empty() {
        out.list(Field::Status, &changes.status, write_member);
    }
}

fn write_member(out: &mut impl PayloadWriter, member: &MemberInfo) {
    out.text(Field::Nick, &member.nick);
    out.optional_text(Field::User, member.user.as_ref().map(|user| user.as_str()));
    out.text(Field::Status, member.status.status.as_str());
    if !member.status.text.is_empty() {
        out.text(Field::Text, &member.status.text);
    }
}

fn write_topic(out: &mut impl PayloadWriter, topic: &RoomTopic) {
    out.text(Field::Text, &topic.text);
    out.text(Field::By, &topic.by);
    out.number(Field::Time, topic.time);
}

/// Writes what a moderator did, apart from room and action.
fn write_notice(out: &mut impl PayloadWriter, notice: &Moderation) {
    out.optional_text(Field::Nick, notice.nick.as_deref());
    out.optional_text(Field::User, notice.user.as_ref().map(|user| user.as_str()));
    out.optional_text(Field::By, notice.by.as_deref());
    out.optional_text(Field::Reason, notice.reason.as_deref());
    out.optional_number(Field::Until, notice.until);
    out.optional_text(Field::Role, notice.role.map(|role| role.as_str()));
    out.optional_text(Field::Text, notice.text.as_deref());
    out.number(Field::Time, notice.time);
}
