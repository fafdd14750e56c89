//! The queries behind [`super::catalog`], one for each kind of thing. PostgreSQL 12 and later.
//!
//! All of them leave out system schemas and other sessions' temporary tables. Counts and options come
//! from pg_catalog's documented columns: https://www.postgresql.org/docs/current/catalogs.html

/// Version and search path of the session.
pub(super) const SESSION: &str = "select current_setting('server_version_num')::int4, current_schemas(false)::text[]";

/// Tables, views and foreign tables. `reltuples` is -1 (before 14: 0 with no pages) when never analyzed.
pub(super) const RELATIONS: &str = "
select c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       case when c.reltuples < 0 or (c.reltuples = 0 and c.relpages = 0 and current_setting('server_version_num')::int4 < 140000)
            then null else c.reltuples::float8 end,
       c.relpages::int8, pn.nspname::text, pc.relname::text,
       case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end,
       c.relkind = 'v' and not exists (
         select from pg_catalog.pg_rewrite r
         join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
         join pg_catalog.pg_class t on t.oid = d.refobjid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         where r.ev_class = c.oid and t.relrowsecurity)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_inherits i on i.inhrelid = c.oid and c.relispartition
left join pg_catalog.pg_class pc on pc.oid = i.inhparent
left join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname, c.relname";

/// A number that changes with what is defined: by the transactions that have written the catalog's rows. Statistics are
/// written in place, and change nothing.
pub(super) const FINGERPRINT: &str = "
select pg_catalog.md5(pg_catalog.string_agg(kind || ' ' || n || ' ' || coalesce(total, 0), ',' order by kind)) from (
  select 'class' as kind, count(*) as n, sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8) as total
    from pg_catalog.pg_class where oid >= 16384 and relpersistence <> 't' and relkind in ('r', 'p', 'v', 'm', 'f', 'i', 'I')
  union all select 'attribute', count(*), sum(pg_catalog.hashint8(attrelid::int8 * 4294967296 + a.xmin::text::int8 + attnum)::int8)
    from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
    where attrelid >= 16384 and relpersistence <> 't' and relkind in ('r', 'p', 'v', 'm', 'f')
  union all select 'rewrite', count(*), sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8)
    from pg_catalog.pg_rewrite where ev_class >= 16384
  union all select 'constraint', count(*), sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8)
    from pg_catalog.pg_constraint where oid >= 16384
  union all select 'proc', count(*), sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8)
    from pg_catalog.pg_proc where oid >= 16384
  union all select 'trigger', count(*), sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8)
    from pg_catalog.pg_trigger
  union all select 'type', count(*), sum(pg_catalog.hashint8(oid::int8 * 4294967296 + xmin::text::int8)::int8)
    from pg_catalog.pg_type where oid >= 16384 and typrelid = 0 and typelem = 0) as parts";

/// Functions that users have made, and whether all of a name are immutable and give one value. PostgreSQL takes a declaration's word; here those in SQL and
/// PL/pgSQL whose text names what reads or calls are not believed.
pub(super) const FUNCTIONS: &str = "
select p.proname::text,
       pg_catalog.bool_and(case
         when p.prokind <> 'f' or p.proretset or p.provolatile <> 'i' or l.lanname not in ('c', 'internal', 'sql', 'plpgsql') then false
         when l.lanname in ('c', 'internal') then true
         else pg_catalog.pg_get_functiondef(p.oid)
              !~* '\\m(from|join|table|into|perform|execute|insert|update|delete|call)\\M'
       end)
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_language l on l.oid = p.prolang
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
group by p.proname";

/// Columns in order.
pub(super) const COLUMNS: &str = "
select a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       case when a.attcollation <> t.typcollation then co.collname::text end,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' or a.attgenerated <> '',
       case when co.collname <> 'default' then pg_catalog.format('%I.%I', cn.nspname, co.collname) end
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_collation co on co.oid = a.attcollation
left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attnum > 0 and not a.attisdropped
  and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by a.attrelid, a.attnum";

/// Statistics of columns; where a parent has both kinds, those over its children come last and win.
pub(super) const STATISTICS: &str = "
select schemaname::text, tablename::text, attname::text, avg_width, n_distinct::float8, null_frac::float8, correlation::float8
from pg_catalog.pg_stats
where schemaname !~ '^pg_' and schemaname <> 'information_schema'
order by schemaname, tablename, attname, inherited";

/// Indexes with their keys in order.
pub(super) const INDEXES: &str = "
select i.indrelid, ic.relname::text, am.amname::text, i.indisunique, i.indisprimary, i.indisvalid and i.indisready,
       i.indisreplident or ic.relispartition
         or exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')),
       k.columns, k.expressions, k.descending, k.nulls_first, k.opclasses, k.collations, k.included,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid, true),
       case when ic.relkind = 'i' then pg_catalog.pg_relation_size(i.indexrelid) end,
       s.idx_scan
from pg_catalog.pg_index i
join pg_catalog.pg_class ic on ic.oid = i.indexrelid
join pg_catalog.pg_class c on c.oid = i.indrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_am am on am.oid = ic.relam
left join pg_catalog.pg_stat_all_indexes s on s.indexrelid = i.indexrelid
cross join lateral (
  select array_agg(a.attname::text order by p.n) filter (where p.n < i.indnkeyatts) as columns,
         array_agg(case when i.indkey[p.n] = 0 then pg_catalog.pg_get_indexdef(i.indexrelid, p.n + 1, true) end order by p.n)
           filter (where p.n < i.indnkeyatts) as expressions,
         array_agg(coalesce(i.indoption[p.n], 0) & 1 = 1 order by p.n) filter (where p.n < i.indnkeyatts) as descending,
         array_agg(coalesce(i.indoption[p.n], 0) & 2 = 2 order by p.n) filter (where p.n < i.indnkeyatts) as nulls_first,
         array_agg(case when not o.opcdefault then o.opcname::text end order by p.n)
           filter (where p.n < i.indnkeyatts) as opclasses,
         array_agg(case when a.attcollation <> i.indcollation[p.n] and i.indcollation[p.n] <> 0 then co.collname::text end
           order by p.n) filter (where p.n < i.indnkeyatts) as collations,
         array_agg(a.attname::text order by p.n) filter (where p.n >= i.indnkeyatts) as included
  from generate_series(0, i.indnatts - 1) as p(n)
  left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[p.n] and i.indkey[p.n] <> 0
  left join pg_catalog.pg_opclass o on o.oid = i.indclass[p.n]
  left join pg_catalog.pg_collation co on co.oid = i.indcollation[p.n]
) k
where c.relkind in ('r', 'p', 'm') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by i.indrelid, ic.relname";

/// Primary key, unique, foreign key, check and exclusion constraints.
pub(super) const CONSTRAINTS: &str = "
select k.conrelid, k.conname::text, k.contype::text,
       array(select a.attname::text from unnest(k.conkey) with ordinality u(n, i)
             join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by u.i),
       fn.nspname::text, fc.relname::text,
       array(select a.attname::text from unnest(k.confkey) with ordinality u(n, i)
             join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by u.i),
       case when k.contype = 'c' then pg_catalog.pg_get_expr(k.conbin, k.conrelid, true) end
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_class fc on fc.oid = k.confrelid and k.contype = 'f'
left join pg_catalog.pg_namespace fn on fn.oid = fc.relnamespace
where k.contype in ('p', 'u', 'f', 'c', 'x') and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by k.conrelid, k.conname";
