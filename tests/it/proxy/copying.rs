//! COPY on one PostgreSQL and over 2, 3 and 5 shards: the same rows in, and the same out.

use super::raw::{Frame, Raw, field, frame, query, shown};
use super::scatter::{Both, is_refused};

/// COPY .. FROM STDIN with its data, in pieces of odd sizes.
fn copy_in(raw: &mut Raw, sql: &str, data: &[u8]) -> String {
    let mut messages = query(sql);
    for piece in data.chunks(7) {
        messages.extend(frame(b'd', piece));
    }
    messages.extend(frame(b'c', b""));
    raw.send(&messages);
    let heard = raw.until_ready(1);
    let errors = heard.iter().filter(|(tag, _)| *tag == b'E');
    let messages: Vec<String> = errors.map(|(_, body)| field(body, b'M')).collect();
    format!("{} {}", shown(&heard), messages.join(" "))
}

/// COPY .. TO STDOUT: everything but the rows, and the rows in any order.
fn copy_out(raw: &mut Raw, sql: &str) -> (Vec<Frame>, Vec<Vec<u8>>) {
    raw.send(&query(sql));
    let (mut rows, rest): (Vec<Frame>, Vec<Frame>) = raw.until_ready(1).into_iter().partition(|(tag, _)| *tag == b'd');
    // What binary data begins with may come with the first row.
    for (_, body) in rows.iter_mut().filter(|(_, body)| body.starts_with(b"PGCOPY")) {
        body.drain(..19);
    }
    rows.retain(|(_, body)| !body.is_empty());
    rows.sort();
    (rest, rows.into_iter().map(|(_, body)| body).collect())
}

const ROWS: &[(&str, &[u8])] = &[
    (
        "copy customers from stdin",
        b"101\tx\\ty\tde\tt\t1999-01-01\t1.5\n-102\t\\N\t\\N\tf\t\\N\tNaN\n103\t\\\\\tfr\t\\N\t\\N\t0\n",
    ),
    ("copy customers (id, name) from stdin", b"101\ta\n102\tb\\\nc\n103\t\\\\\n104\t\\N\n105\t\n106\tlast"),
    (
        "copy customers (name, id) from stdin (delimiter '|', null 'none')",
        b"a|101\nnone|102\nb\\|c|103\n\\.\nnever|read\n",
    ),
    ("copy customers (id, name) from stdin (format csv)", b"101,\"a,\n\"\"b\"\"\"\n102,\n103,\"\"\n\"104\",x\n"),
    ("copy customers (name, id) from stdin csv header", b"name,id\n\"x\ny\",101\n,102\nz,103\n"),
    (
        "copy customers (id, name) from stdin (format csv, quote '~', escape '\\', null 'nil')",
        b"101,~it\\~s~\n102,nil\n103,~nil~\n",
    ),
    ("copy customers (id, name) from stdin", b""),
    ("copy public.\"customers\" (\"id\") from stdin with (format text)", b"101\n102\n103\n104\n"),
    ("copy orders (id, customer_id, total) from stdin", b"1\t1\t1.5\n2\t2\t2.5\n3\t3\t\\N\n4\t-4\t0\n"),
    ("copy countries from stdin", b"it\tItaly\nes\tSpain\n"),
    ("copy countries (name, code) from stdin csv", b"Italy,it\n\"Spain, x\",es\n"),
];

/// What is wrong in PostgreSQL's own opinion.
const WRONG: &[(&str, &[u8])] = &[
    ("copy customers (id, name) from stdin", b"101\ta\n102\tb\tc\n"),
    ("copy customers (id, name) from stdin", b"101\ta\n1\tdup\n"),
    ("copy customers (id, score) from stdin", b"101\t1\n102\tx\n"),
    ("copy customers (id, nothing) from stdin", b"101\t1\n"),
    ("copy nowhere from stdin", b"101\t1\n"),
    ("copy countries from stdin", b"it\tItaly\nde\tdup\n"),
];

/// What cannot be placed.
const REFUSED: &[(&str, &[u8])] = &[
    ("copy customers (id, name) from stdin", b"101\ta\n\\N\tb\n"),
    ("copy customers (id, name) from stdin", b"101\ta\n 102\tb\n"),
    ("copy customers (id, name) from stdin", b"101\ta\n1e2\tb\n"),
    ("copy customers (name) from stdin", b"a\n"),
    ("copy customers (id) from stdin (freeze)", b"101\n"),
    ("copy customers (id, name) from stdin (format csv, force_null (name))", b"101,\n"),
];

