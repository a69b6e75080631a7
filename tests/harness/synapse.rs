//! Synapse as a peer: the server that most others federate with, in a process of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gate::Gate;
use crate::hostile::fresh_seed;
use crate::{Api, Authority, free_port, synapse_python};

/// Far above the three seconds that it takes on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Synapse on SQLite, named `localhost:PORT` for other servers.
pub struct Synapse {
    name: String,
    directory: TempDir,
    api: Api,
    gate: Gate,
    process: Mutex<Option<Process>>,
}

/// The process and who ends it when the test process has ended in whatever way.
struct Process {
    synapse: Child,
    guard: Child,
    /// Closed by the kernel at the latest: the guard waits for that.
    _leash: ChildStdin,
}

impl Synapse {
    /// Starts one with an empty database.
    pub async fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let (clients, servers) = (free_port(), free_port());
        let gate = Gate::open("127.0.0.1", SocketAddr::from(([127, 0, 0, 1], servers)));
        let name = format!("localhost:{}", gate.address().port());
        configure(directory.path(), &name, clients, servers);
        let api = Api::new(&format!("http://127.0.0.1:{clients}"));
        let server = Self { name, directory, api, gate, process: Mutex::new(None) };
        server.restart().await;
        server
    }

    /// What other servers call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests of clients.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The way of other servers to it.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let taken = self.process.lock().expect("no test panics while it holds this").take();
        if let Some(mut process) = taken {
            // The guard first: it must not end a stranger that has got the number later.
            for child in [&mut process.guard, &mut process.synapse] {
                child.kill().expect("our own child can be killed");
                child.wait().expect("our own child can be waited for");
            }
        }
    }

    /// Starts it again with what it has stored.
    pub async fn restart(&self) {
        self.kill();
        let process = self.spawn();
        *self.process.lock().expect("no test panics while it holds this") = Some(process);
        let began = Instant::now();
        loop {
            if let Ok(answer) = self.api.get("/_matrix/client/versions").try_send().await
                && answer.status == 200
            {
                return;
            }
            let ended = self
                .process
                .lock()
                .expect("as above")
                .as_mut()
                .and_then(|process| process.synapse.try_wait().expect("our own child can be asked"));
            assert!(ended.is_none(), "Synapse ended instead of starting:\n{}", self.last_log());
            assert!(began.elapsed() < START_DEADLINE, "not ready in {START_DEADLINE:?}:\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn spawn(&self) -> Process {
        let path = self.directory.path().join("output.log");
        let log = File::options().create(true).append(true).open(path).expect("the log can be opened");
        let synapse = Command::new(synapse_python())
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(self.directory.path().join("homeserver.yaml"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's handle can be copied"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the Python of matrix-synapse starts");
        let mut guard = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 \"-$0\""])
            .arg(synapse.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let leash = guard.stdin.take().expect("its input is ours");
        Process { synapse, guard, _leash: leash }
    }

    /// The last lines of its logs.
    pub fn last_log(&self) -> String {
        let read = |name: &str| fs::read(self.directory.path().join(name)).unwrap_or_default();
        let text = [read("output.log"), read("homeserver.log")].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the last lines of Synapse {}\n{}\n---", self.name, self.last_log());
        }
    }
}

/// Writes its configuration: that of the benchmarks, and federation.
fn configure(directory: &Path, name: &str, clients: u16, servers: u16) {
    let key = format!("ed25519 a_test {}\n", base64_of(&fresh_seed()));
    fs::write(directory.join("signing.key"), key).expect("the key can be written");
    let script = crate::root().join("benches/synapse_config.py");
    let made = Command::new(synapse_python())
        .arg(script)
        .arg(directory)
        .args([&clients.to_string(), "sqlite", "4"])
        .output()
        .expect("the Python of matrix-synapse starts");
    assert!(made.status.success(), "no configuration: {}", String::from_utf8_lossy(&made.stderr));
    let path = directory.join("homeserver.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("just written")).expect("JSON is YAML");
    federate(&mut config, directory, name, servers);
    fs::write(&path, config.to_string()).expect("it can be written again");
}

fn federate(config: &mut Value, directory: &Path, name: &str, servers: u16) {
    let papers = Authority::shared().write_papers(name, directory);
    let text = |path: PathBuf| path.display().to_string();
    config["server_name"] = json!(name);
    config["listeners"].as_array_mut().expect("a list").push(json!({
        "port": servers, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": true,
        "resources": [{"names": ["federation"], "compress": false}],
    }));
    config["tls_certificate_path"] = json!(text(papers.certificate));
    config["tls_private_key_path"] = json!(text(papers.key));
    config["federation_custom_ca_list"] = json!([text(papers.authority)]);
    config["ip_range_blacklist"] = json!([]);
    config["federation_ip_range_blacklist"] = json!([]);
    config.as_object_mut().expect("an object").remove("federation_domain_whitelist");
    config["rc_federation"] = json!({
        "window_size": 1000, "sleep_limit": 1_000_000, "sleep_delay": 1, "reject_limit": 1_000_000, "concurrent": 50,
    });
    config["allow_public_rooms_over_federation"] = json!(true);
    config["room_list_publication_rules"] = json!([{"action": "allow"}]);
    // A server that was away is asked again soon.
    config["federation"] = json!({
        "client_timeout": "20s", "max_short_retries": 1, "max_long_retries": 1,
        "max_short_retry_delay": 500, "max_long_retry_delay": "1s",
        "destination_min_retry_interval": 500, "destination_retry_multiplier": 1,
        "destination_max_retry_interval": "1s",
    });
}

/// `bytes` in unpadded base64.
fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}
