//! What a client sets stays its own: never lost, never another's.

use super::Stage;
use super::raw::Raw;

#[test]
fn settings_follow_their_client_and_leak_to_nobody() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    let mut b = Raw::login(
        stage.proxy.port(),
        "app",
        "secret",
        "app",
        &[("application_name", "bee"), ("options", "-c work_mem=7MB -c search_path=x\\ ,\\ public")],
    );
    a.query("set my.tenant = 'one'");
    a.query("set search_path to pg_catalog, public");
    assert_eq!(b.value("select coalesce(current_setting('my.tenant', true), '')"), "");
    assert_eq!(b.value("show work_mem"), "7MB");
    assert_eq!(b.value("show application_name"), "bee");
    assert_eq!(b.query("show search_path"), "T D:x , public C:SHOW Z:I");
    assert_eq!(a.value("show my.tenant"), "one");
    assert_eq!(a.value("show work_mem"), "4MB");
    a.query("reset my.tenant");
    assert_eq!(a.value("select coalesce(current_setting('my.tenant', true), '')"), "");
    // A setting that was rolled back is not kept; one that was refused is not either.
    assert_eq!(a.query("set work_mem = 'nonsense'"), "E:22023 Z:I");
    assert_eq!(a.value("show work_mem"), "4MB");
    // Startup settings come back with RESET ALL.
    b.query("set work_mem = '9MB'");
    assert_eq!(b.value("show work_mem"), "9MB");
    b.query("reset all");
    assert_eq!(b.value("show work_mem"), "7MB");
}

#[test]
fn wrong_startup_settings_are_refused_at_startup() {
    let stage = Stage::new(1);
    let login = |more: &[(&str, &str)]| Raw::try_login(stage.proxy.port(), "app", "secret", "app", more);
    let error = login(&[("TimeZone", "Nowhere/Land")]).err().expect("no such zone");
    assert_eq!(super::raw::field(&error, b'C'), "22023");
    assert!(login(&[("nonsense", "x")]).is_err());
    assert!(login(&[("replication", "database")]).is_err());
    assert_eq!(stage.client().value("select 1"), "1");
}

#[test]
fn what_cannot_be_replayed_pins() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    a.query("create temp table mine (x int)");
    a.query("insert into mine values (41)");
    assert_eq!(b.query("select * from mine"), "E:42P01 Z:I");
    assert_eq!(a.value("select x + 1 from mine"), "42");
    assert_eq!(a.value("select pg_try_advisory_lock(5)"), "t");
    assert_eq!(b.value("select pg_try_advisory_lock(5)"), "f");
    drop(a);
    // The connection is cleaned before anybody else gets it.
    let mut freed = String::new();
    for _ in 0..50 {
        freed = b.value("select pg_try_advisory_lock(5)");
        if freed == "t" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(freed, "t");
    let mut c = stage.client();
    assert_eq!(c.query("select * from mine"), "E:42P01 Z:I");
}

#[test]
fn a_notification_names_the_client_that_sent_it() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("listen news"), "C:LISTEN Z:I");
    b.query("notify news, 'x'");
    let (tag, body) = a.read();
    assert_eq!((tag, body), (b'A', [&b.key.0.to_be_bytes()[..], b"news\0x\0"].concat()));
    a.send(&super::raw::query("notify news, 'x'"));
    let frames = a.until_ready(1);
    let (_, body) = frames.iter().find(|(tag, _)| *tag == b'A').unwrap();
    assert_eq!(*body, [&a.key.0.to_be_bytes()[..], b"news\0x\0"].concat());
}

#[test]
fn clients_with_settings_of_their_own_all_get_on() {
    let stage = Stage::new(1);
    let port = stage.proxy.port();
    std::thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            scope.spawn(move || {
                let mut client = Raw::login(port, "app", "secret", "app", &[("application_name", name)]);
                for number in 0..30 {
                    // What SET means depends on what is said before it, so it waits until the settings are in place.
                    assert_eq!(client.query(&format!("set work_mem to '{}kB'", 100 + number)), "C:SET Z:I");
                    assert_eq!(client.value("show application_name"), name);
                }
            });
        }
    });
}

