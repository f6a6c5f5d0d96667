//! A real Prometheus that scrapes a test's processes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use gantry_tests::process::Process;
use gantry_tests::servers::free_port;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);

/// A Prometheus. Dropping it kills it and deletes its data.
pub(crate) struct Prometheus {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `targets` every second with gantry's rules, and waits until it has reached all
    /// of them.
    pub(crate) async fn start(targets: &[(&str, SocketAddr)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, settings(targets)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::spawn(command, &folder.path().join("log")).unwrap();
        let mut prometheus = Self { address, process, _folder: folder };
        let reached = prometheus.until("up", |found| {
            found.len() == targets.len() && found.iter().all(|one| value(one) == "1")
        });
        reached.await;
        prometheus
    }

    /// Repeats a query until the answer is right, and returns it.
    pub(crate) async fn until(
        &mut self,
        query: &str,
        is_right: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let found = self.query(query).await.unwrap_or_default();
            if is_right(&found) {
                return found;
            }
            self.process.lives().unwrap();
            let words = self.process.last_words();
            assert!(Instant::now() < deadline, "{query}: {found:#?}\n{words}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The names of its alerting rules.
    pub(crate) async fn alerts(&self) -> Vec<String> {
        let rules = self.ask("rules", &[]).await.unwrap();
        let groups = rules["data"]["groups"].as_array().unwrap().clone();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
        rules.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether an expression is valid.
    pub(crate) async fn understands(&self, expression: &str) -> bool {
        let answer = self.ask("query", &[("query", expression)]).await;
        answer.is_some_and(|answer| answer["status"] == "success")
    }

    async fn query(&self, query: &str) -> Option<Vec<Value>> {
        let answer = self.ask("query", &[("query", query)]).await?;
        Some(answer["data"]["result"].as_array()?.clone())
    }

    /// `None` while it does not answer yet.
    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let mut url: reqwest::Url =
            format!("http://{}/api/v1/{what}", self.address).parse().unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        reqwest::get(url).await.ok()?.json().await.ok()
    }
}

/// The value of a sample.
pub(crate) fn value(sample: &Value) -> &str {
    sample["value"][1].as_str().unwrap_or_default()
}

fn settings(targets: &[(&str, SocketAddr)]) -> String {
    let rules = repository().join("deploy/prometheus/alerts.yml");
    let mut settings = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n",
        rules.display().to_string()
    );
    for (job, address) in targets {
        settings.push_str(&format!(
            "  - {{job_name: {job}, static_configs: [{{targets: [\"{address}\"]}}]}}\n"
        ));
    }
    settings
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
