//! Conditions and orders that are read otherwise than they are meant.

use super::indexes::{column_and_value, leads_an_index};
use crate::lint::evidence::Evidence;
use crate::lint::rule::Rule;
use crate::lint::subject::{Hit, Subject, normal_expression, usable};
use crate::sql::facts::{Clause, ColumnRef, Comparison, Operand, Predicate, Projection, Scope, Span};
use crate::sql::lexer::{LexOptions, Lexer, TokenKind};

/// `ORDER BY a, b DESC`: DESC belongs to b alone.
pub(super) fn ambiguous_order_direction(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let hit = |scope: &Scope| {
        let [earlier @ .., last] = scope.order_by.as_slice() else { return None };
        // Plain columns without a word of direction behind them are where the slip happens.
        let bare = scope.order_by.windows(2).all(|pair| match pair {
            [key, next] => {
                let between = Span { start: key.span.end, end: next.span.start };
                key.value.column().is_some() && subject.text(between).trim() == ","
            }
            _ => false,
        });
        if earlier.is_empty() || !bare || !last.descending || last.value.column().is_none() {
            return None;
        }
        let first = subject.text(earlier.first()?.span);
        let behind = subject.sql.get(last.span.end as usize..)?.to_ascii_lowercase();
        let word = behind.find("desc").map_or(0, |at| u32::try_from(at).unwrap_or(0) + 4);
        let (start, end) = (earlier.first()?.span.start, last.span.end + word);
        let message = format!("DESC belongs to {} alone: {first} is sorted ascending", subject.text(last.span));
        let advice = format!("write each direction: ORDER BY {first} ASC, .. when it is meant");
        Some(Hit::new(Span { start, end }, message).instead(advice))
    };
    subject.facts.scopes.iter().filter_map(hit).collect()
}

/// `tenant = 1 AND a = 2 OR b = 3`: AND binds tighter, so the last arm forgets the tenant.
pub(super) fn or_and_precedence(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    if !subject.facts.predicates.iter().any(|predicate| predicate.disjunction.is_some()) {
        return Vec::new();
    }
    let mixed = mixed_levels(subject.sql);
    let at = mixed.first().copied();
    let hit = |span: Span| {
        let message = "AND and OR stand side by side: AND binds tighter, so the conditions before it do not hold for what follows OR";
        Hit::new(span, message).instead("put parentheses around the part that belongs together")
    };
    at.map(hit).into_iter().collect()
}

/// One level of parentheses while reading.
#[derive(Default, Clone)]
struct Level {
    and: bool,
    or: Option<Span>,
    between: u32,
    case: u32,
}

/// The ORs that stand unparenthesised beside an AND of the same condition.
fn mixed_levels(sql: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut levels = vec![Level::default()];
    let close = |level: &mut Level, found: &mut Vec<Span>| {
        if let (true, Some(or)) = (level.and, level.or) {
            found.push(or);
        }
        *level = Level { case: level.case, ..Level::default() };
    };
    for token in Lexer::new(sql.as_bytes(), LexOptions::default()) {
        let bytes = token.bytes(sql.as_bytes());
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let Some(level) = levels.last_mut() else { break };
        match (token.kind, text.as_str()) {
            (_, "(" | "[") => levels.push(Level::default()),
            (_, ")" | "]") => {
                close(level, &mut found);
                if levels.len() > 1 {
                    levels.pop();
                }
            }
            (TokenKind::Ident, "between") => level.between += 1,
            (TokenKind::Ident, "and") if level.between > 0 => level.between -= 1,
            (TokenKind::Ident, "and") => level.and = true,
            (TokenKind::Ident, "or") => level.or = Some(Span { start: token.start, end: token.end }),
            (
                TokenKind::Ident,
                "where" | "on" | "having" | "group" | "order" | "limit" | "union" | "when" | "then" | "else" | "select"
                | "from" | "join" | "case" | "end" | "returning" | "set",
            ) => close(level, &mut found),
            (_, "," | ";") => close(level, &mut found),
            _ => {}
        }
    }
    for mut level in levels {
        close(&mut level, &mut found);
    }
    found
}

