//! The program as an operator and a service manager meet it: exit codes, refusals, readiness, commands.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a configuration for a server named `name`, and the ports that it uses.
struct Site {
    directory: TempDir,
    clients: u16,
    operators: u16,
}

impl Site {
    fn new() -> Self {
        let site =
            Self { directory: TempDir::new().expect("a directory"), clients: free_port(), operators: free_port() };
        site.configure("hearth.test");
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, name: &str) {
        let text = format!(
            "[server]\nname = \"{name}\"\n[listen]\nclient = [\"127.0.0.1:{}\"]\nmetrics = \"127.0.0.1:{}\"\n\
             [storage]\npath = {:?}\n[registration]\nmode = \"open\"\n",
            self.clients,
            self.operators,
            self.path("store").display().to_string(),
        );
        fs::write(self.path("hearth.toml"), text).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(self.path("hearth.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Starts the server and waits until it has told its service manager that it is ready.
    fn run(&self) -> (Running, UnixDatagram) {
        let socket = self.path("notify");
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).expect("bound");
        manager.set_read_timeout(Some(PATIENCE)).expect("set");
        let child = self.command(&["run"]).env("NOTIFY_SOCKET", &socket).spawn().expect("the program starts");
        let running = Running(child);
        assert!(told(&manager).starts_with("READY=1\n"));
        (running, manager)
    }
}

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 200];
    let length = manager.recv(&mut buffer).expect("the server tells its manager");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A server process, killed when dropped.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill(1) runs");
        assert!(sent.success(), "{sent}");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().expect("our own child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after {PATIENCE:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

fn get(port: u16, path: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("listening");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("text");
    answer
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", error(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_server_tells_its_manager_answers_health_and_stops_on_sigterm() {
    let site = Site::new();
    let (mut running, manager) = site.run();
    assert!(get(site.operators, "/health").ends_with("{\"status\":\"ok\"}"));
    assert!(get(site.operators, "/metrics").contains("process_resident_memory_bytes"));
    assert!(get(site.clients, "/_matrix/client/versions").starts_with("HTTP/1.1 200 "));
    assert!(get(site.clients, "/metrics").starts_with("HTTP/1.1 404 "), "metrics are for the operator");
    let began = Instant::now();
    running.signal("TERM");
    assert!(told(&manager).starts_with("STOPPING=1\n"));
    assert_eq!(running.exit_code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn connections_leave_open_files_for_the_store() {
    let site = Site::new();
    let limited = "ulimit -Sn 256; ulimit -Hn 1024; exec \"$0\" run --config \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, BINARY]).arg(site.path("hearth.toml")).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(command.spawn().expect("starts"));
    let mut log = BufReader::new(running.0.stderr.take().expect("piped")).lines();
    let line = log.by_ref().map(|line| line.expect("text")).find(|line| line.contains("max_connections"));
    assert!(line.expect("a warning").contains("allowed=384"));
    assert!(log.any(|line| line.expect("text").contains("serving")));
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn the_watchdog_is_fed() {
    let site = Site::new();
    let socket = site.path("notify");
    let manager = UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut command = site.command(&["run"]);
    let child = command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000").spawn().expect("starts");
    let _running = Running(child);
    let messages: Vec<_> = (0..4).map(|_| told(&manager)).collect();
    assert!(messages.iter().filter(|message| *message == "WATCHDOG=1").count() >= 3, "{messages:?}");
}

#[test]
fn wrong_configurations_are_refused_with_status_78() {
    let site = Site::new();
    fs::write(site.path("hearth.toml"), "[server]\nnmae = \"example.org\"\n").expect("written");
    for command in [["run"], ["check-config"], ["fsck"]] {
        let output = site.output(&command);
        assert_eq!(output.status.code(), Some(78));
        assert!(error(&output).contains("hearth.toml:2:1: there is no setting server.nmae; did you mean \"name\"?"));
    }
    site.configure("not a name");
    assert_eq!(site.output(&["check-config"]).status.code(), Some(78));
    site.configure("hearth.test");
    assert!(text(&site.output(&["check-config"])).ends_with("hearth.toml: ok\n"));
    fs::remove_file(site.path("hearth.toml")).expect("there");
    assert!(error(&site.output(&["run"])).contains("cannot read the configuration"));
}

#[test]
fn ports_and_stores_in_use_are_refused_with_status_75() {
    let site = Site::new();
    let (_running, _manager) = site.run();
    let second = site.output(&["run"]);
    assert_eq!(second.status.code(), Some(75), "{}", error(&second));
    assert!(error(&second).contains("cannot listen on 127.0.0.1:"));
    let other_port = site
        .command(&["run"])
        .env("HEARTH__LISTEN__CLIENT", "127.0.0.1:0")
        .env("HEARTH__LISTEN__METRICS", "off")
        .output();
    let other_port = other_port.expect("starts");
    assert_eq!(other_port.status.code(), Some(75), "{}", error(&other_port));
    assert!(error(&other_port).contains("is in use by another process"));
    let token = site.output(&["registration-token", "list"]);
    assert_eq!(token.status.code(), Some(75));
    assert!(error(&token).contains("Stop the server first"));
}

#[test]
fn a_store_keeps_its_name_and_its_key() {
    let site = Site::new();
    let (mut running, _manager) = site.run();
    running.signal("INT");
    assert_eq!(running.exit_code(), Some(0));
    site.configure("other.test");
    let renamed = site.output(&["run"]);
    assert_eq!(renamed.status.code(), Some(78));
    assert!(error(&renamed).contains("belongs to the server hearth.test, not to other.test"), "{}", error(&renamed));
    site.configure("hearth.test");
    let key = site.path("store/signing.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    let readable = site.output(&["run"]);
    assert_eq!(readable.status.code(), Some(78));
    assert!(error(&readable).contains("chmod 600"), "{}", error(&readable));
    fs::remove_file(&key).expect("there");
    let missing = site.output(&["run"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(error(&missing).contains("from a backup"), "{}", error(&missing));
}

#[test]
fn registration_tokens_are_made_listed_and_deleted() {
    let site = Site::new();
    let made = text(&site.output(&["registration-token", "create", "--uses", "3"]));
    let token = made.trim();
    assert_eq!(token.len(), 22, "{token}");
    let listed = text(&site.output(&["registration-token", "list"]));
    assert!(listed.contains("   0        3  never"), "{listed}");
    assert!(!listed.contains(token), "the list shows hashes");
    assert_eq!(site.output(&["registration-token", "create", "--token", token]).status.code(), Some(65));
    assert_eq!(text(&site.output(&["registration-token", "delete", token])), "deleted\n");
    assert_eq!(site.output(&["registration-token", "delete", token]).status.code(), Some(65));
}

#[test]
fn fsck_needs_a_store_and_reports_as_json() {
    let site = Site::new();
    let none = site.output(&["fsck"]);
    assert_eq!(none.status.code(), Some(78));
    assert!(error(&none).contains("there is no store at"));
    let (mut running, _manager) = site.run();
    running.signal("TERM");
    assert_eq!(running.exit_code(), Some(0));
    let report: serde_json::Value = serde_json::from_str(&text(&site.output(&["fsck", "--json"]))).expect("JSON");
    assert_eq!(report["ok"], true);
}

#[test]
fn a_development_server_makes_its_own_configuration() {
    let directory = TempDir::new().expect("a directory");
    let home = directory.path().join("dev");
    let output = Command::new(BINARY).args(["check-config", "--dev"]).arg(&home).output().expect("starts");
    assert!(text(&output).ends_with("hearth.toml: ok\n"));
    assert!(fs::read_to_string(home.join("hearth.toml")).expect("made").contains("name = \"localhost\""));
}

#[test]
fn generated_files_are_up_to_date() {
    let root = hearth_test_harness::root();
    for (flag, file) in [("--example", "config/example.toml"), ("--docs", "docs/configuration.md")] {
        let output = Command::new(BINARY).args(["generate-config", flag]).output().expect("starts");
        let kept = fs::read_to_string(root.join(file)).expect("kept");
        assert!(text(&output) == kept, "{file} differs: run .ci/generated --write");
    }
}
