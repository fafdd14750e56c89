//! Functions that may change the session they run in, without anybody seeing it in the statement.
//!
//! A function of PostgreSQL's own is known by its name (`traces`). Of those that users have defined, the ones in C
//! come with extensions and do what they say; those in SQL and PL/pgSQL are read (`bodies`), and one in any other language may do
//! anything. So that a connection is looked at after a call of one that leaves something, and ordinary statements pay
//! nothing, their names are read from the server, with those of the tables and views that call them unseen.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::proxy::bodies::{Caller, Defined, judge, spread};
use crate::proxy::care::Care;

/// Every function that users have defined in another language than C, and whether an event trigger calls it.
pub const FUNCTIONS: &str = "SELECT p.proname, l.lanname, CASE WHEN p.prosrc OPERATOR(pg_catalog.=) '' \
     THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END, \
     EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtfoid OPERATOR(pg_catalog.=) p.oid)::pg_catalog.text \
     FROM pg_catalog.pg_proc p \
     JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
     WHERE p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace \
     AND p.pronamespace OPERATOR(pg_catalog.<>) 'information_schema'::pg_catalog.regnamespace \
     AND l.lanname OPERATOR(pg_catalog.<>) 'c' AND p.prokind OPERATOR(pg_catalog.<>) 'a'";

/// Names of all functions there are.
pub const NAMES: &str = "SELECT DISTINCT proname FROM pg_catalog.pg_proc";

/// Names of tables, views and aggregates, and the functions that these call by themselves; `*` stands for one of
/// PostgreSQL's own that leaves something, with the text that calls it, `?` and `+` for those that ask what was drawn from a sequence and that draw, and the empty name for whatever calls them everywhere: operators, casts, domains. Third, whether they are
/// called only when something is written.
pub const CALLERS: &str = "WITH d AS (SELECT d.classid, d.objid, p.proname \
     FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.refobjid \
     WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass), \
     b AS (SELECT ' :funcid (' OPERATOR(pg_catalog.||) pg_catalog.string_agg(oid::pg_catalog.text, '|') OPERATOR(pg_catalog.||) ') ' AS calls \
     FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace \
     AND proname OPERATOR(pg_catalog.~) '^(set_config|setseed|pg_(try_)?advisory_(un)?lock(_shared|_all)?|query_to_xml.*|ts_stat|ts_rewrite)$'), \
     s AS (SELECT CASE WHEN proname IN ('nextval', 'setval') THEN '+' ELSE '?' END AS mark, ' :funcid ' OPERATOR(pg_catalog.||) oid::pg_catalog.text OPERATOR(pg_catalog.||) ' ' AS call \
     FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace \
     AND proname IN ('nextval', 'setval', 'currval', 'lastval')), \
     o AS (SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid AS class, t.oid, t.tgrelid AS rel, t.tgqual AS tree FROM pg_catalog.pg_trigger t \
     UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, r.ev_class, r.ev_action FROM pg_catalog.pg_rewrite r \
     UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid, a.adrelid, a.adbin FROM pg_catalog.pg_attrdef a \
     UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid, c.conrelid, c.conbin FROM pg_catalog.pg_constraint c \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, i.indrelid, NULL FROM pg_catalog.pg_index i \
     UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, q.partrelid, q.partrelid, NULL FROM pg_catalog.pg_partitioned_table q \
     UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, y.oid, y.polrelid, y.polqual FROM pg_catalog.pg_policy y \
     UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, y.oid, y.polrelid, y.polwithcheck FROM pg_catalog.pg_policy y), \
     w AS (SELECT pg_catalog.unnest(ARRAY['pg_catalog.pg_trigger', 'pg_catalog.pg_attrdef', 'pg_catalog.pg_constraint']::pg_catalog.regclass[])::pg_catalog.oid AS class) \
     SELECT DISTINCT COALESCE(r.relname, ''), d.proname::pg_catalog.text, (o.class IN (SELECT class FROM w))::pg_catalog.text FROM d JOIN o ON o.class OPERATOR(pg_catalog.=) d.classid \
     AND o.oid OPERATOR(pg_catalog.=) d.objid LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) o.rel \
     UNION SELECT COALESCE(r.relname, ''), pg_catalog.concat('*', CASE o.class \
     WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass THEN pg_catalog.pg_get_ruledef(o.oid) \
     WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN pg_catalog.pg_get_constraintdef(o.oid) \
     WHEN 'pg_catalog.pg_attrdef'::pg_catalog.regclass THEN pg_catalog.pg_get_expr(o.tree, o.rel) END), 'false' FROM b JOIN o ON o.tree::pg_catalog.text OPERATOR(pg_catalog.~) b.calls \
     LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) o.rel WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
     UNION SELECT COALESCE(r.relname, ''), s.mark, (o.class IN (SELECT class FROM w))::pg_catalog.text FROM s JOIN o ON pg_catalog.strpos(o.tree::pg_catalog.text, s.call) OPERATOR(pg_catalog.>) 0 \
     AND (s.mark OPERATOR(pg_catalog.=) '?' OR o.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass) \
     LEFT JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) o.rel WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
     UNION SELECT '', d.proname, 'false' FROM d WHERE d.classid IN ('pg_catalog.pg_operator'::pg_catalog.regclass, \
     'pg_catalog.pg_cast'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_amproc'::pg_catalog.regclass) \
     UNION SELECT a.proname, d.proname, 'false' FROM d JOIN pg_catalog.pg_proc a ON a.oid OPERATOR(pg_catalog.=) d.objid \
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND a.prokind OPERATOR(pg_catalog.=) 'a'";

/// Which relation's use may touch which other: views what they read, parents their partitions, keys those that refer to them.
pub const REACHES: &str = "SELECT DISTINCT v.relname, t.relname FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid \
     JOIN pg_catalog.pg_class v ON v.oid OPERATOR(pg_catalog.=) r.ev_class \
     JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) d.refobjid \
     WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
     AND v.oid OPERATOR(pg_catalog.<>) t.oid AND v.relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace \
     UNION SELECT p.relname, c.relname FROM pg_catalog.pg_inherits i \
     JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
     UNION SELECT p.relname, c.relname FROM pg_catalog.pg_constraint k \
     JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) k.confrelid \
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid";

