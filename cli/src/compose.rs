use crate::args::Up;
use crate::environment::Environment;
use crate::exit::Exit;

pub(crate) async fn up(_up: Up, _environment: &Environment) -> anyhow::Result<Exit> {
    Ok(Exit::Ok)
}
