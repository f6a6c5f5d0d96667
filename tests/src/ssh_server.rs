//! A git host over ssh on loopback: an `sshd` of the test's own, with its own host key, that runs `git-shell` only.
//!
//! In: the folder of a [`GitServer`](crate::git_server::GitServer). Out: addresses, deploy keys and host keys.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// How long `sshd` may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// An `sshd`. Dropping it ends it and deletes its keys.
#[derive(Debug)]
pub struct SshServer {
    daemon: Child,
    folder: TempDir,
    repositories: PathBuf,
    user: String,
    port: u16,
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ended = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}

impl SshServer {
    /// Starts a server on a free port of 127.0.0.1 that serves the repositories in a folder to its own deploy key.
    ///
    /// # Errors
    /// The system's error, or what `sshd` says.
    pub fn start(repositories: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "deploy", "stranger"] {
            make_key(&at(name), "")?;
        }
        make_key(&at("locked"), "a passphrase")?;
        let public = fs::read_to_string(at("deploy.pub"))?;
        // As code hosts do: whatever is asked for, git-shell decides.
        let command = "git-shell -c \\\"$SSH_ORIGINAL_COMMAND\\\"";
        fs::write(at("authorized"), format!("restrict,command=\"{command}\" {public}"))?;
        // A server that root starts wants it.
        let _exists = fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = [
            ("ListenAddress", format!("127.0.0.1:{port}")),
            ("HostKey", at("host").display().to_string()),
            ("AuthorizedKeysFile", at("authorized").display().to_string()),
            ("PidFile", "none".to_owned()),
            // The temporary folder belongs to everybody.
            ("StrictModes", "no".to_owned()),
            ("UsePAM", "no".to_owned()),
            ("AuthenticationMethods", "publickey".to_owned()),
            ("AcceptEnv", "GIT_PROTOCOL".to_owned()),
        ];
        let settings: String =
            settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        fs::write(at("sshd_config"), settings)?;
        let log = fs::File::create(at("log"))?;
        let daemon = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("openssh-server must be installed")?;
        let user = Command::new("id").arg("-un").output()?;
        let user = String::from_utf8(user.stdout)?.trim().to_owned();
        let repositories = repositories.to_owned();
        let mut server = Self { daemon, folder, repositories, user, port };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.path().join("log"))?;
            if log.contains("Server listening") {
                return Ok(());
            }
            ensure!(self.daemon.try_wait()?.is_none() && Instant::now() < until, "sshd: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `ssh://USER@127.0.0.1:PORT/…/NAME.git`
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let repository = self.repositories.join(format!("{name}.git"));
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, repository.display())
    }

    /// The line of `known_hosts` with its key.
    ///
    /// # Errors
    /// The system's error.
    pub fn host_key(&self) -> Result<String> {
        self.public("host")
    }

    /// A host key that it does not have.
    ///
    /// # Errors
    /// The system's error.
    pub fn another_host_key(&self) -> Result<String> {
        self.public("stranger")
    }

    /// The private key that it lets read its repositories.
    ///
    /// # Errors
    /// The system's error.
    pub fn deploy_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("deploy"))?)
    }

    /// A private key that it does not know.
    ///
    /// # Errors
    /// The system's error.
    pub fn unknown_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("stranger"))?)
    }

    /// A private key with a passphrase.
    ///
    /// # Errors
    /// The system's error.
    pub fn locked_key(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("locked"))?)
    }

    /// Stops all its processes, so that it accepts connections and says nothing, until the result is dropped.
    #[must_use]
    pub fn silence(&self) -> Silence {
        let id = self.daemon.id().to_string();
        signal("STOP", &id);
        Silence(id)
    }

    fn public(&self, name: &str) -> Result<String> {
        let line = fs::read_to_string(self.folder.path().join(format!("{name}.pub")))?;
        Ok(format!("127.0.0.1 {}", line.trim()))
    }
}

/// A server that says nothing meanwhile.
#[derive(Debug)]
pub struct Silence(String);

impl Drop for Silence {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, id: &str) {
    let _gone = Command::new("kill").args(["-s", name, id]).status();
}

fn make_key(path: &Path, passphrase: &str) -> Result<()> {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", "test", "-N", passphrase, "-f"])
        .arg(path)
        .output()
        .context("openssh-client must be installed")?;
    ensure!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}
