//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use gantry_ops::settings::Flag;

use crate::client::ClientCommand;
use crate::client::login::Login;
use crate::client::output::Output;
use crate::client::worker::Workers;
use crate::cron::Cron;
use crate::secret::SecretCommand;

/// Build container images on a push or on request
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "`gantry up` is the whole service on this machine; `ingress`, `scheduler` and `worker` are its parts as \
                  processes over Redis and RabbitMQ; the others ask a server. `gantry COMMAND --help` has examples.",
    after_long_help = "\
First steps:
  gantry up                                the whole service; prints its address
  gantry registry create main --login-server ghcr.io -u USER --password-stdin
  gantry build -t 'hello:{{.Run.ID}}' .    builds this folder and pushes the image
  gantry task create -n web -c https://github.com/octo/web.git#main -t 'web:{{.Run.ID}}'
  gantry hook create --provider github     what to enter at GitHub: a push builds

Exit codes: 0 done, 1 failed or refused, 2 wrong arguments, 3 the run was cancelled, 4 the run ran out of time, \
5 the infrastructure failed, 130 Ctrl-C.

Environment: GANTRY_URL and GANTRY_TOKEN name the server instead of `gantry login`, GANTRY_REGISTRY the registry \
instead of -r, GANTRY_CONFIG the file where `gantry login` keeps both; NO_COLOR. `gantry settings` lists what \
the service reads."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Output format: for people, for programs, or for Graphviz
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(Up),
    Ingress(IngressRole),
    Scheduler(SchedulerRole),
    Worker(WorkerCommand),
    #[command(subcommand)]
    Store(StoreCommand),
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Check whether the process with these settings on this machine is ready
    #[command(after_long_help = "\
It asks /readyz at `telemetry.listen`, prints the answer, and fails when something is missing that the process needs: \
for health checks of container engines.

Example:
  gantry ready --config gantry.toml")]
    Ready(SettingsOptions),
    /// Print every setting with its default and what it means
    #[command(after_long_help = "What it prints is a settings file to start from:
  gantry settings > gantry.toml")]
    Settings,
    Login(Login),
    #[command(subcommand)]
    Cron(Cron),
    #[command(flatten)]
    Client(Box<ClientCommand>),
    /// Print shell completions
    #[command(after_long_help = "Examples:
  gantry completions bash > /etc/bash_completion.d/gantry
  gantry completions zsh > ~/.zfunc/_gantry
  gantry completions fish > ~/.config/fish/completions/gantry.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether the answer can be drawn, for `-o dot`.
    pub(crate) fn draws(&self) -> bool {
        matches!(self, Self::Client(command) if command.draws())
    }
}

/// Start the whole service: API, hooks, scheduler and a worker in one process
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
At first start it makes an admin token, prints it once, and keeps it where the client on this machine finds it. \
Ctrl-C or SIGTERM stops it in good order: runs that are building are handed back and built again at the next start; a \
second Ctrl-C ends it at once.

Examples:
  gantry up
  gantry up --data /var/lib/gantry --listen 0.0.0.0:7300
  gantry up --set worker.slots=4 --set outbound.allow=registry.lan
  gantry settings > gantry.toml && gantry up")]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) settings: SettingsOptions,
    #[command(flatten)]
    listen: ListenOption,
    /// Create another admin token, if the first is lost
    #[arg(long)]
    pub(crate) new_admin_token: bool,
}

impl Up {
    /// The settings that have their own options.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        self.listen.flags()
    }
}

/// Serve the API and the hooks, over a Redis and a RabbitMQ of their own
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Any number may run, behind one address. SIGTERM ends it once what is under way is answered.

Examples:
  gantry ingress --config gantry.toml
  gantry ingress --listen 0.0.0.0:7300 --set store.url=redis://redis.lan/0 \
--set queue.urls=amqp://gantry@rabbitmq.lan")]
pub(crate) struct IngressRole {
    #[command(flatten)]
    pub(crate) settings: SettingsOptions,
    #[command(flatten)]
    listen: ListenOption,
}

impl IngressRole {
    /// The settings that have their own options.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        self.listen.flags()
    }
}

/// Decide which runs start, over a Redis and a RabbitMQ of their own
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Any number may run; one is enough, a second takes over what the first leaves.

Examples:
  gantry scheduler --config gantry.toml")]
