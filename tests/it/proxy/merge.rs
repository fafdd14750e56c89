//! Ordered rows of several shards, merged by their keys.

use super::raw::{Raw, bind, execute, frame, parse, query, shown, sync};
use super::scatter::Both;

/// A column of each type by which rows are merged, with odd values.
const VALUES: &[(&str, &str)] = &[
    ("smallint", "(array[null, -32768, 32767, 0, 7])[1 + i % 5]"),
    ("integer", "(array[null, -2147483648, 2147483647, 0])[1 + i % 4]"),
    ("bigint", "(array[null, -9223372036854775808, 9223372036854775807, -1])[1 + i % 4]"),
    ("real", "(array[null, 'NaN', '-Infinity', 'Infinity', '0', '-0', '1.5'])[1 + i % 7]::real"),
    ("double precision", "case i % 9 when 0 then null when 1 then 'NaN' when 2 then '-Infinity' else sin(i) * i end"),
    (
        "numeric",
        "(array[null, 'NaN', '-Infinity', 'Infinity', '0', '-0.00', '1.10', '1.1', '10000.0001', '99999999999999999999', '-1e-20'])[1 + i % 11]::numeric",
    ),
    ("numeric(12,3)", "case i % 3 when 0 then null else (i * 7919 % 1000 - 500) / 7.0 end"),
    ("date", "(array[null, '-infinity', 'infinity', '4713-01-01 BC', '2026-02-28'])[1 + i % 5]::date"),
    (
        "timestamp",
        "case i % 4 when 0 then null when 1 then '-infinity' else timestamp '1999-12-31' + i * interval '1 day' end",
    ),
    ("timestamptz(3)", "timestamptz '2026-03-29 00:00+01' + (i % 10) * interval '1 hour'"),
    ("time", "time '23:59' + i * interval '7 minutes'"),
    ("uuid", "case i % 5 when 0 then null else md5(i::text)::uuid end"),
    ("bytea", "(array[null, '', '\\x00', '\\x0000', '\\x00ff', '\\xff'])[1 + i % 6]::bytea"),
    ("boolean", "(array[null, true, false])[1 + i % 3]"),
    ("text collate \"C\"", "(array[null, '', 'a', 'A', 'ab', 'ä', 'Z', E'\\x01'])[1 + i % 8]"),
    ("varchar(9) collate \"C\"", "case i % 4 when 0 then null else chr(60 + i) || i end"),
    ("name", "'n' || i % 7"),
    ("oid", "(4294967295 - i % 5)::oid"),
];

#[test]
fn values_of_each_type_are_in_postgresqls_order() {
    let both = Both::new(3);
    let (mut one, mut several) = (both.one(), both.several());
    let columns: Vec<String> = VALUES.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind}")).collect();
    let moods = format!("create table moods (id bigint primary key, {})", columns.join(", "));
    let values: Vec<&str> = VALUES.iter().map(|(_, value)| *value).collect();
    let fill = format!("insert into moods select i, {} from generate_series(1, 60) i", values.join(", "));
    for sql in [moods, fill] {
        assert_eq!(several.query(&sql), one.query(&sql));
    }
    for (at, (kind, _)) in VALUES.iter().enumerate() {
        for direction in ["", " desc", " nulls first", " desc nulls last"] {
            let sql = format!("select id, c{at} from moods order by c{at}{direction}, id desc");
            let plan = several.query(&format!("explain (route) {sql}"));
            assert!(plan.contains("merge-rows"), "{} is not merged: {plan}", kind);
            let binary = frame(b'B', b"\0\0\0\0\0\0\0\x01\0\x01");
            // An oid is a shard's own: in binary form it is collected.
            for messages in [query(&sql), [parse("", &sql), binary, execute(), sync()].concat()] {
                assert_eq!(rows(&mut several, &messages), rows(&mut one, &messages), "{}{direction}", kind);
            }
        }
    }
}

fn rows(client: &mut Raw, messages: &[u8]) -> String {
    client.send(messages);
    shown(&client.until_ready(1))
}

#[test]
fn amounts_and_parts_of_an_order() {
    let both = Both::new(3);
    let (mut one, mut several) = (both.one(), both.several());
    for sql in [
        "select id, name from customers order by id limit 0",
        "select id from customers order by id limit 3 offset 4",
        "select id from customers order by id offset 40",
        "select id from customers order by id limit 9223372036854775807 offset 9223372036854775807",
        "select id from customers order by id limit null offset null",
        "select id from customers order by id limit all",
        "select *, id from customers order by id desc limit 2",
        "select c.id, o.id from customers c join orders o on o.customer_id = c.id order by o.total desc, o.id limit 7",
        "select id /* all */ from customers -- of them\n order by id desc -- last first\n limit 2 -- two\n;",
        "select id as name from customers order by name desc fetch first 2 rows only",
        "select born from customers order by id fetch first row only",
        "select id from customers where score > 3 order by born desc offset 2 rows fetch next 3 rows only",
        "begin",
        "delete from customers where id = 7",
        "select id from customers order by id limit 9",
        "rollback",
    ] {
        assert_eq!(several.query(sql), one.query(sql), "{sql}");
    }
    let ask = "select id from customers order by id limit $1 offset $2";
    for values in [["3", "1"], ["0", "0"], ["100", "43"]] {
        let messages = [parse("", ask), bind("", &values), execute(), sync()].concat();
        assert_eq!(rows(&mut several, &messages), rows(&mut one, &messages));
    }
    let binary = frame(
        b'B',
        &[&b"\0\0\0\x01\0\x01\0\x02\0\0\0\x08"[..], &4_i64.to_be_bytes(), b"\0\0\0\x08", &2_i64.to_be_bytes(), b"\0\0"]
            .concat(),
    );
    let messages = [parse("", ask), binary, execute(), sync()].concat();
    assert_eq!(rows(&mut several, &messages), rows(&mut one, &messages));
    // Some rows now: there may be more.
    let some = frame(b'E', b"\0\0\0\0\x05");
    let messages = [parse("", "select id from customers order by id offset 3"), bind("", &[]), some, sync()].concat();
    assert_eq!(rows(&mut several, &messages), rows(&mut one, &messages));
}

#[test]
fn an_error_ends_the_order_and_nothing_else() {
    let both = Both::new(3);
    let mut client = both.several();
    let heard = client.query("select 10 / (id - 20) from customers order by id");
    assert!(heard.contains("E:22012") && heard.ends_with("Z:I"), "{heard}");
    assert_eq!(client.value("select count(*) from customers"), "45");
    // Far more than fits in between is passed on as the client takes it.
    let fill = "insert into orders select 1 + i % 40, 1000 + i, i, null, null, null from generate_series(1, 60000) i";
    assert_eq!(client.query(fill), "C:INSERT_0_60000 Z:I");
    client.send(&query("select id, total from orders where id > 1000 order by id"));
    let ids = client.until_ready(1).into_iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| {
        let length = u32::from_be_bytes(body[2..6].try_into().unwrap()) as usize;
        std::str::from_utf8(&body[6..6 + length]).unwrap().parse::<u64>().unwrap()
    });
    assert!(ids.eq(1001..=61000));
}
