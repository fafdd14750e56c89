//! The workload that passed, as a file for `pgweir lint` and `pgweir advise`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::config::{Config, Examples};
use crate::error::{Error, Result};
use crate::proxy::meter::templates::Templates;

/// Where the workload is saved, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saving {
    path: PathBuf,
    every: Duration,
    /// Constants are taken out.
    pub masked: bool,
    /// The databases' names on their servers, by which other sources of statements know them.
    pub names: HashMap<String, String>,
}

impl Saving {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Option<Self> {
        let named = |(name, database): (&String, &crate::config::Database)| {
            let url = database.servers().next()?.1;
            Some((name.clone(), url.database.clone()?))
        };
        Some(Self {
            path: config.stats.workload.as_ref()?.into(),
            every: config.stats.workload_interval,
            masked: config.stats.examples == Examples::Masked,
            names: config.databases.iter().filter_map(named).collect(),
        })
    }

    /// Whether it is time to save what was saved then.
    pub fn is_due(&self, saved: Instant) -> bool {
        saved.elapsed() >= self.every
    }
}

impl Templates {
    /// Saves the workload where the configuration says; false when it says nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<bool> {
        let Some(saving) = self.saving() else { return Ok(false) };
        let _alone = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let workload = self.workload(&saving);
        let write = |file: File| {
            let mut writer = BufWriter::new(file);
            serde_json::to_writer(&mut writer, &workload)?;
            writer.flush()
        };
        // Whoever reads it finds the old one or the new one, whole.
        let aside = PathBuf::from([saving.path.as_os_str(), OsStr::new(".new")].join(OsStr::new("")));
        let saved = create(&aside).and_then(write).and_then(|()| std::fs::rename(&aside, &saving.path));
        saved.map(|()| true).map_err(|error| {
            Error::input(format!("the workload could not be saved: {error}"))
                .at(saving.path.display().to_string())
                .hint("stats.workload names a file in a folder that the proxy may write to")
        })
    }
}

/// A new file that nobody else may read.
fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
