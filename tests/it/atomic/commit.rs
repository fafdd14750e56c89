//! What is sent at COMMIT, and what becomes of transactions that cannot commit.

use super::Bank;
use crate::proxy::raw::{Raw, field, query, shown};
use crate::support::wait_until;

fn transfer(client: &mut Raw, from: i64, to: i64) {
    assert_eq!(client.query("begin"), "C:BEGIN Z:T");
    for (account, by) in [(from, -7), (to, 7)] {
        let sql = format!("update accounts set amount = amount + {by} where id = {account}");
        assert_eq!(client.query(&sql), "C:UPDATE_1 Z:T");
    }
}

fn total(client: &mut Raw) -> String {
    client.value("select sum(amount) from accounts")
}

#[test]
fn both_shards_commit_and_nothing_stays() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    transfer(&mut client, at[0], at[1]);
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert_eq!(client.value(&format!("select amount from accounts where id = {}", at[0])), "93");
    assert_eq!(client.value(&format!("select amount from accounts where id = {}", at[1])), "107");
    assert_eq!(bank.on_each("select gid from pg_prepared_xacts"), [Vec::<String>::new(), Vec::new()]);
    let rows = bank.on_each("select committed || ' ' || participants::text from pgweir.commits");
    assert_eq!(rows, [vec!["true {s1}".to_owned()], Vec::new()]);

    // Three flushes one after the other: the decider's row comes with its COMMIT.
    let writes = |shard: usize| -> Vec<String> {
        let is_ours =
            |line: &String| ["INSERT INTO pgweir", "PREPARE", "COMMIT"].iter().any(|word| line.starts_with(word));
        let short = |line: String| line.split(" '").next().unwrap_or_default().to_owned();
        bank.log(shard, "amount + ").into_iter().filter(is_ours).map(short).collect()
    };
    let decider = writes(0);
    assert_eq!(decider.len(), 2, "{decider:?}");
    assert!(decider[0].starts_with("INSERT INTO pgweir.commits") && decider[1] == "COMMIT", "{decider:?}");
    assert_eq!(writes(1), ["PREPARE TRANSACTION", "COMMIT PREPARED"]);
}

/// Answered when it is decided: the client itself sees all of it all the same.
#[test]
fn an_early_answer_hides_nothing_from_its_client() {
    let bank = Bank::new(2);
    let text = super::config(&bank.shards, "atomic") + "    commit_answer: decided\n";
    let proxy = crate::support::Proxy::start(&text);
    let mut client = Raw::login(proxy.port(), "app", "secret", "bank", &[]);
    let at = bank.spread(&mut client);
    for round in 1..=200 {
        transfer(&mut client, at[0], at[1]);
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
        let there = client.value(&format!("select amount from accounts where id = {}", at[1]));
        assert_eq!(there, (100 + 7 * round).to_string());
    }
    assert_eq!(total(&mut client), "4000");
    wait_until("nothing is left", || bank.on_each("select gid from pg_prepared_xacts").concat().is_empty());
    let others = bank.log(1, "amount + ").into_iter().filter(|sql| sql.starts_with("COMMIT PREPARED")).count();
    assert_eq!(others, 200);
}

#[test]
fn one_shard_costs_nothing_more() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    client.query("begin");
    client.query(&format!("update accounts set amount = 1 where id = {}", at[1]));
    // It may write, says its text, and does not.
    client.query(&format!("update accounts set amount = 1 where id = {} and amount < 0", at[0]));
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    client.query("begin");
    client.query(&format!("update accounts set amount = 2 where id = {}", at[1]));
    client.query(&format!("select amount from accounts where id = {}", at[0]));
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert_eq!(bank.on(1, "select amount from accounts where amount = 2").len(), 1);
    assert!(bank.on_each("select gid from pgweir.commits").concat().is_empty());
    let sent = bank.log(1, "amount = 2");
    assert!(!sent.iter().any(|sql| sql.contains("PREPARE") || sql.contains("CONSTRAINTS")), "{sent:?}");
}

#[test]
fn what_one_shard_refuses_happens_on_none() {
    let bank = Bank::new(3);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    for shard in &bank.shards {
        let deferred = "create function f() returns trigger language plpgsql as $$ begin \
              if new.amount = 13 then raise exception 'unlucky' using errcode = 'P0013'; end if; return null; end $$; \
            create constraint trigger t after update on accounts deferrable initially deferred for each row execute function f()";
        shard.query("postgres", deferred).unwrap();
    }
    for unlucky in 0..3 {
        client.query("begin");
        for (shard, account) in at.iter().enumerate() {
            let amount = if shard == unlucky { 13 } else { 50 };
            let updated = client.query(&format!("update accounts set amount = {amount} where id = {account}"));
            assert_eq!(updated, "C:UPDATE_1 Z:T");
        }
        assert_eq!(client.query("commit"), "E:P0013 Z:I");
        assert_eq!(total(&mut client), "4000");
    }
    // A failed block is rolled back, as ever.
    transfer(&mut client, at[0], at[1]);
    assert_eq!(client.query("select 1/0"), "E:22012 Z:E");
    assert_eq!(client.query("commit"), "C:ROLLBACK Z:I");
    assert_eq!(total(&mut client), "4000");
    assert!(bank.on_each("select gid from pg_prepared_xacts").concat().is_empty());
}

