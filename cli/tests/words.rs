//! The messages for wrong commands and wrong settings: what is wrong, where, the remedy, and the exit code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

/// The program in a folder, with the client's settings there and no others.
fn gantry(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    // Stops a process that starts although it should not.
    command.args(["60", env!("CARGO_BIN_EXE_gantry")]).args(words);
    command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("GANTRY_CONFIG", folder.join("client.toml"));
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    command
}

/// A line of a table: environment variables before `gantry`, its arguments, and after ` < ` its standard input.
fn run(folder: &Path, line: &str) -> Output {
    let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
    let (variables, words) = line.split_once("gantry").unwrap();
    let words: Vec<&str> = words.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let mut command = gantry(folder, &words);
    command.envs(variables.split_whitespace().map(|pair| pair.split_once('=').unwrap()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The process may end without reading its input.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Runs every line, several at once, and returns a table of their output. None may succeed or show a secret.
fn told(folder: &Path, lines: &[&str], hidden: &[(&str, &str)]) -> String {
    let at_once = thread::available_parallelism().map_or(2, |cores| cores.get() * 2);
    let share = lines.len().div_ceil(at_once);
    let answers: Vec<Output> = thread::scope(|scope| {
        let shares: Vec<_> = lines
            .chunks(share)
            .map(|lines| scope.spawn(|| lines.iter().map(|line| run(folder, line)).collect()))
            .collect();
        shares.into_iter().flat_map(|share| -> Vec<Output> { share.join().unwrap() }).collect()
    });
    let mut table = String::new();
    for (line, answer) in lines.iter().zip(answers) {
        let said = String::from_utf8(answer.stderr).unwrap();
        assert!(!matches!(answer.status.code(), Some(0 | 124) | None), "{line}\n{said}");
        assert!(!said.contains("hunter2"), "{line}\n{said}");
        // The argument parser adds the usage to the message, as in `--help`.
        let said = said.split("\nUsage: ").next().unwrap().trim();
        let said = said.trim_end_matches("For more information, try '--help'.").trim_end();
        // A process that had started also wrote log lines.
        let is_said = |line: &&str| !line.starts_with('{');
        let said: Vec<&str> = said.lines().filter(is_said).collect();
        let code = answer.status.code().unwrap();
        writeln!(table, "{line}\n    {}\n    exit code {code}", said.join("\n    ")).unwrap();
    }
    hidden.iter().fold(table, |table, (text, name)| table.replace(text, name))
}

/// A service with a registry `demo`; the client in the folder is logged in to it.
struct Service {
    process: Child,
    url: String,
}

impl Service {
    fn start(folder: &Path) -> Self {
        let words = ["up", "--data", "data", "--listen", "127.0.0.1:0"];
        let mut command = gantry(folder, &words);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut url = None;
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let word = line.split_whitespace().find(|word| word.starts_with("http://"));
            url = url.or_else(|| word.map(str::to_owned));
            if line.contains("Ctrl-C stops it") {
                break;
            }
        }
        let service = Self { process, url: url.unwrap() };
        let created = run(folder, "gantry registry create demo --login-server registry.test");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        service
    }

    fn port(&self) -> &str {
        self.url.rsplit_once(':').unwrap().1.trim_end_matches('/')
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Sends SIGTERM, which `timeout` forwards.
        let pid = self.process.id().to_string();
        let _ended = Command::new("kill").arg(pid).status();
        let _status = self.process.wait();
    }
}

#[test]
fn each_wrong_command_says_what_is_wrong_where_and_what_to_do() {
    let place = TempDir::new().unwrap();
    let folder = place.path();
    let service = Service::start(folder);
    let port = service.port().to_owned();
    for (path, text) in [
        ("app/Dockerfile", "FROM registry.test/busybox:1\n"),
        ("app/deploy/file", ""),
        ("wrong.yaml", "steps:\n- cmd: busybox true\n  when: [no]\n"),
        ("bare/file", ""),
        ("rules/Dockerfile", "FROM registry.test/busybox:1\n"),
        ("rules/.dockerignore", "[a\n"),
        ("no-toml", "token = hunter2\n"),
        ("no-token", "url = 'http://127.0.0.1:1'\ntoken = ['hunter2']\n"),
        ("no-url", "url = 'nowhere'\ntoken = 'hunter2'\n"),
        ("unknown-key", "url = 'http://127.0.0.1:1'\ntoken = 'a'\npassword = 'hunter2'\n"),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink("Dockerfile", folder.join("bare/Dockerfile")).unwrap();
    // A server that is not gantry. It reads the request first, because an earlier answer may arrive as a broken
    // connection.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other_port = other.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        for stream in other.incoming() {
            let answer =
                "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let _head = lines.find(String::is_empty);
            let _cut = stream.write_all(answer.as_bytes());
        }
    });
    let login = [
        format!("gantry login http://127.0.0.1:{port} < "),
        format!("gantry login http://127.0.0.1:{port} < hunter2"),
        format!("gantry login https://127.0.0.1:{port} < token"),
        format!("gantry login http://127.0.0.1:{other_port} < token"),
        format!("GANTRY_URL=http://127.0.0.1:{other_port} gantry status"),
    ];
    let mut lines: Vec<&str> = COMMANDS.trim().lines().collect();
    lines.extend(login.iter().map(String::as_str));
    let hidden = [
        (folder.to_str().unwrap(), "FOLDER"),
        (port.as_str(), "PORT"),
        (other_port.as_str(), "OTHER_PORT"),
    ];
    insta::assert_snapshot!(told(folder, &lines, &hidden));
}

