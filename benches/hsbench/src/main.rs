//! hsbench: drives any Matrix homeserver through the client-server HTTP API.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures are rounded for people, and small"
)]
#![expect(
    clippy::many_single_char_names,
    clippy::similar_names,
    reason = "`hs`, `us`, `w`, `i` are the same everywhere"
)]

mod client;
mod ctx;
mod procstat;
mod report;
mod scenarios;

use clap::Parser;
use std::sync::Arc;

fn main() {
    let args = ctx::Args::parse();
    if args.list {
        for name in scenarios::NAMES {
            println!("{name}");
        }
        return;
    }
    let names: Vec<String> = if args.scenario == ["all"] {
        scenarios::NAMES.iter().map(ToString::to_string).collect()
    } else {
        args.scenario.clone()
    };
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build().expect("runtime");
    let ctx = Arc::new(ctx::Ctx::new(args));
    rt.block_on(async {
        for n in names {
            eprintln!("== {n}");
            scenarios::run(&ctx, &n).await;
        }
    });
}
