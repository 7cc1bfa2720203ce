//! The binary: see [`vm_helper::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vm_helper::cli::run(std::env::args_os()))
}
