//! [`PageEmbedders`]: the web sites that may show the chat page in a frame.
//!
//! The browser enforces them by `frame-ancestors` of the page's policy, for every window around the frame. Invariant: a
//! value of the setting is a scheme, a host and a port, so it cannot add to the policy.

use std::str::FromStr;

use hyper::header::HeaderValue;
use presence::host::security_headers::PAGE_POLICY;

use crate::listen::origins::WebOrigin;

const EXPECTED: &str = "expected origins of web sites, such as https://www.example.org or http://localhost:8000";
/// The part of the policy that the setting replaces.
const NOBODY: &str = "frame-ancestors 'none'";

/// A word of `listen.page_embedders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEmbedder(WebOrigin);

impl FromStr for PageEmbedder {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_web = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:/[]".contains(c));
        if !is_web || !is_plain {
            return Err(EXPECTED);
        }
        text.parse().map(Self).map_err(|_| EXPECTED)
    }
}

/// `listen.page_embedders`: the policy of the page with these web sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEmbedders {
    origins: Vec<PageEmbedder>,
    policy: HeaderValue,
}

impl Default for PageEmbedders {
    fn default() -> Self {
        Self { origins: Vec::new(), policy: PAGE_POLICY }
    }
}

impl From<Vec<PageEmbedder>> for PageEmbedders {
    fn from(origins: Vec<PageEmbedder>) -> Self {
        let ancestors: String = origins.iter().map(|PageEmbedder(origin)| format!(" {origin}")).collect();
        let policy = PAGE_POLICY
            .to_str()
            .ok()
            .filter(|_| !origins.is_empty())
            .and_then(|policy| policy.replace(NOBODY, &format!("frame-ancestors{ancestors}")).parse().ok());
        Self { policy: policy.unwrap_or(PAGE_POLICY), origins }
    }
}

/// Settings of the chat page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAccess {
    /// True if the page is served.
    pub served: bool,
    /// Web sites that may show it in a frame.
    pub embedders: PageEmbedders,
}

impl Default for PageAccess {
    fn default() -> Self {
        Self { served: true, embedders: PageEmbedders::default() }
    }
}

impl PageEmbedders {
    /// Returns the words of the setting, for display.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.origins.iter().map(|PageEmbedder(origin)| origin.to_string()).collect()
    }

    /// Returns the content security policy of the page.
    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn embedders(words: &[&str]) -> Result<PageEmbedders, &'static str> {
        words.iter().map(|word| word.parse()).collect::<Result<Vec<PageEmbedder>, _>>().map(Into::into)
    }

    #[test]
    fn policy_names_the_listed_sites_only() {
        assert_eq!(embedders(&[]).unwrap().policy(), PAGE_POLICY);
        let listed = embedders(&["https://www.Example.org:443", "http://localhost:8000", "http://[::1]:80"]).unwrap();
        let expected = PAGE_POLICY
            .to_str()
            .unwrap()
            .replace("'none'; form-action", "https://www.example.org http://localhost:8000 http://[::1]; form-action");
        assert_eq!(listed.policy().to_str().unwrap(), expected);
        assert_eq!(expected.matches("'none'").count(), 3, "other parts of the policy stay: {expected}");
        assert_eq!(listed.words(), ["https://www.example.org", "http://localhost:8000", "http://[::1]"]);
    }

    #[test]
    fn no_word_adds_to_the_policy() {
        for word in [
            "*",
            "'self'",
            "https:",
            "https://*.example.org",
            "https://a;script-src",
            "https://a,b",
            "https://a b",
            "https://a/path",
            "https://user@a",
            "data:x",
            "ftp://a",
            "null",
            "https://é",
            "",
        ] {
            assert_eq!(embedders(&[word]), Err(EXPECTED), "{word}");
        }
    }
}