/// What a call may leave in its session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trait {
    /// What has to be seen to.
    pub care: Care,
    /// The same where something is written.
    pub writing: Care,
    /// Settings that it may change.
    pub settings: Vec<String>,
}

impl Trait {
    /// Adds what another call may leave; true when that is more than was known.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = (self.care, self.writing, self.settings.len());
        self.care.add(other.care);
        self.writing.add(other.writing);
        for name in &other.settings {
            if !self.settings.contains(name) {
                self.settings.push(name.clone());
            }
        }
        before != (self.care, self.writing, self.settings.len())
    }
}

/// Such functions, and tables, by name, as plans are cached by them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Tells this set apart from every other.
    pub id: u64,
    /// An event trigger calls one of them, so that every definition does.
    pub watch_definitions: bool,
    functions: HashMap<String, Trait>,
    tables: HashMap<String, Trait>,
    /// Every function there is; `None` where that is not known.
    names: Option<HashSet<Box<str>>>,
}

impl Functions {
    /// These, under a number of their own.
    pub fn new(functions: HashMap<String, Trait>, tables: HashMap<String, Trait>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), functions, tables, ..Self::default() }
    }

    /// These, where there are no other functions than those in `names`, the rows of [`NAMES`].
    #[must_use]
    pub fn among(self, names: &Rows) -> Self {
        let names = names.iter().flatten().flatten().map(|name| name.as_str().into()).collect();
        Self { names: Some(names), ..self }
    }

    /// Whether there was no function of this name when they were read.
    pub fn is_strange(&self, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| !names.contains(name))
    }

    /// Whether [`Self::is_strange`] can say anything.
    pub fn knows_names(&self) -> bool {
        self.names.is_some()
    }

    /// What a function of this name may leave in its session; `None` when nothing.
    pub fn function(&self, name: &str) -> Option<&Trait> {
        self.functions.get(name)
    }

    /// What the use of a table or view of this name may leave.
    pub fn table(&self, name: &str) -> Option<&Trait> {
        self.tables.get(name)
    }

    /// What any statement may leave, as something calls it that has no name: an operator, a cast, a domain.
    pub fn everywhere(&self) -> Option<&Trait> {
        self.tables.get("")
    }

    /// True when no function leaves anything.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.tables.is_empty()
    }

    /// These functions, with what else is known.
    pub fn with(known: &Self, functions: HashMap<String, Trait>) -> Self {
        Self { functions, tables: known.tables.clone(), id: known.id, ..Self::default() }
    }

    /// All functions that leave something.
    pub fn functions(&self) -> &HashMap<String, Trait> {
        &self.functions
    }

    /// Whether these are the same functions that do the same.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.functions == other.functions
            && self.tables == other.tables
            && self.names == other.names
            && self.watch_definitions == other.watch_definitions
    }
}

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A database's functions as they are read: first [`FUNCTIONS`], then who calls them.
#[derive(Debug)]
pub struct Definitions {
    defined: Vec<Defined>,
    /// Those that event triggers call.
    watching: Vec<String>,
    found: HashMap<String, Trait>,
}

impl Definitions {
    /// From the rows of [`FUNCTIONS`].
    pub fn new(rows: &Rows) -> Self {
        let defined = rows.iter().map(|row| Defined { name: text(row, 0), language: text(row, 1), body: text(row, 2) });
        let defined: Vec<Defined> = defined.collect();
        let watching = rows.iter().filter(|row| text(row, 3) == "true").map(|row| text(row, 0)).collect();
        let found = judge(&defined, &Functions::default());
        Self { defined, watching, found }
    }

    /// The functions that matter, and the tables, given the rows of [`CALLERS`] and [`REACHES`].
    pub fn finish(self, callers: &Rows, reaches: &Rows) -> Functions {
        let called =
            |row: &Vec<_>| Caller { relation: text(row, 0), function: text(row, 1), writing: text(row, 2) == "true" };
        let callers: Vec<_> = callers.iter().map(called).collect();
        let reaches: Vec<_> = reaches.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        let (mut functions, mut tables) = (self.found, HashMap::new());
        // A function that writes into a table with a trigger does what the trigger does, and so on.
        loop {
            let found = spread(&functions, &callers, &reaches);
            let done = found == tables;
            tables = found;
            if done {
                break;
            }
            functions = judge(&self.defined, &Functions { tables: tables.clone(), ..Functions::default() });
        }
        let watch_definitions = self.watching.iter().any(|name| functions.contains_key(name));
        Functions { watch_definitions, ..Functions::new(functions, tables) }
    }
}

fn text(row: &[Option<String>], at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}
