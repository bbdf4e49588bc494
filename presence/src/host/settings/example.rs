//! The example settings file, generated from the table of keys: every setting with its meaning and its default.

use std::fmt::Write;

use super::key::{Key, KeyKind};

/// Returns a TOML file that changes nothing: defaults are commented out with `#`, ready to be uncommented. A setting
/// without a default has an example behind `# `.
#[must_use]
pub fn example(program: &str, keys: &[Key]) -> String {
    let mut text = format!(
        "# All settings of {program} with their defaults. Load this file with: {program} --config FILE\n\
         # Environment variables (PARLEY__NODE__ID sets node.id) override it, flags (--set node.id=x) override both.\n\
         # {program} --check prints the settings in effect, {program} --example prints this file.\n\
         # SIGHUP loads the file again. Settings marked (reloads) apply at once, the others after a restart.\n"
    );
    for key in keys {
        let reloads = if key.live { " (reloads)" } else { "" };
        let _ = write!(text, "\n# {}{reloads}\n", key.meaning);
        let _ = match (key.default, key.kind) {
            (Some(value), _) => writeln!(text, "#{} = {}", key.name, key.toml(value)),
            (None, KeyKind::List | KeyKind::Tables) => {
                writeln!(text, "# {} = {}\n#{} = []", key.name, key.toml(key.sample), key.name)
            }
            (None, _) => writeln!(text, "# {} = {}", key.name, key.toml(key.sample)),
        };
        if let Some(file) = key.file_name() {
            let _ = writeln!(text, "# or from a separate file: {file} = \"/run/secrets/{}\"", key.name);
        }
    }
    text
}
