//! PostgreSQL's keywords, looked up by one hash of a folded word.
//!
//! The list is that of `pg_get_keywords()` in PostgreSQL 15, with what 16 to 18 added. Two uses: telling the clauses
//! of a statement apart while it is scanned, and keeping a quoted identifier that is spelled like a keyword apart
//! from the keyword (`"user"` is a column, `user` is a function).

/// Bytes of a word that fit a 61-bit hash word beside its tag.
pub(super) const CHUNK: usize = 7;

macro_rules! keywords {
    ($($(#[$doc:meta])* $name:ident = $text:literal $class:ident,)*) => {
        /// A word of a statement, as far as this room tells words apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are the words")]
        pub enum Keyword {
            /// No word stands here.
            None,
            /// A word that is no keyword.
            Word,
            /// A keyword that has no name here and may be a column's name.
            Free,
            /// A keyword that has no name here and may not be a column's name unquoted.
            Reserved,
            $($name,)*
        }

        const NAMED: &[(&str, Keyword)] = &[$(($text, Keyword::$name),)*];

        impl Keyword {
            /// True for words that cannot name a column unless quoted.
            pub fn is_reserved(self) -> bool {
                match self {
                    Self::None | Self::Word | Self::Free => false,
                    Self::Reserved => true,
                    $(Self::$name => keywords!(@reserved $class),)*
                }
            }
        }
    };
    (@reserved reserved) => { true };
    (@reserved free) => { false };
}

keywords! {
    Abort = "abort" free,
    All = "all" reserved,
    Alter = "alter" free,
    Analyse = "analyse" reserved,
    Analyze = "analyze" reserved,
    And = "and" reserved,
    Any = "any" reserved,
    Array = "array" reserved,
    As = "as" reserved,
    Asc = "asc" reserved,
    Atomic = "atomic" free,
    Begin = "begin" free,
    Between = "between" free,
    Bit = "bit" free,
    By = "by" free,
    Call = "call" free,
    Case = "case" reserved,
    Char = "char" free,
    Character = "character" free,
    Checkpoint = "checkpoint" free,
    Close = "close" free,
    Cluster = "cluster" free,
    Comment = "comment" free,
    Commit = "commit" free,
    Copy = "copy" free,
    Create = "create" reserved,
    Cross = "cross" reserved,
    Cube = "cube" free,
    Deallocate = "deallocate" free,
    Dec = "dec" free,
    Decimal = "decimal" free,
    Declare = "declare" free,
    Default = "default" reserved,
    Delete = "delete" free,
    Desc = "desc" reserved,
    Discard = "discard" free,
    Distinct = "distinct" reserved,
    Do = "do" reserved,
    Double = "double" free,
    Drop = "drop" free,
    Else = "else" reserved,
    End = "end" reserved,
    Escape = "escape" free,
    Except = "except" reserved,
    Execute = "execute" free,
    Exists = "exists" free,
    Explain = "explain" free,
    False = "false" reserved,
    Fetch = "fetch" reserved,
    Float = "float" free,
    For = "for" reserved,
    From = "from" reserved,
    Full = "full" reserved,
    Function = "function" free,
    Grant = "grant" reserved,
    Group = "group" reserved,
    Having = "having" reserved,
    Ilike = "ilike" reserved,
    Import = "import" free,
    In = "in" reserved,
    Inner = "inner" reserved,
    Insert = "insert" free,
    Intersect = "intersect" reserved,
    Interval = "interval" free,
    Into = "into" reserved,
    Is = "is" reserved,
    Join = "join" reserved,
    Lateral = "lateral" reserved,
    Left = "left" reserved,
    Like = "like" reserved,
    Limit = "limit" reserved,
    Listen = "listen" free,
    Load = "load" free,
    Local = "local" free,
    Lock = "lock" free,
    Merge = "merge" free,
    Move = "move" free,
    National = "national" free,
    Natural = "natural" reserved,
    Nchar = "nchar" free,
    Not = "not" reserved,
    Notify = "notify" free,
    Null = "null" reserved,
    Numeric = "numeric" free,
    Offset = "offset" reserved,
    On = "on" reserved,
    Or = "or" reserved,
    Order = "order" reserved,
    Outer = "outer" reserved,
    Partition = "partition" free,
    Precision = "precision" free,
    Prepare = "prepare" free,
    Prepared = "prepared" free,
    Procedure = "procedure" free,
    Reassign = "reassign" free,
    Refresh = "refresh" free,
    Reindex = "reindex" free,
    Release = "release" free,
    Replace = "replace" free,
    Reset = "reset" free,
    Returning = "returning" reserved,
    Revoke = "revoke" free,
    Right = "right" reserved,
    Rollback = "rollback" free,
    Rollup = "rollup" free,
    Row = "row" free,
    Savepoint = "savepoint" free,
    Second = "second" free,
    Security = "security" free,
    Select = "select" reserved,
    Session = "session" free,
    Set = "set" free,
    Sets = "sets" free,
    Show = "show" free,
    Similar = "similar" reserved,
    Some = "some" reserved,
    Start = "start" free,
    Symmetric = "symmetric" reserved,
    Table = "table" reserved,
    Then = "then" reserved,
    Time = "time" free,
    Timestamp = "timestamp" free,
    To = "to" reserved,
    Transaction = "transaction" free,
    True = "true" reserved,
    Truncate = "truncate" free,
    Union = "union" reserved,
    Unlisten = "unlisten" free,
    Update = "update" free,
    Using = "using" reserved,
    Vacuum = "vacuum" free,
    Values = "values" free,
    Varchar = "varchar" free,
    Varying = "varying" free,
    When = "when" reserved,
    Where = "where" reserved,
    Window = "window" reserved,
    With = "with" reserved,
    Work = "work" free,
}

const RESERVED: &str = "\
    asymmetric authorization binary both cast check collate collation column concurrently constraint current_catalog \
    current_date current_role current_schema current_time current_timestamp current_user deferrable foreign freeze \
    initially isnull leading localtime localtimestamp notnull only overlaps placing primary references session_user \
    tablesample trailing unique user variadic verbose";

const FREE: &str = "\
    absent absolute access action add admin after aggregate also always asensitive assertion assignment at attach \
    attribute backward before bigint boolean breadth cache called cascade cascaded catalog chain characteristics \
    class coalesce columns comments committed compression conditional configuration conflict connection constraints \
    content continue conversion cost csv current cursor cycle data database day defaults deferred definer delimiter \
    delimiters depends depth detach dictionary disable document domain each empty enable encoding encrypted enforced \
    enum error event exclude excluding exclusive expression extension external extract family filter finalize first \
    following force format forward functions generated global granted greatest grouping groups handler header hold \
    hour identity if immediate immutable implicit include including increment indent index indexes inherit inherits \
    inline inout input insensitive instead int integer invoker isolation json json_array json_arrayagg json_exists \
    json_object json_objectagg json_query json_scalar json_serialize json_table json_value key keys label language \
    large last leakproof least level location locked logged mapping match matched materialized maxvalue merge_action \
    method minute minvalue mode month name names nested new next nfc nfd nfkc nfkd no none normalize normalized \
    nothing nowait nullif nulls object objects of off oids old omit operator option options ordinality others out \
    over overlay overriding owned owner parallel parameter parser partial passing password path period periods plan \
    plans policy position preceding preserve prior privileges procedural procedures program publication quote quotes \
    range read real recheck recursive ref referencing relative rename repeatable replica restart restrict return \
    returns role routine routines rows rule scalar schema schemas scroll search sequence sequences serializable \
    server setof share simple skip smallint snapshot source sql stable standalone statement statistics stdin stdout \
    storage stored strict string strip subscription substring support sysid system system_user tables tablespace \
    target temp template temporary text ties transform treat trigger trim trusted type types uescape unbounded \
    uncommitted unconditional unencrypted unknown unlogged until valid validate validator value version view views \
    virtual volatile whitespace within without wrapper write xml xmlattributes xmlconcat xmlelement xmlexists \
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable year yes zone";

/// The longest keyword has 17 bytes, three chunks.
const CHUNKS: usize = 3;
const SLOTS: usize = 2048;

#[derive(Clone, Copy)]
struct Slot {
    chunks: [u64; CHUNKS],
    keyword: Keyword,
}

static TABLE: [Slot; SLOTS] = build();

const fn slot_of(chunks: [u64; CHUNKS]) -> usize {
    let mixed = (chunks[0] ^ chunks[1].rotate_left(29) ^ chunks[2].rotate_left(43)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 53) as usize
}

const fn build() -> [Slot; SLOTS] {
    let mut table = [Slot { chunks: [0; CHUNKS], keyword: Keyword::Word }; SLOTS];
    let mut at = 0;
    while at < NAMED.len() {
        let (text, keyword) = NAMED[at];
        table = insert(table, text.as_bytes(), 0, text.len(), keyword);
        at += 1;
    }
    table = insert_all(table, RESERVED.as_bytes(), Keyword::Reserved);
    insert_all(table, FREE.as_bytes(), Keyword::Free)
}

const fn insert_all(mut table: [Slot; SLOTS], text: &[u8], keyword: Keyword) -> [Slot; SLOTS] {
    let mut start = 0;
    while start < text.len() {
        let mut end = start;
        while end < text.len() && text[end] != b' ' {
            end += 1;
        }
        table = insert(table, text, start, end, keyword);
        start = end + 1;
    }
    table
}

const fn insert(mut table: [Slot; SLOTS], text: &[u8], start: usize, end: usize, keyword: Keyword) -> [Slot; SLOTS] {
    let mut chunks = [0u64; CHUNKS];
    let mut at = start;
    while at < end {
        let place = at - start;
        chunks[place / CHUNK] |= (text[at] as u64) << (8 * (place % CHUNK));
        at += 1;
    }
    let mut slot = slot_of(chunks);
    while table[slot].chunks[0] != 0 {
        slot = (slot + 1) % SLOTS;
    }
    table[slot] = Slot { chunks, keyword };
    table
}

/// The keyword whose lower-case bytes, seven to a word, are `chunks`.
pub(super) fn lookup(chunks: [u64; CHUNKS]) -> Keyword {
    let mut slot = slot_of(chunks);
    loop {
        // A quarter of the table is full, so a run ends; the mask keeps the index in range.
        let entry = &TABLE[slot % SLOTS];
        if entry.chunks == chunks || entry.chunks[0] == 0 {
            return entry.keyword;
        }
        slot += 1;
    }
}

impl Keyword {
    /// True when an expression may begin right after this word, so that a `-` there is a sign.
    pub(super) fn precedes_expression(self) -> bool {
        use Keyword::{
            And, Between, By, Case, Distinct, Else, Escape, For, From, Having, Ilike, In, Is, Like, Limit, Not, Offset,
            On, Or, Returning, Select, Similar, Symmetric, Then, To, Values, When, Where,
        };
        matches!(
            self,
            And | Between
                | By
                | Case
                | Distinct
                | Else
                | Escape
                | For
                | From
                | Having
                | Ilike
                | In
                | Is
                | Like
                | Limit
                | Not
                | Offset
                | On
                | Or
                | Returning
                | Select
                | Similar
                | Symmetric
                | Then
                | To
                | Values
                | When
                | Where
        )
    }

    /// True for words written in capitals when a template is shown to people.
    pub(super) fn is_shown_in_capitals(self) -> bool {
        use Keyword::{
            Abort, Alter, Begin, Between, By, Call, Checkpoint, Close, Commit, Copy, Deallocate, Declare, Delete,
            Discard, Drop, Execute, Exists, Explain, Insert, Listen, Lock, Merge, Move, Notify, Partition, Prepare,
            Refresh, Reindex, Release, Reset, Revoke, Rollback, Savepoint, Set, Show, Start, Truncate, Unlisten,
            Update, Vacuum, Values,
        };
        self.is_reserved()
            || matches!(
                self,
                Abort
                    | Alter
                    | Begin
                    | Between
                    | By
                    | Call
                    | Checkpoint
                    | Close
                    | Commit
                    | Copy
                    | Deallocate
                    | Declare
                    | Delete
                    | Discard
                    | Drop
                    | Execute
                    | Exists
                    | Explain
                    | Insert
                    | Listen
                    | Lock
                    | Merge
                    | Move
                    | Notify
                    | Partition
                    | Prepare
                    | Refresh
                    | Reindex
                    | Release
                    | Reset
                    | Revoke
                    | Rollback
                    | Savepoint
                    | Set
                    | Show
                    | Start
                    | Truncate
                    | Unlisten
                    | Update
                    | Vacuum
                    | Values
            )
    }

    /// True for type names that take a precision or length in parentheses wherever they stand.
    pub(super) fn takes_modifier(self) -> bool {
        use Keyword::{
            Bit, Char, Character, Dec, Decimal, Float, Interval, Nchar, Numeric, Second, Time, Timestamp, Varchar,
            Varying,
        };
        matches!(
            self,
            Bit | Char
                | Character
                | Dec
                | Decimal
                | Float
                | Interval
                | Nchar
                | Numeric
                | Second
                | Time
                | Timestamp
                | Varchar
                | Varying
        )
    }
}
