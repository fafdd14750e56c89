//! Checks that data cannot say: each looks at one statement and answers where it found its fault.
//!
//! A check reads facts, and the catalog, the planner and the log where they are at hand: what these
//! refute is not reported.

mod columns;
mod indexes;
mod joins;
mod lists;
mod logic;
mod nulls;
mod patterns;
mod queries;
mod seen;
mod shape;
mod sharding;
mod types;
mod unindexed;

use super::rule::Rule;
use super::subject::{Hit, Subject};

/// One check.
pub(super) type Check = fn(&Subject<'_>, &Rule) -> Vec<Hit>;

const CHECKS: &[(&str, Check)] = &[
    ("ambiguous-order-direction", logic::ambiguous_order_direction),
    ("arithmetic-on-column", columns::arithmetic_on_column),
    ("array-any-column", logic::array_any_column),
    ("between-timestamp", columns::between_timestamp),
    ("cast-on-column", columns::cast_on_column),
    ("char-n", types::char_n),
    ("coalesce-on-column", columns::coalesce_on_column),
    ("composite-index-leading-column-missing", indexes::composite_index_leading_column_missing),
    ("concat-null", types::concat_null),
    ("constant-predicate", nulls::constant_predicate),
    ("correlated-select-list-subquery", queries::correlated_select_list_subquery),
    ("count-for-existence", logic::count_for_existence),
    ("count-star-on-large-table", queries::count_star_on_large_table),
    ("cross-shard-join", sharding::cross_shard_join),
    ("current-time-timetz", types::current_time_timetz),
    ("date-trunc-filter", columns::date_trunc_filter),
    ("distinct-hides-fan-out", shape::distinct_hides_fan_out),
    ("float-equality", columns::float_equality),
    ("for-update-without-skip-locked", queries::for_update_without_skip_locked),
    ("function-on-column", columns::function_on_column),
    ("having-without-aggregate", queries::having_without_aggregate),
    ("hot-key", sharding::hot_key),
    ("huge-in-list", lists::huge_in_list),
    ("idle-in-transaction", seen::idle_in_transaction),
    ("ilike-without-trigram", patterns::ilike_without_trigram),
    ("implicit-cast-parameter", types::implicit_cast_parameter),
    ("implicit-cross-join", joins::implicit_cross_join),
    ("integer-division", types::integer_division),
    ("jsonb-arrow-equality", columns::jsonb_arrow_equality),
    ("jsonb-operator-without-gin", shape::jsonb_operator_without_gin),
    ("leading-wildcard-like", patterns::leading_wildcard_like),
    ("left-join-nullified", joins::left_join_nullified),
    ("like-prefix-collation", shape::like_prefix_collation),
    ("limit-without-order-by", queries::limit_without_order_by),
    ("literals-not-parameterised", seen::literals_not_parameterised),
    ("lock-wait", seen::lock_wait),
    ("materialized-cte-barrier", shape::materialized_cte_barrier),
    ("missing-sharding-key", sharding::missing_sharding_key),
    ("n-plus-one", seen::n_plus_one),
    ("negated-predicate", logic::negated_predicate),
    ("not-in-nullable-subquery", nulls::not_in_nullable_subquery),
    ("not-in-subquery-slow", shape::not_in_subquery_slow),
    ("offset-pagination", queries::offset_pagination),
    ("optional-parameter", nulls::optional_parameter),
    ("or-across-columns", indexes::or_across_columns),
    ("or-and-precedence", logic::or_and_precedence),
    ("order-by-in-subquery", queries::order_by_in_subquery),
    ("partial-index-not-implied", logic::partial_index_not_implied),
    ("password-literal", lists::password_literal),
    ("reference-table-write", sharding::reference_table_write),
    ("refused-statement", sharding::refused_statement),
    ("select-star", queries::select_star),
    ("sequence-near-overflow", types::sequence_near_overflow),
    ("sharding-key-update", sharding::sharding_key_update),
    ("single-row-insert-loop", seen::single_row_insert_loop),
    ("sort-spill", shape::sort_spill),
    ("temp-file", seen::temp_file),
    ("timestamp-without-time-zone", types::timestamp_without_time_zone),
    ("too-many-joins", joins::too_many_joins),
    ("unanchored-regex", patterns::unanchored_regex),
    ("unbounded-select", queries::unbounded_select),
    ("unindexed-foreign-key", indexes::unindexed_foreign_key),
    ("unindexed-scan", unindexed::unindexed_scan),
    ("unused-join", shape::unused_join),
    ("values-explosion", lists::values_explosion),
];

/// The check of that name.
pub(super) fn find(name: &str) -> Option<Check> {
    CHECKS.iter().find(|(known, _)| *known == name).map(|(_, check)| *check)
}

/// Checks for which it matters which values constants have, and not only where they stand.
const READ_CONSTANTS: &[&str] = &[
    "count-for-existence",
    "leading-wildcard-like",
    "limit-without-order-by",
    "offset-pagination",
    "password-literal",
    "unanchored-regex",
];

/// Whether such a check reads the values of constants.
pub(super) fn reads_constants(name: &str) -> bool {
    READ_CONSTANTS.contains(&name)
}

/// The names of all checks.
pub(super) fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|(name, _)| *name).collect()
}