const COMMANDS: &str = "
gantry
gantry biuld
gantry build
gantry build -t
gantry build -t web:1
gantry build -t web:1 app bare
gantry build --tag web:1 app
gantry build -t web:1 --timeout soon app
gantry build -t web:1 --timeout -1 app
gantry build -t web:1 --timeout 0 app
gantry build -t web:1 --platform plan9 app
gantry build -t web:1 --target a=b app
gantry build -t Web:1 app
gantry build -t '' app
gantry build -t web: app
gantry build -t web:{{.Run.Comit}} app
gantry build -t web:{{.Run.Commit}} app
gantry build -t a.example:99999/web:1 app
gantry build -t Web:1 --timeout 0 --platform plan9 app
gantry build -r gone -t web:1 app
gantry build -t web:1 gone
gantry build -t web:1 app/Dockerfile
gantry build -t web:1 bare
gantry build -t web:1 rules
gantry build -t web:1 -f gone app
gantry build -t web:1 -f ../gone app
gantry build -t web:1 -f /gone app
gantry build -t web:1 -f deploy app
gantry build -t web:1 -f '' app
gantry build -t web:1 git@github.com:octo/web.git
gantry build -t web:1 ssh://git:hunter2@github.com/octo/web.git
gantry build -t web:1 ssh://github.com/octo/web.git
gantry build -t web:1 git@github.com:octo/web.git --git-ssh-key gone
gantry build -t web:1 git@github.com:octo/web.git --git-ssh-key gone --git-access-token x
gantry build -t web:1 git@github.com:octo/web.git --git-host-key github.com
gantry build -t web:1 ftp://git.example/a.tar.gz
gantry build -t web:1 https://octo:hunter2@git.example/a.git
gantry build -t web:1 https://git.example/a.git#a..b
gantry build -t web:1 https://git.example/a.git#main:../b
gantry build -t web:1 -f /Dockerfile https://git.example/a.git
gantry build -t web:1 --build-arg A app
gantry build -t web:1 --build-arg =hunter2 app
gantry build -t web:1 --build-arg A-B=hunter2 app
A-B=hunter2 gantry build -t web:1 --secret-build-arg A-B app
gantry build -t web:1 --secret-build-arg A app
gantry build -t web:1 --git-access-token - https://git.example/a.git < 
gantry build -t web:1 --git-access-token - https://git.example/a.git < hunter2 hunter2
gantry build -o xml -t web:1 app
gantry run
gantry run app
gantry run -f gone.yaml
gantry run -f wrong.yaml
gantry run -f wrong.yaml --cmd busybox
gantry run --cmd busybox nowhere
gantry run -f wrong.yaml --set tag
gantry run -f wrong.yaml --set-secret GONE
gantry task lint wrong.yaml
gantry task lint gone.yaml
gantry task create -n file -f wrong.yaml
gantry task create -n file -f gone.yaml
gantry task create -n web
gantry task create -n web -c app -t web:1
gantry task create -n a -c https://git.example/a.git -t web:1
gantry task create -n web -c https://git.example/a.git -t web:1 --commit-trigger-enabled maybe
gantry task create -n web -c https://git.example/a.git -t web:1 --status on
gantry task create -n web -c https://git.example/a.git#refs/tags/v1 -t web:1 --commit-trigger-enabled true
gantry task show -n gone
gantry task show -n a/b
gantry task update -n gone --status Disabled
gantry task run -n gone
gantry task run -n gone -c gone
gantry task delete -n gone
gantry runs list --status done
gantry runs show 1
gantry runs show ca99
gantry logs ca99
gantry logs --task gone
gantry cancel ca99
gantry rerun ca99
gantry hook create
gantry hook create --provider subversion
gantry hook create --provider github --repository octo/web
gantry hook create --provider github --secret-stdin < short
gantry hook show gone
gantry delivery show gone
gantry registry create demo --login-server registry.test
gantry registry create x --login-server registry.test
gantry registry create other --login-server https://registry.test
gantry registry create other --login-server registry.test -u octo --password-stdin < 
gantry registry show gone
gantry registry update gone --run-limit 0
gantry runs list -o dot
gantry why gone:1
gantry why sha256:1
gantry impact
gantry impact --base gone:1
gantry image show gone:1
gantry image show Gone:1
gantry wave show 1
gantry wave show ca-w9
gantry wave resume ca-w9
gantry token create --scope all
gantry token create --scope read --expires-in soon
gantry token revoke gone
gantry worker drain gone
gantry login
gantry login gantry.example < token
gantry login ftp://gantry.example < token
gantry login https://octo:hunter2@gantry.example < token
gantry login http://127.0.0.1:1 < token
gantry login https://127.0.0.1:1 < token
GANTRY_TOKEN=hunter2 gantry status
GANTRY_URL=http://127.0.0.1:1 gantry status
GANTRY_URL=http://127.0.0.1:1 GANTRY_TOKEN=hunter2 gantry status
GANTRY_URL=127.0.0.1 GANTRY_TOKEN=hunter2 gantry status
GANTRY_REGISTRY=gone gantry task list
GANTRY_CONFIG=gone gantry status
GANTRY_CONFIG=app gantry status
GANTRY_CONFIG=no-toml gantry status
GANTRY_CONFIG=no-token gantry status
GANTRY_CONFIG=no-url gantry status
GANTRY_CONFIG=unknown-key gantry status
";

