//! `DateStyle`, the one setting that is set in parts: `SET datestyle TO dmy` leaves how dates look, and changes what
//! `01/02/2003` means (`check_datestyle` in PostgreSQL's `commands/variable.c`).

use super::settings::Value;

/// The setting's name.
pub const DATE_STYLE: &str = "datestyle";

/// The two parts, as far as a value says them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Parts {
    style: Option<&'static str>,
    order: Option<&'static str>,
}

impl Parts {
    /// The parts of a value; `None` when it is none, or begins from the default.
    fn of(value: &Value) -> Option<Self> {
        let (Value::Text(text) | Value::Sql(text)) = value;
        let mut parts = Self::default();
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            let word = word.to_ascii_lowercase();
            match word.as_str() {
                "iso" => parts.style = Some("ISO"),
                "sql" => parts.style = Some("SQL"),
                "german" => parts.style = Some("German"),
                _ if word.starts_with("postgres") => parts.style = Some("Postgres"),
                "ymd" => parts.order = Some("YMD"),
                "dmy" => parts.order = Some("DMY"),
                "mdy" | "us" => parts.order = Some("MDY"),
                _ if word.starts_with("euro") => parts.order = Some("DMY"),
                _ if word.starts_with("noneuro") => parts.order = Some("MDY"),
                _ => return None,
            }
        }
        if parts.style == Some("German") && parts.order.is_none() {
            parts.order = Some("DMY");
        }
        Some(parts)
    }
}

/// What the setting is when it is given `value` where it was `previous`, or the default.
pub fn after(previous: Option<&Value>, value: Value) -> Value {
    let (Some(before), Some(new)) = (previous.and_then(Parts::of), Parts::of(&value)) else { return value };
    match (new.style.or(before.style), new.order.or(before.order)) {
        (Some(style), Some(order)) => Value::Text(format!("{style}, {order}")),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_the_other() {
        let sql = |text: &str| Value::Sql(text.to_owned());
        let cases = [
            ("'SQL, DMY'", "iso", "ISO, DMY"),
            ("iso, mdy", "european", "ISO, DMY"),
            ("german", "us", "German, MDY"),
            ("postgres", "'YMD'", "Postgres, YMD"),
            ("sql, ymd", "german", "German, DMY"),
        ];
        for (before, value, expected) in cases {
            assert_eq!(after(Some(&sql(before)), sql(value)), Value::Text(expected.to_owned()), "{before} {value}");
        }
        for (before, value) in
            [(None, "dmy"), (Some("iso"), "'default, dmy'"), (Some("iso"), "sql"), (Some("x"), "dmy")]
        {
            assert_eq!(after(before.map(sql).as_ref(), sql(value)), sql(value));
        }
    }
}
