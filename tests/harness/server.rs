//! One server process and its directory.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Api, Config};

/// How long a server may take to answer `/versions`; far above what it should, for a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A server process on a loopback port, with a directory of its own; killed when dropped.
pub struct Server {
    binary: PathBuf,
    home: Home,
    port: u16,
    child: Option<Child>,
    api: Api,
}

/// Where a server keeps its files.
enum Home {
    /// Removed with the server.
    Own(TempDir),
    /// Somebody else's.
    Lent(PathBuf),
}

impl Server {
    /// Starts `binary` (`env!("CARGO_BIN_EXE_hearth")`) with a fresh store. `HEARTH_TEST_BINARY` names another.
    pub async fn start(binary: &str, config: &Config) -> Self {
        let home = Home::Own(TempDir::new().expect("a temporary directory"));
        Self::start_at(binary, config, home).await
    }

    /// Starts it with the store in `directory`, which stays.
    pub async fn start_in(binary: &str, config: &Config, directory: &Path) -> Self {
        Self::start_at(binary, config, Home::Lent(directory.to_owned())).await
    }

    async fn start_at(binary: &str, config: &Config, home: Home) -> Self {
        let port = free_port();
        let api = Api::new(&format!("http://127.0.0.1:{port}"));
        let binary = std::env::var_os("HEARTH_TEST_BINARY").map_or_else(|| binary.into(), PathBuf::from);
        let mut server = Self { binary, home, port, child: None, api };
        fs::write(server.config_path(), config.text(port, &server.directory().join("store")))
            .expect("the configuration can be written");
        server.spawn();
        server.ready().await;
        server
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log can be opened");
        let child = Command::new(&self.binary)
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's handle can be copied"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.binary.display()));
        self.child = Some(child);
    }

    /// Waits until the server answers.
    async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                panic!("the server ended with {status} instead of starting:\n{}", self.last_log());
            }
            if let Ok(answer) = self.api.get("/_matrix/client/versions").try_send().await
                && answer.status == 200
            {
                return;
            }
            assert!(began.elapsed() < START_DEADLINE, "not ready in {START_DEADLINE:?}:\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL: nothing of the process runs afterwards, and nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Starts the killed or stopped server again on the same port and store; gives the time until it answered.
    pub async fn restart(&mut self) -> Duration {
        self.kill();
        let began = Instant::now();
        self.spawn();
        self.ready().await;
        began.elapsed()
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        let child = self.child.as_ref().expect("the server runs");
        let sent = Command::new("kill").arg(child.id().to_string()).status().expect("kill(1) runs");
        assert!(sent.success(), "kill(1) failed: {sent}");
    }

    /// Waits for the process to end by itself.
    pub async fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(began.elapsed() < at_most, "still running after {at_most:?}:\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How the process ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("our own child can be asked"))
    }

    /// Runs another command of the binary on this server's configuration; gives success and the output.
    pub fn command(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(&self.binary)
            .args(arguments)
            .arg("--config")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    /// Requests to this server.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:port`, for raw connections.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process's id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that it logged, over all restarts.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).expect("the log was opened at the start");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn last_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn directory(&self) -> &Path {
        match &self.home {
            Home::Own(directory) => directory.path(),
            Home::Lent(directory) => directory,
        }
    }

    fn config_path(&self) -> PathBuf {
        self.directory().join("hearth.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("hearth.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // A failed test shows what the server had to say.
        if std::thread::panicking() {
            eprintln!("--- the server's last lines\n{}\n---", self.last_log());
        }
    }
}

/// A loopback port that nobody listened on a moment ago, and that this process has not given out before.
pub fn free_port() -> u16 {
    // Below those that the kernel gives to connections: one that is free now is free when a server starts.
    const RANGE: std::ops::Range<u32> = 20_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id().wrapping_mul(97).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = RANGE.start + offset % (RANGE.end - RANGE.start);
        let port = u16::try_from(port).expect("the range is of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
