//! Cursors on one PostgreSQL and over three shards.

use super::raw::{bind, execute, parse, sync};
use super::scatter::Both;

#[test]
fn cursors_read_as_on_one_database() {
    let both = Both::new(3);
    let (mut one, mut several) = (both.one(), both.several());
    for statements in [
        &[
            "declare c cursor for select id, name from customers order by id",
            "fetch 3 from c",
            "fetch c",
            "move 10 from c",
            "fetch forward 2 in c",
            "fetch all from c",
            "fetch next from c",
            "close c",
            "fetch c",
        ][..],
        &[
            "declare c scroll cursor for select name from customers where id = 5",
            "fetch last c",
            "fetch prior c",
            "fetch first from c",
        ],
        &[
            "declare \"My c\" no scroll cursor without hold for select country, count(*) from customers group by 1 order by 1",
            "declare d binary cursor for select id from orders order by id, customer_id",
            "fetch 2 from \"My c\"",
            "fetch 2 from d",
            "savepoint s",
            "declare e cursor for select code from countries order by code",
            "fetch 2 e",
            "rollback to s",
            "fetch 2 from \"My c\"",
            "fetch 2 e",
        ],
        &[
            "declare c cursor for select id from customers where id = 5 or id = 6 order by 1",
            "insert into customers (id) values (7000)",
            "fetch all c",
        ],
        &["fetch c"],
        &["close c"],
        &["declare c cursor for select nothing from customers"],
    ] {
        let heard = [&mut one, &mut several].map(|raw| {
            raw.query("begin");
            let heard: Vec<String> = statements.iter().map(|sql| raw.query(sql)).collect();
            raw.query("rollback");
            heard
        });
        assert_eq!(heard[0], heard[1], "{statements:?}");
    }
    for outside in [
        "declare c cursor for select id from customers",
        "declare c cursor for select id from customers where id = 1",
        "fetch c",
    ] {
        assert_eq!(one.query(outside), several.query(outside), "{outside}");
    }
}

#[test]
fn cursors_end_with_their_transaction() {
    let both = Both::new(2);
    let mut several = both.several();
    for refused in [
        "declare c cursor with hold for select id from customers",
        "declare c cursor for select id from customers for update",
        "close all",
    ] {
        several.query("begin");
        assert_eq!(several.query(refused), "E:0A000 Z:E", "{refused}");
        several.query("rollback");
    }
    // A cursor ends with its transaction.
    several.query("begin");
    several.query("declare c cursor for select id from customers");
    several.query("commit");
    several.query("begin");
    assert_eq!(several.query("fetch c"), "E:34000 Z:E");
    several.query("rollback");
}

#[test]
fn cursors_take_parameters() {
    let both = Both::new(3);
    for mut raw in [both.one(), both.several()] {
        raw.query("begin");
        let declare = "declare c cursor for select id from customers where id > $1 and name like $2 order by id";
        assert_eq!(
            raw.talk(&[parse("", declare), bind("", &["10", "n1%"]), execute(), sync()], 1),
            "1 2 C:DECLARE_CURSOR Z:T"
        );
        assert_eq!(raw.query("fetch 2 from c"), "T D:11 D:12 C:FETCH_2 Z:T");
        assert_eq!(
            raw.talk(&[parse("", "fetch 1 from c"), bind("", &[]), execute(), sync()], 1),
            "1 2 D:13 C:FETCH_1 Z:T"
        );
        assert_eq!(raw.talk(&[parse("", "close c"), bind("", &[]), execute(), sync()], 1), "1 2 C:CLOSE_CURSOR Z:T");
        raw.query("rollback");
    }
}
