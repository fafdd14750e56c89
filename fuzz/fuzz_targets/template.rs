//! Fuzzes the lexer and the template scanner with any bytes.
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run template                      until it is stopped or finds something
//! cargo +nightly fuzz run template -- -max_total_time=60
//! ```
//!
//! The golden files make a good first corpus: `mkdir -p fuzz/corpus/template && cp fixtures/templates/*.txt fuzz/corpus/template`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir::sql::lexer::{LexOptions, Lexer, decode_identifier, decode_integer, decode_string, split_statements};
use pgweir::sql::template::{Scanner, template_text};

fuzz_target!(|bytes: &[u8]| {
    for standard_conforming_strings in [true, false] {
        let options = LexOptions { standard_conforming_strings };
        let mut end = 0;
        let mut lexer = Lexer::new(bytes, options);
        for token in &mut lexer {
            assert!(token.start >= end && token.end > token.start && token.end as usize <= bytes.len());
            end = token.end;
            let text = token.bytes(bytes);
            let _ = decode_string(text, options);
            let _ = decode_identifier(text);
            let _ = decode_integer(text);
        }
        let mut scanner = Scanner::new(options);
        let first = scanner.scan(bytes);
        assert_eq!(first.complete, lexer.is_complete());
        let (key, fingerprint, complete) = (first.key, first.fingerprint, first.complete);

        // What is read once is read again: nothing of one text is left in the scanner for the next.
        let mut last = 0;
        for binding in first.bindings {
            assert!(binding.start >= last && binding.end as usize <= bytes.len());
            last = binding.end;
        }
        let _ = scanner.scan(b"select (array[1, (values (2), (3");
        let second = scanner.scan(bytes);
        assert_eq!((key, fingerprint, complete), (second.key, second.fingerprint, second.complete));

        // A comment and a line feed at the end of a complete text change nothing.
        if complete {
            let commented = [bytes, b"\n-- end\n"].concat();
            let third = scanner.scan(&commented);
            assert_eq!((key, fingerprint), (third.key, third.fingerprint));
        }

        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = template_text(text, options);
            for range in split_statements(text, options) {
                assert!(!text[range].is_empty());
            }
        }
    }
});