/// `status <> 'done'` as the only condition on a large table.
pub(super) fn negated_predicate(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let negated = |comparison: &Comparison| {
        matches!(comparison, Comparison::Ne | Comparison::NotIn | Comparison::NotLike | Comparison::NotBetween)
    };
    let hit = |predicate: &Predicate| {
        let column = predicate.left.column()?;
        let (table, known) = subject.column(column)?;
        let rows = table.rows.filter(|rows| *rows >= rule.threshold("rows", 10_000.0))?;
        if !predicate.right.as_ref()?.is_constant() || narrowed(subject, column, predicate) {
            return None;
        }
        let partial = table.indexes.iter().filter(|index| usable(index)).filter_map(|index| index.predicate.as_deref());
        let mentions = |text: &str| normal_expression(text).contains(&known.name);
        if partial.into_iter().any(mentions) {
            return None;
        }
        let written = subject.text(predicate.span);
        let message = format!(
            "{written} is the only condition on {}'s {rows:.0} rows: a b-tree finds what is equal, not what differs",
            table.name
        );
        let advice = format!("name the values that are wanted, or a partial index: CREATE INDEX .. WHERE {written}");
        Some(Hit::new(predicate.span, message).by(Evidence::Stats).instead(advice))
    };
    let filters = |it: &&Predicate| it.clause == Clause::Where && it.conjunctive && negated(&it.comparison);
    subject.facts.predicates.iter().filter(filters).filter_map(hit).collect()
}

/// Some other condition, or a join, reads only a part of the column's table.
fn narrowed(subject: &Subject<'_>, column: &ColumnRef, own: &Predicate) -> bool {
    let of = |operand: &Operand| operand.column().is_some_and(|other| other.relation == column.relation);
    let others = subject.facts.predicates.iter().filter(|predicate| predicate.span != own.span);
    let mut others = others.filter(|it| it.conjunctive || it.disjunction.is_some());
    let limited = subject.facts.scopes.get(own.scope.0).is_some_and(|scope| scope.limit.is_some());
    limited || others.any(|it| of(&it.left) || it.right.as_ref().is_some_and(of))
}

/// `$1 = ANY(tags)`: no index answers it, GIN answers `tags @> ARRAY[$1]`.
pub(super) fn array_any_column(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let column = predicate.right.as_ref()?.column()?;
        if predicate.comparison != Comparison::In || !predicate.left.is_constant() {
            return None;
        }
        let level = match subject.column(column) {
            Some((table, _)) if table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0)) => return None,
            Some(_) if column.relation.is_some_and(|id| subject.at_most_one_row(id)) => return None,
            Some(_) => Evidence::Schema,
            None => Evidence::Syntax,
        };
        let (value, name) = (subject.text(predicate.left.span()), subject.text(column.span));
        let message = format!("{value} = ANY({name}) looks into every row's array: no index on {name} answers it");
        let advice = format!("{name} @> ARRAY[{value}] with an index USING gin ({})", column.name);
        Some(Hit::new(predicate.span, message).by(level).instead(advice))
    };
    let filters = |it: &&Predicate| matches!(it.clause, Clause::Where | Clause::InnerOn | Clause::OuterOn);
    subject.facts.predicates.iter().filter(filters).filter_map(hit).collect()
}

