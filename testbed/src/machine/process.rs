//! QEMU as a child that never outlives us.
//!
//! The kernel is asked to kill each child when its parent ends (`setpriv --pdeathsig`): that holds for a test
//! program that is killed as well as for one whose statics are never dropped. The signal follows the thread
//! that started the child, so one thread that lives as long as the program starts them all.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// A command that runs `program` under the arrangement above; add its arguments and pass it to [`spawn`].
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Starts a child from the thread that outlives all others.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::sync_channel::<Order>(8);
        thread::spawn(move || {
            for (mut command, done) in receiver {
                let _ = done.send(command.spawn());
            }
        });
        sender
    });
    let (sender, receiver) = mpsc::sync_channel(1);
    orders.send((command, sender)).map_err(io::Error::other)?;
    receiver.recv().map_err(io::Error::other)?
}
