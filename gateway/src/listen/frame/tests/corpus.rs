//! Every input that fuzzing found worth keeping, read in both ways.

use std::fs;
use std::path::Path;

use super::compare::{LIMITS, agree, ours};

#[test]
fn the_corpus_of_the_fuzz_target_is_read_alike() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
    let mut seen = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        agree(&input).unwrap_or_else(|difference| panic!("{}: {difference}", path.display()));
        let whole = ours(LIMITS, [&input[..]]);
        for size in [1, 2, 3, 5, 14, 64] {
            assert_eq!(ours(LIMITS, input.chunks(size)), whole, "{} in pieces of {size}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} inputs");
}
