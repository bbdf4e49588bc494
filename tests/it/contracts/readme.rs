//! The two conversations of README.md: a gateway answers them as the page shows.

use harness::{Node, protocol_doc, repository};

/// Width of the first of two columns.
const COLUMN: usize = 41;

/// Returns the code block that contains this line.
fn block<'a>(page: &'a str, line: &str) -> &'a str {
    let found = page.split("```").skip(1).step_by(2).find(|block| block.lines().any(|found| found.starts_with(line)));
    found.unwrap_or_else(|| panic!("no block with {line:?}"))
}

/// Returns the two columns of the text conversation as an example of the protocol page.
fn lines_example(block: &str) -> String {
    let mut steps = vec!["ann+".to_owned(), "bob+".to_owned()];
    for row in block.lines().filter(|row| !row.is_empty() && !row.starts_with('$')) {
        let (left, right) = row.split_at_checked(COLUMN).unwrap_or((row, ""));
        for (name, cell) in
            [("ann", left.trim()), ("bob", right.trim())].into_iter().filter(|(_, cell)| !cell.is_empty())
        {
            match cell.strip_prefix("> ") {
                Some(typed) => steps.push(format!("{name}> {typed}")),
                None => steps.push(format!("{name}< {cell}")),
            }
        }
    }
    format!("```lines\n{}\nbob-\n```", steps.join("\n"))
}

/// Returns the JSON conversation as an example of the protocol page.
fn json_example(block: &str) -> String {
    let steps: Vec<String> = block
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.replace("{…}", "\"*\"").replace("\"…\"", "\"*\"").replace('…', "\"*\""))
        .map(|line| line.replacen("-> ", "eve> ", 1).replacen("<- ", "eve< ", 1))
        .collect();
    format!("```parley\neve+\n{}\n```", steps.join("\n"))
}

#[tokio::test]
async fn readme_conversations_match_the_gateway() {
    let page = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let conversations =
        [lines_example(block(&page, "> /nick ann")), json_example(block(&page, "-> {\"type\":\"register\""))];
    for conversation in conversations {
        let examples = protocol_doc::examples(&conversation);
        let [example] = examples.as_slice() else { panic!("{conversation}") };
        let mut gateway = Node::gateway("g1").start().await;
        example.play(&gateway).await;
        assert_eq!(gateway.end().await, Some(0));
        assert_eq!(gateway.problems(&[]), Vec::<String>::new());
    }
}
