//! Which place a statement's template has: looked up by one worker, asked of all only when it is new.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::proxy::meter::Meter;
use crate::proxy::meter::templates::Place;
use crate::sql::lexer::LexOptions;
use crate::sql::template::{Scan, TemplateKey};

/// Most templates and prepared statements remembered before all are looked up anew.
const MAX_KNOWN: usize = 50_000;

/// The keys are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type ByHash = HashMap<u64, Place, BuildHasherDefault<AsItIs>>;

/// What one worker knows of the templates' places.
#[derive(Debug, Default)]
pub struct Seen {
    meter: Option<Arc<Meter>>,
    /// Of the database's number; keeps databases apart in the maps.
    salt: u64,
    templates: ByHash,
    statements: ByHash,
    /// The place of the statement that was looked at last.
    pub last: Place,
}

impl Seen {
    /// Turns to the database with these numbers.
    #[inline]
    pub fn follow(&mut self, meter: &Arc<Meter>) {
        if self.meter.as_ref().is_none_or(|other| other.id != meter.id) {
            self.salt = meter.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.meter = Some(meter.clone());
        }
    }

    /// The numbers of the database that it was turned to last.
    pub fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.as_ref()
    }

    /// Finds the place of a statement's template.
    #[inline]
    pub fn note(&mut self, scan: &Scan<'_>, sql: &[u8], options: LexOptions) {
        self.last = Place::default();
        let Some(meter) = &self.meter else { return };
        let Some(templates) = &meter.templates else { return };
        let key = scan.key.low_bits() ^ self.salt;
        match self.templates.get(&key) {
            Some(&place) if templates.holds(place) => self.last = place,
            // What is not closed might show in the template what is a constant.
            _ if !scan.complete => {}
            _ => {
                if self.templates.len() >= MAX_KNOWN {
                    self.templates.clear();
                }
                self.last = templates.place(&meter.database, scan.fingerprint, sql, options);
                self.templates.insert(key, self.last);
            }
        }
    }

    /// The place of a template that was looked at before.
    #[inline]
    pub fn known(&self, key: TemplateKey) -> Option<Place> {
        let templates = self.meter.as_ref()?.templates.as_ref()?;
        self.templates.get(&(key.low_bits() ^ self.salt)).copied().filter(|place| templates.holds(*place))
    }

    /// The place of a prepared statement's template; `None` when its text has to be looked at.
    #[inline]
    pub fn prepared(&self, key: u128) -> Option<Place> {
        let templates = self.meter.as_ref()?.templates.as_ref()?;
        self.statements.get(&(key as u64 ^ self.salt)).copied().filter(|place| templates.holds(*place))
    }

    /// Notes the place of the statement that was looked at last for all that execute it.
    pub fn remember(&mut self, key: u128) {
        if self.meter.as_ref().is_some_and(|meter| meter.templates.is_some()) {
            if self.statements.len() >= MAX_KNOWN {
                self.statements.clear();
            }
            self.statements.insert(key as u64 ^ self.salt, self.last);
        }
    }
}
