//! [`Asset`]: the files of the chat page and of the JavaScript client, embedded in the program.
//!
//! The table names every file once, and a test compares it with the two folders. Invariant: a path leads to a row of
//! the table or to nothing, so no request reads the disk.

use std::io::Write;
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::HeaderValue;
use presence::host::entity_tag::entity_tag;

/// A file of the page, with its URL path.
#[derive(Debug)]
pub(in crate::listen) struct Asset {
    path: &'static str,
    file: &'static [u8],
    plain: OnceLock<Content>,
    compressed: OnceLock<Content>,
}

/// The content of a file in one encoding.
#[derive(Debug)]
pub(super) struct Content {
    /// The bytes of the answer.
    pub(super) bytes: Bytes,
    /// The strong entity tag.
    pub(super) tag: HeaderValue,
    /// True if the bytes are compressed with gzip.
    pub(super) is_gzip: bool,
}

/// Declares the table: the files of `gateway/page` at `/page/`, and those of `clients/js/src` at `/parley/`.
macro_rules! assets {
    (page: [$($page:literal),* $(,)?], client: [$($client:literal),* $(,)?] $(,)?) => {
        static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| vec![
            Asset::new("/", include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/page/index.html"))),
            $(Asset::new(
                concat!("/page/", $page),
                include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/page/", $page)),
            ),)*
            $(Asset::new(
                concat!("/parley/", $client),
                include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/js/src/", $client)),
            ),)*
        ]);
    };
}

assets! {
    page: [
        "address.js",
        "app.js",
        "browser.js",
        "commands.js",
        "complete.js",
        "conversation.js",
        "embed.js",
        "icon-dot.svg",
        "icon.svg",
        "intents.js",
        "notify.js",
        "opening.js",
        "pages.js",
        "prefs.js",
        "rows.js",
        "session.js",
        "sign_in.js",
        "state.js",
        "style/base.css",
        "style/dialogs.css",
        "style/layout.css",
        "style/timeline.css",
        "text.js",
        "vendor/lit-html/directive-helpers.js",
        "vendor/lit-html/directive.js",
        "vendor/lit-html/directives/guard.js",
        "vendor/lit-html/directives/repeat.js",
        "vendor/lit-html/lit-html.js",
        "views/body.js",
        "views/composer.js",
        "views/entry.js",
        "views/header.js",
        "views/help.js",
        "views/icons.js",
        "views/members.js",
        "views/name.js",
        "views/row.js",
        "views/shell.js",
        "views/sidebar.js",
        "views/switcher.js",
        "views/timeline.js",
        "views/view.js",
        "views/you.js",
        "words-en.js",
        "words-zh.js",
        "words.js",
    ],
    client: [
        "calls.js",
        "codes.js",
        "conversation.js",
        "e2e.js",
        "engine.js",
        "listeners.js",
        "members.js",
        "parley.js",
        "position.js",
        "react.js",
        "room.js",
        "session.js",
        "store.js",
        "tabs.js",
        "traffic.js",
    ],
}

/// Returns the file at a URL path.
pub(in crate::listen) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    fn new(path: &'static str, file: &'static [u8]) -> Self {
        Self { path, file, plain: OnceLock::new(), compressed: OnceLock::new() }
    }

    /// Returns the media type.
    pub(super) fn media_type(&self) -> &'static str {
        match self.path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml; charset=utf-8",
            _ => "text/html; charset=utf-8",
        }
    }

    /// Returns the content, compressed if the client accepts that and it is smaller. The first call for each encoding
    /// computes it.
    pub(super) fn content(&self, accepts_gzip: bool) -> &Content {
        let plain = self.plain.get_or_init(|| Content::new(Bytes::from_static(self.file), false));
        if !accepts_gzip {
            return plain;
        }
        let compressed = self.compressed.get_or_init(|| Content::new(gzip(self.file), true));
        if compressed.bytes.len() < plain.bytes.len() { compressed } else { plain }
    }
}

impl Content {
    fn new(bytes: Bytes, is_gzip: bool) -> Self {
        let tag = entity_tag(&bytes);
        Self { bytes, tag, is_gzip }
    }
}

fn gzip(file: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(file).and_then(|()| encoder.finish());
    written.expect("a vector accepts every write").into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;
    use std::path::Path;

    use flate2::read::GzDecoder;

    use super::*;

    /// Adds the URL paths of the files in a folder that browsers load.
    fn collect(folder: &Path, at: &str, found: &mut Vec<String>) {
        let Ok(entries) = folder.read_dir() else { return };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{at}/{name}");
            match entry.path().extension().and_then(|extension| extension.to_str()) {
                _ if name == "node_modules" || name == "test" || name.contains(".test.") => {}
                _ if entry.path().is_dir() => collect(&entry.path(), &path, found),
                Some("js" | "css" | "svg" | "html") => found.push(path),
                _ => {}
            }
        }
    }

    #[test]
    fn table_has_every_file_of_the_page() {
        let gateway = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        collect(&gateway.join("page"), "/page", &mut files);
        collect(&gateway.join("../clients/js/src"), "/parley", &mut files);
        let index = files.iter_mut().find(|path| *path == "/page/index.html").unwrap();
        *index = "/".to_owned();
        files.sort();
        let mut table: Vec<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        table.sort_unstable();
        assert_eq!(table, files);
    }

    #[test]
    fn every_encoding_has_its_own_tag() {
        for asset in ASSETS.iter() {
            let (plain, compressed) = (asset.content(false), asset.content(true));
            assert_eq!((plain.is_gzip, &plain.bytes[..]), (false, asset.file), "{}", asset.path);
            let mut content = Vec::new();
            if compressed.is_gzip {
                GzDecoder::new(&compressed.bytes[..]).read_to_end(&mut content).unwrap();
                assert_ne!(compressed.tag, plain.tag, "{}", asset.path);
            } else {
                content.extend(&compressed.bytes);
            }
            assert_eq!(content, asset.file, "{}", asset.path);
        }
        assert!(find("/").unwrap().content(true).is_gzip);
    }
}