pub(crate) struct SchedulerRole {
    #[command(flatten)]
    pub(crate) settings: SettingsOptions,
}

/// Build runs, over a Redis and a RabbitMQ of their own; or see the workers
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Without a command of its own it is a worker: it takes the runs of its pool and builds them on the engine of this \
machine. Any number may run; two on one machine need a --data each. SIGTERM hands its runs back.

Examples:
  gantry worker --config gantry.toml --pool linux-amd64 --slots 4
  gantry worker --data /var/lib/gantry-worker-2 --name builder-2
  gantry worker list"
)]
pub(crate) struct WorkerCommand {
    /// Commands about the workers of a server
    #[command(subcommand)]
    pub(crate) ask: Option<Workers>,
    #[command(flatten)]
    pub(crate) role: WorkerRole,
}

/// The options of a worker process.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerRole {
    #[command(flatten)]
    pub(crate) settings: SettingsOptions,
    /// The pool to take runs from [default: the pool of this machine's platform, like linux-amd64]
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// How many runs at once [default: 2]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// Its name, unique among the workers [default: `worker-` and random digits]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl WorkerRole {
    /// The settings that have their own options.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let options = [
            ("--pool", "worker.pool", &self.pool),
            ("--slots", "worker.slots", &self.slots),
            ("--name", "worker.name", &self.name),
        ];
        let given = options.into_iter().filter_map(|(name, key, value)| {
            value.as_ref().map(|value| flag(name, key, value.clone()))
        });
        given.collect()
    }
}

/// Work on the store itself, with the settings of the service
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Create an admin token and print it
    #[command(
        name = "admin-token",
        after_long_help = "Example:
  gantry store admin-token --config gantry.toml | gantry login http://gantry.lan:7300"
    )]
    AdminToken(SettingsOptions),
    /// Copy the data folder of `gantry up` while it runs
    #[command(after_long_help = "\
Everything that was accepted before it began is in it, as the store was at one moment. A former backup in the folder is \
brought up to date, and stays whole if that breaks off. The key file is not in it: what is sealed opens with that alone, so \
keep it in another place.

The folder is a data folder. To restore, copy it, put the key file beside it and start:
  gantry store backup --data /var/lib/gantry --to /mnt/backup/gantry
  cp -a /mnt/backup/gantry /var/lib/gantry && cp -a secret.key /var/lib/gantry/ && gantry up --data /var/lib/gantry")]
    Backup {
        /// A new or empty folder, or a former backup
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        settings: SettingsOptions,
    },
    /// Write everything that an installation keeps into a folder, to move it into another store
    #[command(after_long_help = "\
Stop every process of the installation first: what they write meanwhile may be missing. What is sealed stays sealed, so \
take `secret.key` along too.

From `gantry up` to processes over Redis and RabbitMQ, and back in the same way:
  gantry store export --data /var/lib/gantry --to moving
  gantry store import --config gantry.toml --from moving")]
    Export {
        /// A new or empty folder
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        settings: SettingsOptions,
    },
    /// Read what `gantry store export` wrote into an empty store
    #[command(after_long_help = "\
It reads the folder to its end before it writes anything. Broken off, it is repeated with the same folder; until then no \
process starts on that store. Then start the processes with the key file of the former installation.

Example:
  gantry store import --config gantry.toml --from moving")]
    Import {
        /// The folder
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        settings: SettingsOptions,
    },
}

/// The options for the origin of settings.
#[derive(Debug, clap::Args)]
pub(crate) struct SettingsOptions {
    /// The folder that holds everything gantry keeps [default: gantry-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The settings file, instead of gantry.toml here or in the data folder
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Any setting, like worker.slots=4. May be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

impl SettingsOptions {
    /// The settings given on the command line.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let set = self.set.iter().map(|(key, value)| flag("--set", key, value.clone()));
        let data = self.data.iter().map(|path| flag("--data", "data", path.display().to_string()));
        set.chain(data).collect()
    }
}

#[derive(Debug, clap::Args)]
struct ListenOption {
    /// Where to serve the API and the hooks [default: 127.0.0.1:7300]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
}

