//! What cannot run in a transaction goes shard by shard, and can be gone on with.

use super::Bank;
use crate::proxy::raw::{Frame, field, query, shown};

fn notices(frames: &[Frame]) -> Vec<String> {
    frames.iter().filter(|(tag, _)| *tag == b'N').map(|(_, body)| field(body, b'M')).collect()
}

#[test]
fn indexes_are_built_one_shard_after_the_other() {
    let bank = Bank::new(3);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    // One shard has two rows that a unique index does not take; it was not asked for by name.
    let twin = format!("insert into moves values (1, {0}, 5), (2, {0}, 5)", at[1]);
    assert_eq!(client.query(&twin), "C:INSERT_0_2 Z:I");
    let index = "create unique index concurrently if not exists one_each on moves (account, by)";
    client.send(&query(index));
    let frames = client.until_ready(1);
    assert_eq!(shown(&frames), "E:23505 Z:I");
    let told = notices(&frames);
    assert!(told[0].contains("done on shard s0 (1 of 3)"), "{told:?}");
    assert!(told.iter().any(|text| text.contains("it was done on s0, and not on s1, s2")), "{told:?}");
    // Nothing invalid is left that IF NOT EXISTS would take for an index.
    let valid =
        "select coalesce(bool_and(indisvalid)::text, '-') from pg_index where indexrelid = to_regclass('one_each')";
    assert_eq!(bank.on_each(valid), [["true"], ["-"], ["-"]]);
    client.query(&format!("delete from moves where account = {} and id = 2", at[1]));
    client.send(&query(index));
    let frames = client.until_ready(1);
    assert_eq!(shown(&frames), "C:CREATE_INDEX Z:I");
    assert!(notices(&frames).iter().any(|text| text.contains("done on shard s2 (3 of 3)")));
    assert_eq!(bank.on_each(valid), [["true"], ["true"], ["true"]]);
    assert_eq!(client.query("drop index concurrently one_each"), "C:DROP_INDEX Z:I");
    assert_eq!(bank.on_each(valid), [["-"], ["-"], ["-"]]);
}

#[test]
fn tables_are_vacuumed_one_shard_after_the_other() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    bank.spread(&mut client);
    assert_eq!(client.query("vacuum (analyze) accounts"), "C:VACUUM Z:I");
    assert_eq!(client.query("/* all */ vacuum accounts"), "C:VACUUM Z:I");
    assert_eq!(client.query("analyze accounts"), "C:ANALYZE Z:I");
    let count = "select count(*) from pg_stat_user_tables where relname = 'accounts' and vacuum_count = 2 and analyze_count = 2";
    crate::support::wait_until("both are vacuumed", || bank.on_each(count) == [["1"], ["1"]]);
    client.query("begin");
    assert_eq!(client.query("vacuum accounts"), "E:25001 Z:E");
    assert_eq!(client.query("rollback"), "C:ROLLBACK Z:I");
    // In one string with others it stands in a transaction, as on one server.
    assert_eq!(client.query("select 1; vacuum accounts").split(' ').next_back(), Some("Z:I"));
}