/// `(SELECT count(*) ..) > 0`: all are counted to learn that there is one.
pub(super) fn count_for_existence(subject: &Subject<'_>, _rule: &Rule) -> Vec<Hit> {
    let counts = |operand: &Operand| {
        let Operand::Subquery(id, _) = operand else { return false };
        let Some(scope) = subject.facts.scopes.get(id.0) else { return false };
        let [Projection::Item { value, .. }] = scope.projection.as_slice() else { return false };
        scope.group_by.is_empty() && subject.text(value.span()).trim().to_ascii_lowercase().starts_with("count(")
    };
    let asks = |comparison: &Comparison, number: &str| {
        matches!(
            (comparison, number),
            (Comparison::Gt | Comparison::Eq | Comparison::Ne, "0") | (Comparison::Ge | Comparison::Lt, "1")
        )
    };
    let hit = |predicate: &Predicate| {
        let number = subject.text(predicate.right.as_ref()?.span()).trim();
        (counts(&predicate.left) && asks(&predicate.comparison, number)).then(|| {
            let none = matches!(predicate.comparison, Comparison::Eq | Comparison::Lt);
            let word = if none { "NOT EXISTS" } else { "EXISTS" };
            Hit::new(predicate.span, "all rows are counted to learn whether there is one")
                .instead(format!("{word} (SELECT FROM ..), which stops at the first row"))
        })
    };
    subject.facts.predicates.iter().filter_map(hit).collect()
}

/// `deleted_at IS NULL` in the index, but not in the statement.
pub(super) fn partial_index_not_implied(subject: &Subject<'_>, rule: &Rule) -> Vec<Hit> {
    let hit = |predicate: &Predicate| {
        let (column, value) = column_and_value(predicate)?;
        let (table, known) = subject.column(column)?;
        let small = table.rows.is_some_and(|rows| rows < rule.threshold("rows", 1000.0));
        if small || !value.is_constant() || !predicate.conjunctive {
            return None;
        }
        let leads = |index: &&crate::sql::catalog::Index| {
            usable(index) && index.keys.first().is_some_and(|key| key.column.as_deref() == Some(known.name.as_str()))
        };
        let mut full = table.clone();
        full.indexes.retain(|index| index.predicate.is_none());
        let index = table.indexes.iter().filter(leads).find(|index| index.predicate.is_some())?;
        let condition = index.predicate.as_deref()?;
        // Another full index, on this or another column of the statement, does as well.
        let others = subject.facts.predicates.iter().filter_map(column_and_value);
        let mut own = others.filter(|(other, _)| other.relation == column.relation);
        if own.any(|(other, _)| leads_an_index(&full, &other.name)) || mentions_any(subject, condition, table) {
            return None;
        }
        if subject.plan().is_some_and(|plan| plan.walk().iter().any(|node| node.index.is_some())) {
            return None;
        }
        let name = &index.name;
        let message =
            format!("the index {name} holds only rows WHERE {condition}, which the statement does not ask for");
        let level = if subject.plan().is_some() { Evidence::Plan } else { Evidence::Schema };
        let advice = format!("add {condition} to the statement when it is meant, or index {} in full", known.name);
        Some(Hit::new(predicate.span, message).by(level).instead(advice))
    };
    let filters = |it: &&Predicate| matches!(it.clause, Clause::Where | Clause::InnerOn);
    subject.facts.predicates.iter().filter(filters).filter_map(hit).collect()
}

/// The statement has a condition on a column that an index's predicate names: whether it implies it is PostgreSQL's to say.
fn mentions_any(subject: &Subject<'_>, condition: &str, table: &crate::sql::catalog::Table) -> bool {
    let words: Vec<&str> = condition.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).collect();
    let named = table.columns.iter().filter(|column| words.contains(&column.name.as_str()));
    let sides = || {
        let predicates = subject.facts.predicates.iter();
        predicates.flat_map(|it| [Some(&it.left), it.right.as_ref()]).flatten()
    };
    let mentioned = |name: &str| {
        sides().any(|operand| match operand {
            Operand::Column(column) => column.name == name,
            Operand::Expression { columns, .. } => columns.iter().any(|column| column.name == name),
            _ => false,
        })
    };
    named.into_iter().any(|column| mentioned(&column.name))
}
