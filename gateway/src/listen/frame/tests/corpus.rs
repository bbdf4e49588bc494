//! Reads every input of the fuzz corpus with both readers.

use std::fs;
use std::path::Path;

use super::compare::{LIMITS, compare_readers, read_with_parley};

#[test]
fn both_readers_agree_on_the_fuzz_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        compare_readers(&input).unwrap_or_else(|difference| panic!("{}: {difference}", path.display()));
        let whole = read_with_parley(LIMITS, [&input[..]]);
        for size in [1, 2, 3, 5, 14, 64] {
            assert_eq!(read_with_parley(LIMITS, input.chunks(size)), whole, "{} in pieces of {size}", path.display());
        }
        inputs += 1;
    }
    assert!(inputs > 20, "the corpus holds only {inputs} inputs");
}
