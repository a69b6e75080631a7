//! The process: arguments, settings, the graph of services, listeners, signals, exit codes.
//!
//! This is the only crate that names an engine, and the only one that knows everybody's constructor.
//! It has no rule of Matrix in it.

mod admin;
mod cli;
mod conformance;
mod dev;
mod doctor;
mod exit;
mod federation;
mod files;
mod fsck;
mod graph;
mod http;
mod notify;
mod open;
mod reports;
mod run;
mod serve;
mod services;
mod signing_key;
mod tokens;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use hearth_settings::Settings;

use crate::cli::{Arguments, Command, Source};
use crate::exit::{Code, Failure};
use crate::open::Rollback;

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Before logging is set up, and for commands, people read standard error themselves.
            let _ = writeln!(std::io::stderr(), "hearth: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::CheckConfig(source) => {
            let (settings, path) = settings(&source)?;
            let (server_name, _) = graph::names(&settings)?;
            services::load(&settings, &server_name)?;
            print(&format!("{}: ok\n", path.display()))
        }
        Command::GenerateConfig(what) if what.docs => print(&hearth_settings::reference()),
        Command::GenerateConfig(_) => print(&hearth_settings::example()),
        Command::RegistrationToken(tokens) => {
            let (settings, _) = settings(&tokens.source)?;
            tokens::run(&settings, tokens.action)
        }
        Command::Reports(reports) => {
            let (settings, _) = settings(&reports.source)?;
            reports::run(&settings, reports.days)
        }
        Command::Doctor(doctor) => {
            let networks = if doctor.private { doctor::Networks::All } else { doctor::Networks::Public };
            doctor::run(&doctor.server, doctor.authorities.as_ref(), networks)
        }
        Command::Version => print(&format!("hearth {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Run(run) => {
            let (settings, path) = settings(&run.source)?;
            let rollback = if run.accept_rollback { Rollback::Accept } else { Rollback::Refuse };
            let development = run.source.dev.is_some().then_some(path.as_path());
            run::run(&settings, run::Mode { rollback, development })
        }
        Command::Fsck(fsck) => {
            let (settings, _) = settings(&fsck.source)?;
            fsck::run(&settings, if fsck.json { fsck::Format::Json } else { fsck::Format::Text })
        }
    }
}

/// The settings that `source` names, and the file they are in.
fn settings(source: &Source) -> Result<(Settings, PathBuf), Failure> {
    let path = match (&source.conformance, &source.dev) {
        (Some(directory), _) => conformance::prepare(directory)?,
        (None, None) => source.config.clone(),
        (None, Some(None)) => dev::prepare(&dev::default_directory()?)?,
        (None, Some(Some(directory))) => dev::prepare(directory)?,
    };
    let settings = Settings::load(&path).map_err(|error| Failure::new(Code::Unusable, error))?;
    Ok((settings, path))
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(Code::Io, format!("cannot write to standard output: {error}")))
}
