//! The performance page: Markdown tables and the conditions of the measurements.

use super::{ReportRow, formats, of, searches, shown};

const INTRODUCTION: &str = "\
`make bench` wrote this page, and repeats all measurements on another machine. [deploy/bench/run](../deploy/bench/run)
starts each subject as two nodes with its own Redis (NATS as a cluster of two). The same clients
([tests/load](../tests/load/main.rs)) measure one subject after the other. All figures are in
[performance.json](performance.json).

- **Latency** starts at the time when a message was due, even if the sender was late. Each delivery of a message counts;
  deliveries during the warm-up do not.
- **Server CPU** is the user and system time of all processes of the subject (nodes and Redis) per delivered message. On
  loopback, a sender also pays for the kernel work of the receiver.
- **The floor** is one bare epoll process. It makes one send() per member and message, and nothing else.
- **The batched floor** sends all messages of one wake-up in one send() per member. Neither floor has rooms, names, acks,
  order or storage.
- **Parley** is measured as it ships, except `limits.profile = open`: one of these clients sends more than a session may.
  Messages are acknowledged, stored in a history and ordered, and names are unique. None of the peers does this here.
- **Memory of idle connections** is taken after the measured silence, without leftovers of the logins. `-` means that the
  nodes used less than at their start.
- **Messages per read** is the number of messages that a client finds in one read, a measure of batching.
- **†** means that the load generator itself was too busy: the figure is a bound, not a measurement.
";

/// Returns the page in Markdown.
pub(super) fn page(rows: &[ReportRow], draft: bool) -> String {
    let mut page = "# Performance\n\n".to_owned();
    if draft {
        page += "**Draft, not for publication**: a debug build, or a machine that was not idle.\n\n";
    }
    page += INTRODUCTION;
    page += "\n![Latency by rate, memory by connections](performance.svg)\n";
    let mut rooms: Vec<f64> = of(rows, "room").map(ReportRow::clients).collect();
    rooms.sort_by(|one, other| other.total_cmp(one));
    rooms.dedup();
    for members in rooms {
        page += &room(rows, members);
    }
    page += &searches::capacity(rows);
    page += &searches::pipeline(rows);
    page += &formats::section(rows);
    page += &idle(rows);
    page += &rest(rows);
    page += &others(rows);
    page += &burst(rows);
    page += &conditions(rows);
    page
}

fn room(rows: &[ReportRow], members: f64) -> String {
    let of = || of(rows, "room").filter(move |row| row.clients() == members);
    let mut text = format!(
        "\n## A room of {members:.0} members\n\n\
         | messages/s | subject | delivered/s | p50 ms | p99 ms | p99.9 ms | server us | × floor | × batched floor | messages per read | lost / duplicated / out of order |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in of() {
        let cost = row.figure("server_us_per_message");
        let floor = |subject: &str| {
            let floor = of().find(|floor| floor.subject == subject && floor.rate() == row.rate())?;
            Some(cost? / floor.figure("server_us_per_message").filter(|cost| *cost > 0.0)?)
        };
        text += &format!(
            "| {:.0}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.rate(),
            row.dagger(),
            row.subject,
            shown(row.figure("delivered_per_s"), 0),
            shown(row.figure("delivery_ms.p50"), 1),
            shown(row.figure("delivery_ms.p99"), 1),
            shown(row.figure("delivery_ms.p999"), 1),
            shown(cost, 2),
            shown(floor("floor"), 2),
            shown(floor("batched floor"), 2),
            shown(row.figure("messages_per_read"), 1),
            row.faults(),
        );
    }
    text
}

fn idle(rows: &[ReportRow]) -> String {
    if of(rows, "idle").next().is_none() {
        return String::new();
    }
    let mut text = "\n## Idle connections, in rooms of 100\n\n\
                    | connections | subject | nodes, KiB each | load generator, bytes each |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for row in of(rows, "idle") {
        let load = shown(row.figure("load.bytes_per_idle_client"), 0);
        text +=
            &format!("| {:.0} | {} | {} | {load} |\n", row.clients(), row.subject, shown(row.node_kib_per_client(), 1));
    }
    text
}

