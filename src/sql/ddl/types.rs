//! Type names as `format_type` prints them, so that a schema file and a live database speak of one type alike.

use sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, GeometricTypeKind, TimezoneInfo};

use crate::sql::facts::folded;

/// A column's type.
pub(super) struct TypeName {
    /// As `format_type` prints it.
    pub(super) name: String,
    /// `serial` and its kin: NOT NULL with a sequence as the default.
    pub(super) serial: bool,
}

/// The type of a column definition.
pub(super) fn type_name(data_type: &DataType) -> TypeName {
    if let DataType::Custom(name, modifiers) = data_type {
        let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect();
        let is_quoted = name.0.last().and_then(|part| part.as_ident()).is_some_and(|ident| ident.quote_style.is_some());
        let (schema, last) = match parts.as_slice() {
            [.., schema, last] => (Some(schema.as_str()), last.as_str()),
            [last] => (None, last.as_str()),
            [] => (None, ""),
        };
        let serial = match last {
            "serial" | "serial4" => Some("integer"),
            "bigserial" | "serial8" => Some("bigint"),
            "smallserial" | "serial2" => Some("smallint"),
            _ => None,
        };
        if let (Some(name), None) = (serial, schema) {
            return TypeName { name: name.to_owned(), serial: true };
        }
        return TypeName { name: custom(schema, last, is_quoted, modifiers), serial: false };
    }
    TypeName { name: known(data_type), serial: false }
}

/// A type that the parser has no word for.
fn custom(schema: Option<&str>, name: &str, is_quoted: bool, modifiers: &[String]) -> String {
    let modifiers = if modifiers.is_empty() { String::new() } else { format!("({})", modifiers.join(",")) };
    let is_builtin = matches!(schema, None | Some("pg_catalog"));
    let name = match name {
        "bool" if is_builtin => "boolean",
        "int2" if is_builtin => "smallint",
        "int4" if is_builtin => "integer",
        "int8" if is_builtin => "bigint",
        "float4" if is_builtin => "real",
        "float8" if is_builtin => "double precision",
        "varchar" if is_builtin => "character varying",
        "bpchar" if is_builtin => "character",
        "varbit" if is_builtin => "bit varying",
        "decimal" if is_builtin => "numeric",
        "timestamptz" if is_builtin => return format!("timestamp{modifiers} with time zone"),
        "timetz" if is_builtin => return format!("time{modifiers} with time zone"),
        "char" if is_builtin && is_quoted => "\"char\"",
        other => other,
    };
    match schema {
        Some(schema) if !is_builtin && schema != "public" => format!("{schema}.{name}{modifiers}"),
        _ => format!("{name}{modifiers}"),
    }
}

fn known(data_type: &DataType) -> String {
    let plain = |name: &str| name.to_owned();
    match data_type {
        DataType::SmallInt(_) | DataType::Int2(_) => plain("smallint"),
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => plain("integer"),
        DataType::BigInt(_) | DataType::Int8(_) => plain("bigint"),
        DataType::Real | DataType::Float4 => plain("real"),
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => plain("double precision"),
        DataType::Float(ExactNumberInfo::Precision(precision)) if *precision <= 24 => plain("real"),
        DataType::Float(_) => plain("double precision"),
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => format!("numeric{}", number(*info)),
        DataType::Boolean | DataType::Bool => plain("boolean"),
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            format!("character varying{}", characters(*length, false))
        }
        DataType::Char(length) | DataType::Character(length) => format!("character{}", characters(*length, true)),
        DataType::Timestamp(precision, zone) => time("timestamp", *precision, *zone),
        DataType::Time(precision, zone) => time("time", *precision, *zone),
        DataType::Bit(length) => format!("bit({})", length.unwrap_or(1)),
        DataType::BitVarying(length) | DataType::VarBit(length) => {
            format!("bit varying{}", length.map(|length| format!("({length})")).unwrap_or_default())
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::Qualified(inner, _)) => {
            let inner = type_name(inner).name;
            if inner.ends_with("[]") { inner } else { format!("{inner}[]") }
        }
        DataType::GeometricType(kind) => plain(match kind {
            GeometricTypeKind::Point => "point",
            GeometricTypeKind::Line => "line",
            GeometricTypeKind::LineSegment => "lseg",
            GeometricTypeKind::GeometricBox => "box",
            GeometricTypeKind::GeometricPath => "path",
            GeometricTypeKind::Polygon => "polygon",
            GeometricTypeKind::Circle => "circle",
        }),
        // Text, date, uuid, jsonb, bytea, interval, ...: PostgreSQL's name is the parser's in lower case.
        other => other.to_string().to_lowercase(),
    }
}

fn number(info: ExactNumberInfo) -> String {
    match info {
        ExactNumberInfo::None => String::new(),
        ExactNumberInfo::Precision(precision) => format!("({precision},0)"),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => format!("({precision},{scale})"),
    }
}

fn characters(length: Option<CharacterLength>, is_fixed: bool) -> String {
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => format!("({length})"),
        None if is_fixed => "(1)".to_owned(),
        Some(CharacterLength::Max) | None => String::new(),
    }
}

fn time(name: &str, precision: Option<u64>, zone: TimezoneInfo) -> String {
    let precision = precision.map(|precision| format!("({precision})")).unwrap_or_default();
    let zone = match zone {
        TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => "with",
        TimezoneInfo::WithoutTimeZone | TimezoneInfo::None => "without",
    };
    format!("{name}{precision} {zone} time zone")
}