#[test]
fn listen_works_in_transaction_mode() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    assert_eq!(a.query("listen news"), "C:LISTEN Z:I");
    assert_eq!(b.query("notify news, 'hello'"), "C:NOTIFY Z:I");
    assert_eq!(a.read().0, b'A');
}

#[test]
fn a_vanished_client_commits_nothing() {
    let stage = Stage::new(1);
    let mut sentinel = stage.client();
    sentinel.query("create table t (x int)");
    for _ in 0..10 {
        let mut gone = stage.client();
        gone.query("begin; insert into t values (1)");
        drop(gone);
        assert_eq!(sentinel.query("commit"), "C:COMMIT Z:I");
        assert_eq!(sentinel.value("select count(*) from t"), "0");
        // Sixteen answers on their way to a client that resets its connection.
        let mut gone = stage.client();
        let many: Vec<u8> = (0..16).flat_map(|_| super::raw::query("select 'not yours', pg_sleep(0.001)")).collect();
        gone.send(&many);
        socket2::SockRef::from(&gone.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(gone);
        assert_eq!(sentinel.value("select 'mine'"), "mine");
    }
}

#[test]
fn cancel_hits_the_own_query_only() {
    let stage = Stage::new(2);
    let (mut a, mut b) = (stage.client(), stage.client());
    let cancel = |key: &(u32, Vec<u8>)| {
        let mut raw = Raw::connect(stage.proxy.port());
        let mut packet = vec![0, 0, 0, 16, 4, 210, 22, 46];
        packet.extend(key.0.to_be_bytes());
        packet.extend(&key.1);
        raw.send(&packet);
        assert_eq!(raw.try_read(), None);
    };
    a.send(&super::raw::query("select pg_sleep(20)"));
    b.send(&super::raw::query("select pg_sleep(0.6), 'b'"));
    std::thread::sleep(std::time::Duration::from_millis(200));
    cancel(&(a.key.0, vec![1, 2, 3, 4]));
    cancel(&(1, vec![1, 2, 3, 4]));
    cancel(&a.key);
    assert_eq!(super::raw::shown(&a.until_ready(1)), "T E:57014 Z:I");
    assert!(super::raw::shown(&b.until_ready(1)).contains(",b C:SELECT_1"));
    // A stale cancel meets nobody.
    for _ in 0..20 {
        cancel(&a.key);
        assert_eq!(b.value("select 1"), "1");
    }
}

#[test]
fn a_function_that_sets_leaks_to_nobody() {
    let stage = Stage::new(1);
    let mut a = stage.client();
    a.query("create function tenant(x text) returns text language plpgsql as $$ begin return set_config('my.tenant', x, false); end $$");
    // A client that comes later makes the proxy look at the functions; the proxy looks by itself too.
    a.query("do $$ begin perform tenant('do'); end $$");
    let mut b = stage.client();
    assert_eq!(b.value("select coalesce(current_setting('my.tenant', true), '')"), "");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    a.query("do $$ begin null; end $$");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(a.value("select tenant('mine')"), "mine");
    assert_eq!(b.value("select coalesce(current_setting('my.tenant', true), '')"), "");
}

#[test]
fn the_parts_of_datestyle_stay_together() {
    let stage = Stage::new(1);
    let mut a = Raw::login(stage.proxy.port(), "app", "secret", "app", &[("datestyle", "iso")]);
    let mut b = stage.client();
    let date = "select date '03/02/2001'";
    b.query("set datestyle to 'sql, dmy'");
    assert_eq!((a.value(date), b.value(date)), ("2001-03-02".into(), "03/02/2001".into()));
    b.query("set datestyle to german");
    b.query("set datestyle to mdy");
    assert_eq!((a.value(date), b.value(date)), ("2001-03-02".into(), "02.03.2001".into()));
    a.query("set datestyle to european");
    assert_eq!((b.value(date), a.value(date)), ("02.03.2001".into(), "2001-02-03".into()));
    b.query("begin; set datestyle to dmy; commit");
    assert_eq!((a.value(date), b.value(date)), ("2001-02-03".into(), "03.02.2001".into()));
    a.query("reset datestyle");
    assert_eq!((b.value(date), a.value(date)), ("03.02.2001".into(), "2001-03-02".into()));
}
