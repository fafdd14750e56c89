//! COPY's options.

use sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget};

use super::resolve::folded;
use super::{CopyFacts, CopyFormat};

/// What the options say, with PostgreSQL's defaults for what they don't.
pub(super) fn copy_facts(
    source: &CopySource,
    target: &CopyTarget,
    options: &[CopyOption],
    legacy: &[CopyLegacyOption],
) -> CopyFacts {
    let columns = match source {
        CopySource::Table { columns, .. } if !columns.is_empty() => Some(columns.iter().map(folded).collect()),
        _ => None,
    };
    let mut said = Said::default();
    options.iter().for_each(|option| said.note(option));
    legacy.iter().for_each(|option| said.note_legacy(option));
    let is_csv = said.format.as_deref() == Some("csv");
    let quote = said.quote.unwrap_or(b'"');
    let format = match said.format.as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv { quote, escape: said.escape.unwrap_or(quote) },
        Some("binary") => CopyFormat::Binary,
        Some(_) => {
            said.other = true;
            CopyFormat::Text
        }
    };
    CopyFacts {
        columns,
        by_client: matches!(target, CopyTarget::Stdin | CopyTarget::Stdout),
        format,
        delimiter: said.delimiter.unwrap_or(if is_csv { b',' } else { b'\t' }),
        null: said.null.unwrap_or_else(|| if is_csv { String::new() } else { "\\N".to_owned() }),
        header: said.header,
        other: said.other,
    }
}

#[derive(Default)]
struct Said {
    format: Option<String>,
    delimiter: Option<u8>,
    null: Option<String>,
    header: bool,
    quote: Option<u8>,
    escape: Option<u8>,
    other: bool,
}

impl Said {
    fn byte(&mut self, character: char) -> Option<u8> {
        let byte = u8::try_from(character).ok().filter(u8::is_ascii);
        self.other |= byte.is_none();
        byte
    }

    fn note(&mut self, option: &CopyOption) {
        match option {
            CopyOption::Format(name) => self.format = Some(folded(name).to_ascii_lowercase()),
            CopyOption::Delimiter(character) => self.delimiter = self.byte(*character),
            CopyOption::Null(text) => self.null = Some(text.clone()),
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Quote(character) => self.quote = self.byte(*character),
            CopyOption::Escape(character) => self.escape = self.byte(*character),
            CopyOption::Freeze(false) => {}
            CopyOption::Encoding(name) => {
                self.other |= !matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8");
            }
            CopyOption::Freeze(true)
            | CopyOption::ForceQuote(_)
            | CopyOption::ForceNotNull(_)
            | CopyOption::ForceNull(_) => self.other = true,
        }
    }

    fn note_legacy(&mut self, option: &CopyLegacyOption) {
        match option {
            CopyLegacyOption::Binary => self.format = Some("binary".to_owned()),
            CopyLegacyOption::Delimiter(character) => self.delimiter = self.byte(*character),
            CopyLegacyOption::Null(text) => self.null = Some(text.clone()),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                self.format = Some("csv".to_owned());
                for option in options {
                    match option {
                        CopyLegacyCsvOption::Header => self.header = true,
                        CopyLegacyCsvOption::Quote(character) => self.quote = self.byte(*character),
                        CopyLegacyCsvOption::Escape(character) => self.escape = self.byte(*character),
                        CopyLegacyCsvOption::ForceQuote(_) | CopyLegacyCsvOption::ForceNotNull(_) => self.other = true,
                    }
                }
            }
            _ => self.other = true,
        }
    }
}
