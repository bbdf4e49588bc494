//! Tests of operation: configuration, deployment, logs, metrics, alerts and `gateway ctl`.

mod addresses;
mod client_tls;
mod config;
mod configuration_page;
mod ctl;
pub(crate) mod deploy;
mod descriptors;
mod embedded;
mod embedded_api;
mod load;
mod log_readers;
mod logs;
mod programs;
mod readiness;
mod redis_tls;
mod refusals;
mod reload;
mod watching;

use std::fs;
use std::path::Path;

/// Returns the sources of both programs with this file extension, without tests.
fn program_sources(extension: &str) -> String {
    fn collect(folder: &Path, extension: &str, text: &mut String) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("tests") {
                collect(&path, extension, text);
            } else if path.extension().is_some_and(|found| found == extension) && !path.ends_with("tests.rs") {
                let code = fs::read_to_string(&path).unwrap();
                text.push_str(code.split("#[cfg(test)]").next().unwrap());
            }
        }
    }
    let mut text = String::new();
    for folder in ["gateway/src", "presence/src"] {
        collect(&harness::repository().join(folder), extension, &mut text);
    }
    text
}
