//! Comments: budgets for question words and for words about people, and comments that repeat a name.

use super::{SourceFile, assert_none, library_sources, sources};

/// The first words that make a doc comment a question instead of a statement.
const QUESTION_WORDS: &[&str] = &["What", "Who", "Whom", "Whose", "How", "Whether", "Where", "When", "Which", "Why"];
/// Maximum share of doc comments that begin with a question word, in percent.
const QUESTIONS_PERCENT_MAX: usize = 4;
/// Words about people: a machine is called by its name.
const PEOPLE_WORDS: &[&str] = &["who", "whom", "whoever", "somebody", "nobody", "anybody", "everybody"];
/// Maximum number of words about people in 1,000 words of comments.
const PEOPLE_PER_MILLE_MAX: usize = 1;

/// Maximum width of a comment line in columns; the formatter checks only code.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Returns the text of a comment line, whatever its kind.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    ["///", "//!", "//", "-- "].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim)
}

/// Returns the first lines of doc comments with the line of code that follows the comment.
fn doc_comments(source: &SourceFile) -> Vec<(usize, &str, &str)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let is_doc = |at: usize| lines.get(at).is_some_and(|line| line.trim_start().starts_with("///"));
    let begins = (0..lines.len()).filter(|at| is_doc(*at) && (*at == 0 || !is_doc(at - 1)));
    begins
        .map(|begin| {
            let end = (begin..).find(|at| !is_doc(*at)).expect("files end");
            let item =
                lines[end..].iter().find(|line| !line.trim_start().starts_with("#[")).copied().unwrap_or_default();
            let text = if end == begin + 1 { lines[begin].trim_start().trim_start_matches("///").trim() } else { "" };
            let first = lines[begin].trim_start().trim_start_matches("///").trim();
            (begin + 1, if text.is_empty() { first } else { text }, if text.is_empty() { "" } else { item })
        })
        .collect()
}

/// Returns the name that an item declares: of a field, a variant, a function or a type.
fn item_name(item: &str) -> Option<String> {
    let words = item.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let keywords = ["pub", "crate", "super", "in", "async", "const", "fn", "struct", "enum", "trait", "type", "static"];
    words.skip_while(|word| keywords.contains(word)).map(str::to_owned).next()
}

/// Splits a name into its lower-case words: `StreamEnd` and `stream_end` are `stream`, `end`.
fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            words.push(String::new());
        }
        if letter != '_' {
            words.last_mut().expect("never empty").extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns true if a comment of one line repeats the name beside it.
fn repeats_name(text: &str, item: &str) -> bool {
    let Some(name) = item_name(item) else { return false };
    let name = name_words(&name);
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase);
    let articles = ["the", "a", "an", "its", "this"];
    let said: Vec<String> = words.by_ref().filter(|word| !articles.contains(&word.as_str())).collect();
    !text.contains(['`', '[']) && !said.is_empty() && said.iter().all(|word| name.contains(word))
}

#[test]
fn doc_comments_state_instead_of_asking() {
    let (mut all, mut questions) = (0, Vec::new());
    for source in library_sources() {
        for (number, text, _) in doc_comments(&source) {
            all += 1;
            let first = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if QUESTION_WORDS.contains(&first) {
                questions.push(format!("{}:{number} {text}", source.path));
            }
        }
    }
    let budget = all * QUESTIONS_PERCENT_MAX / 100;
    assert!(questions.len() <= budget, "{} of {all}:\n{}\n", questions.len(), questions.join("\n"));
}

#[test]
fn comments_call_machines_by_their_names() {
    let (mut words, mut people) = (0, Vec::new());
    for source in sources("rs").iter().chain(&sources("lua")) {
        for (number, text) in (1..).zip(source.text.lines().map(comment)) {
            let Some(text) = text else { continue };
            let found = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            for word in found {
                words += 1;
                if PEOPLE_WORDS.contains(&word.to_lowercase().as_str()) {
                    people.push(format!("{}:{number} {text}", source.path));
                }
            }
        }
    }
    let budget = words * PEOPLE_PER_MILLE_MAX / 1000;
    assert!(people.len() <= budget, "{} in {words} words:\n{}\n", people.len(), people.join("\n"));
}

#[test]
fn comments_say_more_than_the_name_beside_them() {
    let mut offences = Vec::new();
    for source in library_sources() {
        for (number, text, item) in doc_comments(&source) {
            // The lint for missing documentation asks for a comment on every public item.
            let is_public = item.trim_start().starts_with("pub ") || source.text.contains("pub enum");
            if !is_public && repeats_name(text, item) {
                offences.push(format!("{}:{number} {text}", source.path));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn comment_checks_detect_offences() {
    assert!(repeats_name("The room.", "    pub(super) room: RoomKey,"));
    assert!(repeats_name("Its stream end.", "struct StreamEnd {"));
    assert!(!repeats_name("The room's shown name.", "    room: RoomName,"));
    let text = "/// Whether it is.\nfn is() {}\n\n/// Returns one.\n///\n/// More.\nfn one() {}\n";
    let source = SourceFile { path: "x.rs".to_owned(), text: text.to_owned() };
    let firsts: Vec<&str> = doc_comments(&source).into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(firsts, ["Whether it is.", "Returns one."]);
}

#[test]
fn log_fields_show_no_debug_output() {
    let mut offences = Vec::new();
    for source in library_sources() {
        let is_debug = |line: &str| {
            let is_field =
                line.trim_start().starts_with('?') || ["(?", ", ?", "= ?"].iter().any(|mark| line.contains(mark));
            is_field || line.contains("tracing::") && line.contains(":?}")
        };
        let found = source.code().filter(|(_, line)| is_debug(line));
        offences.extend(found.map(|(number, line)| format!("{}:{number} {}", source.path, line.trim())));
    }
    assert_none(&offences);
}

#[test]
fn comments_fit_into_the_line_width() {
    let mut offences = Vec::new();
    for source in sources("rs").iter().chain(&sources("lua")) {
        let wide = (1..)
            .zip(source.text.lines())
            .filter(|(_, line)| comment(line).is_some() && line.chars().count() > COMMENT_COLUMNS_MAX);
        offences.extend(wide.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    assert_none(&offences);
}