impl ListenOption {
    fn flags(&self) -> Vec<Flag> {
        let address = self.listen.iter();
        address.map(|address| flag("--listen", "server.listen", address.to_string())).collect()
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an IP address and a port, like 127.0.0.1:7300")
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE, like worker.slots=4")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn flag(name: &str, key: &str, value: String) -> Flag {
    Flag { name: name.to_owned(), key: key.to_owned(), value }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_are_settings() {
        let arguments = Arguments::parse_from([
            "gantry",
            "up",
            "--listen",
            "127.0.0.1:1",
            "--set",
            "worker.slots = 4",
            "--data",
            "d",
        ]);
        let Command::Up(up) = arguments.command else { panic!("it is `up`") };
        let flags: Vec<String> = up
            .settings
            .flags()
            .into_iter()
            .chain(up.flags())
            .map(|flag| format!("{} {}={}", flag.name, flag.key, flag.value))
            .collect();
        assert_eq!(
            flags,
            ["--set worker.slots=4", "--data data=d", "--listen server.listen=127.0.0.1:1"]
        );
    }

    #[test]
    fn worker_runs_the_role_and_has_client_subcommands() {
        let parse = |line: &str| match Arguments::try_parse_from(line.split(' ')) {
            Ok(Arguments { command: Command::Worker(worker), .. }) => Some(worker),
            _ => None,
        };
        let role = parse("gantry worker --pool arm --slots 4 --name w --data d").unwrap();
        assert!(role.ask.is_none());
        let flags = role.role.flags().into_iter().map(|flag| (flag.key, flag.value));
        let wanted = [("worker.pool", "arm"), ("worker.slots", "4"), ("worker.name", "w")];
        assert!(flags.eq(wanted.map(|(key, value)| (key.to_owned(), value.to_owned()))));
        assert!(parse("gantry worker list").unwrap().ask.is_some());
        assert!(parse("gantry worker --pool arm list").is_none());
    }

    #[test]
    fn the_commands_of_the_guide_to_base_images_are_understood() {
        let guide = include_str!("../../docs/base-images.md");
        let lines: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
        assert!(lines.len() >= 8, "{lines:?}");
        for line in lines {
            let command = line.split(" | ").next().unwrap();
            if let Err(error) = Arguments::try_parse_from(command.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn only_commands_that_answer_with_a_graph_draw() {
        let draws = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.output, Output::Dot);
            arguments.command.draws()
        };
        for line in ["gantry why a -o dot", "gantry impact --base a -o dot"] {
            assert!(draws(line), "{line}");
        }
        assert!(draws("gantry wave show ca-w1 -o dot"));
        for line in ["gantry wave list -o dot", "gantry wave drop ca-w1 -o dot", "gantry up -o dot"]
        {
            assert!(!draws(line), "{line}");
        }
    }

    #[test]
    fn every_command_and_argument_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(
                    argument.get_help().is_some() || id == "help" || id == "version",
                    "{}: {id}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    /// The demo and the READMEs use these.
    #[test]
    fn commands_of_the_original_are_understood() {
        for line in [
            "gantry build -r demo -t web:v1 -t web:latest -f Dockerfile --build-arg A=1 --secret-build-arg B --target t --platform linux --timeout 600 --no-push --no-logs --no-wait --no-format .",
            "gantry task create -r demo -n hello --image hello:{{.Run.ID}} --context https://h/r.git#main --file Dockerfile --git-access-token t --commit-trigger-enabled false --no-push --arg A=1 --secret-arg B=2 --status Disabled",
            "gantry task update -n hello --commit-trigger-enabled True --no-cache false",
            "gantry task timer add -r demo -n hello --timer-name t2 --schedule @ --enabled true",
            "gantry task timer update -n hello --timer-name t2 --enabled False",
            "gantry task timer remove -n hello --timer-name t2",
            "gantry task timer list -n hello",
            "gantry task run -r demo -n hello -c . --no-wait",
            "gantry task list-runs -r demo --name hello --run-status failed --top 3 --output json",
            "gantry task show-run -r demo --run-id ca1",
            "gantry task cancel-run --run-id ca1",
            "gantry task logs --run-id ca1",
            "gantry task logs -n hello",
            "gantry logs --task hello --follow",
            "gantry hook create -r demo --provider github --repository https://h/r.git --output json",
            "gantry registry create demo --login-server 127.0.0.1:5000 -u a --password-stdin",
        ] {
            let words = line.split(' ');
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