/// Statements that write on several shards by themselves, definitions and reference tables too.
#[test]
fn statements_outside_a_block_are_all_or_nothing() {
    let bank = Bank::new(3);
    let mut client = bank.client();
    bank.spread(&mut client);
    assert_eq!(client.query("update accounts set amount = amount + 1"), "C:UPDATE_40 Z:I");
    assert_eq!(client.query("insert into currencies values ('EUR')"), "C:INSERT_0_1 Z:I");
    assert_eq!(client.query("alter table accounts add note text"), "C:ALTER_TABLE Z:I");
    let decided = bank.on_each("select gid from pgweir.commits where committed").concat();
    assert_eq!(decided.len(), 3, "{decided:?}");
    // One shard has such a row, and such a table, already.
    bank.shards[1]
        .query("postgres", "insert into currencies values ('USD'); alter table accounts add odd text")
        .unwrap();
    assert_eq!(client.query("insert into currencies values ('USD')"), "E:23505 Z:I");
    assert_eq!(client.query("alter table accounts add odd text"), "E:42701 Z:I");
    assert_eq!(bank.on_each("select count(*) from currencies"), [["1"], ["2"], ["1"]]);
    assert_eq!(bank.on_each("select count(*) from pg_attribute where attname = 'odd'"), [["0"], ["1"], ["0"]]);
}

/// The decision is made by the login role, and flushed, whatever the client has set.
#[test]
fn the_clients_role_and_settings_do_not_matter() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    for shard in &bank.shards {
        let sql = "create role clerk; grant select, update on accounts to clerk; \
            create table seen (who text, sync text); grant insert on seen to public; \
            create function see() returns trigger language plpgsql as $$ begin \
              insert into public.seen values (current_user, current_setting('synchronous_commit')); return new; end $$; \
            create trigger see before insert on pgweir.commits for each row execute function see()";
        shard.query("postgres", sql).unwrap();
    }
    client.query("set synchronous_commit = off");
    client.query("set role clerk");
    transfer(&mut client, at[0], at[1]);
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert_eq!(bank.on(0, "select who || ' ' || sync from seen"), ["postgres on"]);
    assert!(bank.on_each("select gid from pg_prepared_xacts").concat().is_empty(), "it was finished at once");
    assert_eq!(client.value("select current_user || '/' || current_setting('synchronous_commit')"), "clerk/off");
    // Roles of the transaction alone, and what a rolled back one has set.
    client.query("reset role");
    transfer(&mut client, at[1], at[0]);
    client.query("set local role clerk");
    assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    assert!(bank.on_each("select gid from pg_prepared_xacts").concat().is_empty());
    assert_eq!(client.value("select current_user"), "postgres");
    transfer(&mut client, at[1], at[0]);
    client.query("set work_mem = '5MB'");
    for shard in &bank.shards {
        shard
            .query(
                "postgres",
                "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
            create trigger no before insert on pgweir.commits for each row execute function no()",
            )
            .unwrap();
    }
    assert_eq!(client.query("commit"), "E:P0001 Z:I");
    assert_eq!(client.value("show work_mem"), "4MB");
    assert_eq!(total(&mut client), "4000");
}

/// What cannot be prepared.
#[test]
fn what_cannot_be_prepared_is_rolled_back_everywhere() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    let function =
        "create function tell() returns trigger language plpgsql as $$ begin notify moved; return null; end $$";
    let trigger = "create trigger tell after insert on moves for each row execute function tell()";
    for shard in &bank.shards {
        shard.query("postgres", function).unwrap();
    }
    assert_eq!(client.query(trigger), "C:CREATE_TRIGGER Z:I");
    // The one that cannot prepare decides, whichever it is.
    for (from, to) in [(0, 1), (1, 0)] {
        transfer(&mut client, at[from], at[to]);
        assert_eq!(client.query(&format!("insert into moves values (1, {}, 7)", at[to])), "C:INSERT_0_1 Z:T");
        assert_eq!(client.query("commit"), "C:COMMIT Z:I");
    }
    transfer(&mut client, at[0], at[1]);
    for account in &at {
        assert_eq!(client.query(&format!("insert into moves values (2, {account}, 7)")), "C:INSERT_0_1 Z:T");
    }
    client.send(&query("commit"));
    let heard = client.until_ready(1);
    assert_eq!(shown(&heard), "E:0A000 Z:I");
    let (_, body) = heard.iter().find(|(tag, _)| *tag == b'E').unwrap();
    assert!(field(body, b'M').contains("NOTIFY"), "{}", field(body, b'M'));
    assert_eq!(total(&mut client), "4000");
}

/// Where `pgweir init` was not run nothing commits on several shards, and the error says why.
#[test]
fn without_init_it_says_so() {
    let bank = Bank::new(2);
    let mut client = bank.client();
    let at = bank.spread(&mut client);
    for shard in &bank.shards {
        shard.query("postgres", "drop schema pgweir cascade").unwrap();
    }
    let fresh = crate::support::Proxy::start(&super::config(&bank.shards, "atomic"));
    let mut client = Raw::login(fresh.port(), "app", "secret", "bank", &[]);
    transfer(&mut client, at[0], at[1]);
    client.send(&query("commit"));
    let heard = client.until_ready(1);
    assert_eq!(shown(&heard), "E:55000 Z:I");
    let (_, body) = heard.iter().find(|(tag, _)| *tag == b'E').unwrap();
    assert!(field(body, b'M').contains("pgweir init"), "{}", field(body, b'M'));
    assert_eq!(total(&mut client), "4000");
    wait_until("the log says it too", || fresh.log().contains("it cannot commit atomically"));
}
