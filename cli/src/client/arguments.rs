//! Arguments that several commands share, and reading of secrets that should not be arguments.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::output::say;
use crate::environment::Environment;
use crate::exit::UsageError;

/// Longer secrets are refused.
const LONGEST_SECRET: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArg {
    /// The registry's name in gantry; may be left out when there is one registry
    #[arg(short, long, value_name = "NAME", env = "GANTRY_REGISTRY")]
    pub(crate) registry: Option<String>,
}

/// Build arguments, plain and secret, for builds, tasks and runs of tasks.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// A build argument; without `=VALUE` the environment's. May be given several times
    #[arg(long = "build-arg", visible_alias = "arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// The same, sealed and masked in logs: from the environment, or `NAME=@FILE`, to keep it from the process list
    #[arg(long = "secret-build-arg", visible_alias = "secret-arg", value_name = "NAME[=VALUE]")]
    secret_build_args: Vec<String>,
}

impl BuildArgs {
    /// The plain arguments.
    pub(crate) fn plain(&self, environment: &Environment) -> Result<BTreeMap<String, String>> {
        read_pairs("--build-arg", &self.build_args, environment)
    }

    /// The secret arguments.
    pub(crate) fn secret(&self, environment: &Environment) -> Result<BTreeMap<String, String>> {
        read_secret_pairs("--secret-build-arg", &self.secret_build_args, environment)
    }
}

/// Reads secrets that were given as `NAME=@FILE`, as `NAME` in the environment, or, with a warning, as `NAME=VALUE`.
pub(super) fn read_secret_pairs(
    option: &str,
    given: &[String],
    environment: &Environment,
) -> Result<BTreeMap<String, String>> {
    let (files, others): (Vec<&String>, Vec<&String>) =
        given.iter().partition(|pair| pair.contains("=@"));
    for (name, _) in others.iter().filter_map(|pair| pair.split_once('=')) {
        say(format!(
            "warning: others on this machine can see the value of {name} in the process list: \
             give `{option} {name}` and set {name} in the environment, or `{option} {name}=@FILE`"
        ));
    }
    let mut pairs = read_pairs(option, others, environment)?;
    for (name, file) in files.iter().filter_map(|pair| pair.split_once("=@")) {
        pairs.insert(name.to_owned(), read_secret_file(Path::new(file))?);
    }
    Ok(pairs)
}

/// Reads a secret from a file, byte for byte; `-` is standard input.
pub(crate) fn read_secret_file(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return read_secret("the secret");
    }
    let cannot_read = || format!("cannot read the secret in {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(cannot_read)?;
    file.take(LONGEST_SECRET + 1).read_to_string(&mut text).with_context(cannot_read)?;
    if text.len() as u64 > LONGEST_SECRET {
        let message = format!("{} is longer than {LONGEST_SECRET} bytes", path.display());
        return Err(UsageError(message).into());
    }
    Ok(text)
}

pub(super) fn read_pairs<'a>(
    option: &str,
    given: impl IntoIterator<Item = &'a String>,
    environment: &Environment,
) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some(pair) => pair,
            None => match environment.get(text) {
                Some(value) => (text.as_str(), value),
                None => {
                    return Err(UsageError(format!(
                        "{option} {text}: {text} is not set in the environment: set it, or give {text}=VALUE"
                    ))
                    .into());
                }
            },
        };
        pairs.insert(name.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// The token for a git repository.
#[derive(Debug, clap::Args)]
pub(crate) struct GitTokenArg {
    /// The token that reads the repository; `-` reads it from standard input, GANTRY_GIT_TOKEN sets it unseen
    #[arg(long = "git-access-token", value_name = "TOKEN")]
    token: Option<String>,
    /// The private key that reads the repository over ssh, without a passphrase; `-` reads it from standard input
    #[arg(long = "git-ssh-key", value_name = "FILE", conflicts_with = "token")]
    ssh_key: Option<String>,
    /// A key that the repository's host must have, as `ssh-keyscan` prints it; `@FILE` reads all lines of a file. May be
    /// given several times
    #[arg(long = "git-host-key", value_name = "KEY|@FILE")]
    host_keys: Vec<String>,
}

impl GitTokenArg {
    /// The keys that the host of the repository may have.
    pub(crate) fn host_keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for given in &self.host_keys {
            let Some(file) = given.strip_prefix('@') else {
                keys.push(given.clone());
                continue;
            };
            let text = read_secret_file(Path::new(file))?;
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            keys.extend(lines.map(str::to_owned));
        }
        Ok(keys)
    }

    /// The token, or the private key.
    pub(crate) fn read(&self, environment: &Environment) -> Result<Option<String>> {
        if let Some(file) = &self.ssh_key {
            let file = file.strip_prefix('@').unwrap_or(file);
            return read_secret_file(Path::new(file)).map(Some);
        }
        read_token(self.token.as_deref(), "the git token", "GANTRY_GIT_TOKEN", environment)
    }
}

/// The token for the API of a code host.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiTokenArg {
    /// The token with which gantry reports to the code host, if the one that reads the repository may not; `-` reads it
    /// from standard input, GANTRY_CODE_HOST_TOKEN sets it unseen
    #[arg(long = "api-token", value_name = "TOKEN")]
    api_token: Option<String>,
}

impl ApiTokenArg {
    pub(crate) fn read(&self, environment: &Environment) -> Result<Option<String>> {
        read_token(
            self.api_token.as_deref(),
            "the API token",
            "GANTRY_CODE_HOST_TOKEN",
            environment,
        )
    }
}

