//! What templates are equal, what is bound, and what is kept.

use super::*;

fn scan(sql: &str) -> (TemplateKey, Fingerprint) {
    let mut scanner = Scanner::new(LexOptions::default());
    let scan = scanner.scan(sql.as_bytes());
    (scan.key, scan.fingerprint)
}

fn text(sql: &str) -> String {
    template_text(sql, LexOptions::default())
}

fn bindings(sql: &str) -> Vec<&str> {
    let mut scanner = Scanner::new(LexOptions::default());
    let scan = scanner.scan(sql.as_bytes());
    scan.bindings.iter().map(|binding| &sql[binding.start as usize..binding.end as usize]).collect()
}

#[track_caller]
fn same_key(one: &str, other: &str) {
    assert_eq!(scan(one), scan(other), "{one}\n{other}");
    assert_eq!(text(one), text(other));
}

#[track_caller]
fn same_fingerprint(one: &str, other: &str) {
    assert_ne!(scan(one).0, scan(other).0, "{one}\n{other}");
    assert_eq!(scan(one).1, scan(other).1, "{one} {:?}\n{other} {:?}", text(one), text(other));
    assert_eq!(text(one), text(other));
}

#[track_caller]
fn different(one: &str, other: &str) {
    assert_ne!(scan(one).0, scan(other).0, "{one}\n{other}");
    assert_ne!(scan(one).1, scan(other).1, "{one}\n{other}");
    assert_ne!(text(one), text(other));
}

#[test]
fn constants_space_comments_and_case_do_not_matter() {
    same_key("select * from t where id = 1", "SELECT  *\nFROM T -- x\n WHERE /* y */ ID=42;");
    same_key("select 'a'", "select 'b''c'\n'd' ; ;");
    same_key("select * from orders", "select * from \"orders\"");
}

#[test]
fn the_fingerprint_collapses_lists() {
    for (one, other) in [
        ("select * from t where id in (1)", "select * from t where id in (1, 2, -3)"),
        ("select * from t where id in (1, 2)", "select * from t where id in ($1, $2, $3, $4)"),
        ("insert into t values (1, 'a')", "insert into t values (1, 'a'), (2, null), ($1, $2)"),
        ("select array[1, 2]", "select array[1]"),
        ("select array[[1, 2], [3, 4]]", "select array[[1]]"),
        ("select * from t where (a, b) in ((1, 2))", "select * from t where (a, b) in ((1, 2), (3, 4))"),
        ("select * from t where id = 1", "select * from t where id = -1"),
        ("select * from t where id = 1", "select * from t where id = $1"),
        ("select * from t where id = 1", "select * from t where id = '1'"),
        ("select * from t where id = 1", "select * from t where id = 1.0"),
        ("select * from t where a in (lower('x'))", "select * from t where a in (lower('x'), lower('y'))"),
        ("select * from (values (1, 2)) v", "select * from (values (1, 2), (3, 4)) v"),
        ("select * from t where id in (values (1))", "select * from t where id in (values (1), (2))"),
    ] {
        same_fingerprint(one, other);
    }
}

#[test]
fn what_differs_stays_different() {
    for (one, other) in [
        ("select * from t where id = 1", "select * from t where id in (1)"),
        ("select * from t where id = 1", "select * from t where id < 1"),
        ("select * from orders", "select * from \"Orders\""),
        ("select user", "select \"user\""),
        ("select * from t order by 1", "select * from t order by 2"),
        ("select a, count(*) from t group by 1", "select a, count(*) from t group by 2"),
        ("select f(1)", "select f(1, 2)"),
        ("insert into t values (1)", "insert into t values (1, 2)"),
        ("select a - 1", "select a"),
        ("select null", "select 1"),
        ("select x::varchar(3)", "select x::varchar(4)"),
        ("select 1; select 2", "select 1"),
        ("select ab", "select a b"),
        ("select distinct on (1) a, b from t", "select distinct on (2) a, b from t"),
        ("select * from t where x != 1", "select * from t where x <> 1"),
        ("select * from t group by rollup(1, 2)", "select * from t group by rollup(1, 3)"),
    ] {
        different(one, other);
    }
}

#[test]
fn positions_and_type_modifiers_are_no_bindings() {
    for (sql, expected) in [
        (
            "select a, 1 from t where b = 2 group by 1, 2 having count(*) > 3 order by 1 desc, lower('x'), 2 limit 10 offset 20",
            &["1", "2", "3", "'x'", "10", "20"][..],
        ),
        ("select * from t group by distinct 1 union select a, 1", &["1"]),
        (
            "select '1'::varchar(3), cast(2 as numeric(10, 2)), x::s.t(5), timestamp(0) '2020-01-01'",
            &["'1'", "2", "'2020-01-01'"],
        ),
        ("select x::int, f(1), x::date and g(2)", &["1", "2"]),
        ("select * from t where id = $1 and n = -5 and b = B'1' and c = $$x$$", &["$1", "5", "B'1'", "$$x$$"]),
        ("select u&'d!0061' uescape '!', 1", &["u&'d!0061' uescape '!'", "1"]),
    ] {
        assert_eq!(bindings(sql), expected, "{sql}");
    }
}

#[test]
fn reads_as_people_write() {
    for (sql, expected) in [
        (
            "select count(*), o.total from Orders o where o.id in (1,2) and x::text like 'a%' limit 5;",
            "SELECT count(*), o.total FROM orders o WHERE o.id IN (...) AND x::text LIKE ? LIMIT ?",
        ),
        (
            "insert into t (a, b) values (1, 2), (3, 4) returning \"id\"",
            "INSERT INTO t(a, b) VALUES (?, ?) RETURNING id",
        ),
        ("select array[1,2], a[1], -x, - 1, 2 - 3", "SELECT ARRAY[...], a[?], - x, ?, ? - ?"),
        ("begin; select 1", "BEGIN; SELECT ?"),
    ] {
        assert_eq!(text(sql), expected);
    }
}

#[test]
fn says_what_kind_of_text_it_is() {
    let mut scanner = Scanner::new(LexOptions::default());
    let found = scanner.scan(b"/* pgweir: shard=2 */ begin; ; set local x = 1;");
    assert_eq!(found.statements, 2);
    assert!(found.complete);
    assert_eq!(found.leading, [Keyword::Begin, Keyword::None, Keyword::None]);
    assert_eq!(found.hint, Some((10, 19)));
    assert_eq!(scanner.scan(b"((select 1))").leading, [Keyword::Select, Keyword::None, Keyword::None]);
    assert_eq!(scanner.scan(b"set local work_mem = 1").leading, [Keyword::Set, Keyword::Local, Keyword::Word]);
    assert_eq!(scanner.scan(b"").statements, 0);
    assert!(!scanner.scan(b"select 'a").complete);
    assert!(!scanner.scan(b"select 1 /* x").complete);
    assert!(!scanner.scan(b"select $a$ $b$").complete);
}
