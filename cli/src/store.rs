//! `gantry store`: work on the store itself, beside or without a running service.

use anyhow::Result;
use gantry_ops::secret::ExposeSecret as _;

use crate::args::StoreCommand;
use crate::client::output::write_out;
use crate::compose;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::serve;

pub(crate) async fn run(command: StoreCommand, environment: &Environment) -> Result<Exit> {
    match command {
        StoreCommand::AdminToken(options) => {
            let settings = serve::read_settings(&options, &[], environment)?;
            let opened = compose::OpenStore::open(&settings).await?;
            let token = compose::new_admin_token(&opened.store).await?;
            write_out(&format!("{}\n", token.expose_secret()))?;
        }
    }
    Ok(Exit::Ok)
}