fn rest(rows: &[ReportRow]) -> String {
    let figures = of(rows, "rest").filter_map(|row| Some((row.clients(), row.figure("redis_requests_per_s")?)));
    let figures = figures.map(|(clients, requests)| {
        format!("\nAt rest, {clients:.0} silent users on two gateways cause {requests:.1} requests a second to Redis in total.\n")
    });
    figures.collect()
}

/// Scenarios with one row per subject: name, title, path of the latency, path of the throughput.
const OTHERS: &[(&str, &str, &str, &str)] = &[
    ("login", "Logins: connect, register, join, at full speed", "login.ms", "login.per_second"),
    ("rooms", "Many rooms", "delivery_ms", "delivered_per_s"),
    ("dm", "Direct messages, across nodes", "delivery_ms", "delivered_per_s"),
    ("echo", "Pings, each sent after the previous answer", "echo_ms", "echoed_per_s"),
    (
        "crowd",
        "A room of 1,000 among 100,000 connections, on six gateways (`make bench-100k`)",
        "delivery_ms",
        "delivered_per_s",
    ),
    ("resume", "Sessions resumed after a storm", "resume_ms", "resumed"),
];

fn others(rows: &[ReportRow]) -> String {
    let mut text = String::new();
    for (scenario, title, latency, pace) in OTHERS {
        if of(rows, scenario).next().is_none() {
            continue;
        }
        text += &format!(
            "\n## {title}\n\n| clients | offered/s | subject | reached/s | p50 ms | p99 ms | p99.9 ms | server us each | nodes MiB | lost / duplicated / out of order |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for row in of(rows, scenario) {
            let cost = if *scenario == "login" { "login_us_per_client" } else { "server_us_per_message" };
            let at = |percentile: &str| shown(row.figure(&format!("{latency}.{percentile}")), 2);
            text += &format!(
                "| {:.0}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                row.clients(),
                row.dagger(),
                shown(row.figure("offered_per_s"), 0),
                row.subject,
                shown(row.figure(pace), 0),
                at("p50"),
                at("p99"),
                at("p999"),
                shown(row.figure(cost), 1),
                shown(row.node_mib(), 0),
                row.faults(),
            );
        }
    }
    text
}

fn burst(rows: &[ReportRow]) -> String {
    if of(rows, "burst").next().is_none() {
        return String::new();
    }
    let mut text = "\n## Memory after a burst\n\n\
                    | subject | messages/s | peak, × before | after the pause, × before |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for row in of(rows, "burst") {
        let growth = row.node_memory_growth();
        let (peak, after) = (growth.map(|(peak, _)| peak), growth.map(|(_, after)| after));
        text += &format!("| {} | {:.0} | {} | {} |\n", row.subject, row.rate(), shown(peak, 2), shown(after, 2));
    }
    text
}

fn conditions(rows: &[ReportRow]) -> String {
    let Some(row) = rows.iter().find(|row| row.outcome["machine"].is_object()) else { return String::new() };
    let machine = &row.outcome["machine"];
    let field = |key: &str| machine[key].as_str().unwrap_or("-").to_owned();
    format!(
        "\n## Conditions\n\nOne machine ran everything, including the clients: {} CPUs ({}), Linux {}, congestion control {}, netdev_max_backlog {}, \
         {} descriptors per process. Each measurement took {} seconds, unless its section \
         says otherwise.\n",
        machine["cpus"],
        field("cpu"),
        field("kernel"),
        field("congestion_control"),
        field("netdev_max_backlog"),
        machine["descriptors"],
        shown(of(rows, "room").next().and_then(|row| row.figure("seconds")), 0),
    )
}
