//! How git reads a repository over ssh.
//!
//! In: an address of the host that the guard has permitted, a deploy key, the pinned host keys. The key is in an
//! anonymous file in memory that only git's child processes inherit, so it is in no argument, in no environment and on
//! no disk (`docs/decisions/42`).

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use gantry_domain::ssh::HostKey;
use gantry_ops::secret::ExposeSecret as _;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::command::{CREDENTIALS_FD, Command, HOST_KEYS_FD, LONGEST_CREDENTIALS};
use super::{GitError, Remote};

/// The name under which the pinned keys are listed. The host's own name could mean another list.
const ALIAS: &str = "gantry-source";

/// The environment variable with the address to connect to.
const ADDRESS: &str = "GANTRY_SSH_ADDRESS";

/// Constant, so that no user input becomes a word of a shell. Git appends the port, `user@host` and the command.
///
/// ssh closes inherited files, but opens those of the shell, which waits for it: `return` keeps the shell from replacing
/// itself by ssh. ssh uses no file of the user or of the system, asks nobody, and runs nothing.
const PROGRAM: &str = "f() { ssh -F /dev/null -a -x -T \
    -o IdentityFile=/proc/$$/fd/3 -o IdentitiesOnly=yes -o IdentityAgent=none \
    -o UserKnownHostsFile=/proc/$$/fd/5 -o GlobalKnownHostsFile=/dev/null \
    -o HostKeyAlias=gantry-source -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o VerifyHostKeyDNS=no \
    -o CheckHostIP=no -o CanonicalizeHostname=no -o HostName=\"$GANTRY_SSH_ADDRESS\" -o ProxyCommand=none \
    -o BatchMode=yes -o PreferredAuthentications=publickey -o ForwardAgent=no -o ClearAllForwardings=yes \
    -o ControlMaster=no -o ControlPath=none -o PermitLocalCommand=no -o ConnectionAttempts=1 -o ConnectTimeout=20 \
    -o ServerAliveInterval=15 -o ServerAliveCountMax=2 -o LogLevel=ERROR \"$@\"; return $?; }; f";

impl Command<'_> {
    /// Reads `remote` over ssh, at the first of `addresses`.
    ///
    /// # Errors
    /// [`GitError::KeyWanted`], [`GitError::UnusableKey`].
    pub(super) fn over_ssh(
        &mut self,
        remote: Remote<'_>,
        addresses: &[SocketAddr],
    ) -> Result<(), GitError> {
        let url = || remote.url.clone();
        let (Some(credentials), Some(address)) = (remote.credentials, addresses.first()) else {
            return Err(GitError::KeyWanted { url: url() });
        };
        if remote.host_keys.is_empty() {
            return Err(GitError::KeyWanted { url: url() });
        }
        let key = credentials.password.expose_secret();
        if key.len() > LONGEST_CREDENTIALS {
            return Err(GitError::UnusableKey { url: url() });
        }
        let listed = |key: &HostKey| format!("{ALIAS} {key}\n");
        let host_keys: String = remote.host_keys.iter().map(listed).collect();
        let key = in_memory("gantry-deploy-key", key).map_err(|error| self.failed(&error))?;
        let host_keys =
            in_memory("gantry-host-keys", &host_keys).map_err(|error| self.failed(&error))?;
        self.give(key, CREDENTIALS_FD);
        self.give(host_keys, HOST_KEYS_FD);
        self.env("GIT_SSH_COMMAND", PROGRAM);
        self.env("GIT_SSH_VARIANT", "ssh");
        self.env(ADDRESS, address.ip().to_string());
        Ok(())
    }
}

/// A file without a name that cannot be changed. ssh uses a key only if nobody else may read it.
fn in_memory(name: &str, text: &str) -> std::io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// What ssh says of a host whose key is not pinned.
pub(super) const OTHER_HOST_KEY: &[&str] =
    &["Host key verification failed", "host key is known for"];
/// ssh says first that it cannot read a key, and then what the host says without one.
pub(super) const UNUSABLE_KEY: &[&str] = &["Load key "];
pub(super) const KEY_REFUSED: &[&str] =
    &["Permission denied (publickey", "Too many authentication failures"];
pub(super) const NO_PROGRAM: &[&str] = &["ssh: not found", "ssh: command not found"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_names_what_is_given_to_it() {
        for part in [
            format!("/fd/{CREDENTIALS_FD} "),
            format!("/fd/{HOST_KEYS_FD} "),
            format!("HostKeyAlias={ALIAS} "),
            format!("\"${ADDRESS}\""),
        ] {
            assert!(PROGRAM.contains(&part), "{part}");
        }
    }
}
