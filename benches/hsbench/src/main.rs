//! hsbench: drives any Matrix homeserver through the client-server HTTP API.

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
        scenarios::NAMES.iter().for_each(|n| println!("{n}"));
        return;
    }
    let names: Vec<String> = if args.scenario == ["all"] {
        scenarios::NAMES.iter().map(|s| s.to_string()).collect()
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
