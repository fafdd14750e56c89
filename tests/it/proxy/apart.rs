//! Where a session in transaction mode is not as on a connection of one's own: what `docs/guarantees.md` says of it.

use super::Stage;
use super::raw::Raw;

/// Holds one of the pool's connections while it lives.
fn hold(stage: &Stage) -> Raw {
    let mut raw = stage.client();
    assert_eq!(raw.query("begin"), "C:BEGIN Z:T");
    raw.value("select 1");
    raw
}

#[test]
fn statements_prepared_by_a_functions_text_pin_and_are_nobody_elses() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("do $$ begin execute 'prepare p as select ''a'''; end $$"), "C:DO Z:I");
    assert_eq!(b.query("execute p"), "E:26000 Z:I");
    assert_eq!(b.query("do $$ begin execute 'prepare p as select ''b'''; end $$"), "C:DO Z:I");
    assert_eq!(b.value("execute p"), "b");
    assert_eq!(a.value("execute p"), "a");
    // Both keep their connection until the name is gone: then there is one again for a third.
    assert_eq!(b.query("do $$ begin execute 'deallocate p'; end $$"), "C:DO Z:I");
    assert_eq!(hold(&stage).query("execute p"), "E:26000 Z:E");
    assert_eq!(a.value("execute p"), "a");
}

#[test]
fn a_clients_names_are_not_known_to_the_text_of_functions() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    assert_eq!(a.query("prepare p as select 'kept'"), "C:PREPARE Z:I");
    assert_eq!(a.query("do $$ begin execute 'execute p'; end $$"), "E:26000 Z:I");
    assert_eq!(a.query("do $$ begin execute 'deallocate p'; end $$"), "E:26000 Z:I");
    assert_eq!(a.value("execute p"), "kept");
    assert_eq!(a.value("select count(*) from pg_prepared_statements where name = 'p'"), "0");
    assert_eq!(a.value("select count(*) from pg_prepared_statements where name like '\\_pgweir\\_%'"), "1");
}

#[test]
fn a_custom_setting_that_was_reset_may_be_empty_or_unknown_but_has_no_value() {
    let stage = Stage::new(2);
    let mut a = stage.client();
    assert_eq!(a.query("set app.gone = 'secret'"), "C:SET Z:I");
    assert_eq!(a.query("reset app.gone"), "C:RESET Z:I");
    assert_eq!(a.query("begin; set local app.local = 'secret'; commit"), "C:BEGIN C:SET C:COMMIT Z:I");
    // Three clients see both connections, whichever of them they get.
    let others = [a, hold(&stage), hold(&stage)];
    for mut other in others.into_iter().rev() {
        for name in ["app.gone", "app.local"] {
            let value = format!("select coalesce(nullif(current_setting('{name}', true), ''), 'none')");
            assert_eq!(other.value(&value), "none");
        }
        other.query("rollback");
    }
}
