//! The only door from SQL text to anything else.
//!
//! ```text
//! bytes -> lexer -> template (fingerprint + bindings)            every statement, no allocation
//!                -> parse -> facts (tables, predicates, sorts)   once per template
//! DDL   -> parse -> catalog                                      once per schema file
//! ```
//!
//! No other room names the parser crate; what others need of the tree they take from [`facts`], or
//! from [`ast`], the tree as this room hands it out.

pub mod catalog;
pub mod ddl;
mod dialect;
pub mod explain;
pub mod facts;
pub mod ident;
pub mod lexer;
pub mod parse;
pub mod template;

pub use facts::{Facts, facts};
pub use lexer::{LexOptions, split_statements};
pub use parse::{Parsed, Unparsed, parse};
pub use sqlparser::ast;
pub use template::{Binding, BindingKind, Fingerprint, Scan, Scanner, TemplateKey, template_text};
