//! The dialect that statements are read in: PostgreSQL's, with the parser's gaps filled where its hooks allow.
//!
//! The parser crate asks some questions through this trait and others by the dialect's type, so [`PgDialect`] says
//! that it *is* `PostgreSqlDialect` and passes every question on to it.

use std::any::TypeId;

use sqlparser::ast::{Expr, Statement, UnaryOperator};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// How tight operators bind that have no level of their own (`Op` in PostgreSQL's `gram.y`), on the parser's scale, where
/// `||` and `->` stand too.
const OTHER_OPERATOR: u8 = 70;

/// How tight a sign binds (`UMINUS` in `gram.y`): above COLLATE, AT TIME ZONE and `^`, which the parser has at 120 and less.
const SIGN: u8 = 125;

/// PostgreSQL's dialect as this room reads it.
#[derive(Debug)]
pub(super) struct PgDialect;

/// Questions of yes or no that are passed on.
macro_rules! passed_on {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { POSTGRES.$name() })* };
}

impl Dialect for PgDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn is_table_alias(&self, keyword: &Keyword, parser: &mut Parser) -> bool {
        POSTGRES.is_table_alias(keyword, parser)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    /// `~`, `~~` and their kin bind like any other operator, tighter than LIKE: `a ~ b || c` is `(a ~ b) || c`.
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            Token::Word(word) if word.keyword == Keyword::OPERATOR => Some(Ok(OTHER_OPERATOR)),
            Token::Spaceship
            | Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk => Some(Ok(OTHER_OPERATOR)),
            _ => POSTGRES.get_next_precedence(parser),
        }
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    /// A sign binds tighter than everything but a cast and a subscript: `- 2 ^ 2` is `(- 2) ^ 2`. Any other prefix
    /// operator binds like an infix one: `@ a + b` is `@ (a + b)`.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let (op, binding) = match parser.peek_token_ref().token {
            Token::Minus => (UnaryOperator::Minus, SIGN),
            Token::Plus => (UnaryOperator::Plus, SIGN),
            Token::Tilde => (UnaryOperator::BitwiseNot, OTHER_OPERATOR),
            Token::AtSign => (UnaryOperator::PGAbs, OTHER_OPERATOR),
            Token::PGSquareRoot => (UnaryOperator::PGSquareRoot, OTHER_OPERATOR),
            Token::PGCubeRoot => (UnaryOperator::PGCubeRoot, OTHER_OPERATOR),
            Token::Sharp => (UnaryOperator::Hash, OTHER_OPERATOR),
            Token::AtDashAt => (UnaryOperator::AtDashAt, OTHER_OPERATOR),
            Token::AtAt => (UnaryOperator::DoubleAt, OTHER_OPERATOR),
            Token::QuestionMarkDash => (UnaryOperator::QuestionDash, OTHER_OPERATOR),
            Token::QuestionPipe => (UnaryOperator::QuestionPipe, OTHER_OPERATOR),
            _ => return POSTGRES.parse_prefix(parser),
        };
        parser.next_token();
        Some(parser.parse_subexpr(binding).map(|expr| Expr::UnaryOp { op, expr: Box::new(expr) }))
    }

    fn parse_statement(&self, parser: &mut Parser) -> Option<Result<Statement, ParserError>> {
        POSTGRES.parse_statement(parser)
    }

    /// `'a'` newline `'b'` is one constant (SQL's continuation); without this the second reads as an alias.
    fn supports_string_literal_concatenation_with_newline(&self) -> bool {
        true
    }

    passed_on! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr
        supports_alter_user_as_alter_role allow_extract_custom allow_extract_single_quotes
        supports_create_index_with_clause supports_explain_with_utility_options supports_listen_notify
        supports_exclude_constraint supports_factorial_operator supports_bitwise_shift_operators
        supports_comment_on supports_load_extension supports_named_fn_args_with_colon_operator
        supports_named_fn_args_with_expr_name supports_empty_projections supports_nested_comments
        supports_string_escape_constant supports_numeric_literal_underscores supports_array_typedef_with_brackets
        supports_geometric_types supports_order_by_using_operator supports_set_names
        supports_alter_column_type_using supports_left_associative_joins_without_parens supports_notnull_operator
        supports_interval_options supports_insert_table_alias supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias supports_comma_separated_trim supports_xml_expressions
        supports_aliased_function_args supports_comment_optimizer_hint
    }
}