#[test]
fn each_wrong_setting_says_what_is_wrong_where_and_what_to_do() {
    let place = TempDir::new().unwrap();
    let folder = place.path();
    for (path, text) in [
        ("no-toml.toml", "[worker\nslots = 2\n"),
        ("types.toml", "data = 1\n[worker]\nslots = '2'\nenabled = 1\n[outbound]\nallow = 'a'\n"),
        ("unknown.toml", "[wroker]\nslots = 2\n[worker]\nslot = 2\n"),
        ("password.toml", "[store]\npassword = 'hunter2'\nurl = 'redis://me:hunter2@redis.lan'\n"),
        ("not-data", ""),
        ("bad.pem", "hunter2\n"),
        ("bad.key", "hunter2\n"),
        ("empty", ""),
    ] {
        fs::write(folder.join(path), text).unwrap();
    }
    fs::create_dir(folder.join("bad-key")).unwrap();
    fs::write(folder.join("bad-key/secret.key"), "hunter2\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let listen = format!("gantry up --data data-4 --listen 127.0.0.1:{port}");
    let keyed = run(folder, "gantry secret key --to good.key");
    assert!(keyed.status.success(), "{}", String::from_utf8_lossy(&keyed.stderr));
    let role = format!(
        "gantry ingress --set store.url=redis://127.0.0.1:1 --set queue.urls=amqp://127.0.0.1:1 --set patience=1s \
         --set secrets.key_file=good.key --set objects.url=file://{}/objects",
        folder.display()
    );
    let roles = [
        "--set store.password_file=gone",
        "--set queue.password_file=gone",
        "--set store.password_file=empty",
        "--set store.ca_file=gone",
        "--set secrets.key_file=bad.key",
    ]
    .map(|more| format!("{role} {more}").trim_end().to_owned());
    let mut lines: Vec<&str> = SETTINGS.trim().lines().chain([listen.as_str()]).collect();
    lines.extend(roles.iter().map(String::as_str));
    let hidden = [(folder.to_str().unwrap(), "FOLDER"), (port.as_str(), "PORT")];
    insta::assert_snapshot!(told(folder, &lines, &hidden));
}

const SETTINGS: &str = "
gantry up --config gone.toml
gantry up --config .
gantry up --config no-toml.toml
gantry up --config types.toml
gantry up --config unknown.toml
gantry up --config password.toml
gantry up --set worker.slots
gantry up --set worker.slots=
gantry up --set worker.slots=0
gantry up --set worker.slots=-1
gantry up --set worker.slots=4294967296
gantry up --set worker.slots=99999999999999999999
gantry up --set worker.slot=1
gantry up --set worker=1
gantry up --set worker.min_free=10
gantry up --set worker.min_free=99999999999TiB
gantry up --set worker.pool=a/b
gantry up --set worker.enabled=yes
gantry up --set limits.context_files=many
gantry up --set lease.duration=30
gantry up --set lease.renew=30s
gantry up --set lease.duration=0s
gantry up --set sweep.interval=0s
gantry up --set retention.runs=forever
gantry up --set server.listen=localhost:7300
gantry up --set server.listen=7300
gantry up --listen 127.0.0.1:99999
gantry up --set server.public_url=gantry.example
gantry up --set server.public_url=https://octo:hunter2@gantry.example
gantry up --set server.body_budget=1MiB
gantry up --data data-1 --listen 127.0.0.1:0 --set server.tls_certificate=gone.pem --set server.tls_key=gone.pem
gantry up --data data-2 --listen 127.0.0.1:0 --set server.tls_certificate=bad.pem --set server.tls_key=bad.pem
gantry up --data data --listen 127.0.0.1:0 --set server.tls_certificate=bad.pem
gantry up --set github_app.id=Iv1 --set github_app.private_key_file=bad.pem --set github_app.host=git.corp --set github_app.grants=demo
gantry up --set outbound.allow=registry.lan:99999
gantry up --set outbound.allow=10.0.0.0/33
gantry up --set outbound.allow=https://registry.lan
gantry up --set engine.address=docker
gantry up --set objects.url=ftp://objects
gantry up --set objects.url=s3://me:hunter2@bucket
gantry up --set objects.endpoint=objects
gantry up --set telemetry.otlp=collector
gantry up --set telemetry.listen=9090
gantry up --set log.format=xml
gantry up --set log.level=loud
gantry up --data not-data --listen 127.0.0.1:0
gantry up --data bad-key --listen 127.0.0.1:0
gantry up --data data-3 --listen 127.0.0.1:0 --set secrets.key_file=gone/secret.key
gantry up --set store.url=redis://127.0.0.1:1 --data data --listen 127.0.0.1:0
gantry ingress
gantry ingress --set store.url=http://redis.lan --set queue.urls=amqp://127.0.0.1:1
gantry ingress --set store.url=redis://me:hunter2@127.0.0.1:1 --set queue.urls=amqp://127.0.0.1:1
gantry ingress --set store.url=redis://127.0.0.1:1 --set queue.urls=http://127.0.0.1:1
gantry ingress --set store.url=redis://127.0.0.1:1 --set queue.urls=amqp://me:hunter2@127.0.0.1:1
gantry scheduler
gantry worker
gantry worker --slots many
gantry ready --data data --set telemetry.listen=127.0.0.1:1
gantry store backup --data gone --to copy
gantry store export --data gone --to copy
gantry store import --data imported --from gone
gantry secret rekey --data gone
GANTRY_WORKER_SLOTS=many gantry up
GANTRY_WORKER_SLOT=2 gantry up
GANTRY_STORE_PASSWORD=hunter2 gantry up
GANTRY_NONSENSE=hunter2 gantry up
GANTRY_LEASE_RENEW=1h gantry up
";