/// The address of a receiver, which is a secret.
#[derive(Debug, clap::Args)]
pub(crate) struct AddressArg {
    /// The address: `-` reads it from standard input, `@FILE` from a file, a name from this variable of the environment
    #[arg(long = "url", value_name = "-|@FILE|VARIABLE")]
    url: Option<String>,
}

impl AddressArg {
    pub(crate) fn read(&self, environment: &Environment) -> Result<Option<String>> {
        let Some(given) = self.url.as_deref() else { return Ok(None) };
        if given == "-" {
            return read_secret("the address").map(Some);
        }
        if let Some(file) = given.strip_prefix('@') {
            return read_secret_file(Path::new(file)).map(|text| Some(text.trim().to_owned()));
        }
        if given.contains("://") {
            say(
                "warning: others on this machine can see the address in the process list: give `--url -`, `--url @FILE`, or \
                 the name of a variable of the environment",
            );
            return Ok(Some(given.to_owned()));
        }
        match environment.get(given) {
            Some(value) => Ok(Some(value.to_owned())),
            None => Err(UsageError(format!(
                "--url {given}: {given} is not set in the environment: set it, or give `-` or `@FILE`"
            ))
            .into()),
        }
    }

    pub(crate) fn required(&self, environment: &Environment) -> Result<String> {
        self.read(environment)?.ok_or_else(|| {
            UsageError(
                "which address? Give `--url -`, `--url @FILE` or `--url VARIABLE`".to_owned(),
            )
            .into()
        })
    }
}

/// Reads a token from an option, where `-` means standard input, or else from a variable of the environment.
fn read_token(
    given: Option<&str>,
    what: &str,
    variable: &str,
    environment: &Environment,
) -> Result<Option<String>> {
    match given {
        Some("-") => read_secret(what).map(Some),
        Some(token) => {
            say(format!(
                "warning: others on this machine can see the token in the process list: give `-`, or {variable}"
            ));
            Ok(Some(token.to_owned()))
        }
        None => Ok(environment.get(variable).map(str::to_owned)),
    }
}

/// Parses `true` and `false` in any case, because the original capitalizes them.
pub(crate) fn yes_or_no(text: &str) -> Result<bool, String> {
    text.to_ascii_lowercase().parse().map_err(|_| "`true` or `false`".to_owned())
}

/// Parses a time like `90`, `90s`, `1m` or `2h`, as seconds.
pub(crate) fn duration_in_seconds(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
    seconds.ok_or_else(|| "a time like `90s`, `1m` or `2h`".to_owned())
}

/// Parses an option that is a whole number.
pub(crate) fn whole_number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a whole number, like 600")
}

/// Reads a secret without echo from a terminal, or all of standard input otherwise.
pub(crate) fn read_secret(what: &str) -> Result<String> {
    let cannot_read = || format!("cannot read {what} from standard input");
    let text = if std::io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        terminal
            .write_str(&format!("{what}: "))
            .and_then(|()| terminal.read_secure_line())
            .with_context(cannot_read)?
    } else {
        let mut text = String::new();
        std::io::stdin()
            .take(LONGEST_SECRET)
            .read_to_string(&mut text)
            .with_context(cannot_read)?;
        text
    };
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(
            UsageError(format!("{what} is empty: type it, or pipe it into the command")).into()
        );
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_a_file_or_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "line 1\nline=2\n").unwrap();
        let environment = Environment::from([("NPM", "n")]);
        let read = |text: String| read_secret_pairs("--set-secret", &[text], &environment);
        let given = format!("KEY=@{}", file.display());
        assert_eq!(read(given).unwrap()["KEY"], "line 1\nline=2\n", "byte for byte");
        assert_eq!(read("NPM".to_owned()).unwrap()["NPM"], "n");
        let error = read("KEY=@/nowhere/key".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the secret in /nowhere/key");
        std::fs::write(&file, "x".repeat(70_000)).unwrap();
        assert!(read(format!("KEY=@{}", file.display())).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn an_address_is_in_a_file_or_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "https://h.test/a\n").unwrap();
        let environment = Environment::from([("SLACK_URL", "https://h.test/b")]);
        let read = |url: &str| AddressArg { url: Some(url.to_owned()) }.required(&environment);
        assert_eq!(read(&format!("@{}", file.display())).unwrap(), "https://h.test/a");
        assert_eq!(read("SLACK_URL").unwrap(), "https://h.test/b");
        assert_eq!(
            read("GONE").unwrap_err().to_string(),
            "--url GONE: GONE is not set in the environment: set it, or give `-` or `@FILE`"
        );
        assert!(AddressArg { url: None }.required(&environment).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn an_argument_without_value_reads_the_environment() {
        let environment = Environment::from([("NPM", "n"), ("EMPTY", "")]);
        let read = |text: &str| read_pairs("--build-arg", &[text.to_owned()], &environment);
        assert_eq!(read("A=b=c").unwrap()["A"], "b=c");
        assert_eq!(read("A=").unwrap()["A"], "");
        assert_eq!(read("NPM").unwrap()["NPM"], "n");
        let error = read("GONE").unwrap_err();
        assert!(error.is::<UsageError>());
        assert_eq!(
            error.to_string(),
            "--build-arg GONE: GONE is not set in the environment: set it, or give GONE=VALUE"
        );
    }
}