#[test]
fn rows_come_in_and_go_out_as_with_one_database() {
    std::thread::scope(|scope| {
        let runs: Vec<_> = [2, 3, 5].map(|shards| scope.spawn(move || compare(shards))).into_iter().collect();
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

fn compare(shards: usize) {
    let both = Both::new(shards);
    let (mut one, mut several) = (both.one(), both.several());
    let contents = |raw: &mut Raw| {
        ["customers order by id", "orders order by customer_id, id", "countries order by code"]
            .map(|table| raw.query(&format!("select * from {table}")))
    };
    for (sql, data) in ROWS {
        let seen = [&mut one, &mut several].map(|raw| {
            raw.query("begin");
            let heard = copy_in(raw, sql, data);
            let after = contents(raw);
            raw.query("rollback");
            (heard, after)
        });
        assert!(!seen[0].0.contains("E:"), "{sql}: {}", seen[0].0);
        assert_eq!(seen[0], seen[1], "over {shards} shards: {sql}");
    }
    for (sql, data) in WRONG {
        let expected = copy_in(&mut one, sql, data);
        let heard = copy_in(&mut several, sql, data);
        let code = |heard: &str| heard.split("E:").nth(1).unwrap_or_default().split(' ').next().map(str::to_owned);
        let unknown = sql.contains("nowhere");
        assert!(expected.contains("E:") && (unknown || code(&expected) == code(&heard)), "{sql}: {expected} / {heard}");
        assert!(heard.contains("E:"), "{sql}: {heard}");
    }
    for (sql, data) in REFUSED {
        let heard = copy_in(&mut several, sql, data);
        assert!(heard.contains("E:0A000") && heard.contains("refused"), "{sql}: {heard}");
    }
    // Nothing of what failed is there, on any shard.
    assert_eq!(contents(&mut one), contents(&mut several));
    for sql in [
        "copy customers to stdout",
        "copy customers (name, id) to stdout (format csv)",
        "copy orders to stdout csv header",
        "copy orders (id, total) to stdout (format csv, force_quote (total))",
        "copy customers (id, name, score) to stdout (format binary)",
        "copy countries to stdout",
        "copy (select * from customers where id = 5) to stdout",
        "copy (select 1, 'x') to stdout csv",
        "copy (select code from countries where code = 'de') to stdout",
    ] {
        assert_eq!(copy_out(&mut one, sql), copy_out(&mut several, sql), "over {shards} shards: {sql}");
    }
    for sql in [
        "copy (select count(*) from customers) to stdout",
        "copy customers to '/tmp/x'",
        "copy customers from program 'true'",
    ] {
        several.send(&query(sql));
        let heard = several.until_ready(1);
        assert!(is_refused(&heard), "{sql}: {}", shown(&heard));
    }
}

#[test]
fn what_comes_out_goes_in_again() {
    let both = Both::new(3);
    let mut raw = both.several();
    for form in ["text", "csv", "binary"] {
        raw.send(&query(&format!("copy items to stdout (format {form})")));
        let data: Vec<u8> =
            raw.until_ready(1).into_iter().filter(|(tag, _)| *tag == b'd').flat_map(|(_, body)| body).collect();
        let before = raw.query("select * from items order by customer_id, order_id, line");
        raw.query("delete from items");
        let heard = copy_in(&mut raw, &format!("copy items from stdin (format {form})"), &data);
        assert!(heard.contains("C:COPY_"), "{form}: {heard}");
        assert_eq!(raw.query("select * from items order by customer_id, order_id, line"), before, "{form}");
    }
}

#[test]
fn a_copy_that_ends_otherwise_stores_nothing() {
    let both = Both::new(3);
    let mut raw = both.several();
    raw.send(
        &[query("copy customers (id) from stdin"), frame(b'd', b"101\n102\n103\n"), frame(b'f', b"no more\0")].concat(),
    );
    let heard = raw.until_ready(1);
    assert!(shown(&heard).ends_with("E:57014 Z:I"), "{}", shown(&heard));
    assert_eq!(raw.value("select count(*) from customers where id > 100"), "0");
    // Inside a block it fails the block.
    raw.query("begin");
    assert!(copy_in(&mut raw, "copy customers (id) from stdin", b"101\n1\n").contains("E:23505 Z:E"));
    assert!(raw.query("select 1").contains("E:25P02"));
    raw.query("rollback");
    // Who leaves in the middle has stored nothing.
    let mut gone = both.several();
    gone.send(&[query("copy customers (id) from stdin"), frame(b'd', b"101\n102\n103\n")].concat());
    while gone.read().0 != b'G' {}
    drop(gone);
    for _ in 0..100 {
        if raw.value("select count(*) from pg_stat_activity where query like 'copy%' and state = 'active' and pid <> pg_backend_pid()") == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(raw.value("select count(*) from customers where id > 100"), "0");
    // Much data passes through in small memory, and a mistake in it is told before its end.
    let mut data = Vec::new();
    for id in 1000..200_000 {
        data.extend(format!("{id}\tsome name for this one {id}\n").into_bytes());
    }
    let mut messages = query("copy customers (id, name) from stdin");
    data.chunks(50_000).for_each(|chunk| messages.extend(frame(b'd', chunk)));
    messages.extend(frame(b'c', b""));
    raw.send(&messages);
    assert!(shown(&raw.until_ready(1)).ends_with("C:COPY_199000 Z:I"));
    assert_eq!(raw.value("select count(*) from customers where id >= 1000"), "199000");
    let two = Both::with_commit(2, "refuse");
    for shard in ["s0", "s1"] {
        two.cluster.query(shard, "create table customers (id bigint primary key)").unwrap();
    }
    assert!(copy_in(&mut two.several(), "copy customers from stdin", b"1\n").contains("E:0A000"));
}
