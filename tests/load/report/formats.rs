//! The section on the formats of Parley's clients: one room in each of them, beside the cost of decoding a request.

use super::{ReportRow, of, shown};

/// Returns the section of the scenario `formats`: a room with the members of one format, or of all in turn. The
/// scenario `decode` has the instructions of one request in each format.
pub(super) fn section(rows: &[ReportRow]) -> String {
    let mut rooms: Vec<&ReportRow> = of(rows, "formats").collect();
    let Some(first) = rooms.first() else { return String::new() };
    let mut text = format!(
        "\n## Formats: a room of {:.0} members\n\n\
         {:.0} messages a second with bodies of 128 bytes, as median of several runs in turn. A mixed room has as\n\
         many members with JSON, MessagePack and Protobuf over WebSocket as with MessagePack in TCP frames. Bytes are those of\n\
         a delivery with the headers of WebSocket or of the frame. Decoding is the number of instructions for a `send` with a\n\
         text of 128 bytes, and with an object that contains it (`make count`).\n\n\
         | subject | delivered/s | p50 ms | p99 ms | bytes | server us | × JSON | text: instructions | × JSON | object: instructions | × JSON | lost / duplicated / out of order |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        first.clients(),
        first.rate(),
    );
    rooms.sort_by_key(|row| row.rank());
    let json = rooms[0];
    for row in &rooms {
        let share = |path: &str| Some(row.figure(path)? / json.figure(path)?);
        let decoding = |path: &str| of(rows, "decode").find(|cost| cost.subject == row.subject)?.figure(path);
        let of_json = |path: &str| {
            let json = of(rows, "decode").find(|cost| cost.subject == json.subject)?;
            Some(decoding(path)? / json.figure(path)?)
        };
        text += &format!(
            "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            row.subject,
            row.dagger(),
            shown(row.figure("delivered_per_s"), 0),
            shown(row.figure("delivery_ms.p50"), 1),
            shown(row.figure("delivery_ms.p99"), 1),
            shown(row.figure("bytes_per_message"), 0),
            shown(row.figure("server_us_per_message"), 2),
            shown(share("server_us_per_message"), 2),
            shown(decoding("text"), 0),
            shown(of_json("text"), 2),
            shown(decoding("object"), 0),
            shown(of_json("object"), 2),
            row.faults(),
        );
    }
    text
}
