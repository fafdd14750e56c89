//! Cases of PostgreSQL's lexer.

use super::*;

fn lex(sql: &str) -> Vec<(TokenKind, &str)> {
    Lexer::new(sql.as_bytes(), LexOptions::default())
        .map(|token| (token.kind, &sql[token.start as usize..token.end as usize]))
        .collect()
}

#[test]
fn operators_follow_the_longest_match() {
    let ops = |sql| lex(sql).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(ops("a<-1"), ["a", "<", "-", "1"]);
    assert_eq!(ops("a@-1"), ["a", "@-", "1"]);
    assert_eq!(ops("a=-- x\n1"), ["a", "=", "1"]);
    assert_eq!(ops("a*/*x*/1"), ["a", "*", "1"]);
    assert_eq!(ops("1+-+2"), ["1", "+", "-", "+", "2"]);
    assert_eq!(ops("a#>>'{b}'"), ["a", "#>>", "'{b}'"]);
    assert_eq!(ops("f(a=>1,b:=2)::int"), ["f", "(", "a", "=>", "1", ",", "b", ":=", "2", ")", "::", "int"]);
}
