//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until SIGTERM or Ctrl-C.
    Run(Run),
    /// Tell everything that is wrong with the configuration.
    CheckConfig(Source),
    /// Print the example configuration, or its reference page.
    GenerateConfig(Generate),
    /// Check the store's invariants. The server must not be running.
    Fsck(Fsck),
    /// Make, list and delete registration tokens. The server must not be running.
    RegistrationToken(Tokens),
    /// Print what users have reported as inappropriate, one JSON object a line. The server must not be
    /// running.
    Reports(Reports),
    /// Tell whether other servers can reach a server, and what to do if not. Run it on another machine
    /// than the server to see what others see.
    Doctor(Doctor),
    /// Print the version.
    Version,
}

/// Where settings come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "HEARTH_CONFIG", default_value = "/etc/hearth/hearth.toml")]
    pub(crate) config: PathBuf,
    /// Use a development configuration in DIR instead, made at the first start
    /// [default DIR: ~/.local/share/hearth-dev].
    #[arg(long, global = true, value_name = "DIR", num_args = 0..=1, conflicts_with = "config")]
    #[expect(clippy::option_option, reason = "clap's form of an option with an optional value")]
    pub(crate) dev: Option<Option<PathBuf>>,
    /// Use the settings that the protocol's test suite needs, with everything in DIR and the server's
    /// name from the environment variable SERVER_NAME. Not for people: anybody registers, from
    /// anywhere, and passwords are hardly hashed.
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["config", "dev"])]
    pub(crate) conformance: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Start although acknowledged writes are missing from the store (after a restored backup or a
    /// broken disk). Clients may have to log in again, and what was lost stays lost.
    #[arg(long)]
    pub(crate) accept_rollback: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Generate {
    /// Print config/example.toml.
    #[arg(long)]
    pub(crate) example: bool,
    /// Print docs/configuration.md.
    #[arg(long)]
    pub(crate) docs: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fsck {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The server's name: the part of its user IDs after the colon.
    pub(crate) server: String,
    /// Trust the authorities in FILE (PEM), too.
    #[arg(long, value_name = "FILE")]
    pub(crate) authorities: Option<PathBuf>,
    /// Connect to private networks, too, where servers of the internet do not.
    #[arg(long)]
    pub(crate) private: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reports {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Only those of the last N days.
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Tokens {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it.
    Create {
        /// The token; without it the server chooses one that cannot be guessed.
        #[arg(long)]
        token: Option<String>,
        /// How many accounts may be made with it; any number without it.
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
        /// After how many days it ends; never without it.
        #[arg(long, value_name = "N")]
        days: Option<u32>,
    },
    /// List tokens by their hashes.
    List,
    /// Delete a token.
    Delete {
        /// The token.
        token: String,
    },
}
