//! `gantry login`: saves a server and a token for it.

use anyhow::Result;
use gantry_api::Token;
use gantry_ops::secret::SecretString;

use super::arguments::read_secret;
use super::config::{ClientConfig, parse_url, path, shown};
use super::http::Api;
use super::output::{Output, say};
use crate::environment::Environment;
use crate::exit::Exit;

/// Save the address of a server and a token for it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The token is read from GANTRY_TOKEN, else typed unseen, else from a pipe; it is never an argument. It is kept \
readable by you alone in ~/.config/gantry/client.toml, or where GANTRY_CONFIG says. GANTRY_URL and GANTRY_TOKEN \
together need no login.

Examples:
  gantry login https://gantry.example.com
  gantry login http://127.0.0.1:7300 < token.txt")]
pub(crate) struct Login {
    /// The server's address
    url: String,
}

impl Login {
    pub(crate) async fn run(self, output: Output, environment: &Environment) -> Result<Exit> {
        let url = parse_url(&self.url)?;
        if url.scheme() == "http" && !is_this_machine(&url) {
            say(format!(
                "warning: {} is not encrypted: others on the way can read the token",
                shown(&url)
            ));
        }
        let token = match environment.get("GANTRY_TOKEN") {
            Some(token) => token.to_owned(),
            None => read_secret("the token")?,
        };
        let config = ClientConfig { url, token: SecretString::from(token) };
        let current: Token = Api::new(&config)?.get(&["tokens", "current"]).await?;
        let path = path(environment)?;
        config.write(&path)?;
        let place = match &current.registries {
            Some(registries) => format!(" on {}", registries.join(", ")),
            None => String::new(),
        };
        output.print(
            &current,
            format_args!(
                "logged in to {} with token {}, scope {}{place}; kept in {}\n",
                shown(&config.url),
                current.id,
                current.scope,
                path.display()
            ),
        )?;
        Ok(Exit::Ok)
    }
}

fn is_this_machine(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
