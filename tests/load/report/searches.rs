//! The sections on throughput: the capacity of many rooms, and one connection that pipelines its messages.

use super::{ReportRow, of, shown};

/// Returns the section of `load capacity`.
pub(super) fn capacity(rows: &[ReportRow]) -> String {
    let mut rows: Vec<&ReportRow> = of(rows, "capacity").collect();
    let Some(first) = rows.first() else { return String::new() };
    let members = |row: &ReportRow| row.figure("plan.room_size").unwrap_or(1.0);
    let mut text = format!(
        "\n## Capacity: the highest rate of messages into many rooms\n\n\
         Two members of each room send, one on each node. The rate doubles until it fails: the p99 of deliveries or acks\n\
         is above {} ms, or less than 99 % of the messages are delivered. Then two rates between are tried. A rate that\n\
         fails by latency alone is tried once more. Each rate is measured for {} seconds. CPU is per message, at the rate\n\
         that held. 1,000 rooms of 100 would be 100,000 connections, which two nodes do not hold here, so there are 100 of\n\
         them.\n\n\
         | rooms x members | subject | messages/s | fails at | p50 ms | p99 ms | ack p99 ms | Redis us | nodes us | lost / duplicated / out of order |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        shown(first.figure("p99_max_ms").or(Some(50.0)), 0),
        shown(first.figure("seconds"), 0),
    );
    rows.sort_by(|a, b| members(a).total_cmp(&members(b)).then(a.rank().cmp(&b.rank())));
    for row in rows {
        let bound = if row.outcome["holds"] == true { "" } else { "below " };
        text += &format!(
            "| {:.0} x {:.0} | {} | {bound}{:.0}{} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.clients() / members(row),
            members(row),
            row.subject,
            row.rate(),
            row.dagger(),
            shown(row.figure("fails_at_per_s"), 0),
            shown(row.figure("delivery_ms.p50"), 1),
            shown(row.figure("delivery_ms.p99"), 1),
            shown(row.figure("ack_ms.p99"), 1),
            shown(row.redis_us_per_message(), 1),
            shown(row.node_us_per_message(), 1),
            row.faults(),
        );
    }
    text
}

/// Returns the section of `load pipeline`.
pub(super) fn pipeline(rows: &[ReportRow]) -> String {
    let mut rows: Vec<&ReportRow> = of(rows, "pipeline").collect();
    if rows.is_empty() {
        return String::new();
    }
    let order = |row: &ReportRow| {
        let part = |key: &str| row.figure(&format!("plan.traffic.pipeline.{key}")).unwrap_or_default();
        (part("rooms"), part("depth"))
    };
    let mut text = "\n## Pipelining: one connection with many messages unanswered\n\n\
        The connection sends to its rooms in turn, and is their only member. It sends the next message when one is\n\
        answered. The peers have no acks: there a message is answered when its sender receives it.\n\n\
        | rooms | unanswered | subject | answers/s | p50 ms | p99 ms | refused | Redis us | nodes us | lost / duplicated / out of order |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    rows.sort_by(|a, b| {
        let ((rooms, depth), (other_rooms, other_depth)) = (order(a), order(b));
        rooms.total_cmp(&other_rooms).then(depth.total_cmp(&other_depth)).then(a.rank().cmp(&b.rank()))
    });
    for row in rows {
        let (rooms, depth) = order(row);
        text += &format!(
            "| {rooms:.0} | {depth:.0} | {} | {}{} | {} | {} | {} | {} | {} | {} |\n",
            row.subject,
            shown(row.figure("acked_per_s"), 0),
            row.dagger(),
            shown(row.figure("ack_ms.p50"), 1),
            shown(row.figure("ack_ms.p99"), 1),
            shown(row.figure("refused"), 0),
            shown(row.redis_us_per_message(), 1),
            shown(row.node_us_per_message(), 1),
            row.faults(),
        );
    }
    text
}
