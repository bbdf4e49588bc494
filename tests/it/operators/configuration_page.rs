//! docs/CONFIGURATION.md and the example settings files, generated from the settings tables of both programs.
//!
//! The test compares the files with the tables. `make docs` sets `PARLEY_WRITE_DOCS`, and the test writes them instead.

use std::fmt::Write;
use std::fs;

use harness::repository;
use presence::host::settings::{Key, KeyKind, example};

const PAGE: &str = "docs/CONFIGURATION.md";
const PROGRAMS: [(&str, &[Key]); 2] =
    [("gateway", gateway::config::KEYS), ("presence", presence::service::config::KEYS)];

/// Returns the Markdown table of a program's settings.
fn table(keys: &[Key]) -> String {
    let mut table = "| key | type | default | reload | description |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for key in keys {
        let kind = match key.kind {
            KeyKind::Text => "string",
            KeyKind::Address => "address",
            KeyKind::Number => "integer",
            KeyKind::Flag => "boolean",
            KeyKind::List => "list",
            KeyKind::Tables => "tables",
            KeyKind::Secret => "secret",
        };
        let default = match (key.default, key.kind) {
            (Some(value), _) => format!("`{value}`"),
            (None, KeyKind::List | KeyKind::Tables) => "empty".to_owned(),
            (None, _) => "none".to_owned(),
        };
        let reload = if key.live { "yes" } else { "" };
        writeln!(table, "| `{}` | {kind} | {default} | {reload} | {} |", key.name, key.meaning).unwrap();
    }
    table
}

/// Replaces a program's table between its markers.
fn with_table(page: &str, program: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {program}: written by make docs -->\n"), format!("<!-- {program}: end -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} has no line {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE} has no line {end}"));
    format!("{before}{begin}\n{table}\n{end}{after}")
}

/// Compares a file with its generated text, or writes it.
fn expect(path: &str, generated: &str) {
    let file = repository().join(path);
    if std::env::var_os("PARLEY_WRITE_DOCS").is_some() {
        fs::write(file, generated).unwrap();
    } else {
        assert!(fs::read_to_string(file).unwrap() == generated, "{path} is out of date: run `make docs`");
    }
}

#[test]
fn configuration_page_lists_every_setting() {
    let mut page = fs::read_to_string(repository().join(PAGE)).unwrap();
    for (program, keys) in PROGRAMS {
        page = with_table(&page, program, &table(keys));
        expect(&format!("{program}/{program}.example.toml"), &example(program, keys));
    }
    expect(PAGE, &page);
}

#[test]
fn table_shows_type_default_and_reload() {
    let keys = &[
        Key::number("limits.x").default("7").live().meaning("Maximum x."),
        Key::list("listen.y").meaning("All y."),
        Key::secret("redis.z").meaning("The z."),
    ];
    let rows = table(keys);
    for row in [
        "| `limits.x` | integer | `7` | yes | Maximum x. |\n",
        "| `listen.y` | list | empty |  | All y. |\n",
        "| `redis.z` | secret | none |  | The z. |\n",
    ] {
        assert!(rows.contains(row), "{rows}");
    }
    let page = "above\n<!-- p: written by make docs -->\nold\n<!-- p: end -->\nbelow\n";
    let written = with_table(page, "p", "new\n");
    assert_eq!(written, "above\n<!-- p: written by make docs -->\n\nnew\n\n<!-- p: end -->\nbelow\n");
}
