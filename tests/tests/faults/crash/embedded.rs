//! `gantry up` with scripted parts: each crash ends the whole process, and the next process ends its leases.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use gantry_objects::ObjectBlobs;
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::crash::{self, CrashPoint};
use gantry_tests::installation::{Installation, Program};
use gantry_tests::role;
use tempfile::TempDir;

use super::site::{CRASHES_WITHIN, Processes, Site};
use super::{Crashes, Old};

pub(super) struct Embedded {
    repositories: Vec<String>,
    installation: Installation,
    old: Option<Old>,
    folder: TempDir,
}

impl Embedded {
    pub(super) async fn start(repositories: &[String], crashes: Crashes) -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let mut embedded = Self {
            repositories: repositories.to_vec(),
            installation: Installation::new(folder.path().join("log")),
            old: None,
            folder,
        };
        embedded.spawn(crashes.first().map(|(_, point)| *point))?;
        embedded.installation.until_up().await?;
        let data = embedded.data();
        Ok(Site::new(
            Arc::new(SqliteStore::open(data.join("gantry.db"), Options::default())?),
            ObjectBlobs::local(data.join("objects"))?,
            embedded.installation.client(),
            data.join("registry"),
            Processes::Embedded(Box::new(embedded)),
        ))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spawn(&mut self, crashes_at: Option<CrashPoint>) -> Result<()> {
        let first = [self.data().display().to_string(), "1".to_owned(), "end".to_owned()];
        let old = self.old.iter().flat_map(|old| ["--forget", old.as_str()].map(str::to_owned));
        let point = crashes_at.map(|point| (crash::VARIABLE.to_owned(), point.as_str().to_owned()));
        self.installation.spawn(&Program {
            path: role::program("gantry-scripted"),
            arguments: first.into_iter().chain(old).chain(self.repositories.clone()).collect(),
            environment: point.into_iter().collect(),
        })
    }

    pub(super) async fn crashes(&mut self, crashes: Crashes) -> Result<()> {
        for (number, (_, point)) in crashes.iter().enumerate() {
            self.installation.crashes_at(*point, CRASHES_WITHIN).await?;
            self.spawn(crashes.get(number + 1).map(|(_, next)| *next))?;
        }
        self.installation.until_up().await
    }

    pub(super) async fn forget(&mut self, old: Old, crashes: Crashes) -> Result<()> {
        self.old = Some(old);
        self.restart(crashes).await
    }

    pub(super) async fn restart(&mut self, crashes: Crashes) -> Result<()> {
        self.installation.kill().await?;
        self.spawn(crashes.first().map(|(_, point)| *point))
    }
}
