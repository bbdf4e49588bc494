//! The corpora of the fuzz targets, as ordinary tests: every input that a run has found stays correct.
//!
//! The corpora of the framing and of the PROXY header are read by the unit tests of these modules.

#[path = "../../../fuzz/checks/bodies.rs"]
mod bodies;
#[path = "../../../fuzz/checks/claims.rs"]
mod claims;
#[path = "../../../fuzz/checks/cursors.rs"]
mod cursors;
#[path = "../../../fuzz/checks/envelopes.rs"]
mod envelopes;
#[path = "../../../fuzz/checks/lines.rs"]
mod lines;
#[path = "../../../fuzz/checks/packed_requests.rs"]
mod packed_requests;
#[path = "../../../fuzz/checks/requests.rs"]
mod requests;
#[path = "../../../fuzz/checks/snappy.rs"]
mod snappy;
#[path = "../../../fuzz/checks/tcp_frames.rs"]
mod tcp_frames;

use std::fs;
use std::panic::catch_unwind;

/// Checks every input of a corpus, and each of its beginnings.
fn check_corpus(name: &str, check: fn(&[u8])) {
    let folder = harness::repository().join("fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        for end in 0..=input.len() {
            let start = &input[..end];
            assert!(catch_unwind(|| check(start)).is_ok(), "{}: {}", path.display(), start.escape_ascii());
        }
        inputs += 1;
    }
    assert!(inputs > 15, "the corpus {name} holds only {inputs} inputs");
}

#[test]
fn corpus_of_requests_is_decoded_correctly() {
    check_corpus("requests", requests::check);
}

#[test]
fn corpus_of_lines_is_decoded_correctly() {
    check_corpus("lines", lines::check);
}

#[test]
fn corpus_of_claims_is_decoded_correctly() {
    check_corpus("claims", claims::check);
}

#[test]
fn corpus_of_cursors_is_decoded_correctly() {
    check_corpus("cursors", cursors::check);
}

#[test]
fn corpus_of_envelopes_is_decoded_correctly() {
    check_corpus("envelopes", envelopes::check);
}

#[test]
fn corpus_of_packed_requests_is_decoded_correctly() {
    check_corpus("packed_requests", packed_requests::check);
}

#[test]
fn corpus_of_tcp_frames_is_split_correctly() {
    check_corpus("tcp_frames", tcp_frames::check);
}

#[test]
fn corpus_of_bodies_is_transcoded_correctly() {
    check_corpus("bodies", bodies::check);
}

#[test]
fn corpus_of_compressed_payloads_is_decoded_correctly() {
    check_corpus("snappy", snappy::check);
}
