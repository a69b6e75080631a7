//! Hearth as other servers see it: with a name that leads to it, and a certificate for that name.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::gate::Gate;
use crate::{Api, Authority, Config, Server, free_port};

/// A server under test that federates on loopback, named `127.0.0.2:PORT`.
pub struct Federated {
    server: Server,
    name: String,
    gate: Gate,
    // After the server, which uses what is in it.
    _papers: TempDir,
}

impl Federated {
    /// Starts `binary` with `config` and what federation on loopback needs.
    pub async fn start(binary: &str, config: Config) -> Self {
        Self::start_with(config, async |config| Server::start(binary, config).await).await
    }

    /// The same with the store in `directory`, which stays.
    pub async fn start_in(binary: &str, config: Config, directory: &Path) -> Self {
        Self::start_with(config, async |config| Server::start_in(binary, config, directory).await).await
    }

    async fn start_with(config: Config, start: impl AsyncFnOnce(&Config) -> Server) -> Self {
        let papers = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let gate = Gate::open("127.0.0.2", SocketAddr::from(([127, 0, 0, 1], port)));
        let name = gate.address().to_string();
        let written = Authority::shared().write_papers(&name, papers.path());
        let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
        let config = config
            .with("server", "name", &format!("\"{name}\""))
            .with("listen", "client_tls", &format!("[\"127.0.0.1:{port}\"]"))
            .with("listen", "tls_certificate", &quoted(&written.certificate))
            .with("listen", "tls_key", &quoted(&written.key))
            .with("federation", "allowed_networks", "[\"127.0.0.0/8\", \"::1/128\"]")
            .with("federation", "extra_authorities", &quoted(&written.authority))
            .with("federation", "public_rooms", "true")
            .with("federation", "connect_timeout", "\"5s\"")
            .with("federation", "request_timeout", "\"10s\"")
            // A server that was away is asked again soon.
            .with("federation", "retry_first", "\"500ms\"")
            .with("federation", "retry_longest", "\"1s\"")
            .with("federation", "delivery_retry_longest", "\"1s\"");
        let server = start(&config).await;
        Self { server, name, gate, _papers: papers }
    }

    /// What other servers call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Requests of clients.
    pub fn api(&self) -> &Api {
        self.server.api()
    }

    /// The way of other servers to it.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The process.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}
