//! Contract tests: one suite for both arms of each store, the documented protocols, and the rules of the sources.

mod backplane;
mod chat_page;
mod http_refusals;
mod packed_messages;
mod presence_api;
mod protocol_doc;
mod readme;
mod registry;
mod security_headers;
mod tidy;
