//! Interprets git's error messages. The program has no error codes, so its English text is matched, here and nowhere
//! else.

use std::io::ErrorKind;
use std::path::Path;

use gantry_domain::source::GitUrl;
use gantry_ops::terminal::one_line;

use super::GitError;
use super::command::MOST_MEMORY;
use super::ssh::{KEY_REFUSED, NO_PROGRAM, OTHER_HOST_KEY, UNUSABLE_KEY};

pub(super) struct Context<'a> {
    pub(super) what: &'a str,
    pub(super) url: Option<&'a GitUrl>,
    pub(super) folder: &'a Path,
    pub(super) had_credentials: bool,
}

/// Phrases by meaning, the more specific first, since one failure prints several of them.
const DISK_FULL: &[&str] = &[
    "No space left on device",
    "Disk quota exceeded",
    // A checkout that fails to write does not say why.
    "unable to write file",
    "unable to write new index file",
];
const MEMORY: &[&str] = &["Out of memory", "out of memory"];
const TOO_DEEP: &[&str] = &["exceeded maximum allowed tree depth"];
/// Followed by the path, up to the next quote. The second phrase: a folder replaced by a file of the same name.
const UNSAFE_PATH: [&str; 2] = ["invalid path '", "pathspec '"];
const UNAUTHORIZED: &[&str] = &[
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "returned error: 401",
    "returned error: 403",
];
const NOT_FOUND: &[&str] = &[
    "returned error: 404",
    "returned error: 410",
    "not found",
    "could not be found",
    "does not exist",
    "does not appear to be a git",
];
const MOVED: &[&str] = &[
    "returned error: 301",
    "returned error: 302",
    "returned error: 307",
    "returned error: 308",
    "unable to update url base from redirection",
];
const UNKNOWN_REF: &[&str] = &[
    "couldn't find remote ref",
    "not our ref",
    "unadvertised object",
    "does not support shallow",
    "no such remote ref",
    // The repository has another object format.
    "mismatched algorithms",
    "does not support algorithm",
    "does not support this repository's object format",
];
/// What git adds to any failure of ssh.
const OF_SSH: [&str; 3] = [
    "Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];
const HOST_FAILED: &[&str] = &["returned error: 5"];
const UNREACHABLE: &[&str] = &[
    "returned error: 408",
    "returned error: 429",
    "returned error: 502",
    "returned error: 503",
    "returned error: 504",
    "Could not resolve host",
    "Failed to connect",
    "Couldn't connect",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Connection closed by",
    "kex_exchange_identification",
    "Operation too slow",
    "early EOF",
    "hung up unexpectedly",
    "RPC failed",
    "Empty reply",
    "unexpected disconnect",
    "SSL_ERROR_SYSCALL",
    "GnuTLS recv error",
    "transfer closed",
];

pub(super) fn classify(errors: &str, context: &Context<'_>) -> GitError {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| errors.contains(phrase));
    let failed = || GitError::Failed { what: context.what.to_owned(), message: reason(errors) };
    // The host's messages about disk and memory are about the host itself.
    let says_here = |phrases: &[&str]| {
        let ours = |line: &&str| !line.starts_with("remote: ") && !line.contains("remote error: ");
        errors.lines().filter(ours).any(|line| phrases.iter().any(|phrase| line.contains(phrase)))
    };
    if says_here(DISK_FULL) {
        return GitError::DiskFull { folder: context.folder.to_owned() };
    }
    let too_large = |most| GitError::TooLarge { what: context.what.to_owned(), most };
    if says_here(MEMORY) {
        return too_large(format!("{} MiB of memory", MOST_MEMORY >> 20));
    }
    if says_here(TOO_DEEP) {
        return too_large("the deepest tree that git reads".to_owned());
    }
    if let Some((_, path)) = UNSAFE_PATH.iter().find_map(|phrase| errors.split_once(phrase)) {
        let path = path.split('\'').next().unwrap_or_default();
        return GitError::UnsafePath { path: short(path, 200) };
    }
    let Some(url) = context.url.cloned() else { return failed() };
    if url.is_ssh()
        && let Some(error) = of_ssh(&says, &url)
    {
        return error;
    }
    if says(UNAUTHORIZED) {
        return match context.had_credentials {
            true => GitError::Unauthorized { url },
            false => GitError::CredentialsWanted { url },
        };
    }
    if says(UNKNOWN_REF) {
        return GitError::UnknownRef { url, reference: unknown_ref(errors) };
    }
    if says(MOVED) {
        return GitError::Moved { url };
    }
    if says(UNREACHABLE) {
        return GitError::Unreachable { url, message: reason(errors) };
    }
    if says(HOST_FAILED) {
        return GitError::HostFailed { url, message: reason(errors) };
    }
    if says(NOT_FOUND) {
        return GitError::NotFound { url };
    }
    failed()
}

/// What ssh says, before git has spoken to the host.
fn of_ssh(says: &dyn Fn(&[&str]) -> bool, url: &GitUrl) -> Option<GitError> {
    let url = url.clone();
    if says(NO_PROGRAM) {
        return Some(GitError::NoProgram {
            program: "ssh".into(),
            source: ErrorKind::NotFound.into(),
        });
    }
    if says(OTHER_HOST_KEY) {
        return Some(GitError::OtherHostKey { url });
    }
    if says(UNUSABLE_KEY) {
        return Some(GitError::UnusableKey { url });
    }
    says(KEY_REFUSED).then_some(GitError::KeyRefused { url })
}

/// The last word of the line that names it; only shown.
fn unknown_ref(errors: &str) -> String {
    let line = errors.lines().find(|line| UNKNOWN_REF.iter().any(|phrase| line.contains(phrase)));
    short(line.and_then(|line| line.split_whitespace().last()).unwrap_or("the reference"), 200)
}

/// The line with the reason, without git's prefix, shortened and without control characters.
fn reason(errors: &str) -> String {
    let lines = errors.lines().map(str::trim).filter(|line| !line.is_empty());
    // After a failure of ssh, git only says that there was one.
    let mut lines = lines.filter(|line| !OF_SSH.iter().any(|phrase| line.contains(phrase)));
    let fatal = lines.clone().find(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    let line = fatal.or_else(|| lines.next_back()).unwrap_or("it said nothing");
    let line = line.trim_start_matches("fatal: ").trim_start_matches("error: ");
    short(line, 300)
}

/// One line of at most `most` characters without terminal control sequences, because hosts choose this text.
fn short(words: &str, most: usize) -> String {
    one_line(&words.chars().take(most).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_messages_are_classified() {
        const GIT: &str = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access \
                           rights\nand the repository exists.";
        let url: GitUrl = "git@host:r.git".parse().unwrap();
        for (errors, expected, is_transient) in [
            ("git@10.0.0.7: Permission denied (publickey).", "KeyRefused", false),
            ("git@10.0.0.7: Permission denied (publickey,password).", "KeyRefused", false),
            (
                "Load key \"/proc/7/fd/3\": invalid format\ngit@h: Permission denied (publickey).",
                "UnusableKey",
                false,
            ),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                "OtherHostKey",
                false,
            ),
            ("ssh: connect to host 10.0.0.7 port 22: Connection refused", "Unreachable", true),
            ("ssh: connect to host 10.0.0.7 port 22: No route to host", "Unreachable", true),
            ("Connection closed by 10.0.0.7 port 22", "Unreachable", true),
            ("kex_exchange_identification: read: Connection reset by peer", "Unreachable", true),
            ("ERROR: Repository not found.", "NotFound", false),
            (
                "remote: ERROR: The project you were looking for could not be found",
                "NotFound",
                false,
            ),
            ("fatal: '/x.git' does not appear to be a git repository", "NotFound", false),
            ("f: 1: ssh: not found", "NoProgram", true),
            ("No user exists for uid 1000", "Failed", true),
        ] {
            let context = Context {
                what: "it",
                url: Some(&url),
                folder: Path::new("/"),
                had_credentials: false,
            };
            let error = classify(&format!("{errors}\n{GIT}"), &context);
            let name = format!("{error:?}");
            assert_eq!(name.split([' ', '{']).next(), Some(expected), "{errors}");
            assert_eq!(error.is_transient(), is_transient, "{errors}");
            if let GitError::Failed { message, .. } | GitError::Unreachable { message, .. } = error
            {
                assert_eq!(message, errors);
            }
        }
    }

    #[test]
    fn git_messages_are_classified() {
        let url: GitUrl = "https://host/r.git".parse().unwrap();
        let class = |errors: &str, had_credentials| {
            let folder = Path::new("/data");
            let error = classify(
                errors,
                &Context { what: "the fetch", url: Some(&url), folder, had_credentials },
            );
            (
                format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
                error.is_transient(),
            )
        };
        for (errors, had_credentials, expected, transient) in [
            (
                "fatal: could not read Username for 'https://host': terminal prompts disabled",
                false,
                "CredentialsWanted",
                false,
            ),
            (
                "remote: Invalid\nfatal: Authentication failed for 'https://host/r.git/'",
                true,
                "Unauthorized",
                false,
            ),
            (
                "fatal: unable to access 'x': The requested URL returned error: 403",
                true,
                "Unauthorized",
                false,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://host/r.git/' not found",
                false,
                "NotFound",
                false,
            ),
            (
                "fatal: unable to access 'x': The requested URL returned error: 301",
                false,
                "Moved",
                false,
            ),
            (
                "fatal: unable to access 'x': The requested URL returned error: 503",
                false,
                "Unreachable",
                true,
            ),
            (
                "fatal: unable to access 'x': The requested URL returned error: 500",
                false,
                "HostFailed",
                true,
            ),
            (
                "fatal: unable to access 'x': Failed to connect to host port 443",
                false,
                "Unreachable",
                true,
            ),
            (
                "error: RPC failed; curl 18 transfer closed\nfatal: early EOF",
                false,
                "Unreachable",
                true,
            ),
            ("fatal: remote error: upload-pack: not our ref aaaa", false, "UnknownRef", false),
            ("fatal: couldn't find remote ref refs/heads/x", false, "UnknownRef", false),
            (
                "fatal: dumb http transport does not support shallow capabilities",
                false,
                "UnknownRef",
                false,
            ),
            ("fatal: write error: No space left on device", false, "DiskFull", true),
            ("remote: No space left on device\nfatal: early EOF", false, "Unreachable", true),
            ("fatal: remote error: Out of memory", false, "Failed", true),
            ("error: invalid path '.GIT/config'", false, "UnsafePath", false),
            (
                "fatal: Out of memory, malloc failed (tried to allocate 64 bytes)",
                false,
                "TooLarge",
                false,
            ),
            ("fatal: something new", false, "Failed", true),
            ("", false, "Failed", true),
        ] {
            assert_eq!(
                class(errors, had_credentials),
                (expected.to_owned(), transient),
                "{errors}"
            );
        }
    }
}
