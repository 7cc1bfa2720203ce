//! Runs inside the guests and does what the testbed asks over a virtio-serial port; for the benchmark, both ends
//! of its floor.

use std::env;
use std::io;

use testbed::agent::{floor, serve};

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("floor-pi"), _) => floor::pi(),
        (Some("floor-vm"), Some(pi)) => floor::vm(&pi),
        _ => serve::run(),
    }
}
